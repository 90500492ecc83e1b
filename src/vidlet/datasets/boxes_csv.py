"""Boxes as tables, text or Parquet: a row a box, as TensorFlow's tutorial, Roboflow, Kaggle and Open Images have them.

    filename,width,height,class,xmin,ymin,xmax,ymax        train_labels.csv, train/_annotations.csv
    image_id,width,height,"[x, y, w, h]"                    ImageID,LabelName,XMin,XMax,YMin,YMax (relative)
    image_name,BoxesString ("x1 y1 x2 y2;x1 y1 x2 y2", or "no_box")
    images/a.jpg,10,20,30,40,cat                            keras-retinanet's, without a header; "b.jpg,,,,," is empty

Without a column of classes everything is an "object". The split is a column's, else that of the table's name or of its
folder's.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError, DependencyError
from .box_table import BoxGatherer, BoxTable, Pictures, Written, image_size, relative
from .media import is_image, visible
from .table import folder_split, split_in_name, split_name
from .texts import PARQUET, SEPARATORS, TABLES, cell_key, parquet_file, table_rows

ONLY_CLASS = "object"
IMAGE = (
    "filename",
    "file_name",
    "file",
    "image_id",
    "imageid",
    "image_path",
    "image_name",
    "image",
    "img",
    "path",
    "name",
    *("frame", "img_id", "img_name", "img_path", "image_file", "file_path", "filepath", "fname", "patientid"),
)
LABEL = (
    *("class_name", "classname", "category_name", "label_name", "labelname", "class", "label", "category", "name"),
    *("class_id", "classid", "category_id", "label_id", "labelid"),
)
NOTHING = ("", "nan", "none", "null", "no_box")  # cells of an image that shows nothing
PLAIN = ("path", "x1", "y1", "x2", "y2", "class_name")  # the columns of a table without a header
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"), ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"), ("x0", "y0", "x1", "y1"), ("roi.x1", "roi.y1", "roi.x2", "roi.y2"),
    ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"), ("boxesstring",), ("boxes_string",),
)  # fmt: skip
SIDES = (
    ("x", "y", "w", "h"), ("x", "y", "width", "height"), ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("left", "top", "width", "height"), ("xmin", "ymin", "w", "h"), ("xmin", "ymin", "width", "height"),
    ("x_min", "y_min", "w", "h"), ("x_min", "y_min", "width", "height"),
)  # fmt: skip
# One column of x, y, width, height, of two corners (see ``_are_corners``), or of the corners around.
LISTS = ("bbox", "box", "bounding_box", "geometry", "polygon")
SLACK = 1.01  # pixels by which a box may reach outside of its image, as boxes are judged
CENTERS = (
    ("x_center", "y_center", "width", "height"), ("x_center", "y_center", "w", "h"), ("xc", "yc", "w", "h"),
    ("center_x", "center_y", "width", "height"), ("cx", "cy", "w", "h"), ("x_center", "y_center", "box_w", "box_h"),
)  # fmt: skip
SPLIT = ("split", "subset", "set", "usage")
HEADER_BYTES = 4096
FOUND = (".csv", ".tsv", PARQUET)  # beside images; a text is more likely a list


class _Columns(NamedTuple):
    image: str
    labels: tuple[str, ...]  # the first is read that holds more than numbers, else the first
    corners: tuple[str, ...]  # four names, or one of a list "[x, y, w, h]", or of several
    sides: bool  # whether the third and fourth are width and height
    centers: bool  # whether, beside that, the first two are the center
    split: str


def box_tables(path: Path) -> list[Path]:
    """The tables of boxes of a folder or one below, or the table itself; [] where there are none."""
    if path.is_file():
        return [path] if path.suffix.lower() in TABLES and _header(path) else []
    folders = [path, *(entry for entry in visible(path) if entry.is_dir())]
    tables = [entry for folder in folders for entry in visible(folder) if entry.suffix.lower() in FOUND]
    return [table for table in tables if table.is_file() and _header(table)]


def read_box_tables(root: Path) -> BoxTable:
    """Read tables of boxes; images are found by name, beside the table or anywhere below the folder.

    Raises:
        DataError: a table that is none, or no image of it is there.
    """
    folder = root if root.is_dir() else root.parent
    found = BoxGatherer(folder, "csv", None)
    pictures = Pictures(folder, found.several)
    described = _descriptions(folder)
    for table in box_tables(root):
        _read_table(table, pictures, described, found)
    return found.table()


def _descriptions(folder: Path) -> dict[str, str]:
    """The names of Open Images' classes: class-descriptions-boxable.csv, a line "/m/011k07,Tortoise" each."""
    files = [path for path in visible(folder) if re.fullmatch(r"class[-_]descriptions?.*\.csv", path.name.lower())]
    return {cells[0]: cells[1] for path in files for _, cells in table_rows(path)[0] if len(cells) == 2}


def _header(path: Path) -> _Columns | None:
    if path.suffix.lower() == PARQUET:
        try:
            return _columns([_key(name) for name in parquet_file(path).schema_arrow.names])
        except (DataError, DependencyError):  # told by who reads it
            return None
    try:
        with path.open("rb") as handle:
            data = handle.read(HEADER_BYTES)
    except OSError:
        return None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = data.decode(encoding, "replace").splitlines()
    first = next((line for line in lines if not line.lower().startswith("sep=")), "")
    found = (_columns([_key(cell) for cell in first.split(mark)]) for mark in SEPARATORS)
    plain = (_columns(PLAIN) for mark in SEPARATORS if _is_plain(first.split(mark)))
    return next((columns for columns in (*found, *plain) if columns is not None), None)


def _is_plain(cells: Sequence[str]) -> bool:
    """Whether the first line of a table is a box already: an image, four whole numbers or none, a class or none."""
    image, *corners, label = (cell.strip().strip('"') for cell in cells) if len(cells) == len(PLAIN) else ("", "")
    if not is_image(Path(image)):
        return False
    numbers = [corner.lstrip("-").replace(".", "", 1).isdecimal() for corner in corners]
    return bool(label) and all(numbers) if any(corners) else not label


def _key(cell: str) -> str:
    """A column's name as it is compared: "Image Name" is image_name."""
    return cell_key(cell).replace(" ", "_").replace("-", "_")


def _columns(names: Sequence[str]) -> _Columns | None:
    """Which columns say what, None where no box is in them."""
    image = next((name for name in IMAGE if name in names), "")
    corners: tuple[str, ...] = next((four for four in CORNERS if set(four) <= set(names)), ())
    sides: tuple[str, ...] = next(
        (four for four in (*CENTERS, *SIDES, *((name,) for name in LISTS)) if set(four) <= set(names)), ()
    )
    if corners:
        sides = ()
    if not image or not (corners or sides):
        return None
    labels = tuple(name for name in LABEL if name in names and name != image)
    split = next((name for name in SPLIT if name in names), "")
    return _Columns(image, labels, corners or sides, bool(sides), sides in CENTERS, split)


def _read_table(path: Path, pictures: Pictures, described: Mapping[str, str], found: BoxGatherer) -> None:
    known = {*IMAGE, *LABEL, *SPLIT, "bbox", "width", "height"}
    known |= {name for four in (*CORNERS, *SIDES, *CENTERS, LISTS) for name in four}
    rows, separator = table_rows(path, sorted(known))
    if rows and _is_plain(rows[0][1]):
        rows.insert(0, (0, list(PLAIN)))
    names = [_key(cell) for cell in rows[0][1]] if rows else []
    columns = _columns(names)
    if columns is None:
        raise DataError(f"{path}: needs columns of image and box, as filename, class, xmin, ymin, xmax, ymax")
    label = _label(columns, names, rows[1:])
    if not label:
        found.notes.append(f"{path.name} has no column of classes; every box is an {ONLY_CLASS!r}.")
    if columns.sides and len(columns.corners) == 1:
        corners = _are_corners(
            [dict(zip(names, cells, strict=False)) for _, cells in rows[1:]], columns, pictures, path
        )
        columns = columns._replace(sides=not corners)
        how = "x1, y1, x2, y2: as x, y, width, height a box would leave its image" if corners else "x, y, width, height"
        found.notes.append(f"{path.name}: four numbers in the column {columns.corners[0]!r} are {how}.")
    default = folder_split(path.parent.name) or split_in_name(path.stem)
    boxes: dict[str, list[Written]] = defaultdict(list)
    about: dict[str, tuple[str, tuple[float, float]]] = {}
    failed: dict[str, str] = {}
    for line, cells in rows[1:]:
        row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        image = row.get(columns.image, "")
        if not image:
            found.drop(path, f"line {line} names no image")
            continue
        split = split_name(row.get(columns.split, "")) if columns.split else ""
        if split is None:
            said = row[columns.split]
            raise DataError(f"{path} line {line}: {columns.split} {said!r} is none of train, val and test")
        about.setdefault(image, (split or default, _size(row, columns)))
        try:
            if any(cell.strip() for cell in cells[len(names) :]):
                raise ValueError(f"{len(cells)} cells under {len(names)} column names")
            for box in _boxes(row, columns, label, separator):
                boxes[image].append((*box[:4], described.get(box[4], box[4]), box[5]))
        except ValueError as error:
            wrong = str(error) if "cells" in str(error) else "no box of four numbers and a class"
            failed[image] = f"line {line}: {wrong}"
            found.drop(path, f"line {line} ({image}): {wrong}")
    whole = relative([corner for own in boxes.values() for box in own for corner in box[:4]])
    for image, (split, size) in about.items():
        place = pictures.find(image, path)
        if image in failed and not boxes[image]:
            found.skip(place, failed[image])
        else:
            found.add(place, boxes[image], split, None if whole else size)


def _label(columns: _Columns, names: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> str:
    """The column of classes, which of a number and a name beside each other is the name; "" where there is none."""
    for label in columns.labels:
        at = names.index(label)
        if any(not _is_number(cells[at]) for _, cells in rows if len(cells) > at):
            return label
    return columns.labels[0] if columns.labels else ""


def _is_number(cell: str) -> bool:
    return cell.strip().casefold() in NOTHING or cell.strip().lstrip("-").replace(".", "", 1).isdecimal()


def _are_corners(rows: Sequence[dict[str, str]], columns: _Columns, pictures: Pictures, path: Path) -> bool:
    """Whether cells of four numbers are two corners each, and not x, y, width, height.

    They are if by x, y, width, height a box would leave its image, and by corners none does.
    """
    found: list[tuple[list[float], str, tuple[float, float]]] = []
    for row in rows:
        for part in _parts(row.get(columns.corners[0], "")):
            with contextlib.suppress(ValueError):  # told by who reads it
                x1, y1, x2, y2 = map(float, _numbers(part))
                if x2 <= x1 or y2 <= y1:
                    return False
                found.append(([x1, y1, x2, y2], row.get(columns.image, "").strip(), _size(row, columns)))
    whole, leaves = relative([number for box, _, _ in found for number in box]), False
    sizes = {name: told for _, name, told in found}
    for name, told in sizes.items():
        if not whole and min(told) <= 0:
            with contextlib.suppress(DataError):  # absent: nothing leaves it
                sizes[name] = image_size(pictures.find(name, path))
    for (x1, y1, x2, y2), name, _ in found:
        height, width = (1.0, 1.0) if whole else sizes[name]
        slack = SLACK - 1 if whole else SLACK
        if min(height, width) <= 0:
            continue
        if x1 < -slack or y1 < -slack or x2 > width + slack or y2 > height + slack:
            return False
        leaves = leaves or x1 + x2 > width + slack or y1 + y2 > height + slack
    return leaves


def _boxes(row: dict[str, str], columns: _Columns, label_column: str, separator: str) -> list[Written]:
    """The boxes of a row; none where its cells are empty: an image that shows nothing."""
    one = columns.corners[0]
    parts = _parts(row.get(one, "")) if len(columns.corners) == 1 else [row.get(one, "")]
    found = (_box({**row, one: part}, columns, label_column, separator) for part in parts)
    return [box for box in found if box is not None]


def _parts(cell: str) -> list[str]:
    """The boxes of a cell, which are of four numbers each if they are several: "1 2 3 4;5 6 7 8"."""
    parts = [part for part in cell.split(";") if part.strip()]
    return parts if parts and all(len(_numbers(part)) == 4 for part in parts) else [cell]


def _numbers(cell: str) -> list[str]:
    return re.sub(r"[\[\](){};,\s]+", " ", cell).split()


def _box(row: dict[str, str], columns: _Columns, label_column: str, separator: str) -> Written | None:
    """The box of a row; None where its cells are empty."""
    texts = [row.get(name, "") for name in columns.corners]
    around = False
    if len(texts) == 1:
        texts = _numbers(texts[0]) or [""]
        around = len(texts) >= 6 and len(texts) % 2 == 0
    if all(text.casefold() in NOTHING for text in texts):
        return None
    if separator != ",":
        texts = [text.replace(",", ".") for text in texts]
    numbers = [float(text) for text in texts]
    if around:  # a polygon
        across, down = numbers[::2], numbers[1::2]
        numbers = [min(across), min(down), max(across), max(down)]
    x1, y1, x2, y2 = numbers
    if columns.centers:
        x1, y1 = x1 - x2 / 2, y1 - y2 / 2
    if columns.sides and not around:
        x2, y2 = x1 + x2, y1 + y2
    label = row.get(label_column, "") if label_column else ONLY_CLASS
    if not label:
        raise ValueError("no class")
    return (x1, y1, x2, y2, label, row.get("isgroupof") == "1")


def _size(row: dict[str, str], columns: _Columns) -> tuple[float, float]:
    """(height, width) that a row tells of its image; (0, 0) where it does not."""
    if {"width", "height"} & set(columns.corners):
        return 0.0, 0.0
    try:
        return float(row.get("height") or 0), float(row.get("width") or 0)
    except ValueError:
        return 0.0, 0.0
