"""Images with boxes: reading them with their splits, and scoring a detector's file on them through the runtime."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..datasets import BoxImage, BoxTable, read_boxes, with_box_splits
from ..errors import DataError, VidletError
from ..metrics import Difference, Truth, detection_summary, map50_samples, percentiles_ms
from ..progress import bar
from ..reports import rate_text
from ..runtime import Model
from ..video import read_many, resize
from ..video.folder import load_image
from ..wording import cell
from .clips import named
from .task import DataSource

LISTED = 0.05  # boxes.csv has those of at least this score
HEADLINE = ("map50", "map50_interval", "map50_11", "map50_95")
EVIDENCE = ("map50", "map50_interval", "map50_95")


@dataclass(frozen=True)
class ScoredImages:
    """What a file found in the images that could be decoded: an array (M, 6) each, the truth, the time it took."""

    images: tuple[BoxImage, ...]
    detections: tuple[np.ndarray, ...]
    truths: tuple[Truth, ...]
    image_s: np.ndarray
    skipped: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]


def read_box_images(source: DataSource) -> BoxTable:
    """Images with boxes, with a split each; see ``datasets.read_boxes``."""
    return with_box_splits(read_boxes(source.path, source.strict))


def check_boxes_trainable(table: BoxTable) -> None:
    """Refuse data of which no detector can be trained.

    Raises:
        DataError: no image is in train, or none of them has a box of some class.
    """
    train = table.of_split("train")
    if not len(train):
        raise DataError(f"{table.root}: no image is in train")
    found = {box.label for image in train for box in image.boxes}
    if absent := [name for name in table.labels if name not in found]:
        raise DataError(f"{table.root}: class {absent[0]!r} has no box in train")


def score_images(model: Model, table: BoxTable, strict: bool = False, workers: int = 2) -> ScoredImages:
    """Run a loaded detector over the images of a table; only its own time is counted, not decoding.

    Raises:
        DataError: a box of a class that the model does not know; no image can be decoded; with ``strict``, one cannot.
        ModelError: not a detector.
    """
    _check_labels(model, table)
    index = {name: i for i, name in enumerate(model.box_labels)}
    order = np.array([index.get(name, -1) for name in table.labels])
    kept, detections, truths, times, skipped = [], [], [], [], list(table.skipped)
    with bar(f"evaluate {named([model])}", "image") as move:
        jobs = read_many(list(table), lambda image: resize(load_image(image.path), model.input_size), workers=workers)
        for done, (image, picture) in enumerate(jobs, 1):
            move(done, len(table))
            if isinstance(picture, VidletError):
                if strict:
                    raise picture
                skipped.append((str(image.path), str(picture)))
                continue
            started = time.perf_counter()
            found = model.detect(picture)
            times.append(time.perf_counter() - started)
            boxes, classes, difficult = table.truth(image)
            kept.append(image)
            detections.append(found)
            truths.append(Truth(boxes, order[classes], difficult))
    if not kept:
        raise DataError(f"{table.root}: none of {len(table)} images could be decoded; first: {skipped[0][1]}")
    return ScoredImages(
        tuple(kept), tuple(detections), tuple(truths), np.array(times), tuple(skipped), model.box_labels
    )


def figures_of_boxes(model: Model, table: BoxTable, strict: bool = False) -> dict[str, Any]:
    """The figures of a detector's file on a table; see ``summarize_boxes``."""
    return summarize_boxes(score_images(model, table, strict), model)


def summarize_boxes(scored: ScoredImages, model: Model) -> dict[str, Any]:
    """The figures of a scored file: ``map50`` with its interval, ``map50_95``, ``per_class``, bytes, times."""
    samples = map50_samples(scored.detections, scored.truths, len(scored.labels))
    low, high = np.quantile(samples, [0.025, 0.975])
    return {
        **detection_summary(scored.detections, scored.truths, scored.labels),
        "map50_interval": [float(low), float(high)],
        "image_ms": percentiles_ms(scored.image_s),
        "bytes": model.bytes,
        "skipped": [{"path": path, "error": error} for path, error in scored.skipped],
    }


def map50_difference(a: ScoredImages, b: ScoredImages) -> Difference:
    """mAP at .5 of A minus that of B on the same images, resampled in pairs (95 %)."""
    classes = len(a.labels)
    gaps = map50_samples(a.detections, a.truths, classes) - map50_samples(b.detections, b.truths, classes)
    summaries = [detection_summary(s.detections, s.truths, s.labels)["map50"] or 0.0 for s in (a, b)]
    low, high = map(float, np.quantile(gaps, [0.025, 0.975])) if len(a.truths) > 1 else (None, None)
    return Difference(summaries[0] - summaries[1], low, high)


def boxes_csv(scored: Mapping[str, ScoredImages]) -> str:
    """What each file found, as CSV text: file, path, class, score, x1, y1, x2, y2; scores of at least .05."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "path", "class", "score", "x1", "y1", "x2", "y2"])
    for name, found in scored.items():
        for image, boxes in zip(found.images, found.detections, strict=True):
            for x1, y1, x2, y2, score, label in boxes[boxes[:, 4] >= LISTED]:
                cells = [f"{value:.4f}" for value in (score, x1, y1, x2, y2)]
                writer.writerow(map(cell, [name, str(image.path), found.labels[int(label)], *cells]))
    return text.getvalue()


def box_remarks(table: BoxTable) -> dict[str, Any]:
    """The single boxes that were left out, and how many were cut at the border, as metrics.json tells them."""
    dropped = [{"path": path, "error": error} for path, error in table.dropped]
    return {"dropped": dropped, "clipped": table.clipped}


def differ(scored: ScoredImages, other: ScoredImages) -> dict[str, Any]:
    """The difference of two files' mAP at .5 on the same images, in pairs."""
    return {"difference": map50_difference(scored, other)._asdict()}


def quality_line(figures: Mapping[str, Any]) -> str:
    """The quality of a file in a few words."""
    return f"mAP .5 {rate_text(figures['map50'])}, .5:.95 {rate_text(figures['map50_95'])}"


def _check_labels(model: Model, table: BoxTable) -> None:
    used = {box.label for image in table for box in image.boxes}
    if unknown := sorted(used - set(model.box_labels)):
        known = ", ".join(model.box_labels[:8])
        raise DataError(f"{table.root}: class {unknown[0]!r} is not one of the model's ({known} ...)")
