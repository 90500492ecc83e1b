"""Boxes as COCO writes them: one JSON file a split, with images, categories and annotations.

    root/annotations/instances_train2017.json, root/train2017/a.jpg    (or images/ or images/train2017/)
    root/train/_annotations.coco.json, root/train/a.jpg
    any.json beside its images, or with a folder images/ beside it

``iscrowd`` counts as "difficult". The order of the classes is that of the categories' ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DataError
from .box_table import BoxGatherer, BoxTable, Written
from .media import visible
from .table import SPLITS, split_name

SNIFF_BYTES = 2**16


def coco_files(path: Path) -> list[Path]:
    """The annotation files of a folder (or the file itself); [] where there are none."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    folders = [path, *(entry for entry in visible(path) if entry.is_dir())]
    files = [entry for folder in folders for entry in visible(folder) if entry.suffix.lower() == ".json"]
    return [file for file in files if _looks_right(file)]


def read_coco(root: Path) -> BoxTable:
    """Read a COCO file or a folder of them.

    Raises:
        DataError: no such file, not JSON, without images or categories, or files with different categories.
    """
    folder = root if root.is_dir() else root.parent
    names: dict[int, str] | None = None
    found = BoxGatherer(folder, "coco", None)
    for file in coco_files(root):
        data = _load(file)
        categories = _categories(data, file)
        if names is not None and categories != names:
            raise DataError(f"{file}: has other categories than the file before it")
        names = categories
        found.names = [names[key] for key in sorted(names)]
        _read_file(file, data, names, found)
    return found.table()


def _looks_right(path: Path) -> bool:
    """Whether a JSON file names images and annotations; the keys may stand behind the first part of a large file."""
    if "coco" in path.name or path.name.startswith("instances"):
        return True
    try:
        with path.open("rb") as handle:
            head = handle.read(SNIFF_BYTES)
            handle.seek(max(0, path.stat().st_size - SNIFF_BYTES))
            return sum(key in head + handle.read() for key in (b'"images"', b'"annotations"', b'"categories"')) >= 2
    except OSError:
        return False


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a COCO file ({str(error)[:80]})") from error
    for key in ("images", "categories", "annotations"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(f"{path}: not a COCO file (it has no list {key!r})")
    return data


def _categories(data: dict[str, Any], path: Path) -> dict[int, str]:
    """Id -> name."""
    names: dict[int, str] = {}
    for item in data["categories"]:
        if not isinstance(item, dict) or not isinstance(item.get("id"), int) or not item.get("name"):
            raise DataError(f"{path}: a category without id or name: {str(item)[:60]}")
        if item["id"] in names:
            raise DataError(f"{path}: category {item['id']} stands twice")
        names[item["id"]] = str(item["name"])
    return names


def _read_file(path: Path, data: dict[str, Any], names: dict[int, str], found: BoxGatherer) -> None:
    split = _split_of(path)
    boxes: dict[Any, list[Written]] = {}
    known = {item.get("id") for item in data["images"] if isinstance(item, dict)}
    for item in data["annotations"]:
        try:
            x, y, width, height = (float(value) for value in item["bbox"])
            owner, category, crowd = item["image_id"], item["category_id"], bool(item.get("iscrowd", 0))
            unknown = owner not in known
        except (TypeError, ValueError, KeyError):
            found.drop(path, f"annotation {str(item)[:60]}: no bbox, image_id or category_id")
            continue
        if unknown:
            found.drop(path, f"annotation of image {owner}: the file lists no such image")
        elif category not in names:
            found.drop(path, f"annotation of image {owner}: the file lists no category {category}")
        else:
            boxes.setdefault(owner, []).append((x, y, x + width, y + height, names[category], crowd))
    for item in data["images"]:
        try:
            name, written = str(item["file_name"]), (float(item.get("height", 0)), float(item.get("width", 0)))
            found.add(_picture(path, name, found.root), boxes.get(item["id"], []), split, written)
        except (TypeError, ValueError, KeyError):
            found.skip(path, f"image {str(item)[:60]}: no file_name, id or size")


def _split_of(path: Path) -> str:
    if split := split_name(path.parent.name):
        return split
    return next((split for split in SPLITS if split in path.stem.lower()), "")


def _picture(path: Path, name: str, root: Path) -> Path:
    """Where an image of a file lies: beside it, or in one of the usual folders; never above the root."""
    inner = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    stem = path.stem.replace("instances_", "")
    folders = [path.parent, root, root / stem, root / "images", root / "images" / stem, path.parent / "images"]
    for folder in folders:
        for part in (Path(*inner), Path(inner[-1])) if inner else ():
            if (folder / part).is_file():
                return folder / part
    return path.parent / (Path(*inner) if inner else "")
