"""Weights of one set of labels begin those of another; a run is trained once more on all its clips."""

import csv
import json

import numpy as np
import pytest
import torch

import vidlet
from vidlet.cli import main
from vidlet.errors import TrainingError
from vidlet.models import build_extractor, build_head
from vidlet.recipe import load_recipe
from vidlet.runtime import read_metadata
from vidlet.tasks.transfer import open_start, start_extractor_, start_head_

TINY = {"training.epochs": 1, "compress": []}


def fresh(plan, labels):
    extractor = build_extractor(plan.extractor)
    return extractor, build_head(plan.head, extractor.feature_shape, labels)


@pytest.fixture(scope="module")
def frozen_run(motion_clips, tmp_path_factory):
    """A run whose extractor is as it was made: its head alone has learned."""
    out = tmp_path_factory.mktemp("frozen") / "run"
    overrides = {**TINY, "training.mode": "frozen", "training.augment": {}, "training.early_stopping": 3}
    vidlet.train(motion_clips, "tiny-grid-gru", out, overrides | {"training.epochs": 2}, refit_all=True)
    return out


def test_what_fits_is_taken_and_rows_follow_the_names_of_the_classes(tiny_run):
    start = open_start(tiny_run.folder)
    plan = load_recipe(tiny_run.folder / "recipe.toml")
    labels = ("a new one", *reversed(start.labels))
    extractor, head = fresh(plan, len(labels))
    start_extractor_(start, extractor, plan)
    begun = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    taken = start_head_(start, head, plan, labels)
    after = head.state_dict()
    assert set(taken.rows) == {"classify.weight", "classify.bias"}
    assert set(taken.whole) | set(taken.rows) == set(after)
    for name in taken.whole:
        assert torch.equal(after[name], start.head[name])
    assert torch.equal(after["classify.weight"][1:], start.head["classify.weight"].flip(0))
    assert torch.equal(after["classify.weight"][0], begun["classify.weight"][0])  # nothing is known of it
    weights = torch.load(tiny_run.folder / "extractor.pt", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in extractor.backbone.state_dict().items())
    assert "rows of" in str(taken)
    assert tiny_run.folder.name in extractor.provenance["started_from"]


def test_of_no_known_label_the_last_layer_begins_anew(tiny_run):
    start, plan = open_start(tiny_run.folder), load_recipe(tiny_run.folder / "recipe.toml")
    head = fresh(plan, len(start.labels))[1]
    begun = head.state_dict()["classify.weight"].clone()
    taken = start_head_(start, head, plan, tuple(f"other {i}" for i in range(len(start.labels))))
    assert set(taken.anew) == {"classify.weight", "classify.bias"}
    assert torch.equal(head.state_dict()["classify.weight"], begun)
    assert "begun anew: classify.weight" in str(taken)


def test_a_file_alone_gives_the_weights_that_its_run_kept(frozen_run, tmp_path):
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((frozen_run / "model.onnx").read_bytes())
    found, kept = open_start(alone), open_start(frozen_run)
    assert found.labels == kept.labels
    assert set(found.head) == set(kept.head)
    for name, tensor in kept.head.items():
        np.testing.assert_array_equal(found.head[name].numpy(), tensor.numpy(), err_msg=name)


def test_what_a_file_alone_does_not_hold_is_said(tiny_run, tmp_path):
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(tiny_run.model.read_bytes())
    with pytest.raises(TrainingError, match=r"its extractor was fine-tuned.*give the run folder"):
        open_start(alone)
    with pytest.raises(TrainingError, match="neither a finished run folder nor a model file"):
        open_start(tmp_path)


def test_another_extractor_or_head_is_refused_with_what_differs(tiny_run):
    start = open_start(tiny_run.folder)
    plan = load_recipe("tiny-grid-gru", {"extractor.cut": "block3"})
    with pytest.raises(TrainingError, match=r"another extractor: extractor\.cut 'block4', here 'block3'"):
        start_extractor_(start, fresh(plan, 4)[0], plan)
    plan = load_recipe("tiny-grid-gru", {"head.name": "mean", "head.options": {}})
    with pytest.raises(TrainingError, match=r"nothing of its head \(grid-gru\) fits this one \(mean\)"):
        start_head_(start, fresh(plan, 4)[1], plan, start.labels)


def test_training_starts_where_the_other_run_ended(tiny_run, motion_clips, tmp_path, capsys):
    words = ["train", str(motion_clips), "--recipe", "tiny-grid-gru", "--set", "compress=[]", "--epochs", "1"]
    words += [
        "--set",
        "training.lr=1e-9",
        "--set",
        "training.extractor_lr=1e-9",
        "--set",
        "training.averaging.decay=0.0",
    ]
    assert main([*words, "--init", str(tiny_run.folder), "--out", str(tmp_path / "b")]) == 0
    assert "taken: " in capsys.readouterr().err
    before, after = (torch.load(f / "head.pt", weights_only=True) for f in (tiny_run.folder, tmp_path / "b"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-4, rtol=1e-4)
    assert "started_from" in read_metadata(tmp_path / "b" / "model.onnx")["provenance"]


def test_a_refit_has_seen_all_clips_for_the_epochs_that_validation_found(frozen_run):
    metrics = json.loads((frozen_run / "metrics.json").read_text())
    with (frozen_run / "log.csv").open() as stream:
        log = [float(row["val_loss"]) for row in csv.DictReader(stream)]
    assert metrics["refit"]["epochs"] == 1 + int(np.argmin(log))
    assert metrics["refit"]["clips"] == 48
    assert metrics["refit"]["files"] == ["model.all.onnx"]
    with (frozen_run / "refit-all" / "log.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == metrics["refit"]["epochs"]
    told = read_metadata(frozen_run / "model.all.onnx")["evidence"][0]
    assert "they cannot measure it" in told["what"]
    assert told["value"] == metrics["accuracy"]
    weights = [torch.load(frozen_run / f / "head.pt", weights_only=True) for f in (".", "refit-all")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
