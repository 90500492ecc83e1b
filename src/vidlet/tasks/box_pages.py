"""Pages about images with boxes: what was understood of the data, and the report of a detector's run."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import BoxImage, BoxTable, read_boxes, with_box_splits
from ..datasets.check import told, told_in_notebook
from ..errors import DataError, VidletError
from ..metrics import precision_recall
from ..reports import Section
from ..reports.detection import BoxView, DetectionReport, write_box_view, write_detection_report
from ..runs import RECIPE, REPORT, RunFolder, choose
from ..runtime import read_metadata
from ..video import annotate, enlarge, read_many
from ..video.folder import load_image
from .boxes import ScoredImages
from .clip_report import made_here, said
from .standing import title_of

SPLITS = ("train", "val", "test")
SHOWN = 24  # pictures of the page
FEW = 20  # training boxes of a class below which it is a warning
FOUND, FOUND_SCORE = 12, 0.5  # pictures of a run's report, and the least score of a box that is drawn
SMALL = 0.02  # a side of a box, as a share of the picture's, that few detectors see


@dataclass(frozen=True, repr=False)
class BoxReport:
    """What there is and what is wrong: images and boxes by split, what was left out, what stands out."""

    table: BoxTable
    broken: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    @property
    def splits(self) -> dict[str, int]:
        """Split -> images, in the usual order."""
        counts = Counter(image.split for image in self.table)
        return {split: counts[split] for split in sorted(counts, key=_order)}

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Label -> split -> boxes."""
        counts = Counter((box.label, image.split) for image in self.table for box in image.boxes)
        return {label: {split: counts[label, split] for split in self.splits} for label in self.table.labels}

    def sides(self) -> dict[str, tuple[float, float, float]]:
        """Label -> 5 %, median and 95 % of the square root of a box's share of its picture."""
        found: dict[str, list[float]] = {}
        for image in self.table:
            for box in image.boxes:
                found.setdefault(box.label, []).append(((box.x2 - box.x1) * (box.y2 - box.y1)) ** 0.5)
        quantiles = {label: np.quantile(values, [0.05, 0.5, 0.95]).tolist() for label, values in found.items()}
        return {label: (low, middle, high) for label, (low, middle, high) in quantiles.items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(told(self.to_dict()))})"

    def _repr_html_(self) -> str:
        return told_in_notebook(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``kind`` is "boxes (voc)", "boxes (coco)" or "boxes (yolo)"."""
        return {
            "root": str(self.table.root),
            "kind": f"boxes ({self.table.kind})",
            "images": len(self.table),
            "boxes": sum(len(image.boxes) for image in self.table),
            "splits": self.splits,
            "classes": self.classes,
            "difficult": sum(box.difficult for image in self.table for box in image.boxes),
            "clipped": self.table.clipped,
            "notes": list(self.table.notes),
            "warnings": list(self.warnings),
            "skipped": _named(self.table.skipped),
            "dropped": _named(self.table.dropped),
            "broken": _named(self.broken),
        }


def inspect_boxes(
    path: str | os.PathLike[str],
    strict: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> BoxReport:
    """Read images with boxes, decode every one, and report what there is and what is wrong.

    Raises:
        DataError: nothing usable is there; with ``strict`` also the first image or box that cannot be used.
    """
    table = read_boxes(path, strict)
    table = replace(table, notes=(*table.notes, *_split_notes(table)))
    broken = []
    for done, (image, found) in enumerate(read_many(list(table), _decoded, workers=workers), 1):
        if isinstance(found, VidletError):
            if strict:
                raise DataError(str(found))
            broken.append((_name(table, image), str(found).removeprefix(f"{image.path}: ")))
        if progress is not None:
            progress(done, len(table))
    return BoxReport(table, tuple(broken), tuple(_warnings(table, len(broken))))


def write_view(report: BoxReport, path: str | Path) -> None:
    """The page of a report: classes, sizes, and up to 24 images with their boxes drawn."""
    table = report.table
    bad = {name for name, _ in report.broken}
    usable = [image for image in table if _name(table, image) not in bad]
    rows = np.unique(np.linspace(0, max(0, len(usable) - 1), min(SHOWN, len(usable))).astype(int))
    pictures = [(draw_boxes(usable[i]), _caption(table, usable[i])) for i in rows.tolist()]
    said = report.to_dict()
    remarks = [*report.warnings, *table.notes]
    remarks += [f"{row['path']}: {row['error']}" for key in ("skipped", "broken", "dropped") for row in said[key]][:40]
    write_box_view(
        path,
        BoxView(
            title=f"{table.root.name}: images with boxes",
            summary=f"{said['images']:,} images with {said['boxes']:,} boxes of {len(table.labels)} classes "
            f"({table.kind}).",
            splits=report.splits,
            classes=report.classes,
            sizes=report.sides(),
            pictures=pictures,
            remarks=remarks,
        ),
    )


def draw_boxes(image: BoxImage) -> np.ndarray:
    """An image, small ones enlarged, with its boxes drawn: uint8 (H, W, 3)."""
    rows = [(box.x1, box.y1, box.x2, box.y2, box.label + ("?" if box.difficult else "")) for box in image.boxes]
    return annotate(enlarge(load_image(image.path)), "", boxes=rows)


def report_boxes(
    run: RunFolder,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    scored: Mapping[str, ScoredImages],
    table: BoxTable,
    data: str,
    extra: Sequence[Section] = (),
) -> None:
    """Write ``report.html`` into the run folder of a detector; arguments as of ``report_clips``."""
    choice = choose(run)
    first = scored[choice.path.name]
    metadata = read_metadata(choice.path)
    evidence = metadata["evidence"][0]
    write_detection_report(
        run / REPORT,
        DetectionReport(
            title=title_of(table.root.name, metadata["recipe"]["name"], metrics),
            summary=f"Finds {len(table.labels)} classes of objects: {', '.join(table.labels[:12])}"
            + (" ..." if len(table.labels) > 12 else "."),
            split=str(metrics["split"]),
            labels=table.labels,
            files=metrics["files"],
            ship=choice.line(),
            curves={name: precision_recall(s.detections, s.truths, len(s.labels)) for name, s in scored.items()},
            log=log,
            extra=extra,
            pictures=_found_in(first),
            notes=table.notes,
            skipped=[*metrics["skipped"], *metrics["dropped"]],
            commands=[("Score the file again", f"vidlet evaluate {choice.path} {data}")],
            provenance={
                **made_here(evidence["command"]),
                "data": f"sha256 {evidence['table_sha256']}",
                "graph": f"sha256 {evidence['graph_sha256']}",
                **{f"weights, {key}": said(value) for key, value in metadata["provenance"].items()},
                "Python": sys.version.split()[0],
            },
            recipe_toml=(run / RECIPE).read_text("utf-8"),
        ),
    )


def _found_in(scored: ScoredImages) -> list[tuple[np.ndarray, str]]:
    """Some of the scored images with what was found in them."""
    rows = np.unique(np.linspace(0, len(scored.images) - 1, FOUND).astype(int))
    found = []
    for row in rows:
        boxes = [
            (float(x1), float(y1), float(x2), float(y2), f"{scored.labels[int(label)]} {score:.0%}")
            for x1, y1, x2, y2, score, label in scored.detections[row]
            if score >= FOUND_SCORE
        ]
        rgb = enlarge(load_image(scored.images[row].path))
        found.append((annotate(rgb, "", boxes=boxes), scored.images[row].path.name))
    return found


def _named(rows: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "error": why} for path, why in rows]


def _decoded(image: BoxImage) -> int:
    return load_image(image.path).nbytes


def _split_notes(table: BoxTable) -> list[str]:
    """How training deals out the images where the data leave that open."""
    given = Counter(image.split for image in table)
    if given[""] < len(table) and (given["val"] or not given["train"]):
        return []
    try:
        dealt = Counter(image.split for image in with_box_splits(table))
    except DataError as error:
        return [f"Not all splits are given, and they cannot be made: {error}."]
    parts = [f"{name} {dealt[name]} ({dealt[name] / len(table):.0%})" for name in ("train", "val", "test")]
    what = "No split is given" if given[""] == len(table) else "No val is given"
    return [f"{what}: training takes {', '.join(parts)} of the images."]


def _warnings(table: BoxTable, broken: int) -> list[str]:
    found = []
    if broken:
        found.append(f"{broken} of {len(table)} images do not decode; training leaves them out")
    train = [image for image in table if image.split in ("train", "")]
    counts: Mapping[str, int] = Counter(box.label for image in train for box in image.boxes)
    for label in table.labels:
        if counts.get(label, 0) < FEW:
            found.append(f"class {label} has {counts.get(label, 0)} boxes to train on")
    sides = np.array([min(b.x2 - b.x1, b.y2 - b.y1) for image in table for b in image.boxes])
    if len(sides) and (share := float((sides < SMALL).mean())) > 0.1:
        found.append(
            f"{share:.0%} of the boxes have a side below {SMALL:.0%} of the picture's: take a larger input_size"
        )
    empty = sum(not image.boxes for image in table)
    if empty > len(table) / 2:
        found.append(f"{empty} of {len(table)} images have no box")
    return found


def _caption(table: BoxTable, image: BoxImage) -> str:
    return f"{_name(table, image)} ({image.split or 'no split'}, {len(image.boxes)})"


def _name(table: BoxTable, image: BoxImage) -> str:
    root = table.root
    return image.path.relative_to(root).as_posix() if image.path.is_relative_to(root) else image.path.as_posix()


def _order(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)
