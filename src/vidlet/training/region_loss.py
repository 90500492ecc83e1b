"""The loss of YOLOv2's region layer, so that its gradients are darknet's deltas: coefficient times error.

Source: Redmon & Farhadi 2017, arXiv:1612.08242; darknet's region_layer.c. A truth belongs to the cell of its center and
the anchor of its shape; where two want the same place, the later one has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.region import MAX_LOG, box_overlaps, decode_boxes, shape_overlaps, split_map

WARM_IMAGES = 12_800  # as long, every box is drawn to its anchor


@dataclass(frozen=True)
class RegionWeights:
    """Coefficients of the errors, and what counts as found anyway."""

    coordinates: float = 1.0
    objectness: float = 5.0
    empty: float = 1.0
    classes: float = 1.0
    anchors: float = 0.01  # of the pull to the anchors, in the first images
    found: float = 0.6  # an empty place whose box overlaps any truth by more is left alone
    small: bool = False  # coordinates times (2 - w h): small boxes count more, as in some versions


class BoxTargets(NamedTuple):
    """Truths of B pictures, padded to M: boxes (B, M, 4) x y w h, classes (B, M), and which are to be learned (B, M).

    ``present`` (B, M) are those and the difficult ones: nothing is punished for finding them.
    """

    boxes: Tensor
    classes: Tensor
    learned: Tensor
    present: Tensor


def region_loss(
    maps: Tensor, targets: BoxTargets, anchors: Tensor, seen: int, weights: RegionWeights | None = None
) -> Tensor:
    """Loss of maps (B, A (5 + K), H, W), a sum over places, the mean over pictures.

    Args:
        anchors: (A, 2), in cells.
        seen: pictures trained on before.
    """
    weights = weights or RegionWeights()
    cells = split_map(maps.float(), len(anchors))  # (B, A, H, W, 5 + K)
    with torch.no_grad():
        boxes = decode_boxes(cells, anchors)  # (B, A, H, W, 4)
        best = _best_overlaps(boxes, targets)  # (B, A, H, W)
        rows, chosen = match(targets, anchors, (cells.shape[2], cells.shape[3]))
    objectness = cells[..., 4].sigmoid()
    empty = best <= weights.found
    empty[rows] = False
    loss = 0.5 * weights.empty * (objectness[empty] ** 2).sum()
    if seen < WARM_IMAGES:
        free = torch.ones_like(empty)
        free[rows] = False
        loss = loss + 0.5 * weights.anchors * _anchor_errors(cells[free])
    if len(chosen[0]):
        loss = loss + _matched_loss(cells[rows], objectness[rows], boxes[rows], rows, targets, chosen, anchors,
                                    (cells.shape[2], cells.shape[3]), weights)  # fmt: skip
    return loss / len(maps)


Places = tuple[Tensor, Tensor, Tensor, Tensor]  # picture, anchor, row, column of each match


def match(targets: BoxTargets, anchors: Tensor, sides: tuple[int, int]) -> tuple[Places, tuple[Tensor, Tensor]]:
    """The places that truths have in a map of ``sides`` (H, W), and (picture, number) of the truth at each."""
    height, width = sides
    learned = targets.learned.cpu().numpy()
    picture, number = np.nonzero(learned)  # by picture, then in order
    boxes = targets.boxes.cpu().numpy()[picture, number].astype(np.float64)
    shapes = shape_overlaps(boxes[:, 2:] * [width, height], anchors.cpu().numpy().astype(np.float64))
    anchor = shapes.argmax(1) if len(boxes) else np.zeros(0, int)
    column = np.clip((boxes[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip((boxes[:, 1] * height).astype(int), 0, height - 1)
    place = ((picture * len(anchors) + anchor) * height + row) * width + column
    _, last = np.unique(place[::-1], return_index=True)
    kept = len(place) - 1 - last  # of several at one place, the last
    device = targets.boxes.device
    indices = [torch.from_numpy(v[kept].astype(np.int64)).to(device) for v in (picture, anchor, row, column, number)]
    return (indices[0], indices[1], indices[2], indices[3]), (indices[0], indices[4])


def _best_overlaps(boxes: Tensor, targets: BoxTargets) -> Tensor:
    """Of each predicted box (B, A, H, W, 4) the largest overlap with a truth that is there."""
    if not targets.boxes.shape[1]:
        return boxes.new_zeros(boxes.shape[:-1])
    shares = box_overlaps(boxes.flatten(1, 3), targets.boxes)  # (B, N, M)
    return (shares * targets.present[:, None, :]).amax(2).view(boxes.shape[:-1])


def _anchor_errors(cells: Tensor) -> Tensor:
    """Squared distances of predictions (N, 5 + K) to their anchors in the middle of their cells."""
    return ((cells[:, :2].sigmoid() - 0.5) ** 2).sum() + (cells[:, 2:4].clamp(max=MAX_LOG) ** 2).sum()


def _matched_loss(
    cells: Tensor, objectness: Tensor, boxes: Tensor, rows: Places, targets: BoxTargets,
    chosen: tuple[Tensor, Tensor], anchors: Tensor, sides: tuple[int, int], weights: RegionWeights,
) -> Tensor:  # fmt: skip
    """What the places (n, 5 + K) that have a truth add."""
    truth = targets.boxes[chosen]  # (n, 4)
    scale = truth.new_tensor([sides[1], sides[0]])
    centers = truth[:, :2] * scale - torch.stack([rows[3], rows[2]], 1)  # within the cell
    sizes = (truth[:, 2:] * scale / anchors[rows[1]]).clamp(min=1e-6).log()
    weight = 2 - truth[:, 2:].prod(1) if weights.small else truth.new_ones(len(truth))
    errors = ((cells[:, :2].sigmoid() - centers) ** 2).sum(1) + ((cells[:, 2:4] - sizes) ** 2).sum(1)
    shares = box_overlaps(boxes[:, None], truth[:, None]).view(-1)
    coordinates = 0.5 * weights.coordinates * (weight * errors).sum()
    objects = 0.5 * weights.objectness * ((objectness - shares) ** 2).sum()
    classes = functional.cross_entropy(cells[:, 5:], targets.classes[chosen], reduction="sum")
    return coordinates + objects + weights.classes * classes
