"""Pages of detectors: the report of a training (files side by side, curves, pictures); a look at images with boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_text
from ..metrics import Curve
from .charts import Series, line_chart, percent
from .markup import Column, Html, Section, code, element, join, table
from .page import heading, page
from .pictures import gallery
from .sections import origin
from .text import bytes_text, interval_text, ms_text, points_interval, points_text, rate_text

LEVELS = np.linspace(0, 1, 51)  # recall at which a curve is drawn


@dataclass(frozen=True, kw_only=True)
class DetectionReport:
    """Everything on the page. The first of ``files`` is the product.

    ``files``: name -> figures of ``jobs.score_boxes``; ``curves``: name -> one curve a class; ``pictures``: annotated
    frames uint8 (H, W, 3) with a caption; ``ship``: the file to ship, and why; ``log``: rows of log.csv; ``extra``:
    further sections before the files.
    """

    title: str
    summary: str
    split: str
    labels: Sequence[str]
    files: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Sequence[Curve]]
    log: Sequence[Mapping[str, Any]] = ()
    extra: Sequence[Section] = ()
    pictures: Sequence[tuple[NDArray[np.uint8], str]] = ()
    notes: Sequence[str] = ()
    skipped: Sequence[Mapping[str, str]] = ()
    commands: Sequence[tuple[str, str]] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    recipe_toml: str = ""
    ship: str = ""


def write_detection_report(path: str | os.PathLike[str], report: DetectionReport) -> None:
    """Write the report, whole or not at all."""
    header = heading("vidlet report", report.title, report.summary)
    parts = [*report.extra, _files(report), _curves(report), _classes(report), _pictures(report),
             _learning(report), _run(report), _data(report), _provenance(report)]  # fmt: skip
    write_text(path, page(report.title, header, [part for part in parts if part is not None]))


def drawn_curve(curve: Curve) -> list[float]:
    """Heights of a curve's monotone envelope at ``LEVELS``; NaN where that recall is never reached."""
    if not len(curve.recall):
        return [float("nan")] * len(LEVELS)
    envelope = np.maximum.accumulate(curve.precision[::-1])[::-1]
    at = np.searchsorted(curve.recall, LEVELS - 1e-12)
    return np.append(envelope, np.nan)[at].tolist()


def _files(report: DetectionReport) -> Section:
    columns = [Column("File"), Column("mAP .5", "number"), Column("95 % interval"), Column("mAP .5:.95", "number"),
               Column("Against the first, points"), Column("Size", "number"), Column("A picture, p50", "number"),
               Column("p95", "number")]  # fmt: skip
    rows = []
    for name, found in report.files.items():
        gap, times = found.get("difference"), found.get("image_ms", {})
        against = f"{points_text(gap['mean'])} {points_interval(gap['low'], gap['high'])}" if gap else ""
        quality = [rate_text(found["map50"]), interval_text(found["map50_interval"]), rate_text(found["map50_95"])]
        cost = [bytes_text(found["bytes"]), ms_text(times.get("p50")), ms_text(times.get("p95"))]
        rows.append([name, *quality, against, *cost])
    lead = (
        f"Measured on the files as they ship, on the same {next(iter(report.files.values()))['images']} images of the "
        f"{report.split} split. Mean average precision: PASCAL VOC's area at overlap .5, and COCO's mean over .5 to "
        ".95. Differences are resampled in pairs, image by image." + (f" Ship {report.ship}." if report.ship else "")
    )
    return Section("Files compared", table(columns, rows, "Files of this run", sortable=True), lead)


def _curves(report: DetectionReport) -> Section:
    charts = []
    for i, label in enumerate(report.labels):
        series = [Series(name, LEVELS.tolist(), drawn_curve(curves[i])) for name, curves in report.curves.items()]
        charts.append(line_chart(series, f"{label}: precision", "recall", (0.0, 1.0), percent))
    lead = "At overlap .5; at each recall the best precision there or beyond."
    return Section("Precision over recall", element("div", *charts, class_="trio"), lead)


def _classes(report: DetectionReport) -> Section:
    names = list(report.files)
    columns = [Column("Class"), Column("Boxes", "number"), *(Column(f"AP .5, {name}", "number") for name in names)]
    rows: list[list[object]] = []
    for label in report.labels:
        own = [report.files[name]["per_class"][label] for name in names]
        rows.append([label, f"{own[0]['truths']:,}", *(rate_text(found["ap50"]) for found in own)])
    return Section("Classes", table(columns, rows, "Average precision by class", sortable=True))


def _pictures(report: DetectionReport) -> Section | None:
    if not report.pictures:
        return None
    lead = "Boxes of the file to ship with a score of at least one half."
    return Section("Pictures", gallery(report.pictures), lead)


def _learning(report: DetectionReport) -> Section | None:
    if not report.log:
        return None
    epochs = [float(row["epoch"]) for row in report.log]
    series = [Series(name, epochs, [float(row[key]) for row in report.log])
              for key, name in (("train_loss", "training"), ("val_loss", "validation"))]  # fmt: skip
    return Section("Learning", element("div", line_chart(series, "Loss", "epoch"), class_="pair"))


def _run(report: DetectionReport) -> Section | None:
    if not report.commands:
        return None
    return Section("Run it", join([code(text, title) for title, text in report.commands]))


def _data(report: DetectionReport) -> Section | None:
    lines: list[Html] = [element("li", note) for note in report.notes]
    lines += [element("li", f"{row['path']}: {row['error']}") for row in report.skipped[:20]]
    more = f"{len(report.skipped)} images or boxes could not be used." if report.skipped else ""
    return Section("Data", element("ul", *lines), more) if lines else None


def _provenance(report: DetectionReport) -> Section | None:
    if not report.provenance:
        return None
    lead = "What is needed to make this model again."
    return Section("Provenance", origin(report.provenance, report.recipe_toml), lead)


@dataclass(frozen=True, kw_only=True)
class BoxView:
    """Everything on the page.

    ``classes``: label -> boxes by split; ``sizes``: label -> (5 %, median, 95 %) of the square root of a box's share of
    its picture; ``pictures``: frames uint8 (H, W, 3) with boxes drawn, and a caption.
    """

    title: str
    summary: str
    splits: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, tuple[float, float, float]]
    pictures: Sequence[tuple[NDArray[np.uint8], str]]
    remarks: Sequence[str] = ()


def write_box_view(path: str | os.PathLike[str], view: BoxView) -> None:
    """Write the page, whole or not at all."""
    header = heading("vidlet data", view.title, view.summary)
    remarks = element("ul", *(element("li", remark) for remark in view.remarks))
    sections = [
        Section(
            "Classes", _view_classes(view), "Boxes by split; a side is the square root of a box's share of its picture."
        ),
        Section("Pictures", gallery(view.pictures), "Spread evenly over the data, with every box that is used."),
        *([Section("Remarks", remarks)] if view.remarks else []),
    ]
    write_text(path, page(view.title, header, sections))


def _view_classes(view: BoxView) -> Html:
    columns = [Column("Class"), *(Column(split or "no split", "number") for split in view.splits),
               Column("Boxes", "number"), Column("Side, 5 %", "number"), Column("median", "number"),
               Column("95 %", "number")]  # fmt: skip
    rows: list[list[object]] = []
    for label, counts in view.classes.items():
        sides = [f"{side:.0%}" for side in view.sizes.get(label, ())] or ["", "", ""]
        rows.append(
            [label, *(f"{counts.get(split, 0):,}" for split in view.splits), f"{sum(counts.values()):,}", *sides]
        )
    return table(columns, rows, "Boxes of each class", sortable=True)
