"""`vidlet fit` over stored features: members tried, files written, the ensemble that fits, and what is refused."""

import importlib
import json
import shutil
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from video_level import draw_video_level
from vidlet.cli import main
from vidlet.datasets.read import stores_features
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError, RecipeError, TrainingError
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.fit import fit
from vidlet.runtime import load
from vidlet.search import joined
from vidlet.search.budget import Budget
from vidlet.search.course import Asked
from vidlet.search.joined import Board, Helper, SharedWorkers
from vidlet.search.records import RecordSearch, RecordTrials, bag, record_recipes, search_records, worth_training

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


class OneByOne:
    """Workers whose trials are done, in this process, when somebody asks for the outcome."""

    def __init__(self, trials, count):
        self.trials, self.count = trials, count

    def submit(self, job):
        future = Future()
        try:
            future.set_result(self.trials.work(*job))
        except DataError as error:
            future.set_exception(error)
        return future

    def close(self):
        pass


@pytest.fixture
def alone(monkeypatch):
    """The leader of a search tries nothing itself, and the silent are taken for dead at once."""
    monkeypatch.setattr(joined, "Workers", OneByOne)
    monkeypatch.setattr(SharedWorkers, "_free", lambda self: False)
    monkeypatch.setattr(joined, "LOST_S", 0.3)
    monkeypatch.setattr(joined, "BEAT_S", 0.01)
    monkeypatch.setattr(joined, "LOOK_S", 0.02)


def led(records, out, helpers, monkeypatch):
    """The trials of a search that is shared with helpers, by their names."""
    look = SharedWorkers.look

    def step(self):
        for helper in helpers:
            helper.step()
        return look(self)

    monkeypatch.setattr(SharedWorkers, "look", step)
    asked = Asked(str(records), out, Budget(max_bytes=LIMIT), 3600.0, board=Board(out))
    table, recipes = MODULE._read(asked, few())
    leader = RecordSearch(asked, table, asked.log(MODULE._identity(asked, table, recipes)), recipes)
    leader.possible()
    leader.trials()
    tried = list(leader.log.of("trial"))
    assert len({trial["name"] for trial in tried}) == len(tried)
    return {trial["name"]: trial["gap20"] for trial in tried}


def helper_of(records, out, name):
    helper = Helper(Board(out), 4, partial(RecordTrials, Asked(str(records), out, Budget(LIMIT), 9.0), few()))
    helper.name = name
    return helper


def test_helpers_try_records_as_the_leader_would(found, records, alone, tmp_path, monkeypatch):
    helper = helper_of(records, tmp_path / "run", "other")
    tried = led(records, tmp_path / "run", [helper], monkeypatch)
    assert tried == {trial["name"]: trial["gap20"] for trial in found[1]["metrics"]["trials"]}
    assert helper.tried == len(tried)
    assert not (tmp_path / "run/joined/search.json").exists()


def test_a_helper_that_dies_gives_its_trial_of_records_back(found, records, alone, tmp_path, monkeypatch, capsys):
    dying, living = (helper_of(records, tmp_path / "run", name) for name in ("dying", "living"))
    step = dying.step

    def once():  # takes a trial, and is heard of no more
        if not dying._running:
            step()

    dying.step = once
    tried = led(records, tmp_path / "run", [dying, living], monkeypatch)
    assert tried == {trial["name"]: trial["gap20"] for trial in found[1]["metrics"]["trials"]}
    assert "dying is silent: its trial is given back" in capsys.readouterr().err


def test_a_helper_with_other_records_is_refused(records, cache, alone, tmp_path, monkeypatch):
    render_residual(tmp_path / "others", 40, 12, 12, seed=1, classes=6)
    helper = helper_of(tmp_path / "others", tmp_path / "run", "other")
    with pytest.raises(DataError, match=r"others: other records or settings than those of the search that is led"):
        led(records, tmp_path / "run", [helper], monkeypatch)
    clips = Helper(Board(tmp_path / "run"), 1)
    Board(tmp_path / "run").open(RecordTrials(Asked(str(records), tmp_path, Budget(LIMIT), 9.0), (), "a"))
    with pytest.raises(DataError, match="the search is over other data than those given here"):
        clips.step()


def test_a_search_over_records_that_is_over_is_the_answer_to_the_same_question_alone(records, cache, tmp_path):
    budget = Budget(max_bytes=LIMIT)
    asked = Asked(str(records), tmp_path, budget, 9.0)
    table, recipes = MODULE._read(asked, ())
    asked.log(MODULE._identity(asked, table, recipes)).add("trial", name="a")
    told = {"max_bytes": LIMIT, "text": budget.describe()}
    (tmp_path / "metrics.json").write_text(json.dumps({"budget": told, "files": {}, "bytes": {}}))
    (tmp_path / "fit.json").write_text("{}")
    assert fit(records, max_size=LIMIT, out=tmp_path, join=True)["metrics"]["budget"] == told
    with pytest.raises(TrainingError, match="holds a search within another budget"):
        fit(records, max_size=LIMIT + 1, out=tmp_path, join=True)
    with pytest.raises(TrainingError, match="belongs to a search of other data"):
        fit(records, max_size=LIMIT, out=tmp_path, seed=1, join=True)


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


SCRIPT = """
    import importlib, sys
    sys.path[:0] = sys.argv[3:]
    from test_fit_records import LIMIT, few, fit, joined
    records = importlib.import_module("vidlet.search.records")
    records.record_recipes = lambda *_: few()  # in the processes that try, too
    joined.LOST_S = 4.0

    if __name__ == "__main__":
        fit(sys.argv[1], max_size=LIMIT, time=3600, out=sys.argv[2], workers=1, join=True)
"""


@pytest.mark.slow
def test_processes_share_the_trials_of_records_and_a_killed_one_gives_its_trial_back(found, records, tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    out, places = tmp_path / "run", [str(Path(__file__).parent), str(Path(__file__).parents[1])]

    def begin(name):
        with (tmp_path / f"{name}.err").open("w") as told:
            return subprocess.Popen([sys.executable, "script.py", records, out, *places], cwd=tmp_path, stderr=told)

    def wait_for(what, process):
        until = time.monotonic() + 300
        while not what():
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "leader.err").read_text()[-2000:]
            time.sleep(0.02)

    leader = begin("leader")
    wait_for((out / "joined/search.json").exists, leader)
    helper = begin("helper")
    wait_for(lambda: list((out / "joined").glob("*.taken")), leader)
    helper.kill()
    helper.wait()
    assert leader.wait(timeout=600) == 0, (tmp_path / "leader.err").read_text()[-2000:]
    records_of = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    tried = [(record["name"], record["gap20"]) for record in records_of if record["kind"] == "trial"]
    assert sorted(tried) == sorted((trial["name"], trial["gap20"]) for trial in found[1]["metrics"]["trials"])
    assert "is silent: its trial is given back" in (tmp_path / "leader.err").read_text()
    assert (out / "model.onnx").exists() and not (out / "joined").exists()
