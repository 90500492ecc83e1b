"""What is known of a video, one frame of it, and what every source of frames can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DEFAULT_FPS = 25.0  # of frame folders, and of files that do not say


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself, and what its first frame shows.

    ``width`` and ``height`` are those of the upright picture; ``rotation`` is the clockwise turn in degrees (0, 90,
    180, 270) that makes the stored picture upright. ``frames`` is the declared number, 0 where the file declares none.
    ``notes`` say what had to be assumed: "what: how".
    """

    path: Path | str  # or the address of a file on the web
    width: int
    height: int
    fps: float
    duration_s: float
    frames: int
    rotation: int
    codec: str
    pixel_format: str
    notes: tuple[str, ...] = ()
    pixel_aspect: float = 1.0  # how wide a pixel of the upright picture is shown for its height


class Frame:
    """One decoded frame: its time, and its picture once somebody wants it."""

    __slots__ = ("_convert", "time_s")

    def __init__(self, time_s: float, convert: Callable[[], NDArray[np.uint8]]) -> None:
        self.time_s = time_s  # seconds since the first frame of the video
        self._convert = convert

    def rgb(self) -> NDArray[np.uint8]:
        """The upright picture, uint8 (H, W, 3). Converted at every call: keep it if it is needed twice."""
        return self._convert()

    def __repr__(self) -> str:
        return f"Frame(time_s={self.time_s:.6f})"


class Reader(Protocol):
    """A source of frames in order of display: a video file or a folder of images."""

    info: VideoInfo

    @property
    def interval_s(self) -> float:
        """The average time from frame to frame, which is also how long the last one is shown."""

    @property
    def damage(self) -> str:
        """In words, what was missing or broken so far; "" if nothing."""

    def only(self, wanted: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> None:
        """Tell, before a frame is taken, which will be looked at: times of all (N,) -> (N,) bool. No frame changes."""

    def next_frame(self) -> Frame | None:
        """The next frame, or None at the end; times ascend strictly."""

    def worth_seeking(self, time_s: float) -> bool:
        """Whether a jump gets to the frame on display at this time sooner than reading on."""

    def seek(self, time_s: float) -> None:
        """Go where the next frame is the one on display at this time or one before it."""

    def count(self, start_s: float, end_s: float) -> int:
        """How many frames start in [start, end), without decoding them."""

    def frame_times(self) -> NDArray[np.float64]:
        """When each frame is shown, in order of display; of a reader from which no frame was taken yet."""

    def key_spacing_s(self) -> float:
        """Seconds between two places to which a jump can go."""

    def close(self) -> None:
        """Release the file."""
