"""What was understood of a user's data: read, open every clip or image, report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..tasks import task_of_data


def inspect_data(
    path: str | os.PathLike[str],
    strict: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    page: str | Path | None = None,
) -> Any:
    """Read labelled clips, records or images with boxes, open each, and report what there is and what is wrong.

    Args:
        page: of images with boxes, an HTML file that shows some of them.

    Returns:
        a report with ``to_dict``: ``datasets.DataReport``, or ``tasks.box_pages.BoxReport`` of images with boxes.

    Raises:
        DataError: nothing usable is there; with ``strict`` also the first clip or image that cannot be used.
    """
    task = task_of_data(path)
    if page and task.view is None:
        raise DataError(f"--out {page}: the page is of images with boxes; {path} has none")
    report = task.inspect(path, strict, workers, progress)
    if page and task.view is not None:
        task.view(report, page)
    return report
