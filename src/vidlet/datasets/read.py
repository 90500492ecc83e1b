"""Data as people have them -> one clip table: clips.csv, a .csv, a folder per class, official lists, or records."""

from __future__ import annotations

import os
from pathlib import Path

from .. import plugins
from ..errors import DataError
from .array_records import with_array_records
from .csv_table import FEATURES_NAME, read_csv
from .folders import read_folders
from .known import read_known
from .record_table import read_record_table
from .records import SHARD_SUFFIXES
from .table import ClipTable
from .ucf import with_ucf_groups

TABLE_NAME = "clips.csv"


def read_table(path: str | os.PathLike[str], strict: bool = False, classes: int | None = None) -> ClipTable:
    """Read what is labelled how; no clip is opened, but every record is checked.

    ``path`` is a folder with clips.csv (beside features.npz: stored features), a .csv file anywhere, a folder of
    class folders (perhaps below train, val and test) that hold video files or folders of frame images, or shards of
    records: a folder, a glob or a file of .tfrecord(.gz); or the lists of a data set that known.py knows; or what a
    reader from outside takes (plugins.py). What is listed and cannot be used is kept in ``table.skipped``; with
    ``strict`` it is an error.

    Args:
        classes: size of the vocabulary of records, where no file beside the shards says it.

    Raises:
        DataError: nothing is there, nothing is labelled, or the table contradicts itself; names the file and row.
    """
    where = Path(path)
    if is_records(where):
        return read_record_table(where, classes, strict)[0]
    if not where.exists():
        raise DataError(f"{where}: no such folder or table")
    if (added := _by_plugins(where)) is not None:
        table = added
    elif where.is_dir() and (where / TABLE_NAME).is_file():
        table = _with_records(read_csv(where / TABLE_NAME))
    elif (known := read_known(where)) is not None:
        table = known
    elif where.is_dir():
        table = with_ucf_groups(read_folders(where))
    elif where.suffix.lower() in (".csv", ".tsv", ".txt"):
        table = _with_records(read_csv(where))
    else:
        raise DataError(f"{where}: labelled data are a folder or a .csv table, not a {where.suffix or 'plain'} file")
    if table.skipped and strict:
        raise DataError(skipped_line(table))
    if not table.clips:
        raise DataError(skipped_line(table) if table.skipped else f"{where}: no labelled clip")
    return table


def _by_plugins(where: Path) -> ClipTable | None:
    """The table of the first reader from outside that knows this layout."""
    readers = (plugins.find("data", name) for name in plugins.names("data"))
    tables = (reader(where) for reader in readers if reader is not None)
    return next((table for table in tables if table is not None), None)


def is_records(where: Path) -> bool:
    """Whether a path means shards of records: one of them, a glob, or a folder of them without features.npz."""
    if where.is_dir():
        stored = (where / FEATURES_NAME).is_file()
        return not stored and any(found.name.endswith(SHARD_SUFFIXES) for found in where.iterdir())
    return where.name.endswith(SHARD_SUFFIXES) or (not where.exists() and any(mark in where.name for mark in "*?["))


def stores_features(path: str | os.PathLike[str]) -> bool:
    """Whether a path means stored features, as records or arrays, and no videos."""
    where = Path(path)
    if is_records(where):
        return True
    table = where / TABLE_NAME if where.is_dir() else where
    return table.is_file() and (table.parent / FEATURES_NAME).is_file()


def _with_records(table: ClipTable) -> ClipTable:
    return table if table.features is None else with_array_records(table)


def skipped_line(table: ClipTable, shown: int = 3) -> str:
    """One line that counts and names what a table lists and cannot use."""
    first = "; ".join(f"{path}: {why}" for path, why in table.skipped[:shown])
    more = f"; and {len(table.skipped) - shown} more" if len(table.skipped) > shown else ""
    return (
        f"{table.root}: {len(table.skipped)} of {len(table.skipped) + len(table)} clips cannot be used ({first}{more})"
    )
