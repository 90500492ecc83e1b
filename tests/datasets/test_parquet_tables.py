"""Whatever reads a table of text reads the same table as Parquet."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from video_level import draw_video_level
from vidlet.datasets import read_boxes, read_table
from vidlet.datasets.boxes import box_kind
from vidlet.datasets.frame_record import Record
from vidlet.datasets.record_table import read_record_table
from vidlet.datasets.records import write_records
from vidlet.datasets.texts import stream_rows, table_rows
from vidlet.errors import DataError
from vidlet.tasks import task_of_data

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def as_parquet(path: Path, **types) -> Path:
    """The same table as Parquet, in place of the text; ``types`` are those of columns that are no strings."""
    (_, names), *rows = table_rows(path)[0]
    cells = {name: [row[at] or None for _, row in rows] for at, name in enumerate(names)}
    columns = {
        name: pyarrow.array([None if v is None else types.get(name, str)(v) for v in column])
        for name, column in cells.items()
    }
    path.unlink()
    parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"), row_group_size=2)
    return path.with_suffix(".parquet")


TEXT = (
    "path,label,group,split,start_s,end_s,remark\n"
    "a.mp4,run|jump,anna,train,0.5,2,x\nb.mp4,jump,,validate,,,\nnone.mp4,run,,,,,\nb.mp4,,,,,,\n"
)


@pytest.mark.parametrize("name", ["clips.csv", "day.csv"])
def test_a_table_of_clips_says_the_same_as_parquet(tmp_path, name):
    for video in ("a.mp4", "b.mp4"):
        (tmp_path / video).write_bytes(b"")
    (tmp_path / name).write_text(TEXT)
    written = read_table(tmp_path / name)
    typed = as_parquet(tmp_path / name, start_s=float, end_s=float)
    for data in (typed, tmp_path) if name == "clips.csv" else (typed,):
        found = read_table(data)
        assert (found.clips, found.labels) == (written.clips, written.labels)
        assert [path for path, _ in found.skipped] == ["none.mp4", "b.mp4"]
        assert found.sha256() == written.sha256()
        assert task_of_data(data).name == "clips"


def test_a_list_in_a_cell_names_several_labels(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    rows = pyarrow.table({"path": ["a.mp4", "a"], "label": [["run", "jump"], ["sit"]], "start_s": [0, 4]})
    parquet.write_table(rows, tmp_path / "clips.parquet")
    assert [clip.labels for clip in read_table(tmp_path)] == [("run", "jump"), ("sit",)]


def test_a_table_beside_stored_features_may_be_parquet(tmp_path):
    draw_video_level(tmp_path, {"train": 5, "val": 2})
    written = read_table(tmp_path)
    typed = as_parquet(tmp_path / "clips.csv")
    for data in (tmp_path, typed):
        found = read_table(data)
        assert found.clips == written.clips
        assert found.records is not None and found.records.labels == written.records.labels
        assert task_of_data(data).name == "records"


def test_a_table_beside_shards_of_records_may_be_parquet(tmp_path):
    shard = tmp_path / "train0000.tfrecord"
    write_records(shard, [Record(n, (min(i, 1),), {"rgb": np.zeros((2, 4), np.uint8)}) for i, n in enumerate("abc")])
    (tmp_path / "clips.csv").write_text("name,label,label_id,group,split\na,run,0,x,test\nb,sit,1,y,train\n")
    written, _ = read_record_table(tmp_path)
    as_parquet(tmp_path / "clips.csv")
    found, _ = read_record_table(tmp_path)
    assert (found.clips, found.labels) == (written.clips, written.labels)
    assert found.labels == ("run", "sit")
    assert [why for _, why in found.skipped] == ["is not in clips.parquet"]


def test_a_table_of_boxes_says_the_same_as_parquet(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    table = tmp_path / "boxes.csv"
    table.write_text(
        "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,1,30,40\nb.jpg,dog,5,6,20,21\nb.jpg,cat,2,2,9,9\n"
    )
    written = read_boxes(tmp_path)
    typed = as_parquet(table, xmin=int, ymin=int, xmax=int, ymax=int)
    for data in (tmp_path, typed):
        assert box_kind(data) == "csv"
        assert (read_boxes(data).images, read_boxes(data).labels) == (written.images, written.labels)


def test_rows_come_a_few_at_a_time_and_damage_is_one_line(tmp_path):
    path = tmp_path / "clips.parquet"
    count = 50_000
    parquet.write_table(pyarrow.table({"path": [f"{i}.mp4" for i in range(count)], "label": ["x"] * count}), path)
    rows, _ = stream_rows(path, ("path", "label"))
    assert next(rows) == (0, ["path", "label"])
    assert sum(1 for _ in rows) == count
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a Parquet file") as error:
        read_table(tmp_path)
    assert "\n" not in str(error.value)
    parquet.write_table(pyarrow.table({"video": ["a"], "size": [3]}), path)
    with pytest.raises(DataError, match=r"needs a column 'label' \(columns found: video, size\)"):
        read_table(tmp_path)


def test_what_a_table_of_text_tells_of_its_columns_is_told_of_parquet_too(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    text = "path,label,subject,when,start,end\na.mp4,x,1,then,0.1,1.7\nb.mp4,y,2,,,\nc.mp4,x,3,,,\n , ,,,,\n"
    (tmp_path / "day.csv").write_text(text)
    written = read_table(tmp_path / "day.csv")
    typed = as_parquet(tmp_path / "day.csv", start=np.float32, end=np.float32)
    found = read_table(typed)
    assert (found.clips, found.skipped) == (written.clips, written.skipped) and found.clips[0].end_s == 1.7
    assert [note.replace("parquet", "csv") for note in found.notes] == list(written.notes)
    assert "when" in found.notes[-1] and "subject" in " ".join(found.notes[:-1])


def test_columns_that_are_not_read_spoil_no_table(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    whole = ["a.mp4"], ["x"]
    unread = pyarrow.array([1_500_000_001], pyarrow.timestamp("ns", tz="Europe/Nowhere")), ["y"], ["z"]
    times = [pyarrow.array([n], pyarrow.duration("ns")) for n in (1_500_000_001, 3_000_000_000)]
    columns = [pyarrow.array(column) if isinstance(column, list) else column for column in (*whole, *unread, *times)]
    names = ["path", "label", "when", "u", "u", "start", "end"]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names), tmp_path / "clips.parquet")
    [clip] = read_table(tmp_path)
    assert (clip.labels, clip.start_s, clip.end_s) == (("x",), 1.5, 3.0)
