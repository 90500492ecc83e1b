"""Data as people have them -> one clip table: a folder with clips.csv, a .csv, or a folder per class."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError
from .csv_table import read_csv
from .folders import read_folders
from .table import ClipTable

TABLE_NAME = "clips.csv"


def read_table(path: str | os.PathLike[str], strict: bool = False) -> ClipTable:
    """Read what is labelled how; no clip is opened.

    ``path`` is a folder with clips.csv (beside features.npz: stored features), a .csv file anywhere, or a folder of
    class folders (perhaps below train, val and test) that hold video files or folders of frame images. What is listed
    and cannot be used is kept in ``table.skipped``; with ``strict`` it is an error.

    Raises:
        DataError: nothing is there, nothing is labelled, or the table contradicts itself; names the file and row.
    """
    where = Path(path)
    if not where.exists():
        raise DataError(f"{where}: no such folder or table")
    if where.is_dir():
        listed = where / TABLE_NAME
        table = read_csv(listed) if listed.is_file() else read_folders(where)
    elif where.suffix.lower() in (".csv", ".tsv", ".txt"):
        table = read_csv(where)
    else:
        raise DataError(f"{where}: labelled data are a folder or a .csv table, not a {where.suffix or 'plain'} file")
    if table.skipped and strict:
        raise DataError(skipped_line(table))
    if not table.clips:
        raise DataError(skipped_line(table) if table.skipped else f"{where}: no labelled clip")
    return table


def skipped_line(table: ClipTable, shown: int = 3) -> str:
    """One line that counts and names what a table lists and cannot use."""
    first = "; ".join(f"{path}: {why}" for path, why in table.skipped[:shown])
    more = f"; and {len(table.skipped) - shown} more" if len(table.skipped) > shown else ""
    return (
        f"{table.root}: {len(table.skipped)} of {len(table.skipped) + len(table)} clips cannot be used ({first}{more})"
    )
