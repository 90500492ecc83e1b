"""Published data sets, each on a tiny tree laid out as the original; the lists of UCF101 as they are."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from shared_data import shared
from vidlet.datasets import group_folds, leave_one_group_out, read_table, with_splits
from vidlet.datasets.known import source_of
from vidlet.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def frame_folder(path: Path) -> None:
    path.mkdir(parents=True)
    for index in range(2):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path / f"{index + 1:05d}.jpg")


def rows(table) -> list[tuple[str, str, str, str]]:
    return [(c.path.name, c.label, c.group, c.split) for c in table]


def ucf101(root: Path) -> Path:
    videos = [f"{c}/v_{c}_g{g:02d}_c01.avi" for c in ("Archery", "YoYo") for g in (1, 2, 8)]
    touch(root / "UCF-101", *videos)
    write(root, "ucfTrainTestlist/classInd.txt", "1 Archery\n2 YoYo\n")
    for split, tested in ((1, "g01"), (2, "g02"), (3, "g08")):
        train = "".join(f"{v} {1 + ('YoYo' in v)}\n" for v in videos if tested not in v)
        write(root, f"ucfTrainTestlist/trainlist0{split}.txt", train)
        write(root, f"ucfTrainTestlist/testlist0{split}.txt", "".join(f"{v}\n" for v in videos if tested in v))
    return root


def test_ucf101_is_read_by_its_lists_and_groups_come_from_the_names(tmp_path):
    root = ucf101(tmp_path)
    table = read_table(root)
    assert table.labels == ("Archery", "YoYo")
    assert ("v_YoYo_g08_c01.avi", "YoYo", "g08", "train") in rows(table)
    assert [row[0] for row in rows(table.of_split("test"))] == ["v_Archery_g01_c01.avi", "v_YoYo_g01_c01.avi"]
    assert "Official split 1 of UCF101" in table.notes[0]
    second = read_table(root / "ucfTrainTestlist" / "testlist02.txt")
    assert {row[2] for row in rows(second.of_split("test"))} == {"g02"}
    assert len(read_table(root / "ucfTrainTestlist")) == 6
    split = with_splits(table, seed=0)  # val is split off train, test stays
    assert split.of_split("test").clips == table.of_split("test").clips


def test_missing_videos_are_counted_and_named(tmp_path):
    root = ucf101(tmp_path)
    for video in (root / "UCF-101").rglob("*g02*"):
        video.unlink()
    table = read_table(root)
    assert len(table) == 4
    assert len(table.skipped) == 2
    assert "2 of the 6 videos that the lists of UCF101 name are missing (first: Archery/v_Archery_g02" in table.notes[1]
    with pytest.raises(DataError, match="2 of 6 clips cannot be used"):
        read_table(root, strict=True)


def test_a_list_with_a_strange_line_is_named(tmp_path):
    root = ucf101(tmp_path)
    write(root, "ucfTrainTestlist/testlist01.txt", "Archery/v_Archery_g01_c01.avi\nChess/v_Chess_g01_c01.avi\n")
    with pytest.raises(DataError, match=r"testlist01\.txt line 2: 'Chess/v_Chess_g01_c01\.avi' is not CLASS/"):
        read_table(root)


def test_the_folder_of_ucf101_alone_gives_groups_too(tmp_path):
    root = ucf101(tmp_path) / "UCF-101"
    table = read_table(root)
    assert {row[2] for row in rows(table)} == {"g01", "g02", "g08"}
    for fold, group in zip(leave_one_group_out(table), ("g01", "g02", "g08"), strict=True):  # of all classes at once
        assert rows(fold.of_split("test")) == [
            (f"v_{c}_{group}_c01.avi", c, group, "test") for c in ("Archery", "YoYo")
        ]


def test_the_official_lists_without_videos_say_how_many_are_missing(tmp_path):
    lists = shared("data", "ucf101_splits")
    with pytest.raises(DataError, match=r"all 13,320 videos that the lists of UCF101 name are missing"):
        read_table(lists)
    for path in lists.iterdir():
        write(tmp_path, path.name, path.read_text())
    for label in (tmp_path / "classInd.txt").read_text().split()[1::2]:
        (tmp_path / label).mkdir()
    for line in (lists / "testlist01.txt").read_text().split():
        (tmp_path / line).write_bytes(b"")
    table = read_table(tmp_path)
    assert len(table) == 3783  # as the thesis counts
    assert len(table.skipped) == 9537
    assert len(table.labels) == 101
    groups = Counter(label for label, _ in {(clip.label, clip.group) for clip in table})
    assert set(groups.values()) == {7}  # of the 25 of a class, the same numbers in all
    assert {clip.group for clip in table} == {f"g{number:02d}" for number in range(1, 8)}


def test_ucf11_has_a_folder_a_group_and_its_annotations_are_no_clips(tmp_path):
    for name, short in (("basketball", "shooting"), ("biking", "biking")):
        for group in (1, 2):
            folder = f"{name}/v_{short}_{group:02d}"
            touch(tmp_path, f"{folder}/v_{short}_{group:02d}_01.mpg", f"{folder}/v_{short}_{group:02d}_02.mpg")
        touch(tmp_path, f"{name}/Annotation/v_{short}_01_01.xgtf")
    table = read_table(tmp_path)
    assert len(table) == 8
    assert ("v_shooting_02_01.mpg", "basketball", "02", "") in rows(table)
    assert table.skipped == ()
    assert len(read_table(tmp_path, strict=True)) == 8


def test_two_groups_of_ucf11_in_three_classes_are_two_folds_that_test_all_classes(tmp_path):
    for name in ("basketball", "biking", "diving"):
        for group in (1, 2):
            touch(tmp_path, *(f"{name}/v_{name}_{group:02d}/v_{name}_{group:02d}_{k:02d}.mpg" for k in (1, 2)))
    table = read_table(tmp_path)
    assert {clip.group for clip in table} == {"01", "02"}
    with pytest.raises(DataError, match="2 groups; to leave one out"):  # no group would be left to validate
        leave_one_group_out(table)
    folds = leave_one_group_out(table, val=0)
    assert len(folds) == 2
    for fold in folds:
        assert {clip.label for clip in fold.of_split("test")} == set(table.labels)
        assert {clip.label for clip in fold.of_split("train")} == set(table.labels)
        assert len(fold.of_split("val")) == 0


def test_leaving_one_group_of_ucf11_out_tests_every_class(tmp_path):
    for name in ("basketball", "biking", "diving"):
        for group in (1, 2, 3):
            touch(tmp_path, f"{name}/v_{name}_{group:02d}/v_{name}_{group:02d}_01.mpg")
    folds = leave_one_group_out(read_table(tmp_path))
    assert len(folds) == 3
    for fold, group in zip(folds, ("01", "02", "03"), strict=True):
        tested = fold.of_split("test")
        assert {clip.label for clip in tested} == {"basketball", "biking", "diving"}
        assert {clip.group for clip in tested} == {group}
        assert not any("one class only" in note for note in fold.notes)


def test_a_fold_that_tests_one_class_says_so(tmp_path):
    for name in ("run", "walk"):
        for person in (1, 2, 3):
            touch(tmp_path, f"{name}/{name}{person}/a.mp4")
    folds = group_folds(read_table(tmp_path), 6)
    assert len(folds) == 6
    assert all("tests clips of one class only" in fold.notes[-1] for fold in folds)


def hmdb51(root: Path) -> Path:
    marks = {
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi": (1, 2, 0),
        "April_09_brush_hair_u_nm_np1_ba_goo_1.avi": (1, 2, 0),
        "Brushing_Hair_brush_hair_h_nm_np1_ba_med_2.avi": (2, 1, 1),
        "Old_brush_hair_u_cm_np1_le_med_0.avi": (0, 0, 2),
    }
    touch(root / "hmdb51_org" / "brush_hair", *marks)
    for split in (1, 2, 3):
        text = "".join(f"{name} {mark[split - 1]} \n" for name, mark in marks.items())
        write(root, f"testTrainMulti_7030_splits/brush_hair_test_split{split}.txt", text)
    touch(root / "hmdb51_org" / "cartwheel", "A_cartwheel_f_cm_np1_ba_med_0.avi")
    for split in (1, 2, 3):
        write(
            root, f"testTrainMulti_7030_splits/cartwheel_test_split{split}.txt", "A_cartwheel_f_cm_np1_ba_med_0.avi 1\n"
        )
    return root


def test_hmdb51_leaves_out_what_a_split_does_not_use_and_groups_by_film(tmp_path):
    root = hmdb51(tmp_path)
    table = read_table(root)
    assert rows(table) == [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair", "April_09", "train"),
        ("April_09_brush_hair_u_nm_np1_ba_goo_1.avi", "brush_hair", "April_09", "train"),
        ("Brushing_Hair_brush_hair_h_nm_np1_ba_med_2.avi", "brush_hair", "Brushing_Hair", "test"),
        ("A_cartwheel_f_cm_np1_ba_med_0.avi", "cartwheel", "A", "train"),
    ]
    assert "1 clips that it does not use" in table.notes[0]
    third = read_table(root / "testTrainMulti_7030_splits" / "cartwheel_test_split3.txt")
    assert [row[3] for row in rows(third)] == ["train", "test", "train"]
    assert source_of("winKen_wave_u_cm_np1_ri_bad_1.avi", "wave") == "winKen"
    write(root, "testTrainMulti_7030_splits/brush_hair_test_split1.txt", "a.avi 7\n")
    with pytest.raises(
        DataError, match=r"brush_hair_test_split1\.txt line 1: 'a\.avi 7' is not NAME\.avi and 0, 1 or 2"
    ):
        read_table(root)


def test_kinetics_reads_cut_clips_and_parts_of_whole_videos(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    write(tmp_path, "annotations/train.csv", header + "abseiling,aaa,3,13,train\nriding a bike,bbb,20,30,train\n")
    write(tmp_path, "annotations/validate.csv", header + "abseiling,ccc,0,10,validate\n")
    write(tmp_path, "annotations/test.csv", header + ",ddd,0,10,test\n")
    touch(
        tmp_path, "train/abseiling/aaa_000003_000013.mp4", "train/riding_a_bike/bbb.mkv", "validate/abseiling/ccc.mp4"
    )
    table = read_table(tmp_path)
    assert [(c.path.name, c.label, c.group, c.split, c.start_s, c.end_s) for c in table] == [
        ("aaa_000003_000013.mp4", "abseiling", "aaa", "train", None, None),
        ("bbb.mkv", "riding a bike", "bbb", "train", 20.0, 30.0),
        ("ccc.mp4", "abseiling", "ccc", "val", 0.0, 10.0),
    ]
    only = read_table(tmp_path / "annotations" / "validate.csv")
    assert [clip.split for clip in only] == ["val"]
    write(tmp_path, "annotations/train.csv", header + "abseiling,aaa,13,3,train\n")
    with pytest.raises(DataError, match=r"train\.csv line 2: time_end 3 is not after time_start 13"):
        read_table(tmp_path)


def test_moments_in_time_has_two_tables_without_a_header(tmp_path):
    write(tmp_path, "trainingSet.csv", "flipping/yt-a_97.mp4,flipping,3,0\nplaying+music/b.mp4,playing+music,3,1\n")
    write(tmp_path, "validationSet.csv", "flipping/c.mp4,flipping,3,0\n")
    touch(tmp_path, "training/flipping/yt-a_97.mp4", "training/playing+music/b.mp4", "validation/flipping/c.mp4")
    table = read_table(tmp_path)
    assert rows(table) == [
        ("yt-a_97.mp4", "flipping", "", "train"),
        ("b.mp4", "playing+music", "", "train"),
        ("c.mp4", "flipping", "", "val"),
    ]
    assert len(read_table(tmp_path / "validationSet.csv")) == 1


def test_something_something_takes_the_template_for_the_class(tmp_path):
    item = {"id": "74225", "label": "spinning cube that quickly stops", "template": "Spinning [something] that stops"}
    other = {"id": "116154", "label": "showing a photo", "template": "Showing [something]"}
    write(tmp_path, "labels/something-something-v2-train.json", json.dumps([item, other]))
    write(tmp_path, "labels/something-something-v2-validation.json", json.dumps([{**item, "id": "7"}]))
    write(tmp_path, "labels/something-something-v2-test.json", json.dumps([{"id": "9"}]))
    touch(tmp_path, "20bn-something-something-v2/74225.webm", "20bn-something-something-v2/116154.webm")
    frame_folder(tmp_path / "20bn-something-something-v2" / "7")
    table = read_table(tmp_path)
    assert rows(table) == [
        ("74225.webm", "Spinning something that stops", "", "train"),
        ("116154.webm", "Showing something", "", "train"),
        ("7", "Spinning something that stops", "", "val"),
    ]
    assert "1 clips of the lists have no label" in table.notes[0]
    write(tmp_path, "labels/something-something-v2-train.json", "{}")
    with pytest.raises(DataError, match=r"v2-train\.json: expected a list of objects with id"):
        read_table(tmp_path)


def test_a_neighbor_with_videos_of_the_same_names_is_not_looked_at(tmp_path):
    write(tmp_path, "jester/jester-v1-train.csv", "1;Swiping Left\n2;Thumb Up\n")
    frame_folder(tmp_path / "jester" / "1")
    frame_folder(tmp_path / "something" / "2")
    table = read_table(tmp_path / "jester")
    assert [clip.path for clip in table] == [tmp_path / "jester" / "1"]
    assert [path for path, _ in table.skipped] == ["2"]


def test_jester_has_numbered_folders_of_frames(tmp_path):
    write(tmp_path, "jester-v1-labels.csv", "Swiping Left\nThumb Up\n")
    write(tmp_path, "jester-v1-train.csv", "34870;Swiping Left\n56557;Thumb Up\n")
    write(tmp_path, "jester-v1-validation.csv", "9;Thumb Up\n10;Swiping Left\n")
    write(tmp_path, "jester-v1-test.csv", "11\n")
    for name in ("34870", "56557", "9"):
        frame_folder(tmp_path / "20bn-jester-v1" / name)
    table = read_table(tmp_path)
    assert rows(table) == [
        ("34870", "Swiping Left", "", "train"),
        ("56557", "Thumb Up", "", "train"),
        ("9", "Thumb Up", "", "val"),
    ]
    assert [path for path, _ in table.skipped] == ["10"]
    assert any("1 of the 4 videos that the lists of Jester name are missing" in note for note in table.notes)
    assert len(read_table(tmp_path / "jester-v1-validation.csv")) == 3  # a list means its data set
