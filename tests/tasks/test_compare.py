"""Two files on the same clips: intervals against a slow loop, and the command from files to page."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from artifacts import classifier, save
from vidlet.cli import main
from vidlet.errors import DataError
from vidlet.jobs.evaluate import evaluate
from vidlet.metrics import compare_classes, comparison_summary
from vidlet.tasks.clips import Scored
from vidlet.tasks.compare import paired, short_names

NAMES = ("run", "sit", "wave")


def case(seed: int = 0, people: int = 12, clips: int = 9):
    """Labels and two files' answers: the second is right more often about "wave"."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, people * clips)
    groups = [f"p{i}" for i in range(people) for _ in range(clips)]
    a = np.where(rng.random(len(truth)) < 0.7, truth, rng.integers(0, 3, len(truth)))
    b = np.where(rng.random(len(truth)) < np.where(truth == 2, 0.95, 0.6), truth, rng.integers(0, 3, len(truth)))
    return a, b, truth, groups


def scores_of(guess: np.ndarray) -> np.ndarray:
    return np.eye(3)[guess] * 0.8 + 0.1


def slow_f1(named: np.ndarray, is_one: np.ndarray) -> float:
    return 2 * (named & is_one).sum() / (named.sum() + is_one.sum())


def test_figures_are_scikit_learns_and_intervals_those_of_a_slow_loop():
    a, b, truth, groups = case()
    found = compare_classes(a, b, truth, groups, NAMES)
    theirs = [precision_recall_fscore_support(truth, guess, labels=[0, 1, 2])[:3] for guess in (a, b)]
    for i, figure in enumerate(("precision", "recall", "f1")):
        for k, name in enumerate(NAMES):
            row = found[name][figure]
            assert row.a == pytest.approx(theirs[0][i][k])
            assert row.b == pytest.approx(theirs[1][i][k])
            assert row.difference == pytest.approx(row.a - row.b)
    rng = np.random.default_rng(9)
    rows = {g: np.flatnonzero(np.array(groups) == g) for g in dict.fromkeys(groups)}
    drawn = []
    for _ in range(600):
        chosen = np.concatenate([rows[f"p{i}"] for i in rng.integers(0, 12, 12)])
        f1 = [[slow_f1(g[chosen] == k, truth[chosen] == k) for k in range(3)] for g in (a, b)]
        drawn.append(np.subtract(*f1))
    low, high = np.quantile(np.stack(drawn), [0.025, 0.975], axis=0)
    for k, name in enumerate(NAMES):
        assert found[name]["f1"].low == pytest.approx(low[k], abs=0.03)
        assert found[name]["f1"].high == pytest.approx(high[k], abs=0.03)
    assert found["wave"]["recall"].high < 0  # the one planted difference is seen


def test_two_clips_by_hand():
    # group x: A right, B says sit; group y: both right
    found = comparison_summary(scores_of(np.array([0, 1])), scores_of(np.array([1, 1])), [0, 1], ["x", "y"], NAMES)
    assert found["difference"] == {"mean": 0.5, "low": 0.0, "high": 1.0}
    assert (found["both"], found["only"], found["only_against"], found["neither"]) == (1, 1, 0, 0)
    assert found["agree"] == 0.5
    assert found["per_class"]["run"]["recall"] == {
        "model": 1.0, "against": 0.0, "difference": 1.0, "low": 1.0, "high": 1.0
    }  # fmt: skip
    wave = found["per_class"]["wave"]["f1"]
    assert (wave["difference"], wave["low"]) == (0.0, None)  # no clip of it: its interval is not known
    json.dumps(found, allow_nan=False)


def test_the_order_of_the_clips_changes_nothing_and_swapping_the_files_turns_the_signs():
    a, b, truth, groups = case(1)
    order = np.random.default_rng(0).permutation(len(truth))
    found = compare_classes(a, b, truth, sorted(groups), NAMES)
    again = compare_classes(a[order], b[order], truth[order], [groups[i] for i in order], NAMES)
    swapped = compare_classes(b, a, truth, groups, NAMES)
    for name in NAMES:
        assert again[name]["f1"][:3] == pytest.approx(found[name]["f1"][:3])
        assert swapped[name]["f1"].difference == pytest.approx(-found[name]["f1"].difference)
        assert swapped[name]["f1"].low == pytest.approx(-found[name]["f1"].high)


def test_a_file_against_itself_differs_nowhere():
    a, _, truth, groups = case(2)
    found = comparison_summary(scores_of(a), scores_of(a), truth, groups, NAMES)
    assert found["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert all(row[key] == 0 for c in found["per_class"].values() for row in c.values() for key in ("low", "high"))
    with pytest.raises(DataError, match="pairs need scores"):
        comparison_summary(scores_of(a), scores_of(a[:5]), truth, groups, NAMES)


def test_clips_are_paired_by_what_they_are_and_classes_by_their_names(tiny_run):
    from vidlet.datasets import read_table

    clips = tuple(read_table(tiny_run.clips))[:3]
    first = Scored(clips, np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]), np.ones(3), (), (), ("a", "b"))
    second = Scored(
        (clips[2], clips[0]), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1]), np.ones(2), (), (), ("b", "a")
    )
    one, other = paired(first, second)
    assert one.clips == other.clips == (clips[0], clips[2])
    assert one.scores.tolist() == [[0, 1], [4, 5]]
    assert other.scores.tolist() == [[4, 3], [2, 1]]
    assert one.labels.tolist() == other.labels.tolist() == [0, 0]


def test_the_command_compares_two_files_and_writes_their_page(tiny_run, tmp_path, capsys):
    int8, page = tiny_run.folder / "model.int8.onnx", tmp_path / "page.html"
    words = ["evaluate", str(int8), str(tiny_run.clips), "--split", "all", "--against", str(tiny_run.model)]
    assert main([*words, "--report", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    alone = [evaluate(path, tiny_run.clips, "all") for path in (int8, tiny_run.model)]
    other = found["against"]
    assert found["accuracy"] == alone[0]["accuracy"]
    assert other["accuracy"] == alone[1]["accuracy"]
    assert other["difference"]["mean"] == pytest.approx(alone[0]["accuracy"] - alone[1]["accuracy"])
    assert other["both"] + other["only"] + other["only_against"] + other["neither"] == found["clips"] == 48
    assert len(other["disagree"]) == round((1 - other["agree"]) * 48)
    for name, row in other["per_class"].items():
        assert row["f1"]["model"] == pytest.approx(alone[0]["per_class"][name]["f1"])
    text = page.read_text()
    assert "Classes compared" in text
    assert ("Where they disagree" in text) == bool(other["disagree"])
    assert "model.int8.onnx against model.onnx" in text
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "paired, over groups" in said
    assert all(name in said for name in other["per_class"])


def test_what_cannot_be_compared_is_said(tiny_run, tmp_path, capsys):
    stranger = save(classifier(), tmp_path / "other.onnx")
    assert main(["evaluate", str(tiny_run.model), str(tiny_run.clips), "--against", str(stranger)]) == 2
    assert "do not name the same classes" in capsys.readouterr().err
    shutil.copy(tiny_run.model, tmp_path / "copy.onnx")
    assert main(["evaluate", str(tiny_run.model), str(tiny_run.clips), "--report", str(tmp_path / "r.html")]) == 2
    assert "--against" in capsys.readouterr().err


def test_files_are_called_by_what_tells_them_apart():
    assert short_names(("runs/a/model.onnx", "runs/a/model.int8.onnx")) == ("model.onnx", "model.int8.onnx")
    assert short_names(("runs/a/model.onnx", "runs/b/model.onnx")) == ("a/model.onnx", "b/model.onnx")
    assert short_names(("m.onnx", "m.onnx")) == ("m.onnx (1)", "m.onnx (2)")
