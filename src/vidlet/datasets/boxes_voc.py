"""Boxes as PASCAL VOC writes them: an XML file an image, lists of names for the splits.

    root/Annotations/a.xml, root/JPEGImages/a.jpg, root/ImageSets/Main/train.txt ...   (or several such folders in root)
    root/[train|val|test/]a.xml beside a.jpg

Pixels are counted from 1 and corners are inclusive, as in VOC: the pixel xmin begins at xmin - 1. Declarations of
entities and document types are refused, so that nothing expands and no other file is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from ..errors import DataError
from .box_table import BoxGatherer, BoxTable, Written
from .media import is_image, visible
from .table import SPLITS, split_name

LISTS = ("ImageSets/Main", "ImageSets/Layout", "ImageSets")
NAMES = ("labels.txt", "classes.txt", "classes.names")
MAX_BYTES, MAX_DEPTH = 2**24, 32


@dataclass
class Element:
    """An XML element: its text and its children in order."""

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """Children of a name."""
        return [child for child in self.children if child.name == name]

    def of(self, name: str) -> str:
        """Text of the first child of a name; "" where there is none."""
        return next((child.text.strip() for child in self.children if child.name == name), "")


def is_voc(root: Path) -> bool:
    """Whether a folder looks like one of VOC's."""
    return any(_folders(root)) or any(True for _ in _beside(root))


def read_voc(root: Path) -> BoxTable:
    """Read a folder of VOC annotations.

    Raises:
        DataError: no annotation can be used, or an image stands in two splits.
    """
    names = next((_lines(root / name) for name in NAMES if (root / name).is_file()), None)
    found = BoxGatherer(root, "voc", names)
    for folder in _folders(root):
        _read_folder(folder, found)
    if not found.images and not found.skipped:
        for path, split in _beside(root):
            _read_one(path, path.parent, split, found)
    return found.table()


def parse_xml(path: Path) -> Element:
    """Read an XML file as a tree, with nothing in it that could expand or point elsewhere.

    Raises:
        DataError: not XML, larger than 16 MiB, nested deeper than 32, or with a document type or entities.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes, more than an annotation has ({MAX_BYTES})")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or 'unknown').lower()})") from error
    top = Element("")
    stack = [top]

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{path}: refused, it declares a document type or entities")

    def start(name: str, _: object) -> None:
        if len(stack) > MAX_DEPTH:
            raise DataError(f"{path}: refused, elements are nested deeper than {MAX_DEPTH}")
        stack[-1].children.append(Element(name))
        stack.append(stack[-1].children[-1])

    def text(content: str) -> None:
        stack[-1].text += content

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda _: stack.pop()
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        raise DataError(f"{path}: not a whole XML file ({error})") from error
    return top.children[0]


def _folders(root: Path) -> list[Path]:
    """Folders with Annotations in them: the root, or what lies in it (VOCdevkit)."""
    candidates = [root, *(entry for entry in visible(root) if entry.is_dir())]
    return [folder for folder in candidates if (folder / "Annotations").is_dir()]


def _beside(root: Path) -> Iterator[tuple[Path, str]]:
    """XML files that lie beside their images, and the split that their folder names."""
    folders = [(root, "")]
    folders += [(entry, split_name(entry.name) or "") for entry in visible(root) if entry.is_dir()]
    for folder, split in folders:
        entries = visible(folder)
        if any(is_image(entry) for entry in entries):
            yield from ((entry, split) for entry in entries if entry.suffix.lower() == ".xml")


def _read_folder(folder: Path, found: BoxGatherer) -> None:
    pictures = next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)
    files = {path.stem: path for path in visible(folder / "Annotations") if path.suffix.lower() == ".xml"}
    splits = _lists(folder)
    for name, split in splits.items() if splits else ((name, "") for name in files):
        if name in files:
            _read_one(files[name], pictures, split, found)
        else:
            found.skip(pictures / name, "listed in ImageSets, without an annotation")
    if unlisted := [name for name in files if splits and name not in splits]:
        found.notes.append(f"{len(unlisted)} annotated images are in no list of ImageSets and were left out.")


def _lists(folder: Path) -> dict[str, str]:
    """Name of an image -> its split; {} where there are no lists.

    Raises:
        DataError: a name in two of train, val and test.
    """
    for place in LISTS:
        splits: dict[str, str] = {}
        for split in SPLITS:
            path = folder / place / f"{split}.txt"
            for name in _listed(path) if path.is_file() else []:
                if splits.setdefault(name, split) != split:
                    raise DataError(f"{path}: {name} is in {splits[name]}.txt too")
        if splits:
            both = folder / place / "trainval.txt"
            for name in _listed(both) if both.is_file() else []:
                splits.setdefault(name, "train")
            return splits
    return {}


def _read_one(path: Path, pictures: Path, split: str, found: BoxGatherer) -> None:
    try:
        top = parse_xml(path)
        boxes = [_box(item) for item in top.all("object")]
        size = next(iter(top.all("size")), Element("size"))
        written = (float(size.of("height") or 0), float(size.of("width") or 0))
    except DataError as error:
        found.skip(path, str(error).removeprefix(f"{path}: "))
        return
    except (ValueError, IndexError) as error:
        found.skip(path, f"a box or the size is not a number ({error})")
        return
    found.add(_picture(path, pictures, top.of("filename")), boxes, split, written)


def _box(item: Element) -> Written:
    place = item.all("bndbox")[0]
    x1, y1, x2, y2 = (float(place.of(key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    degenerate = x2 <= x1 or y2 <= y1  # as written: shifted by a pixel it would have an area
    shift = 0.0 if degenerate else 1.0
    return (x1 - shift, y1 - shift, x2, y2, item.of("name"), item.of("difficult") == "1")


def _picture(path: Path, pictures: Path, filename: str) -> Path:
    """The image of an annotation: that of its name; else the one that it names itself (only below ``pictures``)."""
    for suffix in (".jpg", ".jpeg", ".png", ".bmp", ".webp"):
        for spelled in (suffix, suffix.upper()):
            if (picture := pictures / f"{path.stem}{spelled}").is_file():
                return picture
    name = filename.replace("\\", "/").rpartition("/")[2]
    return pictures / (name or f"{path.stem}.jpg")


def _listed(path: Path) -> list[str]:
    """The first word of each line; a second column says, in lists of one class, whether it is there."""
    return [line.split()[0] for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
