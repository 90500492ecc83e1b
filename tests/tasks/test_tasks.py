"""The table of tasks: which one data, a recipe and a model file belong to, and what each refuses."""

import subprocess
import sys
from dataclasses import fields

import pytest

import vidlet
from artifacts import classifier, save
from boxes_case import OVERRIDES, write_squares
from vidlet.datasets import Clip, ClipTable
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError, TrainingError
from vidlet.jobs.fit import SEARCHES
from vidlet.recipe import load_recipe
from vidlet.runtime import load
from vidlet.tasks import TASKS, scored_split, task_of_data, task_of_model, task_of_recipe
from vidlet.tasks.clips import labelled_clips
from vidlet.tasks.networks import Networks
from vidlet.tasks.prepare import sample_clips


@pytest.fixture(scope="module")
def data(motion_clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    render_residual(root / "records", 20, 10, 10, seed=0, classes=3)
    return {"clips": motion_clips, "boxes": write_squares(root / "boxes"), "records": root / "records"}


@pytest.mark.parametrize("name", ["clips", "boxes", "records"])
def test_data_tell_their_task_and_it_reads_them_with_a_split_each(data, name):
    task = task_of_data(data[name])
    assert task.name == name
    from vidlet.tasks import DataSource

    table = task.read(DataSource(data[name]))
    task.check(table)
    assert len(table) and {item.split for item in table} == {"train", "val", "test"}
    assert task.scored_split(table)[0] == "test"
    report = task.inspect(data[name]).to_dict()
    assert report[task.counted] == len(table)


def test_a_recipe_and_its_data_tell_their_task(data):
    names = {"clips": "tiny-grid-gru", "boxes": "tiny-yolov2", "records": "records-mean"}
    for name, recipe in names.items():
        assert task_of_recipe(load_recipe(recipe), data[name]).name == name


def test_a_model_file_tells_its_task(tiny_run, tmp_path):
    assert task_of_model(load(tiny_run.model)).name == "clips"
    assert task_of_model(load(save(classifier(), tmp_path / "model.onnx"))).name == "clips"


@pytest.mark.parametrize("name", ["clips", "boxes", "records"])
def test_every_task_has_all_that_networks_need(name):
    networks = TASKS[name].networks()
    assert all(callable(getattr(networks, field.name)) for field in fields(Networks))


def test_every_task_has_a_search():
    assert set(SEARCHES) == set(TASKS)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fold": "0/5"}, "--fold: images with boxes have no groups"),
        ({"init": "run"}, "--init: not for detectors"),
        ({"refit_all": True}, "--refit-all: not for detectors"),
        ({"teachers": ["run"]}, "--teacher: not for detectors"),
        ({"val_shards": 2}, "--val-shards: not for detectors"),
    ],
)
def test_what_a_detector_cannot_have_is_refused_before_anything_is_read(option, message, tmp_path):
    with pytest.raises(TrainingError, match=message):
        vidlet.train(tmp_path / "nothing", "tiny-yolov2", tmp_path / "run", OVERRIDES, **option)
    assert not (tmp_path / "run").exists()


def test_data_of_another_kind_than_the_model_are_refused_in_one_line(tiny_run, data):
    with pytest.raises(DataError, match="stored features, no videos; this command takes clips"):
        vidlet.evaluate(tiny_run.model, data["records"])


def test_the_split_to_score_is_the_one_asked_for_or_test_or_val(motion_clips):
    table = labelled_clips(motion_clips)
    assert scored_split(table)[0] == "test"
    untested = table.with_clips(clip for clip in table if clip.split != "test")
    assert scored_split(untested)[0] == "val"
    assert len(scored_split(table, "all")[1]) == len(table)
    with pytest.raises(DataError, match="no images in split test"):
        scored_split(untested, "test", "images")


def test_what_reads_scores_and_predicts_works_where_torch_is_not_installed(tiny_run, data):
    code = f"""
import sys
for name in ("torch", "onnx", "onnxscript", "pyarrow"):
    sys.modules[name] = None  # an import of it is an ImportError
import vidlet
print(vidlet.evaluate({str(tiny_run.model)!r}, {str(data["clips"])!r}, split="val")["clips"])
print([len(vidlet.data(path).to_dict()["classes"]) for path in {[str(path) for path in data.values()]!r}])
print(next(vidlet.predict({str(tiny_run.model)!r}, {str(next(data["clips"].rglob("*.mp4")))!r}))["label"] != "")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["8", "[8, 2, 3]", "True"]


def test_where_no_training_clip_can_be_read_no_file_is_made_and_the_reason_is_said(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    table = ClipTable((Clip(tmp_path / "a.mp4", ("a",), split="train"),), ("a",), tmp_path)
    with pytest.raises(DataError, match=r"none of 1 training clips can be read.*a\.mp4"):
        sample_clips(table, load_recipe("tiny-grid-gru"))
