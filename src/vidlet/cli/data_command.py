"""`vidlet data`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..wording import shown
from . import options
from .train_command import need_train_extra

if TYPE_CHECKING:
    from ..datasets import DataReport
    from ..tasks.box_pages import BoxReport

HELP = "what was understood of a folder of clips, and what is wrong with it"
EXAMPLE = "example: vidlet data clips/"
SHOWN = 10  # unusable clips that are listed one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet data`."""
    parser.add_argument(
        "data", metavar="DATA", help="a folder per class, a .csv, a tool's export (docs/data.md), .tfrecord shards"
    )
    options.add_fps(parser)
    options.add_strict(parser)
    parser.add_argument("--out", metavar="FILE", help="a page (.html): images with boxes drawn, clips of --labels")
    parser.add_argument(
        "--labels", action="store_true", help="of videos: which labels may be wrong (computes features, needs torch)"
    )
    parser.add_argument(
        "--workers", type=options.number(int, 1, options.MOST_THREADS), default=2, metavar="N",
        help="threads that open clips (%(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Inspect the data, print a table of classes, what stands out, and what to do."""
    from ..cloud import local
    from ..datasets import DataReport
    from ..jobs.data import inspect_data
    from ..progress import bar
    from ..tasks import task_of_data

    if args.labels:
        need_train_extra("data --labels")
    data = local(args.data)
    task = task_of_data(data)
    with bar("open", task.unit) as move:
        report = inspect_data(data, args.strict, args.workers, move, args.out, args.labels)
    found: dict[str, Any] = report.to_dict()
    if args.out:
        found["files"] = {args.out: Path(args.out).stat().st_size}
    if not args.json:
        print(report_text(report) if isinstance(report, DataReport) else boxes_text(report))
        if args.labels and not found["doubts"]:
            print("labels: models that have not seen them doubt none")
        if args.out:
            print(f"page: {args.out}")
    return found


def boxes_text(report: BoxReport) -> str:
    """The report of images with boxes for people, as ``report_text``."""
    from ..reports import text_table

    found = report.to_dict()
    splits = list(found["splits"])
    rows = [[label, *counts.values(), sum(counts.values())] for label, counts in found["classes"].items()]
    rows.append(["images", *found["splits"].values(), found["images"]])
    names = [*(split or "no split" for split in splits), "all"]
    unusable = [
        f"{key}: {row['path']}: {row['error']}" for key in ("skipped", "dropped", "broken") for row in found[key]
    ]
    parts = [
        f"{shown(found['root'])}: {found['images']} images with {found['boxes']} {found['kind']}, "
        f"{len(found['classes'])} classes",
        text_table(rows, ["boxes of class", *names], "l" + "r" * len(names)),
        *(shown(f"note: {note}") for note in found["notes"]),
        *map(shown, unusable[:SHOWN]),
        f"and {len(unusable) - SHOWN} more" if len(unusable) > SHOWN else "",
        *(shown(f"warning: {warning}") for warning in found["warnings"]),
        "" if found["warnings"] or unusable else "nothing wrong was found",
    ]
    return "\n".join(part for part in parts if part)


def report_text(report: DataReport) -> str:
    """The report for people: one line of totals, classes by split, properties, warnings last."""
    from ..reports import text_table

    splits = list(report.splits)
    names = [split or "no split" for split in splits] + ["all"] * (len(splits) > 1)
    rows = [[label, *counts.values(), sum(counts.values())] for label, counts in report.classes.items()]
    rows.append(["clips", *report.splits.values(), report.clips])
    unusable = [f"skipped: {path}: {why}" for path, why in (*report.skipped, *report.broken)]
    groups = f"{report.groups} groups" if report.groups else "no groups"
    parts = [
        f"{shown(report.root)}: {report.clips} {_clips_of(report.kind)}, {len(report.classes)} classes, {groups}",
        text_table([row[: len(names) + 1] for row in rows], ["class", *names], "l" + "r" * len(names)),
        "\n".join(_properties(report)),
        *(shown(f"note: {note}") for note in report.notes),
        *map(shown, unusable[:SHOWN]),
        f"skipped: and {len(unusable) - SHOWN} more" if len(unusable) > SHOWN else "",
        *(shown(f"warning: {warning}") for warning in report.warnings),
        *_doubts(report),
        "" if report.warnings or report.doubts else "nothing wrong was found",
    ]
    return "\n".join(part for part in parts if part)


def _doubts(report: DataReport) -> list[str]:
    """The labels to look at again, the most doubted first."""
    lines = [
        f"look at: {shown(d['path'])}: {shown(d['label'])}, or rather {shown(d['suspected'])} "
        f"({d['score']:.2f} against {d['label_score']:.2f})"
        for d in report.doubts[: 2 * SHOWN]
    ]
    left = len(report.doubts) - len(lines)
    return [*lines, *([f"look at: and {left} more (--json, --out page.html)"] if left > 0 else [])]


def _clips_of(kind: str) -> str:
    return "clips" if kind == "videos" else "clips of stored features"


def _properties(report: DataReport) -> list[str]:
    found = []
    if spread := report.durations_s:
        found.append(f"seconds     {spread.min:.2f} to {spread.max:.2f}, median {spread.median:.2f}")
    if spread := report.frames:
        found.append(f"frames      {spread.min:.0f} to {spread.max:.0f}, median {spread.median:.0f}")
    if report.resolutions:
        found.append(f"resolution  {_most(report.resolutions)}")
    if report.fps:
        found.append(f"frames/s    {_most(report.fps)}")
    return found


def _most(counts: dict[str, int], most: int = 4) -> str:
    first = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:most])
    return f"{first} and {len(counts) - most} others" if len(counts) > most else first
