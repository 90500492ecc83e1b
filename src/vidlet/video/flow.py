"""Dense optical flow between the frames that a model sees, for networks with a stream of motion.

Source: Farneback 2003, "Two-Frame Motion Estimation Based on Polynomial Expansion", as OpenCV computes it with the
numbers below. Flow belongs to the frames after resizing: whoever feeds a model computes it from those.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DependencyError
from ..files import atomic_path, cache_folder
from ..wording import how_to_install

MOST_PIXELS = 8.0  # a frame, of a flow picture: a tenth of the 80 pixels that the papers' frames are wide
FARNEBACK = {
    "pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0
}  # fmt: skip
FLOW_RULE = {
    "rule": "farneback", **FARNEBACK, "of": "gray, 8 bits: .299 R + .587 G + .114 B, at the size of the model's frames",
    "sign": "how far a pixel has come since the frame before, in pixels, x to the right, y down; zero at first",
}  # fmt: skip


def optical_flow(frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None) -> NDArray[np.float32]:
    """How far each pixel has come since the frame before, in pixels: x to the right, y down.

    Frame by frame with the previous one handed on gives the same as a whole clip.

    Args:
        frames: uint8 (T, H, W, 3).
        before: the frame (H, W, 3) before the first; without it the first flow is zero.

    Returns:
        float32 (T, H, W, 2); the pixel p of frame t was at about p - flow[t, p] in frame t - 1.

    Raises:
        DependencyError: OpenCV is not installed.
        DataError: frames of another shape or type.
    """
    cv2 = _opencv()
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise DataError(f"optical flow needs frames uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape}")
    flow = np.zeros((*frames.shape[:3], 2), np.float32)
    previous = None if before is None else cv2.cvtColor(np.ascontiguousarray(before), cv2.COLOR_RGB2GRAY)
    for t, frame in enumerate(frames):
        gray = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        if previous is not None:  # from now back to then, so that each pixel of this frame has its own answer
            flow[t] = -cv2.calcOpticalFlowFarneback(gray, previous, None, **FARNEBACK)
        previous = gray
    return flow


def stored_flow(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``optical_flow`` of a clip, computed once: kept in the cache as float16, to 1/1000 of its length.

    Raises:
        DependencyError, DataError: as ``optical_flow``.
    """
    name = json.dumps([FARNEBACK, frames.shape, _opencv().__version__])
    key = hashlib.sha256(name.encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()
    path = cache_folder("flow") / f"{key}.npy"
    if not path.exists():
        flow = optical_flow(frames).astype(np.float16)
        with atomic_path(path) as draft, draft.open("wb") as sink:
            np.save(sink, flow)
    stored: NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
    return stored


def flow_channels(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flow (T, H, W, 2) as the three channels of a motion stream: x, y and their length, (T, H, W, 3)."""
    return np.concatenate([flow, np.linalg.norm(flow, axis=-1, keepdims=True)], axis=-1)


def flow_pictures(flow: NDArray[np.float32], most: float = MOST_PIXELS) -> NDArray[np.uint8]:
    """Flow (T, H, W, 2) as pictures uint8 (T, H, W, 3) of x, y and length: 128 is none, 127 levels are ``most`` pixels.

    What moves farther is cut; a level is ``most`` / 127 pixels. So a network on frames can be one on flow.
    """
    return np.rint(128 + flow_channels(flow).clip(-most, most) * (127 / most)).astype(np.uint8)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(f"optical flow needs OpenCV: {how_to_install('train')}") from error
    return cv2
