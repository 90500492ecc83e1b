"""HMDB51 with its official splits. The group of a clip is the film that it was cut from, which its name begins with.

Source: Kuehne et al. 2011, "HMDB: a large video database for human motion recognition"; files
brush_hair_test_split1.txt list NAME.avi and 1 (train), 2 (test) or 0 (not used).
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DataError
from .listed import Listed, folders_near, listed_table
from .media import visible
from .table import ClipTable
from .texts import text_lines

LIST = re.compile(r"(\w+)_test_split([123])\.txt")
SPLITS = {"1": "train", "2": "test", "0": ""}


def hmdb51_lists(path: Path) -> tuple[Path, int] | None:
    """The folder of the official lists and the number of the split, if ``path`` means them; a folder means split 1."""
    if path.is_file():
        found = LIST.fullmatch(path.name)
        return (path.parent, int(found[2])) if found else None
    for folder in (path, *(entry for entry in visible(path) if entry.is_dir())):
        if any(LIST.fullmatch(entry.name) for entry in visible(folder)):
            return folder, 1
    return None


def read_hmdb51(lists: Path, split: int, root: Path) -> ClipTable:
    """Read one of the three splits of HMDB51; clips that it does not use are left out.

    Raises:
        DataError: a line that is none, or no video is there (says how many are missing).
    """
    rows: list[Listed] = []
    unused = 0
    for path in sorted(lists.iterdir()):
        found = LIST.fullmatch(path.name)
        if not found or int(found[2]) != split:
            continue
        label = found[1]
        for number, line in text_lines(path):
            name, _, mark = line.rpartition(" ")
            if mark not in SPLITS or not name:
                raise DataError(f"{path} line {number}: {line!r} is not NAME.avi and 0, 1 or 2")
            if not SPLITS[mark]:
                unused += 1
                continue
            rows.append(Listed((f"{label}/{name.strip()}", name.strip()), label, source_of(name, label), SPLITS[mark]))
    labels = {row.label for row in rows}
    bases = [folder for folder in folders_near(lists) if any((folder / label).is_dir() for label in labels)]
    notes = [f"Official split {split} of HMDB51; {unused:,} clips that it does not use were left out."]
    return listed_table(rows, root, bases or folders_near(lists)[:3], "HMDB51", notes)


def source_of(name: str, label: str) -> str:
    """The film of a clip: "April_09_brush_hair_u_nm_np1_ba_goo_0.avi" of brush_hair -> "April_09"."""
    film, found, _ = name.partition(f"_{label}_")
    return film if found else ""
