"""How good boxes are: precision over recall, PASCAL VOC's average precision (area and 11 points), COCO's .5:.95.

Sources: Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge"; Lin et al. 2014, arXiv:1405.0312. A
detection of VOC belongs to the truth of its class that it overlaps most, found before or not; one of COCO to the
truth not found yet that it overlaps most. Boxes are x1 y1 x2 y2 in any unit; ``border`` is 1 for pixels counted
inclusively (VOC's own code), 0 for relative coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

COCO_OVERLAPS = np.linspace(0.5, 0.95, 10)
COCO_MOST = 100  # detections a class and image that COCO looks at


class Truth(NamedTuple):
    """What stands in an image: boxes (N, 4), classes (N,), and which of them (N,) are too hard to be counted."""

    boxes: NDArray
    classes: NDArray
    difficult: NDArray


@dataclass(frozen=True)
class Curve:
    """Precision over recall of a class: a point for each detection that counts, by falling score.

    ``truths`` is the number of objects to be found (difficult ones left out); without any, recall is 0 throughout.
    """

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]
    truths: int


def overlaps(a: NDArray, b: NDArray, border: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union of boxes (M, 4) and (N, 4): (M, N)."""
    inner, size_a, size_b = _intersections(a, b, border)
    union = size_a[:, None] + size_b[None] - inner
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)


def precision_recall(
    detections: Sequence[NDArray], truths: Sequence[Truth], classes: int, overlap: float = 0.5, border: float = 0.0
) -> list[Curve]:
    """Curves of all classes by VOC's rule.

    Args:
        detections: an array (M, 6) an image: x1 y1 x2 y2, score, class; in any order. Equal scores keep it.
        truths: one an image, in the same order.
        overlap: the least intersection over union of a hit.
    """
    return [_voc_curve(detections, truths, c, overlap, border) for c in range(classes)]


def average_precision(curve: Curve, points: int | None = None) -> float:
    """Area under the monotone envelope of a curve, or the mean of its heights at 0, .1, ... 1 (``points`` 11).

    NaN where there is nothing to find.
    """
    if not curve.truths:
        return float("nan")
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    if points is not None:
        levels = np.linspace(0, 1, points)
        at = np.searchsorted(curve.recall, levels - 1e-12)
        return float(np.append(envelope, 0.0)[at].mean())
    steps = np.diff(curve.recall, prepend=0.0)
    return float((steps * envelope).sum())


def mean_over_classes(curves: Sequence[Curve], points: int | None = None) -> float:
    """Mean over the classes of which there is anything to find; NaN without any."""
    found = [average_precision(curve, points) for curve in curves if curve.truths]
    return float(np.mean(found)) if found else float("nan")


def coco_precisions(
    detections: Sequence[NDArray], truths: Sequence[Truth], classes: int, most: int = COCO_MOST
) -> NDArray[np.float64]:
    """COCO's average precision (K, 10) of each class at overlaps .5, .55, ... .95; NaN where nothing is to be found.

    Difficult truths are taken as COCO's crowds: what lies in one is neither hit nor miss. All sizes of objects.
    """
    result = np.full((classes, len(COCO_OVERLAPS)), np.nan)
    for c in range(classes):
        scores, hits, ignored, count = [], [], [], 0
        for found, truth in zip(detections, truths, strict=True):
            own = found[found[:, 5] == c]
            own = own[np.argsort(-own[:, 4], kind="stable")][:most]
            here = truth.classes == c
            count += int((here & ~truth.difficult).sum())
            hit, ignore = _coco_matches(own[:, :4], truth.boxes[here], truth.difficult[here])
            scores.append(own[:, 4])
            hits.append(hit)
            ignored.append(ignore)
        if count:
            order = np.argsort(-np.concatenate(scores), kind="stable")
            result[c] = _coco_areas(np.concatenate(hits, 1)[:, order], np.concatenate(ignored, 1)[:, order], count)
    return result


def map50_samples(
    detections: Sequence[NDArray], truths: Sequence[Truth], classes: int, resamples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Mean average precision (VOC, area, overlap .5) of ``resamples`` draws of the images with replacement (R,).

    The same seed draws the same images, so that two detectors' samples can be subtracted in pairs.
    """
    rng = np.random.default_rng(seed)
    count = len(truths)
    draws = rng.integers(0, count, (resamples, count))
    weights = np.stack([np.bincount(draw, minlength=count) for draw in draws])  # (R, I)
    areas = np.stack([_resampled_areas(_voc_hits(detections, truths, c, 0.5, 0.0), weights) for c in range(classes)])
    known = ~np.isnan(areas)
    return np.where(known, areas, 0).sum(0) / np.maximum(known.sum(0), 1)


def detection_summary(detections: Sequence[NDArray], truths: Sequence[Truth], labels: Sequence[str]) -> dict[str, Any]:
    """The figures of a detector: ``map50`` (VOC, area), ``map50_11``, ``map50_95`` (COCO), ``per_class``, counts.

    Figures are None where nothing is to be found.
    """
    curves = precision_recall(detections, truths, len(labels))
    coco = coco_precisions(detections, truths, len(labels))
    per_class = {
        name: {
            "ap50": _number(average_precision(curve)),
            "ap50_95": _number(coco[i].mean()),
            "truths": curve.truths,
            "detections": len(curve.scores),
        }
        for i, (name, curve) in enumerate(zip(labels, curves, strict=True))
    }
    some = coco[~np.isnan(coco[:, 0])]
    return {
        "map50": _number(mean_over_classes(curves)),
        "map50_11": _number(mean_over_classes(curves, 11)),
        "map50_95": _number(some.mean()) if len(some) else None,
        "per_class": per_class,
        "images": len(truths),
        "boxes": int(sum(curve.truths for curve in curves)),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


class _Hits(NamedTuple):
    """Detections of one class by falling score: scores, whether they hit, whether they count, their image (M,)."""

    scores: NDArray
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    owner: NDArray[np.int64]
    truths: NDArray[np.int64]  # objects to be found in each image (I,)


def _voc_hits(detections: Sequence[NDArray], truths: Sequence[Truth], c: int, overlap: float, border: float) -> _Hits:
    scores, owners, targets = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    difficult = [truth.difficult[truth.classes == c] for truth in truths]
    for image, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        own, here = found[found[:, 5] == c], truth.classes == c
        scores.append(own[:, 4])
        owners.append(np.full(len(own), image))
        if here.any() and len(own):
            shares = overlaps(own[:, :4], truth.boxes[here], border)
            best = shares.argmax(1)
            targets.append(np.where(shares[np.arange(len(own)), best] >= overlap, best, -1))
        else:
            targets.append(np.full(len(own), -1))
    score, owner, target = np.concatenate(scores), np.concatenate(owners), np.concatenate(targets)
    order = np.argsort(-score, kind="stable")
    taken: set[tuple[int, int]] = set()
    hit, counted = np.zeros(len(order), bool), np.ones(len(order), bool)
    for rank, row in enumerate(order):
        place = (int(owner[row]), int(target[row]))
        if place[1] < 0:
            continue
        if difficult[place[0]][place[1]]:
            counted[rank] = False
        elif place not in taken:
            taken.add(place)
            hit[rank] = True
    counts = np.array([int((~hard).sum()) for hard in difficult], np.int64)
    return _Hits(score[order], hit, counted, owner[order], counts)


def _voc_curve(detections: Sequence[NDArray], truths: Sequence[Truth], c: int, overlap: float, border: float) -> Curve:
    found = _voc_hits(detections, truths, c, overlap, border)
    right = np.cumsum(found.hit[found.counted])
    precision = right / (np.arange(len(right)) + 1)
    count = int(found.truths.sum())
    return Curve(right / max(count, 1), precision, found.scores[found.counted], count)


def _resampled_areas(found: _Hits, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Areas under the envelope (R,) where image i counts weights[r, i] times; NaN where nothing is to be found."""
    each = weights[:, found.owner[found.counted]]  # (R, M)
    right = np.cumsum(each * found.hit[found.counted], axis=1)
    seen = np.cumsum(each, axis=1)
    totals = weights @ found.truths
    precision = right / np.maximum(seen, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    steps = np.diff(right, axis=1, prepend=0)
    area = (steps * envelope).sum(1) / np.maximum(totals, 1)
    return np.where(totals > 0, area, np.nan)


def _coco_matches(boxes: NDArray, truths: NDArray, crowd: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of an image's detections by falling score (M, 4): which hit a truth, which are not counted, (10, M) each."""
    hits = np.zeros((len(COCO_OVERLAPS), len(boxes)), bool)
    ignored = np.zeros_like(hits)
    if not len(boxes) or not len(truths):
        return hits, ignored
    order = np.argsort(crowd, kind="stable")  # crowds last
    crowd = crowd[order]
    inner, size, other = _intersections(boxes, truths[order], 0.0)
    outer = np.where(crowd[None], size[:, None], size[:, None] + other[None] - inner)
    shares = np.divide(inner, outer, out=np.zeros_like(inner), where=outer > 0)
    for row, least in enumerate(COCO_OVERLAPS):
        free = np.ones(len(truths), bool)
        for i in range(len(boxes)):
            allowed = shares[i] >= min(least, 1 - 1e-10)
            candidates = np.flatnonzero(allowed & free & ~crowd)
            if not len(candidates):
                candidates = np.flatnonzero(allowed & crowd)
            if len(candidates):
                chosen = candidates[::-1][shares[i][candidates[::-1]].argmax()]  # of equals the last, as COCO's code
                free[chosen] = crowd[chosen]
                hits[row, i], ignored[row, i] = True, crowd[chosen]
    return hits, ignored


def _coco_areas(hits: NDArray[np.bool_], ignored: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Mean precision at 101 levels of recall (10,) of detections by falling score (10, M)."""
    levels = np.linspace(0, 1, 101)
    areas = np.zeros(len(hits))
    for row in range(len(hits)):
        right = np.cumsum(hits[row] & ~ignored[row]).astype(float)
        wrong = np.cumsum(~hits[row] & ~ignored[row]).astype(float)
        precision = right / (right + wrong + np.spacing(1))
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(right / count, levels, side="left")
        areas[row] = np.append(envelope, 0.0)[at].mean()
    return areas


def _intersections(a: NDArray, b: NDArray, border: float) -> tuple[NDArray[np.float64], NDArray, NDArray]:
    """Areas of the intersections (M, N), of the boxes (M, 4) and of the boxes (N, 4)."""
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.maximum(high - low + border, 0).prod(2)
    return inner, (a[:, 2:] - a[:, :2] + border).prod(1), (b[:, 2:] - b[:, :2] + border).prod(1)
