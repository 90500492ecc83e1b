"""From a source of video to the frames that a model wants: its rate, its size, its resize rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import video
from ..errors import ModelError
from ..recipe import Sampling

Source = str | int | Path | video.LiveSource

READ_AHEAD = 32  # frames decoded at once from a file


def is_live(source: Source) -> bool:
    """Whether a source never ends: a camera's number, a stream's address, or an open ``LiveSource``."""
    return isinstance(source, (int, video.LiveSource)) or (isinstance(source, str) and video.is_live(source))


def sampled_frames(source: Source, hz: float, size: tuple[int, int]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield (time_s, frame uint8 (H, W, 3)) at ``hz`` from a file, a folder of frames, a camera or a stream.

    A live source gives its newest frame whenever a tick has passed; what came between is dropped.
    """
    if not is_live(source):
        for chunk in video.stream_clip(Path(str(source)), Sampling("rate", hz=hz), size, chunk=READ_AHEAD):
            yield from zip(chunk.times_s.tolist(), chunk.frames, strict=True)
        return
    opened = source if isinstance(source, video.LiveSource) else video.LiveSource(str(source))
    next_s = -np.inf
    try:
        while (frame := opened.read()) is not None:
            if frame.time_s < next_s - 0.25 / hz:  # a frame a little early is nearer than the next one
                continue
            next_s += 1 / hz
            if not next_s > frame.time_s:  # the first frame, or one that comes late
                next_s = frame.time_s + 1 / hz
            yield frame.time_s, video.resize(frame.rgb(), size)
    finally:
        if opened is not source:
            opened.close()


def check_resize(stored: Mapping[str, Any], where: str) -> None:
    """Refuse a model that was trained with another resize rule than ours.

    Raises:
        ModelError: the rule's name or its golden vector differ.
    """
    ours = json.loads(json.dumps(video.RESIZE))
    for key in ("rule", "golden"):
        if key in stored and stored[key] != ours[key]:
            raise ModelError(f"{where}: trained with another resize rule ({key} of metadata resize differs from ours)")
