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
from .realize import Point, front


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
    on_front = front(points)
    extra = [
        Section("Size, speed and accuracy", _chart_and_table(points, on_front, chosen, metrics), _FRONT),
        Section("Half the budget, twice the budget", _what_if(metrics["what_if"]), _WHAT_IF),
    ]
    if len(metrics["steps"]) > 1:
        extra.append(Section("What each step cost", _steps(metrics["steps"]), _STEPS))
    report_clips(run, metrics, (), scored, judged.table, data, extra)


_FRONT = (
    "Every point is a file in files/ that was scored on validation clips and timed on one thread. The line joins those "
    "that no other file beats in size, time and accuracy at once; the dashed line is the budget."
)
_WHAT_IF = "The most accurate file found within each size; other limits unchanged. Accuracies are of validation clips."
_STEPS = (
    "The chosen network before and after each compression step, as files, on the validation clips it was chosen by."
)


def _chart_and_table(
    points: Sequence[Point], on_front: Sequence[Point], chosen: Point, metrics: Mapping[str, Any]
) -> Html:
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
    chart = front_chart(dots, "Accuracy on validation clips", "bytes of the file", bytes_text, limit)
    columns = [Column("Model"), Column("Size", "number"), Column("A frame, p50", "number")]
    columns += [Column("Accuracy", "number"), Column("95 % interval"), Column("File")]
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


def _what_if(rows: Sequence[Mapping[str, Any]]) -> Html:
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
    columns = [Column("Budget"), Column("Allowed", "number"), Column("Accuracy", "number")]
    columns += [Column("Size", "number"), Column("A frame, p50", "number"), Column("File")]
    return table(columns, shown, "The best file at other budgets")


def _steps(points: Sequence[Mapping[str, Any]]) -> Html:
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
    columns += [Column("A frame, p50", "number"), Column("Accuracy", "number"), Column("Points", "number")]
    return table(columns, rows, "The chosen network, step by step")
