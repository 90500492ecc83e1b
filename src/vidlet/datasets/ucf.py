"""UCF101 with its official lists, and UCF11. The groups, recordings of one scene, stand in the names of the files.

Both number the groups of each class from 1 to 25. The groups of a number are one group here, in whichever class: that
is how UCF101's lists split them, and how UCF11 is evaluated (25 folds, each of which tests all classes).

Source: Soomro et al. 2012, arXiv:1212.0402 (v_ApplyEyeMakeup_g08_c01.avi is clip 1 of group 8 of its class; three
lists of train and test); Liu et al. 2009, "Recognizing Realistic Actions from Videos in the Wild" (UCF11:
basketball/v_shooting_01/v_shooting_01_01.mpg).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from .folders import read_folders
from .listed import Listed, folders_near, listed_table
from .media import visible
from .table import ClipTable
from .texts import text_lines

CLASSES = "classInd.txt"
LIST = re.compile(r"(train|test)list0([123])\.txt")
FILE = re.compile(r"v_(\w+?)_g(\d+)_c\d+")
GROUP_FOLDER = re.compile(r"v_\w+_(\d\d)")


def ucf101_lists(path: Path) -> tuple[Path, int] | None:
    """The folder of the official lists and the number of the split, if ``path`` means them.

    A list itself ("testlist02.txt") means its split; the folder of the lists, or the one above, means split 1.
    """
    if path.is_file():
        found = LIST.fullmatch(path.name)
        return (path.parent, int(found[2])) if found and (path.parent / CLASSES).is_file() else None
    for folder in (path, *(entry for entry in visible(path) if entry.is_dir())):
        if (folder / CLASSES).is_file() and (folder / "trainlist01.txt").is_file():
            return folder, 1
    return None


def read_ucf101(lists: Path, split: int, root: Path) -> ClipTable:
    """Read one of the three splits of UCF101.

    Raises:
        DataError: a list names a class that classInd.txt does not, or no video is there (says how many are missing).
    """
    known = {line.split(maxsplit=1)[-1] for _, line in text_lines(lists / CLASSES)}

    def rows() -> Iterator[Listed]:
        for name in ("train", "test"):
            path = lists / f"{name}list0{split}.txt"
            for number, line in text_lines(path):
                video = line.split()[0]
                label, _, file = video.partition("/")
                if label not in known or not (match := FILE.match(file)):
                    raise DataError(f"{path} line {number}: {video!r} is not CLASS/v_CLASS_g01_c01.avi of {CLASSES}")
                yield Listed((video, file), label, f"g{match[2]}", name)

    listed = list(rows())
    first = {row.label for row in listed}
    bases = [folder for folder in folders_near(lists) if any((folder / label).is_dir() for label in first)]
    note = f"Official split {split} of UCF101; for another give its list: {lists / f'testlist0{1 + split % 3}.txt'}"
    return listed_table(listed, root, bases or folders_near(lists)[:3], "UCF101", (note,))


def is_ucf11(path: Path) -> bool:
    """Whether a folder's classes hold folders v_NAME_01 of groups, as UCF11's do."""
    classes = [entry for entry in visible(path) if entry.is_dir()]
    inside = [entry.name for folder in classes[:3] for entry in visible(folder) if entry.is_dir()]
    return bool(inside) and sum(bool(GROUP_FOLDER.fullmatch(name)) for name in inside) >= 0.5 * len(inside)


def read_ucf11(path: Path) -> ClipTable:
    """A folder per class with a folder per group: v_biking_01 and v_shooting_01 are both group 01.

    The folders of annotations are left out.
    """
    table = read_folders(path)
    clips = tuple(
        replace(clip, group=match[1]) if (match := GROUP_FOLDER.fullmatch(clip.group)) else clip for clip in table
    )
    skipped = tuple(item for item in table.skipped if Path(item[0]).name.casefold() != "annotation")
    notes = tuple(note for note in table.notes if ".xgtf" not in note)
    return replace(table, clips=clips, skipped=skipped, notes=notes)


def with_ucf_groups(table: ClipTable) -> ClipTable:
    """Groups from the names of the files, where all clips are called v_CLASS_g01_c01 and none has a group."""
    matches = [FILE.match(clip.path.name) for clip in table]
    if not matches or not all(matches) or any(clip.group for clip in table):
        return table
    clips = [replace(clip, group=f"g{match[2]}") for clip, match in zip(table, matches, strict=True) if match]
    return replace(table, clips=tuple(clips), notes=(*table.notes, "Groups were read from the names (g01, g02, ...)."))
