"""Tables and lists as people and bad days write them; shards whose names say a split, or may."""

import gzip
import zlib

import numpy as np
import pytest

from vidlet.datasets import Record, read_records, read_table, write_records
from vidlet.datasets.record_table import shard_split
from vidlet.datasets.texts import numbered_names
from vidlet.errors import DataError
from vidlet.files import cache_folder, write_text

TABLE = "path,label,split\na.mp4,run,train\nb.mp4,jump,test\n"


def record(name, label=0):
    return Record(name, (label,), {"mean_rgb": np.ones(4, np.float32)})


@pytest.mark.parametrize(
    "data",
    [
        TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode("utf-8-sig"),
        TABLE.replace("\n", "\r").encode(),
        TABLE.encode("utf-16"),
        TABLE.encode("utf-16-le"),
        TABLE.encode("utf-16-be"),
        ("sep=;\r\n" + TABLE.replace(",", ";").replace("\n", "\r\n")).encode("utf-8-sig"),
        ("sep=\t\n" + TABLE.replace(",", "\t")).encode(),
        ('"sep=,"\n' + TABLE).encode(),
    ],
)
def test_a_table_is_read_however_it_was_saved(tmp_path, data):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "clips.csv").write_bytes(data)
    assert [(c.path.name, c.label, c.split) for c in read_table(tmp_path)] == [
        ("a.mp4", "run", "train"), ("b.mp4", "jump", "test")
    ]  # fmt: skip


def test_a_label_with_controls_is_shown_with_escapes(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "clips.csv").write_text('path,label\na.mp4,"a\nwarning: fake \x1b[31m"\n')
    assert read_table(tmp_path).labels == ("a warning: fake \\x1b[31m",)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train0000.tfrecord", "train"), ("train0a.tfrecord", "train"), ("trainaB.tfrecord", "train"),
        ("validatea3.tfrecord", "val"), ("validate00.tfrecord", "val"), ("validateXY.tfrecord.gz", "val"),
        ("testzZ.tfrecord", "test"), ("train-00001-of-03844.tfrecord", "train"), ("yt8m_validation_3.tfrecord", "val"),
        ("video_level-test12.tfrecord", "test"), ("Val.tfrecord", "val"),
        ("trainval.tfrecord", ""), ("part7.tfrecord", ""),
    ],
)  # fmt: skip
def test_the_split_that_a_shards_name_says(tmp_path, name, split):
    assert shard_split(tmp_path / name) == split


@pytest.mark.parametrize(
    "name", ["validateabc.tfrecord", "testset.tfrecord", "train_test.tfrecord", "validator3.tfrecord", "eval.tfrecord"]
)
def test_a_name_that_may_mean_test_is_refused(tmp_path, name):
    write_records(tmp_path / name, [record("a"), record("b", 1)])
    with pytest.raises(DataError, match="does its name mean train, validate or test"):
        read_table(tmp_path)
    (tmp_path / "clips.csv").write_text("name,label,split\na,0,train\nb,1,test\n")
    assert [clip.split for clip in read_table(tmp_path)] == ["train", "test"]


def test_shards_that_say_no_split_are_told(tmp_path):
    write_records(tmp_path / "train0000.tfrecord", [record("a"), record("b", 1)])
    write_records(tmp_path / "part7.tfrecord", [record("c"), record("d", 1)])
    notes = read_table(tmp_path).notes
    assert "1 of 2 shards have names that say no split (first: part7.tfrecord)." in notes


def test_an_empty_line_of_classes_moves_no_class(tmp_path):
    write_records(tmp_path / "train0000.tfrecord", [record(str(i), i) for i in range(4)])
    (tmp_path / "classes.txt").write_text("a\n\nc\nd\n\n")
    table = read_table(tmp_path)
    assert [clip.label for clip in table] == ["a", "1", "c", "d"]
    assert any("line 2 is empty" in note for note in table.notes)


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
def test_packed_shards_are_read_whatever_they_are_called(tmp_path, pack):
    plain = tmp_path / "plain"
    write_records(plain, [record("a"), record("b", 1)])
    (tmp_path / "train0.tfrecord").write_bytes(pack(plain.read_bytes()))
    assert [found.id for found in read_records(tmp_path / "train0.tfrecord")] == ["a", "b"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", b"\xe9\nb\n"),
        ("vocabulary.csv", b"Index,Name\n0,\xe9\n1,b\n"),
        ("vocabulary.csv", b"Index,Name\n0,a\n99999999999,c\n"),
        ("vocabulary.csv", b"Index,Name\n0,a\n" + b"9" * 5000 + b",c\n"),
        ("vocabulary.csv", b"Index,Name\n0," + b"a" * 200_000 + b"\n"),
        ("vocabulary.csv", b"Index,Name\n0,a\n5,b\n"),
        ("clips.csv", b"name,label\na,\xe9\n"),
        ("clips.csv", b'name,label\na,"b'),
    ],
)
def test_a_damaged_list_beside_shards_is_one_line_that_names_it(tmp_path, file, content):
    write_records(tmp_path / "train0000.tfrecord", [record("a"), record("b", 1)])
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=file) as caught:
        read_table(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_label_beyond_every_vocabulary_is_skipped_before_names_are_made(tmp_path):
    write_records(tmp_path / "train0000.tfrecord", [record("a"), record("b", 1), record("c", 2**62)])
    table = read_table(tmp_path)
    assert table.labels == ("0", "1")
    assert len(table.skipped) == 1


def test_no_byte_of_an_npz_file_ends_in_a_traceback(tmp_path):
    path = tmp_path / "features.npz"
    np.savez_compressed(path, rgb=np.arange(48, dtype=np.uint8).reshape(4, 3, 4), audio=np.ones((4, 3, 2), np.uint8))
    (tmp_path / "clips.csv").write_text("path,label\na,x\nb,y\nc,x\nd,y\n")
    assert read_table(tmp_path).records.read(1).features["rgb"].shape == (3, 4)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(changed), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            read_table(tmp_path).records.read(1)
        except DataError as error:
            assert "features.npz" in str(error)


def test_a_home_that_nobody_has_is_no_error(monkeypatch):
    for name in ("HOME", "VIDLET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder("a").name == "a"


def test_names_that_are_not_text_are_written_with_escapes(tmp_path):
    write_text(tmp_path / "a.csv", "ge\udcf6ffnet,é\n")
    assert (tmp_path / "a.csv").read_text("utf-8") == "ge\\udcf6ffnet,é\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 cat\n1 dog\n", ("cat", "dog")),
        ("1: dog\n0: cat\n", ("cat", "dog")),
        ("2,cat\n1,dog\n", ("dog", "cat")),
        ("1 cat\n3 dog\n", ("1 cat", "3 dog")),
        ("101 dalmatians\n", ("101 dalmatians",)),
    ],
)
def test_numbers_of_a_list_of_names_are_their_order(tmp_path, text, names):
    (tmp_path / "classes.txt").write_text(text)
    assert numbered_names(tmp_path / "classes.txt").names == names


@pytest.mark.parametrize("text", ["# my classes\ncat\n", '["cat", "dog"]\n', 'item {\n  name: "cat"\n}\n'])
def test_what_is_no_list_of_names_is_refused(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt line 1: .* is no name of a class"):
        numbered_names(tmp_path / "classes.txt")


def test_shards_are_found_as_tensorflow_numbers_them(tmp_path):
    for name in ("train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002", "dev.tfrecords-00000-of-00001"):
        write_records(tmp_path / "x.tfrecord", [record(name)])
        (tmp_path / "x.tfrecord").rename(tmp_path / name)
    assert [clip.split for clip in read_table(tmp_path)] == ["val", "train", "train"]


def test_features_of_nothing_are_refused(tmp_path):
    (tmp_path / "clips.csv").write_text("name,label\na,x\nb,y\n")
    np.savez(tmp_path / "features.npz", rgb=np.zeros((2, 0, 16), np.uint8))
    with pytest.raises(DataError, match="there is nothing in it"):
        read_table(tmp_path)
