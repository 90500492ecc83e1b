"""Augmentation: clips stay clips, what is certain does what it says, mixing keeps the mass of the labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlet.errors import RecipeError
from vidlet.training.augment import AMOUNTS, check_amounts, mix, read_between, time_positions, transform_frames

PICTURES = {"speed": 0.2, "drop": 0.2, "zoom": 0.1, "shift": 0.1, "rotate": 5.0, "light": 0.2, "flip": 0.5}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


AMOUNT = st.floats(0, 0.9)


@given(frames=st.integers(1, 60), speed=AMOUNT, crop=AMOUNT, drop=AMOUNT, seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_positions_ascend_within_the_clip(frames, speed, crop, drop, seed):
    found = time_positions(frames, {"speed": speed, "crop": crop, "drop": drop}, rng(seed))
    assert len(found) >= 1
    assert (np.diff(found) >= 0).all()
    assert found[0] >= 0
    assert found[-1] <= frames - 1
    assert len(found) <= frames * (1 + speed) + 1


@pytest.mark.parametrize("frames", [1, 2, 7, 30])
def test_with_no_amounts_a_clip_is_read_as_it_is(frames):
    np.testing.assert_allclose(time_positions(frames, {}, rng()), np.arange(frames), atol=1e-9)
    clip = rng(frames).normal(size=(frames, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(read_between(clip, time_positions(frames, {}, rng())), clip, atol=1e-6)
    pictures = torch.rand(frames, 3, 8, 8) * 255
    assert torch.equal(transform_frames(pictures, {}, rng()), pictures)


def test_between_two_frames_lies_their_mean():
    np.testing.assert_allclose(
        read_between(np.array([[0.0], [4.0], [6.0]]), np.array([0.5, 1.25, 2.0])).ravel(), [2, 4.5, 6]
    )


def test_a_certain_flip_mirrors_and_two_are_none():
    pictures = torch.rand(2, 3, 8, 10) * 255
    once = transform_frames(pictures, {"flip": 1.0}, rng())
    torch.testing.assert_close(once, pictures.flip(3), atol=1e-2, rtol=0)
    torch.testing.assert_close(transform_frames(once, {"flip": 1.0}, rng()), pictures, atol=2e-2, rtol=0)


def test_pictures_keep_their_shape_and_range_and_all_frames_move_alike():
    one = torch.rand(1, 3, 12, 12) * 255
    for seed in range(10):
        found = transform_frames(one.expand(4, -1, -1, -1), PICTURES, rng(seed))
        assert found.shape == (4, 3, 12, 12)
        assert found.min() >= 0
        assert found.max() <= 255
        assert all(torch.equal(frame, found[0]) for frame in found)


@given(seed=st.integers(0, 2**31), strength=st.floats(0.05, 2.0))
@settings(max_examples=30, deadline=None)
def test_mixing_keeps_the_mass_of_the_labels_and_the_frames_of_one_clip_alone(seed, strength):
    draw = rng(seed)
    x = torch.from_numpy(draw.normal(size=(6, 5, 4)).astype(np.float32))
    mask = torch.arange(5) < torch.from_numpy(draw.integers(1, 6, 6))[:, None]
    y = torch.eye(6)
    mixed, after, target = mix(x, mask, y, strength, rng(seed))
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    torch.testing.assert_close(target.sum(0), torch.ones(6))
    assert torch.equal(after, mask)
    low, high = x.min(0).values, x.max(0).values
    assert ((mixed >= low - 1e-5) & (mixed <= high + 1e-5)).all()
    share = target.diagonal()
    for i in range(6):
        if share[i] > 1 - 1e-6:  # mixed with itself
            torch.testing.assert_close(mixed[i], x[i])
            continue
        other = int((target[i] * (1 - torch.eye(6)[i])).argmax())
        both = (mask[i] & mask[other])[:, None]
        torch.testing.assert_close(mixed[i], torch.where(both, share[i] * x[i] + (1 - share[i]) * x[other], x[i]))


def test_unknown_and_negative_amounts_are_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown key 'sped' \(did you mean speed\?\)"):
        check_amounts({"sped": 0.1})
    for value in (-0.1, True, "much"):
        with pytest.raises(RecipeError, match=r"training\.augment\.zoom must be a number >= 0"):
            check_amounts({"zoom": value})
    with pytest.raises(RecipeError, match=r"training\.augment\.redraw must be a whole number >= 2, got 0.1"):
        check_amounts({"redraw": 0.1})
    check_amounts(dict.fromkeys(AMOUNTS, 2))


@pytest.mark.parametrize(("key", "mode"), [("zoom", "frozen"), ("flip", "frozen"), ("noise", "finetune")])
def test_an_augmentation_that_the_mode_cannot_do_is_refused_not_ignored(key, mode):
    with pytest.raises(RecipeError, match=f"augment.{key} has no effect where training.mode is '{mode}'"):
        check_amounts({key: 0.1}, mode)
