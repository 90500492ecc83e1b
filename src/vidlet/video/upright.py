"""From a decoded frame to an upright RGB picture: rotation, mirroring, shape of pixels and colors, as the file says.

Where it does not say by which matrix its colors were made, they are read as players and browsers read them: by BT.709
in high definition, else by BT.601. What cameras give without a codec is BT.601 at every size (USB video class).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

UNSAID = 2  # of matrices and curves, in H.273
HIGH_DEFINITION = (1280, 577)  # at least so wide, or so high
HDR = {16: "PQ", 18: "HLG"}  # curves of brightness, in H.273

EXACT = 16 | 262144 | 8192  # swscale's POINT, ACCURATE_RND, FULL_CHR_H_INT; PyAV 17 has no names of the last two
COLORS = "the matrix, rounded; colors repeated; BT.709 of HD that names no matrix"
"""How colors are made of what is decoded; stored features belong to it."""


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


def assumed_matrix(raw: Any, codec: str) -> Colorspace | None:
    """BT.709 for a decoded frame that is of high definition and names no matrix; None: its own, or BT.601."""
    wide, high = HIGH_DEFINITION
    said = raw.colorspace != UNSAID or raw.format.is_rgb or codec == "rawvideo"
    return None if said or (raw.width < wide and raw.height < high) else Colorspace.ITU709


def picture_notes(raw: Any) -> tuple[str, ...]:
    """Sentences on pictures that are read as they are, and look otherwise than those of most videos."""
    notes = []
    if curve := HDR.get(raw.color_trc):
        notes.append(
            f"its pictures are HDR ({curve}) and are read without tone mapping: paler than those of other videos"
        )
    if raw.interlaced_frame:
        notes.append("its pictures are interlaced: both fields are read as one, and what moves has combs")
    return tuple(notes)


def without_siting(raw: Any) -> Any:
    """A copy of a frame whose colors have fewer samples than its luma, of full blocks, without the place of samples.

    Else the nearest sample of a pixel would be that of its neighbor, where samples lie on the left one of two pixels.
    """
    form = raw.format
    if form.chroma_width(4) == form.chroma_height(4) == 4 or any(plane.line_size <= 0 for plane in raw.planes):
        return raw
    plain = VideoFrame(-(-raw.width // 4) * 4, -(-raw.height // 4) * 4, form.name)
    plain.colorspace, plain.color_range = raw.colorspace, raw.color_range
    for target, source in zip(plain.planes, raw.planes, strict=True):
        given = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)[: source.height]
        taken = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        wide = min(source.line_size, target.line_size)
        taken[: len(given), :wide] = given[:, :wide]
    return plain


class Pictures:
    """Makes upright RGB pictures of the decoded frames of one stream of a codec."""

    def __init__(self, codec: str) -> None:
        self._codec, self._reformatter = codec, VideoReformatter()

    def upright(self, raw: Any) -> NDArray[np.uint8]:
        """Convert a decoded frame to RGB (its own color space and range) and turn it upright: uint8 (H, W, 3).

        What the matrix gives, rounded; each color sample is that of all pixels that share it. swscale's quick way is
        another program on each processor: up to 3 of 255 levels off, 1.1 too dark in the mean, and the last column of
        odd widths is not written on ARM (FFmpeg 8.0).
        """
        # With several threads swscale spoils a row of odd sizes now and then (FFmpeg 8.0).
        matrix = assumed_matrix(raw, self._codec)
        rgb = self._reformatter.reformat(
            without_siting(raw), format="rgb24", src_colorspace=matrix, interpolation=EXACT, threads=1
        ).to_ndarray()[: raw.height, : raw.width]
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
