"""A folder of frame images as a video: files in the order of their numbers, at a rate that is told or assumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..cloud import here
from ..errors import DataError, reading
from .frame_names import FrameNames, order_frames
from .frames import DEFAULT_FPS, Frame, VideoInfo
from .sample import EPSILON_S

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
})  # fmt: skip
ORIENTATION = 0x0112  # EXIF
DARK = 4096  # of 65,535
UPRIGHT_TURNS = {3: 180, 6: 90, 8: 270}  # EXIF orientation -> clockwise degrees
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class FolderReader:
    """Frame images as a source of frames; an image is opened when its picture is asked for.

    Raises:
        DataError: no images in it; or, when a picture is asked for, an image that cannot be decoded.
    """

    def __init__(self, path: Path, fps: float | None = None) -> None:
        self._names = frame_names(path)
        self._images = self._names.images
        if not self._images:
            raise DataError(f"{path}: a folder without images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self._fps = fps or self._names.fps or DEFAULT_FPS
        self._next = 0
        self.info = self._describe(path)

    @property
    def interval_s(self) -> float:
        return 1.0 / self._fps

    @property
    def damage(self) -> str:
        return ""

    def only(self, wanted: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> None:
        """An image that is not looked at is not opened anyway."""

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
        times = self.frame_times()
        return int(((times >= start_s - EPSILON_S) & (times < end_s - EPSILON_S)).sum())

    def frame_times(self) -> NDArray[np.float64]:
        return np.arange(len(self._images)) / self._fps

    def key_spacing_s(self) -> float:
        return self.interval_s

    def _describe(self, path: Path) -> VideoInfo:
        height, width = load_image(self._images[0]).shape[:2]
        count = len(self._images)
        with open_image(self._images[0]) as first:
            turn, codec, mode = UPRIGHT_TURNS.get(orientation(first), 0), (first.format or "").lower(), first.mode
            dark = _dark_note(first, self._images[0])
        seconds, notes = count / self._fps, (*self._names.notes, *dark)
        return VideoInfo(path, width, height, self._fps, seconds, count, turn, codec, mode, notes)


def frame_names(path: Path) -> FrameNames:
    """The images of a folder that are its clip, in order; hidden files are not images.

    Raises:
        DataError: the folder cannot be listed.
    """
    with reading(path, "a folder that can be listed"):
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    return order_frames(sorted(files))


def image_files(path: Path) -> list[Path]:
    """The images of ``frame_names``."""
    return list(frame_names(path).images)


def open_image(path: Path) -> Image.Image:
    """Open an image without decoding it. DataError: none, of an absurd size, or several pictures in one file."""
    here(path)
    with reading(path, "a readable image"):
        image = Image.open(path)
        try:
            _check_single(image, path)
        except BaseException:
            image.close()
            raise
        return image


def _check_single(image: Image.Image, path: Path) -> None:
    """Refuse an animation or a stack, of which Pillow would give the first picture and be silent about the others.

    A thumbnail behind the picture has another size, and what cameras put behind a JPEG (MPO) is no frame.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return
    size = image.size
    image.seek(1)
    second = image.size
    image.seek(0)
    if second == size:
        raise DataError(f"{path}: {count} pictures in one file; a clip is a video, or a folder with one picture a file")


def _dark_note(image: Image.Image, path: Path) -> tuple[str, ...]:
    """A sentence, if a picture of 16 bits uses less than a sixteenth of them: depth in millimeters, 12-bit sensors."""
    with reading(path, "a readable image"):
        most = int(np.asarray(image).max()) if image.mode.startswith("I") else DARK
    if not 0 < most < DARK:
        return ()
    return (
        f"its pictures of 16 bits are nearly black in 8 bits: values up to {most:,} of 65,535 in the first one; scale "
        "them to the whole range",
    )


def load_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image to RGB uint8 (H, W, 3), upright; alpha is dropped, 16 bits a channel become 8.

    Raises:
        DataError: not an image, or one of floating-point numbers, of which nothing says what is white.
    """
    with open_image(path) as image, reading(path, "a readable image"):
        if image.mode == "F":
            raise DataError(f"{path}: an image of floating-point numbers; write it with 8 or 16 bits")
        turn = TRANSPOSED.get(orientation(image))
        upright = image if turn is None else image.transpose(turn)
        if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
            grey = np.asarray(upright).astype(np.int64) >> 8
            return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
        return np.array(upright.convert("RGB"))


def orientation(image: Image.Image) -> int:
    """How EXIF says that an image lies, 1 to 8; 1 (upright) where its EXIF cannot be read, as browsers take it."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # the parser of a library, on the bytes of a stranger
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
