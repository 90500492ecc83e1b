"""A clip around each event of a live source: some seconds before it, the event itself, some seconds after.

The frames that the model answered wait as JPEG in a ring of so many seconds and at most ``RING_BYTES``; a thread of
its own compresses and writes, so that the live view never waits. A clip is finished when its time is over, when it is
``LONGEST_S`` long, or when no frame came for ``SILENCE_S`` (the camera went away): what was seen is on the disk then,
and if the event still goes on, a further clip of it begins. Files have the frames' own times: a gap stays a gap.
"""

from __future__ import annotations

import contextlib
import io
import math
import queue
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from ..video import VideoWriter
from ..wording import shown
from ..workers import supervised
from .events import Event

AROUND_S = 3.0
RING_BYTES = 64 * 10**6  # of JPEG, written or not
MOST_WAITING = 4  # pictures that are not yet JPEG; what comes beyond them is missing in the clip
LONGEST_S = 60.0
SILENCE_S = 10.0
JPEG_QUALITY = 90
NAME_CHARACTERS = 50


@dataclass(frozen=True)
class _Began:
    event: Event
    at: datetime  # when it began, by the clock on the wall


@dataclass(frozen=True)
class _Ended:
    event: Event


@dataclass
class _Clip:
    """A clip under way: frame ``number`` is written next, frames later than ``until_s`` are no longer part of it."""

    began: _Began
    event: Event  # as it is known by now
    number: int
    path: Path
    until_s: float = math.inf
    first_s: float = math.nan
    last_s: float = math.nan
    frames: int = 0
    writer: VideoWriter | None = None


_Item = tuple[float, NDArray[np.uint8]] | _Began | _Ended | None  # a frame with its time, ...; None: the source ended


class EventClips:
    """Hand it every answered frame, and when an event begins and ends; it leaves a video an event in a folder.

    Files are named by time and label (``20261121T182452_wave.mp4``); none is ever overwritten.

    Args:
        folder: is made where it is absent.
        hz: frames a second that will come, about.
        around_s: seconds kept before an event and after it.
        told_after_s: how long an event goes on before it is told (``EventRule.min_s``); the ring spans this, too.
        tell: called with a JSON object a finished clip: event, time_s, end_s (None: the event goes on), score, clip
            (the file), frames; from another thread.
        say: told in one line what could not be written and how many frames are missing.

    Raises:
        DataError: ``around_s`` is no time, or the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        hz: float,
        around_s: float = AROUND_S,
        told_after_s: float = 0.0,
        tell: Callable[[dict[str, Any]], None] = lambda line: None,
        say: Callable[[str], None] = print,
    ) -> None:
        if not 0 <= around_s < LONGEST_S:
            raise DataError(
                f"--around {around_s}: from 0 to {LONGEST_S:.0f} seconds are kept before and after an event"
            )
        self.folder, self._hz, self._around_s, self._tell, self._say = Path(folder), hz, around_s, tell, say
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: no folder for clips can be made there ({error.strerror})") from error
        self.missing = 0  # frames that clips should have had
        self.lost = 0  # clips that could not be written
        self._span_s = around_s + told_after_s + 2 / hz
        self._ring: deque[tuple[float, bytes]] = deque()
        self._bytes, self._first = 0, 0  # of the ring; the number of its first frame
        self._event: _Began | None = None  # under way
        self._clip: _Clip | None = None
        self._last_s = 0.0
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._slots = threading.Semaphore(MOST_WAITING)
        self._thread = threading.Thread(
            target=supervised, args=(self._work, self._give_up), name="event clips", daemon=True
        )
        self._thread.start()

    def push(self, time_s: float, rgb: NDArray[np.uint8]) -> None:
        """One more frame (H, W, 3) of the source; it must not be written to afterwards. Never waits."""
        self._last_s = time_s
        if self._slots.acquire(blocking=False):
            self._items.put((time_s, rgb))
        else:
            self.missing += 1

    def began(self, event: Event) -> None:
        """An event has begun; the frames from ``around_s`` before it on are kept."""
        ago = timedelta(seconds=max(0.0, self._last_s - event.start_s))
        self._items.put(_Began(event, datetime.now() - ago))

    def ended(self, event: Event) -> None:
        """The event is over, at ``event.end_s``."""
        self._items.put(_Ended(event))

    def close(self) -> None:
        """The source has ended: finish the clip under way, and wait until it is written."""
        self._items.put(None)
        self._thread.join()
        if self.missing:
            self._say(f"{self.folder}: {self.missing} frames came faster than they could be kept")

    def _work(self) -> None:
        while True:
            try:
                item = self._items.get(block=not self._backlog(), timeout=SILENCE_S if self._clip else None)
            except queue.Empty:
                if self._backlog():
                    self._write_one()
                else:
                    self._finish()  # silence
                continue
            if item is None:
                self._write_backlog()
                self._finish()
                return
            if isinstance(item, _Began):
                self._write_backlog()  # of an event before it
                self._finish()
                self._event = item
                from_s = item.event.start_s - self._around_s - 1e-6
                earlier = sum(time_s < from_s for time_s, _ in self._ring)
                self._clip = self._new_clip(item, item.event, self._first + earlier)
            elif isinstance(item, _Ended):
                self._event = None
                if self._clip:
                    self._clip.event = item.event
                    self._clip.until_s = (item.event.end_s or 0.0) + self._around_s
            else:
                self._keep(*item)

    def _keep(self, time_s: float, rgb: NDArray[np.uint8]) -> None:
        """Put a frame into the ring, and out of it what is too old or too much."""
        picture = io.BytesIO()
        Image.fromarray(rgb).save(picture, "JPEG", quality=JPEG_QUALITY)
        self._slots.release()
        self._ring.append((time_s, picture.getvalue()))
        self._bytes += len(self._ring[-1][1])
        while len(self._ring) > 1:
            unwritten = self._clip is not None and self._clip.number <= self._first
            if self._bytes <= RING_BYTES and (unwritten or self._ring[0][0] >= time_s - self._span_s):
                break
            self._bytes -= len(self._ring.popleft()[1])
            self._first += 1
            if self._clip is not None and unwritten:
                self._clip.number = self._first
                self.missing += 1
        if self._event is not None and self._clip is None:  # it goes on after a silence
            self._clip = self._new_clip(self._event, self._event.event, self._first + len(self._ring) - 1)

    def _backlog(self) -> bool:
        return self._clip is not None and self._clip.number < self._first + len(self._ring)

    def _write_backlog(self) -> None:
        while self._backlog():
            self._write_one()

    def _write_one(self) -> None:
        """Write the clip's next frame, or finish the clip if that frame is no longer part of it."""
        clip = self._clip
        assert clip is not None
        time_s, jpeg = self._ring[clip.number - self._first]
        if time_s > clip.until_s:
            self._finish()
            return
        if time_s - clip.last_s >= SILENCE_S or time_s - clip.first_s >= LONGEST_S:
            self._finish(goes_on=True)
            clip = self._new_clip(clip.began, clip.event, clip.number, clip.until_s)
            self._clip = clip
        clip.first_s = clip.first_s if clip.frames else time_s
        clip.last_s = time_s
        clip.number += 1
        try:
            if clip.writer is None:
                clip.writer = VideoWriter(clip.path, self._hz).__enter__()
            clip.writer.write(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")), time_s - clip.first_s)
            clip.frames += 1
        except Exception as error:  # FFmpeg's are of many kinds
            self._give_up(error)

    def _finish(self, goes_on: bool = False) -> None:
        """The clip under way becomes a file."""
        clip, self._clip = self._clip, None
        if clip is None or clip.writer is None:
            return
        try:
            clip.writer.__exit__(None, None, None)
        except Exception as error:
            self._give_up(error)
            return
        event = clip.event
        self._tell(
            {
                "event": event.label,
                "time_s": event.start_s,
                "end_s": None if goes_on else event.end_s,
                "score": event.score,
                "clip": str(clip.path),
                "frames": clip.frames,
            }
        )

    def _give_up(self, error: Exception) -> None:
        """The disk is full, the folder is gone, or worse: this event has no clip, the next one is tried again."""
        clip, self._clip, self._event = self._clip, None, None
        if clip is not None and clip.writer is not None:
            with contextlib.suppress(Exception):  # the same one, or what follows from it
                clip.writer.__exit__(type(error), error, error.__traceback__)
        self.lost += 1
        self._say(shown(error if isinstance(error, DataError) else f"{self.folder}: {type(error).__name__}: {error}"))

    def _new_clip(self, began: _Began, event: Event, number: int, until_s: float = math.inf) -> _Clip:
        label = re.sub(r"[^\w.-]+", "_", event.label).strip("._-")[:NAME_CHARACTERS] or "event"
        path = _free(self.folder / f"{began.at:%Y%m%dT%H%M%S}_{label}.mp4")
        return _Clip(began, event, number, path, until_s)


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3 ... that is not there."""
    found, number = path, 2
    while found.exists():
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found
