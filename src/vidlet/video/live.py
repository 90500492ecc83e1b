"""Live video: a camera, a network stream, or a file played at its own speed. The newest frame wins.

Time is that of the stream's own stamps since it was opened, mended where they break: frames that come late, early or
many at once are not faster or slower for it. Where a stream has no stamps it is the time of arrival.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from ..errors import DataError
from ..wording import redact, shown
from .address import CAMERA_PATHS, PLAYLISTS, WEB, WEB_OPTIONS, is_live
from .clip import iter_frames, open_reader
from .clock import Clock
from .frames import DEFAULT_FPS, Frame
from .opening import reason_of, video_stream
from .sample import EPSILON_S
from .upright import Pictures

CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 10.0
UNREADABLE_S = 3.0  # a stream that could be decoded and no longer can, for so long, is opened anew
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # for a source that went away; doubled until it gives frames again


class LiveSource:
    """Frames as they come, in a thread of their own; whoever is slow gets the newest one and misses the others.

    Args:
        source: A camera's number (0 or "0") or device, an address (rtsp, udp, http ...), or a file, played at its own
            speed. A stream may change its size; one that changes its codec breaks off.
        wait: A camera or stream that goes away is waited for, with back-off, and goes on where it is then (what http
            ends by itself has ended).
        tell: Told in one line when it went away and when it is back.

    Raises:
        DataError: it cannot be opened; from ``read``: it broke off.
    """

    def __init__(
        self, source: str | int | Path, wait: bool = False, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.source = str(source)
        self.name = shown(self.source)  # as it is said: without user and password
        self.lost = 0  # how often it went away
        self._wait, self._tell, self._delay_s = wait, tell, FIRST_WAIT_S
        self.dropped = 0  # frames that nobody read
        self.taken: Frame | None = None  # the frame that was read last
        self.arrived_s = 0.0  # when it came, by time.monotonic()
        self._came_s = 0.0
        self._newest: Frame | None = None
        self._error: DataError | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._stop = threading.Event()
        frames = self._open()
        self._thread = threading.Thread(target=self._watch, args=(frames,), name="live", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether no further frame will come."""
        return self._ended and self._newest is None

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """The newest frame not yet read; waits for one. None: the time is over, or the source has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, timeout_s)
            frame, self._newest = self._newest, None
            if frame is not None:
                self.taken, self.arrived_s = frame, self._came_s
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def __iter__(self) -> Iterator[Frame]:
        """The newest frame again and again, until the source ends."""
        while (frame := self.read()) is not None:
            yield frame

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join(timeout=READ_TIMEOUT_S)

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Iterator[Frame]:
        if is_live(self.source):
            return self._device_frames(_open_device(self.source))
        with open_reader(self.source):  # a file that cannot be read is an error now, not in the thread
            return self._file_frames()

    def _watch(self, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest, self._came_s = frame, time.monotonic()
                    self._changed.notify_all()
                if self._stop.is_set():
                    break
        except DataError as error:
            self._error = error
        except Exception as error:  # nobody waits for this thread; whoever reads is told
            self._error = DataError(f"{self.name}: reading it failed ({type(error).__name__}: {error})")
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _file_frames(self) -> Iterator[Frame]:
        began = time.monotonic()
        for frame in iter_frames(self.source, resume=True):
            if self._stop.wait(max(0.0, began + frame.time_s - time.monotonic())):
                return
            yield frame

    def _device_frames(self, container: Any) -> Iterator[Frame]:
        """Frames by the stream's own clock; packets that cannot be decoded are left out."""
        times = _StreamTime()
        while True:
            reason = yield from self._until_it_breaks_off(container, times)
            ended = not reason and self.source.startswith(WEB)
            if self._stop.is_set() or ended or not (self._wait or reason):
                return
            if not self._wait:
                raise DataError(f"{self.name}: the stream broke off ({reason})")
            again = self._opened_again(reason or "it ended")
            if again is None:
                return
            container = again

    def _until_it_breaks_off(self, container: Any, times: _StreamTime) -> Generator[Frame, None, str]:
        """The frames of one connection; returns why it broke off, "" if it just ended."""
        shown_s = float("inf")  # when the last frame was decoded
        with container:
            stream = video_stream(container, self.name)
            pictures = Pictures(stream.codec_context.codec.canonical_name)
            times.connect(stream)
            packets = container.demux(stream)
            while not self._stop.is_set():
                try:
                    packet = next(packets, None)
                except av.error.ExitError:
                    return f"nothing came for {READ_TIMEOUT_S:g} s"
                except av.FFmpegError as error:
                    return reason_of(error)
                if packet is None:
                    return ""
                times.mend(packet)
                for raw in _decoded(packet):
                    time_s = times.of(raw)
                    early_s = time_s - times.now_s()
                    if container.format.name in PLAYLISTS and self._stop.wait(max(0.0, early_s)):
                        return ""  # a playlist gives seconds at once: they are shown at their own speed
                    self._delay_s, shown_s = FIRST_WAIT_S, time.monotonic()
                    yield Frame(time_s, partial(pictures.upright, raw))
                if time.monotonic() - shown_s > UNREADABLE_S:
                    return "what comes can no longer be decoded; a stream that changes its codec must be opened anew"
        return ""

    def _opened_again(self, reason: str) -> Any:
        """The source once it is there again; None: nobody waits any more."""
        self.lost += 1
        self._tell(f"{self.name}: went away ({reason}); waiting for it")
        went = time.monotonic()
        while not self._stop.wait(self._delay_s):
            self._delay_s = min(2 * self._delay_s, LONGEST_WAIT_S)
            try:
                container = _open_device(self.source)
            except DataError:
                continue
            self._tell(f"{self.name}: is back after {time.monotonic() - went:.0f} s")
            return container
        return None


class _StreamTime:
    """Seconds since it was made of the frames of a stream, strictly ascending over its connections.

    A connection, and what follows a break of its stamps, begins at the time of its arrival, or one frame after the last
    frame where the stamps had run ahead of it (a server sends at once what it has kept)."""

    def __init__(self) -> None:
        self._began, self._last_s, self._opened_s = time.monotonic(), -1.0, 0.0
        self._first: int | None = None

    def connect(self, stream: Any) -> None:
        """Go on with the frames of this stream."""
        rate = stream.average_rate or stream.guessed_rate or DEFAULT_FPS
        self._frame_s = 1 / min(max(float(rate), 1.0), 1000.0)
        self._clock = Clock(stream, True, self._frame_s)
        self._tick_s = float(stream.time_base or 1 / 90_000)
        self._begin()

    def now_s(self) -> float:
        """The time of what arrives now."""
        return time.monotonic() - self._began

    def mend(self, packet: Any) -> None:
        """Move a packet's stamps to the one clock, before it is decoded; where they break, time is that of arrival."""
        breaks = len(self._clock.breaks)
        self._clock.mend(packet)
        if len(self._clock.breaks) > breaks:
            self._begin()
            self._clock.breaks.clear()

    def of(self, raw: Any) -> float:
        """The time of a decoded frame."""
        if raw.pts is None:
            time_s = self.now_s()
        else:
            self._first = raw.pts if self._first is None else self._first
            time_s = self._opened_s + (raw.pts - self._first) * self._tick_s
        self._last_s = max(time_s, self._last_s + EPSILON_S)
        return self._last_s

    def _begin(self) -> None:
        self._first = None
        self._opened_s = self.now_s() if self._last_s < 0 else max(self.now_s(), self._last_s + self._frame_s)


def _open_device(source: str) -> Any:
    kind, name, options = None, source, {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
    if source.startswith(WEB):
        options = dict(WEB_OPTIONS)
    if source.isdecimal():
        kind, pattern = CAMERAS.get(sys.platform, CAMERAS["linux"])
        name = pattern.format(source)
    elif source.startswith(CAMERA_PATHS):
        kind = "v4l2"
    try:
        return av.open(name, format=kind, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{shown(source)}: cannot be opened ({redact(_advice(name, error))})") from None


def _advice(name: str, error: Exception) -> str:
    """Why a camera or a stream cannot be opened, and what to do where that is known."""
    if isinstance(error, av.error.ExitError):
        return f"nothing came within {OPEN_TIMEOUT_S:g} s; is it being sent, to this address and port?"
    if name.startswith(CAMERA_PATHS):
        if isinstance(error, FileNotFoundError):
            here = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
            return f"there is no {name}; cameras here: {here}; plug it in, and hand it to a container with --device"
        if isinstance(error, PermissionError):
            return f"permission denied on {name}; sudo usermod -aG video $USER, then log in again"
        if getattr(error, "errno", None) == errno.EBUSY:
            return f"another program uses {name}; end it first"
    return reason_of(error)


def _decoded(packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []  # a lost packet on the way; the next key frame mends it
