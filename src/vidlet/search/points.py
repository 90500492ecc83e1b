"""Files that a search made: the front of those that no other beats, the best at other budgets, why none was chosen.

And the sections of the report that show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np

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
from .budget import TIERS, Budget, scaled


@dataclass(frozen=True, kw_only=True)
class Point:
    """A file that exists, and what was measured of it on the validation clips or images.

    Attributes:
        file: its name under the search's folder of files.
        chain: how it is stored; "" is float32.
        accuracy: what files are compared by: of clips, or mAP at .5 of images with boxes; ``interval``: 95 % of it.
        measured: milliseconds, memory.
    """

    chain: str
    file: str
    bytes: int
    accuracy: float
    interval: tuple[float, float]
    measured: Mapping[str, Any]

    @property
    def what(self) -> str:
        """What is stored, in a few words."""
        return self.file

    @property
    def score(self) -> float:
        """What files are chosen by."""
        return self.accuracy

    def describe(self) -> str:
        """What it is and how it is stored, in a few words."""
        return f"{self.what}, {self.chain or 'float32'}"


P = TypeVar("P", bound=Point)


def point_of(kind: type[P], record: Mapping[str, Any]) -> P:
    """The point of a record of the log, or of ``fit.json``."""
    values = {field.name: record[field.name] for field in fields(kind)}
    return kind(**{**values, "interval": tuple(values["interval"])})


def front(points: Sequence[P]) -> list[P]:
    """Points that no other beats: nobody is as small, as fast and as accurate, and better in one of the three."""

    def costs(point: P) -> np.ndarray:
        return np.array([point.bytes, point.measured["frame_ms"]["p50"], -point.accuracy])

    kept = [
        p
        for p in points
        if not any((costs(q) <= costs(p)).all() and (costs(q) < costs(p)).any() for q in points if q is not p)
    ]
    return sorted(kept, key=lambda p: p.bytes)


def by_quality(points: Sequence[P]) -> list[P]:
    """The most accurate files first, of equal ones the smaller."""
    return sorted(points, key=lambda p: (-p.accuracy, p.bytes))


def what_if(
    points: Sequence[P], budget: Budget, rank: Callable[[Sequence[P]], Sequence[P]], chosen: P | None
) -> list[dict[str, Any]]:
    """The file that would be chosen at half the bytes, at the budget, and at twice the bytes; points as plain values.

    Args:
        rank: files -> those that may be delivered, in the order in which they would be chosen.
        chosen: what was chosen within the budget.
    """
    rows = []
    for factor in sorted(TIERS):
        other = scaled(budget, factor)
        able = [p for p in points if not other.broken(p.bytes, p.measured)]
        best = chosen if factor == 1 and chosen else next(iter(rank(able)), None)
        rows.append({"bytes": other.max_bytes, "factor": factor, "best": asdict(best) if best else None})
    return rows


def why_none(points: Sequence[Point], budget: Budget, seconds: float) -> str:
    """Why a search chose none of its files, with what comes nearest."""
    if not points:
        return f"no file was made in {seconds:.0f} s: give the search more --time"
    best = max(points, key=lambda p: p.accuracy)
    inside = [p for p in points if not budget.broken(p.bytes, p.measured)]
    if inside:
        first = max(inside, key=lambda p: p.accuracy)
        near = f"the best that fits reached {first.accuracy:.3f} with {first.bytes:,} bytes"
    else:
        near = f"the smallest file made has {min(p.bytes for p in points):,} bytes"
    of_all = f"the best of all {best.accuracy:.3f} with {best.bytes:,} bytes"
    return f"nothing found keeps {budget.describe()}: {near}; {of_all}"


def evidence_sections(
    points: Sequence[Point],
    chosen: Point,
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
            "line joins those that no smaller file reaches; its color have those that no other beats in size, time and "
            "quality at once; the dashed line is the budget. The table has those and the chosen one: of files that are "
            "alike the smallest is chosen, and where "
            f"{counted} are few more than this one figure counts.",
        ),
        Section(
            "Half the budget, twice the budget",
            _what_if(metrics["what_if"], quality),
            f"The file that would be chosen within each size; other limits unchanged. {quality} is of validation "
            f"{counted}.",
        ),
    ]
    if len(metrics["steps"]) > 1:
        lead = f"The chosen network before and after each step, as files, on the {counted} that it was chosen by."
        found.append(Section("What each step cost", _steps(metrics["steps"], quality), lead))
    return found


def _chart_and_table(
    points: Sequence[Point], chosen: Point, metrics: Mapping[str, Any], quality: str, counted: str
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
        for p in sorted((*on_front, *(() if chosen in on_front else (chosen,))), key=lambda p: p.bytes)
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
