"""The rows of the papers' tables, in the form of `vidlet papers NAME --json`: numbers, or None where there is none."""

from __future__ import annotations

from typing import Any

Number = int | float
Row = dict[str, Any]


def row(name: str, unit: str, printed: Number | None = None, recomputed: Number | None = None) -> Row:
    """What a paper prints and what our code gives for the same; nothing is measured without data."""
    return {"name": name, "unit": unit, "printed": printed, "recomputed": recomputed, "measured": None}


def table(title: str, rows: list[Row]) -> dict[str, Any]:
    """A titled table."""
    return {"title": title, "rows": rows}


def ratio(larger: Number, smaller: Number, digits: int = 2) -> float:
    """How many times as large, rounded."""
    return round(larger / smaller, digits)
