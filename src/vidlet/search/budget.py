"""A budget: what a model may cost, and how its parts are written ("1MB", "8ms", "30m")."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..runtime import reference_ms

BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
SECONDS = {"": 1.0, "S": 1.0, "M": 60.0, "MIN": 60.0, "H": 3600.0}
MOST = 1e15  # of a quantity as it is written
TIERS = (1.0, 0.5, 2.0)  # of the budget's bytes: the budget, and "what if" it were half, or twice
QUIET = 1.25  # times the least time of a call: more than the 95th percentile on an idle machine
MILLISECONDS = {"": 1.0, "MS": 1.0, "S": 1000.0}


@dataclass(frozen=True)
class Budget:
    """Limits of a model file; None: no limit.

    Args:
        max_bytes: of the file.
        max_latency_ms: of ``latency``: a percentile ("p50", "p95") of a "frame" or of a "clip", on one thread.
        max_memory_bytes: peak resident memory of a process that loads and runs the file.
        min_accuracy: on the validation clips, in [0, 1].
        slowdown: milliseconds on the target device for one here.
    """

    max_bytes: int | None = None
    max_latency_ms: float | None = None
    latency: tuple[str, str] = ("frame", "p95")
    max_memory_bytes: int | None = None
    min_accuracy: float = 0.0
    slowdown: float = 1.0

    @property
    def needs_times(self) -> bool:
        """Whether milliseconds or memory are limited, so that files must be run to know whether they fit."""
        return self.max_latency_ms is not None or self.max_memory_bytes is not None

    def latency_ms(self, measured: Mapping[str, Any]) -> float:
        """The limited latency on the target device, from what ``benchmark`` measured here."""
        what, percentile = self.latency
        return float(measured[f"{what}_ms"][percentile]) * self.slowdown

    def broken(self, size_bytes: int, measured: Mapping[str, Any] | None = None) -> list[str]:
        """The limits that a file of this size and these measurements does not keep, as phrases; empty: it fits.

        Without measurements the bytes alone are judged.
        """
        found = []
        if self.max_bytes is not None and size_bytes > self.max_bytes:
            found.append(f"{size_bytes:,} bytes, allowed {self.max_bytes:,}")
        if not measured:
            return found
        if self.max_latency_ms is not None and (ms := self.latency_ms(measured)) > self.max_latency_ms:
            found.append(f"{ms:.2f} ms a {self.latency[0]} ({self.latency[1]}), allowed {self.max_latency_ms:g}")
        if self.max_memory_bytes is not None and measured["peak_rss_bytes"] > self.max_memory_bytes:
            found.append(f"{measured['peak_rss_bytes']:,} bytes of memory, allowed {self.max_memory_bytes:,}")
        return found

    def describe(self) -> str:
        """The limits in words."""
        parts = []
        if self.max_bytes is not None:
            parts.append(f"{self.max_bytes:,} bytes")
        if self.max_latency_ms is not None:
            parts.append(f"{self.max_latency_ms:g} ms a {self.latency[0]} ({self.latency[1]})")
        if self.max_memory_bytes is not None:
            parts.append(f"{self.max_memory_bytes:,} bytes of memory")
        if self.min_accuracy:
            parts.append(f"accuracy {self.min_accuracy:g} or more")
        return ", ".join(parts) or "no limit"


def quiet(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What ``benchmark`` would have measured with nothing running beside: percentiles near the least of many calls."""
    found = dict(measured)
    for key in ("frame_ms", "clip_ms"):
        if "least" in (times := measured.get(key) or {}):
            found[key] = {name: min(value, QUIET * times["least"]) for name, value in times.items()}
    return found


def scaled(budget: Budget, factor: float) -> Budget:
    """The budget with so many times its bytes."""
    return replace(budget, max_bytes=None if budget.max_bytes is None else int(budget.max_bytes * factor))


def check_quantities(
    sizes: Sequence[str | None] = (), latency: str | None = None, memory: str | None = None, time: str | None = None
) -> None:
    """RecipeError where what a command was given is no quantity: asked before anything heavy is loaded."""
    for text, parse in (
        *((size, parse_bytes) for size in (*sizes, memory)),
        (latency, parse_milliseconds),
        (time, parse_seconds),
    ):
        if text is not None:
            parse(text)


def read_budget(
    max_size: str | int | None,
    max_latency: str | float | None,
    latency: str,
    max_memory: str | int | None,
    min_accuracy: float,
    device: str | Path | None,
) -> Budget:
    """A budget from its parts as a user writes them.

    Raises:
        RecipeError: naming the part that is no quantity or out of range.
    """
    what, _, percentile = latency.partition("-")
    if what not in ("frame", "clip") or percentile not in ("p50", "p95"):
        raise RecipeError(f"--latency {latency}: expected frame-p50, frame-p95, clip-p50 or clip-p95")
    if not 0 <= min_accuracy <= 1:
        raise RecipeError(f"--min-accuracy {min_accuracy:g}: expected a fraction from 0 to 1")
    return Budget(
        None if max_size is None else parse_bytes(str(max_size)),
        None if max_latency is None else parse_milliseconds(str(max_latency)),
        (what, percentile),
        None if max_memory is None else parse_bytes(str(max_memory)),
        min_accuracy,
        1.0 if device is None else slowdown_of(device),
    )


def slowdown_of(device: str | Path) -> float:
    """Milliseconds on a device for one here: the reference network measured there, and now here.

    Raises:
        RecipeError: the file is not what ``vidlet benchmark --save`` writes.
    """
    try:
        there = json.loads(Path(device).read_text("utf-8"))["reference_ms"]
        assert isinstance(there, (int, float)) and there > 0
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise RecipeError(f"{device}: not what `vidlet benchmark MODEL --save FILE` writes") from error
    return float(there) / reference_ms()


def parse_bytes(text: str) -> int:
    """Read "1MB" (10^6), "256KiB" (2^18), "800000"."""
    return round(_quantity(text, BYTES, "a size such as 1MB or 256KiB"))


def parse_seconds(text: str) -> float:
    """Read "30m", "90s", "2h", "90"."""
    return _quantity(text, SECONDS, "a time such as 30m, 90s or 2h")


def parse_milliseconds(text: str) -> float:
    """Read "8ms", "0.5s", "8"."""
    return _quantity(text, MILLISECONDS, "a latency such as 8ms")


def _quantity(text: str, units: Mapping[str, float], what: str) -> float:
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", str(text))
    if found is None or found[2].upper() not in units or not 0 < float(found[1]) < MOST:
        raise RecipeError(f"{text[:40]!r}: expected {what}")
    return float(found[1]) * units[found[2].upper()]
