"""Batches: the same for the same epoch, whatever pads them and whenever they are read."""

import numpy as np
import pytest
import torch

from training_case import AUGMENT, frame_clips, made_up, network, rng
from vidlet.errors import DataError, TrainingError
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Extractor, Head
from vidlet.training import ClipNetwork, Draw, FrameClips, predict_logits


def test_a_clip_has_the_same_logits_whatever_it_is_padded_with(tmp_path):
    clips = made_up(12)
    for name, options in (
        ("gru", {"hidden": 8, "units": 8}),
        ("lstm", {"hidden": 8, "units": 8}),
        ("mean", {"units": 8}),
        ("single", {"units": 8}),
    ):
        net = network(name=name, **options).eval()
        alone, together = predict_logits(net, clips, 1), predict_logits(net, clips, 12)
        np.testing.assert_allclose(alone, together, atol=1e-5)
        batch = next(iter(clips.batches(Draw(12, range(12)))))
        spoiled = torch.where(batch.mask[..., None], batch.x, 1e3)
        with torch.no_grad():
            np.testing.assert_allclose(net(spoiled, batch.mask), together, atol=1e-5)


def test_frames_have_the_same_logits_whatever_they_are_padded_with():
    torch.manual_seed(0)
    extractor = build_extractor(Extractor(width=0.35, input_size=(32, 32), cut="block3", grid=2, weights="none"))
    options = {"channels": 4, "project": 8, "hidden": 8}
    net = ClipNetwork(build_head(Head("grid-gru", options), extractor.feature_shape, 2), extractor).eval()
    frames = [rng(n).integers(0, 256, (n + 2, 32, 32, 3), dtype=np.uint8) for n in range(4)]
    clips = FrameClips(frames.__getitem__, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], list("abcd"))
    np.testing.assert_allclose(predict_logits(net, clips, 1), predict_logits(net, clips, 4), atol=1e-5)


PICTURES = {"speed": 0.2, "drop": 0.2, "zoom": 0.1, "shift": 0.1, "rotate": 5.0, "light": 0.2, "flip": 0.5}


def test_an_epoch_of_frames_is_the_same_whatever_the_timing_of_the_threads():
    order = rng().permutation(10).tolist()
    quick = list(frame_clips().batches(Draw(4, order, PICTURES, (0, 3))))
    slow = list(frame_clips(delay=True).batches(Draw(4, order, PICTURES, (0, 3))))
    assert [batch.names for batch in quick] == [tuple(str(i) for i in order[k : k + 4]) for k in (0, 4, 8)]
    for a, b in zip(quick, slow, strict=True):
        assert a.names == b.names
        for one, other in ((a.x, b.x), (a.mask, b.mask), (a.y, b.y)):
            assert torch.equal(one, other)
    another = next(iter(frame_clips().batches(Draw(4, order, PICTURES, (0, 4)))))
    assert another.x.shape != quick[0].x.shape or not torch.equal(another.x, quick[0].x)


def test_an_epoch_of_features_is_the_same_each_time_and_every_clip_is_in_it_once():
    order = rng(1).permutation(40).tolist()
    first, second = (list(made_up().batches(Draw(16, order, AUGMENT, (5, 2)))) for _ in range(2))
    assert [name for batch in first for name in batch.names] == [f"clip{i}.mp4" for i in order]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


def test_clips_as_they_are_are_untouched_by_length_limit_and_augmentation():
    batch = next(iter(frame_clips().batches(Draw(10, range(10)))))
    read = frame_clips().read
    for i in range(10):
        frames = torch.from_numpy(read(i)).permute(0, 3, 1, 2).float()
        assert torch.equal(batch.x[i, : len(frames)], frames)
        assert batch.mask[i].tolist() == [t < len(frames) for t in range(batch.x.shape[1])]
        assert (batch.x[i, len(frames) :] == 0).all()


def test_training_sees_at_most_the_recipes_frames():
    clips = made_up(4)
    clips.max_frames = 3
    assert next(iter(clips.batches(Draw(4, range(4), {})))).x.shape == (4, 3, 6)
    assert next(iter(frame_clips().batches(Draw(10, range(10), {})))).x.shape[1] == 4


def test_a_clip_that_becomes_unreadable_stops_training_with_its_reason():
    def read(index):
        raise DataError("a.mp4: no such file")

    clips = FrameClips(read, np.eye(2, dtype=np.float32), ["a", "b"])
    with pytest.raises(TrainingError, match=r"became unreadable during training: a\.mp4: no such file"):
        list(clips.batches(Draw(2, [0, 1])))
