"""From a decoded frame to an upright RGB picture: rotation, mirroring and the shape of pixels, as the file says."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray


def pixel_aspect(stream: Any, swapped: bool) -> float:
    """Width to height of a pixel as it is shown; 1 where the file says nothing, or nonsense."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    aspect = float(ratio) if ratio else 1.0
    if not 0.1 <= aspect <= 10.0:
        return 1.0
    return 1 / aspect if swapped else aspect


def rotation_of(raw: Any) -> tuple[int, bool]:
    """Clockwise degrees that make a decoded frame upright, and whether its sides swap; from its display matrix."""
    a, b, c, d = _display_matrix(raw)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return (90 if b > 0 else 270), True
    return (180 if d < 0 else 0), False


class Pictures:
    """Makes upright RGB pictures of the decoded frames of one stream."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def upright(self, raw: Any) -> NDArray[np.uint8]:
        """Convert a decoded frame to RGB (its own color space and range) and turn it upright: uint8 (H, W, 3)."""
        # With several threads swscale spoils a row of odd sizes now and then (FFmpeg 8.0).
        rgb = self._reformatter.reformat(raw, format="rgb24", threads=1).to_ndarray()
        a, b, c, d = _display_matrix(raw)
        if abs(b) + abs(c) > abs(a) + abs(d):  # x' = c y, y' = b x
            rgb = rgb.swapaxes(0, 1)
            a, d = c, b
        if a < 0:
            rgb = rgb[:, ::-1]
        if d < 0:
            rgb = rgb[::-1]
        return np.ascontiguousarray(rgb)


def _display_matrix(raw: Any) -> tuple[int, int, int, int]:
    """The linear part (a, b, c, d) of x' = a x + c y, y' = b x + d y; the identity if none is given or it is flat.

    Not by ``raw.side_data``: that refers to the frame and the frame to it, so that its buffers, and the decoder's pool
    with them, stay until Python's garbage collection: megabytes a file or lost connection.
    """
    side = SideDataContainer(raw).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # its stub has no constructor
    if side is None:
        return 1, 0, 0, 1
    matrix = np.frombuffer(bytes(side), np.int32)
    a, b, c, d = int(matrix[0]), int(matrix[1]), int(matrix[3]), int(matrix[4])
    return (a, b, c, d) if a * d - b * c else (1, 0, 0, 1)
