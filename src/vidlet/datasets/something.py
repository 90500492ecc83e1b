"""Something-Something and Jester: lists of numbered clips with labels, beside numbered videos or folders of frames.

Source: Goyal et al. 2017, arXiv:1706.04261 (something-something-v2-train.json: id, label, template); Materzynska et al.
2019, "The Jester Dataset" (jester-v1-train.csv: id;label; a folder of frames 00001.jpg a clip). The class of a clip of
Something-Something is its template, "Holding [something]" without the brackets.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from ..errors import DataError
from .listed import Listed, folders_near, listed_table
from .table import ClipTable, split_name
from .texts import text_lines

LIST = re.compile(r"(?:[\w.-]*(?:something|jester|20bn)[\w.-]*-)(train|training|val|validation|test)\.(json|csv)", re.I)


def numbered_lists(path: Path) -> dict[str, Path]:
    """The lists by split that ``path`` is one of or that lie in it, or in its folder of labels or annotations."""
    folders = [path.parent] if path.is_file() else [path, path / "labels", path / "annotations"]
    if path.is_file() and not LIST.fullmatch(path.name):
        return {}
    for folder in folders:
        found: dict[str, Path] = {}
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            match = LIST.fullmatch(entry.name)
            if match and (split := split_name(match[1])):
                found[split] = entry
        if "train" in found or "val" in found:
            return found
    return {}


def read_numbered(lists: dict[str, Path], root: Path) -> ClipTable:
    """Read the lists; clips without a label (of a hidden test set) are left out.

    Raises:
        DataError: a list that is none, or no clip is there (says how many are missing).
    """
    rows: list[Listed] = []
    hidden = 0
    for split, path in lists.items():
        for name, label in _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path):
            if not label:
                hidden += 1
                continue
            rows.append(Listed((name,), label, "", split))
    folder = next(iter(lists.values())).parent
    notes = [f"{hidden:,} clips of the lists have no label and were left out."] if hidden else []
    what = "Jester" if any("jester" in path.name.casefold() for path in lists.values()) else "Something-Something"
    return listed_table(rows, root, folders_near(folder), what, notes)


def _json_rows(path: Path) -> list[tuple[str, str]]:
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) and "id" in item for item in found):
        raise DataError(f"{path}: expected a list of objects with id and template (or label)")
    return [(str(item["id"]), class_of(item)) for item in found]


def class_of(item: dict[str, Any]) -> str:
    """The class of a clip: its template without brackets, else its label, "" where it has neither."""
    return re.sub(r"[\[\]]", "", str(item.get("template") or item.get("label") or "")).strip()


def _csv_rows(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in text_lines(path):
        mark = ";" if ";" in line else ","
        cells = next(csv.reader([line], delimiter=mark))
        if number == 1 and not cells[0].strip().isdigit():
            continue  # a header
        rows.append((cells[0].strip(), cells[1].strip() if len(cells) > 1 else ""))
    return rows
