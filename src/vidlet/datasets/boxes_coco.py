"""Boxes as COCO writes them: one JSON file a split, with images, categories and annotations.

    root/annotations/instances_train2017.json, root/train2017/a.jpg    (or images/ or images/train2017/)
    root/train/_annotations.coco.json, root/train/a.jpg
    any.json beside its images, or with a folder images/ beside it

``iscrowd`` counts as "difficult". The order of the classes is that of the categories' ids; files whose categories
differ are joined by the names. Files of captions, key points and images without annotations, which lie beside COCO's
own boxes, are left out.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import DataError, reading
from ..labels import composed
from .box_table import BoxGatherer, BoxTable, Pictures, Written, is_there, relative
from .media import visible
from .table import folder_split, split_in_name
from .texts import read_text

LISTS = ("images", "categories", "annotations")
SNIFF_BYTES = 2**16
MOST_BYTES = 2**30  # of a file; COCO's own has 450 MB


def coco_files(path: Path) -> list[Path]:
    """The annotation files of a folder (or the file itself); [] where there are none."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    folders = [path, *(entry for entry in visible(path) if entry.is_dir())]
    files = [entry for folder in folders for entry in visible(folder) if entry.suffix.lower() == ".json"]
    own = [file for file in files if file.name.lower().startswith("instances")]
    return own or [file for file in files if looks_like_coco(file)]


def read_coco(root: Path) -> BoxTable:
    """Read a COCO file or a folder of them.

    Raises:
        DataError: no such file, not JSON, or without images, categories or annotations.
    """
    found = BoxGatherer(root if root.is_dir() else root.parent, "coco", [])
    names: list[str] = []
    found.names = names
    pictures = Pictures(found.root, found.several)
    files = coco_files(root)
    for file in files:
        data = _load(file)
        missing = [key for key in LISTS if not isinstance(data.get(key), list)]
        if missing and (len(files) == 1 or "images" in missing):
            raise DataError(f"{file}: not a COCO file (it has no list {missing[0]!r})")
        if missing:
            found.notes.append(f"{file.name} holds no boxes (it has no list {missing[0]!r}) and was not read.")
            continue
        categories = _categories(data, file)
        if names and set(categories.values()) != set(names):
            found.notes.append(f"{file.name} has other categories than the files before it; they are joined by name.")
        names += [name for name in categories.values() if name not in names]
        _read_file(file, data, categories, pictures, found)
    return found.table()


def looks_like_coco(path: Path) -> bool:
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
    with reading(path, "a COCO file"):
        data = json.loads(read_text(path, MOST_BYTES))
    return data if isinstance(data, dict) else {}


def _categories(data: dict[str, Any], path: Path) -> dict[str, str]:
    """Id -> name, in the order of the ids."""
    names: dict[str, str] = {}
    for item in data["categories"]:
        key = _id(item.get("id")) if isinstance(item, dict) else None
        if key is None or not isinstance(item.get("name"), str) or not item["name"].strip():
            raise DataError(f"{path}: a category without id or name: {composed(str(item)[:60])}")
        if key in names:
            raise DataError(f"{path}: category {key} stands twice")
        names[key] = composed(item["name"].strip())
    if len(set(names.values())) < len(names):
        twice = Counter(names.values()).most_common(1)[0][0]
        raise DataError(f"{path}: two categories are called {twice!r}")
    order = sorted(names, key=lambda key: (0, int(key), "") if key.isdecimal() else (1, 0, key))
    return {key: names[key] for key in order}


def _id(value: Any) -> str | None:
    """An id as text, so that 1, 1.0 and "1" are the same; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else None
    if isinstance(value, int):
        return str(value) if abs(value) < 2**63 else None
    return composed(value.strip())[:200] or None


def _read_file(path: Path, data: dict[str, Any], names: dict[str, str], pictures: Pictures, found: BoxGatherer) -> None:
    split = folder_split(path.parent.name) or split_in_name(path.stem)
    boxes: dict[str, list[Written]] = {}
    unread: set[str] = set()  # images with an annotation that cannot be read
    listed = {(_id(item.get("id")), str(item.get("file_name"))) for item in data["images"] if isinstance(item, dict)}
    known = Counter(key for key, _ in listed)
    for item in data["annotations"]:
        owner = _id(item.get("image_id")) if isinstance(item, dict) else None
        try:
            x, y, width, height = (float(value) for value in item.get("bbox") or _around(item["segmentation"]))
            category, crowd = _id(item["category_id"]), bool(item.get("iscrowd", 0))
        except (TypeError, ValueError, KeyError, OverflowError, AttributeError):
            found.drop(path, f"annotation {composed(str(item)[:60])}: no bbox, image_id or category_id")
            unread |= {owner} if owner is not None else set()
            continue
        if owner is None or owner not in known:
            found.drop(path, f"annotation of image {owner}: the file lists no such image")
        elif category not in names:
            found.drop(path, f"annotation of image {owner}: the file lists no category {category}")
            unread.add(owner)
        else:
            boxes.setdefault(owner, []).append((x, y, x + width, y + height, names[category], crowd))
    images: list[tuple[str, str, tuple[float, float], Path]] = []
    for item in data["images"]:
        try:
            key = _id(item["id"])
            name, written = str(item["file_name"]), (float(item.get("height") or 0), float(item.get("width") or 0))
        except (TypeError, ValueError, KeyError, OverflowError, AttributeError):
            found.skip(path, f"image {composed(str(item)[:60])}: no file_name, id or size")
            continue
        if key is None:
            found.skip(path, f"image {composed(name[:60])}: no id")
        else:
            images.append((key, name, written, _picture(path, name, found.root, pictures)))
    images = list(dict.fromkeys(images))
    if whole := relative([corner for own in boxes.values() for box in own for corner in box[:4]]):
        found.notes.append(f"{path.name} has boxes in shares of their images, not in pixels.")
    meaning = Counter(place for place, _ in {(place, name) for _, name, _, place in images})
    for key, name, written, place in images:
        if known[key] > 1:
            found.skip(path, f"image {composed(name[:60])}: its id {key} stands at several images")
        elif meaning[place] > 1:
            found.skip(path, f"image {composed(name[:60])}: several names of the file mean {place.name}")
        elif key in unread and key not in boxes:
            found.skip(place, "none of its annotations can be read")
        else:
            found.add(place, boxes.get(key, []), split, None if whole else written)


def _around(polygons: list[list[float]]) -> tuple[float, float, float, float]:
    """The box (x, y, width, height) around polygons, where an annotation has no own."""
    across = [float(value) for polygon in polygons for value in polygon[::2]]
    down = [float(value) for polygon in polygons for value in polygon[1::2]]
    return min(across), min(down), max(across) - min(across), max(down) - min(down)


def _picture(path: Path, name: str, root: Path, pictures: Pictures) -> Path:
    """Where an image of a file lies: beside it, in one of the usual folders, or by its name; never above the root."""
    plain = urlsplit(name).path if "://" in name else name
    inner = [part for part in plain.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    stem = path.stem.replace("instances_", "")
    folders = [path.parent, root, root / stem, root / "images", root / "images" / stem, path.parent / "images"]
    for part in dict.fromkeys((Path(*inner), Path(inner[-1]))) if inner else ():  # the whole path anywhere first
        for folder in folders:
            if is_there(folder / part):
                return folder / part
    return pictures.find("/".join(inner), path)
