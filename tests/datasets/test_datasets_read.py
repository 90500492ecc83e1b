"""Clip tables: every layout that people have gives the same table, and bad ones one clear line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared_data import shared
from video_level import draw_video_level
from vidlet.datasets import ClipTable, read_table
from vidlet.errors import DataError
from vidlet.tasks.clips import labelled_clips
from vidlet.video import write_video


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def frame_folder(path: Path, frames: int = 2) -> None:
    path.mkdir(parents=True)
    for index in range(frames):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path / f"{index:03d}.png")


def write_table(root: Path, text: str | bytes, name: str = "clips.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(table: ClipTable) -> list[tuple[str, str, str, str]]:
    return [(c.path.relative_to(table.root).as_posix(), "|".join(c.labels), c.group, c.split) for c in table]


def refusal(path: Path, strict: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, strict=strict)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_table_says_label_group_split_and_part(tmp_path):
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    write_table(
        tmp_path,
        "path,label,group,split,start_s,end_s,comment\n"
        "v/a.mp4,run|jump,anna,train,0.5,2,x\n"
        "v/b.mp4,jump,ben,validate,,,\n",
    )
    table = read_table(tmp_path)
    assert rows(table) == [("v/a.mp4", "run|jump", "anna", "train"), ("v/b.mp4", "jump", "ben", "val")]
    assert (table.clips[0].start_s, table.clips[0].end_s, table.clips[1].start_s) == (0.5, 2.0, None)
    assert table.labels == ("jump", "run")
    assert table.multi_label
    note = "clips.csv: columns that are not read: comment."
    assert (table.skipped, table.notes, table.features) == ((), (note,), None)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,label,split\r\nv/a.mp4,run,valid\r\nv/b.mp4,jump,TEST\r\n",
        b"Label;Path;Split\nrun;v/a.mp4;validation\n\n;;\njump;v/b.mp4;test",
        b'"path"\t"label"\t"split"\n"v/a.mp4"\t"run"\t"val"\n"v\\b.mp4"\t jump \ttesting\n',
        "path,label,split\nv/a.mp4,run,val\nv/b.mp4,jump,test\n".encode("utf-16"),
        b"name,labels,split\nv/a,run,val\nv/b,jump,test\n",
    ],
    ids=["excel", "semicolons", "tabs", "utf-16", "names"],
)
def test_however_the_table_was_saved_it_says_the_same(tmp_path, text):
    touch(tmp_path, "v/a.mp4", "v/b.mp4")
    write_table(tmp_path, text)
    assert rows(read_table(tmp_path)) == [("v/a.mp4", "run", "", "val"), ("v/b.mp4", "jump", "", "test")]


def test_a_table_of_any_name_is_read_by_its_path_and_its_decimal_commas_with_it(tmp_path):
    touch(tmp_path, "a.mp4")
    path = write_table(tmp_path, "path;label;start_s;end_s\na.mp4;run;0,5;1,25\n", "mine.csv")
    clip = read_table(path).clips[0]
    assert (clip.start_s, clip.end_s) == (0.5, 1.25)


def test_rows_that_name_no_file_are_skipped_and_listed_and_an_error_when_strict(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "empty").mkdir()
    lines = ["a.mp4,run", "b.mp4,run", "c.mp4,run", "empty,run", ",run", "a.mp4,"]
    write_table(tmp_path, "path,label\n" + "\n".join(lines))
    table = read_table(tmp_path)
    assert len(table) == 1
    assert table.skipped == (
        ("b.mp4", "no such file"),
        ("c.mp4", "no such file"),
        ("empty", "a folder without frame images"),
        (f"{tmp_path / 'clips.csv'} line 6", "line 6 names no file"),
        ("a.mp4", "line 7 has no label"),
    )
    message = refusal(tmp_path, strict=True)
    assert "5 of 6 clips cannot be used (b.mp4: no such file; c.mp4" in message
    assert message.endswith("and 2 more)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("path,label\n", "a header and no row"),
        ("path,kind\na.mp4,run\n", "needs a column 'label' (columns found: path, kind)"),
        ("where,kind\na.mp4,run\n", "needs a column 'path' and 'label' (columns found: where, kind)"),
        ("path,label,path\na.mp4,run,b.mp4\n", "column 'path' stands twice"),
        ("path,label,split\na.mp4,run,holdout\n", "line 2: split 'holdout' is none of train, val and test"),
        ("path,label,start_s\na.mp4,run,soon\n", "line 2: start_s 'soon' is not a number of seconds"),
        ("path,label,start_s\na.mp4,run,-1\n", "line 2: start_s '-1' is not a number of seconds"),
        ("path,label,end_s\na.mp4,run,inf\n", "line 2: end_s 'inf' is not a number of seconds"),
        ("path,label,start_s,end_s\na.mp4,run,2,2\n", "line 2: end_s 2 is not after start_s 2"),
        ("path,label\na.mp4,run\na,b.mp4,run\n", "line 3: 3 cells under 2 column names"),
        ("path,label\na.mp4,\n", "no row has a label"),
        ("path,label\na.mp4,Run\na.mp4,run\n", "classes 'Run' and 'run' differ only in upper and lower case"),
        ("path,label\nb.mp4,run\n", "1 of 1 clips cannot be used (b.mp4: no such file)"),
        (b"path,label\na.mp4,gr\xfc\xdfen\n", "not UTF-8 text (byte 19)"),
        (b"path,label\na.mp4,\0\n", "zero bytes"),
        ('path,label\n"a.mp4,run\n', "not a table of cells"),
    ],
)
def test_a_bad_table_is_one_line_that_names_file_and_reason(tmp_path, text, reason):
    touch(tmp_path, "a.mp4")
    write_table(tmp_path, text)
    message = refusal(tmp_path)
    assert reason in message
    assert str(tmp_path) in message


def test_repeated_rows_are_dropped_and_noted_and_contradictions_noted(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_table(tmp_path, "path,label\na.mp4,run\na.mp4,run\nb.mp4,run\nb.mp4,jump\n")
    table = read_table(tmp_path)
    assert [clip.label for clip in table] == ["run", "run", "jump"]
    assert table.notes[0].startswith("1 rows repeat an earlier one")
    assert table.notes[1].startswith("1 clips stand in several rows that differ")


def test_a_folder_per_class_holds_videos_frame_folders_and_groups(tmp_path):
    touch(tmp_path, "run/b.MP4", "run/a.avi", "run/.hidden.mp4", "run/notes.txt", "jump/anna/c.webm", "README.md")
    touch(tmp_path, "__MACOSX/run/a.avi", "loose.mp4")
    frame_folder(tmp_path / "jump" / "d")
    frame_folder(tmp_path / "jump" / "ben" / "e")
    table = read_table(tmp_path)
    assert rows(table) == [
        ("jump/anna/c.webm", "jump", "anna", ""),
        ("jump/ben/e", "jump", "ben", ""),
        ("jump/d", "jump", "", ""),
        ("run/a.avi", "run", "", ""),
        ("run/b.MP4", "run", "", ""),
    ]
    assert table.labels == ("jump", "run")
    assert table.notes == (
        "1 videos lie outside of any class folder and were not read (first: loose.mp4).",
        "2 files are neither videos nor frames and were not read (first: README.md).",
    )


def test_folders_train_val_test_above_the_classes_are_splits(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "Validation/run/c.mp4", "test/jump/d.mp4", "extra/x.txt")
    table = read_table(tmp_path)
    assert [(clip.path.name, clip.label, clip.split) for clip in table] == [
        ("b.mp4", "jump", "train"),
        ("a.mp4", "run", "train"),
        ("c.mp4", "run", "val"),
        ("d.mp4", "jump", "test"),
    ]
    assert table.notes == ("Folders beside train, val and test were not read: extra.",)


@pytest.mark.parametrize("beside", [[], ["sample/readme.txt"]])
def test_a_test_without_classes_is_no_class_and_is_told(tmp_path, beside):
    touch(tmp_path, "train/run/a.mp4", "train/go/b.mp4", "train/stray.mp4", "test/1.mp4", "test/2.mp4", *beside)
    table = read_table(tmp_path)
    assert rows(table) == [("train/go/b.mp4", "go", "", "train"), ("train/run/a.mp4", "run", "", "train")]
    assert any(note.startswith("3 videos lie outside of any class folder") for note in table.notes)


@pytest.mark.parametrize("name", ["subject{}", "Actor_0{}", "fold-{}", "Person {}", "CAM{}"])
def test_people_and_folds_above_the_classes_are_groups(tmp_path, name):
    one, other = name.format(1), name.format(2)
    touch(tmp_path, f"{one}/run/a.mp4", f"{one}/go/b.mp4", f"{other}/run/c.mp4")
    frame_folder(tmp_path / other / "go")
    table = read_table(tmp_path)
    assert sorted(rows(table)) == sorted(
        [
            (f"{one}/go/b.mp4", "go", one, ""),
            (f"{one}/run/a.mp4", "run", one, ""),
            (f"{other}/go", "go", other, ""),
            (f"{other}/run/c.mp4", "run", other, ""),
        ]
    )
    assert f"The folders {one} and such are taken for groups" in " ".join(table.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("trn/{label}/0.mp4", "tst/{label}/1.mp4"),
        ("train/train/{label}/0.mp4", "test/Test/{label}/1.mp4"),
        ("train_data/{label}/0.mp4", "01_test/{label}/1.mp4"),
        ("{label}_train/0.mp4", "{label}_test/1.mp4"),
        ("train-{label}/anna/0.mp4", "test-{label}/ben/1.mp4"),
        ("{label}/{label}_train_0.mp4", "{label}/{label}_test_1.mp4"),
    ],
)
def test_splits_are_read_where_people_write_them(tmp_path, names):
    touch(tmp_path, *(name.format(label=label) for name in names for label in ("run", "jump")))
    table = read_table(tmp_path)
    assert table.labels == ("jump", "run")
    assert sorted((clip.label, clip.split, "0" in clip.path.stem) for clip in table) == [
        (label, split, split == "train") for label in ("jump", "run") for split in ("test", "train")
    ]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("blood_test/0.mp4", "train_ride/1.mp4"), ("blood_test", "train_ride")),
        (("walk_train/0.mp4", "run_test/1.mp4"), ("run_test", "walk_train")),
        (("train/train_1.mp4", "bus/test_1.mp4"), ("bus", "train")),
        (("walk/train_1.mp4", "run/other.mp4"), ("run", "walk")),
    ],
)
def test_names_of_which_only_some_say_a_split_say_none(tmp_path, names, labels):
    touch(tmp_path, *names)
    table = read_table(tmp_path)
    assert (table.labels, {clip.split for clip in table}) == (labels, {""})


def test_numbered_classes_with_people_in_them_stay_classes(tmp_path):
    touch(tmp_path, "gesture1/anna/a.mp4", "gesture1/bob/b.mp4", "gesture2/anna/c.mp4", "gesture2/bob/d.mp4")
    table = read_table(tmp_path)
    assert table.labels == ("gesture1", "gesture2") and {clip.group for clip in table} == {"anna", "bob"}


def test_a_class_that_is_called_as_several_others_is_told(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    write_table(tmp_path, "path,label\na.mp4,run;jump\nb.mp4,run\nc.mp4,jump\n")
    assert (
        "Class 'run;jump' is taken for one name; several labels of a clip are written run|jump."
        in read_table(tmp_path).notes
    )
    write_table(tmp_path, "path,label\na.mp4,rock & roll\nb.mp4,run\nc.mp4,run/walk\n")
    assert read_table(tmp_path).notes == ()


def test_a_spreadsheet_is_told_apart(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "clips.xlsx")
    assert "spreadsheet clips.xlsx; save its sheet as CSV" in refusal(tmp_path)
    assert "clips.xlsx: a spreadsheet; save its sheet as CSV" in refusal(tmp_path / "clips.xlsx")


def test_classes_that_are_called_train_and_test_are_classes(tmp_path):
    touch(tmp_path, "train/a.mp4", "test/b.mp4", "plane/c.mp4")
    assert read_table(tmp_path).labels == ("plane", "test", "train")


def test_the_table_and_the_folders_give_the_same_clips(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    by_folder = read_table(tmp_path)
    write_table(tmp_path, "path,label\njump/b.mp4,jump\nrun/a.mp4,run\n")
    assert read_table(tmp_path) == by_folder
    assert read_table(tmp_path).sha256() == by_folder.sha256()


def test_class_folders_without_clips_and_empty_clip_folders_are_skipped_and_listed(tmp_path):
    touch(tmp_path, "run/a.mp4", "walk/1.jpg", "walk/2.jpg")
    (tmp_path / "sit").mkdir()
    (tmp_path / "run" / "b").mkdir()
    table = read_table(tmp_path)
    assert table.labels == ("run",)
    assert dict(table.skipped) == {
        "run/b": "a folder without videos or frame images",
        "sit": "a class folder without clips",
        "walk": "2 images that are in no folder of their own (a clip of frames is one folder)",
    }
    assert "3 of 4 clips cannot be used" in refusal(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "empty folder"),
        (["a.mp4", "b.mp4"], "2 videos without a label"),
        (["0001.jpg"], "images, and no clips"),
        (["clip1/0001.jpg", "clip2/0001.jpg"], "images, and no clips"),
        (["mine.csv", "a.mp4"], "to read the table give its name"),
        (["notes/a.txt"], "no video and no frame folder"),
        (["train/run/a.mp4", "val/run/b.mp4", "valid/run/b.mp4"], "'val' and 'valid' are the same split"),
    ],
)
def test_a_folder_without_labels_is_one_line_that_says_what_to_do(tmp_path, names, reason):
    folder = tmp_path / "clips"
    folder.mkdir()
    touch(folder, *names)
    assert reason in refusal(folder)


def test_what_is_not_there_or_not_data_is_named(tmp_path):
    assert refusal(tmp_path / "nowhere").endswith("nowhere: no such folder or table")
    touch(tmp_path, "a.mp4")
    assert "not a .mp4 file" in refusal(tmp_path / "a.mp4")


def feature_set(root: Path, array: np.ndarray, text: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / "features.npz", rgb=array)
    write_table(root, text)


def test_a_table_beside_stored_features_is_data_row_by_row(tmp_path):
    feature_set(tmp_path, np.zeros((3, 4, 8), np.uint8), "name,label,split\nx,run,train\ny,,train\nz,jump,validate\n")
    table = read_table(tmp_path)
    assert table.features == tmp_path / "features.npz"
    assert [(clip.path.name, clip.row, clip.split) for clip in table] == [("x", 0, "train"), ("z", 2, "val")]
    assert table.skipped == (("y", "line 3 has no label"),)


def test_records_of_one_vector_have_class_numbers_and_names_beside_them(tmp_path):
    table = read_table(draw_video_level(tmp_path, {"train": 5, "val": 2}))
    assert table.labels == tuple(f"thing {i}" for i in range(7))
    assert table.multi_label
    assert [(clip.path.name, clip.row, clip.split) for clip in table][4:6] == [("id4", 4, "train"), ("id5", 5, "val")]
    assert table.records is not None
    record, stored = table.records.read(3), np.load(tmp_path / "features.npz")
    assert dict(table.records.widths) == {"rgb": 12, "audio": 4}
    np.testing.assert_array_equal(record.features["audio"], stored["audio"][3:4])
    assert tuple(table.labels[i] for i in record.labels) == table.clips[3].labels
    written = (tmp_path / "clips.csv").read_text().splitlines()[4].split(",")[2]
    assert record.labels == tuple(map(int, written.split()))


def test_class_numbers_without_names_are_a_vocabulary_up_to_the_highest(tmp_path):
    feature_set(tmp_path, np.zeros((2, 8), np.uint8), "id,labels,split\nx,1 10,train\ny,2,val\n")
    assert read_table(tmp_path).labels == tuple(map(str, range(11)))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert "class 10, of 2 that have names beside it" in refusal(tmp_path)


def test_a_column_of_rows_says_which_row_of_the_arrays_a_line_is_of(tmp_path):
    feature_set(tmp_path, np.arange(6, dtype=np.uint8).reshape(3, 2), "row,id,label\n2,x,a\n0,y,b\n1,x,b\n")
    table = read_table(tmp_path)
    assert [clip.row for clip in table] == [2, 0, 1]
    assert table.records is not None
    record = table.records.read(2)
    assert record.id == "x"
    np.testing.assert_array_equal(record.features["rgb"], [[4, 5]])
    assert any("1 names stand in several rows (first: x)" in note for note in table.notes)
    for cell in ("3", "0", "two", ""):
        (tmp_path / "clips.csv").write_text(f"row,id,label\n{cell},x,a\n0,y,b\n1,z,b\n")
        assert f"row {cell!r}; each of 0 to 2, the rows of features.npz, must stand once" in refusal(tmp_path)


def test_a_name_among_lists_of_class_numbers_is_refused(tmp_path):
    feature_set(tmp_path, np.zeros((3, 8), np.uint8), "id,labels,split\nx,1 10,train\ny,2 dog,val\nz,1 2,val\n")
    assert "clips.csv line 3: labels '2 dog', where most lines have lists of class numbers" in refusal(tmp_path)


def test_features_that_do_not_fit_their_table_are_refused(tmp_path):
    text = "name,label\nx,run\ny,jump\n"
    feature_set(tmp_path, np.zeros((3, 4, 8), np.uint8), text)
    assert "'rgb' has shape (3, 4, 8); clips.csv needs (2, frames, size), or (2, size)" in refusal(tmp_path)
    np.savez(tmp_path / "features.npz", audio=np.zeros(2))
    assert "holds no array 'rgb'" in refusal(tmp_path)
    (tmp_path / "features.npz").write_bytes(b"PK, but not really")
    assert "not a readable .npz file" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "clips", "classes", "splits"),
    [
        ("egogestar", 237, 11, {"train": 176, "test": 61}),
        ("shrec_depth_gestures", 2140, 14, {"train": 1630, "val": 510}),
        ("weizmann_actions", 90, 10, {"train": 60, "test": 30}),
        ("thetis_tennis_features", 1440, 12, {"train": 1080, "val": 360}),
    ],
)
def test_the_real_sets_are_read_whole(name, clips, classes, splits):
    table = read_table(shared("data", name), strict=True)
    assert (len(table), len(table.labels)) == (clips, classes)
    assert {split: len(table.of_split(split)) for split in splits} == splits


def test_a_path_that_no_file_can_have_is_skipped(tmp_path):
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)] * 4, 25)
    (tmp_path / "clips.csv").write_text(f"path,label\na.mp4,x\n{'9' * 5000}.mp4,x\n")
    table = read_table(tmp_path)
    assert len(table) == 1
    assert "no such file" in table.skipped[0][1]


@pytest.mark.parametrize(
    "column",
    ["subset,train,val,test", "Set,TRAIN,VALIDATION,TEST", "phase,training,dev,testing", "split,train,val,test"],
)
def test_a_column_of_splits_is_read_whatever_it_is_called(tmp_path, column):
    name, *words = column.split(",")
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    lines = [f"{clip}.mp4,run,{word}" for clip, word in zip("abc", words, strict=True)]
    write_table(tmp_path, f"path,label,{name}\n" + "\n".join(lines))
    table = read_table(tmp_path)
    assert [clip.split for clip in table] == ["train", "val", "test"]
    assert table.notes == (
        () if name == "split" else (f"The column {name.lower()!r} is read as the split of each clip.",)
    )


def test_columns_that_are_not_read_are_told_and_people_are_groups(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    write_table(tmp_path, "path,label,class,fold,Subject,empty\na.mp4,0,run,1,x,\nb.mp4,1,go,2,y,\nc.mp4,1,go,3,z,\n")
    table = read_table(tmp_path)
    assert [(clip.label, clip.group) for clip in table] == [("0", "x"), ("1", "y"), ("1", "z")]
    assert table.notes == (
        "The column 'fold' has 3 parts, of which --fold 0/3 to 2/3 test one each; without --fold it is not looked at.",
        "The column 'subject' is read as the group of each clip.",
        "clips.csv: columns that are not read: class.",
    )


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ("start_ms,end_ms", "500,1250"),
        ("begin,finish", "0.5,1.25"),
        ("start_s,duration", "0.5,0.75"),
        ("start_s,end_s,duration", "0.5,1.25,99"),
        ("start_s,end_s", "00:00:00.5,0:01.25"),
    ],
)
def test_the_part_of_a_video_is_read_in_the_ways_it_is_written(tmp_path, columns, cells):
    touch(tmp_path, "a.mp4", "b.mp4")
    filled = "," * columns.count(",")
    write_table(tmp_path, f"path,label,{columns}\na.mp4,run,{cells}\nb.mp4,run,{filled.replace(',', 'nan,')}nan\n")
    first, second = read_table(tmp_path)
    assert (first.start_s, first.end_s) == (0.5, 1.25)
    assert (second.start_s, second.end_s) == (None, None)


def test_a_duration_without_a_start_is_no_part_of_a_video(tmp_path):
    touch(tmp_path, "a.mp4")
    write_table(tmp_path, "path,label,duration\na.mp4,run,12.5\n")
    assert (read_table(tmp_path).clips[0].start_s, read_table(tmp_path).clips[0].end_s) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "path|label\na.mp4|run\nb.mp4|go\n",
        'path, label\na.mp4, "run"\nb.mp4, "go"\n',
        "video_path,action\na.mp4,run\nb.mp4,go\n",
        "path,labels\na.mp4,\"['run']\"\nb.mp4,\"['go']\"\n",
        "path,label\nfile://{root}/a.mp4,run\nfile://{root}/b.mp4,go\n",
    ],
)
def test_names_and_labels_are_read_in_the_ways_programs_write_them(tmp_path, text):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_table(tmp_path, text.replace("{root}", str(tmp_path)))
    assert rows(read_table(tmp_path)) == [("a.mp4", "run", "", ""), ("b.mp4", "go", "", "")]


def test_numbers_that_are_one_class_and_labels_that_are_no_number_are_not_classes_of_their_own(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_table(tmp_path, "path,label\na.mp4,1\nb.mp4,1.0\n")
    assert "classes '1' and '1.0' are the same number" in refusal(tmp_path)
    for nothing in ("NaN", "N/A", "#N/A", "<NA>"):
        write_table(tmp_path, f"path,label,start_s\na.mp4,run,{nothing}\nb.mp4,{nothing},\n")
        table = read_table(tmp_path)
        assert table.labels == ("run",) and table.skipped == (("b.mp4", "line 3 has no label"),)
        assert table.clips[0].start_s is None
    write_table(tmp_path, "path,label\na.mp4,NULL\nb.mp4,None\n")  # names of the class that is none of the others
    assert set(read_table(tmp_path).labels) == {"None", "NULL"}


@pytest.mark.parametrize("places", [("videos/a.mp4", "videos/b.mp4"), ("x/a.mp4", "y/b.mp4")])
def test_names_alone_are_found_in_the_folders_beside_the_table(tmp_path, places):
    touch(tmp_path, *places)
    write_table(tmp_path, "name,label\na,run\nb.mp4,go\n", "labels.csv")
    table = read_table(tmp_path / "labels.csv")
    assert [clip.path.relative_to(tmp_path).as_posix() for clip in table] == list(places)
    assert any("found in other folders" in note for note in table.notes)
    touch(tmp_path, "other/a.mp4")
    assert "may be meant" in read_table(tmp_path / "labels.csv").skipped[0][1]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "Validation", "Test"), ("x_train", "x_dev", "x_test")]
)
def test_tables_that_are_named_for_splits_are_data_and_their_folder_is_no_class(tmp_path, names):
    touch(tmp_path, "v/a.mp4", "v/b.mp4", "v/c.mp4")
    for name, clip in zip(names, "abc", strict=True):
        write_table(tmp_path, f"path,label\nv/{clip}.mp4,run\n", f"{name}.csv")
    table = read_table(tmp_path)
    assert sorted(rows(table)) == [
        (f"v/{c}.mp4", "run", "", s) for c, s in zip("abc", ("train", "val", "test"), strict=True)
    ]
    alone = read_table(tmp_path / f"{names[0]}.csv")
    assert len(alone) == 1 and "give the folder" in alone.notes[-1]


def test_the_only_table_of_a_folder_without_classes_is_its_data(tmp_path):
    touch(tmp_path, "videos/a.mp4", "videos/b.mp4")
    write_table(tmp_path, "filename,class\na.mp4,run\nb.mp4,go\n", "labels.csv")
    assert read_table(tmp_path).labels == ("go", "run")


def test_folders_of_splits_in_the_folders_of_classes_are_splits(tmp_path):
    touch(tmp_path, *(f"{name}/{split}/{split}.mp4" for name in ("run", "go") for split in ("train", "valid", "test")))
    table = read_table(tmp_path)
    assert {(clip.label, clip.path.parent.name, clip.split, clip.group) for clip in table} == {
        (label, word, split, "")
        for label in ("go", "run")
        for word, split in (("train", "train"), ("valid", "val"), ("test", "test"))
    }


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"train.txt": "run/a.mp4\ngo/c\n", "val.txt": "./run/b.mp4\n"}, {"a": "train", "c": "train", "b": "val"}),
        (
            {"splits/train_list.txt": "a\nb\n", "splits/test_list.txt": "c.mp4\n"},
            {"a": "train", "b": "train", "c": "test"},
        ),
        ({"testing_list.txt": "run\\a.mp4\n"}, {"a": "test", "b": "train", "c": "train", "d": "train"}),
        ({"train.txt": "Some notes\non the training.\n"}, {"a": "", "b": "", "c": "", "d": ""}),
    ],
)
def test_lists_of_names_beside_the_folders_of_classes_are_their_splits(tmp_path, lists, splits):
    touch(tmp_path, "run/a.mp4", "run/b.mp4", "go/c.mp4", "go/d.mp4")
    (tmp_path / "splits").mkdir()
    for place, text in lists.items():
        (tmp_path / place).write_text(text)
    table = read_table(tmp_path)
    assert {clip.path.stem: clip.split for clip in table} == splits
    assert ("The splits are those of" in " ".join(table.notes)) == any(splits.values())


def test_of_pictures_beside_flow_and_masks_the_pictures_are_the_clip(tmp_path):
    for name in ("run", "go"):
        for kind in ("rgb", "flow", "mask"):
            frame_folder(tmp_path / name / "anna" / kind)
        frame_folder(tmp_path / name / "clip2")
        frame_folder(tmp_path / name / "clip2" / "masks")
    table = read_table(tmp_path)
    assert [(path, group) for path, label, group, _ in rows(table) if label == "run"] == [
        ("run/anna/rgb", "anna"), ("run/clip2", "")
    ]  # fmt: skip
    assert any(note.startswith("6 folders of images beside or below the frames were not read") for note in table.notes)


def test_a_link_that_leads_back_gives_no_clip_twice(tmp_path):
    touch(tmp_path, "run/a.mp4", "go/b.mp4")
    (tmp_path / "run" / "again").symlink_to(tmp_path / "run")
    (tmp_path / "go" / "all").symlink_to(tmp_path)
    assert len(read_table(tmp_path)) == 2


def test_a_part_that_lasts_no_time_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "clips.csv").write_text("path,label,start,duration\na.mp4,x,1,0\n")
    with pytest.raises(DataError, match="end_s 1 is not after start_s 1"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("columns", "cells", "splits"),
    [
        ("is_test", ("1", "0", "0"), "test train train"),
        ("is_train", ("True", "False", "True"), "train test train"),
        ("is_train,is_val", ("1,0", "0,1", "0,0"), "train val test"),
        ("train,test", ("yes,no", "no,no", "no,yes"), "train val test"),
        ("in_val,is_test", ("0,1", "1,0", ","), "test val "),
        ("is_valid", ("1", "1", "1"), "  "),  # all are: it means something else
        ("is_test", ("1", "0", "maybe"), "  "),
        ("split,is_test", ("train,1", "val,0", "test,0"), "train val test"),
    ],
)
def test_columns_of_yes_and_no_tell_the_split(tmp_path, columns, cells, splits):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    lines = [f"{name}.mp4,run,{cell}\n" for name, cell in zip("abc", cells, strict=True)]
    read = read_table(write_table(tmp_path, f"path,label,{columns}\n" + "".join(lines)))
    assert " ".join(clip.split for clip in read) == splits
    looks_like_one = columns.split(",")[-1]
    assert any(looks_like_one in note for note in read.notes)  # read or not, it is said


def test_a_clip_is_not_in_two_splits(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    write_table(tmp_path, "path,label,is_train,is_test\na.mp4,run,1,1\nb.mp4,run,0,0\n", "two.csv")
    assert "two.csv line 2: is in train and in test" in refusal(tmp_path / "two.csv")


def test_json_lines_tell_splits_by_flags_and_what_is_not_read_too(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = '{"file_name": "a.mp4", "label": "run", "is_test": true}\n'
    rows += '{"file_name": "b.mp4", "label": "jump", "is_test": false, "mood": "good"}\n'
    read = read_table(write_table(tmp_path, rows, "metadata.jsonl"))
    assert [clip.split for clip in read] == ["test", "train"]
    assert any("columns that are not read: mood" in note for note in read.notes)


def test_a_column_of_folds_is_tested_part_by_part(tmp_path, capsys):
    names = [f"{label}{i}" for label in ("run", "jump") for i in range(6)]
    touch(tmp_path, *(f"{name}.mp4" for name in names))
    lines = [f"{name}.mp4,{name[:-1]},{int(name[-1]) % 3 + 8}\n" for name in names]  # parts 8, 9 and 10
    write_table(tmp_path, "path,label,kfold\n" + "".join(lines))
    for part in range(3):
        table = labelled_clips(tmp_path, f"{part}/3")
        tested = {clip.path.stem for clip in table.of_split("test")}
        assert tested == {name for name in names if int(name[-1]) % 3 == part}
        assert table.of_split("train") and table.of_split("val")
    with pytest.raises(DataError, match=r"its column 'fold' has 3 parts \(8, 9, 10\); --fold takes 0/3 to 2/3"):
        labelled_clips(tmp_path, "0/5")
    table = labelled_clips(tmp_path)
    assert any("--fold 0/3 to 2/3 test one each; without --fold it is not looked at" in n for n in table.notes)
    grouped = [line.replace("\n", f",g{i % 2}\n") for i, line in enumerate(lines)]
    write_table(tmp_path, "path,label,fold,group\n" + "".join(grouped))
    assert not capsys.readouterr().err
    labelled_clips(tmp_path, "0/3")
    assert "warning: 2 groups are in several parts of the column 'fold'" in capsys.readouterr().err


def test_a_table_may_call_its_times_from_and_to(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "t.csv").write_text("video,from,to,class\na.mp4,0:00:00.2,0:00:01.4,bend\n")
    clip = read_table(tmp_path / "t.csv").clips[0]
    assert (clip.start_s, clip.end_s) == (0.2, 1.4)
