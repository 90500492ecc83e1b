"""Files that other decoders choked on: each gives a named error, or the frames that the manifest says."""

import csv

import numpy as np
import pytest

from shared_data import ROOT, shared
from vidlet.errors import DataError
from vidlet.recipe import Sampling
from vidlet.video import iter_frames, probe, read_clip, stream_clip

MANIFEST = ROOT / "data" / "hostile" / "manifest.csv"
ROWS = list(csv.DictReader(MANIFEST.read_text().splitlines())) if MANIFEST.exists() else []


@pytest.mark.parametrize("row", ROWS or [None], ids=[row["path"] for row in ROWS] or ["absent"])
def test_every_hostile_file_is_a_named_error_or_the_frames_of_the_manifest(row, capfd):
    path = shared("data", "hostile") / (row["path"] if row else "manifest.csv")
    told = dict(part.split("=") for part in row["pyav_18_result"].split(";") if "=" in part)
    try:
        times_s = [frame.time_s for frame in iter_frames(path)]
        clip = read_clip(path, Sampling("uniform", frames=8), (16, 16))
        ticks = read_clip(path, Sampling("rate", hz=8.0), (16, 16))
        info = probe(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        # one file decodes to frames that are gray all over, because its first one is damaged
        assert told.get("frames", "0") == "0" or row["path"] == "mp4parse/no_timescale.mp4"
        return
    finally:
        assert capfd.readouterr() == ("", "")
    assert len(times_s) == int(told["frames"])
    assert times_s[0] == 0.0
    assert (np.diff(times_s) > 0).all()
    assert clip.frames.shape == (8, 16, 16, 3)
    assert len(ticks.frames) >= 1
    assert info.pixel_format == row["pyav_18_result"].split(";")[4]
    assert (info.rotation - {"-90": 90, "90": 270, "-180": 180}.get(told["rot"], 0)) % 360 == 0
    short = int(told["declared"]) > int(told["frames"])
    assert bool(clip.damage) == bool(ticks.damage) == (short or bool(told["err"]))
    if short:
        assert f"{told['frames']} of {told['declared']} declared frames decoded, then: Invalid data" in clip.damage


@pytest.mark.parametrize(
    "name", ["decord/video_90.mov", "decord/video_180.mov", "decord/video_270.mov", "torchcodec/bt709_full_range.mp4"]
)
def test_rotation_and_color_agree_with_opencv(name):
    cv2 = pytest.importorskip("cv2")
    path = shared("data", "hostile") / name
    theirs = cv2.VideoCapture(str(path)).read()[1][:, :, ::-1]
    ours = next(iter_frames(path)).rgb()
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 3  # its rounding is not accurate


@pytest.mark.parametrize("name", ["mmaction2_demo.mp4", "mmaction2_test.avi", "mmaction2_test.mp4"])
def test_samples_of_other_tools_are_read_whole(name):
    path = shared("data", "samples") / name
    times_s = [frame.time_s for frame in iter_frames(path)]
    info = probe(path)
    assert len(times_s) == info.frames
    assert (np.diff(times_s) > 0).all()
    assert read_clip(path, Sampling("uniform", frames=8), (32, 32)).damage == ""


@pytest.mark.parametrize("name", ["decord/corrupted.mp4", "derived/bitrot_middle.mp4"])
@pytest.mark.parametrize("sampling", [Sampling("rate", hz=8.0), Sampling("uniform", frames=12)], ids=lambda s: s.rule)
def test_chunks_of_a_damaged_clip_are_the_clip_with_its_damage_told_at_the_end(name, sampling):
    path = shared("data", "hostile", *name.split("/"))
    whole = read_clip(path, sampling, (24, 24))
    assert whole.damage
    frames = len(whole.frames)
    for chunk in (4, frames, max(1, frames // 2), frames + 1):  # the damage lies within a chunk, or behind a full one
        chunks = list(stream_clip(path, sampling, (24, 24), chunk=chunk))
        np.testing.assert_array_equal(np.concatenate([part.frames for part in chunks]), whole.frames)
        np.testing.assert_array_equal(np.concatenate([part.times_s for part in chunks]), whole.times_s)
        assert all(len(part.frames) <= chunk for part in chunks)
        assert chunks[-1].damage == whole.damage
