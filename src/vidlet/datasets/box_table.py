"""The box table: which objects stand where in which image. Every adapter of boxes gives this, whatever it read.

Coordinates are relative to the upright image: x1 y1 x2 y2 in [0, 1]. What an annotation says wrongly is judged once,
in ``BoxGatherer``, by one rule:

* a box without area, of numbers that are not finite, wholly outside of its image, without a class or of one that the
  list of names lacks is left out and named;
* a box that reaches outside of its image by more than a pixel is cut at the border and counted;
* an image that is absent, cannot be opened, has other proportions than its annotation says, or has boxes of which none
  can be used or one cannot be read is skipped and named: it is never taken for one that shows nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import DataError
from ..labels import composed, label_order
from ..video.folder import open_image, orientation
from .media import is_image, visible
from .table import folder_split, split_in_name


@dataclass(frozen=True)
class Box:
    """One object: corners relative to the image in [0, 1], its class, and whether it is too hard to be counted."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    difficult: bool = False


@dataclass(frozen=True)
class BoxImage:
    """An image and its boxes. ``size`` is (height, width) in pixels, upright; ``split`` as in ``Clip``."""

    path: Path
    boxes: tuple[Box, ...]
    size: tuple[int, int]
    split: str = ""


@dataclass(frozen=True)
class BoxTable:
    """Images in a fixed order, with the names of the classes (the detector's output order)."""

    images: tuple[BoxImage, ...]
    labels: tuple[str, ...]
    root: Path
    kind: str = ""  # "voc", "coco", "labelme", "csv" or "yolo": how the boxes were written
    notes: tuple[str, ...] = field(default=())
    skipped: tuple[tuple[str, str], ...] = field(default=())  # (path, why) of images
    dropped: tuple[tuple[str, str], ...] = field(default=())  # (path, why) of single boxes
    clipped: int = 0  # boxes that were cut at their image's border

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[BoxImage]:
        return iter(self.images)

    def of_split(self, split: str) -> BoxTable:
        """The images of one split, labels unchanged."""
        return self.with_images(image for image in self.images if image.split == split)

    def with_images(self, images: Iterable[BoxImage]) -> BoxTable:
        """The same table with other images, labels unchanged."""
        return replace(self, images=tuple(images))

    def truth(self, image: BoxImage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes float32 (M, 4), class indices int64 (M,) and difficult bool (M,) of an image."""
        index = {name: i for i, name in enumerate(self.labels)}
        corners = np.array([(b.x1, b.y1, b.x2, b.y2) for b in image.boxes], np.float32).reshape(-1, 4)
        classes = np.array([index[b.label] for b in image.boxes], np.int64)
        return corners, classes, np.array([b.difficult for b in image.boxes], bool)

    def sha256(self) -> str:
        """Hash of what the table says: paths below the root, splits, boxes, labels."""
        rows = [
            [_below(i.path, self.root), i.split, [[b.x1, b.y1, b.x2, b.y2, b.label, b.difficult] for b in i.boxes]]
            for i in self.images
        ]
        return hashlib.sha256(json.dumps([rows, list(self.labels)]).encode()).hexdigest()


Written = tuple[float, float, float, float, str, bool]  # x1 y1 x2 y2 in units of the image's size as written; label


class BoxGatherer:
    """Collects images with the boxes as some file writes them, and keeps account of what is wrong with them.

    Args:
        names: the classes, where a file lists them; None: whatever the boxes are called, sorted.
    """

    def __init__(self, root: Path, kind: str, names: Sequence[str] | None) -> None:
        self.root, self.kind = root, kind
        self.names = None if names is None else [composed(name) for name in names]
        self.images: list[BoxImage] = []
        self.notes: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.dropped: list[tuple[str, str]] = []
        self.clipped = 0
        self.several: dict[Path, list[Path]] = {}  # see ``Pictures``

    def add(
        self, path: Path, boxes: Iterable[Written], split: str = "", written: tuple[float, float] | None = None
    ) -> None:
        """Take an image with boxes in pixels of ``written`` (height, width), or relative ones where that is None.

        Its split, where nothing says it, is what a folder is named for in which the image lies.
        """
        try:
            height, width = image_size(path)
        except DataError as error:
            meant = [_below(image, self.root) for image in self.several.get(path, ())]
            why = f"{meant[0]} and {meant[1]} may be meant" if meant else str(error).removeprefix(f"{path}: ")
            self.skip(path, why)
            return
        unit = (1.0, 1.0)
        if written is not None:
            unit = written if min(written) > 0 else (float(height), float(width))
            if abs(unit[0] * width - unit[1] * height) > 1.5 * max(unit[0], unit[1], height, width):
                why = f"annotated as {unit[1]:g}x{unit[0]:g}, the image is {width}x{height}"
                self.skip(path, why)
                return
        pixel = (1 / height, 1 / width)
        items = list(boxes)
        kept = [box for item in items if (box := self._judge(path, item, unit, pixel)) is not None]
        if items and not kept:  # it shows something, so it is no background
            self.skip(path, f"none of its {len(items)} boxes can be used")
            return
        self.images.append(BoxImage(path, tuple(kept), (height, width), split or split_of_place(path, self.root)))

    def skip(self, path: Path, why: str) -> None:
        """An image that cannot be used."""
        self.skipped.append((_below(path, self.root), why))

    def drop(self, path: Path, why: str) -> None:
        """A box that cannot be used."""
        self.dropped.append((_below(path, self.root), why))

    def table(self) -> BoxTable:
        """What was gathered.

        Raises:
            DataError: no image, no class, or two classes that differ only in upper and lower case.
        """
        if not self.images:
            first = f" (first: {self.skipped[0][0]}: {self.skipped[0][1]})" if self.skipped else ""
            raise DataError(f"{self.root}: no image with boxes can be used{first}")
        found = {box.label for image in self.images for box in image.boxes}
        ordered = label_order(self.names if self.names is not None else found, str(self.root))
        labels = tuple(self.names) if self.names is not None else ordered
        images = self._joined()
        if not labels:
            raise DataError(f"{self.root}: {len(images)} images, and not one box in them")
        if len(set(labels)) != len(labels):
            twice = next(name for name in labels if labels.count(name) > 1)
            raise DataError(f"{self.root}: the list of classes names {twice!r} twice")
        notes = list(self.notes)
        if self.clipped:
            notes.append(f"{self.clipped} boxes reach outside of their image and were cut at its border.")
        if self.dropped:
            path, why = self.dropped[0]
            notes.append(f"{len(self.dropped)} boxes were left out (first: {path}: {why}).")
        return BoxTable(
            images, labels, self.root, self.kind,
            tuple(notes), tuple(self.skipped), tuple(self.dropped), self.clipped,
        )  # fmt: skip

    def _joined(self) -> tuple[BoxImage, ...]:
        """Every image once: one that several files describe has the boxes of all of them, and the split that one says.

        Raises:
            DataError: two of them say different splits.
        """
        joined: dict[Path, BoxImage] = {}
        for image in self.images:
            if (before := joined.setdefault(image.path, image)) is image:
                continue
            if before.split and image.split and before.split != image.split:
                where = _below(image.path, self.root)
                raise DataError(f"{self.root}: {where} stands in {before.split} and in {image.split}")
            boxes = (*before.boxes, *(box for box in image.boxes if box not in before.boxes))
            joined[image.path] = replace(before, boxes=boxes, split=before.split or image.split)
        if twice := len(self.images) - len(joined):
            self.notes.append(f"{twice} images are described more than once; their boxes were joined.")
        return tuple(joined.values())

    def _judge(self, path: Path, item: Written, unit: tuple[float, float], pixel: tuple[float, float]) -> Box | None:
        """The box relative to its image, cut at the border; None if it is none."""
        *corners, label, difficult = item
        label = composed(label)
        said = f"{label} {' '.join(f'{c:g}' for c in corners)}"
        if not all(math.isfinite(c) for c in corners):
            self.drop(path, f"box {said}: not finite")
            return None
        if self.names is not None and label not in self.names:
            self.drop(path, f"box {said}: class {label!r} is not in the list of classes")
            return None
        if not label:
            self.drop(path, f"box {said.strip()}: without a class")
            return None
        if corners[2] <= corners[0] or corners[3] <= corners[1]:
            self.drop(path, f"box {said}: no area")
            return None
        x1, y1, x2, y2 = corners[0] / unit[1], corners[1] / unit[0], corners[2] / unit[1], corners[3] / unit[0]
        inner = [min(max(c, 0.0), 1.0) for c in (x1, y1, x2, y2)]
        if inner[2] <= inner[0] or inner[3] <= inner[1]:
            self.drop(path, f"box {said}: outside of the image")
            return None
        if min(x1, 1 - x2) < -1.01 * pixel[1] or min(y1, 1 - y2) < -1.01 * pixel[0]:
            self.clipped += 1
        return Box(inner[0], inner[1], inner[2], inner[3], label, difficult)


def relative(corners: Sequence[float]) -> bool:
    """Whether corners are shares of the image, as Open Images writes them, and no pixels."""
    return bool(corners) and all(-0.01 <= corner <= 1.01 for corner in corners)


def split_of_place(path: Path, root: Path) -> str:
    """The split that one of the folders below the root is named for in which a file lies; "" where none is."""
    parts = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    return next((split for part in parts if (split := folder_split(part))), "")


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as it is shown, without decoding it.

    Raises:
        DataError: absent, or not an image.
    """
    if not is_there(path):
        raise DataError(f"{path}: no such image")
    with open_image(path) as image:
        width, height = image.size
        return (width, height) if orientation(image) >= 5 else (height, width)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


# Which image an annotation means: found by its name, wherever below a folder it lies.
MOST_DEPTH = 8


def is_there(path: Path) -> bool:
    """Whether a path is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


class Pictures:
    """The images below a folder by name; each folder is listed once.

    Args:
        several: gets, of a name that means several images, the place that ``find`` gives and those images.
    """

    def __init__(self, root: Path, several: dict[Path, list[Path]]) -> None:
        self.root, self.several = root, several
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        level = [root]
        for _ in range(MOST_DEPTH):
            entries = [entry for folder in level for entry in visible(folder)]
            for entry in entries:
                if is_image(entry):
                    self._by_name[composed(entry.name)].append(entry)
                    self._by_stem[composed(entry.stem)].append(entry)
            level = [entry for entry in entries if entry.is_dir()]

    def find(self, name: str, beside: Path) -> Path:
        """The image of a name, as written with or without folders and suffix; of several the nearest to a file.

        Near is who shares most of the written path, then the split that ``beside`` is named for, then most folders
        with it. Where there is none, or several are equally near, the place where it would lie beside it.
        """
        written = PurePosixPath(composed(name.replace("\\", "/")))
        parts = [part for part in written.parts if part not in ("", ".", "..", "/")]
        if not parts:
            return beside.parent
        found = self._by_name.get(parts[-1]) or self._by_stem.get(parts[-1]) or self._by_stem.get(written.stem) or []
        if not found:
            return beside.parent.joinpath(*parts[-1:])
        split = folder_split(beside.parent.name) or split_in_name(beside.stem)
        nearness = [
            (_same_end(parts, image), bool(split) and folder_split(image.parent.name) == split,
             _same_folders(image, beside))
            for image in found
        ]  # fmt: skip
        nearest = [image for image, near in zip(found, nearness, strict=True) if near == max(nearness)]
        if len(nearest) == 1:
            return nearest[0]
        place = beside.parent.joinpath(*parts[-1:])
        self.several[place] = nearest
        return place

    def find_one(self, names: Iterable[str], beside: Path) -> Path:
        """The image of the first name that has one; else the place of the first that means several, or of the last."""
        places = [self.find(name, beside) for name in names]
        several = next((place for place in places if place in self.several), places[-1])
        return next((place for place in places if is_there(place)), several)


def _same_end(parts: list[str], image: Path) -> int:
    """How many folders of the written path an image has, from the end."""
    count = 0
    for written, there in zip(reversed(parts[:-1]), reversed(image.parent.parts), strict=False):
        if written != there:
            break
        count += 1
    return count


def _same_folders(image: Path, beside: Path) -> tuple[int, int]:
    """How many folders an image and a file share: their names anywhere (train, valid), and from the root on."""
    one, other = image.parent.parts, beside.parent.parts
    common = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        common += 1
    return len(set(one[common:]) & set(other[common:])) + common, -len(one)
