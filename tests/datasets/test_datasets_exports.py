"""Labels as tools export them: the right frames to the index, at variable rates too, and bad input named."""

import json
from pathlib import Path

import numpy as np
import pytest

from vidlet.datasets import ClipTable, inspect_table, read_table, with_splits
from vidlet.datasets.segments import places_of
from vidlet.errors import DataError
from vidlet.recipe import Sampling
from vidlet.tasks import task_of_data
from vidlet.video import VideoWriter, frame_times, iter_frames, read_clip

BITS, BLOCK = 10, 16
FRAMES = 90


def picture(number: int) -> np.ndarray:
    """A picture that carries its number: a block a bit."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8), BLOCK)
    return np.repeat(np.repeat(row[None, :, None], 2 * BLOCK, 0), 3, 2)


def number_of(rgb: np.ndarray) -> int:
    middles = rgb[rgb.shape[0] // 2, BLOCK // 2 :: BLOCK].mean(-1) > 127
    return int(sum(1 << bit for bit, on in enumerate(middles) if on))


def draw(path: Path, variable: bool = True, frames: int = FRAMES, fps: float = 30.0) -> np.ndarray:
    """A video whose frames carry their numbers, at a rate that varies between 10 and 60; returns their times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.random.default_rng(3).choice([1 / 60, 1 / 25, 1 / 10], frames) if variable else np.full(frames, 1 / fps)
    times = np.concatenate([[0.0], np.cumsum(steps)[:-1]])
    with VideoWriter(path, fps) as video:
        for number, time_s in enumerate(times):
            video.write(picture(number), float(time_s))
    return times


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder with day.mp4, whose rate varies, and even.mp4, whose does not."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder / "day.mp4")
    draw(folder / "even.mp4", variable=False)
    return folder


def linked(folder: Path, drawn: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(drawn / Path(name).name.split("-")[-1])


def seen(table: ClipTable) -> list[tuple[str, int, int]]:
    """What the clips of a table show: label, and the numbers of the first and the last frame; none may be missing."""
    found = []
    for clip in table:
        numbers = [number_of(frame.rgb()) for frame in iter_frames(clip.path, clip.start_s, clip.end_s)]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        found.append((clip.label, numbers[0], numbers[-1]))
    return found


def refusal(path: Path, strict: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, strict=strict)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(path: Path, data: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def timeline(label: str, first: int, last: int) -> dict:
    value = {"ranges": [{"start": first, "end": last}], "timelinelabels": [label]}
    return {"type": "timelinelabels", "from_name": "tl", "to_name": "video", "value": value}


def task(video: str, *results: dict, **data: str) -> dict:
    annotation = {"was_cancelled": False, "result": list(results)}
    return {"id": 7, "data": {"video": video, **data}, "annotations": [annotation]}


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>5</id><name>morning</name><size>90</size><mode>interpolation</mode>
<start_frame>0</start_frame><stop_frame>{stop}</stop_frame><frame_filter>{step}</frame_filter><source>day.mp4</source>
</task></meta>{body}</annotations>"""


def cvat(path: Path, body: str, stop: int = FRAMES - 1, step: str = "") -> Path:
    path.write_text(CVAT.format(body=body, stop=stop, step=step))
    return path


def box(frame: int, outside: int = 0, **values: str) -> str:
    inside = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in values.items())
    place = 'occluded="0" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"'
    return f'<box frame="{frame}" keyframe="1" outside="{outside}" {place}>{inside}</box>'


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.webm"])
@pytest.mark.parametrize("variable", [False, True])
def test_times_of_frames_without_decoding_are_those_of_decoding(tmp_path, name, variable):
    draw(tmp_path / name, variable, 40)
    decoded = [frame.time_s for frame in iter_frames(tmp_path / name)]
    assert len(decoded) == 40
    np.testing.assert_allclose(frame_times(tmp_path / name), decoded, atol=1e-6)


def test_label_studio_counts_frames_from_one_and_the_last_one_belongs_to_the_segment(tmp_path, drawn):
    linked(tmp_path, drawn, "media/3f2a1b9c-day.mp4")
    both = {"type": "timelinelabels", "value": {"ranges": [{"start": 71, "end": 80}], "timelinelabels": ["a", "b"]}}
    other = {"type": "videorectangle", "value": {"sequence": [], "labels": ["person"]}}
    export = written(
        tmp_path / "export.json",
        [task("/data/upload/1/3f2a1b9c-day.mp4", timeline("a", 1, 1), timeline("b", 11, 40), both, other)],
    )
    table = read_table(export)
    assert task_of_data(export).name == "clips"
    assert seen(table) == [("a", 0, 0), ("b", 10, 39), ("a", 70, 79)]
    assert [clip.labels for clip in table] == [("a",), ("b",), ("a", "b")]
    assert "Labels of other kinds were ignored: 1 videorectangle." in table.notes


def test_label_studio_s_numbers_at_a_rate_that_was_set_otherwise_are_times_at_that_rate(tmp_path, drawn):
    linked(tmp_path, drawn, "even.mp4")  # 90 frames in 3 seconds; the project was set to 10 a second
    other = {"type": "videorectangle", "value": {"framesCount": 30, "duration": 3.0, "labels": ["x"], "sequence": []}}
    table = read_table(
        written(tmp_path / "e.json", [task("even.mp4", timeline("a", 11, 20), timeline("b", 21, 30), other)])
    )
    assert seen(table) == [("a", 30, 59), ("b", 60, 89)]
    assert any("counted 30 frames in even.mp4, which has 90" in note for note in table.notes)
    other["value"]["framesCount"] = 90
    table = read_table(written(tmp_path / "e.json", [task("even.mp4", timeline("a", 11, 20), other)]))
    assert seen(table) == [("a", 10, 19)]


def test_label_studio_s_older_form_is_in_seconds_and_its_short_form_says_the_same(tmp_path, drawn):
    linked(tmp_path, drawn, "even.mp4")
    sound = {"type": "labels", "value": {"start": 0.5, "end": 1.0, "channel": 0, "labels": ["wave"]}}
    long = read_table(written(tmp_path / "long.json", [task("even.mp4", sound, timeline("walk", 61, 90))]))
    assert seen(long) == [("wave", 15, 29), ("walk", 60, 89)]
    short = [
        {
            "id": 1, "annotation_id": 3, "annotator": 1, "video": "http://host/data/even.mp4?x=1",
            "tl": [{"ranges": [{"start": 61, "end": 90}], "timelinelabels": ["walk"]}],
            "sound": [{"start": 0.5, "end": 1.0, "labels": ["wave"]}],
        }
    ]  # fmt: skip
    again = read_table(written(tmp_path / "short.json", short))
    assert sorted(seen(again)) == sorted(seen(long))


def test_a_project_of_choices_gives_whole_videos_and_cancelled_annotations_are_left_out(tmp_path, drawn):
    linked(tmp_path, drawn, "even.mp4", "day.mp4")
    chosen = {"type": "choices", "value": {"choices": ["calm"]}}
    cancelled = {"id": 2, "data": {"video": "day.mp4"}, "annotations": [{"was_cancelled": True, "result": [chosen]}]}
    table = read_table(written(tmp_path / "e.json", [task("even.mp4", chosen, split="val"), cancelled]))
    (clip,) = table
    assert (clip.path.name, clip.label, clip.split, clip.start_s, clip.end_s) == ("even.mp4", "calm", "val", None, None)


def test_a_track_of_cvat_is_a_segment_while_it_is_not_outside(tmp_path, drawn):
    linked(tmp_path, drawn, "day.mp4")
    body = (
        f'<track id="0" label="wave">{box(5)}{box(9)}{box(20, 1)}{box(30)}{box(31)}{box(45, 1)}</track>'
        f'<track id="1" label="bow">{box(60)}</track>'
    )
    assert seen(read_table(cvat(tmp_path / "annotations.xml", body))) == [
        ("wave", 5, 19), ("wave", 30, 44), ("bow", 60, FRAMES - 1),
    ]  # fmt: skip
    assert len(read_table(tmp_path)) == 3  # by its folder, too
    assert task_of_data(tmp_path).name == "clips"


def test_attributes_of_cvat_s_tracks_are_classes_from_frame_to_frame(tmp_path, drawn):
    linked(tmp_path, drawn, "day.mp4")
    shapes = [box(0, action="walk"), box(10, action="walk"), box(25, action="run"), box(50, action="__undefined__")]
    table = read_table(cvat(tmp_path / "a.xml", f'<track id="0" label="person">{"".join(shapes)}{box(60, 1)}</track>'))
    assert seen(table) == [("walk", 0, 24), ("run", 25, 49)]
    assert any("attribute 'action'" in note for note in table.notes)


def test_tags_of_frames_that_follow_each_other_are_one_segment_at_the_task_s_step(tmp_path, drawn):
    linked(tmp_path, drawn, "day.mp4")
    frames = [(n, "wave") for n in (0, 5, 10)] + [(n, "bow") for n in (30, 35)] + [(60, "wave")]
    images = "".join(f'<image id="{n}" name="frame_{n:06d}"><tag label="{tag}"/></image>' for n, tag in frames)
    table = read_table(cvat(tmp_path / "a.xml", images, 85, "step=5"))
    assert sorted(seen(table)) == [("bow", 30, 39), ("wave", 0, 14), ("wave", 60, 64)]


def test_fiftyone_s_support_counts_from_one_both_ends_included(tmp_path, drawn):
    linked(tmp_path, drawn, "data/day.mp4", "data/even.mp4")
    labels = {
        "day": [{"label": 1, "support": [11, 20]}, {"label": 0, "support": [31, 31]}],
        "even": [{"label": 0, "timestamps": [1.0, 2.0]}], "none": None,
    }  # fmt: skip
    written(tmp_path / "labels.json", {"classes": ["bow", "wave"], "labels": labels})
    table = read_table(tmp_path)
    assert seen(table) == [("wave", 10, 19), ("bow", 30, 30), ("bow", 30, 59)]
    assert task_of_data(tmp_path).name == "clips"
    event = {"_cls": "TemporalDetection", "label": "wave", "support": [2, 4]}
    sample = {
        "filepath": "data/day.mp4", "tags": ["validation"], "metadata": {"_cls": "VideoMetadata", "frame_rate": 30},
        "events": {"_cls": "TemporalDetections", "detections": [event]}, "weather": {"_cls": "Classification"},
    }  # fmt: skip
    table = read_table(written(tmp_path / "samples.json", {"samples": [sample]}))
    assert (seen(table), table.clips[0].split) == ([("wave", 1, 3)], "val")
    assert "Labels of other kinds were ignored: 1 Classification." in table.notes


def test_a_table_names_parts_by_seconds_timecodes_or_frames(tmp_path, drawn):
    linked(tmp_path, drawn, "even.mp4", "day.mp4")
    path = tmp_path / "mine.csv"
    rows = ["path,label,start,end", "even.mp4,a,0.5,1", "even.mp4,b,00:00:01.000,0:02"]
    path.write_text("\n".join([*rows, "even.mp4,c,00:00:02:10,00:00:02:20"]))
    assert seen(read_table(path)) == [("a", 15, 29), ("b", 30, 59), ("c", 70, 79)]
    path.write_text("file_name;label;start_frame;end_frame\nday.mp4;a;11;40\nday.mp4;b;50;\n")
    assert seen(read_table(path)) == [("a", 11, 40), ("b", 50, FRAMES - 1)]


def test_a_rate_that_is_not_the_videos_is_told_where_frames_are_counted(tmp_path, drawn):
    linked(tmp_path, drawn, "even.mp4")
    path = tmp_path / "mine.csv"
    for fps, told in (("5", True), ("30", False), ("", False)):
        path.write_text(f"path,label,start_frame,end_frame,fps\neven.mp4,a,11,40,{fps}\n")
        table = read_table(path)
        assert seen(table) == [("a", 11, 40)]
        assert any("even.mp4: 30 and 5 frames/s" in note for note in table.notes) == told


def _span(table: ClipTable) -> tuple[float | None, float | None]:
    return table.clips[0].start_s, table.clips[0].end_s


def test_both_rules_of_sampling_see_the_frames_of_a_segment_at_a_variable_rate(tmp_path, drawn):
    linked(tmp_path, drawn, "day.mp4")
    table = read_table(written(tmp_path / "e.json", [task("day.mp4", timeline("a", 21, 50), timeline("b", 60, 70))]))
    uniform = read_clip(table.clips[0].path, Sampling("uniform", frames=30), (32, 160), *_span(table))
    assert [number_of(rgb) for rgb in uniform.frames] == list(range(20, 50))
    rate = read_clip(table.clips[0].path, Sampling("rate", hz=60), (32, 160), *_span(table))
    numbers = [number_of(rgb) for rgb in rate.frames]
    assert (numbers[0], numbers[-1], set(numbers)) == (20, 49, set(range(20, 50)))


def test_dropped_numbers_of_timecodes_are_counted_as_broadcasters_do(tmp_path):
    draw(tmp_path / "ntsc.mp4", False, 1850, 30000 / 1001)
    rows = ["path,label,start,end", "ntsc.mp4,a,00:00:59;28,00:01:00;04", "ntsc.mp4,b,00:01:01:00,"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    clips = read_table(tmp_path / "t.csv").clips
    # after 59;29 comes 1:00;02, which is frame 1800
    assert [round(clips[0].start_s * 30000 / 1001), round(clips[0].end_s * 30000 / 1001)] == [1798, 1802]
    assert round(clips[1].start_s * 30000 / 1001) == 1830  # ":" drops none


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_hugging_face_s_metadata_give_labels_and_the_folders_the_splits(tmp_path, drawn, suffix):
    names = {"train": ["a.mp4", "b.mp4"], "validation": ["c.mp4"]}
    for split, videos in names.items():
        for video in videos:
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / split / video).symlink_to(drawn / "even.mp4")
        rows = [{"file_name": video, "label": number % 2, "extra": "x"} for number, video in enumerate(videos)]
        _write_rows(tmp_path / split / f"metadata.{suffix}", rows)
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n"
        "        names:\n          '0': bow\n          '1': wave\n---\n# Card\n"
    )
    table = read_table(tmp_path)
    assert [(c.path.name, c.label, c.split) for c in table] == [
        ("a.mp4", "bow", "train"), ("b.mp4", "wave", "train"), ("c.mp4", "bow", "val"),
    ]  # fmt: skip
    assert task_of_data(tmp_path).name == "clips"


def _write_rows(path: Path, rows: list[dict]) -> None:
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))


def test_segments_that_make_no_sense_are_named_and_skipped(tmp_path, drawn):
    linked(tmp_path, drawn, "day.mp4")
    seconds = {"type": "labels", "value": {"start": 2.0, "end": 1.0, "labels": ["x"]}}
    late = {"type": "labels", "value": {"start": 900.0, "end": 901.0, "labels": ["x"]}}
    results = [timeline("a", 1, 9), timeline("b", 5, 20), timeline("b", 40, 30), timeline("a", 80, 95), seconds, late]
    export = written(tmp_path / "e.json", [task("day.mp4", *results), task("night.mp4", timeline("a", 1, 2))])
    table = read_table(export)
    assert seen(table) == [("a", 0, 8), ("b", 4, 19)]
    assert [why for _, why in table.skipped][:2] == [
        "task 7: last frame 29 is before first frame 39",
        "task 7: frames 79 to 94 are not in the video, which has 90 (from 0)",
    ]
    assert [why for _, why in table.skipped][2:] == [
        "task 7: end 1 s is not after start 2 s",
        f"task 7: start 900 s lies behind the end of the video ({_length(drawn / 'day.mp4'):.2f} s)",
        "task 7: no such file",
    ]
    assert any("1 of the 2 videos that Label Studio names are missing: night.mp4" in note for note in table.notes)
    assert any("overlap, 1 pair of them (first: day.mp4, a 0.00 to" in n for n in table.notes)
    assert "5 of 7 clips cannot be used" in refusal(export, strict=True)


def _length(path: Path) -> float:
    from vidlet.video import probe

    return probe(path).duration_s


def test_a_name_that_two_videos_have_is_refused_and_neighbors_count_where_nothing_lies_inside(tmp_path, drawn):
    linked(tmp_path, drawn, "set/a/day.mp4", "set/b/day.mp4", "other/day.mp4")
    results = (timeline("a", 1, 10), timeline("b", 11, 20))
    export = written(tmp_path / "set" / "e.json", [task("/data/upload/1/day.mp4", *results)])
    assert "may be meant; leave one" in refusal(export)
    assert {clip.path for clip in read_table(written(export, [task("x/b/day.mp4", *results)]))} == {
        tmp_path / "set" / "b" / "day.mp4"
    }
    for name in "ab":
        (tmp_path / "set" / name / "day.mp4").unlink()
    assert read_table(written(export, [task("day.mp4", *results)])).clips[0].path == tmp_path / "other" / "day.mp4"
    twice = read_table(written(export, [task("1/day.mp4", results[0]), task("2/day.mp4", results[1])]))
    assert any("1/day.mp4, 2/day.mp4 are taken for one video" in note for note in twice.notes)


def test_what_cannot_be_read_at_all_is_one_line(tmp_path, drawn):
    gone = written(tmp_path / "gone.json", [task("x.mp4", timeline("a", 1, 2)), task("y.mp4", timeline("b", 1, 2))])
    assert "none of the 2 videos that Label Studio names is there: x.mp4, y.mp4; looked in" in refusal(gone)
    box_only = {"type": "videorectangle", "value": {"labels": ["person"]}}
    assert "no labelled segment of a video in this export of Label Studio (Labels of other kinds" in refusal(
        written(tmp_path / "boxes.json", [task("x.mp4", box_only)])
    )
    text = {"type": "timelinelabels", "value": {"ranges": [{"start": "soon", "end": 3}], "timelinelabels": ["a"]}}
    soon = written(tmp_path / "t.json", [task("x.mp4", text)])
    assert "task 7: start of a segment is no number (soon)" in refusal(soon)
    for data in ({"a": 1}, [1], [{"id": 3}]):
        other = written(tmp_path / "other.json", data)
        assert task_of_data(other).name == "clips"
        assert "or an export of Label Studio, CVAT, FiftyOne or Hugging Face, not such a .json file" in refusal(other)
    assert "unpack it first" in refusal(_text(tmp_path / "export.zip", "PK"))
    (tmp_path / "half.json").write_text('[{"id": 1, "annotations": [')
    assert "half.json: not JSON" in refusal(tmp_path / "half.json")
    (tmp_path / "bad.xml").write_text("<annotations><meta>")
    assert "bad.xml: not a whole XML file" in refusal(tmp_path / "bad.xml")
    plain = _text(tmp_path / "m.xml", "<annotations><version>1.1</version></annotations>")
    assert "its meta names no task" in refusal(plain)
    linked(tmp_path, drawn, "day.mp4")
    assert "frame 'x' is no number of a frame" in refusal(
        cvat(tmp_path / "f.xml", '<track id="2" label="a"><box frame="x" outside="0"/></track>')
    )
    for cells, why in (
        ("5,3", "line 2: last frame 3 is before first frame 5"),
        ("x,3", "line 2: start_frame 'x' is no number of a frame"),
        ("5,300", "line 2: frames 5 to 300 are not in the video, which has 90 (from 0)"),
    ):
        assert why in refusal(_text(tmp_path / "t.csv", f"path,label,start_frame,end_frame\nday.mp4,a,{cells}\n"))


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_segments_of_one_video_are_split_by_stretches_of_time_and_none_is_cut(tmp_path, drawn):
    linked(tmp_path, drawn, "day.mp4")
    results = [timeline("ab"[n % 2], 1 + 3 * n, 3 + 3 * n) for n in range(30)] + [timeline("a", 14, 26)]
    table = with_splits(read_table(written(tmp_path / "e.json", [task("day.mp4", *results)])))
    counts = {split: len(table.of_split(split)) for split in ("train", "val", "test")}
    assert counts["train"] > 15
    assert min(counts.values()) >= 2
    clips = sorted(table, key=lambda clip: clip.start_s)
    for clip, other in ((a, b) for a in clips for b in clips if a.split != b.split):
        assert clip.end_s is None or clip.end_s <= other.start_s + 1e-6 or other.end_s <= clip.start_s + 1e-6
    assert any("All clips are parts of one video" in note for note in table.notes)
    report = inspect_table(table)
    assert (report.leaking_groups, report.broken) == ((), ())


def test_names_of_videos_lose_their_host_their_folders_and_the_prefix_of_an_upload():
    assert places_of("/data/upload/1/0a1b2c3d-my day.mp4")[-2:] == ["0a1b2c3d-my day.mp4", "my day.mp4"]
    assert "set/day.mp4" in places_of("/data/local-files/?d=set/day.mp4")
    assert places_of("s3://bucket/x/day%201.mp4")[-1] == "day 1.mp4"
    assert places_of("C:\\videos\\day.mp4")[-1] == "day.mp4"
    assert all(".." not in name.split("/") for name in places_of("../../etc/day.mp4"))


@pytest.mark.slow
def test_fifty_segments_of_an_hour_s_video_train_in_one_command(tmp_path, motion_clips):
    from vidlet.cli import main

    clips = [*read_table(motion_clips), *read_table(motion_clips)][:50]
    results, time_s, number = [], 0.0, 0
    with VideoWriter(tmp_path / "hour.mp4", 25) as video:
        for clip in clips:
            first = number + 1
            for frame in iter_frames(clip.path):
                video.write(frame.rgb(), time_s)
                time_s, number = time_s + 0.04, number + 1
            results.append(timeline(clip.label, first, number))
            time_s += 70.0  # the last picture stands
    export = written(tmp_path / "export.json", [task("hour.mp4", *results)])
    assert _length(tmp_path / "hour.mp4") > 3500
    words = ["--recipe", "tiny-grid-gru", "--epochs", "2", "--out", str(tmp_path / "run")]
    assert main(["train", str(export), *words]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (sum(metrics["clips"].values()), metrics["skipped"]) == (50, [])
