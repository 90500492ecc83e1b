"""What the cells of a detector's map mean: anchors, boxes and scores.

Source: Redmon & Farhadi 2017, arXiv:1612.08242, sections 2.2 and 2.3. Channel a (5 + K) + e of a map is entry e
of anchor a: tx ty tw th, objectness, K classes. With (cx, cy) the cell and S its map's side,
bx = (sigmoid(tx) + cx) / S, bw = p_w exp(tw) / S, score = sigmoid(to) softmax(classes).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

MAX_LOG = 8.0  # exp(8) cells: larger than any picture


def split_map(maps: Tensor, anchors: int) -> Tensor:
    """(B, A (5 + K), H, W) -> (B, A, H, W, 5 + K)."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch, anchors, channels // anchors, height, width).permute(0, 1, 3, 4, 2)


def decode(maps: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (B, N, 4) as x y w h (center and size relative to the picture) and scores (B, N, K), N = A H W.

    Args:
        maps: (B, A (5 + K), H, W).
        anchors: (A, 2), width and height in cells.
    """
    cells = split_map(maps, len(anchors))  # (B, A, H, W, 5 + K)
    boxes = decode_boxes(cells, anchors)
    scores = cells[..., 4:5].sigmoid() * cells[..., 5:].softmax(-1)
    return boxes.flatten(1, 3), scores.flatten(1, 3)


def decode_boxes(cells: Tensor, anchors: Tensor) -> Tensor:
    """(B, A, H, W, 5 + K) -> x y w h (B, A, H, W, 4), relative to the picture."""
    height, width = cells.shape[2:4]
    x = (cells[..., 0].sigmoid() + torch.arange(width, device=cells.device)) / width
    y = (cells[..., 1].sigmoid() + torch.arange(height, device=cells.device)[:, None]) / height
    sizes = cells[..., 2:4].clamp(max=MAX_LOG).exp() * anchors[:, None, None, :]  # (B, A, H, W, 2)
    return torch.stack([x, y, sizes[..., 0] / width, sizes[..., 1] / height], -1)


def corners(boxes: Tensor) -> Tensor:
    """x y w h (..., 4) -> x1 y1 x2 y2 (..., 4), cut at the picture's border."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1).clamp(0, 1)


def box_overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes x y w h (..., M, 4) and (..., N, 4): (..., M, N)."""
    low = torch.maximum((a[..., :2] - a[..., 2:] / 2)[..., :, None, :], (b[..., :2] - b[..., 2:] / 2)[..., None, :, :])
    high = torch.minimum((a[..., :2] + a[..., 2:] / 2)[..., :, None, :], (b[..., :2] + b[..., 2:] / 2)[..., None, :, :])
    inner = (high - low).clamp(min=0).prod(-1)
    union = a[..., 2:].prod(-1)[..., :, None] + b[..., 2:].prod(-1)[..., None, :] - inner
    return inner / union.clamp(min=1e-12)


def shape_overlaps(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union of sizes (M, 2) and (A, 2) laid on one corner: (M, A)."""
    inner = np.minimum(sizes[:, None], anchors[None]).prod(2)
    return np.asarray(inner / (sizes.prod(1)[:, None] + anchors.prod(1)[None] - inner))


def kmeans_anchors(sizes: np.ndarray, count: int = 5, seed: int = 0, rounds: int = 200) -> np.ndarray:
    """The ``count`` sizes (A, 2), by area, that overlap the given ones (M, 2) best: k-means with distance 1 - overlap.

    Fewer where there are fewer different sizes. Units are the caller's.

    Raises:
        DataError: no sizes.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    different = np.unique(sizes, axis=0)
    if not len(different):
        raise DataError("there are no boxes to find anchors for")
    rng = np.random.default_rng(seed)
    best, best_mean = different[:1], -1.0
    for _ in range(8):
        anchors = _spread_out(different, min(count, len(different)), rng)
        nearest = np.full(len(sizes), -1)
        for _ in range(rounds):
            shares = shape_overlaps(sizes, anchors)
            if (nearest == shares.argmax(1)).all():
                break
            nearest = shares.argmax(1)
            for a in range(len(anchors)):
                if (nearest == a).any():
                    anchors[a] = sizes[nearest == a].mean(0)
        mean = shape_overlaps(sizes, anchors).max(1).mean()
        if mean > best_mean:
            best, best_mean = anchors, mean
    return np.asarray(best[np.argsort(best.prod(1), kind="stable")])


def _spread_out(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """First centers by k-means++: each drawn with probability proportional to its squared distance to the others."""
    chosen = [int(rng.integers(len(sizes)))]
    while len(chosen) < count:
        distance = 1 - shape_overlaps(sizes, sizes[chosen]).max(1)
        chance = distance**2
        chance[chosen] = 0
        chosen.append(int(rng.choice(len(sizes), p=chance / chance.sum())))
    return sizes[chosen].copy()
