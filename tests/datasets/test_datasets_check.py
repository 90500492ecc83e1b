"""What `vidlet data` says: what is there, what is broken, what leaks, and what cannot be trained."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared_data import shared
from vidlet.cli import data_command
from vidlet.datasets import Clip, ClipTable, check_trainable, inspect_table, read_table, with_splits
from vidlet.errors import DataError
from vidlet.jobs.data import inspect_data
from vidlet.video import write_video


def video(path: Path, frames: int = 6, fps: float = 12, shade: int = 0, size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.zeros((frames, size, size + 16, 3), np.uint8)
    pictures[:, :8] = shade
    write_video(path, pictures + np.arange(frames, dtype=np.uint8)[:, None, None, None], fps)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes of three different clips each."""
    for index, name in enumerate(("run/a", "run/b", "run/c", "jump/d", "jump/e", "jump/f")):
        video(tmp_path / f"{name}.mp4", frames=6 + index, shade=30 * index)
    return tmp_path


def table(root: Path, *lines: str, columns: str = "path,label,group,split") -> ClipTable:
    (root / "clips.csv").write_text("\n".join((columns, *lines)))
    return read_table(root)


def warning_about(report, words: str) -> str:
    found = [warning for warning in report.warnings if words in warning]
    assert len(found) == 1, (words, report.warnings)
    return found[0]


def test_a_sound_folder_is_described_and_only_its_small_classes_are_told(clips):
    report = inspect_table(read_table(clips))
    assert (report.kind, report.clips, report.groups) == ("videos", 6, 0)
    assert report.classes == {"jump": {"": 3}, "run": {"": 3}}
    assert report.splits == {"": 6}
    assert (report.frames.min, report.frames.median, report.frames.max) == (6, 8.5, 11)
    assert report.durations_s.min == pytest.approx(6 / 12, abs=1e-3)
    assert (report.resolutions, report.fps) == ({"48x32": 6}, {"12": 6})
    assert (report.broken, report.skipped, report.leaking_groups, report.duplicates) == ((), (), (), ())
    assert report.warnings == ("2 classes (jump, run) have fewer than 5 clips: expect no accuracy there.",)
    assert report.notes == (
        "No split is given: train takes 2 (33%), val 2 (33%), test 2 (33%) clips, "
        "by clip, because no groups are given.",
    )


def test_broken_files_are_listed_with_their_reason_and_stop_only_when_strict(clips):
    (clips / "run" / "b.mp4").write_bytes(b"")
    whole = (clips / "jump" / "d.mp4").read_bytes()
    (clips / "jump" / "d.mp4").write_bytes(whole[len(whole) // 2 :])
    report = inspect_data(clips)
    assert [path for path, _ in report.broken] == ["jump/d.mp4", "run/b.mp4"]
    assert all(why and "\n" not in why and str(clips) not in why for _, why in report.broken)
    assert warning_about(report, "2 clips cannot be read").count("jump/d.mp4") == 1
    assert report.durations_s.max == pytest.approx(11 / 12, abs=1e-3)
    with pytest.raises(DataError, match=r"jump/d\.mp4: .*\(2 of 6 clips cannot be read\)"):
        inspect_data(clips, strict=True)


def test_a_group_in_train_and_test_is_told(clips):
    lines = ["run/a.mp4,run,anna,train", "run/b.mp4,run,anna,test", "jump/d.mp4,jump,ben,train"]
    report = inspect_table(table(clips, *lines, "jump/e.mp4,jump,eva,test", "jump/f.mp4,jump,eva,val"))
    assert report.leaking_groups == ("anna",)
    assert warning_about(report, "inflates accuracy").startswith("Group 'anna' has clips in train and in val or test")


def test_identical_files_are_found_across_splits_within_one_and_with_two_labels(clips):
    for source, copy in (("run/a", "run/a2"), ("run/b", "run/b2"), ("jump/d", "run/d2")):
        (clips / f"{copy}.mp4").write_bytes((clips / f"{source}.mp4").read_bytes())
    names = {"run/a": "train", "run/a2": "test", "run/b": "train", "run/b2": "train", "jump/d": "val", "run/d2": "val"}
    report = inspect_table(table(clips, *(f"{n}.mp4,{n.split('/')[0]},,{s}" for n, s in names.items())))
    assert {copy.clips for copy in report.duplicates} == {
        ("run/a.mp4", "run/a2.mp4"),
        ("run/b.mp4", "run/b2.mp4"),
        ("jump/d.mp4", "run/d2.mp4"),
    }
    assert "run/a.mp4 [train] = run/a2.mp4 [test]" in warning_about(report, "in different splits")
    assert "run/b.mp4 [train] = run/b2.mp4 [train]" in warning_about(report, "count double")
    assert "jump/d.mp4 [val] = run/d2.mp4 [val]" in warning_about(report, "one label must be wrong")


def test_parts_of_one_video_are_told_only_where_they_lie_in_different_splits(clips):
    columns = "path,label,split,start_s,end_s"
    within = table(clips, "run/a.mp4,run,train,0,0.2", "run/a.mp4,run,train,0.2,0.5", columns=columns)
    assert inspect_table(within).duplicates == ()
    across = table(clips, "run/a.mp4,run,train,0,0.2", "run/a.mp4,run,test,0.2,0.5", columns=columns)
    report = inspect_table(across)
    assert len(report.duplicates) == 1
    assert report.durations_s.max == pytest.approx(0.3)


def test_a_part_behind_the_end_of_its_video_is_broken(clips):
    report = inspect_table(table(clips, "run/a.mp4,run,3", "run/b.mp4,run,0", columns="path,label,start_s"))
    assert report.broken == (("run/a.mp4", "start_s 3 lies behind its end (0.5 s)"),)


def test_frame_folders_are_described_and_their_copies_found(tmp_path):
    for name, shade in (("a", 1), ("b", 1), ("c", 90)):
        for index in range(3):
            path = tmp_path / "run" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), (shade + index, 0, 0)).save(path)
    report = inspect_table(read_table(tmp_path))
    assert (report.resolutions, report.fps, report.frames.max) == ({"20x10": 3}, {}, 3)
    assert [copy.clips for copy in report.duplicates] == [("run/a", "run/b")]
    assert "a split may tear them apart" in warning_about(report, "Identical clips")
    assert warning_about(report, "one class only")


def test_classes_that_have_names_but_no_clips_do_not_hide_that_there_is_one(clips):
    found = table(clips, *[f"run/{n}.mp4,run,g{n},train" for n in "abc"])
    report = inspect_table(replace(found, labels=("jump", "run", "wave")))
    assert warning_about(report, "one class only") == "There is one class only (run): nothing to tell apart."


def test_classes_that_cannot_be_learned_or_measured_are_told(clips):
    lines = [f"run/{n}.mp4,run,g{n},train" for n in "abc"] + ["jump/d.mp4,jump,gd,test", "jump/e.mp4,jump,gd,test"]
    report = inspect_table(table(clips, *lines, "jump/f.mp4,ju-mp,gf,train"))
    assert warning_about(report, "no clip in train") == (
        "Class 'jump' has no clip in train: the model cannot learn it."
    )
    assert "2 classes (ju-mp, run) have no clip in test" in warning_about(report, "no clip in test")
    assert warning_about(report, "one clip") == "Class 'ju-mp' has one clip: training needs two."
    assert warning_about(report, "one group only").startswith("Class 'jump' has one group only")
    assert "'ju-mp' and 'jump' are spelled almost alike" in warning_about(report, "almost alike")


def test_the_report_is_json_and_its_text_has_the_warnings_last(clips, capsys):
    (clips / "run" / "a.mp4").write_bytes(b"no video")
    args = argparse.Namespace(data=str(clips), strict=False, json=True, workers=2, out=None, labels=False)
    found = data_command.run(args)
    assert capsys.readouterr().out == ""
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(inspect_data(clips).to_dict()))
    assert [item["path"] for item in found["skipped"]] == ["run/a.mp4"]
    assert set(found["skipped"][0]) == {"path", "error"}
    args.json = False
    data_command.run(args)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{clips}: 6 clips, 2 classes, no groups"
    assert [line for line in lines if line.startswith("skipped: run/a.mp4: ")]
    assert lines[-1].startswith("warning: ")
    assert all(line == line.rstrip() for line in lines)


def test_the_four_copies_among_the_tennis_features_are_found_one_of_them_across_the_split():
    report = inspect_table(read_table(shared("data", "thetis_tennis_features")))
    assert (report.kind, report.clips, report.groups, report.frames.max) == ("features", 1440, 40, 16)
    assert {(copy.clips, copy.splits) for copy in report.duplicates} == {
        (("p1_backhand_s1", "p50_backhand_s1"), ("train", "val")),
        (("p50_fvolley_s1", "p50_fvolley_s2"), ("val", "val")),
        (("p47_backhand_s2", "p47_backhand_s3"), ("train", "train")),
        (("p13_foreflat_s2", "p13_foreflat_s3"), ("val", "val")),
    }
    assert "p1_backhand_s1 [train] = p50_backhand_s1 [val]" in warning_about(report, "in different splits")
    assert report.leaking_groups == ()


def test_the_real_clips_are_sound():
    report = inspect_table(read_table(shared("data", "weizmann_actions")))
    assert (report.broken, report.leaking_groups, report.duplicates, report.warnings) == ((), (), (), ())
    assert (report.resolutions, report.fps) == ({"180x144": 90}, {"25": 90})


def labelled(*labels: str, splits: str = "") -> ClipTable:
    clips = [Clip(Path(f"{i}.mp4"), (label,)) for i, label in enumerate(labels)]
    if splits:
        names = {"r": "train", "v": "val", "e": "test", "-": ""}
        clips = [replace(clip, split=names[letter]) for clip, letter in zip(clips, splits, strict=True)]
    return ClipTable(tuple(clips), tuple(sorted(set(labels))), Path("clips"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (labelled("a", "a"), "clips: training needs two classes, found a (--none FOLDER takes"),
        (labelled("a", "a", "b"), "2.mp4: the only clip of class 'b'"),
        (labelled("a", "a", "b", "b", splits="reee"), "clips: class 'b' has no clip in train"),
        (labelled("a", "a", "b", "b", splits="vvee"), "clips: no clip is in train"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(wrong, reason):
    with pytest.raises(DataError) as caught:
        check_trainable(wrong)
    assert str(caught.value).startswith(reason)


def test_what_can_be_trained_passes():
    check_trainable(labelled("a", "a", "b", "b"))
    check_trainable(with_splits(labelled(*"abababababab")))


def test_a_report_tells_a_person_what_was_understood(clips):
    report = inspect_data(clips)
    assert repr(report) == f"DataReport({clips}, 2 classes, 6 clips, 0 groups, 6 without a split, warnings: 1)"
    html = report._repr_html_()
    assert "<tr><th>jump</th><td>3</td></tr>" in html and "<tr><th></th><td>no split</td></tr>" in html
    odd = replace(report, classes={"<b>": {"": 6}}, warnings=("is <b> a class?",))
    assert "<b>" not in odd._repr_html_()
    assert "<tr><th>warning</th><td>is &lt;b&gt; a class?</td></tr>" in odd._repr_html_()
