"""The time of a file whose time stamps break: joined recordings, clocks that were set, counters that began anew.

Stamps are mended packet by packet, in the order of the file: where the clock goes back, or jumps ahead by more than the
format allows, time goes on with the next frame. Transport and program streams may jump (FFmpeg's own limit is ten
seconds); a gap in other files is a picture that stands, up to an hour.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import av

from .ending import begins_anew

Opener: TypeAlias = Callable[["Path | str"], tuple[Any, Any]]

MOST_GAP_S = {True: 10.0, False: 3600.0}  # in formats whose clock may jump, in others
MOST_BACK_S = 1.0  # where only times of display are known, or the format has one clock: pictures out of order; of a few
# pictures a minute the order alone goes back by more, but never at a key picture
INDEXED = ("mov", "matroska", "avi")  # formats with a table of contents; all others are read through once


class Clock:
    """One time for all packets of a stream, in its ticks; ``breaks`` holds (time of it, jump) in seconds.

    Args:
        stream: whose packets come.
        jumps: whether the format's clock may jump.
        interval_s: seconds from frame to frame, by which time goes on at a break.
    """

    def __init__(self, stream: Any, jumps: bool, interval_s: float) -> None:
        tick_s = self._tick_s = float(stream.time_base or 1 / 90_000)
        self._interval = max(1, round(interval_s / tick_s))
        self._most = round(MOST_GAP_S[jumps] / tick_s)
        self._back = round(MOST_BACK_S / tick_s)
        self._decoding_back = 2 * self._interval if jumps or in_fragments(stream.container, stream) else self._back
        self._jumps = jumps
        self.breaks: list[tuple[float, float]] = []
        self.go_on(0)

    def go_on(self, offset: int) -> None:
        """Forget what came; stamps are moved by ``offset`` until the clock breaks again."""
        self.offset = offset
        self._decoded: int | None = None  # the last mended time of decoding
        self._top: int | None = None  # the latest mended time of display

    def mend(self, packet: Any) -> None:
        """Move the stamps of the next packet."""
        decoded, shown = packet.dts, packet.dts if packet.pts is None else packet.pts
        if shown is None:
            return
        if decoded is not None and abs(shown - decoded) > self._most:  # guessed from before a jump
            decoded = packet.dts = None
        if not packet.is_discard:
            if self._breaks(decoded, shown, self._jumps or packet.is_keyframe):
                assert self._top is not None
                before, self.offset = self.offset, self._top + self._interval - shown
                at_s, jump_s = self._top * self._tick_s, (before - self.offset) * self._tick_s
                self.breaks.append((at_s, jump_s))
                self._decoded = None
            if decoded is not None:
                self._decoded = decoded + self.offset
            self._top = max(shown + self.offset, shown + self.offset if self._top is None else self._top)
        if self.offset:
            if packet.pts is not None:
                packet.pts += self.offset
            if decoded is not None:
                packet.dts = decoded + self.offset

    def _breaks(self, decoded: int | None, shown: int, may_begin: bool) -> bool:
        if self._top is None:
            return False
        if shown + self.offset - self._top > self._most:
            return True
        if decoded is not None and self._decoded is not None:
            return decoded + self.offset - self._decoded < -self._decoding_back
        return may_begin and shown + self.offset < self._top - self._back


@dataclass(frozen=True)
class Key:
    """A packet at which decoding can begin: its mended time of display, its place in the file, its stamps' offset."""

    shown: int
    position: int
    offset: int


@dataclass(frozen=True)
class Contents:
    """What reading all packets of a file tells; ``keys`` only where the clock breaks."""

    end_s: float  # on the mended clock
    begin_s: float
    packets: int
    breaks: tuple[tuple[float, float], ...]
    keys: tuple[Key, ...] = field(default=(), repr=False)

    def key_before(self, ticks: int) -> Key | None:
        """The last key packet that is shown at or before a time."""
        place = bisect.bisect_right(self.keys, ticks, key=lambda key: key.shown)
        return self.keys[place - 1] if place else None

    def note(self) -> str:
        """In words, that the clock breaks; "" where it does not."""
        if not self.breaks:
            return ""
        at_s, jump_s = self.breaks[0]
        more = f", and {len(self.breaks) - 1} more times" if len(self.breaks) > 1 else ""
        how = f"goes back by {-jump_s:.1f} s" if jump_s < 0 else f"jumps ahead by {jump_s:,.1f} s"
        return f"its clock breaks: it {how} at {at_s - self.begin_s:.1f} s{more}; time is counted on without the jump"


def contents(path: Path | str, container: Any, stream: Any, open_stream: Opener, interval_s: float) -> Contents | None:
    """What the packets of an open file say, if its table of contents does not vouch for its clock; else None.

    Files are read through once a process, as long as they do not change.

    Args:
        open_stream: opens the file once more: path -> (container, stream).
    """
    if isinstance(path, str):  # on the web: it would be fetched twice
        return None
    indexed = container.format.name.startswith(INDEXED) and not begins_anew(path, container.format.name)
    if indexed and _declared_s(container, stream) <= MOST_GAP_S[False]:
        return None
    status = path.stat()
    return _contents(path, status.st_size, status.st_mtime_ns, open_stream, interval_s)


@functools.lru_cache(maxsize=256)
def _contents(path: Path, size: int, changed: int, open_stream: Opener, interval_s: float) -> Contents | None:
    container, stream = open_stream(path)
    with container:
        indexed = container.format.name.startswith(INDEXED) and not begins_anew(path, container.format.name)
        if indexed and not _gap_in_index(container, stream):
            return None
    container, stream = open_stream(path)
    with container:
        return _read_through(container, stream, interval_s)


def _gap_in_index(container: Any, stream: Any) -> bool:
    """Whether the table of contents of a long file leaves room for a jump."""
    tick_s, duration_s = float(stream.time_base or 1 / 90_000), _declared_s(container, stream)
    try:
        container.seek(0, stream=stream)  # Matroska reads its table when it is asked to jump
    except av.FFmpegError:
        return True
    times = [entry.timestamp * tick_s for entry in stream.index_entries]
    edges = [times[0], *times, times[0] + duration_s] if times else [0.0, duration_s]
    return any(later - earlier > MOST_GAP_S[False] for earlier, later in itertools.pairwise(edges))


def _declared_s(container: Any, stream: Any) -> float:
    tick_s = float(stream.time_base or 1 / 90_000)
    return max((container.duration or 0) / av.time_base, (stream.duration or 0) * tick_s)


def _read_through(container: Any, stream: Any, interval_s: float) -> Contents:
    clock = Clock(stream, jumping(container), interval_s)
    tick_s = float(stream.time_base or 1 / 90_000)
    first, last, packets = None, None, 0
    keys: list[Key] = []
    for packet in _packets(container, stream):
        clock.mend(packet)
        packets += not packet.is_discard
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None:
            continue
        first, last = shown if first is None else min(first, shown), shown if last is None else max(last, shown)
        if packet.is_keyframe and packet.pos is not None:
            keys.append(Key(shown, packet.pos, clock.offset))
    begin_s = 0.0 if first is None else first * tick_s
    end_s = packets * interval_s if last is None else last * tick_s + interval_s
    ascending = sorted(keys, key=lambda key: key.shown) if clock.breaks else []
    return Contents(end_s, begin_s, packets, tuple(clock.breaks), tuple(ascending))


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    try:
        yield from (packet for packet in shown_packets(container, stream) if packet.size)
    except av.FFmpegError:  # told by the pass that decodes
        return


def shown_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream; those of fragments of MP4 are never hidden.

    FFmpeg marks the packets of a fragment whose time goes back as not to be shown, as if an edit list had cut them.
    """
    fragments = in_fragments(container, stream)
    for packet in container.demux(stream):
        if fragments and packet.is_discard:
            shown: Any = av.Packet(bytes(packet))
            shown.stream, shown.time_base, shown.is_keyframe = stream, packet.time_base, packet.is_keyframe
            shown.pts, shown.dts = packet.pts, packet.dts
            yield shown
        else:
            yield packet


def in_fragments(container: Any, stream: Any) -> bool:
    """Whether a stream is of an MP4 file in fragments, each of which tells its time of decoding."""
    return container.format.name.startswith("mov") and not stream.frames


def jumping(container: Any) -> bool:
    """Whether the clock of a container's format may jump."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)
