"""The live view and detectors before videos: lines by the contract, boxes drawn, dropped frames and delay told."""

import csv
import json
import time

import numpy as np
import onnx
import pytest
from PIL import Image

import artifacts
from artifacts import SIZE, frames_of
from vidlet.cli import main
from vidlet.errors import DataError, DependencyError
from vidlet.jobs.predict import predict
from vidlet.live.watching import LiveFigures, draw_moment, frames_with_boxes, predict_live
from vidlet.runtime import Moment, load
from vidlet.video import LiveSource, iter_frames, probe, write_video

RED, BLUE = (250, 0, 0), (0, 0, 250)
NAMES = ("all", "left")


def table_of(path):
    """The rows of a CSV."""
    with path.open() as handle:
        return list(csv.DictReader(handle))


def large(colors):
    """Frames (T, 240, 320, 3) of plain colors."""
    frames = frames_of(colors)
    return np.repeat(np.repeat(frames, 240 // SIZE[0], axis=1), 320 // SIZE[1], axis=2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A detector's file, one that classifies and detects, and a video: a second of blue, a second of red."""
    folder = tmp_path_factory.mktemp("live")
    detector = artifacts.save(artifacts.detector(), folder / "boxes.onnx", labels=[], box_labels=list(NAMES))
    both = artifacts.classifier()
    boxes = onnx.compose.add_prefix(artifacts.detector(), "boxes.", rename_inputs=False, rename_outputs=False)
    both.graph.node.extend(boxes.graph.node)
    both.graph.initializer.extend(boxes.graph.initializer)
    both.graph.output.extend(boxes.graph.output)
    artifacts.save(both, folder / "both.onnx", box_labels=list(NAMES))
    write_video(folder / "clip.mp4", list(large([BLUE] * 20 + [RED] * 20)), 20)
    return folder, detector, folder / "both.onnx", folder / "clip.mp4"


def test_a_detector_tells_when_the_kinds_of_boxes_of_a_file_change(files):
    _, detector, _, clip = files
    lines = list(predict(detector, clip, min_s=0.1))
    assert [line["source"] for line in lines] == [str(clip)] * 2
    assert lines[0]["boxes"] == [] and lines[0]["label"] == "" and lines[0]["time_s"] == 0
    assert lines[1]["time_s"] == pytest.approx(1.0, abs=0.13)
    assert [row[5] for row in lines[1]["boxes"]] == [0] and lines[1]["boxes"][0][:4] == [0, 0, 1, 1]
    assert len(list(predict(detector, clip, threshold=0.3, min_s=0.1))[1]["boxes"]) == 2
    assert [line["box_labels"] for line in lines] == [[], [NAMES[0]]]
    assert json.loads(json.dumps(lines)) == lines


def test_the_boxes_of_each_frame_go_into_a_table(files, tmp_path):
    _, detector, both, clip = files
    list(predict(detector, clip, threshold=0.3, csv=tmp_path / "a.csv"))
    rows = table_of(tmp_path / "a.csv")
    assert list(rows[0]) == ["source", "time_s", "label", "score", "x1", "y1", "x2", "y2"]
    model = load(detector)
    expected = [
        (moment.time_s, NAMES[int(box[5])], *box[[4, 0, 1, 2, 3]].tolist())
        for moment in model.stream(clip)
        for box in moment.boxes
        if box[4] >= 0.3
    ]
    found = [
        (float(row["time_s"]), row["label"], *(float(row[k]) for k in ("score", "x1", "y1", "x2", "y2")))
        for row in rows
    ]
    assert found == expected and len({time_s for time_s, *_ in found}) >= 8
    list(predict(both, clip, threshold=0.3, csv=tmp_path / "b.csv"))  # boxes and the action
    assert table_of(tmp_path / "b.csv")[0]["label"] in artifacts.LABELS
    beside = table_of(tmp_path / "b.boxes.csv")
    assert [(row["label"], row["x2"]) for row in beside] == [(row["label"], row["x2"]) for row in rows]


def test_a_folder_of_pictures_has_boxes_in_a_table(files, tmp_path):
    _, detector, _, _ = files
    (tmp_path / "folder").mkdir()
    for number, picture in enumerate(large([BLUE, RED, RED])):
        Image.fromarray(picture).save(tmp_path / "folder" / f"{number}.png")
    list(predict(detector, tmp_path / "folder", csv=tmp_path / "a.csv", fps=8))
    assert [row["label"] for row in table_of(tmp_path / "a.csv")] == [NAMES[0]] * 2


def test_the_lines_of_a_live_source_are_rows_of_a_table_as_they_come(files, tmp_path):
    artifacts.save(artifacts.classifier(), tmp_path / "a.onnx")
    rows = []
    lines = predict(tmp_path / "a.onnx", files[3], 0.3, 0.1, live=True, csv=tmp_path / "live.csv")
    for line in lines:
        rows.append({"time_s": str(line["time_s"]), "label": line["label"], "score": str(line["score"])})
        assert table_of(tmp_path / "live.csv") == rows
    assert rows


def test_a_classifier_has_lines_without_boxes(files, tmp_path):
    artifacts.save(artifacts.classifier(), tmp_path / "a.onnx")
    lines = list(predict_live(tmp_path / "a.onnx", files[3], 0.3, 0.1))
    assert all(line["boxes"] == [] and "box_labels" not in line for line in lines)


def test_saved_videos_have_the_boxes_on_the_frames_where_they_are(files, tmp_path):
    _, _, both, clip = files
    (line,) = predict(both, clip, threshold=0.3, save=tmp_path / "drawn.mp4")
    assert set(line) == {"source", "label", "score", "named", "scores", "segments"}
    drawn = [frame.rgb() for frame in iter_frames(tmp_path / "drawn.mp4")]
    assert len(drawn) == len(list(iter_frames(clip)))
    middle = [frame[frame.shape[0] // 3 : -frame.shape[0] // 3, frame.shape[1] // 2 - 8 : frame.shape[1] // 2 + 8]
              for frame in drawn]  # fmt: skip
    green = [float(part[..., 1].max()) for part in middle]  # the line of the left box's edge; the video has no green
    assert max(green[2:18]) < 60 and min(green[24:38]) > 100
    found = list(frames_with_boxes(load(both), clip))
    assert [len(boxes) for _, _, boxes in found] == [2] * 40  # the file gives both; the score decides what is drawn
    assert [float(boxes[0, 4]) > 0.5 for _, _, boxes in found[2:18] + found[24:]] == [False] * 16 + [True] * 16


def test_a_live_source_gives_lines_a_view_and_its_figures(files, tmp_path):
    _, _, both, clip = files
    figures, shown = LiveFigures(), []
    lines = list(predict_live(both, clip, 0.3, 0.1, tmp_path / "view.mp4", shown.append, figures))
    assert all(set(line) == {"time_s", "label", "score", "boxes", "box_labels"} for line in lines)
    assert len(lines[-1]["boxes"]) == 2 and lines[-1]["label"] in artifacts.LABELS and 0 <= lines[-1]["score"] <= 1
    found = figures.to_dict()
    assert found["frames"] == len(shown) >= 8 and shown[0].shape == (480, 640, 3)
    assert 0 <= found["delay_ms"]["p50"] <= found["delay_ms"]["p95"] < 1000
    assert probe(tmp_path / "view.mp4").frames == len(shown)


def test_a_slow_view_drops_frames_and_its_delay_does_not_grow(files, tmp_path):
    _, _, both, _ = files
    path = tmp_path / "fast.mp4"
    write_video(path, list(large([RED] * 90)), 60)
    figures = LiveFigures()
    list(predict_live(both, path, show=lambda view: time.sleep(0.3), figures=figures))
    assert figures.dropped >= 30 and figures.frames <= 8, figures.to_dict()
    assert max(figures.delays_s) < 0.25  # the answer belongs to a frame that has just come, not to a queue


def test_the_delays_kept_do_not_grow_without_end():
    figures = LiveFigures()
    for number in range(10_500):
        figures.add(number / 1e6)
    assert figures.frames == 10_500 and len(figures.delays_s) == 10_000
    assert figures.to_dict()["delay_ms"]["p95"] > figures.to_dict()["delay_ms"]["p50"] > 0
    assert LiveFigures().to_dict() == {"frames": 0, "dropped": 0, "delay_ms": {"p50": 0.0, "p95": 0.0}}


def test_only_boxes_above_the_threshold_are_drawn():
    boxes = np.array([[0.25, 0.25, 0.75, 0.75, 0.9, 1], [0, 0, 1, 1, 0.1, 0]], np.float32)
    black = np.zeros((320, 320, 3), np.uint8)
    view = draw_moment(black, Moment(0.0, {"a": 0.2}, "a", 0.2, boxes), NAMES, 0.5)
    assert view[160, 80].any() and not view[200:210, 310:].any()
    nothing = draw_moment(black, Moment(0.0, {}, "", 0.0, None), (), 0.5)
    assert not nothing.any()


def test_the_command_prints_lines_and_says_what_was_dropped(files, tmp_path, capsys):
    _, detector, both, clip = files
    assert main(["predict", str(both), str(clip), "--live", "--json", "--save", str(tmp_path / "view.mp4")]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines and all(set(line) == {"time_s", "label", "score", "boxes", "box_labels"} for line in lines)
    assert "frames answered" in err and "dropped; delay p50" in err and (tmp_path / "view.mp4").exists()
    assert (
        "; without --live it waits for later frames, and names other segments\n" in err
    )  # of a file both can be asked
    assert main(["predict", str(detector), str(clip), "--live"]) == 0
    assert "without --live" not in capsys.readouterr().err  # boxes are those of each frame
    assert main(["predict", str(detector), str(clip)]) == 0
    assert "1 boxes" in capsys.readouterr().out
    assert main(["predict", str(both), str(tmp_path / "absent.mp4"), "--live"]) == 2
    assert "frames answered" not in capsys.readouterr().err  # nothing was there to answer


def test_a_window_without_a_screen_is_a_named_error(monkeypatch):
    from vidlet.cli.window import Window

    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(DependencyError, match="--show: "):
        Window("a")


def test_a_source_that_cannot_be_opened_leaves_no_video(files, tmp_path):
    _, _, both, _ = files
    with pytest.raises(DataError):
        list(predict_live(both, tmp_path / "absent.mp4", save=tmp_path / "view.mp4"))
    assert not (tmp_path / "view.mp4").exists()


def test_the_arrival_of_the_frame_that_was_read_is_known(files):
    *_, clip = files
    with LiveSource(clip) as source:
        before = time.monotonic()
        frame = source.read()
        assert source.taken is frame and 0 <= time.monotonic() - source.arrived_s < time.monotonic() - before + 1
