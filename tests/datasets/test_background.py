"""Background: whole videos on one side each, bounded windows of a clip's length, and what is refused."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlet.datasets import Clip, ClipTable, background, between_segments, with_background
from vidlet.errors import DataError
from vidlet.tasks import TASKS


@pytest.fixture
def lengths(monkeypatch):
    """Seconds of videos by name, without any videos; clips of DATA have 2 s."""
    known: dict[str, float] = {}
    monkeypatch.setattr(background, "_lengths", lambda paths: ({path: known.get(path.name, 2.0) for path in paths}, []))
    return known


@pytest.fixture
def table(tmp_path):
    clips = [
        Clip(tmp_path / "data" / f"{label}{i}.mp4", (label,), f"p{i}", "test" if i > 8 else "val" if i > 7 else "train")
        for label in ("clap", "wave")
        for i in range(10)
    ]
    (tmp_path / "data").mkdir()
    for number, clip in enumerate(clips):
        clip.path.write_bytes(b"clip %d" % number)
    return ClipTable(tuple(clips), ("clap", "wave"), tmp_path / "data")


def videos(folder: Path, lengths: dict[str, float], seconds: list[float]) -> Path:
    """A folder of files that are as long as they say."""
    folder.mkdir()
    for number, length in enumerate(seconds):
        (folder / f"b{number}.mp4").write_bytes(b"background %d" % number)
        lengths[f"b{number}.mp4"] = length
    return folder


def added(table: ClipTable, split: str) -> list[Clip]:
    return [clip for clip in table.of_split(split) if clip.label == table.none]


def test_a_video_is_on_one_side_and_windows_are_as_long_as_a_clip(table, lengths, tmp_path):
    found, told = with_background(table, videos(tmp_path / "bg", lengths, [60, 50, 40, 30, 20, 10, 3]))
    assert (found.labels, found.none, told.added) == (("clap", "wave", "none"), "none", True)
    sides = [{clip.path for clip in part} for part in (added(found, "train"), added(found, "val"), told.held)]
    assert all(sides)
    assert sum(map(len, sides)) == 7 == len(set.union(*sides))
    for clip in (*added(found, "train"), *added(found, "val")):
        whole = clip.start_s is None
        assert clip.end_s - clip.start_s == pytest.approx(2.0) if not whole else lengths[clip.path.name] <= 4
    assert told.without(found).clips == table.clips
    assert not found.of_split("test").with_clips(c for c in found.of_split("test") if c.label == "none").clips


def test_of_a_single_video_the_parts_are_apart_in_time_and_that_is_said(table, lengths, tmp_path):
    found, told = with_background(table, videos(tmp_path / "bg", lengths, [100]))
    parts = sorted((c.start_s, c.end_s) for c in (*added(found, "train"), *added(found, "val"), *told.held))
    assert all(before[1] <= after[0] + 1e-6 for before, after in pairwise(parts))
    assert added(found, "train") and added(found, "val") and told.held
    assert max(c.end_s for c in added(found, "train")) + 2 <= min(c.start_s for c in added(found, "val")) + 1e-6
    assert "too few videos" in told.told


def test_a_background_of_days_costs_no_more_than_the_clips_and_is_looked_at_all_over(table, lengths, tmp_path):
    found, told = with_background(table, videos(tmp_path / "bg", lengths, [90_000, 80_000, 70_000, 60_000, 40]))
    train = added(found, "train")
    assert len(train) == background.LEAST  # there are fewer clips than that
    assert len(added(found, "val")) == background.LEAST // 3
    assert sum(c.end_s - c.start_s for c in told.held) == pytest.approx(background.HELD_S)
    for path in {clip.path for clip in train}:
        starts = [clip.start_s for clip in train if clip.path == path]
        assert min(starts) < 0.1 * lengths[path.name]
        assert max(starts) > 0.9 * lengths[path.name] - 4
    assert f"{background.LEAST} of " in told.told


def test_a_short_single_video_trains_and_nothing_is_left_to_measure(table, lengths, tmp_path):
    found, told = with_background(table, videos(tmp_path / "bg", lengths, [7]))
    assert len(added(found, "train")) == 3
    assert (added(found, "val"), told.held) == ([], ())


def test_a_class_is_named_or_meant_by_its_folder(table, tmp_path):
    for none in ("wave", tmp_path / "wave"):
        if none != "wave":
            none.mkdir()
            moved = []
            for clip in table:
                path = none / clip.path.name if clip.label == "wave" else clip.path
                shutil.move(clip.path, path)
                moved.append(replace(clip, path=path))
            table = table.with_clips(moved)
        found, told = with_background(table, none)
        assert (found.labels, found.none, told.added) == (table.labels, "wave", False)
        assert found.clips == table.clips
        assert [clip.split for clip in told.held] == ["test"]


def test_clips_of_the_data_and_their_copies_are_no_background(table, tmp_path):
    with pytest.raises(DataError, match=r"clap0\.mp4 is a clip of the data, of class 'clap'"):
        with_background(table, tmp_path / "data")
    (tmp_path / "bg").mkdir()
    shutil.copy(table.clips[13].path, tmp_path / "bg" / "another.mp4")
    with pytest.raises(DataError, match=r"another\.mp4 is a clip of the data, of class 'wave'"):
        with_background(table, tmp_path / "bg")


def test_what_is_no_background_is_one_line(table, lengths, tmp_path):
    with pytest.raises(DataError, match=r"no such folder or video, and no class of the data \(clap, wave\)"):
        with_background(table, "claps")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no video and no folder of frames in it"):
        with_background(table, tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(DataError, match="no video; give a folder"):
        with_background(table, tmp_path / "notes.txt")
    bg = videos(tmp_path / "bg", lengths, [60, 50, 40])
    called = replace(table, labels=("none", "wave"), clips=tuple(replace(c, labels=("wave",)) for c in table))
    with pytest.raises(DataError, match="have a class 'none' already"):
        with_background(called, bg)


def test_videos_that_cannot_be_read_are_listed_and_none_at_all_is_an_error(table, tmp_path):
    (tmp_path / "bg").mkdir()
    (tmp_path / "bg" / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"none of 1 videos can be read; first: .*broken\.mp4"):
        with_background(table, tmp_path / "bg")


@pytest.mark.parametrize("task", ["boxes", "records"])
def test_boxes_and_records_refuse_it(task):
    with pytest.raises(DataError, match="--none: "):
        TASKS[task].check_options(DataError, none="background")
    TASKS["clips"].check_options(DataError, none="background")


def test_between_segments_no_window_touches_one(table, lengths, tmp_path):
    lengths |= {"long0.mp4": 60.0, "long1.mp4": 40.0}
    cut = [
        Clip(tmp_path / f"long{video}.mp4", (label,), "", split, start, start + 2)
        for video, split in ((0, "train"), (1, "test"))
        for label, start in (("clap", 4.0), ("wave", 20.0), ("clap", 21.0))
    ]
    found = between_segments(table.with_clips(cut))
    assert found.label == ""
    assert found.windows and {clip.path.name for clip in found.windows} == {"long0.mp4"}
    assert {clip.path.name for clip in found.held} == {"long1.mp4"}
    for clip in (*found.windows, *found.held):
        for own in cut:
            assert clip.path != own.path or clip.end_s <= own.start_s - 0.5 or clip.start_s >= own.end_s + 0.5
    assert max(clip.end_s for clip in found.windows) > 50  # what lies behind the last one counts, too
    assert between_segments(table) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 200))
def test_nobody_gives_more_than_another_who_has_more(counts, most):
    quota = background._even_quota(counts, most)
    assert sum(quota) == min(most, sum(counts))
    assert all(take <= count for take, count in zip(quota, counts, strict=True))
    for i, take in enumerate(quota):
        assert all(take <= other + 1 or counts[j] == other for j, other in enumerate(quota)), (i, quota)
