"""A sweep: every combination once, each file in one table; what is finished is not done again, what fails is told."""

import csv
import json
from pathlib import Path

import pytest

import vidlet
from vidlet.cli.sweep_command import values_of
from vidlet.errors import DataError, RecipeError, TrainingError
from vidlet.jobs import sweep as module
from vidlet.recipe import parse_override

QUICK = {"epochs": [1], "seed": [0, 1]}


@pytest.fixture(scope="module")
def swept(motion_clips, tmp_path_factory) -> tuple[Path, dict]:
    """Two seeds of a tiny network, each in three files."""
    out = tmp_path_factory.mktemp("sweep") / "s"
    return out, vidlet.sweep(motion_clips, ["tiny-grid-gru"], QUICK, ["half"], out=out)


def test_every_combination_and_chain_is_a_row_and_pairs_are_against_the_first(swept, motion_clips):
    out, found = swept
    names = [f"{out}/tiny-grid-gru-epochs1-seed{seed}" for seed in (0, 1)]
    files = ["model.onnx", "model.int8.onnx", "model.half.onnx"]
    assert sorted(row["name"] for row in found["rows"]) == sorted(f"{n}/{f}" for n in names for f in files)
    assert (found["failed"], found["against"]) == ([], f"{names[0]}/model.onnx")
    assert [row["difference"] is None for row in found["rows"]] == [True] + [False] * 5
    with (out / "table.csv").open() as handle:
        assert [row["name"] for row in csv.DictReader(handle)] == [row["name"] for row in found["rows"]]
    assert "6 files compared" in (out / "compare.html").read_text()
    told = vidlet.load(f"{names[1]}/model.onnx").metadata["evidence"][0]["command"]
    assert told == f"vidlet train {motion_clips} --recipe tiny-grid-gru --set epochs=1 --set seed=1"


def test_what_is_finished_is_not_done_again_and_what_is_missing_is(swept, motion_clips, monkeypatch):
    out, found = swept
    asked = []
    monkeypatch.setattr(module, "train", lambda *given: asked.append(given[2].name))
    monkeypatch.setattr(module, "compress", lambda run, data, chains, *_, **__: asked.append((run.name, chains)))
    again = vidlet.sweep(motion_clips, ["tiny-grid-gru"], QUICK, ["half"], out=out)
    assert asked == [] and again["rows"] == found["rows"]
    vidlet.sweep(motion_clips, ["tiny-grid-gru"], QUICK, ["half", "units:0.5"], out=out)
    assert asked == [(f"tiny-grid-gru-epochs1-seed{seed}", ["units:0.5"]) for seed in (0, 1)]
    with pytest.raises(DataError, match=r"holds a sweep of other settings \(fold\)"):
        vidlet.sweep(motion_clips, ["tiny-grid-gru"], QUICK, out=out, fold="0/3")


def test_a_run_that_fails_is_told_and_the_others_are_compared(swept, motion_clips, run, monkeypatch):
    out, _ = swept

    def broken(data, recipe, out, *_):
        raise TrainingError("no luck")

    monkeypatch.setattr(module, "train", broken)
    words = ["--recipe", "tiny-grid-gru", "--set", "epochs=1", "--set", "seed=0,7", "--out", out]
    status, told, err = run("sweep", motion_clips, *words)
    assert (status, "failed: tiny-grid-gru-epochs1-seed7: no luck" in told) == (0, True)
    assert "[2/2] tiny-grid-gru-epochs1-seed7" in err
    assert run("sweep", motion_clips, *words, "--strict")[0] == 2
    status, _, err = run("sweep", motion_clips, "--recipe", "tiny-grid-gru", "--set", "seed=8", "--out", f"{out}2")
    assert (status, "every run failed; tiny-grid-gru-seed8: no luck" in err) == (2, True)


def test_what_is_wrong_is_said_before_anything_is_trained(motion_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    with pytest.raises(RecipeError, match="did you mean half"):
        vidlet.sweep(motion_clips, ["tiny-grid-gru"], chains=["hald"], out=tmp_path / "s")
    with pytest.raises(RecipeError, match="a recipe has no such key"):
        vidlet.sweep(motion_clips, ["tiny-grid-gru"], {"epoch": [1]}, out=tmp_path / "s")
    with pytest.raises(RecipeError, match="asked for twice"):
        vidlet.sweep(motion_clips, ["mean", "mean"], out=tmp_path / "s")
    with pytest.raises(RecipeError, match="many"):
        vidlet.sweep(motion_clips, max_sizes=["many"], out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_nothing_that_was_asked_for_is_left_out_in_silence(motion_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    out = tmp_path / "s"
    for given in ({"overrides": {"seed": [0]}}, {"chains": ["half"]}):
        with pytest.raises(RecipeError, match="values and chains are of trainings"):
            vidlet.sweep(motion_clips, max_sizes=["1MB"], out=out, **given)
    for wrong in ({"recipes": 3}, {"overrides": {"seed": 3}}, {"chains": None}, {"max_sizes": 10**6}):
        with pytest.raises(RecipeError, match="a list"):
            vidlet.sweep(motion_clips, out=out, **wrong)
    with pytest.raises(RecipeError, match="seed has no values"):
        vidlet.sweep(motion_clips, ["mean"], {"seed": []}, out=out)
    assert not out.exists()


def test_a_run_that_is_not_of_the_sweep_is_not_taken_for_one(motion_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", None)
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / "metrics.json").write_text(json.dumps({"files": {"model.onnx": {}}}))
    with pytest.raises(DataError, match=r"mean: a run that is not of this sweep"):
        vidlet.sweep(motion_clips, ["mean"], out=tmp_path)
    assert not (tmp_path / "sweep.json").exists()


def test_values_of_a_key_that_stands_twice_are_all_tried(motion_clips, tmp_path, run, monkeypatch):
    asked = []
    monkeypatch.setattr(
        module, "sweep", lambda *given: asked.append(given[2]) or {"rows": [], "notes": [], "failed": []}
    )
    monkeypatch.setattr("vidlet.cli.sweep_command.table_text", lambda found: "")
    assert run("sweep", motion_clips, "--set", "seed=0", "--set", "seed=1,2", "--out", tmp_path)[0] == 0
    assert asked == [{"seed": [0, 1, 2]}]


def test_budgets_are_searches_that_go_on(motion_clips, tmp_path, monkeypatch):
    asked = []

    def searched(data, max_size, time, out, resume, **_):
        asked.append((max_size, time, out.name, resume))
        out.mkdir(exist_ok=True, parents=True)
        (out / "trials.jsonl").write_text(json.dumps({"kind": "search"}) + "\n")
        raise TrainingError("nothing keeps it")

    monkeypatch.setattr(module, "fit", searched)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"every run failed; fit-50KB: nothing keeps it"):
            vidlet.sweep(motion_clips, max_sizes=["50KB", "1MB"], time="1m", out=tmp_path / "s")
    assert asked == [(s, "1m", f"fit-{s}", resume) for resume in (False, True) for s in ("50KB", "1MB")]


def test_values_are_parted_by_commas_outside_of_brackets():
    assert values_of("seed=0,1,2") == ("seed", [0, 1, 2])
    assert values_of("extractor.input_size=[224,224],[96,96]") == ("extractor.input_size", [[224, 224], [96, 96]])
    assert values_of("extractor.cut=block5,head") == ("extractor.cut", ["block5", "head"])
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        values_of("seed")
    assert values_of("training.augment={speed=0.25,crop=0.2},{}")[1] == [{"speed": 0.25, "crop": 0.2}, {}]
    assert values_of("extractor.weights='a,b.pt','none'") == ("extractor.weights", ["a,b.pt", "none"])
    for missing in ("seed=", "seed=0,,1", "extractor.cut=block5,"):
        with pytest.raises(RecipeError, match="a value is missing"):
            values_of(missing)


def test_the_command_that_a_run_notes_reads_back_as_its_values():
    for value in (True, 0.002, 3, "gru", [96, 128], {"crop": 0.2, "speed": 0}, {"stretch": [1, 2]}, ["int8", "half"]):
        assert parse_override(f"key={module._as_set(value)}") == ("key", value)
