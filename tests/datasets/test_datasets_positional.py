"""Lists without a header: a clip a line and its class behind it."""

import pytest

from vidlet.datasets import read_table
from vidlet.errors import DataError


def videos(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a video, which nothing here decodes")


def told(table):
    return [(clip.path.relative_to(table.root).as_posix(), *clip.labels, clip.split) for clip in table]


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", "   ", ", "])
def test_lists_by_split_are_read_with_the_names_beside_them(separator, tmp_path):
    videos(tmp_path, "v/a.mp4", "v/b c.mp4", "v/d.MP4")
    (tmp_path / "k_train_list.txt").write_text(f"v/a.mp4{separator}1\nv/b c.mp4{separator}0\n")
    (tmp_path / "k_val_list.txt").write_text(f"d{separator}1\n\n")
    (tmp_path / "classes.txt").write_text("jump\nrun fast\n")
    wanted = [("v/a.mp4", "run fast", "train"), ("v/b c.mp4", "jump", "train"), ("v/d.MP4", "run fast", "val")]
    assert told(read_table(tmp_path)) == wanted
    assert told(read_table(tmp_path / "k_val_list.txt")) == wanted
    assert "Read by the lists k_train_list.txt, k_val_list.txt." in read_table(tmp_path).notes


def test_a_count_of_frames_behind_a_folder_is_no_class_and_the_first_set_of_lists_is_taken(tmp_path):
    for name in ("Run/v_1", "Run/v_2", "Jump/v_1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0001.jpg").touch()
    (tmp_path / "train_split_1.txt").write_text("Run/v_1 120 1\nJump/v_1 80 0\n")
    (tmp_path / "test_split_1.txt").write_text("Run/v_2 99 1\n")
    (tmp_path / "train_split_2.txt").write_text("Run/v_2 99 1\nJump/v_1 80 0\n")
    first = [("Run/v_1", "Run", "train"), ("Jump/v_1", "Jump", "train"), ("Run/v_2", "Run", "test")]
    assert sorted(told(read_table(tmp_path))) == sorted(first)  # called by their folders
    assert len(read_table(tmp_path / "train_split_2.txt")) == 2


def test_one_list_of_words_needs_its_name_and_no_split(tmp_path):
    videos(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "labels.txt").write_text("a.mp4\tswing left\nb.mp4\twave\n")
    assert told(read_table(tmp_path / "labels.txt")) == [("a.mp4", "swing left", ""), ("b.mp4", "wave", "")]
    with pytest.raises(DataError, match="2 videos without a label"):
        read_table(tmp_path)


def test_a_table_with_a_header_is_no_such_list_whatever_its_columns_are_called(tmp_path):
    videos(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "train.csv").write_text("filename,class\na.mp4,x\nb.mp4,y\n")
    assert told(read_table(tmp_path / "train.csv")) == [("a.mp4", "x", ""), ("b.mp4", "y", "")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.mp4 3 5", "line 3: 'a.mp4 3 5' has more than one number behind its name"),
        ("a.mp4", "line 3: 'a.mp4' is no name with its class behind it"),
        ("a.mp4 7", "has 2 classes, and train.txt tells of number 7"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line, said, tmp_path):
    videos(tmp_path, "a.mp4")
    (tmp_path / "classes.txt").write_text("x\ny\n")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 1\n" + line + "\n" * 30)
    if line == "a.mp4":  # what is no such list from the beginning is not read as one
        (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 1\n" + "\n" * 30 + line)
        said = said.replace("3:", "33:")
    with pytest.raises(DataError, match=said):
        read_table(tmp_path)


def test_a_hostile_line_is_no_list_and_takes_no_time(tmp_path):
    videos(tmp_path, "x/a.mp4", "y/b.mp4")
    (tmp_path / "train.txt").write_text(".mp4 " * 100_000 + ",\n")
    assert read_table(tmp_path).labels == ("x", "y")
