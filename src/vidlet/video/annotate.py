"""Draw on a frame what the model thinks of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..wording import shown

LEGIBLE = 320  # pixels that the shorter side of a picture needs for text on it
INK, SHADE, BAR, BOX = (255, 255, 255), (0, 0, 0, 150), (64, 200, 120, 255), (255, 190, 40)
SOFT = (190, 196, 204)  # of what is said when nothing is there
KINDS = ("#f0b04a", "#8ab0ff", "#5cc9a5", "#d993d5", "#a0a9b5", "#ff9d74", "#6cc4e0", "#d3c066")  # as in reports


@dataclass(frozen=True)
class Strip:
    """A video as a line: spans (start, end, number of the label), and where a picture is; places are in [0, 1]."""

    spans: Sequence[tuple[float, float, int]]
    at: float


def enlarge(rgb: NDArray[np.uint8], least: int = LEGIBLE) -> NDArray[np.uint8]:
    """Repeat the pixels of a small picture (H, W, 3) a whole number of times, until text on it can be read."""
    times = -(-least // min(rgb.shape[:2]))
    return rgb.repeat(times, 0).repeat(times, 1) if times > 1 else rgb


def annotate(
    rgb: NDArray[np.uint8],
    label: str,
    score: float | None = None,
    bars: Sequence[tuple[str, float]] = (),
    boxes: Iterable[tuple[float, float, float, float, str]] = (),
    quiet: str = "",
    strip: Strip | None = None,
) -> NDArray[np.uint8]:
    """Return a copy of a picture (H, W, 3) with the label in the upper left corner, bars in the lower one, and boxes.

    Args:
        label: What is said; "" draws none.
        score: In [0, 1], printed behind the label.
        bars: (name, score in [0, 1]), best first, one bar a line.
        boxes: (x1, y1, x2, y2, text), corners relative to the frame in [0, 1].
        quiet: What is said in small gray letters where there is no label.
        strip: The whole video along the lower edge: when which label was, and where this picture is.
    """
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    draw = ImageDraw.Draw(picture, "RGBA")
    height, width = rgb.shape[:2]
    unit = max(8.0, min(height, width) / 16)  # the height of a line of text
    for x1, y1, x2, y2, text in boxes:
        left, right = sorted((x1 * (width - 1), x2 * (width - 1)))
        top, bottom = sorted((y1 * (height - 1), y2 * (height - 1)))
        draw.rectangle((left, top, right, bottom), outline=BOX, width=max(1, round(unit / 8)))
        _text(draw, (left, max(0.0, top - 0.9 * unit)), text, 0.7 * unit, width)
    if label:
        _text(draw, (unit / 4, unit / 4), label if score is None else f"{label} {score:.0%}", 1.2 * unit, width)
    elif quiet:
        _text(draw, (unit / 4, unit / 4), quiet, 0.8 * unit, width, ink=SOFT)
    if strip is not None:
        _strip(draw, strip, width, height, max(4.0, unit / 2))
    line = 0.8 * unit
    bars = bars[: max(0, int((height - 2 * unit) / line))]
    for row, (name, value) in enumerate(bars):
        top = height - (len(bars) - row) * line
        full = 0.3 * width
        draw.rectangle((0, top, full, top + line - 1), fill=SHADE)
        draw.rectangle((0, top, full * min(max(value, 0.0), 1.0), top + line - 1), fill=BAR)
        _text(draw, (line / 4, top), name, 0.7 * line, width, shade=False)
    return np.array(picture)


def _strip(draw: ImageDraw.ImageDraw, strip: Strip, width: int, height: int, thick: float) -> None:
    """Segments in the colors of their labels on a dark ground, and a mark at the moment of the picture."""
    top = height - thick
    draw.rectangle((0, top, width, height), fill=SHADE)
    for start, end, kind in strip.spans:
        draw.rectangle(
            (start * width, top, max(start * width + 1, end * width - 2), height), fill=KINDS[kind % len(KINDS)]
        )
    at = strip.at * (width - 1)
    draw.rectangle((at - thick / 8, top - thick / 4, at + thick / 8, height), fill=INK)


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: float,
    width: int,
    *,
    shade: bool = True,
    ink: tuple[int, int, int] = INK,
) -> None:
    """Write one line, smaller if it does not fit the picture's width, on a dark ground (or with a dark rim).

    Line breaks and what no font has (halves of pairs) are written as escapes: Pillow measures single lines alone.
    """
    text = shown(text)
    font = ImageFont.load_default(size)
    long = draw.textlength(text, font)
    if long > width - place[0] > 0:
        font = ImageFont.load_default(max(6.0, size * (width - place[0]) / long))
    if shade:
        left, top, right, bottom = draw.textbbox(place, text, font)
        draw.rectangle((left - size / 4, top - size / 4, right + size / 4, bottom + size / 4), fill=SHADE)
    draw.text(place, text, ink, font, stroke_width=0 if shade else 1, stroke_fill=(0, 0, 0))
