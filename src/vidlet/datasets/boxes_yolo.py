"""Boxes as YOLO's text files write them: a line "class x y width height" a box, relative to the image, by its center.

    root/images/train/a.jpg, root/labels/train/a.txt      root/train/images/a.jpg, root/train/labels/a.txt
    root/a.jpg, root/a.txt                                root/train.txt (a list of images), root/obj.names

The split is what a folder is named for, or the list that names the image. The classes' names are those of data.yaml,
of a .names file or of classes.txt; without any they are called by their numbers. An image without a text file shows
nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DataError
from .box_table import BoxGatherer, BoxTable, Written
from .media import is_image, visible
from .table import SPLITS, split_name

NAME_FILES = ("classes.txt", "labels.txt", "labels/classes.txt")
MAX_DEPTH = 4


def is_yolo(root: Path) -> bool:
    """Whether a folder holds images with YOLO's text files."""
    return any(_text_of(path, root).is_file() for path in _images(root))


def read_yolo(root: Path) -> BoxTable:
    """Read a folder of images with text files.

    Raises:
        DataError: no image can be used, or data.yaml's names cannot be understood.
    """
    names = class_names(root)
    found = BoxGatherer(root, "yolo", names)
    listed = _lists(root)
    empty, left_out, largest = 0, 0, -1
    for path in _images(root):
        split = _split_of(path, root, listed)
        if listed and not split:
            left_out += 1
            continue
        text = _text_of(path, root)
        boxes: list[Written] = []
        if text.is_file():
            boxes, number = _boxes(text, names, found)
            largest = max(largest, number)
        empty += not text.is_file()
        found.add(path, boxes, split)
    if names is None:
        found.names = [str(i) for i in range(largest + 1)]
        found.notes.append("No list of class names was found (data.yaml, *.names, classes.txt): numbers are used.")
    if left_out:
        found.notes.append(f"{left_out} images are in none of the lists and were left out.")
    if empty:
        found.notes.append(f"{empty} images have no text file: they count as showing nothing.")
    return found.table()


def class_names(root: Path) -> list[str] | None:
    """Names in the order of their numbers; None where no file lists them."""
    for path in [*visible(root)] if root.is_dir() else []:
        if path.suffix.lower() in (".yaml", ".yml") and (names := _yaml_names(path)):
            return names
    files = [path for path in visible(root) if path.suffix.lower() == ".names"]
    files += [root / name for name in NAME_FILES if (root / name).is_file()]
    if not files:
        return None
    return [line.strip() for line in _text(files[0]).splitlines() if line.strip()]


def _yaml_names(path: Path) -> list[str]:
    """The entry ``names`` of a data.yaml: [a, b], a block of "- a", or of "0: a"; [] where there is none."""
    text = _text(path)
    if match := re.search(r"^names\s*:\s*\[(.*?)\]", text, re.MULTILINE | re.DOTALL):
        return [_plain(part) for part in match[1].replace("\n", " ").split(",") if part.strip()]
    if match := re.search(r"^names\s*:\s*\{(.*?)\}", text, re.MULTILINE | re.DOTALL):
        return _numbered([part.strip() for part in match[1].replace("\n", " ").split(",") if part.strip()], path)
    match = re.search(r"^names\s*:\s*(?:#.*)?\n((?:[ \t]*(?:-|\d+\s*:)[^\n]*(?:\n|$)|\s*\n)+)", text, re.MULTILINE)
    lines = [line.strip() for line in match[1].splitlines() if line.strip()] if match else []
    if lines and all(line.startswith("-") for line in lines):
        return [_plain(line[1:]) for line in lines]
    return _numbered(lines, path)


def _numbered(lines: list[str], path: Path) -> list[str]:
    pairs: dict[int, str] = {}
    for line in lines:
        number, _, name = line.partition(":")
        if not number.strip().isdecimal():
            raise DataError(f"{path}: names: {line!r} is neither '- name' nor 'number: name'")
        pairs[int(number)] = _plain(name)
    if sorted(pairs) != list(range(len(pairs))):
        raise DataError(f"{path}: names must be numbered 0, 1, 2 ..., got {sorted(pairs)[:8]}")
    return [pairs[i] for i in range(len(pairs))]


def _plain(name: str) -> str:
    """A YAML scalar without its quotes or the remark behind it."""
    name = name.strip()
    if len(name) > 1 and name[0] in "\"'" and (end := name.find(name[0], 1)) > 0:
        return name[1:end]
    return name.split(" #")[0].strip()


def _boxes(path: Path, names: list[str] | None, found: BoxGatherer) -> tuple[list[Written], int]:
    """The boxes of a text file, and the largest class number in it."""
    boxes: list[Written] = []
    largest = -1
    for line in _text(path).splitlines():
        cells = line.split()
        if not cells:
            continue
        try:
            number = int(cells[0])
            x, y, width, height = (float(cell) for cell in cells[1:])
        except ValueError:
            found.drop(path, f"line {line[:60]!r}: not 'class x y width height'")
            continue
        if number < 0 or (names is not None and number >= len(names)):
            most = len(names or []) - 1
            found.drop(path, f"line {line[:60]!r}: class {number} is not in the list of classes (0 to {most})")
            continue
        largest = max(largest, number)
        label = str(number) if names is None else names[number]
        boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2, label, False))
    return boxes, largest


def _images(root: Path) -> list[Path]:
    """Images below a folder, by name, at most four folders deep."""
    found: list[Path] = []
    level = [root]
    for _ in range(MAX_DEPTH):
        entries = [entry for folder in level for entry in visible(folder)]
        found += [entry for entry in entries if is_image(entry)]
        level = [entry for entry in entries if entry.is_dir()]
    return sorted(found)


def _text_of(image: Path, root: Path) -> Path:
    """The text file of an image: the folder "images" nearest to it becomes "labels", or it lies beside."""
    parts = list(image.relative_to(root).parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() == "images":
            other = root.joinpath(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
            return other if other.is_file() or not image.with_suffix(".txt").is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


def _lists(root: Path) -> dict[str, str]:
    """Name of an image file -> its split, from train.txt, val.txt (valid.txt) and test.txt; {} without them."""
    listed: dict[str, str] = {}
    for path in visible(root):
        split = split_name(path.stem) if path.suffix.lower() == ".txt" else None
        if not split or split not in SPLITS:
            continue
        for line in _text(path).splitlines():
            name = line.strip().replace("\\", "/").rpartition("/")[2]
            if name and listed.setdefault(name, split) != split:
                raise DataError(f"{path}: {name} is listed in {listed[name]} too")
    return listed


def _split_of(image: Path, root: Path, listed: dict[str, str]) -> str:
    if listed:
        return listed.get(image.name, "")
    return next((split for part in image.relative_to(root).parts[:-1] if (split := split_name(part))), "")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error
