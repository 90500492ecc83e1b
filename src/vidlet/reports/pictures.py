"""Clips as small moving pictures inside the page."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .markup import Html, element

if TYPE_CHECKING:
    from PIL.Image import Image


def moving_picture(
    frames: NDArray[np.uint8], alt: str, fps: float = 8.0, max_side: int = 192, max_frames: int = 32
) -> Html:
    """An animated image of frames uint8 (T, H, W, 3) that loops at ``fps``; a still where less motion is preferred.

    Larger frames are scaled down to ``max_side``; of more than ``max_frames``, evenly spread ones are shown at a lower
    rate, so that the clip keeps its pace. About 2 kB a frame (WebP; GIF where Pillow has no WebP).
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise DataError(f"{alt}: a moving picture needs uint8 (T, H, W, 3) with T >= 1, got {frames.shape}")
    count = min(len(frames), max_frames)
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    images = [_small(frames[i], max_side) for i in places]
    duration = round(1000 * len(frames) / (fps * count))
    animation, still = _encode(images, duration), _encode(images[len(images) // 2 :][:1], duration)
    width, height = images[0].size
    return element(
        "picture",
        element("source", srcset=still, media="(prefers-reduced-motion: reduce)"),
        element("img", src=animation, alt=alt, width=width, height=height, decoding="async"),
    )


def gallery(pictures: Sequence[tuple[NDArray[np.uint8], str]], max_side: int = 320) -> Html:
    """Pictures uint8 (H, W, 3) beside each other, each above its caption."""
    cards = (
        element("li", moving_picture(frame[None], caption, 1.0, max_side), element("p", caption, class_="path"))
        for frame, caption in pictures
    )
    return element("ul", *cards, class_="cards wide")


def _small(frame: NDArray[np.uint8], max_side: int) -> "Image":
    from PIL import Image

    height, width = frame.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(frame))
    return image if image.size == size else image.resize(size, Image.Resampling.BOX)


def _encode(images: "list[Image]", duration_ms: int) -> str:
    from PIL import features

    kind = "webp" if features.check("webp") else "gif"
    options = {"quality": 60, "method": 2} if kind == "webp" else {}
    stream = io.BytesIO()
    images[0].save(
        stream, kind.upper(), save_all=True, append_images=images[1:], duration=duration_ms, loop=0, **options
    )  # fmt: skip
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
