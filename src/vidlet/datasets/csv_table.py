"""Clip tables written as text: columns path (or name), label, and where known group, split and part of the video."""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError, reading
from ..labels import label_order, split_labels
from .media import Media
from .segments import is_frame_code, overlap_notes, seconds_of_clock, seconds_of_frame_code, span_of_frames
from .table import Clip, ClipTable, split_name
from .texts import cell_key, table_rows

PATHS = ("path", "name", "file_name", "filename", "file", "video", "id", "video_id")
LABELS = ("label", "labels", "class")
TIMES = {"start_s": ("start_s", "start", "start_time"), "end_s": ("end_s", "end", "end_time")}
FRAMES = ("start_frame", "end_frame")  # from 0, the last one included
ROW = "row"  # of the arrays beside the table
COLUMNS = (ROW, *PATHS, *LABELS, "group", "split", *TIMES["start_s"], *TIMES["end_s"], *FRAMES, "fps")
FEATURES_NAME = "features.npz"
FEATURES_KEY = "rgb"
MOST_ARRAY_BYTES = 2**35  # of one array of stored features in memory
NUMBERS = re.compile(r"\d{1,9}(?: \d{1,9})*")  # several class numbers in a cell, as YouTube-8M's tables have them
Row = tuple[int, dict[str, str]]  # number of the line, cells of the known columns


def read_csv(path: Path) -> ClipTable:
    """Read a table; paths are relative to it. Rows that name no file or have no label are skipped and listed.

    UTF-8 (with or without byte order mark) or UTF-16, separated by commas, semicolons or tabs; columns in any order
    and case, others ignored. Where features.npz lies beside it and the rows name no files, row i is its row i.

    Raises:
        DataError: not a text table, a column is missing, or a cell makes no sense; names file, row and value.
    """
    return table_of_rows(*csv_rows(path), path)


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
    for index, (line, row) in zip(places, rows, strict=True):
        where = f"{path} line {line}"
        clip = _clip(row, path.parent, where, decimal)
        if not clip.labels:
            skipped.append((row["path"] or where, f"line {line} has no label"))
        elif stored:
            clips.append(replace(clip, path=path.parent / row["path"], row=index))
        elif found := _find(row, path.parent, media):
            clips.append(_with_times(replace(clip, path=found), row, where, decimal))
        else:
            skipped.append((row["path"] or where, _why_absent(row, path.parent, line)))
    kept, notes = (clips, _repeated_names(clips)) if stored else _without_repetitions(clips)
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


def csv_rows(path: Path, labelled: bool = True) -> tuple[list[Row], str]:
    """Non-empty rows of a text table, and the decimal mark of its numbers; ``labelled``: a column of labels is needed.

    Raises:
        DataError: not a text table, or a column is missing.
    """
    lines, separator = table_rows(path, COLUMNS)
    if not lines:
        raise DataError(f"{path}: empty")
    names = [cell_key(cell) for cell in lines[0][1]]
    _check_columns(names, path, labelled)
    rows = []
    for number, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise DataError(
                f"{path} line {number}: {len(cells)} cells under {len(names)} column names"
                f" (a cell with {separator!r} in it needs quotation marks)"
            )
        rows.append((number, known_cells(zip(names, cells, strict=False))))
    if not rows:
        raise DataError(f"{path}: a header and no row")
    return rows, "." if separator == "," else ","


def known_cells(cells: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The cells of a row by the names that are used here; those of unknown columns are left out."""
    row = {name: cell.strip() for name, cell in cells if name in COLUMNS}
    for name, accepted in {"path": PATHS, "label": LABELS, **TIMES}.items():
        row[name] = next((row[key] for key in accepted if row.get(key)), "")
    return row


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
            for key in TIMES
        )
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{where}: end_s {end:g} is not after start_s {start or 0.0:g}")
    return replace(clip, start_s=start, end_s=end)


def _frame(cell: str, column: str) -> int | None:
    if not cell:
        return None
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
    name = row["path"]
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
