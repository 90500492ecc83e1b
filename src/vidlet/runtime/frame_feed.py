"""Decoded frames in the form in which a model takes them."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from ..video.flow import optical_flow


class FrameFeed:
    """Turns frames, in their order, into what ``Model.run`` takes: with the optical flow, where a model sees that too.

    Flow is that of ``video.flow.optical_flow`` since the frame before, in whichever call that came; of the first frame
    it is zero.

    Args:
        inputs: names of the model's inputs.

    Raises:
        DependencyError: when called, of a model that sees flow, and OpenCV is not installed.
    """

    def __init__(self, inputs: Container[str]) -> None:
        self._flow = "flow" in inputs
        self._before: NDArray[np.uint8] | None = None

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8] | dict[str, NDArray]:
        """The next frames (T, H, W, 3)."""
        if not self._flow:
            return frames
        flow = optical_flow(frames, self._before)
        self._before = frames[-1].copy()
        return {"frames": frames, "flow": flow}
