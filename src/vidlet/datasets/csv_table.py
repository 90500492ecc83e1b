"""Clip tables written as text: columns path (or name), label, and where known group, split and part of the video."""

from __future__ import annotations

import ast
import itertools
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError, reading
from ..labels import label_order, split_labels
from ..video.address import as_place
from .listed import folders_near
from .media import Media
from .segments import is_frame_code, overlap_notes, seconds_of_clock, seconds_of_frame_code, span_of_frames
from .table import Clip, ClipTable, split_name
from .texts import cell_key, table_rows

# What columns are called, in the order in which they are asked.
PATHS = (
    *("path", "name", "file_name", "filename", "file", "video", "id", "video_id"),
    *("video_path", "file_path", "filepath", "video_name", "video_file", "clip", "clip_path", "clip_name"),
)
LABELS = ("label", "labels", "class", "label_name", "class_name", "action", "activity", "gesture", "category")
TIMES = {
    "start_s": ("start_s", "start", "start_time", "start_sec", "start_seconds", "time_start", "begin", "onset"),
    "end_s": ("end_s", "end", "end_time", "end_sec", "end_seconds", "time_end", "finish", "stop"),
    "duration_s": ("duration_s", "duration", "duration_sec"),  # of the clip, where it has a start and no end
}
MILLISECONDS = {"start_s": ("start_ms", "begin_ms"), "end_s": ("end_ms", "finish_ms")}
FRAMES = ("start_frame", "end_frame")  # from 0, the last one included
ROW = "row"  # of the arrays beside the table
ACCEPTED = {"path": PATHS, "label": LABELS, **TIMES}
OWN = (ROW, "group", "split", *FRAMES, "fps")
COLUMNS = (*OWN, *(name for names in (*ACCEPTED.values(), *MILLISECONDS.values()) for name in names))
SPLIT_COLUMNS = ("subset", "set", "partition", "phase", "usage")  # if all of their cells are names of splits
PEOPLE = ("subject", "person", "participant", "signer", "speaker", "actor", "patient", "user")  # groups, if several
GROUP_COLUMNS = tuple(f"{who}{end}" for who in PEOPLE for end in ("", "_id"))
FOLDERS_OF_TABLES = ("annotations", "annotation", "labels", "splits", "lists", "metadata", "csv")
SHOWN = 6  # columns that a note names
FEATURES_NAME = "features.npz"
FEATURES_KEY = "rgb"
MOST_ARRAY_BYTES = 2**35  # of one array of stored features in memory
NUMBERS = re.compile(r"\d{1,9}(?: \d{1,9})*")  # several class numbers in a cell, as YouTube-8M's tables have them
Row = tuple[int, dict[str, str]]  # number of the line, cells of the known columns


class Rows(NamedTuple):
    """The rows of a table, the decimal mark of its numbers, and what had to be assumed."""

    rows: list[Row]
    decimal: str
    notes: tuple[str, ...] = ()


def read_csv(path: Path) -> ClipTable:
    """Read a table; paths are relative to it. Rows that name no file or have no label are skipped and listed.

    UTF-8 (with or without byte order mark) or UTF-16, separated by commas, semicolons, tabs or bars; columns in any
    order and case, those that are not read are told. Where features.npz lies beside it and the rows name no files, row
    i is its row i.

    Raises:
        DataError: not a text table, a column is missing, or a cell makes no sense; names file, row and value.
    """
    found = csv_rows(path)
    table = table_of_rows(found.rows, found.decimal, path)
    return replace(table, notes=(*table.notes, *found.notes))


def is_clip_table(path: Path) -> bool:
    """Whether a file has a header with columns of names and of labels."""
    try:
        lines, _ = table_rows(path, COLUMNS)
        _check_columns([cell_key(cell) for cell in lines[0][1]] if lines else [], path, labelled=True)
    except DataError:
        return False
    return True


def table_of_rows(rows: list[Row], decimal: str, path: Path) -> ClipTable:
    """The table of rows that were read already, as ``csv_rows`` gives them.

    Raises:
        DataError: as ``read_csv``.
    """
    if not any(split_labels(row["label"]) for _, row in rows):
        raise DataError(f"{path}: no row has a label")
    features = path.parent / FEATURES_NAME
    media = Media()
    stored = features.is_file() and not any(_find(row, path.parent, media) for _, row in rows[:20])
    places: Sequence[int] = range(len(rows))
    if stored:
        rows, places = _without_number_lists(rows, path), feature_rows(rows, features, path)
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    found_at = [None] * len(rows) if stored else [_find(row, path.parent, media) for _, row in rows]
    near: list[list[Path]] = [[] for _ in rows]
    if not stored and not any(found_at):  # names alone, of videos in a folder beside or below
        bases = folders_near(path.parent, beyond=path.parent.name.casefold() in FOLDERS_OF_TABLES)[1:]
        near = [list(dict.fromkeys(f for base in bases if (f := _find(row, base, media)))) for _, row in rows]
        found_at = [places[0] if len(places) == 1 else None for places in near]
    for index, (line, row), found, several in zip(places, rows, found_at, near, strict=True):
        where = f"{path} line {line}"
        clip = _clip(row, path.parent, where, decimal)
        if not clip.labels:
            skipped.append((row["path"] or where, f"line {line} has no label"))
        elif stored:
            clips.append(replace(clip, path=path.parent / row["path"], row=index))
        elif found:
            clips.append(_with_times(replace(clip, path=found), row, where, decimal))
        else:
            why = f"{several[0]} and {several[1]} may be meant" if several else _why_absent(row, path.parent, line)
            skipped.append((row["path"] or where, why))
    kept, notes = (clips, _repeated_names(clips)) if stored else _without_repetitions(clips)
    if any(near):
        folders = {place.parent.name for place in found_at if place}
        notes += (f"The names are found in other folders: {', '.join(sorted(folders)[:SHOWN])}.",)
    notes += (*media.notes(), *(() if stored else overlap_notes(kept)))
    labels = label_order((name for clip in kept for name in clip.labels), str(path))
    return ClipTable(tuple(kept), labels, path.parent, notes, tuple(skipped), features if stored else None)


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


def csv_rows(path: Path, labelled: bool = True) -> Rows:
    """The non-empty rows of a text table; ``labelled``: a column of labels is needed.

    Raises:
        DataError: not a text table, or a column is missing.
    """
    lines, separator = table_rows(path, COLUMNS)
    if not lines:
        raise DataError(f"{path}: empty")
    names = [cell_key(cell) for cell in lines[0][1]]
    _check_columns(names, path, labelled)
    notes = _other_names(names, [cells for _, cells in lines[1:]])
    rows, used = [], set()
    for number, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise DataError(
                f"{path} line {number}: {len(cells)} cells under {len(names)} column names"
                f" (a cell with {separator!r} in it needs quotation marks)"
            )
        said = dict(zip(names, cells, strict=False))
        used |= {next((key for key in keys if said.get(key, "").strip()), "") for keys in ACCEPTED.values()}
        rows.append((number, known_cells(said.items())))
    if not rows:
        raise DataError(f"{path}: a header and no row")
    used |= {*OWN, *itertools.chain(*MILLISECONDS.values())}
    if unread := [name for at, name in enumerate(names) if name and name not in used and _says(lines[1:], at)]:
        more = ", ..." if len(unread) > SHOWN else ""
        notes.append(f"{path.name}: columns that are not read: {', '.join(unread[:SHOWN])}{more}.")
    return Rows(rows, "." if separator == "," else ",", tuple(notes))


def _says(lines: Sequence[tuple[int, list[str]]], at: int) -> bool:
    """Whether a column has anything in it."""
    return any(len(cells) > at and cells[at].strip() for _, cells in lines)


def _other_names(names: list[str], lines: list[list[str]]) -> list[str]:
    """Call columns "split" and "group" that others call so, if what stands in them is such; notes on that."""
    notes = []
    for own, others in (("split", SPLIT_COLUMNS), ("group", GROUP_COLUMNS)):
        for at, name in enumerate(names) if own not in names else ():
            cells = [cells[at].strip() if len(cells) > at else "" for cells in lines]
            if name in others and (all(map(split_name, cells)) if own == "split" else len({*cells} - {""}) > 2):
                names[at] = own
                notes.append(f"The column {name!r} is read as the {own} of each clip.")
                break
    return notes


def known_cells(cells: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The cells of a row by the names that are used here; those of unknown columns are left out, "nan" says nothing."""
    row = {name: "" if cell.strip() in ("nan", "NaN") else cell.strip() for name, cell in cells if name in COLUMNS}
    for name, accepted in ACCEPTED.items():
        row[name] = next((row[key] for key in accepted if row.get(key)), "")
    for name, accepted in MILLISECONDS.items():
        row[name] = row[name] or next((_thousandth(row[key]) for key in accepted if row.get(key)), "")
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
    return "|".join(map(str, names)) if all(isinstance(name, (str, int)) for name in names) else cell


def _check_columns(names: list[str], path: Path, labelled: bool) -> None:
    accepted = {"path": PATHS, "label": LABELS} if labelled else {"path": PATHS}
    missing = [what for what, known in accepted.items() if not set(known) & set(names)]
    if missing:
        found = ", ".join(names[:12])
        wanted = " and ".join(repr(name) for name in missing)
        raise DataError(f"{path}: needs a column {wanted} (columns found: {found})")
    if twice := [name for name, count in Counter(names).items() if count > 1 and name in COLUMNS]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice")


def _clip(row: dict[str, str], root: Path, where: str, decimal: str) -> Clip:
    split = split_name(row.get("split", ""))
    if split is None:
        raise DataError(f"{where}: split {row['split']!r} is none of train, val and test")
    fps = _seconds(row.get("fps", ""), "fps", where, decimal, "frames a second")
    if fps is not None and not 0.001 <= fps <= 1000:
        raise DataError(f"{where}: fps {row['fps']!r} is not from 0.001 to 1000")
    labels = split_labels(row["label"])
    return Clip(root / row["path"], labels, row.get("group", ""), split, fps=fps)


def _with_times(clip: Clip, row: dict[str, str], where: str, decimal: str) -> Clip:
    """The clip with the part of its video that a row names, in seconds, timecodes or numbers of frames.

    Raises:
        DataError: a cell makes no sense, or the part is empty or outside of the video.
    """
    try:
        if any(row.get(key) for key in FRAMES):
            first, last = (_frame(row.get(key, ""), key) for key in FRAMES)
            start_s, end_s = span_of_frames(clip.path, first or 0, last, clip.fps)
            return replace(clip, start_s=start_s, end_s=end_s)
        start, end = (
            seconds_of_frame_code(row[key], clip.path, clip.fps)
            if is_frame_code(row[key])
            else _seconds(row[key], key, where, decimal)
            for key in ("start_s", "end_s")
        )
        if start is not None and end is None and (lasts := _seconds(row["duration_s"], "duration", where, decimal)):
            end = start + lasts
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{where}: end_s {end:g} is not after start_s {start or 0.0:g}")
    return replace(clip, start_s=start, end_s=end)


def _frame(cell: str, column: str) -> int | None:
    if not cell:
        return None
    cell = cell.removesuffix(".0")  # as tables have them in which other cells are empty
    if not cell.isascii() or not cell.isdecimal() or len(cell) > 9:
        raise DataError(f"{column} {cell[:40]!r} is no number of a frame")
    return int(cell)


def _seconds(cell: str, column: str, where: str, decimal: str, unit: str = "seconds") -> float | None:
    if not cell:
        return None
    if unit == "seconds" and (time_s := seconds_of_clock(cell)) is not None:
        return time_s
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise DataError(f"{where}: {column} {cell!r} is not a number of {unit}")
    return value


def _find(row: dict[str, str], root: Path, media: Media) -> Path | None:
    """The file or frame folder that a row names; Windows separators and a missing suffix are forgiven."""
    name = os.fspath(as_place(row["path"])) if row["path"].lower().startswith("file://") else row["path"]
    names = dict.fromkeys((name, name.replace("\\", "/"))) if name else ()
    return next((path for candidate in names if (path := media.find(root / candidate))), None)


def _why_absent(row: dict[str, str], root: Path, line: int) -> str:
    if not row["path"]:
        return f"line {line} names no file"
    try:
        return "a folder without frame images" if (root / row["path"]).is_dir() else "no such file"
    except (OSError, ValueError) as error:  # a name that no file can have
        return f"no such file ({getattr(error, 'strerror', None) or error})"


def _without_repetitions(clips: list[Clip]) -> tuple[list[Clip], tuple[str, ...]]:
    """Drop rows that repeat an earlier one; note them, and clips that stand with different labels."""
    kept = list(dict.fromkeys(clips))
    notes = []
    if len(kept) < len(clips):
        first = next(clip for clip, count in Counter(clips).items() if count > 1)
        notes.append(
            f"{len(clips) - len(kept)} rows repeat an earlier one and were dropped (first: {first.path.name})."
        )
    parts = Counter((clip.path, clip.start_s, clip.end_s) for clip in kept)
    if twice := [part[0].name for part, count in parts.items() if count > 1]:
        notes.append(
            f"{len(twice)} clips stand in several rows that differ in label, group or split (first: {twice[0]});"
            " several labels of one clip are written a|b."
        )
    return kept, tuple(notes)


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
