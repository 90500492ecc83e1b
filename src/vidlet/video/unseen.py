"""Frames that nobody will look at: those that no other frame is predicted from are not decoded.

A reader goes on giving all frames of a file with their times; a frame that was left out is a ``Blank``.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from .sample import EPSILON_S

Wanted: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.bool_]]  # times of all frames (N,) -> (N,) looked at

DECODERS = {"h264": ("mov", "matroska"), "mjpeg": ("mov", "matroska", "avi")}
"""Codecs of which frames can be left out without any change to the others, in formats that list each frame once."""
ALONE = frozenset({"mjpeg"})  # codecs in which no frame is predicted from another
MOST_PACKETS, MOST_BYTES = 4096, 2**25  # of a clip that are listed ahead; nothing is left out of longer ones


@dataclass(frozen=True)
class Blank:
    """A frame that was not decoded, where a decoded one would stand."""

    pts: int
    is_corrupt: bool = False
    key_frame: bool = False


def listed(packets: Iterator[Any]) -> tuple[list[Any], Iterator[Any], bool]:
    """Packets read ahead; what to go on with, which begins with them; whether they are all and fit to be left out."""
    ahead: list[Any] = []
    size = 0
    try:
        for packet in itertools.islice(packets, MOST_PACKETS):
            ahead.append(packet)
            size += packet.size
            if size > MOST_BYTES:
                break
    except av.FFmpegError as error:  # told when the pass that decodes gets there
        return ahead, itertools.chain(ahead, _raising(error)), False
    whole = bool(ahead) and not ahead[-1].size  # the last one tells the decoder that there are no more
    sound = all(map(_is_sound, ahead[:-1]))
    return ahead, itertools.chain(ahead, packets), whole and sound


def _is_sound(packet: Any) -> bool:
    return packet.size > 0 and packet.pts is not None and not packet.is_discard and not packet.is_corrupt


def lists_frames(codec: str, format_name: str) -> bool:
    """Whether frames of a file can be left out: see ``DECODERS``."""
    return format_name.startswith(DECODERS.get(codec, ("none",)))


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield


class Unseen:
    """Which frames of a file are left out, and the blanks in their places.

    Args:
        stamps: of the packets that may be left out.
        ticks: times of display of all frames in seconds, by their stamps.
        wanted: see ``Wanted``.
    """

    def __init__(self, stamps: Iterable[int], ticks: dict[int, float], wanted: Wanted) -> None:
        order = sorted(ticks)
        times_s = np.array([ticks[stamp] for stamp in order])
        sound = len(order) > 1 and bool((np.diff(times_s) > EPSILON_S).all())
        looked_at = wanted(times_s) if sound else np.ones(len(order), dtype=np.bool_)
        unwanted = {stamp for stamp, seen in zip(order, looked_at, strict=True) if not seen}
        self._stamps = unwanted & set(stamps)
        self._waiting = deque(sorted(self._stamps))

    def leaves_out(self, packet: Any) -> bool:
        """Whether nobody looks at the frame of a packet."""
        return packet.pts in self._stamps

    def filled(self, frames: Iterable[Any], last: bool) -> Iterator[Any]:
        """The frames that came of a packet, and the blanks before them; after the ``last`` packet all blanks."""
        for frame in frames:
            while self._waiting and frame.pts is not None and self._waiting[0] < frame.pts:
                yield Blank(self._waiting.popleft())
            if self._waiting and self._waiting[0] == frame.pts:  # others are predicted from it: it was decoded
                self._waiting.popleft()
            elif frame.pts in self._stamps:  # out of order: its blank has been given out
                continue
            yield frame
        while last and self._waiting:
            yield Blank(self._waiting.popleft())
