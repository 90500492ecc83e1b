"""Boxes as PASCAL VOC writes them: an XML file an image, lists of names for the splits.

    root/Annotations/a.xml, root/JPEGImages/a.jpg, root/ImageSets/Main/train.txt ...   (or several such folders in root)
    root/annots/*.xml, root/images/*.png      (any case and place: images are found by their names)
    root/[train|val|test/]a.xml beside a.jpg

Pixels are counted from 1 and corners are inclusive, as in VOC: the pixel xmin begins at xmin - 1. Declarations of
entities and document types are refused, so that nothing expands and no other file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from ..errors import DataError
from .box_table import BoxGatherer, BoxTable, Pictures, Written, split_of_place
from .media import is_image, visible
from .table import folder_split, split_in_name
from .texts import numbered_names, text_lines

LISTS = ("ImageSets/Main", "ImageSets/Layout", "ImageSets", "ImageSets/Segmentation", "")  # "": beside the folders
NAMES = ("labels.txt", "classes.txt", "classes.names")
PLACES = ("annotations", "annotation", "annots", "xml", "xmls", "labels")
MAX_BYTES, MAX_DEPTH = 2**24, 32
WIDE_ENCODINGS = ("gb", "big5", "euc", "shift", "sjis", "iso-2022", "cp9", "hz")
MOST_DEPTH = 3  # folders in folders in which annotations are looked for


@dataclass
class Element:
    """An XML element: its text, its attributes and its children in order."""

    name: str
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """Children of a name."""
        return [child for child in self.children if child.name == name]

    def of(self, name: str) -> str:
        """Text of the first child of a name; "" where there is none."""
        return next((child.text.strip() for child in self.children if child.name == name), "")


def is_voc(root: Path) -> bool:
    """Whether a folder looks like one of VOC's."""
    return bool(_folders(root)) or any(True for _ in _beside(root))


def read_voc(root: Path) -> BoxTable:
    """Read a folder of VOC annotations.

    Raises:
        DataError: no annotation can be used, or an image stands in two splits.
    """
    listed = next((root / name for name in NAMES if (root / name).is_file()), None)
    names = numbered_names(listed) if listed else None
    found = BoxGatherer(root, "voc", list(names.names) if names else None)
    found.notes += names.notes if names else ()
    pictures = Pictures(root, found.several)
    folders = _folders(root)
    for folder, place in folders:
        _read_folder(root, folder, place, pictures, found)
    if not found.images and not found.skipped:
        for path, split in _beside(root):
            _read_one(path, pictures, split, found)
    return found.table()


def parse_xml(path: Path, most: int = MAX_BYTES) -> Element:
    """Read an XML file as a tree, with nothing in it that could expand or point elsewhere.

    Raises:
        DataError: not XML, larger than ``most`` bytes, nested deeper than 32, or with a document type or entities.
    """
    try:
        if path.stat().st_size > most:
            raise DataError(f"{path}: {path.stat().st_size} bytes, more than an annotation has ({most})")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or 'unknown').lower()})") from error
    top = Element("")
    stack = [top]
    text_of_it = _decoded(data)

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{path}: refused, it declares a document type or entities")

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > MAX_DEPTH:
            raise DataError(f"{path}: refused, elements are nested deeper than {MAX_DEPTH}")
        stack[-1].children.append(Element(name, attributes=attributes))
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
        parser.Parse(text_of_it, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not a whole XML file ({error})") from error
    return top.children[0]


def _decoded(data: bytes) -> bytes | str:
    """An XML file as its parser takes it: the encodings of several bytes a letter that it does not know as text."""
    data = data.lstrip(b" \t\r\n")
    said = re.match(rb"<\?xml[^>]{0,100}encoding=[\"']([\w.-]{1,40})", data)
    name = said[1].decode().casefold() if said else ""
    if not name.startswith(WIDE_ENCODINGS):
        return data
    try:
        return data.decode(name)
    except (LookupError, UnicodeDecodeError):
        return data


def _folders(root: Path) -> list[tuple[Path, Path]]:
    """Folders and the one of annotations in them: the root, or what lies in it (VOCdevkit), to three folders deep."""
    found: list[tuple[Path, Path]] = []
    level = [root]
    for _ in range(MOST_DEPTH):
        inside = {folder: [entry for entry in visible(folder) if entry.is_dir()] for folder in level}
        for folder, entries in inside.items():
            found += [(folder, entry) for entry in entries if entry.name.casefold() in PLACES and _xml_below(entry)]
        level = [entry for entries in inside.values() for entry in entries if entry.name.casefold() not in PLACES]
    return found


def _xml_below(folder: Path, depth: int = MOST_DEPTH) -> list[Path]:
    entries = visible(folder)
    files = [entry for entry in entries if entry.suffix.lower() == ".xml"]
    for entry in entries if depth else []:
        if entry.is_dir():
            files += _xml_below(entry, depth - 1)
    return files


def _beside(root: Path) -> Iterator[tuple[Path, str]]:
    """XML files that lie beside their images, and the split that their folder names."""
    folders = [(root, "")]
    folders += [(entry, folder_split(entry.name)) for entry in visible(root) if entry.is_dir()]
    for folder, split in folders:
        entries = visible(folder)
        if any(is_image(entry) for entry in entries):
            yield from ((entry, split) for entry in entries if entry.suffix.lower() == ".xml")


def _read_folder(root: Path, folder: Path, place: Path, pictures: Pictures, found: BoxGatherer) -> None:
    files = {path.relative_to(place).with_suffix("").as_posix(): path for path in _xml_below(place)}
    by_name = {path.stem: path for path in files.values()} | files
    splits, absent = _lists(folder, by_name)
    for path, split in splits.items() if splits or absent else ((p, split_of_place(p, root)) for p in files.values()):
        _read_one(path, pictures, split, found)
    for line in absent:
        found.skip(folder / "JPEGImages" / line, "listed for a split, without an annotation")
    if unlisted := len(files) - len(splits) if splits or absent else 0:
        found.notes.append(f"{unlisted} annotated images are in none of the lists and were left out.")


def _lists(folder: Path, by_name: dict[str, Path]) -> tuple[dict[Path, str], list[str]]:
    """Annotation -> its split, and the lines that mean none; nothing where there are no lists.

    Raises:
        DataError: an image in two of train, val and test.
    """
    for place in LISTS:
        files = _split_files(folder / place, of_classes=bool(place))
        lines = [(path, split, line) for split, path in files for _, line in text_lines(path)]
        if lines and (place or any(_meant(line, by_name) for _, _, line in lines)):
            both = folder / place / "trainval.txt"
            lines += [(both, "", line) for _, line in text_lines(both)] if both.is_file() else []
            break
    else:
        return {}, []
    splits: dict[Path, str] = {}
    absent: dict[str, None] = {}
    for path, split, line in lines:
        meant = _meant(line, by_name)
        if meant is None:
            absent[line[:80]] = None
        elif splits.setdefault(meant, split or "train") != split and split:
            raise DataError(f"{path}: {line[:80]} is in a list of {splits[meant]} too")
    return splits, list(absent)


def _split_files(folder: Path, of_classes: bool) -> list[tuple[str, Path]]:
    """The lists of train, val and test in a folder; where there are none, those of its classes (cat_train.txt)."""
    texts = [path for path in visible(folder) if path.suffix.lower() == ".txt"] if folder.is_dir() else []
    own = [(split, path) for path in texts if (split := folder_split(path.stem))]
    others = [(split, path) for path in texts if (split := split_in_name(path.stem))] if of_classes else []
    return own or others


def _meant(line: str, by_name: dict[str, Path]) -> Path | None:
    """The annotation that a line of a list means, by a name or path, with or without a suffix and columns behind it."""
    for text in (line, line.split(maxsplit=1)[0]):
        name = text.replace("\\", "/")
        name = name.rpartition(".")[0] if is_image(Path(name)) else name
        if path := by_name.get(name) or by_name.get(name.rpartition("/")[2]):
            return path
    return None


def _read_one(path: Path, pictures: Pictures, split: str, found: BoxGatherer) -> None:
    try:
        top = parse_xml(path)
        boxes = [_box(item) for item in top.all("object")]
        size = next(iter(top.all("size")), Element("size"))
        written = (float(size.of("height") or 0), float(size.of("width") or 0))
    except DataError as error:
        found.skip(path, str(error).removeprefix(f"{path}: "))
        return
    except IndexError:
        found.skip(path, "an object without a box (bndbox)")
        return
    except (ValueError, OverflowError) as error:
        found.skip(path, f"a box or the size is not a number ({error})")
        return
    name = top.of("filename")
    place = pictures.find_one((path.with_suffix("").name, *([name] if name else [])), path)
    found.add(place, boxes, split, written)


def _box(item: Element) -> Written:
    place = item.all("bndbox")[0]
    x1, y1, x2, y2 = (float(place.of(key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    degenerate = x2 <= x1 or y2 <= y1  # as written: shifted by a pixel it would have an area
    shift = 0.0 if degenerate else 1.0
    return (x1 - shift, y1 - shift, x2, y2, item.of("name"), item.of("difficult") == "1")
