"""Boxes as labelling tools export them: VGG Image Annotator, Create ML, Label Studio, CVAT for images, Supervisely.

    a.json, a.csv                       VIA 1 and 2: regions of a file, in pixels; the class is an attribute of a region
    train/_annotations.createml.json    Create ML: pixels from the upper left corner, x and y are the box's center
    project-1.json                      Label Studio, JSON or JSON-MIN: percent; turned about the upper left corner
    annotations.xml                     CVAT for images: pixels; turned about the center
    project/dataset/ann/a.jpg.json      Supervisely: pixels, the last one of a rectangle included; img/a.jpg

Each reader lists what its file says of images, as ``Described``; here the images are found and judged. Of polygons,
ellipses, circles, masks and turned rectangles the box around them is taken; points and lines are no boxes.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, reading
from ..labels import composed
from .box_table import BoxGatherer, BoxTable, Pictures, Written, is_there
from .boxes_voc import Element, parse_xml
from .cvat import MOST_BYTES as MOST_XML
from .exports import is_label_studio
from .media import is_image, visible
from .segments import places_of
from .table import folder_split, split_in_name, split_name
from .texts import begins_with, json_of, table_rows

MOST_LISTS = 20  # files of a folder that are looked at: with more of them each is of one image
SNIFFED = 5
ONLY_CLASS = "object"  # of regions without a class
CLASS_NAMES = ("label", "class", "class_name", "category", "object", "name", "type")  # of attributes, the surest first
SHAPES_NAME = "region_shape_attributes"  # a column of VIA's tables
VIA_WORDS = (b'"shape_attributes"', b'"_via_settings"', b'"_via_img_metadata"', b"__VIA_PROJECT_ID__")
PNG_HEAD = 24  # bytes of a PNG, the last eight are its width and height

Corners = tuple[float, float, float, float]


class _NoBox(ValueError):
    """A point or a line, or what has no place: it is counted and left out."""


@dataclass
class Described:
    """An image as a tool describes it: boxes in units of ``size`` (height, width), relative ones where that is None.

    ``lines`` counts the points and lines, ``wrong`` says what cannot be read.
    """

    name: str
    boxes: list[Written] = field(default_factory=list)
    size: tuple[float, float] | None = (0.0, 0.0)  # zeros: the image's own
    split: str = ""
    lines: int = 0
    wrong: list[str] = field(default_factory=list)
    stored: int = 0  # bytes that the tool took the file to have; 0: not told

    def take(self, label: str, corners: Callable[..., Corners], *shape: Any) -> None:
        """One more shape, whatever it says."""
        try:
            self.boxes.append((*corners(*shape), composed(label.strip()), False))
        except _NoBox:
            self.lines += 1
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, IndexError, ZeroDivisionError) as error:
            self.wrong.append(f"a shape that cannot be read ({type(error).__name__}: {str(error)[:60]})")


def tool_files(path: Path) -> list[tuple[Path, str]]:
    """Files of boxes that a path is, or that lie in it or one folder below, each with its tool; [] where none is."""
    if path.is_file():
        tool = _tool_of(path)
        return [(path, tool)] if tool else []
    listed: list[Path] = []
    for folder in (path, *(entry for entry in visible(path) if entry.is_dir())):
        files = [entry for entry in visible(folder) if entry.suffix.lower() in (".json", ".csv", ".xml")]
        listed += files if len(files) <= MOST_LISTS else []
    found = [(file, tool) for file in listed if (tool := _tool_of(file))]
    return found or [(file, "Supervisely") for file in _supervisely_files(path)]


def read_tools(root: Path) -> BoxTable:
    """Read what ``tool_files`` finds; images are found by name anywhere below the folder.

    Raises:
        DataError: a file that makes no sense, or no image of it is there.
    """
    files = tool_files(root)
    kind = ", ".join(dict.fromkeys(tool for _, tool in files))
    found = BoxGatherer(root if root.is_dir() else root.parent, kind, None)
    pictures = Pictures(found.root, found.several)
    lines = empty = other = 0
    for file, tool in files:
        try:
            with reading(file, f"an export of {tool}"):
                described = list(READERS[tool](file, found.notes))
        except DataError as error:
            if len(files) == 1:
                raise
            found.skip(file, str(error).removeprefix(f"{file}: "))
            continue
        places = [_place(one.name, file, pictures) for one in described]
        names: dict[Path, set[str]] = defaultdict(set)
        for one, place in zip(described, places, strict=True):
            names[place].add(one.name)
        default = folder_split(file.parent.name) or split_in_name(file.stem)
        for one, place in zip(described, places, strict=True):
            lines += one.lines
            for why in one.wrong:
                found.drop(place, why)
            if len(names[place]) > 1:
                found.skip(place, f"{len(names[place])} names of {file.name} mean it")
            elif not one.boxes and one.lines + len(one.wrong):  # it shows something, so it is no background
                found.skip(place, f"none of its {one.lines + len(one.wrong)} shapes is a box")
            else:
                empty += not one.boxes
                other += bool(one.stored and is_there(place) and place.stat().st_size != one.stored)
                found.add(place, one.boxes, one.split or default, one.size)
    if lines:
        found.notes.append(f"{lines} shapes are points or lines, which are no boxes, and were left out.")
    if empty:
        found.notes.append(f"{empty} images have no boxes: they count as showing nothing.")
    if other:
        found.notes.append(
            f"{other} images have other bytes than when they were labelled: were they resized, their boxes are wrong."
        )
    return found.table()


def _tool_of(file: Path) -> str:
    """The tool that wrote a file of boxes, by how it begins; "" where it is none."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return "VIA" if begins_with(file, b"", [SHAPES_NAME.encode()]) else ""
    if suffix == ".xml":
        return "CVAT" if _is_cvat(file) else ""
    if suffix != ".json":
        return ""
    if begins_with(file, b"{", VIA_WORDS):
        return "VIA"
    if begins_with(file, b"{", [b'"regions"']) and begins_with(file, b"{", [b'"file_attributes"']):
        return "VIA"
    if begins_with(file, b"[", [b'"coordinates"']) and begins_with(file, b"[", [b'"annotations"', b'"annotation"']):
        return "Create ML"
    try:
        return "Label Studio" if is_label_studio(file) and _has_shapes(json_of(file)) else ""
    except DataError:  # told by who reads it
        return ""


def _place(name: str, file: Path, pictures: Pictures) -> Path:
    """Where an image lies that a file names by a name, a path of another machine or an address."""
    return pictures.find_one((*places_of(name), name), file)


def _around(points: Iterable[Sequence[float]]) -> Corners:
    across, down = zip(*((float(point[0]), float(point[1])) for point in points), strict=True)
    return min(across), min(down), max(across), max(down)


def _turned(corners: Corners, degrees: float, about: tuple[float, float]) -> Corners:
    """The box around a box that is turned clockwise about a point."""
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    (x1, y1, x2, y2), (cx, cy) = corners, about
    moved = [(x - cx, y - cy) for x in (x1, x2) for y in (y1, y2)]
    return _around((cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in moved)


def _ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Corners:
    """The box around an ellipse that is turned about its center."""
    turn = math.radians(degrees)
    wide = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
    high = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
    return cx - wide, cy - high, cx + wide, cy + high


# VGG Image Annotator, robots.ox.ac.uk/~vgg/software/via: versions 1 and 2, as JSON, project or CSV.


def _via(file: Path, notes: list[str]) -> Iterator[Described]:
    images = _via_table(file) if file.suffix.lower() == ".csv" else _via_json(file)
    regions = [region for _, _, own in images for region in own]
    attribute = _class_attribute([_attributes(region) for region in regions], file)
    if attribute:
        notes.append(f"Classes are the values of the attribute {attribute!r} of the regions in {file.name}.")
    elif regions:
        notes.append(f"The regions of {file.name} have no attributes; every box is an {ONLY_CLASS!r}.")
    for name, size, own in images:
        one = Described(name, stored=size)
        for region in own:
            label = _via_label(_attributes(region).get(attribute)) if attribute else ONLY_CLASS
            one.take(label, _via_corners, region.get("shape_attributes"))
        yield one


def _via_json(file: Path) -> list[tuple[str, int, list[dict[str, Any]]]]:
    said = json_of(file)
    if not isinstance(said, dict) or "project" in said:
        raise DataError(
            f"{file}: a project of VIA 3, which is not read; write its boxes as a table: filename, class, xmin, ymin, "
            "xmax, ymax"
        )
    images = said.get("_via_img_metadata", said)
    found = []
    for entry in images.values() if isinstance(images, dict) else ():
        regions = entry.get("regions") or []
        size = entry.get("size")
        own = list(regions.values()) if isinstance(regions, dict) else list(regions)  # a dict in version 1
        found.append((str(entry["filename"]), size if isinstance(size, int) and size > 0 else 0, own))
    return found


def _via_table(file: Path) -> list[tuple[str, int, list[dict[str, Any]]]]:
    rows, _ = table_rows(file, ("filename", SHAPES_NAME))
    names = [cell.strip().lstrip("#") for cell in rows[0][1]]
    found: dict[str, tuple[str, int, list[dict[str, Any]]]] = {}
    for _, cells in rows[1:]:
        row = dict(zip(names, cells, strict=False))
        name, size = row["filename"], row.get("file_size", "")
        known = found.setdefault(f"{name} {size}", (name, int(size) if size.isdecimal() else 0, []))
        shape, about = (json.loads(row[key] or "{}") for key in (SHAPES_NAME, "region_attributes"))
        if shape:
            known[2].append({"shape_attributes": shape, "region_attributes": about})
    return list(found.values())


def _attributes(region: dict[str, Any]) -> dict[str, Any]:
    said = region.get("region_attributes")
    return said if isinstance(said, dict) else {}


def _via_label(value: Any) -> str:
    """A value of an attribute: a text, or of a check box the one name that is ticked."""
    if isinstance(value, dict):
        ticked = [name for name, on in value.items() if on is True]
        return ticked[0] if len(ticked) == 1 else ""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _class_attribute(regions: Sequence[Mapping[str, Any]], file: Path) -> str:
    """The attribute that says the class; "" where regions have none.

    Raises:
        DataError: there are several, and none of them is called as a class is.
    """
    names = Counter(name for region in regions for name, value in region.items() if _via_label(value))
    known = {name.strip().casefold(): name for name in names}
    if chosen := next((known[word] for word in CLASS_NAMES if word in known), ""):
        return chosen
    if len(names) > 1:
        raise DataError(f"{file}: which attribute is the class? Call one of {', '.join(sorted(names)[:8])} 'label'")
    return next(iter(names), "")


def _via_corners(shape: Any) -> Corners:
    kind = shape["name"]
    if kind == "rect":
        x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
        return x, y, x + width, y + height
    if kind == "circle":
        return _ellipse(float(shape["cx"]), float(shape["cy"]), float(shape["r"]), float(shape["r"]))
    if kind == "ellipse":
        radii = float(shape["rx"]), float(shape["ry"])
        return _ellipse(float(shape["cx"]), float(shape["cy"]), *radii, math.degrees(float(shape.get("theta") or 0)))
    if kind == "polygon":
        return _around(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
    raise _NoBox


# Create ML: developer.apple.com/documentation/createml, "Building an object detector data source".


IMAGE_KEYS = ("image", "imagefilename", "filename")


def _create_ml(file: Path, notes: list[str]) -> Iterator[Described]:
    notes.append(f"{file.name}: x and y are taken for the centers of the boxes, as Create ML writes them.")
    images = []
    for entry in json_of(file):
        one = Described(next((entry[key] for key in IMAGE_KEYS if isinstance(entry.get(key), str)), ""))
        for item in entry.get("annotations") or entry.get("annotation") or []:
            one.take(str(item.get("label", "")), _centered, item.get("coordinates"))
        images.append(one)
    corners = [corner for one in images for box in one.boxes for corner in box[:4]]
    relative = bool(corners) and all(-0.01 <= corner <= 1.01 for corner in corners)
    for one in images:
        one.size = None if relative else one.size
    yield from images


def _centered(place: Any) -> Corners:
    x, y, width, height = (float(place[key]) for key in ("x", "y", "width", "height"))
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


# Label Studio: labelstud.io/tags/rectanglelabels; percent of the image, turned about the upper left corner.

SHAPE_LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")
OTHER_LABELS = ("keypointlabels", "brushlabels", "bitmasklabels", "vectorlabels")
PLACES = frozenset({"points", "radiusX", "width"})  # what a value of a shape has one of


def _has_shapes(tasks: list[dict[str, Any]]) -> bool:
    """Whether an export has shapes on images; a shape with a sequence moves through a video."""
    values = (value for task in tasks for _, value in _results(task) if "sequence" not in value)
    return any(PLACES & value.keys() or any(kind in value for kind in OTHER_LABELS) for value in values)


def _said(task: dict[str, Any]) -> tuple[list[Any] | None, int]:
    """What one annotator said of a task (the ground truth, else the last one), and how many did; None: nobody."""
    if not isinstance(task.get("annotations", task.get("completions")), list):  # JSON-MIN: a key for each control
        return [item for items in task.values() if isinstance(items, list) for item in items], 1
    listed = task.get("annotations", task.get("completions")) or []
    done = [one for one in listed if isinstance(one, dict) and not one.get("was_cancelled")]
    chosen = next((one for one in done if one.get("ground_truth")), done[-1] if done else None)
    return (None if chosen is None else chosen.get("result") or []), len(done)


def _results(task: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(what holds the sizes, the value) of every label of a task."""
    items = [item for item in _said(task)[0] or [] if isinstance(item, dict)]
    return [(item, value) for item in items if isinstance(value := item.get("value", item), dict)]


def _label_studio(file: Path, notes: list[str]) -> Iterator[Described]:
    several = unlabelled = 0
    images: dict[str, Described] = {}
    for task in json_of(file):
        data = task["data"] if isinstance(task.get("data"), dict) else task
        texts = [text for text in data.values() if isinstance(text, str) and places_of(text)]
        name = next((text for text in texts if is_image(Path(places_of(text)[-1]))), f"task {task.get('id', '?')}")
        said, count = _said(task)
        several += count > 1 or name in images
        unlabelled += said is None
        if said is not None:
            split = split_name(str(data.get("split", ""))) or ""
            images[name] = _task_of_image(_results(task), Described(name, split=split))
    if several:
        notes.append(f"{several} images have several annotations; the ground truth is taken, else the last one.")
    if unlabelled:
        notes.append(f"{unlabelled} tasks without an annotation were left out.")
    yield from images.values()


def _task_of_image(results: list[tuple[dict[str, Any], dict[str, Any]]], one: Described) -> Described:
    """The shapes of a task. A rectangle without labels is said once more, with the same id, by who labels it."""
    sizes = [(about.get("original_height"), about.get("original_width")) for about, _ in results]
    one.size = next(((float(high), float(wide)) for high, wide in sizes if high and wide), None)
    named: set[str] = set()
    bare: list[tuple[str, dict[str, Any]]] = []
    for about, value in results:
        kind = next((key for key in (*SHAPE_LABELS, *OTHER_LABELS) if isinstance(value.get(key), list)), "")
        if kind and value[kind]:
            named.add(str(about.get("id")))
            for label in value[kind]:
                one.take(str(label), _percent, value, one.size)
        elif PLACES & value.keys():
            bare.append((str(about.get("id")), value))
    for number, value in bare:
        if number not in named:
            one.take("", _percent, value, one.size)
    return one


def _percent(value: dict[str, Any], size: tuple[float, float] | None) -> Corners:
    """The corners of a shape, in pixels of a size, or relative where it is not known."""
    high, wide = (one / 100 for one in size or (1.0, 1.0))
    degrees = float(value.get("rotation") or 0)
    if degrees and size is None:
        raise ValueError("turned, and the image's size is not told")
    if "points" in value:
        return _around((x * wide, y * high) for x, y in value["points"])
    if "radiusX" in value:
        radii = value["radiusX"] * wide, value["radiusY"] * high
        return _ellipse(value["x"] * wide, value["y"] * high, *radii, degrees)
    if "width" not in value or "rle" in value:
        raise _NoBox
    x, y = value["x"] * wide, value["y"] * high
    return _turned((x, y, x + value["width"] * wide, y + value["height"] * high), degrees, (x, y))


# CVAT for images 1.1: docs.cvat.ai, "CVAT for images".

CVAT_SHAPES = ("box", "polygon", "ellipse", "mask", "cuboid", "polyline", "points", "skeleton")


def _is_cvat(file: Path) -> bool:
    """Whether CVAT's XML has shapes on images and nothing that is labelled in time."""
    if not begins_with(file, b"<", [b"<annotations"]) or file.stat().st_size > MOST_XML:
        return False
    text = file.read_bytes()
    return any(f"<{shape} ".encode() in text for shape in CVAT_SHAPES) and not (b"<track" in text or b"<tag " in text)


def _cvat(file: Path, notes: list[str]) -> Iterator[Described]:
    for image in parse_xml(file, MOST_XML).all("image"):
        about = image.attributes
        size = float(about.get("height") or 0), float(about.get("width") or 0)
        one = Described(about.get("name", ""), size=size, split=split_name(about.get("subset", "")) or "")
        for shape in image.children:
            if shape.name in CVAT_SHAPES:
                one.take(shape.attributes.get("label", ""), _cvat_corners, shape)
        yield one


def _cvat_corners(shape: Element) -> Corners:
    about = shape.attributes
    degrees = float(about.get("rotation") or 0)
    if shape.name == "box":
        x1, y1, x2, y2 = (float(about[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        return _turned((x1, y1, x2, y2), degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
    if shape.name == "polygon":
        return _around([float(number) for number in point.split(",")] for point in about["points"].split(";"))
    if shape.name == "ellipse":
        cx, cy, rx, ry = (float(about[key]) for key in ("cx", "cy", "rx", "ry"))
        return _ellipse(cx, cy, rx, ry, degrees)
    if shape.name == "mask":
        left, top, width, height = (float(about[key]) for key in ("left", "top", "width", "height"))
        return left, top, left + width, top + height
    if shape.name == "cuboid":
        pairs = [(key, f"y{key[1:]}") for key in about if key.startswith("x")]
        return _around((float(about[x]), float(about[y])) for x, y in pairs)
    raise _NoBox


# Supervisely: developer.supervisely.com, "Supervisely annotation JSON format".


def _supervisely_files(root: Path) -> list[Path]:
    """The files of the folders called ann, of the root or up to two folders below, if the first ones are its."""
    level, found = [root], []
    for _ in range(3):
        folders = [entry for folder in level for entry in visible(folder) if entry.is_dir()]
        level = [folder for folder in folders if folder.name != "ann"]
        annotated = [visible(folder) for folder in folders if folder.name == "ann"]
        found += [file for files in annotated for file in files if file.suffix.lower() == ".json"]
    known = (begins_with(file, b"{", [b'"objects"']) for file in found[:SNIFFED])
    return found if any(known) else []


def _supervisely(file: Path, notes: list[str]) -> Iterator[Described]:
    said = json_of(file)
    size = said.get("size") or {}
    tags = [split for tag in said.get("tags") or [] if (split := split_name(str(tag.get("name", ""))))]
    name = file.name.removesuffix(file.suffix)
    one = Described(f"{file.parent.parent.name}/img/{name}", size=(float(size["height"]), float(size["width"])))
    one.split = tags[0] if len(set(tags)) == 1 else ""
    for shape in said["objects"]:
        one.take(str(shape.get("classTitle", "")), _supervisely_corners, shape)
    yield one


def _supervisely_corners(shape: dict[str, Any]) -> Corners:
    kind = shape.get("geometryType")
    if kind == "rectangle":
        x1, y1, x2, y2 = _around(shape["points"]["exterior"])
        return x1, y1, x2 + 1, y2 + 1  # the last pixel is part of it
    if kind == "polygon":
        return _around(shape["points"]["exterior"])
    if kind == "bitmap":
        packed = base64.b64decode(shape["bitmap"]["data"])
        head = zlib.decompressobj().decompress(packed, PNG_HEAD)
        if len(head) < PNG_HEAD or not head.startswith(b"\x89PNG"):
            raise ValueError("its bitmap is no PNG")
        x, y = (float(number) for number in shape["bitmap"]["origin"])
        return x, y, x + int.from_bytes(head[16:20], "big"), y + int.from_bytes(head[20:24], "big")
    raise _NoBox


READERS: dict[str, Callable[[Path, list[str]], Iterator[Described]]] = {
    "VIA": _via,
    "Create ML": _create_ml,
    "Label Studio": _label_studio,
    "CVAT": _cvat,
    "Supervisely": _supervisely,
}
