"""Boxes as labelme writes them: a .json beside each image, with shapes and the name of the image.

    root/a.jpg, root/a.json        root/train/a.jpg, root/train/a.json

Of rectangles, polygons and circles the box around their points is taken; single points and lines are no boxes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DataError, reading
from .box_table import BoxGatherer, BoxTable, Pictures, Written, split_of_place
from .media import visible
from .texts import begins_with, read_text

MOST_BYTES = 2**28  # the picture stands in it as text
MOST_DEPTH = 4
SNIFFED = 5  # files that are looked at
NO_AREA = ("point", "line", "linestrip", "points")


def labelme_files(root: Path) -> list[Path]:
    """The .json files of a folder of images, or the file, if the first of them are of labelme; else []."""
    if root.is_file():
        return [root] if begins_with(root, b"{", [b'"shapes"']) and _is_labelme(root) else []
    found: list[Path] = []
    level = [root] if root.is_dir() else []
    for _ in range(MOST_DEPTH):
        entries = [entry for folder in level for entry in visible(folder)]
        found += [entry for entry in entries if entry.suffix.lower() == ".json" and entry.is_file()]
        level = [entry for entry in entries if entry.is_dir()]
    return found if any(_is_labelme(path) for path in found[:SNIFFED]) else []


def read_labelme(root: Path) -> BoxTable:
    """Read a folder of labelme's files.

    Raises:
        DataError: no image can be used.
    """
    found = BoxGatherer(root if root.is_dir() else root.parent, "labelme", None)
    pictures, without = Pictures(found.root, found.several), 0
    for path in labelme_files(root):
        try:
            said = _load(path)
            boxes = [box for shape in said["shapes"] if (box := _box(shape)) is not None]
            size = (float(said.get("imageHeight") or 0), float(said.get("imageWidth") or 0))
            if not isinstance(said["imagePath"], str):
                raise ValueError("imagePath is no text")
        except DataError as error:
            found.skip(path, str(error).removeprefix(f"{path}: "))
            continue
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            found.skip(path, "not labelme's: it needs shapes of a label and points, and imagePath")
            continue
        place = pictures.find_one((path.with_suffix("").name, said["imagePath"]), path)
        split = split_of_place(path, found.root)
        without += len(said["shapes"]) - len(boxes)
        if said["shapes"] and not boxes:
            found.skip(place, f"none of its {len(said['shapes'])} shapes has an area")
        else:
            found.add(place, boxes, split, size)
    if without:
        found.notes.append(f"{without} shapes are points or lines, which are no boxes, and were left out.")
    return found.table()


def _is_labelme(path: Path) -> bool:
    try:
        said = _load(path)
    except DataError:
        return False
    return isinstance(said.get("shapes"), list) and "imagePath" in said


def _load(path: Path) -> dict[str, Any]:
    with reading(path, "a labelme file"):
        said = json.loads(read_text(path, MOST_BYTES))
    return said if isinstance(said, dict) else {}


def _box(shape: dict[str, Any]) -> Written | None:
    """The box around the points of a shape; of a circle, which has a center and a point on it, around the circle."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind in NO_AREA:
        return None
    across, down = [float(x) for x, _ in points], [float(y) for _, y in points]
    if kind == "circle":
        radius = ((across[0] - across[1]) ** 2 + (down[0] - down[1]) ** 2) ** 0.5
        across, down = [across[0] - radius, across[0] + radius], [down[0] - radius, down[0] + radius]
    if not isinstance(shape["label"], str):
        raise ValueError("a label is no text")
    return (min(across), min(down), max(across), max(down), shape["label"].strip(), False)
