"""Kinetics and Moments in Time: CSV tables of clips, the videos in folders by split and class.

Source: Kay et al. 2017, arXiv:1705.06950 (label,youtube_id,time_start,time_end,split; a clip is cut to
LABEL/ID_000010_000020.mp4, or its whole video lies there as ID.mp4); Monfort et al. 2019, arXiv:1801.03150
(trainingSet.csv: LABEL/FILE.mp4,LABEL,votes for,votes against; training/LABEL/FILE.mp4).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .listed import Listed, folders_near, listed_table
from .table import ClipTable, split_name
from .texts import text_lines

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
MOMENTS = {"trainingSet.csv": ("train", "training"), "validationSet.csv": ("val", "validation")}


def kinetics_tables(path: Path) -> list[Path]:
    """The tables with Kinetics' columns that ``path`` is or that lie in it (or in a folder annotations)."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".csv" and _has_columns(path) else []
    for folder in (path, path / "annotations"):
        if folder.is_dir() and (found := [t for t in sorted(folder.glob("*.csv")) if _has_columns(t)]):
            return found
    return []


def _has_columns(path: Path) -> bool:
    with path.open("rb") as stream:
        header = stream.readline(4096).decode("utf-8", "replace")
    names = {cell.strip().strip('"').casefold() for cell in header.split(",")}
    return set(COLUMNS[:3]) <= names


def read_kinetics(tables: list[Path], root: Path) -> ClipTable:
    """Read Kinetics' tables: trimmed clips, or parts of whole videos; the group is the video.

    Raises:
        DataError: a row without times, an unknown split, or no video is there (says how many are missing).
    """
    rows = [row for table in tables for row in _kinetics_rows(table)]
    bases = list(dict.fromkeys(base for table in tables for base in folders_near(table.parent)))
    return listed_table(rows, root, bases, "Kinetics")


def _kinetics_rows(table: Path) -> Iterator[Listed]:
    text = "\n".join(line for _, line in text_lines(table))
    for number, raw in enumerate(csv.DictReader(io.StringIO(text)), 2):
        row = {(key or "").strip().casefold(): (value or "").strip() for key, value in raw.items() if key}
        label, name = row.get("label", ""), row.get("youtube_id", "")
        if not label or not name:
            continue  # the test tables name no class
        word = row.get("split") or table.stem.split("_")[-1]
        split = split_name(word)
        if split is None:
            raise DataError(f"{table} line {number}: split {word!r} is none of train, val and test")
        try:
            start_s, end_s = float(row.get("time_start", "")), float(row.get("time_end", ""))
        except ValueError:
            raise DataError(f"{table} line {number}: time_start and time_end must be seconds") from None
        if not 0 <= start_s < end_s:
            raise DataError(f"{table} line {number}: time_end {end_s:g} is not after time_start {start_s:g}")
        trimmed = f"{name}_{int(start_s):06d}_{int(end_s):06d}.mp4"
        folders = [f"{word}/{label}/", f"{split}/{label}/", f"{label}/", f"{word}/", f"{split}/", ""]
        folders += [folder.replace(label, label.replace(" ", "_")) for folder in folders if label in folder]
        cut = tuple(dict.fromkeys(folder + trimmed for folder in folders))
        whole = tuple(dict.fromkeys(f"{folder}{name}.mp4" for folder in folders))
        yield Listed((*cut, *whole), label, name, split, start_s, end_s, whole)


def moments_tables(path: Path) -> list[Path]:
    """The tables of Moments in Time that ``path`` is or that lie in it."""
    if path.is_file():
        return [path] if path.name in MOMENTS else []
    return [path / name for name in MOMENTS if (path / name).is_file()]


def read_moments(tables: list[Path], root: Path) -> ClipTable:
    """Read the tables of Moments in Time; their clips are trimmed already, groups are not known.

    Raises:
        DataError: a row that is none, or no video is there (says how many are missing).
    """
    rows = []
    for table in tables:
        split, folder = MOMENTS[table.name]
        for number, line in text_lines(table):
            cells = next(csv.reader([line]))
            if len(cells) < 2 or "/" not in cells[0]:
                raise DataError(f"{table} line {number}: {line!r} is not LABEL/FILE.mp4,LABEL,...")
            rows.append(Listed((f"{folder}/{cells[0]}", cells[0]), cells[1], "", split))
    return listed_table(rows, root, [tables[0].parent], "Moments in Time")
