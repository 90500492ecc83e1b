"""Data as people have them -> one clip table: a .csv or .parquet, a folder per class, official lists, or records."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from .. import plugins
from ..errors import DataError
from ..labels import composed, label_order
from .csv_table import COLUMNS, FEATURES_NAME, is_clip_table, read_csv
from .exports import EXPORTS, read_export
from .folders import read_folders
from .known import read_known, with_ucf_groups
from .media import VIDEO_SUFFIXES, Listed, Media, folders_near, listed_table, visible
from .record_table import read_record_table, with_array_records
from .records import is_shard
from .segments import in_stretches
from .table import ClipTable, split_in_name
from .texts import SPREADSHEETS, TABLE_NAMES, TABLES, cell_key, first_lines, numbered_names, text_lines

# Lists without a header, as toolboxes for videos write them: a clip a line, and its class behind it.
#
#     train_list.txt    videos/a.mp4 0          val.csv       b.mp4 1
#     labels.txt        a.mp4<tab>jump          ucf101_train_split_1_rawframes.txt    Archery/v_01 120 0
#
# Cells are separated by tabs, semicolons, commas or spaces. A number between a folder of frames and its class counts
# the frames. Numbers are called by a list of names beside them (classes.txt, label_map.txt), else by the folders of
# their clips where each class has one of its own. Source: the annotation files of TSN and MMAction2.
SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
NAME_LIST = re.compile(r"(classes|class_?names|labels|label_?map\w*|categories)\.(txt|names)", re.I)
SPLIT_WORD = re.compile(r"train(ing|set)?|val(id(ate|ation)?|set)?|dev(set)?|test(ing|set)?", re.I)
_VIDEO = "|".join(re.escape(suffix) for suffix in VIDEO_SUFFIXES)
LINE = re.compile(
    rf"""(?P<q>["']?)(?P<path>.+?(?:{_VIDEO})|[^\s,;]+)(?P=q)   # a video whose name may have spaces, or any other name
    (?:\s*[\t,;]\s*|\s+)(?:(?P<count>-?\d+)(?:\s*[\t,;]\s*|\s+))?(?P<label>[^\s,;](?:[^\t,;]*[^\s,;])?)""",
    re.I | re.X,
)
MOST_LETTERS = 2000  # of a line
SEEN = 20  # rows of which one must be there, for a text to be such a list


def positional_lists(path: Path) -> list[Path]:
    """The list that ``path`` is, with those of its other splits, or the lists by split in a folder; [] without one.

    Of several sets of lists (split_1, split_2) the first is taken.
    """
    folders = [path.parent] if path.is_file() else [path, path / "annotations", path / "labels", path / "splits"]
    for folder in folders:
        sets: dict[str, list[Path]] = {}
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.suffix.lower() in SUFFIXES and entry.is_file() and split_in_name(entry.stem):
                sets.setdefault(SPLIT_WORD.sub("*", entry.name.casefold()), []).append(entry)
        wanted = SPLIT_WORD.sub("*", path.name.casefold()) if path.is_file() else ""
        for name, lists in sets.items():
            known = path.is_dir() and any(split_in_name(entry.stem) == "train" for entry in lists)
            if (known or name == wanted) and all(map(_is_list, lists)):
                return lists
    return [path] if path.is_file() and path.suffix.lower() in SUFFIXES and _is_list(path) else []


def read_positional(lists: list[Path], root: Path) -> ClipTable:
    """Read lists, each with the split that its name says.

    Raises:
        DataError: a line that is none, a class beyond the list of names, or no clip is there (says how many miss).
    """
    rows = [row for path in lists for row in _rows(path)]
    names, notes = _names(lists, rows)
    named = [Listed((row.names[0],), names.get(row.label, row.label), "", row.split) for row in rows]
    told = f"Read by the list{'s' * (len(lists) > 1)} {', '.join(path.name for path in lists)}."
    return listed_table(named, root, folders_near(lists[0].parent), lists[0].name, [told, *notes])


def _is_list(path: Path) -> bool:
    """Whether the first lines are a name and a class, and a clip of such a name is there."""
    try:
        lines = first_lines(path, SEEN)
    except DataError:
        return False
    header = {cell_key(cell) for cell in re.split(r"[\s,;]", lines[0])} if lines else set()
    found = [_parts(line.strip()) for line in lines if line.strip()]
    if not found or not all(found) or header & set(COLUMNS):
        return False
    media, bases = Media(), folders_near(path.parent)
    names = [match["path"] for match in found if match]
    return any(media.find(base / name, other_suffix=True) for name in names for base in bases)


def _parts(line: str) -> re.Match[str] | None:
    return LINE.fullmatch(line) if len(line) <= MOST_LETTERS else None


def _rows(path: Path) -> list[Listed]:
    split, rows = split_in_name(path.stem), []
    for number, line in text_lines(path):
        match = _parts(line)
        if match is None:
            raise DataError(f"{path} line {number}: {line[:60]!r} is no name with its class behind it")
        is_video = match["path"].lower().endswith(VIDEO_SUFFIXES)
        if (is_video and match["count"]) or (match["count"] and re.search(r"\s\d+$", match["label"])):
            raise DataError(
                f"{path} line {number}: {line[:60]!r} has more than one number behind its name; write a clips.csv with "
                "the columns path and label (a|b for several)"
            )
        rows.append(Listed((match["path"].replace("\\", "/"),), match["label"].strip("\"'"), "", split))
    return rows


def _names(lists: list[Path], rows: list[Listed]) -> tuple[dict[str, str], list[str]]:
    """What the numbers of the lists are called, and what had to be assumed."""
    numbers = {row.label for row in rows}
    if not all(label.isdecimal() for label in numbers):
        return {}, []
    for folder in dict.fromkeys((lists[0].parent, lists[0].parent.parent)):
        files = sorted(entry for entry in folder.iterdir() if NAME_LIST.fullmatch(entry.name) and entry not in lists)
        if files:
            known = numbered_names(files[0])
            first = 0 if "0" in numbers else known.first
            beyond = max(map(int, numbers)) - first
            if beyond >= len(known.names):
                raise DataError(
                    f"{files[0]}: has {len(known.names)} classes, and {lists[0].name} tells of number {beyond + first}"
                )
            return {label: known.names[int(label) - first] for label in numbers}, list(known.notes)
    of_folder = {(row.label, Path(row.names[0]).parent.name) for row in rows}
    if len(of_folder) == len(numbers) == len({name for _, name in of_folder if name}) > 1:
        return dict(of_folder), []
    return {}, ["No list of class names was found (classes.txt, label_map.txt): numbers are used."]


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
