"""From a source of video to the frames that a model wants: its rate, its size, its resize rule."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .. import video
from ..errors import ModelError
from ..recipe import Sampling

T = TypeVar("T")
Source = str | int | Path | video.LiveSource

CHUNK = 8  # frames decoded at once from a file


def is_live(source: Source) -> bool:
    """Whether a source never ends: a camera's number, a stream's address, or an open ``LiveSource``."""
    return isinstance(source, (int, video.LiveSource)) or (isinstance(source, str) and video.is_live(source))


def sampled_frames(
    source: Source,
    hz: float,
    size: tuple[int, int],
    on_damage: Callable[[str], None] | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    fps: float | None = None,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield (time_s, frame uint8 (H, W, 3)) at ``hz`` from a file, a folder of frames, a camera or a stream.

    A damaged file is read on behind the damage, and ``on_damage`` is told in words what was wrong. A live source
    gives its newest frame whenever a tick has passed; what came between is dropped. ``start_s`` and ``end_s`` are of
    what is not live, ``fps`` is the rate of a folder of frames (25 if not told).
    """
    if not is_live(source):
        rate = Sampling("rate", hz=hz)
        parts = video.stream_clip(
            str(source), rate, size, chunk=CHUNK, start_s=start_s, end_s=end_s, resume=True, fps=fps
        )
        for chunk in ahead(parts):
            yield from zip(chunk.times_s.tolist(), chunk.frames, strict=True)
            if chunk.damage and on_damage:
                on_damage(chunk.damage)
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


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """Yield the items of a generator that runs in a thread, at most ``depth`` items ahead: decoding while inferring.

    An error of the generator is raised where its item would have come. The thread has ended when this one is closed.
    """
    ready: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()
    slots, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            for item in items:
                ready.put(([item], None))
                slots.acquire()
                if stopped.is_set():
                    break
            cast("Generator[T, None, None]", items).close()
            ready.put(([], None))
        except BaseException as error:  # told to whoever reads
            ready.put(([], error))

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if not item:
                return
            yield item[0]
            slots.release()
    finally:
        stopped.set()
        slots.release()
        thread.join()


def check_resize(stored: Mapping[str, Any], where: str) -> None:
    """Refuse a model that was trained with another resize rule than ours.

    Raises:
        ModelError: the rule's name or its golden vector differ.
    """
    ours = json.loads(json.dumps(video.RESIZE))
    for key in ("rule", "golden"):
        if key in stored and stored[key] != ours[key]:
            raise ModelError(f"{where}: trained with another resize rule ({key} of metadata resize differs from ours)")
