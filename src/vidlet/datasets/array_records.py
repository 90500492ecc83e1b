"""Stored features of one array, as records: features.npz beside clips.csv, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, reading
from .csv_table import FEATURES_NAME, csv_rows, feature_rows, feature_shape
from .frame_record import FRAME_KEYS, Record
from .record_table import class_names
from .table import ClipTable
from .texts import MOST_CLASSES


class ArrayRecords:
    """Row i of the arrays ``rgb`` and, where there is one, ``audio``, uint8 (N, T, D), as record i.

    Arrays (N, D) are of one vector a record, which counts as its only frame: means over a video. The arrays are read
    when the first record is asked for, and stay in memory.
    """

    def __init__(self, path: Path, ids: list[str], labels: list[tuple[int, ...]]) -> None:
        self.path, self.ids, self.labels = path, ids, labels
        rows, frames, width = _records_shape(path, FRAME_KEYS[0])
        self.frames = [frames] * rows
        self._widths = {"rgb": width}
        with reading(path, "a readable .npz file"), np.load(path, allow_pickle=False) as stored:
            others = [key for key in FRAME_KEYS[1:] if key in stored.files]
        for key in others:
            shape = _records_shape(path, key)
            if shape[:2] != (rows, frames):
                raise DataError(f"{path}: {key} has the shape {shape}, rgb {(rows, frames, width)}")
            self._widths[key] = shape[2]
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    @property
    def widths(self) -> Mapping[str, int]:
        """Numbers a frame of each modality."""
        return self._widths

    def where(self, index: int) -> str:
        """File and name of a record, for messages."""
        return f"{self.path} row {index} ({self.ids[index]})"

    def read(self, index: int) -> Record:
        """The record of a row.

        Raises:
            DataError: the arrays are no bytes.
        """
        if not self._arrays:
            self._load()
        return Record(self.ids[index], self.labels[index], {key: own[index] for key, own in self._arrays.items()})

    def _load(self) -> None:
        with reading(self.path, "a readable .npz file"), np.load(self.path, allow_pickle=False) as stored:
            for key in self._widths:
                array = stored[key]
                if array.dtype != np.uint8:
                    raise DataError(f"{self.path}: {key} is {array.dtype}; stored features are uint8 (docs/data.md)")
                self._arrays[key] = array if array.ndim == 3 else array[:, None]


def _records_shape(path: Path, key: str) -> tuple[int, int, int]:
    """(records, frames, numbers) of an array of stored features.

    Raises:
        DataError: an array of another form.
    """
    shape = feature_shape(path, key)
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    if len(shape) != 3:
        raise DataError(f"{path}: {key} has the shape {shape}; records are (records, frames, numbers)")
    return shape[0], shape[1], shape[2]


def with_array_records(table: ClipTable) -> ClipTable:
    """A table of features.npz with its records; classes in the order of their numbers where a file says them."""
    path = table.features
    assert path is not None
    table = _in_class_order(table)
    index = {name: i for i, name in enumerate(table.labels)}
    rows = feature_shape(path)[0]
    ids, labels = [""] * rows, [()] * rows  # type: tuple[list[str], list[tuple[int, ...]]]
    for clip in table:
        assert clip.row is not None
        ids[clip.row] = clip.path.name
        labels[clip.row] = tuple(index[name] for name in clip.labels)
    return replace(table, records=ArrayRecords(path, ids, labels))


def every_array_record(table: Path) -> ArrayRecords:
    """All rows of features.npz beside a table, with a label there or without; labels are not read.

    Raises:
        DataError: as ``read_csv``, but of labels.
    """
    lines, path = csv_rows(table, labelled=False), table.parent / FEATURES_NAME
    ids = [""] * len(lines)
    for place, (_, row) in zip(feature_rows(lines, path, table), lines, strict=True):
        ids[place] = row["path"]
    return ArrayRecords(path, ids, [()] * len(lines))


def _in_class_order(table: ClipTable) -> ClipTable:
    """The table with its classes in the order of their numbers, in the names that a file beside it gives them.

    Raises:
        DataError: a class number that the names do not reach.
    """
    named = class_names(table.root)
    if set(named) == set(table.labels):
        return replace(table, labels=named)
    if not all(label.isdecimal() for label in table.labels):
        return table
    highest = max(map(int, table.labels))
    if not named:
        several = table.multi_label and highest < MOST_CLASSES
        return replace(table, labels=tuple(map(str, range(highest + 1)))) if several else table
    if highest >= len(named):
        raise DataError(f"{table.root}: class {highest}, of {len(named)} that have names beside it")
    clips = (replace(clip, labels=tuple(named[int(label)] for label in clip.labels)) for clip in table)
    return replace(table, clips=tuple(clips), labels=named)
