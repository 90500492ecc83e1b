"""Features of clips written as records: others' readers and our own training read them."""

import csv
import json

import numpy as np
import pytest

from cli_case import one_object
from vidlet.datasets import dequantize, read_table, write_records
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError
from vidlet.features import clip_key
from vidlet.features.store import FeatureStore
from vidlet.tasks.clips import labelled_clips


@pytest.fixture
def extracted(run, motion_clips, tmp_path):
    """Records of the motion set, and the store that they were written from."""
    status, out, err = run(
        "extract", motion_clips, "--recipe", "tiny-grid-gru", "--format", "records", "--out", "records", "--json"
    )
    assert status == 0 and err.count("\n") == 2  # what is to be done, what was
    found = one_object(out)
    assert found["metrics"]["clips"] == 48
    [folder] = (tmp_path / "cache" / "features").iterdir()
    return tmp_path / "records", FeatureStore(folder.parent, json.loads((folder / "spec.json").read_text())), found


def test_records_hold_what_the_store_holds_to_a_64th_of_a_deviation(extracted, motion_clips, run, refused):
    folder, store, told = extracted
    assert told["files"].keys() == {path.name for path in folder.iterdir()}
    clips, records = labelled_clips(motion_clips), labelled_clips(folder, stored=True)
    assert records.labels == clips.labels
    scale = np.load(folder / "scale.npz")
    by_name = {clip.path.relative_to(folder).as_posix(): clip for clip in records}
    assert len(by_name) == len(clips) == 48
    for clip in clips:
        record = by_name[clip.path.relative_to(motion_clips).as_posix()]
        assert (record.labels, record.group, record.split) == (clip.labels, clip.group, clip.split)
        codes = records.records.read(record.row).features["rgb"]
        features = store.read(clip_key(clip)).features.astype(np.float32)
        features = features.reshape(len(features), -1)
        # 4/512 - 2 is a half step too high by design of the format
        values = (dequantize(codes) - 1 / 128) * 2 * scale["deviation"] + scale["mean"]
        kept = np.clip((features - scale["mean"]) / scale["deviation"], -4, 4)
        assert abs((values - scale["mean"]) / scale["deviation"] - kept).max() <= 1 / 63
    with (folder / "clips.csv").open(newline="") as stream:
        assert list(next(csv.DictReader(stream))) == ["name", "label", "label_id", "group", "split"]
    refused("extract", motion_clips, "--recipe", "tiny-grid-gru", "--format", "records", "--out", folder, said="empty")
    refused("extract", motion_clips, "--format", "records", said="--out")
    status, out, err = run(
        "train", folder, "--recipe", "records-mean", "--epochs", "1", "--set", "compress=[]", "--out", "run", "--json"
    )
    assert status == 0, err
    assert one_object(out)["files"]["model.onnx"] > 1000


def test_shards_are_held_out_at_random_and_the_rest_joins_training(tmp_path):
    render_residual(tmp_path, 60, 30, 10, seed=0, classes=4)
    table = read_table(tmp_path)
    [validate] = tmp_path.glob("validate*")
    records = [table.records.read(clip.row) for clip in table.of_split("val")]
    validate.unlink()
    for number in range(3):
        write_records(tmp_path / f"validate{number:04d}.tfrecord", records[number::3])
    held = labelled_clips(tmp_path, stored=True, val_shards=1)
    sizes = {split: len(held.of_split(split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 80, "val": 10, "test": 10}
    shards = {held.records.shard_of[clip.row] for clip in held.of_split("val")}
    assert len(shards) == 1 and "validate" in str(held.records.shards[shards.pop()])
    assert held.sha256() == labelled_clips(tmp_path, stored=True, val_shards=1).sha256()
    with pytest.raises(DataError, match="from 1 to 3"):
        labelled_clips(tmp_path, stored=True, val_shards=4)
    for path in tmp_path.glob("validate*"):
        path.unlink()
    with pytest.raises(DataError, match="from 1 to 0"):  # one shard cannot train and validate
        labelled_clips(tmp_path, stored=True, val_shards=1)


def test_clips_have_no_shards(motion_clips):
    with pytest.raises(DataError, match="no record shards"):
        labelled_clips(motion_clips, val_shards=1)
