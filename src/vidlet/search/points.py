"""Files that a search made: those that no other beats, the best at other budgets, and why none was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import numpy as np

from .budget import TIERS, Budget, scaled


class Measured(Protocol):
    """A file that exists, and what was measured of it on the validation clips or images."""

    @property
    def file(self) -> str:
        """Its name under the search's folder of files."""
        ...

    @property
    def bytes(self) -> int:
        """On disk."""
        ...

    @property
    def accuracy(self) -> float:
        """What files are compared by: accuracy of clips, mAP at .5 of images with boxes."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of it."""
        ...

    @property
    def measured(self) -> Mapping[str, Any]:
        """What ``benchmark`` found."""
        ...

    def describe(self) -> str:
        """What it is, in a few words."""
        ...


P = TypeVar("P", bound=Measured)


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


def what_if(points: Sequence[Any], budget: Budget) -> list[dict[str, Any]]:
    """The best file at half the bytes, at the budget, and at twice the bytes; points as plain values."""
    rows = []
    for factor in sorted(TIERS):
        other = scaled(budget, factor)
        able = [p for p in points if not other.broken(p.bytes, p.measured)]
        best = max(able, key=lambda p: (p.accuracy, -p.bytes), default=None)
        rows.append({"bytes": other.max_bytes, "factor": factor, "best": asdict(best) if best else None})
    return rows


def why_none(points: Sequence[Measured], budget: Budget, seconds: float) -> str:
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
