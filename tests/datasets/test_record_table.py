"""Record shards as a clip table: names, splits and groups from what lies beside them, problems listed."""

import numpy as np
import pytest

from shared_data import shared
from vidlet.datasets.frame_record import Record
from vidlet.datasets.record_table import class_names, read_record_table, shard_split
from vidlet.datasets.records import write_records
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError


def record(name, labels):
    return Record(name, labels, {"rgb": np.zeros((2, 4), np.uint8)})


@pytest.fixture
def folder(tmp_path):
    write_records(tmp_path / "train0000.tfrecord", [record("a", (0, 2)), record("b", ()), record("c", (1,))])
    write_records(tmp_path / "validate0000.tfrecord", [record("d", (2,))])
    return tmp_path


def said(table):
    return [(clip.path.name, clip.labels, clip.split, clip.row) for clip in table]


def test_shards_alone_have_numbers_for_names_and_the_split_of_their_name(folder):
    table, records = read_record_table(folder)
    assert table.labels == ("0", "1", "2")
    assert said(table) == [("a", ("0", "2"), "train", 0), ("c", ("1",), "train", 2), ("d", ("2",), "val", 3)]
    assert table.multi_label
    assert [why for _, why in table.skipped] == ["has no label"]
    assert records.read(table.clips[2].row).id == "d"


@pytest.mark.parametrize(
    ("file", "text"),
    [("classes.txt", "run\njump\nsit\n"), ("vocabulary.csv", "Index,Count,Name\n0,9,run\n1,8,jump\n2,7,sit\n")],
)
def test_names_come_from_the_file_beside(folder, file, text):
    (folder / file).write_text(text)
    table, _ = read_record_table(str(folder / "train*"))
    assert table.labels == ("run", "jump", "sit")
    assert said(table)[0] == ("a", ("run", "sit"), "train", 0)


def test_a_table_beside_gives_groups_and_splits_and_must_agree(folder):
    head = "name,label,label_id,group,split\n"
    (folder / "clips.csv").write_text(head + "a,run|sit,0|2,x,test\nc,jump,1,y,train\n")
    table, _ = read_record_table(folder)
    assert [(clip.path.name, clip.labels, clip.group, clip.split) for clip in table] == [
        ("a", ("run", "sit"), "x", "test"),
        ("c", ("jump",), "y", "train"),
    ]
    assert [why for _, why in table.skipped] == ["is not in clips.csv", "is not in clips.csv"]
    (folder / "clips.csv").write_text(head + "a,run,0,x,test\nc,jump,1,y,train\nd,sit,2,y,train\n")
    with pytest.raises(DataError, match=r"id a: is run\|sit, in clips.csv run"):
        read_record_table(folder)


def test_columns_that_clip_tables_know_are_read_of_a_table_beside_shards(folder):
    head = "name,label,label_id,is_train,is_test,fold,subject,weather\n"
    rows = ("a,run|sit,0|2,0,1,1,x,dry\n", "c,jump,1,1,0,2,y,wet\n", "d,sit,2,0,0,1,z,dry\n")
    (folder / "clips.csv").write_text(head + "".join(rows))
    table, _ = read_record_table(folder)
    assert [(clip.split, clip.fold, clip.group) for clip in table] == [
        ("test", "1", "x"), ("train", "2", "y"), ("val", "1", "z"),
    ]  # fmt: skip
    told = " ".join(table.notes)
    for said in ("'is_train', 'is_test' tell the split", "column 'subject' is read as the group", "'fold' has 2 parts"):
        assert said in told
    assert "not read: weather." in told
    (folder / "clips.csv").write_text("clip,kind\na,run\n")
    table, _ = read_record_table(folder)
    assert "clips.csv has no columns name and label and says nothing of the records." in table.notes


def test_labels_outside_the_vocabulary_are_listed_with_shard_and_id(folder):
    (folder / "classes.txt").write_text("run\njump\n")
    table, _ = read_record_table(folder)
    assert [clip.path.name for clip in table] == ["c"]
    assert any("id d: label 2 is outside 0..1: another vocabulary?" in why for _, why in table.skipped)
    with pytest.raises(DataError, match="id a: label 2 is outside"):
        read_record_table(folder, strict=True)


def test_no_labels_and_names_that_stand_twice_are_refused(tmp_path):
    write_records(tmp_path / "test0000.tfrecord", [record("b", ())])
    with pytest.raises(DataError, match="no labelled record"):
        read_record_table(tmp_path)
    (tmp_path / "classes.txt").write_text("run\nrun\n")
    with pytest.raises(DataError, match="'run' stands twice"):
        class_names(tmp_path)


def test_the_splits_of_shard_names(tmp_path):
    names = ("train0001.tfrecord", "validate-3.tfrecord", "test.tfrecord.gz", "0001.tfrecord", "other1.tfrecord")
    assert [shard_split(tmp_path / name) for name in names] == ["train", "val", "test", "", ""]


def test_the_built_in_set_reads_as_a_table(tmp_path):
    render_residual(tmp_path, 40, 5, 5, seed=0, classes=10)
    table, _ = read_record_table(tmp_path)
    assert [len(table.of_split(split)) for split in ("train", "val", "test")] == [40, 5, 5]
    assert table.labels[3] == "class03"


def test_the_tennis_records_are_1440_clips_of_40_players():
    table, _ = read_record_table(shared("data", "thetis_tennis_features"))
    assert len(table) == 1440
    assert len({clip.group for clip in table}) == 40
    assert len(table.labels) == 12
    assert {clip.split for clip in table} == {"train", "val"}
    assert all(clip.path.name.split("_")[1] == clip.label for clip in table)
