"""Augmentation "redraw": clips read more densely than the model sees them, frames drawn anew in every epoch."""

import numpy as np
import pytest

from vidlet.errors import RecipeError
from vidlet.models import build_extractor
from vidlet.recipe import Extractor, Recipe, Sampling, Training
from vidlet.tasks.clips import labelled_clips
from vidlet.tasks.prepare import prepare_features, prepare_frames
from vidlet.training import Draw, FeatureClips, FrameClips, check_amounts, training_sampling

TARGETS = np.eye(2, dtype=np.float32)


def numbered(frames: int) -> np.ndarray:
    """A clip (T, 1, 1, 3) whose frame t has the value t."""
    return np.arange(frames, dtype=np.uint8)[:, None, None, None].repeat(3, -1)


def seen(clips, seed: int, amounts) -> list[list[int]]:
    batch = next(iter(clips.batches(Draw(2, [0, 1], amounts, (seed,)))))
    return [row[mask].flatten(1)[:, 0].int().tolist() for row, mask in zip(batch.x, batch.mask, strict=True)]


@pytest.mark.parametrize("kind", ["frames", "features"])
def test_each_epoch_sees_other_frames_in_ascending_order_and_validation_all_of_them(kind):
    def read(index):
        return numbered(24)

    if kind == "frames":
        clips = FrameClips(read, TARGETS, ["a", "b"])
    else:
        clips = FeatureClips(lambda i: read(i)[:, 0, 0], TARGETS, ["a", "b"], np.ones(3, np.float32))
    drawn = [row for seed in range(20) for row in seen(clips, seed, {"redraw": 4})]
    assert {len(row) for row in drawn} == {6}
    assert all(row == sorted(set(row)) for row in drawn)
    assert set().union(*drawn) == set(range(24))
    assert len({tuple(row) for row in drawn}) > 30
    assert seen(clips, 3, {"redraw": 4}) == seen(clips, 3, {"redraw": 4})
    assert seen(clips, 0, None) == [list(range(24))] * 2


def test_training_clips_are_read_more_densely_and_only_of_uniform_sampling():
    uniform = Sampling(rule="uniform", frames=6)
    assert training_sampling(uniform, {"redraw": 4}).frames == 24
    assert training_sampling(uniform, {"speed": 0.2}) == uniform
    with pytest.raises(RecipeError, match=r'redraw needs sampling.rule = "uniform"'):
        training_sampling(Sampling(rule="rate"), {"redraw": 4})


@pytest.mark.parametrize("value", [1, 2.5, 0])
def test_the_factor_is_a_whole_number_of_two_or_more(value):
    with pytest.raises(RecipeError, match="redraw must be a whole number >= 2"):
        check_amounts({"redraw": value})


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_only_the_training_clips_of_a_table_are_read_so(mode, motion_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path))
    small = Extractor(width=0.35, input_size=(32, 32), cut="block1", grid=2, weights="none")
    training = Training(mode=mode, augment={"redraw": 3})
    plan = Recipe("test", Sampling(rule="uniform", frames=4), small, training=training)
    table = labelled_clips(motion_clips, None, strict=True)
    prepare = prepare_features if mode == "frozen" else prepare_frames
    prepared = prepare(plan, table, build_extractor(small), strict=True)
    assert {len(prepared.train.read(i)) for i in range(len(prepared.train))} == {12}
    assert {len(prepared.val.read(i)) for i in range(len(prepared.val))} == {4}
    batch = next(iter(prepared.train.batches(Draw(2, [0, 1], {"redraw": 3}))))
    assert batch.mask.sum(1).tolist() == [4, 4]
