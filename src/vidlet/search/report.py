"""The report of a search: the front of measured files, the chosen one, what each step cost, and "what if" rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..reports import (
    Column,
    Dot,
    Html,
    Section,
    bytes_text,
    front_chart,
    interval_text,
    ms_text,
    points_text,
    rate_text,
    table,
)
from ..runs import RunFolder
from ..tasks.clip_report import report_clips
from ..tasks.clips import Scored
from .data import Judged
from .points import Measured, front
from .realize import Point


def report_fit(
    run: RunFolder,
    metrics: Mapping[str, Any],
    scored: Mapping[str, Scored],
    judged: Judged,
    points: Sequence[Point],
    chosen: Point,
    data: str,
) -> None:
    """Write ``report.html`` of a search: that of a run, and the evidence for the choice."""
    report_clips(run, metrics, (), scored, judged.table, data, evidence_sections(points, chosen, metrics))


def evidence_sections(
    points: Sequence[Measured],
    chosen: Measured,
    metrics: Mapping[str, Any],
    quality: str = "Accuracy",
    counted: str = "clips",
) -> list[Section]:
    """The evidence for a choice: all files made, the best at other budgets, what the steps of the chosen cost.

    Args:
        metrics: with "budget", "what_if" and "steps".
        quality: what files are compared by, measured on the validation ``counted``.
    """
    found = [
        Section(
            f"Size, speed and {quality if quality[1:2].isupper() else quality.lower()}",
            _chart_and_table(points, chosen, metrics, quality, counted),
            f"Every point is a file in files/ that was scored on validation {counted} and timed on one thread. The "
            "line joins those that no other file beats in size, time and quality at once; the dashed line is the "
            "budget.",
        ),
        Section(
            "Half the budget, twice the budget",
            _what_if(metrics["what_if"], quality),
            f"The best file found within each size; other limits unchanged. {quality} is of validation {counted}.",
        ),
    ]
    if len(metrics["steps"]) > 1:
        lead = f"The chosen network before and after each step, as files, on the {counted} that it was chosen by."
        found.append(Section("What each step cost", _steps(metrics["steps"], quality), lead))
    return found


def _chart_and_table(
    points: Sequence[Measured], chosen: Measured, metrics: Mapping[str, Any], quality: str, counted: str
) -> Html:
    on_front = front(points)
    dots = [
        Dot(
            p.bytes,
            p.accuracy,
            f"{p.describe()}: {bytes_text(p.bytes)}, {rate_text(p.accuracy)}, {ms_text(p.measured['frame_ms']['p50'])}",
            p in on_front,
            p == chosen,
        )
        for p in points
    ]
    limit = metrics["budget"]["max_bytes"]
    chart = front_chart(dots, f"{quality} on validation {counted}", "bytes of the file", bytes_text, limit)
    columns = [Column("Model"), Column("Size", "number"), Column("A frame, p50", "number")]
    columns += [Column(quality, "number"), Column("95 % interval"), Column("File")]
    rows = [
        [
            p.describe() + (" (chosen)" if p == chosen else ""),
            bytes_text(p.bytes),
            ms_text(p.measured["frame_ms"]["p50"]),
            rate_text(p.accuracy),
            interval_text(p.interval),
            f"files/{p.file}",
        ]
        for p in on_front
    ]
    return Html(chart + table(columns, rows, "Files that no other beats"))


def _what_if(rows: Sequence[Mapping[str, Any]], quality: str) -> Html:
    shown = []
    for row in rows:
        best = row["best"]
        shown.append(
            [
                f"{row['factor']:g} x the budget" if row["factor"] != 1 else "the budget",
                bytes_text(row["bytes"]) if row["bytes"] else "no limit",
                rate_text(best["accuracy"]) if best else "nothing found",
                bytes_text(best["bytes"]) if best else "",
                ms_text(best["measured"]["frame_ms"]["p50"]) if best else "",
                f"files/{best['file']}" if best else "",
            ]
        )
    columns = [Column("Budget"), Column("Allowed", "number"), Column(quality, "number")]
    columns += [Column("Size", "number"), Column("A frame, p50", "number"), Column("File")]
    return table(columns, shown, "The best file at other budgets")


def _steps(points: Sequence[Mapping[str, Any]], quality: str) -> Html:
    first = points[0]
    rows = [
        [
            point["chain"] or "float32",
            bytes_text(point["bytes"]),
            f"{point['bytes'] / first['bytes']:.3f}",
            ms_text(point["measured"]["frame_ms"]["p50"]),
            rate_text(point["accuracy"]),
            points_text(point["accuracy"] - first["accuracy"]),
        ]
        for point in points
    ]
    columns = [Column("After"), Column("Size", "number"), Column("of float32", "number")]
    columns += [Column("A frame, p50", "number"), Column(quality, "number"), Column("Points", "number")]
    return table(columns, rows, "The chosen network, step by step")
