"""The motion set: a pair differs in the order of frames and in nothing else, and the order tells."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vidlet.datasets import MOTION_PAIRS, inspect_table, read_table, render_motion
from vidlet.datasets import motion as motion_set
from vidlet.datasets.motion import MotionClip, draw_clip
from vidlet.errors import DataError
from vidlet.video import iter_frames, probe

CLIPS, SIZE = 480, 32
COARSE = 16


@pytest.fixture(scope="module")
def drawn() -> list[MotionClip]:
    return [draw_clip(index, CLIPS, seed=5, size=SIZE) for index in range(CLIPS)]


def coarse(frames: np.ndarray) -> np.ndarray:
    """Grey pictures of 16 x 16, float (T, 256)."""
    grey = frames.astype(np.float32).mean(axis=3)
    step = SIZE // COARSE
    return grey.reshape(len(grey), COARSE, step, COARSE, step).mean(axis=(2, 4)).reshape(len(grey), -1) / 255


def pair_accuracy(drawn: list[MotionClip], pair: tuple[str, str], features: list[np.ndarray]) -> float:
    """Which class of the pair, by logistic regression, every scene tested once by the model of the others."""
    chosen = [i for i, clip in enumerate(drawn) if clip.label in pair]
    x = np.stack([features[i] for i in chosen])
    y = np.array([drawn[i].label == pair[1] for i in chosen])
    fold = np.array([int(drawn[i].group.removeprefix("scene")) % 4 for i in chosen])
    right = 0
    for k in range(4):
        model = LogisticRegression(C=0.01, max_iter=300).fit(x[fold != k], y[fold != k])
        right += (model.predict(x[fold == k]) == y[fold == k]).sum()
    return right / len(y)


@pytest.mark.parametrize("pair", MOTION_PAIRS)
def test_single_frames_and_unordered_bags_of_frames_are_at_chance_within_a_pair(drawn, pair):
    rng = np.random.default_rng(0)
    bags = [coarse(clip.frames) for clip in drawn]
    single = pair_accuracy(drawn, pair, [bag[rng.integers(len(bag))] for bag in bags])
    mean = pair_accuracy(drawn, pair, [bag.mean(axis=0) for bag in bags])
    deviation = pair_accuracy(drawn, pair, [bag.std(axis=0) for bag in bags])
    chance = 3 * 0.5 / np.sqrt(120)  # three deviations of the accuracy of guessing 120 clips
    assert abs(single - 0.5) <= chance
    assert abs(mean - 0.5) <= chance
    assert abs(deviation - 0.5) <= chance


def extent(frames: np.ndarray) -> np.ndarray:
    """How much of each frame the object covers: (T,). Against the background, which is most of the clip's median."""
    return np.abs(frames.astype(np.float32) - np.median(frames, axis=(0, 1, 2))).sum(axis=3).mean(axis=(1, 2))


def horizontal(frames: np.ndarray) -> np.ndarray:
    """Where along the width each frame differs from the clip's median picture: (T,)."""
    change = np.abs(frames.astype(np.float32) - np.median(frames, axis=0)).sum(axis=3) ** 2
    return (change.sum(axis=1) * np.arange(frames.shape[2])).sum(axis=1) / change.sum(axis=(1, 2))


def test_the_order_of_frames_tells_left_from_right(drawn):
    clips = [clip for clip in drawn if clip.label in ("move_left", "move_right")]
    third = [len(clip.frames) // 3 for clip in clips]
    places = [horizontal(clip.frames) for clip in clips]
    rightward = [x[-n:].mean() > x[:n].mean() for x, n in zip(places, third, strict=True)]
    assert np.mean([r == (c.label == "move_right") for r, c in zip(rightward, clips, strict=True)]) >= 0.95


def test_the_order_of_frames_tells_growing_from_shrinking(drawn):
    clips = [clip for clip in drawn if clip.label in ("grow", "shrink")]
    last = [np.mean(np.diff(extent(clip.frames))) > 0 for clip in clips]
    assert np.mean([grew == (c.label == "grow") for grew, c in zip(last, clips, strict=True)]) >= 0.95


@pytest.mark.parametrize("pair", MOTION_PAIRS)
def test_both_of_a_pair_are_drawn_by_one_function_and_the_second_is_turned_round(monkeypatch, pair):
    canvases = []
    draw = motion_set._MOTIONS[pair[0]]

    def watched(canvas, progress, rng):
        assert (np.diff(progress) >= 0).all()
        draw(canvas, progress, rng)
        canvases.append(canvas)

    monkeypatch.setitem(motion_set._MOTIONS, pair[0], watched)
    monkeypatch.setattr(motion_set, "_finish", lambda frames, look, rng: frames)
    first = [name for names in MOTION_PAIRS for name in names].index(pair[0])
    forward, backward = (draw_clip(index, CLIPS, seed=1, size=SIZE) for index in (first, first + 1))
    assert (forward.label, backward.label) == pair
    np.testing.assert_array_equal(forward.frames, canvases[0].rgb)
    np.testing.assert_array_equal(backward.frames, canvases[1].rgb[::-1])


def digest(clips: list[MotionClip]) -> str:
    return hashlib.sha256(b"".join(clip.frames.tobytes() for clip in clips)).hexdigest()


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others():
    first = [draw_clip(index, 24, seed=3, size=48) for index in range(8)]
    again = [draw_clip(index, 24, seed=3, size=48) for index in reversed(range(8))][::-1]
    assert digest(first) == digest(again)
    assert digest(first) != digest([draw_clip(index, 24, seed=4, size=48) for index in range(8)])


def test_lengths_rates_and_scenes_vary_and_are_the_same_for_both_of_a_pair(drawn):
    assert {clip.fps for clip in drawn} == {12, 16, 20, 24, 30}
    seconds = np.array([(len(clip.frames) - 1) / clip.fps for clip in drawn])
    assert set(seconds) == {1.0, 1.5, 2.0, 2.5}
    assert len({clip.group for clip in drawn}) == 30
    for group in {clip.group for clip in drawn}:
        labels = [clip.label for clip in drawn if clip.group == group]
        assert {labels.count(label) for label in labels} == {2}


def test_the_written_files_are_the_drawn_clips_and_the_table_is_read_back(tmp_path):
    moved = []
    table = render_motion(tmp_path, 24, seed=2, size=64, progress=lambda done, total: moved.append((done, total)))
    assert moved == [(n, 24) for n in range(1, 25)]
    assert read_table(tmp_path, strict=True) == table
    assert {split: len(table.of_split(split)) for split in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), 8
    )
    report = inspect_table(table)
    assert (report.broken, report.leaking_groups, report.duplicates, report.groups) == ((), (), (), 3)
    for index, clip in enumerate(table.clips[:4]):
        wanted = draw_clip(index, 24, seed=2, size=64)
        info = probe(clip.path)
        assert (info.codec, info.width, info.height, clip.label) == ("h264", 64, 64, wanted.label)
        assert info.fps == pytest.approx(wanted.fps)
        frames = np.stack([frame.rgb() for frame in iter_frames(clip.path)])
        assert frames.shape == wanted.frames.shape
        assert np.abs(frames.astype(float) - wanted.frames).mean() < 12


@pytest.mark.parametrize(("clips", "splits"), [(1, {"train"}), (8, {"train"}), (16, {"train", "val"})])
def test_small_sets_fill_train_first(tmp_path, clips, splits):
    table = render_motion(tmp_path, clips, size=32)
    assert len(table) == clips
    assert {clip.split for clip in table} == splits


def test_more_pairs_and_other_shares_are_there_for_the_asking(tmp_path):
    table = render_motion(tmp_path, 36, size=32, split=(0.5, 0.0, 0.5), classes_extra=True)
    assert set(table.labels) >= {"move_up", "move_down", "appear", "vanish"}
    assert len(table.labels) == 12
    assert {split: len(table.of_split(split)) for split in ("train", "val", "test")} == {
        "train": 12,
        "val": 0,
        "test": 24,
    }


@pytest.mark.parametrize(
    "arguments", [{"clips": 0}, {"size": 30}, {"size": 65}, {"split": (0.0, 0.5, 0.5)}, {"split": (1.0,)}]
)
def test_impossible_sets_are_refused_before_anything_is_written(tmp_path: Path, arguments):
    with pytest.raises(DataError, match="motion set"):
        render_motion(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_rendering_twice_gives_the_same_files(tmp_path):
    for name in ("a", "b"):
        render_motion(tmp_path / name, clips=16, seed=0)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.mp4"))
    assert len(files) == 16
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
