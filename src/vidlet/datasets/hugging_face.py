"""Hugging Face's VideoFolder: metadata.csv, .jsonl or .parquet beside the videos, one or one a split.

Source: huggingface.co/docs/datasets/video_load: a column ``file_name``, relative to the file; other columns are those
of our own tables (label, group, split, start, end). Splits are the names of the folders. Where labels are numbers,
their names are those that the Parquet file's own description or README.md has.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import DataError, reading
from ..labels import label_order
from .csv_table import Rows, named_rows, stream_csv, table_of_rows
from .media import visible
from .table import ClipTable, split_name
from .texts import PARQUET, cell_text, parquet_file, read_text, text_lines

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SUFFIXES = (".jsonl", PARQUET)  # files of rows under any name
DEPTH = 2  # folders in folders in which metadata lie


def metadata_files(path: Path) -> list[Path]:
    """The files of rows that ``path`` is or that lie in it, in DATA/train or DATA/data/train."""
    if path.is_file():
        return [path] if path.name in NAMES or path.suffix.lower() in SUFFIXES else []
    found, level = [], [path] if path.is_dir() else []
    for _ in range(DEPTH + 1):
        found += [folder / name for folder in level for name in NAMES if (folder / name).is_file()]
        inside = (entry for folder in level for entry in visible(folder) if _may_hold(entry.name)) if not found else ()
        level = [entry for entry in inside if entry.is_dir()]
    return found


def _may_hold(name: str) -> bool:
    """Whether metadata may lie in a folder of this name: thousands of others are not looked into."""
    return name.casefold() == "data" or bool(split_name(name))


def read_metadata(files: list[Path], path: Path) -> ClipTable:
    """Read the rows of all files, found at ``path``, as one table.

    Raises:
        DataError: a file that is no table, no label, or no video is there; DependencyError: Parquet without pyarrow.
    """
    tables, root = [], path if path.is_dir() else path.parent
    for file in files:
        (rows, decimal, told), names = _rows(file)
        names = names or _names_of_card(file.parent, root)
        named = ((line, {**row, "label": _named(row["label"], names)}) for line, row in rows)
        table = table_of_rows(named, decimal, file)
        table = replace(table, notes=(*table.notes, *told))
        folders = [folder.name for folder in (file.parent, *file.parent.parents) if folder.is_relative_to(root)]
        split = next((name for folder in folders[: DEPTH + 1] if (name := split_name(folder))), "")
        tables.append(table.with_clips(replace(clip, split=clip.split or split) for clip in table))
    if len(tables) == 1:
        return tables[0]
    clips = tuple(clip for table in tables for clip in table)
    labels = label_order((name for clip in clips for name in clip.labels), str(root))
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return ClipTable(clips, labels, root, notes, tuple(row for table in tables for row in table.skipped))


def _rows(file: Path) -> tuple[Rows, list[str]]:
    """The rows of a file, and the names of its labels where it tells them."""
    if file.suffix.lower() != ".jsonl":
        return stream_csv(file), _names_in_parquet(file) if file.suffix.lower() == PARQUET else []
    found = _json_lines(file)
    keys = list(dict.fromkeys(key for _, row in found for key in row))
    lines = [(line, [cell_text(row.get(key)) for key in keys]) for line, row in found]
    named = named_rows([key.casefold() for key in keys], lines, lambda: lines, ",", file)
    rows = list(named.rows)
    if not any(row["path"] for _, row in rows) or not any(row["label"] for _, row in rows):
        columns = ", ".join(list(found[0][1])[:12]) if found else "none"
        raise DataError(f"{file}: needs file_name (or path) and label in its rows (found: {columns})")
    return named._replace(rows=rows), []


def _json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in text_lines(file):
        with reading(f"{file} line {number}", "a JSON object"):
            row = json.loads(line)
        if not isinstance(row, dict):
            raise DataError(f"{file} line {number}: not a JSON object")
        rows.append((number, row))
    return rows


def _names_in_parquet(file: Path) -> list[str]:
    """The names of numbered labels that a Parquet file tells; [] where it tells none."""
    with reading(file, "a Parquet file"):
        told = json.loads((parquet_file(file).schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        label = told.get("info", {}).get("features", {}).get("label", {})
        return [str(name) for name in label.get("names") or []]


def _names_of_card(folder: Path, root: Path) -> list[str]:
    """The names of numbered labels in the head of README.md; [] where it has none."""
    card = next((place / "README.md" for place in (folder, root) if (place / "README.md").is_file()), None)
    if card is None:
        return []
    text = read_text(card)
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    with reading(card, "a card with a readable head"):
        told = yaml.safe_load(head) or {}
    info = told.get("dataset_info") if isinstance(told, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    for feature in features if isinstance(features, list) else []:
        kind = feature.get("dtype") if isinstance(feature, dict) and feature.get("name") == "label" else None
        names = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
        if isinstance(names, dict):
            return [str(names[key]) for key in sorted(names, key=int)]
    return []


def _named(label: str, names: list[str]) -> str:
    return names[int(label)] if label.isdecimal() and len(label) < 9 and int(label) < len(names) else label
