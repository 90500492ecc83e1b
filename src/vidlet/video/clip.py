"""Clips: which frames of a video the model sees, read in one pass, by decoding on or by seeking, whichever is shorter.

`path` is a video file, the address of one, or a folder of frame images everywhere; `fps` is the frame rate of folders
(25 if not told). `size` is (height, width). Times are seconds since the first frame of the video.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..recipe import Sampling
from .address import as_place
from .container import HOP_FRAMES, VideoReader
from .folder import FolderReader
from .frames import Frame, Reader, VideoInfo
from .opening import much_longer
from .resize import resize
from .sample import EPSILON_S, random_ascending, ticks_from, uniform_indices

END = float("inf")
MOST_BYTES = 2**31  # of the pictures of one clip in memory
PathLike = str | os.PathLike[str]
Window = tuple[float, float]  # start and end in seconds; the end is infinite where none is given


@dataclass(frozen=True)
class SampledClip:
    """What a model sees of a clip.

    ``frames``: uint8 (T, H, W, 3). ``times_s``: float64 (T,), ascending: the ticks of rule "rate", the frames' own
    times of rule "uniform". ``damage``: "" or, in words, what was missing or broken behind the readable frames.
    """

    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    damage: str = ""


def probe(path: PathLike, fps: float | None = None) -> VideoInfo:
    """Describe a video by its header and its first frame.

    Raises:
        DataError: it cannot be read, or its first frame cannot be decoded.
    """
    with open_reader(path, fps) as reader:
        return reader.info


def frame_times(path: PathLike, fps: float | None = None) -> NDArray[np.float64]:
    """When each frame is shown, float64 (frames,) in seconds since the first, as ``iter_frames`` yields them.

    Of most files all packets are read and none is decoded.

    Raises:
        DataError: not a readable video, or no frame can be decoded.
    """
    with open_reader(path, fps) as reader:
        return reader.frame_times()


def iter_frames(
    path: PathLike,
    start_s: float | None = None,
    end_s: float | None = None,
    fps: float | None = None,
    resume: bool = False,
) -> Iterator[Frame]:
    """Yield the frames with start <= time < end; a frame becomes a picture only where ``rgb()`` is called.

    At damage the frames end or, with ``resume``, go on at the next intact key frame.

    Raises:
        DataError: not a readable video, no frame can be decoded, or the window makes no sense.
    """
    start, end = _window(path, start_s, end_s)
    with open_reader(path, fps, resume) as reader:
        yield from _in_window(reader, start, end)


def read_clip(
    path: PathLike,
    sampling: Sampling,
    size: tuple[int, int],
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    rng: np.random.Generator | None = None,
    fps: float | None = None,
) -> SampledClip:
    """Read the frames that ``sampling`` chooses, resized to ``size``.

    Rule "rate": the frame on display at start + k/hz, k = 0, 1, ..., up to the end of the clip; the last frame is shown
    for one average frame interval. Rule "uniform": M frames of n, number k is floor((k + 0.5) n / M), repeated where
    n < M; in a video so long that seeking is cheaper, the frame on display at the middle of that frame's time, which
    is the same frame unless the frame rate varies. With ``rng``: a random phase in [0, 1/hz); M random frames in
    ascending order.

    Raises:
        DataError: no frame can be decoded, or the window makes no sense.
    """
    window, again = _window(path, start_s, end_s), copy.deepcopy(rng)
    clip = _read_clip(path, sampling, size, window, rng, fps, sparing=True)
    if clip is not None and not clip.damage:
        return clip
    # What is left of a file that is damaged, or does not hold what it declares, depends on what was left out.
    if rng is not None and again is not None:
        rng.bit_generator.state = again.bit_generator.state
    clip = _read_clip(path, sampling, size, window, rng, fps, sparing=False, seeking=clip is not None)
    assert clip is not None
    return clip


def _read_clip(
    path: PathLike,
    sampling: Sampling,
    size: tuple[int, int],
    window: Window,
    rng: np.random.Generator | None,
    fps: float | None,
    sparing: bool,
    seeking: bool = True,
) -> SampledClip | None:
    """See ``read_clip``; ``sparing``: what is not looked at need not be decoded; None where that, or a jump, misled."""
    start, end = window
    with open_reader(path, fps) as reader:
        if sampling.rule == "rate":
            phase = 0.0 if rng is None else rng.uniform(0.0, 1.0 / sampling.hz)
            if sparing:
                reader.only(partial(_shown_at, ticks=(sampling.hz, start, phase)))
            shown = _bounded(
                _at_rate(reader, sampling.hz, start, end, phase), reader.info, sampling.hz, (start, end), size
            )
            pairs = list(_pictures(shown, size))
            return _stack(pairs, reader.damage)
        if seeking and (numbers := _seek_is_cheaper(reader, sampling.frames, start, end)):
            return _sought(reader, numbers.start + _choose(len(numbers), sampling.frames, rng), size)
        choice = partial(_choose, m=sampling.frames, rng=rng)
        whole = start == 0 and end == END
        n = reader.info.frames if whole and reader.info.frames else reader.count(start, end)
        clip, found = _counted(reader, choice, n, size, window, sparing)
    if clip is None and sparing:
        return None
    if clip is None and found:  # the file does not hold what it declares
        with open_reader(path, fps) as reader:
            clip, _ = _counted(reader, choice, found, size, window)
    if clip is None:  # the window is shorter than a frame
        with open_reader(path, fps) as reader:
            shown = itertools.islice(_at_rate(reader, 1.0, start, end, 0.0), 1)
            clip = _stack(sampling.frames * list(_pictures(shown, size)), reader.damage)
    return clip


def stream_clip(
    path: PathLike,
    sampling: Sampling,
    size: tuple[int, int],
    chunk: int = 32,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    hz: float | None = None,
    fps: float | None = None,
    resume: bool = False,
) -> Iterator[SampledClip]:
    """Yield the frames of ``read_clip`` in chunks of at most ``chunk`` frames, in constant memory, whatever the length.

    ``damage`` tells what was met so far; the last chunk's is the whole. ``hz`` asks for rule "rate" at that rate, also
    of a model that was trained with "uniform". With ``resume`` rule "rate" goes on behind damage, where ``read_clip``
    ends (the last good frame stands meanwhile): for videos that are too long to be given up at the first bad packet.

    Raises:
        DataError: no frame can be decoded, or the window makes no sense.
    """
    if sampling.rule == "uniform" and not hz:
        clip = read_clip(path, sampling, size, start_s, end_s, fps=fps)
        for first in range(0, len(clip.frames), chunk):
            part = slice(first, first + chunk)
            yield SampledClip(clip.frames[part], clip.times_s[part], clip.damage)
        return
    start, end = _window(path, start_s, end_s)
    with open_reader(path, fps, resume) as reader:
        pictures = _pictures(_at_rate(reader, hz or sampling.hz, start, end, 0.0), size)
        pairs = list(itertools.islice(pictures, chunk + 1))  # one more: the last chunk comes when the end was seen
        while len(pairs) > chunk:
            yield _stack(pairs[:chunk], reader.damage)
            pairs = pairs[chunk:] + list(itertools.islice(pictures, chunk))
        yield _stack(pairs, reader.damage)


@contextlib.contextmanager
def open_reader(path: PathLike, fps: float | None = None, resume: bool = False) -> Iterator[Reader]:
    """Open a video file or a folder of frame images as a source of frames."""
    place = as_place(path)
    if isinstance(place, Path) and place.is_dir():
        reader: Reader = FolderReader(place, fps)
    else:
        reader = _open_file(place, resume)
    try:
        yield reader
    finally:
        reader.close()


def _open_file(place: Path | str, resume: bool) -> VideoReader:
    """A reader of a file; of one on the web that cannot be read from where it is, of a copy of it."""
    try:
        return VideoReader(place, resume)
    except DataError:
        if isinstance(place, Path):
            raise
        from .fetch import fetched  # what speaks with servers is imported where there is one

        copy = fetched(place)
        if copy is None:
            raise
        return VideoReader(copy, resume, str(place))


def _at_rate(reader: Reader, hz: float, start: float, end: float, phase: float) -> Iterator[tuple[float, Frame]]:
    """Pair the ticks of rule "rate" with the frames on display; at least one pair."""
    empty = True
    for tick, frame in _on_display(reader, ticks_from(start, hz, phase), end):
        yield tick, frame
        empty = False
    if empty:  # the random phase lies behind the end of a very short clip
        reader.seek(start)
        for tick, frame in _on_display(reader, [start], END):
            yield tick, frame
            return
        raise DataError(f"{reader.info.path}: nothing is shown at {start:g} s, the video ends before")


def _bounded(
    pairs: Iterator[tuple[float, Frame]], info: VideoInfo, hz: float, window: Window, size: tuple[int, int]
) -> Iterator[tuple[float, Frame]]:
    """The same pairs, where they fit into memory.

    Raises:
        DataError: the clip is too long, by what its file declares, or by what comes.
    """
    most = max(1, MOST_BYTES // (3 * size[0] * size[1]))
    expected = (min(window[1], info.duration_s or 0.0) - window[0]) * hz
    for number, pair in enumerate(pairs, 1):
        if max(number, expected) > most:
            raise DataError(
                f"{info.path}: a clip of {max(number, expected):,.0f} frames of {size[1]}x{size[0]} at {hz:g} Hz is "
                f"more than memory is taken for ({most:,}); cut it by start_s and end_s, or take a lower rate"
            )
        yield pair


def _on_display(
    reader: Reader, ticks: Iterable[float], end: float, hold: bool = False
) -> Iterator[tuple[float, Frame]]:
    """Pair each tick before ``end`` with the latest frame at or before it, up to the end of the last frame's time.

    With ``hold`` the last frame stands as long as there are ticks, and a damaged stretch may be jumped over.
    """
    current, following = reader.next_frame(), reader.next_frame()
    for tick in ticks:
        if tick >= end - EPSILON_S:
            return
        if (following is not None or hold) and reader.worth_seeking(tick):
            reader.seek(tick)
            following = reader.next_frame()
        while following is not None and following.time_s <= tick + EPSILON_S:
            current, following = following, reader.next_frame()
        over = current is None or (following is None and tick >= current.time_s + reader.interval_s - EPSILON_S)
        if current is None or (over and not hold):
            return
        yield tick, current


def _shown_at(times_s: NDArray[np.float64], ticks: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Which frames (N,) are on display at ticks of a rate (hz, start, phase), or are the last."""
    until = itertools.takewhile(lambda tick: tick <= times_s[-1], ticks_from(ticks[1], ticks[0], ticks[2]))
    at = np.array([ticks[1], *until]) + EPSILON_S
    looked_at = np.zeros(len(times_s), dtype=np.bool_)
    looked_at[np.searchsorted(times_s, at, side="right") - 1] = True
    looked_at[[0, -1]] = True
    return looked_at


def _numbered(times_s: NDArray[np.float64], numbers: list[int], window: Window) -> NDArray[np.bool_]:
    """Which frames (N,) have one of the numbers, counted within a window."""
    inside = (times_s >= window[0] - EPSILON_S) & (times_s < window[1] - EPSILON_S)
    return inside & np.isin(np.cumsum(inside) - 1, numbers)


def _seek_is_cheaper(reader: Reader, m: int, start: float, end: float) -> range | None:
    """The frame numbers of the window, by its declared length, if m jumps cost less than reading on; else None.

    A jump decodes half the distance between two key frames, and about HOP_FRAMES more in overhead.
    """
    fps, info = reader.info.fps, reader.info
    total = info.frames or round(info.duration_s * fps)
    window = range(_frame_number(start, fps), min(_frame_number(end, fps), total))
    if len(window) <= 2 * m * HOP_FRAMES:
        return None
    return window if len(window) > m * (reader.key_spacing_s() * fps + 2 * HOP_FRAMES) else None


def _frame_number(time_s: float, fps: float) -> int:
    """Number of the first frame that starts at or after this time, at a constant frame rate."""
    return sys.maxsize if math.isinf(time_s) else math.ceil(time_s * fps - EPSILON_S)


def _sought(reader: Reader, numbers: NDArray[np.int64], size: tuple[int, int]) -> SampledClip | None:
    """Rule "uniform" by jumps: the frames on display in the middle of the wanted frames' times.

    None where the file ends long before the last of them, so that it is not so long as it declares.
    """
    middles = (numbers + 0.5) * reader.interval_s
    shown = _on_display(reader, middles.tolist(), END, hold=True)
    pairs = list(_pictures(((frame.time_s, frame) for _, frame in shown), size))
    return None if much_longer(middles[-1], pairs[-1][0]) else _stack(pairs, reader.damage)


def _counted(
    reader: Reader,
    choice: Callable[[int], NDArray[np.int64]],
    n: int,
    size: tuple[int, int],
    window: Window,
    sparing: bool = False,
) -> tuple[SampledClip | None, int]:
    """Rule "uniform" by reading on: the frames number ``choice(n)`` of the window, and how many it really has.

    The clip is None where that is not n, so that the choice has to be made again.
    """
    repeats = Counter(choice(n).tolist()) if n else Counter[int]()
    if sparing:
        reader.only(partial(_numbered, numbers=list(repeats), window=window))
    found, pairs = 0, []
    for frame in _in_window(reader, *window):
        if found in repeats:
            pairs += [(frame.time_s, resize(frame.rgb(), size))] * repeats[found]
        found += 1
    return (_stack(pairs, reader.damage) if found == n and pairs else None), found


def _in_window(reader: Reader, start: float, end: float) -> Iterator[Frame]:
    """The frames with start <= time < end."""
    frame = reader.next_frame()
    if reader.worth_seeking(start):
        reader.seek(start)
        frame = reader.next_frame()
    while frame is not None and frame.time_s < end - EPSILON_S:
        if frame.time_s >= start - EPSILON_S:
            yield frame
        frame = reader.next_frame()


def _choose(n: int, m: int, rng: np.random.Generator | None) -> NDArray[np.int64]:
    return uniform_indices(n, m) if rng is None else random_ascending(n, m, rng)


def _pictures(pairs: Iterable[tuple[float, Frame]], size: tuple[int, int]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Convert and resize; a frame that is shown at several ticks once."""
    shown: Frame | None = None
    for time_s, frame in pairs:
        if frame is not shown:
            shown, picture = frame, resize(frame.rgb(), size)
        yield time_s, picture


def _stack(pairs: list[tuple[float, NDArray[np.uint8]]], damage: str) -> SampledClip:
    times_s = np.array([time_s for time_s, _ in pairs], dtype=np.float64)
    return SampledClip(np.stack([picture for _, picture in pairs]), times_s, damage)


def _window(path: PathLike, start_s: float | None, end_s: float | None) -> Window:
    start, end = 0.0 if start_s is None else float(start_s), END if end_s is None else float(end_s)
    if not 0 <= start < end:
        raise DataError(f"{path}: a clip from {start:g} s to {end:g} s is empty (0 <= start < end must hold)")
    return start, end
