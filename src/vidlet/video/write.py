"""Write pictures as a video that every player and browser opens: H.264 in mp4, mov or mkv, VP9 in webm.

libx264 comes with PyAV's wheels and is GPL (NOTICE); where FFmpeg was built without it, the next of the list is taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from ..errors import DataError
from ..files import atomic_path
from .address import container_name
from .opening import reason_of
from .resize import resize

ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has
WEB_ENCODERS = ("libvpx-vp9", "libvpx")
CONTAINERS = {"": "mp4", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
TICK = Fraction(1, 90_000)  # of times that are given; that of MPEG
BT709 = 1  # the number of BT.709 in every color field of H.264


class VideoWriter:
    """Write a video frame by frame; the file is whole under its name at the end, or not there.

    Pictures are uint8 (H, W, 3); the first one, or ``size`` (height, width), decides the size and later ones are
    stretched to it. H.264 with 4:2:0 color needs even sizes: an odd edge is repeated once. Pictures are 1 / ``fps``
    apart, or each is shown from its own time on.

        with VideoWriter("out.mp4", fps=25) as video:
            video.write(rgb)

    Raises:
        DataError: no frame was written, the file cannot be written, or its name ends like no video that is written.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float, size: tuple[int, int] | None = None) -> None:
        if not fps > 0:
            raise DataError(f"{path}: a video needs a frame rate above 0, got {fps}")
        self._path, self._size = Path(path), size
        self._format = container_of(self._path)
        self._rate = Fraction(fps).limit_denominator(100_000)
        self._draft = contextlib.ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._count, self._stamp = 0, -1

    def __enter__(self) -> VideoWriter:
        with self._telling():
            draft = self._draft.enter_context(atomic_path(self._path))
            try:
                options = {"movflags": "+faststart"} if self._format in ("mp4", "mov") else {}
                self._container = av.open(container_name(draft), "w", format=self._format, options=options)
            except BaseException as error:
                self._draft.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    def write(self, rgb: NDArray[np.uint8], time_s: float | None = None) -> None:
        """Append one picture, shown from ``time_s`` on (all pictures, ascending, or none)."""
        self._size = self._size or (rgb.shape[0], rgb.shape[1])
        rgb = _even(resize(rgb, self._size))
        with self._telling():
            if self._stream is None:
                self._stream = self._open_stream(rgb.shape[0], rgb.shape[1])
                if time_s is not None:
                    self._stream.codec_context.time_base = TICK
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
            )
            if time_s is None:
                frame.pts, frame.time_base = self._count, 1 / self._rate
            else:
                self._stamp = max(round(time_s / TICK), self._stamp + 1)
                frame.pts, frame.time_base = self._stamp, TICK
            self._container.mux(self._stream.encode(frame))
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._telling(), self._draft:
            try:
                if error is None and self._stream is not None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()
            if error is not None:
                raise error
            if self._stream is None:
                raise DataError(f"{self._path}: a video needs at least one frame")

    def _open_stream(self, height: int, width: int) -> Any:
        known = WEB_ENCODERS if self._format == "webm" else ENCODERS
        name = next((name for name in known if name in av.codecs_available), None)
        if name is None:
            raise DataError(f"{self._path}: this PyAV has none of {', '.join(known)}; write an .mp4")
        # macroblock trees made other bytes of the same pictures from run to run
        options = {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0"} if name == "libx264" else {}
        if name in WEB_ENCODERS:
            options = {"crf": "30", "b": "0" if name == "libvpx-vp9" else "2M", "deadline": "realtime", "cpu-used": "5"}
        stream = self._container.add_stream(name, rate=self._rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG
        stream.thread_type = "FRAME"  # sliced H.264 is what PyAV writes otherwise, and it decodes worse
        return stream

    @contextlib.contextmanager
    def _telling(self) -> Any:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"{self._path}: cannot be written ({reason_of(error)})") from error


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that a file's name asks for.

    Raises:
        DataError: none that is written here.
    """
    found = CONTAINERS.get(path.suffix.lower())
    if found is None:
        raise DataError(f"{path}: a video is written as {', '.join(suffix for suffix in CONTAINERS if suffix)}")
    return found


def write_video(path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Write pictures (H, W, 3) as one video. DataError: there are none, or the file cannot be written."""
    with VideoWriter(path, fps) as video:
        for rgb in frames:
            video.write(rgb)


def _even(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else rgb
