"""`vidlet fit` over images with boxes: candidates measured, trained, chosen within the budget, and what is refused."""

import itertools
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from boxes_case import write_squares
from vidlet.cli import main
from vidlet.errors import RecipeError, TrainingError
from vidlet.jobs.compress import compress
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.fit import fit
from vidlet.recipe import load_recipe
from vidlet.runtime import benchmark, load
from vidlet.search import box_costs, course
from vidlet.search import boxes as module
from vidlet.search.box_costs import NETWORKS, SIZES, STORED, box_recipes
from vidlet.search.boxes import search_boxes
from vidlet.search.budget import Budget
from vidlet.search.course import Asked
from vidlet.tasks import DataSource

LIMIT = 400_000
TRAINING = {"epochs": 3, "batch": 8, "augment": {"flip": 0.5}}


def few():
    """Two small detectors, quickly trained; of the larger only the file in integers fits."""
    return box_recipes(0, {"tiny-yolov2": ("width", (0.1, 0.14))}, (64,), TRAINING)


def said_by_size(model, table, strict=False):
    """Figures that three epochs cannot give: the larger a file, the better, in steps of which some are alike."""
    value = round(model.bytes / 1e6, 3)
    return {"map50": value, "map50_95": value / 2, "map50_interval": [value - 0.1, value + 0.1], "images": len(table)}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("boxes") / "squares")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Times from a few calls, no steps that train, and what files reach on validation images by their size."""
    qualities = itertools.cycle([0.2, 0.1])  # of trials: the first is the better one
    with pytest.MonkeyPatch.context() as patch:
        for place in (module, box_costs, course):
            patch.setattr(place, "benchmark", lambda path, seconds, threads: benchmark(path, 0.02, threads))
        patch.setattr(module, "TRAINED", ())
        patch.setattr(module, "LEAST_UPDATES", 1)
        patch.setattr(module, "TASKS", {"boxes": replace(module.TASKS["boxes"], figures=said_by_size)})
        patch.setattr(module, "detection_summary", lambda found, truths, labels: {"map50": next(qualities)})
        yield


def search(squares, out, budget=None, seconds=3600.0):
    given = budget or Budget(max_bytes=LIMIT)
    return search_boxes(Asked(str(squares), out, given, seconds, command="vidlet fit"), few())


@pytest.fixture(scope="module")
def found(squares, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "run"
    return out, search(squares, out)


def records(out, kind):
    found = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    return [record for record in found if record["kind"] == kind]


def test_the_file_keeps_the_budget_and_is_scored_as_it_ships(found, squares):
    out, result = found
    path = out / "model.onnx"
    assert path.stat().st_size == result["files"]["model.onnx"] <= LIMIT
    again = evaluate(path, squares)
    assert again["map50"] == result["metrics"]["map50"] and result["metrics"]["split"] == "test"
    assert {"model.onnx", "report.html", "fit.json", "metrics.json", "recipe.toml", "trials.jsonl"} <= set(
        result["files"]
    )
    evidence = load(path).metadata["evidence"][0]
    assert evidence["command"] == "vidlet fit" and evidence["value"] == result["metrics"]["map50"]
    chosen = result["metrics"]["chosen"]
    assert load(out / "files" / chosen["file"]).metadata["recipe"] == load(path).metadata["recipe"]
    recipe = load_recipe(out / "recipe.toml")
    assert recipe.training.epochs == chosen["epochs"] and recipe.compress == tuple(filter(None, [chosen["chain"]]))


def test_the_chosen_detector_is_compressed_by_hand_as_that_of_train(found, squares, tmp_path):
    out, _ = found
    made = compress(out, squares, "half", out=tmp_path / "again")
    assert {"model.onnx", "model.half.onnx"} <= set(made["metrics"]["files"])


def test_costs_come_first_then_short_trainings_then_the_best_for_longer(found):
    out, _ = found
    kinds = [json.loads(line)["kind"] for line in (out / "trials.jsonl").read_text().splitlines()]
    assert kinds.index("order") > max(i for i, kind in enumerate(kinds) if kind == "card")
    orders = [(record["name"], record["stage"], record["epochs"]) for record in records(out, "order")]
    assert orders[:2] == [("tiny-yolov2-0.14-64", 0, 1), ("tiny-yolov2-0.1-64", 0, 1)]
    tried = {record["name"]: record["map50"] for record in records(out, "trial")}
    best, other = sorted(tried, key=lambda name: -tried[name])
    assert orders[2:] == [(best, module.FINAL, 3), (other, module.FINAL, 3)]
    passes = [(record["name"], record["epochs"], record["passes"]) for record in records(out, "trained")]
    assert passes[2:] == [(best, 3, 2), (other, 3, 2)]  # they go on from the weights of their trials


def test_every_file_is_measured_and_the_best_on_validation_images_is_chosen(found):
    out, result = found
    files = records(out, "file")
    assert {f"{path.parent.name}/{path.name}" for path in out.glob("files/*/*.onnx")} == {
        file["file"] for file in files
    }
    for file in files:
        assert file["bytes"] == (out / "files" / file["file"]).stat().st_size and file["images"] == 3
        assert file["interval"][0] <= file["accuracy"] <= file["interval"][1]
        assert file["measured"]["frame_ms"]["p50"] > 0
    inside = [file["accuracy"] for file in files if file["bytes"] + 1200 <= LIMIT]
    assert result["metrics"]["chosen"]["accuracy"] == max(inside) < max(file["accuracy"] for file in files)
    assert {file["chain"] for file in files} == set(STORED)


def test_the_report_shows_the_front_and_what_another_budget_would_give(found):
    out, result = found
    page = (out / "report.html").read_text()
    for text in ("Size, speed and mAP .5", "Half the budget, twice the budget", "Precision over recall", "Learning"):
        assert text in page, text
    assert [row["bytes"] for row in result["metrics"]["what_if"]] == [LIMIT // 2, LIMIT, 2 * LIMIT]
    sizes = [point["bytes"] for point in result["metrics"]["front"]]
    assert sizes == sorted(sizes) and json.loads((out / "fit.json").read_text())["chosen"]


def test_where_an_epoch_is_long_a_trial_sees_fewer_images(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEAST_UPDATES", 0.5)
    monkeypatch.setattr(module.BoxSearch, "_pace", lambda search, name: 10.0)
    asked, task = Asked(str(squares), tmp_path, Budget(), 60.0), module.TASKS["boxes"]
    table = task.read(DataSource(squares))
    states = course.Course(asked, task, table, asked.log("a"), dict, {}, "")
    tried = module.BoxSearch(asked, table, states, few())
    images = len(table.of_split("train"))
    for slice_s, seen in ((5.0, round(images / 2)), (0.0, 4), (10.0, images)):
        tried.slice_s = slice_s
        order = tried._plan_trial(few()[0].name, 0, 1.0, 100.0, True)
        assert (order["epochs"], order["images"]) == (1, seen)
        part = tried._part(seen)
        assert len(part.of_split("train")) == seen and len(part.of_split("val")) == len(table.of_split("val"))
        states.log.records.clear()


def test_a_search_that_goes_on_repeats_nothing(found, squares, tmp_path, monkeypatch):
    out, result = found
    shutil.copytree(out, tmp_path / "whole")
    lines = (out / "trials.jsonl").read_text().splitlines()
    monkeypatch.setattr(module.Trainings, "train", None)  # calling it would be an error
    again = search(squares, tmp_path / "whole")
    assert (tmp_path / "whole" / "trials.jsonl").read_text().splitlines() == lines
    assert again["metrics"]["chosen"] == result["metrics"]["chosen"]


def test_a_search_that_was_killed_goes_on_behind_what_was_finished(found, squares, tmp_path):
    out, _ = found
    lines = (out / "trials.jsonl").read_text().splitlines()
    cut = [json.loads(line)["kind"] for line in lines].index("file") + 1
    first = json.loads(lines[cut - 1])["file"].split("/")[0]
    shutil.copytree(out / "files" / first, tmp_path / "files" / first)
    (tmp_path / "trials.jsonl").write_text("\n".join(lines[:cut]) + "\n" + '{"kind": "fi')
    search(squares, tmp_path, seconds=0.1)
    after = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert after == lines[:cut]  # the time was over: what there is is delivered
    assert (tmp_path / "model.onnx").exists()


def test_an_impossible_budget_is_refused_at_once_with_the_smallest_and_the_fastest(squares, tmp_path):
    with pytest.raises(RecipeError, match=r"fits 1,000 bytes: the smallest, tiny-yolov2-0.1-64 in int8, has \d+,\d+"):
        search(squares, tmp_path / "a", Budget(max_bytes=1000))
    with pytest.raises(RecipeError, match=r"the fastest, tiny-yolov2-0.1-64 in \w+, takes \d+\.\d\d ms a frame"):
        search(squares, tmp_path / "b", Budget(max_bytes=200_000, max_latency_ms=1e-3))
    assert len(records(tmp_path / "b", "card")) == 1  # what is larger or slower need not be measured
    assert not records(tmp_path / "b", "order")


def test_within_both_limits_a_detector_comes_in_the_quickest_storage_that_is_small_enough(
    squares, tmp_path, monkeypatch
):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(course, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def costs(name, seconds):
        clock.now = 0.0
        budget = Budget(max_bytes=10**6, max_latency_ms=5.0)
        asked, task = Asked(str(squares), tmp_path / name, budget, seconds), module.TASKS["boxes"]
        table = task.read(DataSource(squares))
        states = course.Course(asked, task, table, asked.log("a"), dict, {}, "")
        return module.BoxSearch(asked, table, states, few()).costs

    def card(costs, name, chain):
        clock.now += 10.0
        took = {"": 1.0, "half": 2.0, "int8": 3.0}[chain]
        measured = {"frame_ms": {"p50": took, "p95": took}}
        size = costs.weights[name] * STORED[chain]
        return {"name": name, "chain": chain, "bytes": size, "measured": measured}

    monkeypatch.setattr(box_costs.BoxCosts, "_card", card)
    small, large = (plan.name for plan in few())
    found = costs("a", 3600.0)
    found.measure()
    assert 4 * found.weights[small] < 10**6 < 4 * found.weights[large]  # in float32 the larger is too large
    assert found.able == {small: ["", "half", "int8"], large: ["half"]} and found.course.missed == []
    short = costs("b", 100.0)  # a fifth of it is over behind the first
    short.measure()
    assert set(short.able) == {small} and short.course.missed == ["what 1 detectors cost was not measured"]


def test_accuracy_that_is_not_reached_is_said(found, squares, tmp_path):
    shutil.copytree(found[0], tmp_path / "run")
    with pytest.raises(TrainingError, match=r"nothing found keeps .*accuracy 1 or more: the best that fits reached"):
        search(squares, tmp_path / "run", Budget(max_bytes=LIMIT, min_accuracy=1.0))


def test_networks_whose_weights_are_not_there_are_left_out_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VIDLET_WEIGHTS", str(tmp_path))
    plans = box_recipes()
    assert {plan.extractor.name for plan in plans} == {"tiny-yolov2"}
    assert "mobilenetv2-boxes is left out of the search: VIDLET_WEIGHTS=" in capsys.readouterr().err
    assert len(plans) == len(NETWORKS["tiny-yolov2"][1]) * len(SIZES) and len({plan.name for plan in plans}) == 15


def test_the_command_finds_boxes_by_itself_and_refuses_what_they_cannot_have(squares, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "box_recipes", lambda seed: few()[:1])
    asked = ["fit", str(squares), "--max-size", "220KB", "--time", "0.1", "--out", str(tmp_path / "run")]
    assert main([*asked, "--fold", "0/5"]) == 2
    assert "images with boxes have no groups" in capsys.readouterr().err
    status = main([*asked, "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    told = json.loads(said.out)
    assert told["files"]["model.onnx"] <= 220_000 and told["metrics"]["trials"] == 1
    [warning] = told["metrics"]["warnings"]
    assert warning.startswith("the time was over; no detector was trained for longer than a trial; ")
    assert main(asked) == 2
    assert "holds a search" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="a space is of extractors"):
        fit(squares, space=object(), out=tmp_path / "b")


@pytest.mark.slow
def test_where_time_is_left_the_best_is_trained_for_integers_too(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRAINED", ("deepeye", "qat+int8"))
    result = search(squares, tmp_path / "run")
    chains = {file["chain"] for file in records(tmp_path / "run", "file")}
    assert chains == {*STORED, "deepeye", "qat+int8"} and result["metrics"]["chosen"]["bytes"] <= LIMIT
