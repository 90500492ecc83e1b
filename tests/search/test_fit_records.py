"""`vidlet fit` over stored features: members tried, files written, the ensemble that fits, and what is refused."""

import importlib
import json
import shutil
from dataclasses import replace

import pytest

from video_level import draw_video_level
from vidlet.cli import main
from vidlet.datasets.read import stores_features
from vidlet.datasets.residual import render_residual
from vidlet.errors import RecipeError, TrainingError
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.fit import fit
from vidlet.runtime import load
from vidlet.search.budget import Budget
from vidlet.search.course import Asked
from vidlet.search.records import bag, record_recipes, search_records, worth_training

LIMIT = 120_000
MODULE = importlib.import_module("vidlet.search.records")


def few():
    """Three small members, quickly trained."""
    plans = {plan.name: plan for plan in record_recipes(200, 20)}
    small = replace(plans["netvlad-K8-H32"], name="netvlad-K4-H16", head=bag("netvlad", 4, 16))
    mean = plans["mean-H64"]
    less = replace(mean, name="mean-H32", head=replace(mean.head, options=mean.head.options | {"hidden": 32}))
    chosen = [small, mean, less]
    return [
        replace(
            plan,
            training=replace(plan.training, epochs=4, lr=3e-3, averaging=replace(plan.training.averaging, every=2)),
            compress=("int8",),
        )
        for plan in chosen
    ]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "set"
    render_residual(folder, 200, 60, 60, seed=0, classes=6)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDLET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def search(records, out, budget=None, seconds=3600.0):
    given = budget or Budget(max_bytes=LIMIT)
    return search_records(Asked(str(records), out, given, seconds, command="vidlet fit"), few())


@pytest.fixture(scope="module")
def found(records, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "run"
    return out, search(records, out)


def test_the_file_keeps_the_budget_and_is_scored_as_it_ships(found, records):
    out, result = found
    path = out / "model.onnx"
    assert path.stat().st_size == result["files"]["model.onnx"] <= LIMIT
    again = evaluate(path, records)
    assert again["gap20"] == pytest.approx(result["metrics"]["gap20"])
    assert set(result["files"]) >= {"model.onnx", "report.html", "fit.json", "metrics.json", "recipe.toml"}
    report = (out / "report.html").read_text()
    count = len(result["metrics"]["chosen"]["members"])
    assert "Files, and the ensemble" in report and f"{count} files in one" in report
    assert load(path).metadata["evidence"][0]["command"] == "vidlet fit"


def test_every_member_is_tried_and_the_best_are_chosen_on_validation_records(found):
    out, result = found
    assert {trial["name"] for trial in result["metrics"]["trials"]} == {plan.name for plan in few()}
    chosen = result["metrics"]["chosen"]
    alone = [row["gap20_val"] for row in result["metrics"]["ensemble"]["candidates"].values() if row["bytes"] <= LIMIT]
    assert chosen["gap20_val"] >= max(alone)
    assert sum(chosen["members"].values()) == pytest.approx(1)
    assert all((out / "files" / name).exists() for name in chosen["members"])
    assert chosen["measured"]["frame_ms"]["p50"] > 0


def test_the_best_of_each_family_that_is_near_the_best_is_trained_first():
    tried = {"netvlad-a": 0.87, "netvlad-b": 0.86, "nextvlad-c": 0.82, "nextvlad-d": 0.7, "mean-e": 0.6, "gru-f": 0.05}
    assert worth_training(tried) == ["netvlad-a", "nextvlad-c", "netvlad-b", "nextvlad-d", "mean-e"]


def test_a_search_goes_on_where_it_was(found, records, tmp_path):
    out, result = found
    lines = (out / "trials.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    cut = kinds.index("member") + 1  # killed behind the first member
    (tmp_path / "trials.jsonl").write_text("\n".join(lines[:cut]) + "\n" + '{"kind": "mem')
    first = json.loads(lines[cut - 1])["name"]
    (tmp_path / "files").mkdir()
    (out / "files" / first).rename(tmp_path / "files" / first)
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "files" / first).iterdir()}
    again = search(records, tmp_path)
    assert (tmp_path / "trials.jsonl").read_text().splitlines()[:cut] == lines[:cut]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "files" / first).iterdir()} == made
    assert again["metrics"]["gap20"] == pytest.approx(result["metrics"]["gap20"], abs=1e-6)
    (tmp_path / "files" / first).rename(out / "files" / first)


def test_videos_beside_arrays_that_no_table_names_are_videos(records, tmp_path):
    (tmp_path / "features.npz").touch()
    assert stores_features(records) and not stores_features(tmp_path)
    (tmp_path / "clips.csv").touch()
    assert stores_features(tmp_path) and stores_features(tmp_path / "clips.csv")


def test_the_search_of_other_data_is_not_gone_on_with(found, records, tmp_path):
    other = tmp_path / "set"
    render_residual(other, 40, 10, 10, seed=1, classes=6)
    with pytest.raises(TrainingError, match="other data"):
        search(other, found[0])


def test_a_member_that_diverges_is_left_out(records, cache, tmp_path, capsys):
    plan = few()[1]
    wild = replace(plan, name="mean-wild", training=replace(plan.training, lr=1e30, clip_norm=0.0))
    result = search_records(Asked(str(records), tmp_path, Budget(max_bytes=LIMIT), 3600.0), [wild, plan])
    assert "mean-wild: left out, the loss became" in capsys.readouterr().err
    assert {name.split("/")[0] for name in result["metrics"]["chosen"]["members"]} == {"mean-H64"}


def test_without_time_one_member_is_made_and_accuracy_that_is_not_reached_is_said(records, cache, tmp_path):
    with pytest.raises(TrainingError, match="on validation clips"):
        search(records, tmp_path, Budget(max_bytes=LIMIT, min_accuracy=0.999), seconds=0.1)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert (
        kinds == ["begin", "trained", "trial", "trained", "member"] and len(list((tmp_path / "files").iterdir())) == 1
    )


def test_a_limit_on_time_leaves_members_out_until_it_holds_or_nothing_is_left(found, records, tmp_path, monkeypatch):
    asked = []

    def slow(path, **_):
        asked.append(path)
        return {"frame_ms": {"p50": 9.0 / len(asked), "p95": 9.0 / len(asked)}, "clip_ms": {}, "peak_rss_bytes": 1}

    monkeypatch.setattr(MODULE, "benchmark", slow)
    shutil.copytree(found[0], tmp_path / "a")  # all is there but the conclusion
    shutil.copytree(found[0], tmp_path / "b")
    result = search(records, tmp_path / "a", Budget(max_bytes=LIMIT, max_latency_ms=5.0))
    assert result["metrics"]["chosen"]["measured"]["frame_ms"]["p95"] <= 5.0 and len(asked) > 1
    asked.clear()
    with pytest.raises(TrainingError, match="nothing found keeps"):
        search(records, tmp_path / "b", Budget(max_bytes=LIMIT, max_latency_ms=1e-6))


def test_the_command_finds_records_by_itself_and_refuses_what_cannot_fit(records, cache, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "run")
    assert main(["fit", str(records), "--max-size", "2KB", "--out", out]) == 2
    assert "nothing fits 2,000 bytes: the smallest, mean-H64" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="nothing fits"):
        fit(records, max_size=100, out=tmp_path / "b")
    monkeypatch.setattr(MODULE, "record_recipes", lambda *_: few())
    asked = ["fit", str(records), "--max-size", "60KB", "--time", "1", "--workers", "1", "--out", out]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"]["model.onnx"] <= 60_000 and 0 <= found["metrics"]["gap20"] <= 1
    assert main(asked) == 2
    assert "holds a search" in capsys.readouterr().err


def test_of_one_vector_a_record_no_bags_and_windows_of_frames_are_tried():
    names = [plan.name for plan in record_recipes(5000, 1)]
    assert names[0] == "hidden-1024"
    assert "squares" in names
    assert not [name for name in names if name.startswith(("netvlad", "nextvlad", "window", "gru"))]


@pytest.mark.slow  # two heads are trained and written
def test_a_search_over_vectors_of_whole_videos_keeps_its_limit(tmp_path, cache):
    data = draw_video_level(tmp_path / "set", {"train": 400, "val": 100, "test": 100})
    plans = {plan.name: plan for plan in record_recipes(400, 1)}
    small = [replace(plans[name], compress=("int8",)) for name in ("hidden-32", "squares")]
    budget = Budget(max_bytes=40_000)
    found = search_records(Asked(str(data), tmp_path / "run", budget, 3600.0, command="vidlet fit"), small)
    assert found["files"]["model.onnx"] <= 40_000
    assert {trial["name"] for trial in found["metrics"]["trials"]} == {"hidden-32", "squares"}
    again = evaluate(tmp_path / "run" / "model.onnx", data)
    assert again["gap20"] == pytest.approx(found["metrics"]["gap20"], abs=1e-6)
