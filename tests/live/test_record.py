"""Clips are recorded by a plan or by keys, from a video file; what is on the disk is what was seen then."""

import json

import numpy as np
import pytest

import vidlet
from vidlet.cli import main
from vidlet.datasets import read_table
from vidlet.errors import DataError
from vidlet.live.record import Recorder, planned
from vidlet.video import VideoWriter, iter_frames, probe

FPS, FRAMES = 20, 240


def gray(time_s: float) -> int:
    """The brightness of the picture at a time: two levels a frame's worth, so that a clip tells when it was."""
    return 8 + round(time_s * FPS)


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "day.mp4"
    with VideoWriter(path, FPS) as video:
        for number in range(FRAMES):
            video.write(np.full((48, 64, 3), gray(number / FPS), np.uint8))
    return path


def first_and_last(path) -> tuple[float, float, int]:
    """Seconds in the day at which a clip begins and ends, by its brightness, and its number of frames."""
    levels = [float(frame.rgb().mean()) for frame in iter_frames(path)]
    return (levels[0] - 8) / FPS, (levels[-1] - 8) / FPS, len(levels)


class Keys:
    """A screen that presses keys at certain pictures."""

    def __init__(self, presses: dict[int, list[str]]) -> None:
        self.presses, self.shown, self.asked = presses, [], 0

    def show(self, rgb) -> None:
        self.shown.append(rgb)

    def pressed(self) -> list[str]:
        self.asked += 1
        return self.presses.get(self.asked, [])


@pytest.fixture
def at_once(monkeypatch):
    """A file that is watched is not waited for."""
    monkeypatch.setattr("vidlet.live.record.time.sleep", lambda seconds: None)


def test_a_plan_leaves_time_before_each_clip_and_takes_labels_in_turn():
    plan = planned(["wave", "none"], 2, 3.0)
    assert [(one.label, one.start_s, one.end_s) for one in plan] == [
        ("wave", 2, 5), ("wave", 7, 10), ("none", 12, 15), ("none", 17, 20),
    ]  # fmt: skip
    assert [one.start_s for one in planned(["a"], 2, 3.0, 3.0)] == [0, 3]
    for wrong in ((0, 3.0, None), (1, 0.0, None), (2, 3.0, 2.0)):
        with pytest.raises(DataError, match="longer than 0 and not overlap"):
            planned(["a"], *wrong)


def test_without_a_window_clips_are_cut_at_their_times_and_counted_down(day, tmp_path, capsys):
    words = ["record", "wave", "none", "--from", str(day), "--out", str(tmp_path / "clips"), "--count", "2"]
    assert main([*words, "--seconds", "1", "--every", "2.5", "--group", "anna", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["labels"] == {"wave": 2, "none": 2}
    names = [f"{label}/anna/{label}-00{n}.mp4" for label in ("wave", "none") for n in (1, 2)]
    assert list(found["files"]) == names
    for name, start_s in zip(names, (1.5, 4.0, 6.5, 9.0), strict=True):
        begin_s, end_s, frames = first_and_last(tmp_path / "clips" / name)
        assert (begin_s, end_s) == (pytest.approx(start_s, abs=0.06), pytest.approx(start_s + 0.95, abs=0.06))
        assert frames == FPS
        assert probe(tmp_path / "clips" / name).duration_s == pytest.approx(1.0, abs=0.06)
    for line in ("wave in 2 s", "wave in 1 s", "wave: now, 1 s", "none  2/2"):
        assert line in err
    table = read_table(tmp_path / "clips")
    assert [(clip.label, clip.group) for clip in table] == [("none", "anna")] * 2 + [("wave", "anna")] * 2


def test_further_clips_get_further_numbers_and_a_source_that_ends_early_is_told(day, tmp_path, capsys):
    vidlet.record("wave", day, tmp_path, count=1, seconds=1)
    found = vidlet.record("wave", day, tmp_path, count=9, seconds=1.5)
    assert next(iter(found["files"])) == "wave/wave-002.mp4"
    assert found["labels"] == {"wave": 3}  # 2 to 3.5, 5.5 to 7, 9 to 10.5; the fourth would be at 12.5
    assert "the source ended: 3 of 9 clips were recorded" in capsys.readouterr().err
    assert len(list((tmp_path / "wave").iterdir())) == 4


def test_keys_begin_and_end_clips_choose_labels_and_take_back(day, tmp_path, at_once):
    keys = Keys({11: ["space"], 31: ["space"], 41: ["2"], 51: ["space"], 71: ["space", "space"], 81: ["u"], 91: ["q"]})
    found = vidlet.record(["wave", "none"], day, tmp_path, screen=keys)
    assert found["labels"] == {"wave": 1, "none": 1}
    assert first_and_last(tmp_path / "wave" / "wave-001.mp4") == (
        pytest.approx(0.5, abs=0.06), pytest.approx(1.45, abs=0.06), 20,
    )  # fmt: skip
    assert first_and_last(tmp_path / "none" / "none-001.mp4")[0] == pytest.approx(2.5, abs=0.06)
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["none-001.mp4"]  # the third was taken back
    assert keys.asked == 91  # q ends it
    red = [tuple(picture[0, 0]) == (220, 30, 30) for picture in keys.shown]
    assert [red.index(True), red[:40].count(True)] == [10, 20]


def test_a_clip_of_fixed_length_ends_by_itself_and_the_last_one_can_be_taken_back_from_the_disk(day, tmp_path, at_once):
    keys = Keys({1: ["space"], 100: ["space"], 160: ["u"], 200: ["Escape"]})
    found = vidlet.record("wave", day, tmp_path, seconds=1, screen=keys)
    assert list(found["files"]) == ["wave/wave-001.mp4"]
    assert first_and_last(tmp_path / "wave" / "wave-001.mp4")[2] == 20
    assert len(list((tmp_path / "wave").iterdir())) == 1


def test_without_a_screen_it_says_so_and_how_it_goes_on(day, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["record", "wave", "--from", str(day)]) == 2
    error = capsys.readouterr().err
    assert "record: " in error
    assert "use --count N" in error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match=r"say how many clips: count=20"):
        vidlet.record("wave", day)


@pytest.mark.parametrize("command", [["record", "wave", "--from", "{}"], ["predict", "m.onnx", "{}", "--show"]])
@pytest.mark.parametrize("begin", ["", "file://"])
def test_a_source_that_is_not_there_is_named_before_a_screen_is_asked_for(
    command, begin, day, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").touch()
    absent = day.with_name("dya.mp4")
    assert main([word.format(f"{begin}{absent}") for word in command]) == 2
    assert capsys.readouterr().err.startswith(f"DataError: {absent}: no such file or folder (did you mean {day.name}?)")


@pytest.mark.parametrize(
    ("labels", "group", "said"),
    [
        (["a/b"], "", "label 'a/b': can be no folder"),
        ([" "], "", "can be no folder"),
        (["train"], "", "label 'train': a folder of this name is read as a split"),
        (["wave", "Wave"], "", "differ only in upper and lower case"),
        (["wave"], "..", "group '..': can be no folder"),
    ],
)
def test_what_can_be_no_folder_is_refused(tmp_path, labels, group, said):
    with pytest.raises(DataError, match=said):
        Recorder(tmp_path, labels, group)


def test_a_folder_with_a_table_and_a_source_that_is_not_there_are_refused(day, tmp_path):
    (tmp_path / "clips.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="a table of clips; record into a folder of its own"):
        vidlet.record("wave", day, tmp_path, count=1)
    with pytest.raises(DataError, match=r"none\.mp4"):
        vidlet.record("wave", tmp_path / "none.mp4", tmp_path / "clips", count=1)
    assert not (tmp_path / "clips").exists()
