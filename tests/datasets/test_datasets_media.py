"""One rule of names for everything that walks folders or looks a name up."""

import unicodedata

import pytest
from PIL import Image

from vidlet.datasets import clips_below, read_table
from vidlet.errors import DataError
from vidlet.tasks.predictions import find_sources
from vidlet.video import is_live

CAFE, CAFE_APART = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def frames(path, suffix=".png"):
    path.mkdir(parents=True)
    for k in range(3):
        Image.new("RGB", (8, 8)).save(path / f"{k}{suffix}")


def test_predict_walks_folders_as_data_does(tmp_path):
    real = tmp_path / "real"
    touch(
        real, "a/x.mp4", "a/._x.mp4", "a/.hidden.mp4", "a/y.H264", "b/.trash/z.mp4", "__MACOSX/a/x.mp4", "b/notes.txt"
    )
    frames(real / "b" / "bitmaps", ".bmp")
    frames(real / "b" / "webp", ".webp")
    (real / "b" / "circle").symlink_to(real)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("a", "b"):
        (linked / name).symlink_to(real / name)
    names = ["a/x.mp4", "a/y.H264", "b/bitmaps", "b/webp"]
    for root in (real, linked):
        assert [p.relative_to(root).as_posix() for p in find_sources(root) if "circle" not in p.parts] == names
        data = {clip.path.relative_to(root).as_posix() for clip in read_table(root) if "circle" not in clip.path.parts}
        assert data == set(names)
    assert find_sources(real / "b" / "webp") == [real / "b" / "webp"]


def test_a_folder_without_clips_is_refused(tmp_path):
    touch(tmp_path, "a.txt")
    assert list(clips_below(tmp_path)) == []
    with pytest.raises(DataError, match="no video files"):
        find_sources(tmp_path)


@pytest.mark.parametrize("row", ["vid/UP", "vid/UP.mp4", "vid/UP.MP4", "vid\\UP"])
def test_the_case_of_a_suffix_is_forgiven(tmp_path, row):
    touch(tmp_path, "vid/UP.MP4", "vid/c.mp4")
    (tmp_path / "clips.csv").write_text(f"path,label\n{row},a\nvid/c.mp4,b\n")
    table = read_table(tmp_path)
    assert [clip.path.name for clip in table] == ["UP.MP4", "c.mp4"]
    assert table.skipped == ()


def test_two_files_that_differ_in_the_case_of_their_suffix_stay_two(tmp_path):
    touch(tmp_path, "a.MP4", "a.mp4")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system tells no cases apart")
    (tmp_path / "clips.csv").write_text("path,label\na.mp4,x\na.MP4,y\n")
    assert [clip.path.name for clip in read_table(tmp_path)] == ["a.mp4", "a.MP4"]


@pytest.mark.parametrize(("written", "stored"), [(CAFE, CAFE_APART), (CAFE_APART, CAFE)])
def test_names_are_found_in_any_unicode_form_and_labels_are_one_class(tmp_path, written, stored):
    touch(tmp_path, f"{stored}/{stored}.mp4", "c.mp4", "d.mp4")
    (tmp_path / "clips.csv").write_text(f"path,label\n{written}/{written}.mp4,{written}\nc.mp4,{stored}\nd.mp4,x\n")
    table = read_table(tmp_path)
    assert table.labels == (CAFE, "x")
    assert [clip.label for clip in table] == [CAFE, CAFE, "x"]
    assert all(clip.path.is_file() for clip in table)
    assert "another Unicode form" in table.notes[0]
    assert table.notes[1] == f"Class {CAFE!r} stands in 2 Unicode forms that look the same; they are one class."


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path):
    touch(tmp_path, f"{CAFE}/1.mp4", f"{CAFE_APART}/2.mp4", "x/3.mp4")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system tells no forms apart")
    assert read_table(tmp_path).labels == (CAFE, "x")


def test_raw_streams_are_videos_of_class_folders_and_tables(tmp_path):
    touch(tmp_path, "a/1.h264", "a/2.HEVC", "b/1.264", "b/2.m2v")
    assert len(read_table(tmp_path)) == 4
    (tmp_path / "clips.csv").write_text("path,label\na/1,x\nb/1.264,y\n")
    assert [clip.path.name for clip in read_table(tmp_path)] == ["1.h264", "1.264"]


def test_what_exists_is_no_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_live("34870")
    frames(tmp_path / "34870")
    assert not is_live("34870")
    assert is_live("0")
    assert is_live("/dev/video0")
    assert not is_live("file:///tmp/x.mp4")
    assert is_live("rtsp://127.0.0.1/x")


def test_what_systems_put_beside_files_is_no_class_and_no_clip(tmp_path):
    for label in ("a", "b"):
        for folder in (label, f"{label}/@eaDir", "$RECYCLE.BIN", "System Volume Information", "#recycle", "lost+found"):
            touch(tmp_path, f"{folder}/{label}.mp4")
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.mp4", "Icon\r"):
            (tmp_path / label / name).write_bytes(b"x")
    table = read_table(tmp_path)
    assert [(found.path.name, found.label) for found in table] == [("a.mp4", "a"), ("b.mp4", "b")]
    assert (table.notes, table.skipped) == ((), ())


def test_the_folder_of_an_archive_is_looked_into_and_told(tmp_path):
    for split, label in (("training_set", "a"), ("training_set", "b"), ("test_set", "a")):
        touch(tmp_path, f"archive/data/{split}/{label}/x.mp4")
    (tmp_path / "README.txt").write_text("x")
    table = read_table(tmp_path)
    assert [(found.label, found.split) for found in table] == [("a", "train"), ("b", "train"), ("a", "test")]
    assert table.notes == ("Everything lies in archive/data, which is read.",)


@pytest.mark.parametrize(("name", "split"), [("dev", "val"), ("eval", None), ("Holdout", None)])
def test_a_folder_beside_train_that_may_mean_test_is_refused(tmp_path, name, split):
    for folder in ("train", name):
        for label in ("a", "b"):
            touch(tmp_path, f"{folder}/{label}/x.mp4")
    if split is None:
        with pytest.raises(DataError, match=f"does '{name}' beside 'train' mean val or test"):
            read_table(tmp_path)
    else:
        assert [found.split for found in read_table(tmp_path)] == ["train", "train", split, split]


def test_the_table_is_found_in_any_case_and_behind_empty_lines(tmp_path):
    touch(tmp_path, "x/1.mp4")
    touch(tmp_path, "x/2.mp4")
    (tmp_path / "Clips.CSV").write_text("\n\npath;label;\nx/1.mp4;run\u200b;\nx/2.mp4;\u00adrun;\n", encoding="utf-8")
    table = read_table(tmp_path)
    assert (table.labels, len(table)) == (("run",), 2)  # what nobody sees tells no two classes apart
    (tmp_path / "Clips.CSV").write_text("\n\npath;label;start_s\nx/1.mp4;run;-1\n")
    with pytest.raises(DataError, match="line 4"):
        read_table(tmp_path)
