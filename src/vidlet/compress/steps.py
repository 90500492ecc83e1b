"""The compression steps that a recipe may list, each a function of a float32 artifact and calibration clips.

A step's file is named for it: ``int8`` makes ``model.int8.onnx``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ..errors import RecipeError
from ..recipe import nearest
from .calibrate import calibrate
from .int8 import quantize_graph, quantized_tensors, store_weights_half, store_weights_int8

CALIBRATION_FRAMES = 3  # of a clip: its frames look alike, other clips do not

Step = Callable[[onnx.ModelProto, Sequence[np.ndarray]], onnx.ModelProto]


def int8(graph: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Integer convolutions in the extractor (u8 activations, s8 weights per channel), 8-bit storage of the head.

    Args:
        clips: frames uint8 (T, H, W, 3) of training clips; the activations' ranges are those of a few frames of each.
    """
    zero = {
        i.name: np.zeros((1, *(d.dim_value for d in i.type.tensor_type.shape.dim[1:])), np.float32)
        for i in graph.graph.input
        if i.name.startswith("state.")
    }
    feeds = ({"frames": frames[_spread(len(frames), CALIBRATION_FRAMES)], **zero} for frames in clips)
    ranges = calibrate(graph, feeds, quantized_tensors(graph, until="features"))
    return store_weights_int8(quantize_graph(graph, ranges, until="features"))


def half(graph: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """All large weights stored as float16, computed in float32."""
    return store_weights_half(graph)


def _spread(frames: int, most: int) -> np.ndarray:
    """Indices of at most ``most`` frames, evenly over a clip."""
    return np.linspace(0, frames - 1, min(most, frames)).astype(int)


STEPS: dict[str, Step] = {"int8": int8, "half": half}


def find_step(name: str) -> Step:
    """The step of a name.

    Raises:
        RecipeError: unknown, with the nearest valid one.
    """
    if name not in STEPS:
        raise RecipeError(f"compress: unknown step {name!r}{nearest(name, STEPS)}; known: {', '.join(STEPS)}")
    return STEPS[name]
