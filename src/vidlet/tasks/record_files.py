"""Features of clips as YouTube-8M records: what an extractor says of a folder of clips, for others' readers and ours.

A feature is written in the format's bytes, codes 0..255 of -2..2 (datasets/frame_record.py), after an affine map of
each number of its own: value = (feature - mean) / (2 deviation), mean and deviation those of the training clips. Both
stand in ``scale.npz``, so that feature = value * 2 deviation + mean, to a 64th of a deviation or clipped at four.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Clip, ClipTable, Record, write_records
from ..datasets.frame_record import MAX_FRAMES, quantize
from ..datasets.record_table import CLASSES_NAME
from ..datasets.texts import TABLE_NAMES
from ..errors import DataError
from ..features import Extracted
from ..files import Lock, atomic_path, write_text
from ..labels import join_labels
from .prepare import extract_features, moments

SHARD_RECORDS = 256
SHARD_NAMES = {"train": "train", "val": "validate", "test": "test"}
DEVIATIONS = 4.0  # a value of 2, the largest that codes hold, is so many deviations from the mean
SCALE_NAME = "scale.npz"


def extract_records(
    data: str | Path,
    recipe: str | Path,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Write the features of all readable clips as shards of SequenceExamples, a split and 256 records each.

    Beside the shards: ``clips.csv`` (name, label, label_id, group, split), ``classes.txt``, ``scale.npz`` (mean and
    deviation of each number). The order of records is drawn once, the same for the same clips.

    Returns:
        as :func:`vidlet.extract`.

    Raises:
        DataError: ``out`` holds records already, or a file of them; another process writes there; no readable clip.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is not an empty folder; records are written into a new one")
    _held = Lock(folder).hold()
    table, found, metrics = extract_features(data, recipe, None, overrides, "float16", strict)
    mean, deviation = _scale(table, found)
    rows: dict[str, list[tuple[Clip, str]]] = defaultdict(list)
    for clip, key in zip(table, found.keys, strict=True):
        if key:
            rows[clip.split].append((clip, key))
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, name in SHARD_NAMES.items():
        own = [rows[split][i] for i in rng.permutation(len(rows[split]))]
        for number, begin in enumerate(range(0, len(own), SHARD_RECORDS)):
            records = _records(own[begin : begin + SHARD_RECORDS], table, found, mean, deviation)
            write_records(folder / f"{name}{number:04d}.tfrecord", records)
    with atomic_path(folder / SCALE_NAME) as draft, draft.open("wb") as sink:
        np.savez(sink, mean=mean, deviation=deviation, shape=np.array(found.store.shape))
    write_text(folder / CLASSES_NAME, "".join(f"{label}\n" for label in table.labels))
    write_text(folder / TABLE_NAMES[0], _table_text([clip for own in rows.values() for clip, _ in own], table))
    return {
        "out": str(folder),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "metrics": metrics,
        "skipped": [{"path": path, "error": error} for path, error in (*table.skipped, *found.failures)],
        "damaged": [{"path": path, "error": error} for path, error in found.damaged],
    }


def record_name(clip: Clip, root: Path) -> str:
    """The id of a clip's record: its path under the table's folder, and its interval where it has one."""
    path = clip.path.relative_to(root) if clip.path.is_relative_to(root) else clip.path
    if clip.start_s is None and clip.end_s is None:
        return path.as_posix()
    return f"{path.as_posix()}#{clip.start_s or 0:g}-{'' if clip.end_s is None else format(clip.end_s, 'g')}"


def _scale(table: ClipTable, found: Extracted) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (D,) of each number of a feature, over the frames of the training clips."""
    keys = [key for clip, key in zip(table, found.keys, strict=True) if key and clip.split == "train"]
    if not keys:
        raise DataError(f"{table.root}: no readable clip in split train")
    mean, deviation = moments(_flat(found, key)[:, :, None] for key in keys)
    return mean, np.maximum(deviation, 1e-6)


def _records(
    rows: list[tuple[Clip, str]], table: ClipTable, found: Extracted, mean: np.ndarray, deviation: np.ndarray
) -> Iterator[Record]:
    for clip, key in rows:
        labels = tuple(sorted(table.labels.index(label) for label in clip.labels))
        values = (_flat(found, key)[:MAX_FRAMES] - mean) / deviation * (2 / DEVIATIONS)
        yield Record(record_name(clip, table.root), labels, {"rgb": quantize(values)})


def _flat(found: Extracted, key: str) -> np.ndarray:
    """The stored features of a clip as float32 (T, D)."""
    features = found.store.read(key).features.astype(np.float32)
    return features.reshape(len(features), -1)


def _table_text(clips: list[Clip], table: ClipTable) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", "label", "label_id", "group", "split"])
    for clip in clips:
        numbers = "|".join(str(table.labels.index(label)) for label in clip.labels)
        writer.writerow([record_name(clip, table.root), join_labels(clip.labels), numbers, clip.group, clip.split])
    return stream.getvalue()
