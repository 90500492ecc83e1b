"""Records as batches: dequantized before padding, labels as they are, and the loop learns from them."""

import numpy as np
import pytest
import torch

from vidlet.datasets.frame_record import Record, dequantize
from vidlet.datasets.records import Checks, RecordSet, write_records
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError
from vidlet.metrics import gap
from vidlet.models import build_head
from vidlet.recipe import Head, Schedule, Training
from vidlet.training import ClipNetwork, Draw, predict_logits, train_network
from vidlet.training.record_clips import RecordClips


def record(name, frames, labels):
    rng = np.random.default_rng(len(name) + frames)
    features = {k: rng.integers(0, 256, (frames, n), dtype=np.uint8) for k, n in (("rgb", 6), ("audio", 2))}
    return Record(name, labels, features)


@pytest.fixture
def records(tmp_path):
    write_records(tmp_path / "a.tfrecord", [record("a", 3, (0, 2)), record("b", 5, ()), record("c", 1, (4,))])
    return RecordSet(tmp_path)


def test_padding_is_zero_and_frames_are_dequantized(records):
    clips = RecordClips(records, [0, 1, 2], 5)
    (batch,) = clips.batches(Draw(3, [2, 0, 1]))
    assert batch.names == ("c", "a", "b")
    assert batch.x.shape == (3, 5, 8)
    assert batch.mask.sum(1).tolist() == [1, 3, 5]
    assert batch.y.tolist() == [[0, 0, 0, 0, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert (batch.x[~batch.mask] == 0).all()
    whole = records.read(0).features
    expected = np.concatenate([dequantize(whole["rgb"]), dequantize(whole["audio"])], 1)
    np.testing.assert_array_equal(batch.x[1, :3].numpy(), expected)
    assert clips.targets.shape == (3, 5)


def test_one_modality_and_some_rows(records):
    clips = RecordClips(records, [2, 0], 5, keys=("rgb",))
    (batch,) = clips.batches(Draw(2, [0, 1]))
    assert batch.names == ("c", "a")
    assert batch.x.shape == (2, 3, 6)


def test_moments_are_those_of_all_frames(records):
    mean, std = RecordClips(records, [0, 1, 2], 5).moments()
    frames = np.concatenate(
        [np.concatenate([dequantize(records.read(i).features[k]) for k in ("rgb", "audio")], 1) for i in range(3)]
    )
    np.testing.assert_allclose(mean, frames.mean(0), atol=1e-5)
    np.testing.assert_allclose(std, frames.std(0), atol=1e-5)


def test_records_of_means_have_one_frame(tmp_path):
    mean = np.linspace(-1, 1, 6, dtype=np.float32)
    write_records(tmp_path / "a.tfrecord", [Record("a", (1,), {"mean_rgb": mean})])
    (batch,) = RecordClips(RecordSet(tmp_path), [0], 2, keys=("mean_rgb",)).batches(Draw(1, [0]))
    np.testing.assert_array_equal(batch.x.numpy(), mean[None, None])


def test_a_vocabulary_of_another_size_is_refused_with_the_records_name(records):
    with pytest.raises(DataError, match=r"a.tfrecord id c: labels \(4,\) do not fit 4 classes"):
        RecordClips(records, [0, 1, 2], 4)


def test_the_loop_learns_labels_that_the_mean_cannot_see(tmp_path):
    """A small form of the set's experiment: six classes, NetVLAD against the mean over time."""
    render_residual(tmp_path, 200, 1, 100, seed=1, classes=6)
    sets = {split: RecordSet(str(tmp_path / f"{split}*"), Checks(classes=6)) for split in ("train", "test")}
    clips = {split: RecordClips(found, range(len(found)), 6) for split, found in sets.items()}
    config = Training(epochs=6, batch=20, lr=1e-2, schedule=Schedule("constant"), weight_decay=0.0, clip_norm=1.0)
    found = {}
    for name, options in (
        ("netvlad", {"clusters": 16, "hidden": 16, "experts": 2, "audio": 16, "momentum": 0.05}),
        ("pooled", {"top": 0, "deviation": False, "hidden": 64, "momentum": 0.05}),
    ):
        torch.manual_seed(0)
        network = ClipNetwork(build_head(Head(name, options), (80,), 6))
        network.head.calibrate(*map(torch.from_numpy, clips["train"].moments()))
        train_network(network, clips["train"], clips["test"], config, multi_label=True)
        found[name] = gap(torch.from_numpy(predict_logits(network, clips["test"], 64)).sigmoid(), clips["test"].targets)
    assert found["netvlad"] > found["pooled"] + 0.1, found
