"""Compression steps on a detector's exported graph, as recipes name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ..errors import RecipeError
from ..export.detector import MAP
from ..recipe import nearest
from .calibrate import calibrate
from .int8 import quantize_graph, quantized_tensors

BoxStep = Callable[[onnx.ModelProto, Sequence[np.ndarray]], onnx.ModelProto]


def int8_boxes(graph: onnx.ModelProto, pictures: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Integer convolutions up to the map (u8 activations, s8 weights per channel); boxes and suppression stay float32.

    Args:
        pictures: uint8 (H, W, 3) of training images, to find the activations' ranges on.
    """
    names = quantized_tensors(graph, MAP)
    ranges = calibrate(graph, ({"frames": picture[None]} for picture in pictures), names)
    return quantize_graph(graph, ranges, MAP)


BOX_STEPS: dict[str, BoxStep] = {"int8": int8_boxes}


def find_box_step(name: str) -> BoxStep:
    """The step of a name.

    Raises:
        RecipeError: no such step for detectors.
    """
    if name not in BOX_STEPS:
        known = ", ".join(BOX_STEPS)
        raise RecipeError(f"compress: detectors have the steps {known}, got {name!r}{nearest(name, BOX_STEPS)}")
    return BOX_STEPS[name]
