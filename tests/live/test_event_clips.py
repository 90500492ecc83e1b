"""Clips around events: the right frames at their own times, bounded memory, nothing lost when a stream breaks off."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_live_events import BLUE, RED, Sender, plain, sender  # noqa: F401  # a fixture

import artifacts
from vidlet.cli import main
from vidlet.errors import DataError
from vidlet.live import event_clips
from vidlet.live.event_clips import EventClips
from vidlet.live.events import Event, EventRule, EventState, advance, finish
from vidlet.video import VideoWriter, iter_frames

HZ = 8


def gray(number):
    return np.full((32, 48, 3), 4 * number % 240 + 8, np.uint8)


def shown(path):
    """(time_s, number) of each frame of a clip; the numbers are read off the gray."""
    return [(frame.time_s, round((float(frame.rgb().mean()) - 8) / 4)) for frame in iter_frames(path)]


def numbers(line):
    return [number for _, number in shown(line["clip"])]


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Make EventClips that wait for nobody but take all, and what they told and said."""
    monkeypatch.setattr(event_clips, "MOST_WAITING", 10_000)
    told, said = [], []

    def make(around_s=1.0, told_after_s=0.0):
        return EventClips(tmp_path / "kept", HZ, around_s, told_after_s, told.append, said.append)

    make.told, make.said, make.folder = told, said, tmp_path / "kept"
    return make


def run(clips, scores, min_s=0.0, times=None):
    """What EventActions does with frames 0, 1, ... that have these scores."""
    rule, state, time_s = EventRule("wave", 0.8, min_s=min_s), EventState(), 0.0
    for number, score in enumerate(scores):
        time_s = number / HZ if times is None else times[number]
        clips.push(time_s, gray(number))
        state, change = advance(rule, state, time_s, score)
        if change.began:
            clips.began(change.began)
        if change.ended:
            clips.ended(change.ended)
    last = finish(state, time_s)
    if last:
        clips.ended(last)
    clips.close()


def test_a_clip_has_the_seconds_before_the_event_and_after_with_the_times_of_the_frames(watched):
    times = np.cumsum([0.0, *([0.125] * 20), 0.5, *([0.125] * 30)]).tolist()  # the camera paused within the event
    run(watched(1.0, 0.5), [0.1] * 16 + [0.9] * 12 + [0.1] * 20, min_s=0.5, times=times)
    (line,) = watched.told
    start_s, end_s = times[16], times[28]
    assert (line["event"], line["time_s"], line["end_s"], line["score"]) == ("wave", start_s, end_s, 0.9)
    wanted = [number for number in range(48) if start_s - 1 <= times[number] <= end_s + 1]
    found = shown(line["clip"])
    assert [number for _, number in found] == wanted and line["frames"] == len(wanted)
    np.testing.assert_allclose([at for at, _ in found], [times[n] - times[wanted[0]] for n in wanted], atol=2e-3)
    assert watched.said == []


def test_events_one_after_the_other_have_a_clip_each_and_none_is_overwritten(watched):
    run(watched(0.5), ([0.1] * 8 + [0.9] * 4) * 3 + [0.1] * 8)
    assert [line["time_s"] for line in watched.told] == [1.0, 2.5, 4.0]
    assert [numbers(line) for line in watched.told] == [list(range(n - 4, n + 9)) for n in (8, 20, 32)]
    files = sorted(watched.folder.iterdir())
    assert len(files) == 3 and {str(file) for file in files} == {line["clip"] for line in watched.told}
    clips = watched(0.0)
    clips.push(0.0, gray(0))
    clips.began(Event("../a b:c", 0.0, 1.0))
    clips.close()
    assert watched.told[-1]["clip"].startswith(str(watched.folder)) and watched.told[-1]["clip"].endswith("_a_b_c.mp4")


def test_an_event_at_the_very_start_or_end_of_a_source_has_what_there_is(watched):
    run(watched(2.0), [0.9] * 4)
    (line,) = watched.told
    assert numbers(line) == [0, 1, 2, 3] and line["end_s"] == 0.375


def test_a_stream_that_breaks_mid_event_loses_nothing(watched, monkeypatch):
    monkeypatch.setattr(event_clips, "SILENCE_S", 0.3)
    clips = watched(0.5)
    for number in range(12):
        clips.push(number / HZ, gray(number))
        if number == 8:
            clips.began(Event("wave", 1.0, 0.9))
    deadline = time.monotonic() + 10
    while not watched.told:  # the clip is whole on the disk while the stream is away
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert numbers(watched.told[0]) == list(range(4, 12)) and watched.told[0]["end_s"] is None
    for number in range(12, 30):
        clips.push(20 + number / HZ, gray(number))
        if number == 20:
            clips.ended(Event("wave", 1.0, 0.95, 20 + 19 / HZ))
    clips.close()
    first, second = watched.told
    assert numbers(second) == list(range(12, 24)) and second["clip"] == first["clip"].replace(".mp4", "-2.mp4")
    assert second["time_s"] == first["time_s"] == 1.0 and second["end_s"] == 20 + 19 / HZ


def test_a_gap_longer_than_the_silence_begins_a_new_file_also_when_the_frames_come_at_once(watched):
    times = [number / HZ + (30 if number >= 10 else 0) for number in range(20)]
    run(watched(0.5), [0.9] * 20, times=times)
    assert [numbers(line) for line in watched.told] == [list(range(10)), list(range(10, 20))]
    assert [line["end_s"] for line in watched.told] == [None, times[-1]]


def test_a_long_event_comes_in_parts_that_hold_every_frame_once(watched, monkeypatch):
    monkeypatch.setattr(event_clips, "LONGEST_S", 2.0)
    run(watched(0.5), [0.1] * 8 + [0.9] * 40 + [0.1] * 16)
    parts = [numbers(line) for line in watched.told]
    assert [number for part in parts for number in part] == list(range(4, 53))
    assert all(len(part) == 16 for part in parts[:-1]) and len(parts) == 4


def test_the_ring_is_bounded_in_time_and_in_bytes(watched, monkeypatch):
    clips = watched(2.0)
    for number in range(100):
        clips.push(number / HZ, gray(number))
    clips.close()
    assert len(clips._ring) <= 2 * HZ + 3 and watched.told == []
    monkeypatch.setattr(event_clips, "RING_BYTES", 50_000)
    clips = watched(50.0)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for number in range(100):
        clips.push(number / HZ, noise)
    clips.close()
    assert 40_000 < clips._bytes == sum(len(jpeg) for _, jpeg in clips._ring) <= 50_000


def test_a_slow_disk_costs_frames_of_the_clip_never_time_of_the_view(tmp_path, monkeypatch):
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda *a: (time.sleep(0.02), write(*a)))
    monkeypatch.setattr(event_clips, "RING_BYTES", 3_000)
    told, said = [], []
    clips = EventClips(tmp_path, 100, 0.0, 0.0, told.append, said.append)
    slowest = 0.0
    clips.began(Event("wave", 0.0, 0.9))
    for number in range(60):
        before = time.monotonic()
        clips.push(number / 100, gray(number))
        slowest = max(slowest, time.monotonic() - before)
        time.sleep(0.002)
    clips.close()
    assert slowest < 0.05 and clips.missing > 10
    assert told[0]["frames"] + clips.missing == 60 and "came faster" in said[0]
    found = numbers(told[0])
    assert all(a < b for a, b in pairwise(found))


def test_a_folder_that_goes_away_costs_one_event_its_clip(watched, tmp_path):
    clips = watched(0.0)
    clips.folder.rmdir()
    clips.folder.write_text("a file in its place")
    clips.push(0.0, gray(0))
    clips.began(Event("wave", 0.0, 0.9))
    deadline = time.monotonic() + 10
    while not watched.said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    clips.folder.unlink()
    clips.ended(Event("wave", 0.0, 0.9, 0.1))
    clips.push(1.0, gray(1))
    clips.began(Event("wave", 1.0, 0.9))
    clips.close()
    assert "cannot be written" in watched.said[0] and [numbers(line) for line in watched.told] == [[1]]
    with pytest.raises(DataError, match="no folder for clips"):
        (tmp_path / "file").write_text("")
        EventClips(tmp_path / "file" / "kept", HZ)
    with pytest.raises(DataError, match="--around -1"):
        EventClips(tmp_path, HZ, -1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier of clips of half a second, and a video: blue, red, blue."""
    from vidlet.video import write_video

    folder = tmp_path_factory.mktemp("clips")
    sampling = {"rule": "rate", "hz": 8, "median_s": 0.5}
    model = artifacts.save(artifacts.classifier(), folder / "model.onnx", sampling=sampling)
    write_video(folder / "clip.mp4", plain([BLUE] * 25 + [RED] * 20 + [BLUE] * 25), 20)
    return model, folder / "clip.mp4"


def test_the_command_lists_a_clip_an_event_among_its_lines(files, tmp_path, capfd):
    model, clip = files
    words = ["predict", str(model), str(clip), "--live", "--json", "--on", "red", "--around", "0.5"]
    assert main([*words, "--save", str(tmp_path / "kept")]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (line,) = [line for line in lines if "clip" in line]
    assert len(lines) > 1 and line["event"] == "red" and line["time_s"] < line["end_s"]
    reds = [float(frame.rgb()[..., 0].mean()) > 128 for frame in iter_frames(line["clip"])]
    assert len(reds) == line["frames"] and not reds[0] and not reds[-1] and sum(reds) >= 6
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [Path(line["clip"]).name]


def test_wrong_words_are_refused(files, tmp_path, capfd):
    model, clip = files
    assert main(["predict", str(model), str(clip), "--live", "--save", str(tmp_path)]) == 2
    assert "--on LABEL" in capfd.readouterr().err
    assert main(["predict", str(model), str(clip), "--live", "--around", "2"]) == 2
    assert "--save FOLDER" in capfd.readouterr().err
    words = ["predict", str(model), str(clip), "--live", "--on", "red", "--save", str(tmp_path / "a")]
    assert main([*words, "--around", "100"]) == 2
    assert "--around 100" in capfd.readouterr().err
    assert main(["predict", str(model), str(clip), "--live", "--on", "redd", "--save", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "b").exists()


def test_a_service_that_is_stopped_while_the_stream_is_away_has_its_clip_and_says_its_figures(
    files, tmp_path, sender  # noqa: F811
):  # fmt: skip
    words = ["predict", str(files[0]), f"tcp://127.0.0.1:{sender.port}", "--json", "--on", "red"]
    words += ["--save", str(tmp_path / "kept")]
    with (tmp_path / "err").open("w") as errors:
        command = [sys.executable, "-m", "vidlet.cli", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    deadline = time.monotonic() + 30
    while "red begins" not in (tmp_path / "err").read_text():
        assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    (line,) = [line for line in map(json.loads, out.splitlines()) if "clip" in line]
    assert process.returncode == 130 and line["event"] == "red" and line["frames"] == len(shown(line["clip"])) >= 2
    assert "frames answered" in (tmp_path / "err").read_text()


def test_a_thread_that_fails_is_said_and_the_next_event_has_its_clip(tmp_path, monkeypatch):
    real, failures = (
        event_clips.VideoWriter,
        iter([RuntimeError("out of luck"), OSError(28, "No space left on device")]),
    )

    def fails_twice(*args):
        for error in failures:
            raise error
        return real(*args)

    monkeypatch.setattr(event_clips, "VideoWriter", fails_twice)
    said, told = [], []
    clips = EventClips(tmp_path / "ev", 8.0, 0.25, 0.0, told.append, said.append)
    time_s = 0.0
    for _ in range(3):
        clips.began(Event("x", time_s, 1.0))
        for _ in range(4):
            clips.push(time_s, np.zeros((48, 64, 3), np.uint8))
            time_s += 1 / 8
            time.sleep(0.02)
        clips.ended(Event("x", time_s - 0.5, 1.0, time_s))
        time.sleep(0.05)
    clips.close()
    assert clips.lost == 2 and len(said) >= 2
    assert "RuntimeError: out of luck" in said[0] and "No space left" in said[1]
    assert len(told) == 1
