"""None of these in a run: files ship a threshold and its label, and false events are counted; labels are doubted."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from vidlet.datasets import Background, Clip, ClipTable
from vidlet.jobs.compress import compress
from vidlet.jobs.train import train
from vidlet.metrics import Rejection, choose_threshold
from vidlet.runs import RunFolder
from vidlet.runtime import load, read_metadata
from vidlet.tasks.clip_report import doubt_sections
from vidlet.tasks.clips import score_clips
from vidlet.tasks.doubts import held_out_findings
from vidlet.tasks.label_check import doubts_in_training
from vidlet.tasks.prepare import Prepared, targets_of
from vidlet.tasks.rejection import measure_rejection, reject_by_file, ship_rejection, ship_threshold
from vidlet.training import FeatureClips
from vidlet.video import write_video


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run."""
    return RunFolder(shutil.copytree(tiny_run.folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def empty_rooms(tmp_path_factory):
    """A folder of five videos in which nothing moves, each eight seconds."""
    folder = tmp_path_factory.mktemp("background") / "rooms"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        picture = np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), np.uint8), 8, axis=0), 8, axis=1)
        write_video(folder / f"room{number}.mp4", [picture] * 80, 10)
    return folder


def test_a_threshold_travels_in_the_file_and_the_graph_stays_what_it_was(run):
    before = read_metadata(run.model)
    ship_threshold(run, ["model.onnx"], 0.42, before["labels"][0])
    after = read_metadata(run.model)
    assert after.pop("none") == {"threshold": 0.42, "label": before["labels"][0]}
    assert after == before
    model = load(run.model)
    assert (model.threshold, model.none) == (0.42, before["labels"][0])


def test_false_events_are_the_segments_that_predict_tells(run, empty_rooms, tiny_run):
    table = ClipTable(tuple(Clip(path, ("",), "", "held") for path in sorted(empty_rooms.iterdir())), (), empty_rooms)
    data = Background("", False, table.clips, "told")
    model = load(run.model)
    scored = {"model.onnx": score_clips(model, _table(tiny_run))}
    for threshold, events in ((1e-4, len(table)), (1.0, 0)):
        metrics = {"files": {"model.onnx": {}}}
        ship_rejection(run, ["model.onnx"], Rejection(threshold, 0.5, 0.6, 0.0), data, None, scored, metrics)
        found = metrics["files"]["model.onnx"]
        assert found["background_hours"] == pytest.approx(5 * 8 / 3600, abs=1e-3)
        assert (found["false_events"] >= events) if events else (found["false_events"] == 0)
        right = scored["model.onnx"].correct & (scored["model.onnx"].scores.max(1) >= threshold)
        assert found["recall_at_threshold"] == right.mean()
        assert metrics["none"]["threshold"] == threshold


def test_the_threshold_of_a_file_is_that_of_what_it_says_of_clips_and_of_what_lies_between_them(
    run, empty_rooms, tiny_run
):
    model, table = load(run.model), _table(tiny_run)
    said = score_clips(model, table)
    sure = said.scores.max(1)
    right = np.where(said.correct, sure, 0.0)
    rooms = tuple(Clip(path, ("",), "", "val", 0.0, 2.0) for path in sorted(empty_rooms.iterdir()))
    between = Background("", False, (), "told", rooms)
    named = score_clips(model, table.with_clips(replace(c, labels=table.labels[:1]) for c in rooms)).scores.max(1)
    assert reject_by_file(model, table, between) == choose_threshold(right, named)
    label = said.names[int(said.labels[0])]  # a class that means none of the others
    none = said.names.index(label)
    is_none = said.labels == none
    own = np.where(said.correct & (said.scores.argmax(1) != none), said.scores.max(1), 0.0)
    found = reject_by_file(model, table, Background(label, False, (), "told"))
    assert found.recall_without == np.mean(own[~is_none] > 0)
    assert is_none.any()


def test_what_the_time_does_not_do_for_is_not_looked_at(run, empty_rooms, tiny_run):
    table = ClipTable(tuple(Clip(path, ("",), "", "held") for path in sorted(empty_rooms.iterdir())), (), empty_rooms)
    scored = {"model.onnx": score_clips(load(run.model), _table(tiny_run))}
    data = Background("", False, table.clips, "told")
    [found] = measure_rejection(run, ["model.onnx"], data, 1.0, scored, seconds=-1.0).values()
    assert found["background_hours"] == pytest.approx(8 / 3600, abs=1e-3)  # one of five videos in any case


def _table(tiny_run):
    from vidlet.datasets import read_table, with_splits

    return with_splits(read_table(tiny_run.clips)).of_split("test")


@pytest.mark.slow
def test_a_training_with_a_background_says_what_it_does_where_nothing_happens(motion_clips, empty_rooms, tmp_path):
    out = tmp_path / "run"
    result = train(motion_clips, "tiny-grid-gru", out, {"training.epochs": 2}, none=empty_rooms)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["none"]["label"] == "none"
    assert 0 < metrics["none"]["threshold"] <= 1
    for name in ("model.onnx", "model.int8.onnx"):
        about = read_metadata(out / name)
        assert about["none"] == {"threshold": metrics["none"]["threshold"], "label": "none"}
        assert about["labels"][-1] == "none"
        assert metrics["files"][name]["background_hours"] == pytest.approx(8 / 3600, abs=1e-3)
    assert metrics["files"]["model.onnx"]["clips"] == result["metrics"]["clips"]["scored"]
    assert metrics["files"]["model.onnx"]["per_class"]["none"]["support"] == 0  # background is no test clip
    assert "None of these" in (out / "report.html").read_text()
    compress(out, motion_clips, "half")
    assert read_metadata(out / "model.half.onnx")["none"] == read_metadata(out / "model.onnx")["none"]
    again = json.loads((out / "metrics.json").read_text())["files"]["model.half.onnx"]
    assert again["background_hours"] == pytest.approx(8 / 3600, abs=1e-3)


def test_a_flipped_label_among_training_features_is_doubted_and_its_class_suspected(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    given = truth.copy()
    given[[7, 31]] = (given[[7, 31]] + 1) % 3
    features = rng.normal(size=(60, 5, 8)).astype(np.float32) + 6 * np.eye(8, dtype=np.float32)[truth][:, None]
    clips = tuple(Clip(tmp_path / f"{n}.mp4", ("abc"[label],), "", "train") for n, label in enumerate(given))
    table = ClipTable(clips, ("a", "b", "c"), tmp_path)
    train = FeatureClips(
        features.__getitem__, targets_of(clips, table.labels), [c.path.name for c in clips], np.ones(8, np.float32)
    )
    found = doubts_in_training(table, Prepared(train, train, (), 1.0, clips=clips))
    assert {row["path"] for row in found[:2]} == {str(clips[7].path), str(clips[31].path)}
    assert {(row["label"], row["suspected"]) for row in found[:2]} == {
        ("abc"[given[i]], "abc"[truth[i]]) for i in (7, 31)
    }
    many = replace(table, clips=(replace(clips[0], labels=("a", "b")), *clips[1:]))
    assert doubts_in_training(many, Prepared(train, train, (), 1.0, clips=clips)) == []


def test_doubts_are_of_labels_that_a_person_gave_and_scores_of_clips_that_were_asked_about(tmp_path):
    clips = [Clip(tmp_path / f"{n}.mp4", (label,)) for n, label in enumerate(["a", "b", "a", "none", "none"])]
    table = ClipTable(tuple(clips), ("a", "b", "none"), tmp_path, none="none")
    said = np.array([[0.9, 0.1, 0], [0.8, 0.1, 0.1], [np.nan] * 3, [0.1, 0.1, 0.8], [0.6, 0.1, 0.3]])
    found = held_out_findings(said, clips, table)
    assert [(row["label"], row["suspected"], row["score"]) for row in found["doubts"]] == [("b", "a", 0.8)]
    assert found["held_out"] == {"right": [0.9, 0.0], "false": [0.0, 0.6]}


def test_a_page_without_readable_pictures_still_lists_the_labels(tmp_path):
    gone = {"path": str(tmp_path / "gone.mp4"), "start_s": None, "end_s": None, "label": "a", "suspected": "<b>"}
    (section,) = doubt_sections([gone | {"score": 0.9, "label_score": 0.1}])
    assert "gone.mp4" in section.html and "&lt;b&gt;" in section.html
    assert doubt_sections([]) == []
