"""Videos for the other tests of the video room: every frame carries its own number as a row of black and white bars."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidlet.video import iter_frames

BITS = 12


def picture(number: int, height: int = 48, width: int = 96) -> NDArray[np.uint8]:
    """A picture (H, W, 3) that shows a number in binary, and a gray level that moves with it."""
    rgb = np.full((height, width, 3), 60 + number % 100, np.uint8)
    for bit in range(BITS):
        rgb[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255 * (number >> bit & 1)
    return rgb


def number_of(rgb: NDArray[np.uint8]) -> int:
    """The number that a picture of any size shows."""
    height, width = rgb.shape[:2]
    centers = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(int(rgb[height // 4, x, 1] > 128) << bit for bit, x in enumerate(centers))


def render(
    path: Path,
    count: int,
    *,
    fps: int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    draw: Callable[[int], NDArray[np.uint8]] = picture,
    colorspace: int | None = None,
    color_range: int | None = None,
) -> Path:
    """Render ``count`` numbered frames; ``stamps``: their times in ms, if they are irregular."""
    height, width = draw(0).shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, pixels, 1
        stream.codec_context.time_base = Fraction(1, 1000) if stamps else Fraction(1, fps)
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(draw(number), "rgb24").reformat(
                format=pixels, dst_colorspace=colorspace, dst_color_range=color_range, threads=1
            )
            frame.pts = stamps[number] if stamps else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def gop(length: int, b_frames: int = 2) -> dict[str, str]:
    """Options of x264 for key frames at a fixed distance."""
    return {"g": str(length), "bf": str(b_frames), "crf": "18", "preset": "veryfast", "x264-params": "scenecut=0"}


def test_every_rendered_frame_shows_its_own_number(tmp_path):
    path = render(tmp_path / "numbers.mp4", 30, options=gop(10))
    assert [number_of(frame.rgb()) for frame in iter_frames(path)] == list(range(30))
