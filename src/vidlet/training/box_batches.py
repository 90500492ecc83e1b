"""Batches of pictures with boxes: decoded once, jittered, mirrored, recolored and resized anew in every epoch.

After darknet's data.c: a window whose sides lie up to ``jitter`` inside or outside of the picture is stretched to the
network's size; hue is shifted, saturation and exposure are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..datasets import BoxImage, BoxTable
from ..errors import DataError, RecipeError, VidletError
from ..recipe import nearest
from ..video import read_many, resize
from ..video.folder import load_image
from .batches import Draw
from .region_loss import BoxTargets

BOX_AMOUNTS = {
    "jitter": "each side of the window that is seen moves by up to this fraction of the picture",
    "flip": "probability of mirroring (0 where left and right are different classes)",
    "hue": "hues are shifted by up to this fraction of the circle",
    "saturation": "saturation is multiplied or divided by up to this",
    "exposure": "brightness is multiplied or divided by up to this",
    "scales": "batches differ in size by up to so many cells, either way",
}
KEEP_BYTES = 4_000_000_000  # of decoded pictures; the others are decoded again each epoch
ROOM = 1.25  # pictures are kept so many times larger than the network's input, for windows inside of them
SMALLEST = 0.005  # a side of a box that a window leaves of it; less and it is gone
EMPTY = 114  # what lies outside of the picture


@dataclass(frozen=True)
class BoxBatch:
    """Pictures float32 (B, 3, H, W), 0..255, channels last in memory; their truths; the files of the whole batch.

    ``there``: which of those the pictures are, where several processes share a batch (team.py); None: all.
    """

    pictures: Tensor
    targets: BoxTargets
    names: tuple[str, ...]
    there: tuple[int, ...] | None = None


def check_box_amounts(amounts: Mapping[str, float]) -> None:
    """Refuse unknown augmentations and impossible amounts.

    Raises:
        RecipeError: names the key and the nearest valid one.
    """
    for key, value in amounts.items():
        if key not in BOX_AMOUNTS:
            raise RecipeError(f"training.augment: unknown key {key!r} for boxes{nearest(key, BOX_AMOUNTS)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise RecipeError(f"training.augment.{key} must be a number >= 0, got {value!r}")
    for key in ("saturation", "exposure"):
        if amounts.get(key, 1.0) < 1:
            raise RecipeError(f"training.augment.{key} is a factor of at least 1, got {amounts[key]}")
    if amounts.get("jitter", 0.0) >= 0.5:
        raise RecipeError(f"training.augment.jitter must be below 0.5, got {amounts['jitter']}")


class BoxClips:
    """The pictures of a table, each decoded at least once, so that it is known which cannot be.

    Args:
        table: one split.
        size: (H, W) of the network's input; ``larger`` keeps room for windows.
    """

    def __init__(self, table: BoxTable, size: tuple[int, int], larger: bool = False, workers: int = 2) -> None:
        self.size = size
        self._canvas = tuple(round(side * (ROOM if larger else 1)) for side in size)
        self.failures: list[tuple[str, str]] = []
        self.images: list[BoxImage] = []
        self._kept: list[np.ndarray | None] = []
        self._truths = []
        room = KEEP_BYTES
        for image, found in read_many(list(table), self._read, workers=workers):
            if isinstance(found, VidletError):
                self.failures.append((str(image.path), str(found)))
                continue
            room -= found.nbytes
            self._kept.append(found if room > 0 else None)
            self.images.append(image)
            self._truths.append(table.truth(image))
        if not self.images:
            first = f" (first: {self.failures[0][1]})" if self.failures else ""
            raise DataError(f"{table.root}: no image of this split can be decoded{first}")

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, index: int) -> np.ndarray:
        """A picture uint8 (H', W', 3), of the network's size or a little larger."""
        kept = self._kept[index]
        return self._read(self.images[index]) if kept is None else kept

    def batches(self, draw: Draw, cell: int = 32) -> Iterator[BoxBatch]:
        """The pictures of a draw in batches.

        Args:
            cell: pixels by which the sizes of augmented batches differ ("scales").
        """
        amounts, seed = draw.amounts, draw.seed
        for number, part in enumerate(draw.parts()):
            rows = list(draw.order[part])
            sides = self.size
            if amounts:
                sides = _batch_size(
                    self.size, int(amounts.get("scales", 0)), cell, np.random.default_rng([*seed, number])
                )
            there = draw.team.items(len(rows))
            items = [
                self._item(rows[at], sides, amounts, np.random.default_rng([*seed, 10_000_019, rows[at]]))
                for at in there
            ]
            pictures = torch.from_numpy(np.stack([picture for picture, *_ in items])).permute(0, 3, 1, 2).float()
            names = tuple(self.images[i].path.name for i in rows)
            targets = pad_targets([item[1:] for item in items])
            yield BoxBatch(pictures, targets, names, None if draw.team.size == 1 else tuple(there))

    def _read(self, image: BoxImage) -> np.ndarray:
        height, width = self._canvas
        return resize(load_image(image.path), (height, width))

    def _item(
        self, index: int, sides: tuple[int, int], amounts: Mapping[str, float] | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        picture, (boxes, classes, difficult) = self.picture(index), self._truths[index]
        if not amounts:
            return resize(picture, sides), boxes, classes, difficult
        window = draw_window(amounts.get("jitter", 0.0), rng)
        flip = bool(rng.random() < amounts.get("flip", 0.0))
        seen = look_through(picture, window, sides, flip)
        seen = recolor(seen, *draw_colors(amounts, rng))
        boxes, kept = move_boxes(boxes, window, flip)
        return seen, boxes[kept], classes[kept], difficult[kept]


def draw_window(jitter: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of what is seen, relative to the picture: each side up to ``jitter`` inside or outside."""
    left, top, right, bottom = rng.uniform(-jitter, jitter, 4)
    return left, top, 1 - right, 1 - bottom


def draw_colors(amounts: Mapping[str, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Shift of the hue (fraction of the circle), factors of saturation and exposure."""
    hue = rng.uniform(-1, 1) * amounts.get("hue", 0.0)
    factors = []
    for key in ("saturation", "exposure"):
        factor = rng.uniform(1, max(1.0, amounts.get(key, 1.0)))
        factors.append(factor if rng.random() < 0.5 else 1 / factor)
    return hue, factors[0], factors[1]


def look_through(
    picture: np.ndarray, window: tuple[float, float, float, float], sides: tuple[int, int], flip: bool
) -> np.ndarray:
    """The part of a picture (H', W', 3) in a window, stretched to ``sides`` (H, W); gray where there is no picture."""
    height, width = sides
    rows, columns = picture.shape[:2]
    x1, y1, x2, y2 = window
    inner = (max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0))
    left, right = (round((x - x1) / (x2 - x1) * width) for x in (inner[0], inner[2]))
    top, bottom = (round((y - y1) / (y2 - y1) * height) for y in (inner[1], inner[3]))
    box = (inner[0] * columns, inner[1] * rows, inner[2] * columns, inner[3] * rows)
    part = Image.fromarray(picture).resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
    seen = np.full((height, width, 3), EMPTY, np.uint8)
    seen[top:bottom, left:right] = np.asarray(part)
    return seen[:, ::-1] if flip else seen


def recolor(picture: np.ndarray, hue: float, saturation: float, exposure: float) -> np.ndarray:
    """Shift the hue of a picture uint8 (H, W, 3), multiply saturation and value."""
    if hue == 0 and saturation == exposure == 1:
        return picture
    levels = np.arange(256)
    table = [
        (levels + round(256 * hue)) % 256,
        np.minimum(levels * saturation, 255),
        np.minimum(levels * exposure, 255),
    ]
    changed = Image.fromarray(np.ascontiguousarray(picture)).convert("HSV")
    return np.asarray(changed.point(np.concatenate(table).astype(int).tolist()).convert("RGB"))


def move_boxes(
    boxes: np.ndarray, window: tuple[float, float, float, float], flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes x1 y1 x2 y2 (M, 4) as the window sees them, cut at its border; and which are left (M,)."""
    x1, y1, x2, y2 = window
    moved = (boxes - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
    moved = np.clip(moved, 0, 1)
    if flip:
        moved = np.stack([1 - moved[:, 2], moved[:, 1], 1 - moved[:, 0], moved[:, 3]], 1)
    kept = np.all(moved[:, 2:] - moved[:, :2] > SMALLEST, axis=1)
    return moved.astype(np.float32), kept


def pad_targets(items: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> BoxTargets:
    """Truths (boxes x1 y1 x2 y2, classes, difficult) of several pictures as one padded set."""
    most = max([len(boxes) for boxes, _, _ in items], default=0)
    boxes = np.zeros((len(items), most, 4), np.float32)
    classes = np.zeros((len(items), most), np.int64)
    learned, present = np.zeros((len(items), most), bool), np.zeros((len(items), most), bool)
    for row, (corners, own, difficult) in enumerate(items):
        count = len(corners)
        boxes[row, :count, :2] = (corners[:, :2] + corners[:, 2:]) / 2
        boxes[row, :count, 2:] = corners[:, 2:] - corners[:, :2]
        classes[row, :count], learned[row, :count], present[row, :count] = own, ~difficult, True
    return BoxTargets(*(torch.from_numpy(array) for array in (boxes, classes, learned, present)))


def _batch_size(size: tuple[int, int], scales: int, cell: int, rng: np.random.Generator) -> tuple[int, int]:
    """A size up to ``scales`` cells smaller or larger, its proportions about kept."""
    cells = min(size) // cell
    step = int(rng.integers(-scales, scales + 1)) if scales else 0
    share = max(2, cells + step) / cells
    return size if not step else (round(size[0] * share / cell) * cell, round(size[1] * share / cell) * cell)
