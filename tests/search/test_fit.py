"""A budget search from clips to the chosen file, on rendered clips and an untrained extractor."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array

from shared_data import shared
from vidlet.errors import ExportError, RecipeError, TrainingError
from vidlet.files import cache_folder
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.fit import fit
from vidlet.models import build_extractor
from vidlet.models.mobilenetv2 import MobileNetV2
from vidlet.runtime import benchmark, load
from vidlet.search import cards, course, halving
from vidlet.search import clips as module
from vidlet.search import realize as realizing
from vidlet.search.budget import Budget, parse_bytes
from vidlet.search.cards import Card, kept_cards, least_bytes
from vidlet.search.clips import FEW, behind, clip_search, usual_ladder
from vidlet.search.course import EVIDENCE_BYTES, Asked
from vidlet.search.data import build_extractors, judge, open_pool
from vidlet.search.realize import clip_point, realize, refit, trained_parts
from vidlet.search.space import ALONE, Space, cuts_of, first_candidates, known_cost
from vidlet.search.trials import TrialLog
from vidlet.video import write_video

BUDGET = 70_000
LABELS = ("red", "green", "blue", "gray")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Forty clips of four colors: what an untrained network tells apart."""
    folder, rng = tmp_path_factory.mktemp("fit") / "clips", np.random.default_rng(0)
    rows = ["path,label,group,split"]
    for number in range(40):
        label, group = LABELS[number % 4], number // 4
        color = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200), (130, 130, 130)][number % 4])
        frames = np.clip(color + rng.normal(0, 25, (8, 64, 64, 3)) + rng.normal(0, 15), 0, 255).astype(np.uint8)
        (folder / label).mkdir(parents=True, exist_ok=True)
        write_video(folder / label / f"{number}.mp4", list(frames), 8)
        rows.append(f"{label}/{number}.mp4,{label},g{group},{'test' if group > 7 else 'train'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.manual_seed(0)
    torch.save(MobileNetV2(0.35, "block5").state_dict(), path)
    extractors = cuts_of(width=0.35, weights=str(path), size=64, cuts=("block2", "block5"))
    return Space(extractors, epochs=2, rounds=(0.5,), begin=("default",))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Times from a few calls, no trials but those that a search begins with, and one file of them."""
    with pytest.MonkeyPatch.context() as patch:
        for place in (realizing, course, cards):
            patch.setattr(place, "benchmark", lambda path, seconds, threads: benchmark(path, 0.02, threads))
        patch.setattr(halving, "DRAWS", 0)
        patch.setattr(module, "finalists", lambda *given: halving.finalists(*given)[:1])
        yield


@pytest.fixture(scope="module")
def found(clips, space, tmp_path_factory, cache):
    """A search of forty clips with two trials, which is not cut short by the clock."""
    out = tmp_path_factory.mktemp("fit") / "run"
    return out, fit(clips, max_size=BUDGET, time=3600, out=out, workers=1, space=space)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDLET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_chosen_file_keeps_the_budget_and_runs(found):
    out, result = found
    assert result["files"]["model.onnx"] == (out / "model.onnx").stat().st_size <= BUDGET
    assert set(load(out / "model.onnx").labels) == set(LABELS)
    assert (out / "report.html").stat().st_size > 10_000
    assert {"recipe.toml", "metrics.json", "fit.json"} <= set(result["files"])
    assert result["metrics"]["split"] == "test"
    assert result["metrics"]["refit"] is True


def test_every_point_of_the_front_measures_the_same_from_its_file_alone(found, clips):
    out, result = found
    front = result["metrics"]["front"]
    for point in front:
        path = out / "files" / point["file"]
        assert path.stat().st_size == point["bytes"]
        assert sum(
            other["bytes"] <= point["bytes"] and other["accuracy"] > point["accuracy"] for other in front
        ) == 0 or (
            point["measured"]["frame_ms"]["p50"]
            < min(o["measured"]["frame_ms"]["p50"] for o in front if o["accuracy"] > point["accuracy"])
        )
    chosen = result["metrics"]["chosen"]

    def score(p):  # of a file whose candidate was judged on all folds: that, and what the chain cost and is known to
        own = p["accuracy"] - 0.05 * p["loss"]
        measured = own if p["judged"] is None else p["judged"] + own - p["head_worth"]
        return measured - 0.5 * known_cost(p["chain"])

    inside = [p for p in front if p["bytes"] + EVIDENCE_BYTES <= BUDGET]
    alike = [p for p in inside if score(p) >= max(map(score, inside)) - 0.004 + 1e-9]
    assert chosen["bytes"] <= min(p["bytes"] for p in alike)
    assert score(chosen) >= max(map(score, inside)) - 0.004 - 1e-9


def test_what_if_rows_allow_half_and_twice_the_bytes(found):
    rows = found[1]["metrics"]["what_if"]
    assert [row["bytes"] for row in rows] == [BUDGET // 2, BUDGET, 2 * BUDGET]
    for row in rows:
        assert row["best"] is None or row["best"]["bytes"] <= row["bytes"]
    accuracies = [row["best"]["accuracy"] for row in rows if row["best"]]
    assert accuracies == sorted(accuracies)


def test_the_step_table_compares_the_chosen_network_with_its_float32_file(found):
    steps = found[1]["metrics"]["steps"]
    chosen = found[1]["metrics"]["chosen"]
    assert steps[0]["chain"] == ""
    assert steps[-1]["file"] == chosen["file"]
    assert all(step["candidate"] == chosen["candidate"] for step in steps)


def test_where_there_is_time_the_chosen_network_is_a_file_in_every_storage(found):
    chosen = found[1]["metrics"]["chosen"]
    lines = [json.loads(line) for line in (found[0] / "trials.jsonl").read_text("utf-8").splitlines()]
    files = {r["chain"]: r["bytes"] for r in lines if r["kind"] == "file" and r["candidate"] == chosen["candidate"]}
    for storage in ("int8+compact", "head4+int8+compact", "int4+compact"):
        found_in = [size for chain, size in files.items() if chain.endswith(storage)]
        assert found_in and max(found_in) < files[""]


def chosen_accuracy(metrics):
    return metrics["chosen"]["judged_accuracy"] or metrics["chosen"]["accuracy"]


def test_what_train_chooses_and_the_best_plain_classifier_are_among_the_files(found):
    metrics = found[1]["metrics"]
    lines = [json.loads(line) for line in (found[0] / "trials.jsonl").read_text("utf-8").splitlines()]
    files = [r for r in lines if r["kind"] == "file"]
    assert {"auto", "linear"} <= {r["candidate"]["kind"] for r in files} and metrics["warnings"] == []
    assert len(metrics["solved"]) == 2 and metrics["guessing"] == pytest.approx(1 / 4)
    assert max(metrics["solved"].values()) > 0.9 and chosen_accuracy(metrics) > 0.9
    plain = [r for r in files if r["candidate"]["kind"] == "linear" and r["bytes"] + EVIDENCE_BYTES <= BUDGET]
    chosen = metrics["chosen"]
    for other in plain:  # by the same validation
        assert not behind(clip_point(chosen), clip_point(other))


def test_a_search_out_of_time_has_what_takes_seconds_and_says_so(found, clips, space, tmp_path, capsys):
    result = fit(clips, max_size=BUDGET, time=0.01, out=tmp_path / "run", workers=1, space=space)
    lines = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text("utf-8").splitlines()]
    assert not [r for r in lines if r["kind"] == "trial"] and len([r for r in lines if r["kind"] == "file"]) == 1
    assert result["metrics"]["chosen"]["candidate"]["kind"] == "auto" and result["metrics"]["trials"] == 0
    [warning] = result["metrics"]["warnings"]
    assert warning.startswith("the time was over; no head was tried but linear ones; the chosen file was not trained")
    assert f"warning: {warning}" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.onnx").stat().st_size <= BUDGET


def test_the_test_clips_are_scored_by_the_chosen_file_alone(found, clips):
    out, result = found
    again = evaluate(out / "model.onnx", clips)
    assert again["accuracy"] == result["metrics"]["accuracy"]
    assert set(result["metrics"]["files"]) == {"model.onnx"}


def test_a_search_goes_on_without_repeating_what_is_finished(found, clips, space):
    out, _ = found
    before = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    with pytest.raises(TrainingError, match="holds a search; --resume goes on with it"):
        fit(clips, max_size=BUDGET, time=5, out=out, space=space)
    fit(clips, max_size=BUDGET, time=3600, out=out, workers=1, resume=True, space=space)
    after = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert after[: len(before)] == before
    for kind, name in (("trial", lambda r: (json.dumps(r["candidate"]), r["round"])), ("file", lambda r: r["file"])):
        counts = Counter(name(r) for r in after if r["kind"] == kind)
        assert counts
        assert max(counts.values()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process the POSIX way")
def test_workers_end_with_the_process_they_work_for(tmp_path):
    script = (
        "import os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from vidlet.search.proxy import follow_parent\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, mp_context=get_context('spawn'), initializer=follow_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 60)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it is there
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.2)
    assert not alive(worker)


def alive(process):
    """Whether a process runs; a dead one that nobody has waited for does not."""
    stat = Path(f"/proc/{process}/stat")
    if Path("/proc/self/stat").exists():
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_impossible_budget_is_refused_at_once_with_what_comes_nearest(clips, space, tmp_path, cache):
    with pytest.raises(
        RecipeError,
        match=r"no model of the search fits 5,000 bytes: the smallest is mobilenetv2-0.35 block2 64 px \S+ with \S+ b",
    ):
        fit(clips, max_size="5kB", time=60, out=tmp_path / "none", space=space)
    assert not (tmp_path / "none" / "files").exists()


def test_where_time_is_short_the_cuts_are_searched_whose_features_are_stored(clips, space, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    figures = {"frame_ms": {"p95": 1.0}, "peak_rss_bytes": 1}
    monkeypatch.setattr(
        module,
        "kept_cards",
        lambda *given: [Card(given[3], way.chain, 1000, figures) for way in ALONE],
    )
    judged = judge(clips)
    judged = replace(judged, folds=tuple(fold.with_clips(fold.clips[::4]) for fold in judged.folds))
    smaller = tuple(replace(plan, input_size=(32, 32)) for plan in space.extractors)

    def searched(seconds):
        log = TrialLog(tmp_path / f"{seconds}.jsonl", "")
        asked = Asked(str(clips), tmp_path, Budget(max_bytes=BUDGET), seconds)
        search = clip_search(asked, judged, log, space, [space.extractors, smaller])
        search.prepare()
        return [(plan.cut, plan.input_size[0]) for plan in search.space.extractors]

    assert searched(1e-3) == [("block2", 32), ("block5", 32)]  # nothing is stored: the last rung
    shallow = replace(space, extractors=space.extractors[:1])
    open_pool(shallow, judged, build_extractors(shallow), "cpu")
    assert searched(2e-3) == [("block2", 64)]
    assert searched(600.0) == [("block2", 64), ("block5", 64)]


def test_every_network_of_the_ladder_can_be_built_and_has_the_grid_its_map_allows():
    for rung in usual_ladder():
        for plan in rung:
            shape = build_extractor(replace(plan, weights="none")).feature_shape
            assert shape[1:] == ((plan.grid, plan.grid) if plan.grid else ())
    assert {(plan.input_size[0], plan.cut): plan.grid for rung in usual_ladder() for plan in rung}[96, "block14"] == 3


@pytest.mark.slow  # a whole ladder is costed, and a file made of what fits
@pytest.mark.parametrize("limit", [{"max_size": s} for s in ("1KB", "10KB", "100KB", "1MB", "10MB")]
                         + [{"max_latency": m} for m in ("0.01ms", "0.3ms", "3ms", "30ms", "300ms")],
                         ids=lambda limit: next(iter(limit.values())))  # fmt: skip
@pytest.mark.parametrize(("data", "seconds"), [("drawn", 20), ("drawn", 600), ("real", 20)])
def test_over_four_decades_a_budget_gives_a_file_that_keeps_it_or_one_sentence(
    clips, cache, tmp_path, limit, data, seconds, monkeypatch
):
    monkeypatch.setenv("VIDLET_WEIGHTS", str(shared("weights", "coral_tflite")))
    tiny = replace(FEW, epochs=1, rounds=(1.0,), begin=("default", "pooled"))
    monkeypatch.setattr("vidlet.search.clips.FEW", tiny)
    given = clips if data == "drawn" else shared("data", "weizmann_actions")
    out = tmp_path / "run"
    try:
        found = fit(given, **limit, time=seconds, out=out, workers=1)
    except RecipeError as error:
        said = re.fullmatch(
            r"no model of the search fits .*: the smallest is .* with ([\d,]+) bytes"
            r"(?:, the fastest .* with ([\d.]+) ms a frame)?",
            str(error),
        )
        assert said, error
        assert next(iter(limit.values())) in ("1KB", "10KB", "0.01ms", "0.3ms")  # the last by the machine's speed
        if "max_size" in limit:
            assert int(said[1].replace(",", "")) > parse_bytes(limit["max_size"])
        else:
            assert float(said[2]) > float(limit["max_latency"][:-2])
        assert not (out / "files").exists()
    else:
        assert next(iter(limit.values())) not in ("1KB", "0.01ms")
        chosen = found["metrics"]["chosen"]
        if "max_size" in limit:
            assert found["files"]["model.onnx"] <= parse_bytes(limit["max_size"])
        else:
            assert chosen["measured"]["frame_ms"]["p95"] <= 2 * float(limit["max_latency"][:-2])


def test_costs_are_kept_between_searches_where_no_time_is_limited(clips, space, cache, monkeypatch):
    monkeypatch.setattr(cards, "ALONE", ALONE[:2])
    table, budget = judge(clips).folds[0], Budget(max_bytes=BUDGET)
    extractor = build_extractors(space)[space.places[0]]
    frames = [np.zeros((4, 64, 64, 3), np.uint8)]

    def ask(budget, samples):
        return kept_cards(space, table, extractor, space.places[0], budget, samples)

    first = ask(budget, frames)
    assert ask(budget, []) == first  # nothing to calibrate on: read, not measured
    [kept] = [path for path in cache_folder("cards").glob("*.json") if read_cards(path) == first]
    kept.write_text("[{")
    assert [card.bytes for card in ask(budget, frames)] == [card.bytes for card in first]  # damaged: measured again
    assert {card.chain: card.bytes for card in first} == {
        card.chain: card.bytes for card in ask(replace(budget, max_latency_ms=9.0), frames)
    }
    assert all(card.bytes > least_bytes(extractor) for card in first)
    with pytest.raises(ExportError, match="at least one clip"):
        ask(replace(budget, max_latency_ms=9.0), [])  # measured anew


def read_cards(path):
    return [Card("mobilenetv2-0.35 block2 64 px", **record) for record in json.loads(path.read_text("utf-8"))]


def once(space, candidate):
    """The recipe of a candidate, of one epoch."""
    return space.recipe(candidate, "once", epochs=1)


@pytest.mark.parametrize("kind", ["pooled", "tt-grid-gru"])
def test_heads_of_other_kinds_become_files(clips, space, cache, tmp_path, kind):
    table = judge(clips).folds[0]
    candidate = next(c for c in first_candidates(replace(space, begin=Space().begin)) if c.kind == kind)
    chains = ["distill+int4+compact"]
    points = realize(once(space, candidate), table, candidate, chains, tmp_path)
    assert [p.chain for p in points] == chains
    assert all(0 < p.bytes < 100_000 and p.clips > 0 for p in points)
    assert refit(once(space, candidate), table, points[0], tmp_path / "again.onnx", tmp_path, 0.0) == (
        1,
        1,
    )


def test_a_pruned_head_is_trained_once_for_all_its_files(clips, space, cache, tmp_path):
    table = judge(clips).folds[0]
    candidate = next(c for c in first_candidates(space) if c.kind == "grid-gru")
    [whole, pruned] = realize(
        once(space, candidate), table, candidate, ["int8+compact", "units:0.5+int8+compact"], tmp_path
    )
    assert pruned.bytes < whole.bytes
    assert trained_parts(tmp_path, candidate, "units:0.5+int4+compact") == (True, True)
    [again] = realize(
        once(space, candidate), table, candidate, ["units:0.5+int8+compact"], tmp_path
    )  # from what was kept
    assert (again.bytes, again.accuracy, again.loss) == (pruned.bytes, pruned.accuracy, pruned.loss)
    assert refit(once(space, candidate), table, pruned, tmp_path / "again.onnx", tmp_path, 0.0) == (
        1,
        1,
    )


def test_of_several_heads_those_are_trained_once_more_for_which_there_is_time(clips, space, cache, tmp_path):
    table = judge(clips).folds[0]
    candidate = next(c for c in reversed(first_candidates(space)) if c.kind == "grid-gru")
    [point] = realize(once(space, candidate), table, candidate, ["ensemble:2"], tmp_path)
    assert trained_parts(tmp_path, candidate, "ensemble:2") == (True, True)
    assert trained_parts(tmp_path, candidate, "ensemble:3") == (True, False)

    def weights(path, member):
        [found] = [t for t in onnx.load(path).graph.initializer if t.name == f"head.members.{member}.classify.weight"]
        return to_array(found)

    before = [weights(tmp_path / point.file, member) for member in range(2)]
    for seconds, heads in ((0.0, (1, 2)), (1e6, (2, 2))):
        path = tmp_path / "again.onnx"
        assert refit(once(space, candidate), table, point, path, tmp_path, seconds) == heads
        load(path)
        kept = [np.array_equal(old, weights(path, member)) for member, old in enumerate(before)]
        assert kept == [False, seconds == 0]
