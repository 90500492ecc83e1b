"""Data as people have them -> one clip table: a .csv or .parquet, a folder per class, official lists, or records."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from .. import plugins
from ..errors import DataError
from ..labels import composed, label_order
from .array_records import with_array_records
from .csv_table import FEATURES_NAME, is_clip_table, read_csv
from .exports import EXPORTS, read_export
from .folders import read_folders
from .known import read_known
from .media import visible
from .positional import positional_lists, read_positional
from .record_table import read_record_table
from .records import is_shard
from .segments import in_stretches
from .table import ClipTable, split_in_name
from .texts import SPREADSHEETS, TABLE_NAMES, TABLES
from .ucf import with_ucf_groups


def read_table(path: str | os.PathLike[str], strict: bool = False, classes: int | None = None) -> ClipTable:
    """Read what is labelled how; no clip is opened, but every record is checked.

    ``path`` is a folder with clips.csv or clips.parquet (beside features.npz: stored features), a .csv or .parquet
    file anywhere, a folder of class folders (perhaps below train, val and test) that hold video files or folders of
    frame images, or shards of records: a folder, a glob or a file of .tfrecord(.gz); or the lists of a data set that
    known.py knows; or what a tool of exports.py wrote; or what a reader from outside takes (plugins.py). What is listed
    and cannot be used is kept in ``table.skipped``; with ``strict`` it is an error.

    Args:
        classes: size of the vocabulary of records, where no file beside the shards says it.

    Raises:
        DataError: nothing is there, nothing is labelled, or the table contradicts itself; names the file and row.
    """
    where = Path(path)
    if is_records(where):
        return read_record_table(where, classes, strict)[0]
    table = in_stretches(with_composed_names(_read(where)))
    if isinstance(path, AtRate):
        table = _at_rate(table, path.fps)
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


def _read(where: Path) -> ClipTable:
    if not where.exists():
        raise DataError(f"{where}: no such folder or table")
    if (added := _by_plugins(where)) is not None:
        return added
    if (table := table_in(where)) is not None:
        return _with_records(read_csv(table))
    if (known := read_known(where)) is not None:
        return known
    if (exported := read_export(where)) is not None:
        return _with_records(exported)
    if lists := positional_lists(where):
        return with_ucf_groups(read_positional(lists, where if where.is_dir() else where.parent))
    if where.is_dir():
        return _tables_of(where) or with_ucf_groups(read_folders(where))
    if where.suffix.lower() in TABLES:
        return _alone(_with_records(read_csv(where)), where)
    if where.suffix.lower() == ".zip":
        raise DataError(f"{where}: unpack it first, and name the folder or the export in it")
    if where.suffix.lower() in SPREADSHEETS:
        raise DataError(f"{where}: a spreadsheet; save its sheet as CSV (UTF-8), and name that")
    tools = f"{', '.join(list(EXPORTS)[:-1])} or {list(EXPORTS)[-1]}"
    raise DataError(
        f"{where}: labelled data are a folder, a .csv table or an export of {tools}, not "
        f"{'such a' if where.suffix.lower() in ('.json', '.xml') else 'a'} {where.suffix or 'plain'} file"
    )


FOUND = tuple(ending for ending in TABLES if ending != ".txt")  # a text is more likely a list


def _clip_tables(folder: Path) -> list[Path]:
    return [entry for entry in visible(folder) if entry.suffix.lower() in FOUND and is_clip_table(entry)]


def _alone(table: ClipTable, path: Path) -> ClipTable:
    """The table of one file, with a note where its name says a split and others of its kind lie beside it."""
    others = [other.name for other in _clip_tables(path.parent) if split_in_name(other.stem) and other != path]
    if not split_in_name(path.stem) or not others:
        return table
    note = f"Only {path.name} is read; for {', '.join(others[:3])} beside it give the folder."
    return replace(table, notes=(*table.notes, note))


def _tables_of(folder: Path) -> ClipTable | None:
    """The clips of a folder's tables, if their names say splits (train.csv, val.csv), or it has one and no classes."""
    tables = _clip_tables(folder)
    splits = {table: split_in_name(table.stem) for table in tables}
    if "train" not in splits.values():
        single = len(tables) == 1 and sum(entry.is_dir() for entry in visible(folder)) < 2
        splits = {tables[0]: ""} if single else {}
    read = [(read_csv(table), split) for table, split in splits.items() if split or len(splits) == 1]
    if not any(table.clips for table, _ in read):
        return None
    clips = [replace(clip, split=clip.split or split) for table, split in read for clip in table]
    names = ", ".join(table.name for table in splits if splits[table] or len(splits) == 1)
    told = dict.fromkeys(note for table, _ in read for note in (f"Read by {names}.", *table.notes))
    skipped = tuple(row for table, _ in read for row in table.skipped)
    labels = label_order((name for clip in clips for name in clip.labels), str(folder))
    return ClipTable(tuple(clips), labels, folder, tuple(told), skipped)


def with_composed_names(table: ClipTable) -> ClipTable:
    """Labels and groups in one Unicode form, so that two spellings that look the same are one; a note tells of it."""
    if all(name == composed(name) for name in table.labels) and all(clip.group.isascii() for clip in table):
        return table
    clips = tuple(
        replace(clip, labels=tuple(dict.fromkeys(map(composed, clip.labels))), group=composed(clip.group))
        for clip in table
    )
    labels = tuple(dict.fromkeys(map(composed, table.labels)))
    if table.records is not None and len(labels) < len(table.labels):  # classes are numbers there
        return table
    notes = list(table.notes)
    if len(labels) < len(table.labels):
        spellings = Counter(map(composed, table.labels))
        name, count = spellings.most_common(1)[0]
        notes.append(f"Class {name!r} stands in {count} Unicode forms that look the same; they are one class.")
    order = label_order(labels, str(table.root)) if table.records is None else labels
    return replace(table, clips=clips, labels=order, notes=tuple(notes))


class AtRate(str):
    """The path of labelled data whose folders of frames have so many frames a second, where their table says none.

    Whatever takes DATA takes it: ``vidlet.train(AtRate("jester/", 12))``.

    Raises:
        DataError: not from 0.001 to 1000.
    """

    fps: float

    def __new__(cls, path: str | os.PathLike[str], fps: float) -> AtRate:
        if not 0.001 <= fps <= 1000:
            raise DataError(f"{path}: {fps:g} frames a second; expected 0.001 to 1000")
        made = super().__new__(cls, os.fspath(path))
        made.fps = float(fps)
        return made


def _at_rate(table: ClipTable, fps: float) -> ClipTable:
    """The table with a rate for every folder of frames that has none; a note tells how many."""
    frames = {i for i, clip in enumerate(table) if clip.fps is None and clip.row is None and clip.path.is_dir()}
    note = f"{len(frames)} folders of frames are read at {fps:g} frames/s, as told."
    clips = [replace(clip, fps=fps) if i in frames else clip for i, clip in enumerate(table)]
    return replace(table.with_clips(clips), notes=(*table.notes, note))


def is_records(where: Path) -> bool:
    """Whether a path means shards of records: one of them, a glob, or a folder of them without features.npz."""
    if where.is_dir():
        stored = (where / FEATURES_NAME).is_file()
        return not stored and any(is_shard(found.name) for found in where.iterdir())
    return is_shard(where.name) or (not where.exists() and any(mark in where.name for mark in "*?["))


def stores_features(path: str | os.PathLike[str]) -> bool:
    """Whether a path means stored features, as records or arrays, and no videos."""
    return is_records(Path(path)) or table_of_features(path) is not None


def table_of_features(path: str | os.PathLike[str]) -> Path | None:
    """The table beside features.npz that a path means; None: other data."""
    table = table_in(Path(path)) if Path(path).is_dir() else Path(path)
    return table if table is not None and table.is_file() and (table.parent / FEATURES_NAME).is_file() else None


def table_in(folder: Path) -> Path | None:
    """clips.csv or clips.parquet of a folder, in any case of its letters; None where there is none."""
    if found := next((folder / name for name in TABLE_NAMES if (folder / name).is_file()), None):
        return found
    entries = visible(folder) if folder.is_dir() else []
    return next((entry for entry in entries if entry.name.lower() in TABLE_NAMES and entry.is_file()), None)


def _with_records(table: ClipTable) -> ClipTable:
    return table if table.features is None else with_array_records(table)


def skipped_line(table: ClipTable, shown: int = 3) -> str:
    """One line that counts and names what a table lists and cannot use."""
    first = "; ".join(f"{path}: {why}" for path, why in table.skipped[:shown])
    more = f"; and {len(table.skipped) - shown} more" if len(table.skipped) > shown else ""
    return (
        f"{table.root}: {len(table.skipped)} of {len(table.skipped) + len(table)} clips cannot be used ({first}{more})"
    )
