"""vidlet predict: lines and tables, drawn videos, folders, and the same words as Python."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import vidlet
from cli_case import clips_of, one_object
from vidlet.cli.predict_command import _result_text
from vidlet.runtime import load
from vidlet.video import probe


def test_predict_prints_one_object_with_the_contracts_keys(run, tiny_run):
    clip = clips_of(tiny_run.clips)[0]
    status, out, err = run("predict", tiny_run.model, clip, "--json", "--threshold", "0")
    assert (status, err) == (0, "")
    found = one_object(out)
    assert set(found) == {"source", "label", "score", "named", "scores", "segments"} and found["named"] is True
    assert found["source"] == str(clip)
    expected = load(tiny_run.model, threads=1).classify(clip)
    assert found["label"] == expected.label
    assert found["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert found["score"] == max(found["scores"].values())
    assert [set(s) for s in found["segments"]] == [{"start_s", "end_s", "label", "score"}]


def test_below_the_threshold_the_best_class_is_told_and_no_segment(run, tiny_run):
    clip = clips_of(tiny_run.clips)[0]
    found = one_object(run("predict", tiny_run.model, clip, "--json", "--threshold", "0.999")[1])
    assert found["label"]
    assert found["segments"] == [] and found["named"] is False
    out = run("predict", tiny_run.model, clip, "--threshold", "0.999")[1]
    assert out == f"{clip}: nothing  (below threshold; most likely {found['label']} {found['score']:.3f})\n"
    assert "below" not in run("predict", tiny_run.model, clip, "--threshold", "0")[1]


def test_a_timeline_of_several_segments_is_not_headed_by_one_label_of_a_few_percent():
    segments = [{"start_s": i, "end_s": i + 1.0, "label": label, "score": 0.8} for i, label in enumerate("ab")]
    found = {"source": "day.mp4", "label": "c", "score": 0.17, "scores": {}, "segments": segments}
    lines = _result_text(found).splitlines()
    assert lines[0] == "day.mp4: 2 segments"
    assert [line.split()[-2:] for line in lines[1:]] == [["a", "0.800"], ["b", "0.800"]]
    one = _result_text(found | {"segments": segments[:1]})
    assert one.startswith("day.mp4: c 0.170\n")


@pytest.fixture
def some_videos(tiny_run, tmp_path) -> Path:
    """A folder with two good videos of one name in two folders, and a broken one."""
    for number, source in enumerate(clips_of(tiny_run.clips)[:2]):
        target = tmp_path / "videos" / str(number) / "clip.mp4"
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing to see")
    return tmp_path / "videos"


def test_a_folder_gives_a_line_a_source_and_failures_among_them(run, refused, some_videos, tiny_run):
    status, out, err = run("predict", tiny_run.model, some_videos, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    names = ("0/clip.mp4", "1/clip.mp4", "broken.mp4")
    assert [line["source"] for line in lines] == [str(some_videos / name) for name in names]
    assert set(lines[2]) == {"source", "error"}
    assert lines[2]["error"].startswith(f"{some_videos / 'broken.mp4'}: ")
    assert err == "1 of 3 sources have no answer\n"
    status, out, err = run("predict", tiny_run.model, some_videos, "--strict")
    assert status == 2
    assert err.count("\n") == 1
    assert "broken.mp4" in err
    refused("predict", tiny_run.model, some_videos / "broken.mp4", said=some_videos / "broken.mp4")


def test_where_no_source_has_an_answer_the_command_fails(run, tiny_run, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"nothing to see")
    status, out, err = run("predict", tiny_run.model, tmp_path, "--json")
    assert [set(json.loads(line)) for line in out.splitlines()] == [{"source", "error"}] * 2
    assert (status, err) == (2, f"DataError: {tmp_path}: of its 2 sources none has an answer\n")


def test_segments_go_into_a_table(run, some_videos, tiny_run, tmp_path):
    words = ("predict", tiny_run.model, some_videos, "--threshold", "0", "--csv", "out.csv", "--json")
    lines = [json.loads(line) for line in run(*words)[1].splitlines()]
    with (tmp_path / "out.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["source", "start_s", "end_s", "label", "score"]
    expected = [(line["source"], s["label"]) for line in lines for s in line.get("segments", [])]
    assert [(row["source"], row["label"]) for row in rows] == expected


def test_a_table_without_a_row_says_what_is_missing(run, tiny_run, tmp_path):
    _, out, err = run(
        "predict", tiny_run.model, clips_of(tiny_run.clips)[0], "--threshold", "0.999", "--csv", "out.csv"
    )
    assert "nothing" in out
    assert err.endswith("written out.csv, without a row: no segment reached the threshold 0.999\n")
    assert (tmp_path / "out.csv").read_text() == "source,start_s,end_s,label,score\n"


def test_a_folder_of_videos_is_no_live_source(run, tiny_run):
    status, _, err = run("predict", tiny_run.model, tiny_run.clips, "--live")
    assert (status, err.count("\n")) == (2, 1)
    assert "is a folder of videos; name one of them (" in err and "or leave out --live" in err


def test_a_table_of_a_live_source_has_a_row_a_line(run, tiny_run, tmp_path):
    status, out, _ = run("predict", tiny_run.model, clips_of(tiny_run.clips)[0], "--live", "--csv", "out.csv", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines()))
    assert status == 0 and lines
    assert [(float(row["time_s"]), row["label"]) for row in rows] == [(line["time_s"], line["label"]) for line in lines]


def test_the_annotated_video_plays_and_never_replaces_its_source(run, refused, some_videos, tiny_run, tmp_path):
    clip = some_videos / "0" / "clip.mp4"
    before = clip.read_bytes()
    assert run("predict", tiny_run.model, clip, "--save", "drawn.mp4", "--threshold", "0")[0] == 0
    drawn, source = probe(tmp_path / "drawn.mp4"), probe(clip)
    assert drawn.frames == source.frames
    assert drawn.codec == "h264"
    assert drawn.fps == pytest.approx(source.fps, rel=0.01)
    refused("predict", tiny_run.model, clip, "--save", clip, said="is a source")
    assert run("predict", tiny_run.model, some_videos, "--save", "all")[0] == 0
    assert sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "all").rglob("*.mp4")) == [
        "all/0/clip.mp4",
        "all/1/clip.mp4",
    ]
    assert run("predict", tiny_run.model, some_videos, "--save", some_videos)[0] == 2
    assert clip.read_bytes() == before


def test_a_folder_without_videos_is_named(refused, tiny_run, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("predict", tiny_run.model, tmp_path / "empty", said=(tmp_path / "empty", "no video files"))


def test_python_says_the_same_in_the_same_words(run, tiny_run):
    clip = clips_of(tiny_run.clips)[0]
    from_python = next(vidlet.predict(tiny_run.model, clip))
    assert from_python == one_object(run("predict", tiny_run.model, clip, "--json")[1])
    theirs = one_object(run("evaluate", tiny_run.model, tiny_run.clips, "--json")[1])
    ours = vidlet.evaluate(tiny_run.model, tiny_run.clips)
    assert ours["per_class"] == theirs["per_class"]
    assert vidlet.load(tiny_run.model).classify(clip).label == from_python["label"]


def test_what_had_to_be_assumed_to_read_a_source_is_told(run, tiny_run, tmp_path):
    from PIL import Image

    for number in range(8):
        for kind in ("img", "flow_x"):
            Image.new("RGB", (64, 64), (30 * number, 90, 0)).save(tmp_path / f"{kind}_{number:05d}.png")
    note = "its frames have names of several kinds: flow_x_#.png (8), img_#.png (8); only img_#.png is read"
    assert one_object(run("predict", tiny_run.model, tmp_path, "--json")[1])["notes"] == [note]
    assert f"  note: {note}\n" in run("predict", tiny_run.model, tmp_path)[1]
