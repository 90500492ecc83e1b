"""What was understood of a user's data: read, open every clip or image, report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..cloud import reaching
from ..errors import DataError
from ..tasks import task_of_data
from ..tasks.clip_report import write_doubts

if TYPE_CHECKING:
    from ..datasets import DataReport
    from ..tasks.box_pages import BoxReport


@reaching
def inspect_data(
    path: str | os.PathLike[str],
    strict: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    page: str | Path | None = None,
    labels: bool = False,
) -> DataReport | BoxReport:
    """Read labelled clips, records or images with boxes, open each, and report what there is and what is wrong.

    Args:
        page: of images with boxes, an HTML file that shows some of them; with ``labels``, the clips to look at again.
        labels: look for wrong labels of videos, too (``report.doubts``); takes torch, and the time of the features.

    Returns:
        a report with ``to_dict``: ``datasets.DataReport``, or ``tasks.box_pages.BoxReport`` of images with boxes.

    Raises:
        DataError: nothing usable is there; with ``strict`` also the first clip or image that cannot be used.
    """
    task = task_of_data(path)
    if labels and task.name != "clips":
        raise DataError(f"--labels: looks at videos; {path} holds {task.name}")
    if page and task.view is None and not labels:
        raise DataError(f"--out {page}: the page is of images with boxes, or of --labels; {path} has no boxes")
    report = task.inspect(path, strict, workers, progress)
    if labels:
        from ..tasks.label_check import doubts_in_data

        report = replace(report, doubts=tuple(doubts_in_data(Path(path), strict)))
        if page:
            write_doubts(page, f"{report.root.name}: labels to look at again", report.doubts)
    if page and task.view is not None:
        task.view(report, page)
    return report
