"""Colors of decoded frames by the definition of their matrix, at sizes and in formats that take different ways."""

from __future__ import annotations

import av
import numpy as np
import pytest

from vidlet.video.upright import Pictures

SHARE = {
    "yuv420p": (2, 2),
    "yuvj420p": (2, 2),
    "yuv422p": (1, 2),
    "nv12": (2, 2),
    "yuv420p10le": (2, 2),
}  # rows, columns


def picture(kind: str, height: int, width: int) -> tuple[av.VideoFrame, np.ndarray]:
    """A frame whose luma and colors change slowly, and its RGB by ITU-R BT.601, (H, W, 3)."""
    down, right = SHARE[kind]
    rows, columns = np.mgrid[:height, :width]
    luma = 60 + 110 * rows / height + 30 * columns / width
    small = np.mgrid[: -(-height // down), : -(-width // right)].astype(float)
    blue, red = 128 + 40 * small[0] / height - 20, 128 + 40 * small[1] / width + 10
    frame = av.VideoFrame(width, height, kind)
    deep = kind.endswith("10le")
    planes = [luma, np.stack([blue, red], 2).reshape(len(blue), -1)] if kind == "nv12" else [luma, blue, red]
    stored = [np.round(plane * (4 if deep else 1)).astype("<u2" if deep else np.uint8) for plane in planes]
    for target, values in zip(frame.planes, stored, strict=True):
        line = np.zeros((target.height, target.line_size), np.uint8)
        line[:, : values.shape[1] * values.itemsize] = values.view(np.uint8).reshape(len(values), -1)
        target.update(line.tobytes())
    unit = 4 if deep else 1
    luma, blue, red = (np.round(unit * plane) / unit for plane in (luma, blue, red))
    repeat = [np.repeat(np.repeat(plane, down, 0), right, 1)[:height, :width] - 128 for plane in (blue, red)]
    full = kind.startswith("yuvj")
    y = luma if full else 255 / 219 * (luma - 16)
    gain = 1 if full else 255 / 224
    rgb = np.stack([y + 1.402 * gain * repeat[1], y - gain * (0.344136 * repeat[0] + 0.714136 * repeat[1]),
                    y + 1.772 * gain * repeat[0]], 2)  # fmt: skip
    return frame, rgb.clip(0, 255)


@pytest.mark.parametrize("size", [(48, 64), (48, 65), (48, 53), (47, 64), (47, 53), (90, 181), (48, 321)])
@pytest.mark.parametrize("kind", SHARE)
def test_every_pixel_has_its_color_in_the_last_column_too(kind: str, size: tuple[int, int]) -> None:
    frame, wanted = picture(kind, *size)
    pictures, other = Pictures("h264"), av.VideoFrame(*size[::-1], kind)
    for plane in other.planes:
        plane.update(bytes(plane.buffer_size))
    for _ in range(3):  # what is not written would still be of the frame before
        pictures.upright(other)
    found = pictures.upright(frame)
    assert found.shape == wanted.shape
    off = np.abs(found - wanted).max((0, 2))
    assert off.max() < 0.6, f"columns {np.flatnonzero(off >= 0.6)}"
