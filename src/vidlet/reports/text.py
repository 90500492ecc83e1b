"""Numbers and tables as people read them, for the console and for the report."""

import math
from collections.abc import Sequence
from unicodedata import combining, east_asian_width

from ..wording import shown

NOTHING = "–"  # what stands where a figure is missing


def text_table(rows: Sequence[Sequence[object]], headers: Sequence[str] = (), align: str = "") -> str:
    """Lay rows out in columns, two blanks apart, under a ruled header; no line ends in a blank.

    ``align`` has one letter a column: "l" or "r"; columns without one hold their numbers to the right and all else to
    the left. None stands as a dash. A cell is one line: line breaks become blanks.
    """
    width = max([len(headers), *(len(row) for row in rows)], default=0)
    cells = [[_cell(row[i]) if i < len(row) else "" for i in range(width)] for row in rows]
    titles = [*headers, *[""] * (width - len(headers))]
    right = [align[i : i + 1] == "r" or (i >= len(align) and _numeric(rows, i)) for i in range(width)]
    lines = [titles, *cells] if headers else cells
    widths = [max((columns(line[i]) for line in lines), default=0) for i in range(width)]
    text = ["  ".join(_pad(*column) for column in zip(line, widths, right, strict=True)).rstrip() for line in lines]
    if headers:
        text.insert(1, "  ".join("─" * columns for columns in widths))
    return "\n".join(text)


def columns(text: str) -> int:
    """Terminal columns that a text takes: two for wide characters, none for combining ones."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def bytes_text(size: float | None) -> str:
    """743 B, 12.4 kB, 612 kB, 1.32 MB: three digits, powers of 1000."""
    if not _known(size):
        return NOTHING
    value, unit = float(size or 0), 0
    while value >= 999.5 and unit < 4:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def rate_text(rate: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.932 -> 93.2 %."""
    return f"{rate * 100:.{digits}f} %" if rate is not None and _known(rate) else NOTHING


def interval_text(interval: Sequence[float | None] | None) -> str:
    """Two fractions as percentages: 89.1 – 96.4 %."""
    if interval is None or not all(_known(bound) for bound in interval):
        return NOTHING
    low, high = (bound or 0.0 for bound in interval)
    return f"{low * 100:.1f} – {high * 100:.1f} %"


def points_text(difference: float | None) -> str:
    """A difference of two fractions in percentage points, signed: -0.004 -> −0.4."""
    if difference is None or not _known(difference):
        return NOTHING
    shown = f"{difference * 100:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def points_interval(low: float | None, high: float | None) -> str:
    """The interval of such a difference: −0.4 to +1.2; "unknown" where nothing could be resampled."""
    return "unknown" if low is None or high is None else f"{points_text(low)} to {points_text(high)}"


def ms_text(time_ms: float | None) -> str:
    """0.48 ms, 3.3 ms, 126 ms, 12.4 s."""
    if time_ms is None or not _known(time_ms):
        return NOTHING
    if time_ms >= 9999.5:
        return f"{time_ms / 1000:.1f} s"
    return f"{time_ms:.{2 if time_ms < 0.9995 else 1 if time_ms < 99.95 else 0}f} ms"


def _known(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else shown(" ".join(str(value).split()))


def _numeric(rows: Sequence[Sequence[object]], column: int) -> bool:
    values = [row[column] for row in rows if len(row) > column and row[column] is not None]
    return bool(values) and all(isinstance(value, (int, float)) for value in values)


def _pad(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - columns(text))
    return blanks + text if right else text + blanks
