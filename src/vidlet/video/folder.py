"""A folder of frame images as a video: files in natural order, at an assumed frame rate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import DataError
from .frames import DEFAULT_FPS, Frame, VideoInfo
from .sample import EPSILON_S

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
UPRIGHT_TURNS = {3: 180, 6: 90, 8: 270}  # EXIF orientation -> clockwise degrees


class FolderReader:
    """Frame images as a source of frames; an image is opened when its picture is asked for.

    Raises:
        DataError: no images in it; or, when a picture is asked for, an image that cannot be decoded.
    """

    def __init__(self, path: Path, fps: float | None = None) -> None:
        self._images = image_files(path)
        if not self._images:
            raise DataError(f"{path}: a folder without images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self._fps = fps or DEFAULT_FPS
        self._next = 0
        self.info = self._describe(path)

    @property
    def interval_s(self) -> float:
        return 1.0 / self._fps

    @property
    def damage(self) -> str:
        return ""

    def next_frame(self) -> Frame | None:
        if self._next >= len(self._images):
            return None
        image, time_s = self._images[self._next], self._next / self._fps
        self._next += 1
        return Frame(time_s, lambda: load_image(image))

    def worth_seeking(self, time_s: float) -> bool:
        return int((time_s + EPSILON_S) * self._fps) > self._next

    def seek(self, time_s: float) -> None:
        self._next = min(int((max(time_s, 0.0) + EPSILON_S) * self._fps), len(self._images) - 1)

    def close(self) -> None:
        pass

    def count(self, start_s: float, end_s: float) -> int:
        """Number of images shown in [start, end)."""
        times = np.arange(len(self._images)) / self._fps
        return int(((times >= start_s - EPSILON_S) & (times < end_s - EPSILON_S)).sum())

    def key_spacing_s(self) -> float:
        return self.interval_s

    def _describe(self, path: Path) -> VideoInfo:
        first = open_image(self._images[0])
        height, width = load_image(self._images[0]).shape[:2]
        count = len(self._images)
        turn = UPRIGHT_TURNS.get(first.getexif().get(0x0112, 1), 0)
        codec = (first.format or "").lower()
        return VideoInfo(path, width, height, self._fps, count / self._fps, count, turn, codec, first.mode)


def image_files(path: Path) -> list[Path]:
    """The images of a folder in natural order (frame2 before frame10); hidden files are not images."""
    try:
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> tuple[list[Any], str]:
    """Sort key of a file name: runs of digits count as numbers."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def open_image(path: Path) -> Image.Image:
    """Open an image without decoding it. DataError: not an image, or of an absurd size."""
    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({_reason(error, path)})") from error


def load_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 (H, W, 3), upright; alpha is dropped, 16 bits a channel become 8."""
    with open_image(path) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
                grey = np.asarray(upright).astype(np.int64) >> 8
                return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
            return np.array(upright.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not a readable image ({_reason(error, path)})") from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).replace(repr(str(path)), "").strip() or type(error).__name__
