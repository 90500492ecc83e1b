"""Where networks are trained is decided in one place, and a GPU that is not there is refused before any work."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import vidlet.jobs.fit as job
from steps_material import material, trained
from vidlet.compression import BoxMaterial
from vidlet.compression.box_qat import tune_boxes
from vidlet.compression.material import tune
from vidlet.errors import TrainingError
from vidlet.models.detector import build_detector
from vidlet.recipe import Extractor, Training
from vidlet.training import find_device


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for there, found in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert find_device("auto") == found
        assert find_device("cpu") == "cpu"


def test_a_name_that_is_no_device_is_refused():
    with pytest.raises(TrainingError, match="gpu: must be one of auto, cpu, cuda"):
        find_device("gpu")


COMMANDS = {
    "train": ("train", ".", "--device", "cuda"),
    "train, boxes": ("train", ".", "--recipe", "tiny-yolov2", "--device", "cuda"),
    "compress": ("compress", ".", ".", "int8", "--device", "cuda"),
    "fit": ("fit", ".", "--max-size", "1MB", "--train-on", "cuda"),
    "papers": ("papers", "deepeye", "--data", ".", "--device", "cuda"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_gpu_that_is_not_there_is_refused_in_one_line_before_the_data_are_read(words, no_gpu, refused):
    assert "no GPU" in refused(*words, said="--device cuda: torch") or "without CUDA" in refused(*words)


def test_steps_of_clips_train_on_the_device_of_their_material(no_gpu):
    here = material()
    with pytest.raises(TrainingError, match="--device cuda"):
        tune(trained(), type(here)(**vars(here) | {"device": "cuda"}), epochs=1)


def test_steps_of_boxes_train_on_the_device_of_their_material(no_gpu):
    detector = build_detector(Extractor("tiny-yolov2", 0.1, (64, 64), weights="none"), ("a",), np.array([[0.3, 0.3]]))
    with pytest.raises(TrainingError, match="--device cuda"):
        tune_boxes(detector, 1, BoxMaterial(Training(mode="finetune"), None, None, "cuda"), 1.0)  # no clip is touched


@pytest.mark.parametrize("search", ["clips", "boxes", "records"])
def test_train_on_names_where_heads_of_a_search_are_trained(search, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        job, "task_of_data", lambda data: SimpleNamespace(name=search, check_options=lambda *_, **__: None)
    )
    monkeypatch.setitem(job.SEARCHES, search, lambda asked: told.append(asked.device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for asked in ({}, {"train_on": "cpu"}, {"train_on": "cuda"}, {"train_on": "auto"}):
        job.fit(tmp_path, "1MB", out=tmp_path / "fit", **asked)
    assert told == ["cpu", "cpu", "cuda", "cuda"]
