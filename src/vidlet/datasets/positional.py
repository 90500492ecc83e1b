"""Lists without a header, as toolboxes for videos write them: a clip a line, and its class behind it.

    train_list.txt    videos/a.mp4 0          val.csv       b.mp4 1
    labels.txt        a.mp4<tab>jump          ucf101_train_split_1_rawframes.txt    Archery/v_01 120 0

Cells are separated by tabs, semicolons, commas or spaces. A number between a folder of frames and its class counts the
frames. Numbers are called by a list of names beside them (classes.txt, label_map.txt), else by the folders of their
clips where each class has one of its own. Source: the annotation files of TSN and MMAction2.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DataError
from .csv_table import COLUMNS
from .listed import Listed, folders_near, listed_table
from .media import VIDEO_SUFFIXES, Media
from .table import ClipTable, split_in_name
from .texts import cell_key, first_lines, numbered_names, text_lines

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
