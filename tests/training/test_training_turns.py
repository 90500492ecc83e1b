"""Mirroring and reversing clips, except those of classes with a direction; contrast and saturation."""

import dataclasses

import numpy as np
import pytest
import torch

from vidlet.datasets import read_table
from vidlet.errors import RecipeError
from vidlet.models import build_extractor
from vidlet.recipe import Extractor, Recipe, Sampling, Training
from vidlet.tasks.prepare import one_way_clips, prepare_frames
from vidlet.training import Draw, FeatureClips, FrameClips
from vidlet.training.augment import check_amounts, time_positions, transform_frames

TARGETS = np.eye(2, dtype=np.float32)
ONE_WAY = np.array([False, True])
SEEN = np.arange(1, 7, dtype=np.uint8)  # frame t of every clip is a picture whose left column is t, the right one 0


def frame_clips(one_way=None):
    frames = np.zeros((6, 4, 4, 3), np.uint8)
    frames[:, :, 0] = SEEN[:, None, None]
    return FrameClips(lambda i: frames, TARGETS, ["a", "b"], one_way=one_way)


def batch_of(clips, amounts, seed=0):
    return next(clips.batches(Draw(2, [0, 1], amounts, (seed, 0)))).x


def test_a_reversed_clip_is_the_clip_backwards():
    x = batch_of(frame_clips(), {"reverse": 1.0})
    assert x[0, :, 0, 0, 0].tolist() == SEEN[::-1].tolist()
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    stored = FeatureClips(lambda i: features, TARGETS, ["a", "b"], np.ones(2, np.float32))
    np.testing.assert_array_equal(batch_of(stored, {"reverse": 1.0})[0], features[::-1])


def test_clips_of_a_class_with_a_direction_are_neither_mirrored_nor_reversed():
    free, kept = batch_of(frame_clips(ONE_WAY), {"reverse": 1.0, "flip": 1.0})
    torch.testing.assert_close(free[:, 0, 0, 3], torch.tensor(SEEN[::-1].copy()).float())  # the other way round
    torch.testing.assert_close(kept[:, 0, 0, 0], torch.tensor(SEEN).float())
    features = np.arange(6, dtype=np.float32)[:, None]
    stored = FeatureClips(lambda i: features, TARGETS, ["a", "b"], np.ones(1, np.float32), one_way=ONE_WAY)
    free, kept = batch_of(stored, {"reverse": 1.0})
    assert free.flatten().tolist() == [5, 4, 3, 2, 1, 0]
    assert kept.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_half_of_the_clips_are_reversed_where_the_probability_is_a_half():
    rng = np.random.default_rng(0)
    turned = [time_positions(4, {"reverse": 0.5}, rng)[0] == 3 for _ in range(400)]
    assert 0.4 < np.mean(turned) < 0.6


def test_contrast_keeps_the_mean_and_stays_within_its_amount():
    clip = 100 + 20 * torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    factors = []
    for seed in range(50):
        changed = transform_frames(clip, {"contrast": 0.25}, np.random.default_rng(seed))
        assert changed.mean().item() == pytest.approx(clip.mean().item(), abs=1e-3)
        factors.append((changed.std() / clip.std()).item())
    assert 0.75 <= min(factors) < 0.85
    assert 1.15 < max(factors) <= 1.25


def test_saturation_leaves_gray_and_brightness_alone():
    gray = torch.full((2, 3, 4, 4), 77.0)
    torch.testing.assert_close(transform_frames(gray, {"saturation": 0.9}, np.random.default_rng(0)), gray)
    color = torch.tensor([120.0, 100, 90]).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    changed = transform_frames(color, {"saturation": 0.5}, np.random.default_rng(0))
    luma = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    torch.testing.assert_close((changed * luma).sum(1), (color * luma).sum(1))
    assert (changed - color).abs().max() > 1


def test_stored_features_have_no_contrast_and_may_be_reversed():
    check_amounts({"reverse": 0.5}, "frozen")
    with pytest.raises(RecipeError, match="contrast has no effect"):
        check_amounts({"contrast": 0.5}, "frozen")


def test_the_recipe_names_the_classes_and_a_wrong_name_is_told_before_the_work(motion_clips):
    table = read_table(motion_clips)
    label = table.labels[0]
    marked = one_way_clips(table.clips, table.labels, (label,))
    assert marked.tolist() == [label in clip.labels for clip in table]
    assert one_way_clips(table.clips, table.labels, ()) is None
    plan = Recipe("test", Sampling(), Extractor("pixels", input_size=(16, 16), cut="gray", grid=0, weights="none"))
    plan = dataclasses.replace(plan, training=Training(one_way=(label + "x",)))
    with pytest.raises(RecipeError, match=f"no label '{label}x' .did you mean {label}"):
        prepare_frames(plan, table, build_extractor(plan.extractor), strict=False)


def test_brightening_scales_all_frames_alike_and_never_darkens():
    clip = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 150
    factors = []
    for seed in range(20):
        changed = transform_frames(clip, {"brighten": 0.5}, np.random.default_rng(seed))
        factors.append(float(changed.sum() / clip.sum()))
        torch.testing.assert_close(changed, clip * factors[-1], rtol=1e-4, atol=1e-3)
    assert 1 <= min(factors) < 1.15 and 1.35 < max(factors) <= 1.5
    assert transform_frames(clip * 10, {"brighten": 0.5}, np.random.default_rng(0)).max() <= 255
