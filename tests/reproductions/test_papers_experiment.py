"""The papers' experiments on given clips: what is trained, what is filled in, and that finished runs are kept."""

import json
from types import SimpleNamespace

import pytest

from vidlet.errors import RecipeError
from vidlet.jobs.papers import papers
from vidlet.recipe import load_recipe, save_recipe
from vidlet.reproductions import deepeye, experiment, tt3dcnn
from vidlet.reproductions.experiment import Effort, fill, measured, read_setup, run_recipes, shortened

CHEAP = {"extractor.input_size": [16, 16], "head.options": {"network": "small", "frames": 4}, "sampling.frames": 4}


def test_a_shortened_recipe_keeps_its_course_and_never_stops_early():
    plan = shortened("tt-lstm-pixels", 10, {"training.lr": 0.5})
    assert (plan.training.epochs, plan.training.early_stopping, plan.training.lr) == (10, 0, 0.5)
    assert shortened("viva-1", 100).training.schedule.step_epochs == 30  # as the paper's
    assert shortened("viva-1", 1).training.schedule.step_epochs == 1


def test_what_is_scored_is_the_test_split_and_all_else_is_trained_on(motion_clips):
    from vidlet.datasets import read_table

    of = {split: len(read_table(motion_clips).of_split(split)) for split in ("train", "val", "test")}
    assert min(of.values()) > 0
    found = read_setup(motion_clips, shortened("viva-1", 1, CHEAP))
    assert (len(found.prepared.train), len(found.prepared.val)) == (of["train"] + of["val"], of["test"])
    few = read_setup(motion_clips, shortened("viva-1", 1, CHEAP), share=0.01).prepared  # none is ever empty
    assert (len(few.train), len(few.val)) == (1, 1)


def test_finished_runs_are_read_from_the_file_and_not_run_again(motion_clips, tmp_path, monkeypatch):
    log = tmp_path / "runs" / "log.jsonl"
    cases = {"a": ("viva-1", CHEAP)}
    first = run_recipes(cases, motion_clips, Effort(epochs=1, seeds=1), log)
    assert 0 <= first["a"][0]["accuracy"] <= 1 and first["a"][0]["bytes"] > 10_000
    assert first["a"][0]["epoch_s"] > 0

    def never(*_):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train_and_score", never)
        assert run_recipes(cases, motion_clips, Effort(epochs=1, seeds=1), log) == first
        with pytest.raises(AssertionError, match="trained again"):  # another length is another run
            run_recipes(cases, motion_clips, Effort(epochs=2, seeds=1), log)
    assert len(log.read_text().splitlines()) == 1


def test_values_are_set_where_a_head_has_them_and_one_that_none_has_is_refused(motion_clips, tmp_path, monkeypatch):
    seen = {}

    def trained(setup, plan, head, device):
        seen[plan.head.name] = (plan.head.options, plan.training.lr, device)
        return runs(0.5)[0]

    monkeypatch.setattr(experiment, "train_and_score", trained)
    small = {
        "extractor.width": 0.35,
        "extractor.input_size": [32, 32],
        "extractor.weights": "none",
        "sampling.frames": 2,
    }
    cases = {head: (f"mobilenetv2-{head}", small) for head in ("gru", "single")}
    given = {"head.options.hidden": 8, "training.lr": 0.5}
    run_recipes(cases, motion_clips, Effort(1, 1, 0.1, overrides=given, device="cuda"), tmp_path / "log")
    assert seen == {"gru": ({"hidden": 8}, 0.5, "cuda"), "single": ({}, 0.5, "cuda")}
    with pytest.raises(RecipeError, match=r"no recipe of the experiment has a head with head\.options\.hiden"):
        run_recipes(cases, motion_clips, Effort(overrides={"head.options.hiden": 8}), tmp_path / "log")
    with pytest.raises(RecipeError, match="of use with data only"):
        papers("mobile", overrides=given)


def runs(*accuracies):
    return [{"accuracy": a, "bytes": 100 + i, "epoch_s": 2.0 + i, "scored": 9} for i, a in enumerate(accuracies)]


def test_means_and_spreads_are_over_seeds_and_a_single_run_has_no_spread():
    assert measured(runs(0.5, 0.7)) == {"accuracy": 0.6, "spread": 0.1414, "bytes": 101, "epoch_s": 2.5}
    assert "spread" not in measured(runs(0.5))


def test_the_measured_column_is_filled_where_it_belongs_and_nowhere_else(monkeypatch, tmp_path):
    values = {"VIVA-1 dense": 0.8, "VIVA-1 TT": 0.7, "VIVA-2 dense": 0.6, "VIVA-2 TT": 0.65}
    monkeypatch.setattr(experiment, "run_recipes", lambda *_: {name: runs(a) for name, a in values.items()})
    found = papers("tt3dcnn", "clips", epochs=3, out=str(tmp_path / "x"))
    of = {r["name"]: r for t in found["tables"] for r in t["rows"] if r["measured"] is not None}
    assert {name: of[f"{name}: accuracy"]["measured"] for name in values} == values
    assert of["VIVA-1: lost by TT"]["measured"] == pytest.approx(0.1)
    assert of["VIVA-2: lost by TT"]["measured"] == pytest.approx(-0.05)
    assert of["none: accuracy"]["measured"] == 0.8 and of["both: accuracy"]["measured"] == 0.7
    assert of["VIVA-1 dense: accuracy"]["printed"] == 0.7861  # other columns stay
    assert not [name for name in of if name.startswith(("VIVA-3", "UCF", "CNN"))]
    assert found["measured_on"] == {"data": "clips", "epochs": 3, "seeds": 1, "clips": 1.0, "scored": 9}
    json.dumps(found)


def test_deepeyes_second_table_gets_accuracies_and_the_time_of_an_epoch(monkeypatch, tmp_path):
    made = {"plain RNN on frames": [{**runs(0.3)[0], "epoch_s": 30.0}], "T-RNN on frames": runs(0.4)}
    monkeypatch.setattr(experiment, "run_recipes", lambda *_: made)
    rows = {r["name"]: r for t in papers("deepeye", "clips", out=str(tmp_path / "x"))["tables"] for r in t["rows"]}
    assert rows["T-RNN on frames"]["measured"] == 0.4 and rows["plain RNN on frames"]["measured"] == 0.3
    assert rows["T-RNN on frames: epoch"]["measured"] == 2.0
    assert rows["T-RNN on frames: faster than plain"]["measured"] == 15.0
    assert rows["DEEPEYE (detector features)"]["measured"] is None


def test_a_detectors_run_gives_the_rows_on_its_features_and_its_map(monkeypatch, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    save_recipe(load_recipe("tiny-yolov2", {"extractor.input_size": [96, 64]}), run / "recipe.toml")
    (run / "metrics.json").write_text(json.dumps({"files": {"model.onnx": {"map50": 0.5}}}))
    asked = {}

    def noted(cases, *_):
        asked.update(cases)
        return {name: [{**run, "epoch_s": 4.0} for run in runs(0.3, 0.5)] for name in cases}

    monkeypatch.setattr(experiment, "run_recipes", noted)

    def measured_rows():
        found = papers("deepeye", "clips", out=str(tmp_path / "x"), detector=str(run))
        return {r["name"]: r["measured"] for t in found["tables"] for r in t["rows"]}

    rows = measured_rows()
    assert asked[deepeye.FLOAT] == (
        "deepeye",
        {"extractor.weights": str(run / "model.onnx"), "extractor.input_size": [96, 64]},
    )
    assert deepeye.EIGHT not in asked and rows[deepeye.EIGHT] is None
    assert (rows["float"], rows["8 bits"]) == (0.5, None)
    told = {"files": {"model.onnx": {"map50": 0.5}, "model.deepeye6.onnx": {"map50": 0.4}}}
    (run / "metrics.json").write_text(json.dumps(told))
    rows = measured_rows()
    assert asked[deepeye.EIGHT][1]["extractor.weights"] == str(run / "model.deepeye6.onnx")
    assert (rows["float"], rows["8 bits"]) == (0.5, 0.4)
    assert rows[deepeye.EIGHT] == 0.4 and rows[f"{deepeye.EIGHT}: spread"] == 0.1414
    assert rows["DEEPEYE: epoch"] == 4.0 and rows["DEEPEYE: faster than plain on frames"] == 1.0
    file = tmp_path / "people.onnx"
    file.touch()
    with monkeypatch.context() as patch:  # a detector that others trained: no mAP is known of it
        patch.setattr(deepeye, "load", lambda path, threads: SimpleNamespace(input_size=(416, 320)))
        assert deepeye.detector_files(file) == {deepeye.FLOAT: (file, (416, 320), None)}
    (run / "metrics.json").write_text(json.dumps({"files": {"model.onnx": {"accuracy": 0.5}}}))
    with pytest.raises(RecipeError, match="not the run folder of a detector"):
        measured_rows()
    with pytest.raises(RecipeError, match="with deepeye and data only"):
        papers("tt3dcnn", "clips", detector=str(run))


def test_a_row_that_no_table_has_is_our_mistake():
    with pytest.raises(KeyError):
        fill(tt3dcnn.tables()["tables"], {"no such row": 1.0})


@pytest.mark.parametrize("effort", [Effort(epochs=0), Effort(seeds=0), Effort(clips=0.0), Effort(clips=1.5)])
def test_an_effort_of_nothing_is_refused(effort, tmp_path):
    with pytest.raises(RecipeError, match="at least 1"):
        run_recipes({}, "x", effort, tmp_path / "log")
