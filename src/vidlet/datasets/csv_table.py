"""Clip tables as rows: columns path (or name), label, and where known group, split and part of the video."""

from __future__ import annotations

import ast
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import numpy as np

from ..errors import DataError, DependencyError, reading
from ..labels import join_labels, label_order, split_labels
from ..video.address import as_place
from .media import Media, folders_near
from .segments import (
    is_frame_code,
    overlap_notes,
    places_of_parts,
    seconds_of_clock,
    seconds_of_frame_code,
    span_of_frames,
    times_of,
)
from .table import Clip, ClipTable, split_name
from .texts import cell_key, stream_rows

# What columns are called, in the order in which they are asked.
PATHS = (
    *("path", "name", "file_name", "filename", "file", "video", "id", "video_id"),
    *("video_path", "file_path", "filepath", "video_name", "video_file", "clip", "clip_path", "clip_name"),
)
LABELS = ("label", "labels", "class", "label_name", "class_name", "action", "activity", "gesture", "category")
TIMES = {
    "start_s": ("start_s", "start", "start_time", "start_sec", "start_seconds", "time_start", "begin", "onset", "from"),
    "end_s": ("end_s", "end", "end_time", "end_sec", "end_seconds", "time_end", "finish", "stop", "to"),
    "duration_s": ("duration_s", "duration", "duration_sec"),  # of the clip, where it has a start and no end
}
MILLISECONDS = {"start_s": ("start_ms", "begin_ms"), "end_s": ("end_ms", "finish_ms")}
FRAMES = ("start_frame", "end_frame")  # from 0, the last one included
ROW = "row"  # of the arrays beside the table
ACCEPTED = {"path": PATHS, "label": LABELS, **TIMES}
OWN = (ROW, "group", "split", "fold", *FRAMES, "fps")
COLUMNS = (*OWN, *(name for names in (*ACCEPTED.values(), *MILLISECONDS.values()) for name in names))
FOLD_COLUMNS = ("kfold", "k_fold", "fold_id", "cv_fold")
SPLIT_COLUMNS = ("subset", "set", "partition", "phase", "usage", "fold")  # if all of their cells are names of splits
YES, NO = frozenset(("1", "true", "yes", "1.0")), frozenset(("0", "false", "no", "0.0"))  # of columns as is_test
# What programs write where there is nothing. "None" and "NULL" are not among them: classes are called so, too.
NOTHING = frozenset(("nan", "NaN", "NaT", "n/a", "N/A", "#N/A", "<NA>"))
PEOPLE = ("subject", "person", "participant", "signer", "speaker", "actor", "patient", "user")  # groups, if several
GROUP_COLUMNS = tuple(f"{who}{end}" for who in PEOPLE for end in ("", "_id"))
FOLDERS_OF_TABLES = ("annotations", "annotation", "labels", "splits", "lists", "metadata", "csv")
SEEN = 20  # rows of which one must name a file, if the table is not of stored features
SHOWN = 6  # columns that a note names
FEATURES_NAME = "features.npz"
FEATURES_KEY = "rgb"
MOST_ARRAY_BYTES = 2**35  # of one array of stored features in memory
NUMBERS = re.compile(r"\d{1,9}(?: \d{1,9})*")  # several class numbers in a cell, as YouTube-8M's tables have them
Row = tuple[int, dict[str, str]]  # number of the line, cells of the known columns
Line = tuple[int, list[str]]  # number of the line, its cells
V = TypeVar("V")


class Rows(NamedTuple):
    """The rows of a table, the decimal mark of its numbers, and what had to be assumed, whole once they were read."""

    rows: Iterable[Row]
    decimal: str
    notes: list[str]


def read_csv(path: Path) -> ClipTable:
    """Read a table; paths are relative to it. Rows that name no file or have no label are skipped and listed.

    Parquet, or text: UTF-8 (with or without byte order mark) or UTF-16, separated by commas, semicolons, tabs or bars;
    columns in any order and case, those that are not read are told. Where features.npz lies beside it and the rows name
    no files, row i is its row i.

    Raises:
        DataError: not a table, a column is missing, or a cell makes no sense; names file, row and value.
    """
    found = stream_csv(path)
    table = table_of_rows(found.rows, found.decimal, path)
    return replace(table, notes=(*table.notes, *found.notes))


def is_clip_table(path: Path) -> bool:
    """Whether a file has a header with columns of names and of labels."""
    try:
        header = next(stream_rows(path, COLUMNS)[0], (0, []))
        _check_columns([cell_key(cell) for cell in header[1]], path, labelled=True)
    except (DataError, DependencyError):
        return False
    return True


def table_of_rows(rows: Iterable[Row], decimal: str, path: Path) -> ClipTable:
    """The table of rows as ``stream_csv`` gives them; what they repeat (names, labels, groups) is kept once.

    Raises:
        DataError: as ``read_csv``.
    """
    features, media = path.parent / FEATURES_NAME, Media()
    find = Remembered[list[Path]](lambda name: _find(name, [path.parent], media))
    rows, first = _until(rows, lambda row, number: bool(find[row["path"]]))
    stored = features.is_file() and not any(find[row["path"]] for _, row in first[:SEEN])
    places = cast(Iterable[int], count())
    beside = not stored and not any(find[row["path"]] for _, row in first)
    if stored:
        rows = _without_number_lists(list(rows), path)
        places = feature_rows(rows, features, path)
    elif beside:  # names alone, of videos in a folder beside or below
        bases = folders_near(path.parent, beyond=path.parent.name.casefold() in FOLDERS_OF_TABLES)[1:]
        find = Remembered[list[Path]](lambda name: _find(name, bases, media))
    cells = _Cells(decimal)
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    labelled = False
    for index, (line, row) in zip(places, rows, strict=False):
        found = [path.parent / row["path"]] if stored else find[row["path"]]
        try:
            about = cells.about(row)
            labelled = labelled or bool(about.labels)
            if about.labels and len(found) == 1:
                clips.append(cells.clip(row, found[0], about, index if stored else None))
                continue
        except DataError as error:
            raise DataError(f"{path} line {line}: {error}") from error
        why = f"{found[0]} and {found[1]} may be meant" if len(found) > 1 else _why_absent(row, path.parent, line)
        skipped.append((row["path"] or f"{path} line {line}", why if about.labels else f"line {line} has no label"))
    if not labelled:
        raise DataError(f"{path}: no row has a label")
    kept, notes = (clips, _repeated_names(clips)) if stored else without_repetitions(clips)
    if beside and any(find.values()):
        folders = {places[0].parent.name for places in find.values() if len(places) == 1}
        notes += (f"The names are found in other folders: {', '.join(sorted(folders)[:SHOWN])}.",)
    notes += (*media.notes(), *(() if stored else overlap_notes(kept)))
    labels = label_order({name for names in {clip.labels for clip in kept} for name in names}, str(path))
    notes += (*_joined_names(labels), *cells.notes(), *fold_notes(kept))
    return ClipTable(tuple(kept), labels, path.parent, notes, tuple(skipped), features if stored else None)


def _until(rows: Iterable[Row], wanted: Callable[[dict[str, str], int], bool]) -> tuple[Iterable[Row], list[Row]]:
    """All rows, and those up to the first that is wanted."""
    rest, first = iter(rows), list[Row]()
    for number, (line, row) in enumerate(rest):
        first.append((line, row))
        if wanted(row, number):
            break
    return chain(first, rest), first


class Remembered(dict[str, V]):
    """What a function gave for each text that it was asked for."""

    def __init__(self, function: Callable[[str], V]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, key: str) -> V:
        value = self[key] = self.function(key)
        return value


class _About(NamedTuple):
    """What a row says of a clip but its path and its times."""

    labels: tuple[str, ...]
    group: str
    split: str
    fps: float | None
    fold: str


class _Cells:
    """What the cells of a table mean; what is equal is one object, so that a million rows cost little memory."""

    def __init__(self, decimal: str) -> None:
        self.decimal = decimal
        self.labels = Remembered(split_labels)
        self.groups = Remembered(str)
        self.splits = Remembered(_split)
        self.rates = Remembered(self._rate)
        self.other_rates: dict[Path, str] = {}  # videos whose frames are not as many a second as the column fps says

    def about(self, row: dict[str, str]) -> _About:
        """DataError: a split or a rate that is none."""
        split, fps = self.splits[row.get("split", "")], self.rates[row.get("fps", "")]
        fold = self.groups[row.get("fold", "").removesuffix(".0")]
        return _About(self.labels[row["label"]], self.groups[row.get("group", "")], split, fps, fold)

    def clip(self, row: dict[str, str], path: Path, about: _About, index: int | None) -> Clip:
        """The clip of a row. DataError: its part of the video makes no sense. ``index``: of stored features."""
        if index is not None:
            return Clip(path, about.labels, about.group, about.split, None, None, index, about.fps, about.fold)
        start_s, end_s = self._times(row, path, about.fps)
        return Clip(path, about.labels, about.group, about.split, start_s, end_s, None, about.fps, about.fold)

    def _rate(self, cell: str) -> float | None:
        fps = _seconds(cell, "fps", self.decimal, "frames a second")
        if fps is not None and not 0.001 <= fps <= 1000:
            raise DataError(f"fps {cell!r} is not from 0.001 to 1000")
        return fps

    def _rate_of(self, path: Path, fps: float | None) -> float | None:
        """The rate that a table tells of a folder of frames; a video has its own, and another one is noted."""
        if fps is None or path.is_dir():
            return fps
        times = times_of(path)
        rate = (len(times) - 1) / max(float(times[-1] - times[0]), 1e-6) if len(times) > 1 else fps
        if abs(rate - fps) > 0.02 * rate:
            self.other_rates[path] = f"{path.name}: {rate:.4g} and {fps:g}"
        return None

    def notes(self) -> tuple[str, ...]:
        """A sentence on rates that differ, if some do."""
        if not self.other_rates:
            return ()
        first = next(iter(self.other_rates.values()))
        return (
            f"{len(self.other_rates)} videos have other rates than the column fps says (first: {first} frames/s); "
            "numbers of frames mean those of the file.",
        )

    def _times(self, row: dict[str, str], path: Path, fps: float | None) -> tuple[float | None, float | None]:
        """The part of a video that a row names, in seconds, timecodes or numbers of frames."""
        first, last = row.get(FRAMES[0]), row.get(FRAMES[1])
        if first or last:
            told = self._rate_of(path, fps)
            return span_of_frames(path, _frame(first or "", FRAMES[0]) or 0, _frame(last or "", FRAMES[1]), told)
        start, end = (
            seconds_of_frame_code(row[key], path, fps)
            if ":" in row[key] and is_frame_code(row[key])
            else _seconds(row[key], key, self.decimal)
            for key in ("start_s", "end_s")
        )
        lasts = _seconds(row["duration_s"], "duration", self.decimal) if start is not None and end is None else None
        if start is not None and lasts is not None:
            end = start + lasts
        if end is not None and end <= (start or 0.0):
            raise DataError(f"end_s {end:g} is not after start_s {start or 0.0:g}")
        return start, end


def _split(cell: str) -> str:
    split = split_name(cell)
    if split is None:
        raise DataError(f"split {cell!r} is none of train, val and test")
    return split


def _without_number_lists(rows: list[Row], path: Path) -> list[Row]:
    """The rows with their class numbers separated by ``|``, where every cell is a list of numbers ("3 4 9").

    Raises:
        DataError: some cells are lists of several numbers, and others are not.
    """
    others = [(line, row["label"]) for line, row in rows if row["label"] and not NUMBERS.fullmatch(row["label"])]
    if not others:
        return [(line, row | {"label": row["label"].replace(" ", "|")}) for line, row in rows]
    lists = sum(" " in row["label"] and bool(NUMBERS.fullmatch(row["label"])) for _, row in rows)
    if 2 * lists > len(rows):
        line, label = others[0]
        raise DataError(f"{path} line {line}: labels {label!r}, where most lines have lists of class numbers")
    return rows


def csv_rows(path: Path, labelled: bool = True) -> list[Row]:
    """The non-empty rows of a table; ``labelled``: a column of labels is needed.

    Raises:
        DataError: not a table, or a column is missing.
    """
    return list(stream_csv(path, labelled).rows)


def stream_csv(path: Path, labelled: bool = True) -> Rows:
    """``csv_rows``, of which only some are in memory at a time.

    Raises:
        DataError: not a table, or a column is missing; here or at the row where that is seen.
    """
    lines, separator = stream_rows(path, COLUMNS)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path}: empty")
    names = [cell_key(cell) for cell in header[1]]
    _check_columns(names, path, labelled)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: a header and no row")
    again = partial(_lines_below, path)
    return named_rows(names, chain([first], lines), again, separator, path)


def _lines_below(path: Path) -> Iterator[Line]:
    return islice(stream_rows(path, COLUMNS)[0], 1, None)


def named_rows(
    names: list[str], lines: Iterable[Line], again: Callable[[], Iterable[Line]], separator: str, path: Path
) -> Rows:
    """Rows by our names; at their end a note on columns with something in them that are not read.

    Args:
        names: of the columns, folded; ``lines``: the number and the cells of each row; ``again``: gives them once more.
    """
    notes = _other_names(names, again)
    flags = {} if "split" in names else _flags(names, again)
    if flags:
        told = ", ".join(repr(names[at]) for at in flags)
        notes.append(f"The {'columns' if len(flags) > 1 else 'column'} {told} tell the split of each clip.")
    rows = _named_cells(lines, names, flags, separator, path, notes)
    return Rows(rows, "." if separator == "," else ",", notes)


def _named_cells(
    lines: Iterable[Line], names: list[str], flags: Mapping[int, str], separator: str, path: Path, notes: list[str]
) -> Iterator[Row]:
    known = [(at, name) for at, name in enumerate(names) if name in COLUMNS]
    accepted = {own: [name for name in keys if name in names] for own, keys in ACCEPTED.items()}
    thousandths = {own: [name for name in keys if name in names] for own, keys in MILLISECONDS.items()}
    several = [keys for keys in accepted.values() if len(keys) > 1]  # of which one is read
    silent = {at: name for at, name in enumerate(names) if name and name not in COLUMNS and at not in flags}
    silent |= {names.index(name): name for keys in several for name in keys}
    telling, used = dict[int, str](), set[str]()
    for number, cells in lines:
        if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
            raise DataError(
                f"{path} line {number}: {len(cells)} cells under {len(names)} column names"
                f" (a cell with {separator!r} in it needs quotation marks)"
            )
        said = {name: cells[at].strip() for at, name in known if at < len(cells)}
        for at in [at for at in silent if at < len(cells) and cells[at].strip()] if silent else ():
            telling[at] = silent.pop(at)
        if flags:
            said["split"] = _flagged(cells, flags, f"{path} line {number}")
        for keys in several:
            used.add(next((key for key in keys if said.get(key)), ""))
        yield number, with_our_names(said, accepted, thousandths)
    if unread := [telling[at] for at in sorted(telling) if telling[at] not in used]:
        more = ", ..." if len(unread) > SHOWN else ""
        notes.append(f"{path.name}: columns that are not read: {', '.join(unread[:SHOWN])}{more}.")


def _other_names(names: list[str], again: Callable[[], Iterable[Line]]) -> list[str]:
    """Call columns "split", "group" and "fold" that others call so, if what stands in them is such; notes on that."""
    notes = []
    for own, others in (("split", SPLIT_COLUMNS), ("group", GROUP_COLUMNS), ("fold", FOLD_COLUMNS)):
        for at, name in enumerate(names) if own not in names else ():
            if name in others and _is_such(own, _cells_of(at, again)):
                names[at] = own
                notes.append(f"The column {name!r} is read as the {own} of each clip.")
                break
    return notes


def _is_such(own: str, cells: set[str]) -> bool:
    """Whether what stands in a column are names of splits, several groups, or folds."""
    if own == "split":
        return all(map(split_name, cells))
    return len(cells - {""}) > (2 if own == "group" else 1)


def _cells_of(at: int, again: Callable[[], Iterable[Line]]) -> set[str]:
    return {cells[at].strip() if len(cells) > at else "" for _, cells in again()}


def _flags(names: Sequence[str], again: Callable[[], Iterable[Line]]) -> dict[int, str]:
    """Columns that say of a split, yes or no, whether a clip is in it (is_test, in_train, val), and which split."""
    able = {}
    for at, name in enumerate(names):
        said = re.fullmatch(r"(?:is|in)_?(\w+)|(train|val|test)", name)  # "valid" alone may mean: not broken
        if said and (split := split_name(said[1] or said[2])):
            able[at] = split
    found = {at: split for at, split in able.items() if _yes_or_no(_cells_of(at, again))}
    return found if len(set(found.values())) == len(found) else {}


def _yes_or_no(cells: set[str]) -> bool:
    said = {cell.casefold() for cell in cells} - {""}
    return bool(said & YES and said & NO) and said <= YES | NO


def _flagged(cells: list[str], flags: Mapping[int, str], where: str) -> str:
    """The split that flags name; what is in none of them is in one of which there is no flag, in train first.

    Raises:
        DataError: two of them are set.
    """
    told = {split: cells[at].strip().casefold() for at, split in flags.items() if at < len(cells)}
    own = [split for split, cell in told.items() if cell in YES]
    if len(own) > 1:
        raise DataError(f"{where}: is in {' and in '.join(own)}")
    left = [split for split in ("train", "test", "val") if split not in told]
    return next(iter(own or (left if any(told.values()) else ())), "")


def with_our_names(
    row: dict[str, str], accepted: Mapping[str, Sequence[str]], thousandths: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """A row with its path, label and times under our names; what is written for nothing says nothing.

    Args:
        accepted: our name -> what it may be called, ``thousandths``: of seconds.
    """
    for name, cell in row.items():
        if len(cell) < 5 and cell in NOTHING:  # no longer cell is one, of a million rows
            row[name] = ""
    for name, keys in accepted.items():
        first = row.get(keys[0], "") if keys else ""
        row[name] = first or (next((row[key] for key in keys if row.get(key)), "") if len(keys) > 1 else "")
    for name, keys in thousandths.items():
        if keys and not row[name]:
            row[name] = next((_thousandth(row[key]) for key in keys if row.get(key)), "")
    row["label"] = _names_of_list(row["label"])
    return row


def _thousandth(cell: str) -> str:
    try:
        return f"{float(cell) / 1000:.6f}"
    except ValueError:
        return cell  # whoever reads it as seconds says what is wrong


def _names_of_list(cell: str) -> str:
    """A cell of names, where a program wrote them as a list: "['a', 'b']" -> "a|b"."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return cell
    try:
        names = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return join_labels(map(str, names)) if all(isinstance(name, (str, int)) for name in names) else cell


def _check_columns(names: list[str], path: Path, labelled: bool) -> None:
    accepted = {"path": PATHS, "label": LABELS} if labelled else {"path": PATHS}
    missing = [what for what, known in accepted.items() if not set(known) & set(names)]
    if missing:
        found = ", ".join(names[:12])
        wanted = " and ".join(repr(name) for name in missing)
        raise DataError(f"{path}: needs a column {wanted} (columns found: {found})")
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in COLUMNS]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice")


def _frame(cell: str, column: str) -> int | None:
    if not cell:
        return None
    cell = cell.removesuffix(".0")  # as tables have them in which other cells are empty
    if not cell.isascii() or not cell.isdecimal() or len(cell) > 9:
        raise DataError(f"{column} {cell[:40]!r} is no number of a frame")
    return int(cell)


def _seconds(cell: str, column: str, decimal: str, unit: str = "seconds") -> float | None:
    if not cell:
        return None
    if unit == "seconds" and ":" in cell and (time_s := seconds_of_clock(cell)) is not None:
        return time_s
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise DataError(f"{column} {cell!r} is not a number of {unit}")
    return value


def _find(name: str, bases: Sequence[Path], media: Media) -> list[Path]:
    """What a row names in some folders; Windows separators and a missing suffix are forgiven."""
    if name.lower().startswith("file://"):
        name = os.fspath(as_place(name))
    names = dict.fromkeys((name, name.replace("\\", "/"))) if name else ()
    places = (next((path for other in names if (path := media.find(base / other))), None) for base in bases)
    return list(dict.fromkeys(place for place in places if place is not None))


def _why_absent(row: dict[str, str], root: Path, line: int) -> str:
    if not row["path"]:
        return f"line {line} names no file"
    try:
        return "a folder without frame images" if (root / row["path"]).is_dir() else "no such file"
    except (OSError, ValueError) as error:  # a name that no file can have
        return f"no such file ({getattr(error, 'strerror', None) or error})"


def _joined_names(labels: Sequence[str]) -> tuple[str, ...]:
    """A sentence, if a class is called as several others are: "run;jump" beside "run" and "jump"."""
    known = set(labels)
    for label in labels:
        parts = [part.strip() for part in re.split(r"[;,/+&]", label)]
        if len(parts) > 1 and known.issuperset(parts):
            return (f"Class {label!r} is taken for one name; several labels of a clip are written {'|'.join(parts)}.",)
    return ()


def fold_notes(clips: Sequence[Clip]) -> tuple[str, ...]:
    """A sentence on the column fold, if there is something in it."""
    count = len({clip.fold for clip in clips} - {""})
    if not count:
        return ()
    return (
        f"The column 'fold' has {count} parts, of which --fold 0/{count} to {count - 1}/{count} test one each; without "
        "--fold it is not looked at.",
    )


def without_repetitions(clips: list[Clip]) -> tuple[list[Clip], tuple[str, ...]]:
    """Drop rows that repeat an earlier one; note them, and clips that stand with different labels."""
    alike = _same_parts(clips)  # only these can be repetitions
    dropped: set[int] = set()
    repeated: list[int] = []
    twice: list[int] = []
    for group in alike:
        first = {clip: at for at, clip in reversed([(at, clips[at]) for at in group])}
        dropped.update(at for at in group if first[clips[at]] != at)
        repeated += [at for clip, at in first.items() if sum(clips[other] == clip for other in group) > 1]
        if len(first) > 1:
            twice.append(group[0])
    notes = []
    if dropped:
        notes.append(
            f"{len(dropped)} rows repeat an earlier one and were dropped (first: {clips[min(repeated)].path.name})."
        )
    if twice:
        notes.append(
            f"{len(twice)} clips stand in several rows that differ in label, group or split (first: "
            f"{clips[min(twice)].path.name}); several labels of one clip are written a|b."
        )
    return [clip for at, clip in enumerate(clips) if at not in dropped] if dropped else clips, tuple(notes)


def _same_parts(clips: Sequence[Clip]) -> list[list[int]]:
    """Numbers of the clips that are the same part of the same file, in lists of two and more."""
    numbers, starts, ends = places_of_parts(clips)
    order = np.lexsort((ends, starts, numbers))
    same = np.ones(max(0, len(clips) - 1), bool)
    for column in (numbers, starts, ends):
        same &= column[order][1:] == column[order][:-1]
    groups: list[list[int]] = []
    for at in np.flatnonzero(same).tolist():
        one, other = order[at : at + 2].tolist()
        if groups and groups[-1][-1] == one:
            groups[-1].append(other)
        else:
            groups.append([one, other])
    return groups


def _repeated_names(clips: list[Clip]) -> tuple[str, ...]:
    """A note, where rows of stored features have the same name."""
    twice = [name for name, count in Counter(clip.path.name for clip in clips).items() if count > 1]
    return (f"{len(twice)} names stand in several rows (first: {twice[0]}).",) if twice else ()


def feature_rows(rows: list[Row], features: Path, table: Path) -> Sequence[int]:
    """Which row of the arrays each line of a table is of: its cell ``row``, from 0, else lines are in their order.

    The arrays are not read, only the header of one.

    Raises:
        DataError: the array has not as many rows as the table, or numbers that are not each of 0 to N - 1 once.
    """
    shape = feature_shape(features)
    if len(shape) not in (2, 3) or shape[0] != len(rows):
        raise DataError(
            f"{features}: {FEATURES_KEY!r} has shape {shape}; {table.name} needs ({len(rows)}, frames, size), or "
            f"({len(rows)}, size) of one vector a row"
        )
    if 0 in shape:
        raise DataError(f"{features}: {FEATURES_KEY!r} has shape {shape}, there is nothing in it")
    cells = [row.get(ROW, "") for _, row in rows]
    if not any(cells):
        return range(len(rows))
    numbers = [int(cell) if cell.isdecimal() else -1 for cell in cells]
    count = Counter(numbers)
    wrong = next((i for i, n in enumerate(numbers) if not 0 <= n < len(rows) or count[n] > 1), None)
    if wrong is not None:
        raise DataError(
            f"{table} line {rows[wrong][0]}: row {cells[wrong]!r}; each of 0 to {len(rows) - 1}, the rows of "
            f"{features.name}, must stand once"
        )
    return numbers


def feature_shape(features: Path, key: str = FEATURES_KEY) -> tuple[int, ...]:
    """Shape of an array of stored features, from its header alone.

    Raises:
        DataError: not an .npz file, without that array, or a header that says more than the file holds.
    """
    with reading(features, "a readable .npz file"), zipfile.ZipFile(features) as archive:
        name = f"{key}.npy"
        if name not in archive.namelist():
            raise DataError(f"{features}: holds no array {key!r}")
        with archive.open(name) as handle:
            version = np.lib.format.read_magic(handle)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(handle)
        size = archive.getinfo(name).file_size
        if math.prod(int(n) for n in shape) * kind.itemsize > min(size, MOST_ARRAY_BYTES):
            raise DataError(
                f"{features}: {key!r} of shape {shape} is more than its {size:,} bytes hold, or can be read"
            )
        return tuple(shape)
