"""`vidlet fit` over images with boxes: candidates measured, trained, chosen within the budget, and what is refused."""

import json
import shutil

import pytest

from boxes_case import OVERRIDES, write_squares
from vidlet.cli import main
from vidlet.errors import RecipeError, TrainingError
from vidlet.jobs.evaluate import evaluate
from vidlet.jobs.fit import fit
from vidlet.recipe import load_recipe
from vidlet.runtime import load
from vidlet.search import boxes as module
from vidlet.search.box_space import NETWORKS, SIZES, STORED, box_recipes
from vidlet.search.boxes import search_boxes
from vidlet.search.budget import Budget

LIMIT = 400_000
TRAINING = {"epochs": 4, "batch": 8, "augment": OVERRIDES["training.augment"]}


def few():
    """Two small detectors, quickly trained; of the larger only the integers fit."""
    return box_recipes(0, {"tiny-yolov2": ("width", (0.1, 0.14))}, (64,), TRAINING)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("boxes") / "squares")


def search(squares, out, budget=None, seconds=60.0):
    given = budget or Budget(max_bytes=LIMIT)
    return search_boxes(str(squares), out, given, seconds, None, 0, False, "vidlet fit", 1, few())


@pytest.fixture(scope="module")
def found(squares, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "run"
    return out, search(squares, out)


def records(out, kind):
    return [record for line in (out / "trials.jsonl").open() if (record := json.loads(line))["kind"] == kind]


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


def test_costs_come_first_then_short_trainings_then_the_best_for_longer(found):
    out, _ = found
    kinds = [json.loads(line)["kind"] for line in (out / "trials.jsonl").open()]
    assert kinds.index("order") > max(i for i, kind in enumerate(kinds) if kind == "card")
    orders = [(record["name"], record["stage"], record["epochs"]) for record in records(out, "order")]
    assert orders[:2] == [("tiny-yolov2-0.14-64", 0, 1), ("tiny-yolov2-0.1-64", 0, 1)]
    tried = {record["name"]: record["accuracy"] for record in records(out, "file")[:2]}
    assert orders[2] == (max(tried, key=lambda name: tried[name]), module.FINAL, 4)


def test_every_file_is_measured_and_the_best_on_validation_images_is_chosen(found):
    out, result = found
    files = records(out, "file")
    assert {f"{path.parent.name}/{path.name}" for path in out.glob("files/*/*.onnx")} == {
        file["file"] for file in files
    }
    for file in files:
        assert file["bytes"] == (out / "files" / file["file"]).stat().st_size and file["images"] == 3
        assert file["interval"][0] <= file["accuracy"] <= file["interval"][1] or file["accuracy"] == 0
        assert file["measured"]["frame_ms"]["p50"] > 0
    inside = [file["accuracy"] for file in files if file["bytes"] + 1200 <= LIMIT]
    assert result["metrics"]["chosen"]["accuracy"] == max(inside)
    assert {file["chain"] for file in files} >= {*STORED, "qat+int8", "deepeye"}  # there was time


def test_the_report_shows_the_front_and_what_another_budget_would_give(found):
    out, result = found
    page = (out / "report.html").read_text()
    for text in ("Size, speed and mAP .5", "Half the budget, twice the budget", "Precision over recall", "Learning"):
        assert text in page, text
    assert [row["bytes"] for row in result["metrics"]["what_if"]] == [LIMIT // 2, LIMIT, 2 * LIMIT]
    sizes = [point["bytes"] for point in result["metrics"]["front"]]
    assert sizes == sorted(sizes) and json.loads((out / "fit.json").read_text())["chosen"]


def test_a_search_that_goes_on_repeats_nothing(found, squares, tmp_path, monkeypatch):
    out, result = found
    shutil.copytree(out, tmp_path / "whole")
    lines = (out / "trials.jsonl").read_text().splitlines()
    monkeypatch.setattr(module.BoxSearch, "_file", None)  # calling it would be an error
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
    with pytest.raises(RecipeError, match=r"fits 1,000 bytes: the smallest, tiny-yolov2-0.1-64 in int8, has \d+"):
        search(squares, tmp_path / "a", Budget(max_bytes=1000))
    with pytest.raises(RecipeError, match=r"the fastest, tiny-yolov2-0.1-64 in \w+, takes \d+\.\d\d ms a frame"):
        search(squares, tmp_path / "b", Budget(max_latency_ms=1e-3))
    assert len(records(tmp_path / "b", "card")) == len(STORED)  # what is larger need not be measured
    assert not records(tmp_path / "b", "order")


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
    asked = ["fit", str(squares), "--max-size", "1MB", "--time", "0.1", "--out", str(tmp_path / "run")]
    assert main([*asked, "--fold", "0/5"]) == 2
    assert "images with boxes have no groups" in capsys.readouterr().err
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"]["model.onnx"] <= 10**6 and told["metrics"]["trials"] == 1
    assert main(asked) == 2
    assert "holds a search" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="a space is of extractors"):
        fit(squares, space=object(), out=tmp_path / "b")
