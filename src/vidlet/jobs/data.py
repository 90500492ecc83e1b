"""What was understood of a user's data: read, open every clip, report."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..datasets import DataReport, inspect_table, read_table
from ..errors import DataError


def inspect_data(
    path: str | os.PathLike[str],
    strict: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read labelled clips, decode the first frame of each, and report what there is and what is wrong.

    Raises:
        DataError: nothing usable is there; with ``strict`` also the first clip that cannot be used.
    """
    report = inspect_table(read_table(path, strict=strict), workers, progress)
    if strict and report.broken:
        name, why = report.broken[0]
        raise DataError(f"{report.root / name}: {why} ({len(report.broken)} of {report.clips} clips cannot be read)")
    return report
