"""Record clips of a class before a camera, or cut them from a long video, into class folders that ``train`` takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..live.record import Recorder, Screen, at_own_speed, planned, record_by_keys, record_by_plan
from ..progress import say
from ..video import Frame, LiveSource, as_place, is_live, iter_frames
from ..wording import shown


def record(
    labels: str | Sequence[str],
    source: str | Path | int = 0,
    out: str | Path = "clips",
    count: int | None = None,
    seconds: float | None = None,
    every: float | None = None,
    group: str = "",
    screen: Screen | None = None,
) -> dict[str, Any]:
    """Record clips into a folder per class, LABEL/LABEL-001.mp4; nothing that is there is overwritten.

        vidlet.record(["wave", "none"], source=0, count=20, seconds=3)

    Args:
        labels: one or more; negatives are clips of a label of their own, such as "none".
        source: a camera's number or device, an address, or a video file.
        count: without a screen, so many clips of each label, one label after the other, each after a countdown.
        seconds: of a clip (without a screen 3).
        every: seconds from one clip's beginning to the next; None: ``seconds`` and two to get ready.
        group: the person or scene, that train and test must not share.
        screen: a window in which a person records by keys: an object with ``show(rgb)`` and ``pressed()``.

    Returns:
        {"out", "files": {name below out: bytes}, "labels": {label: clips recorded now}, "seconds"}.

    Raises:
        DataError: neither a screen nor a count, a label that can be no folder, or a source that cannot be opened.
    """
    names = [labels] if isinstance(labels, str) else list(labels)
    if screen is None and count is None:
        raise DataError("record: without a window say how many clips: count=20 (--count 20)")
    recorder = Recorder(out, names, group)
    try:
        with _opened(str(source), screen is not None) as frames:
            if screen is not None:
                record_by_keys(frames, recorder, screen, say, seconds)
            else:
                record_by_plan(frames, recorder, planned(recorder.labels, count or 0, seconds or 3.0, every), say)
    finally:
        recorder.end()
    made = {label: recorder.count(label) for label in recorder.labels}
    say(f"{shown(out)}: {', '.join(f'{number} clips of {shown(label)}' for label, number in made.items())}")
    return {
        "out": str(out),
        "files": {clip.path.relative_to(out).as_posix(): clip.path.stat().st_size for clip in recorder.clips},
        "labels": made,
        "seconds": round(sum(clip.seconds for clip in recorder.clips), 3),
    }


@contextlib.contextmanager
def _opened(source: str, watched: bool) -> Iterator[Iterator[Frame]]:
    """The frames of a source: the newest ones of a camera, all of a file, at its own speed if a person watches."""
    if is_live(source):
        with LiveSource(source, wait=False) as live:
            yield iter(live)
    else:
        frames = iter_frames(as_place(source), resume=True)
        yield at_own_speed(frames) if watched else frames
