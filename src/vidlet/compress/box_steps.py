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
    """Integer convolutions (u8 activations, s8 weights per channel) up to the last, which makes the map in float32.

    Sizes are exponentials of the map's values: in 8 bits it cost tiny-YOLOv2 a third of a point of mAP, in float32 it
    is a few per cent of the bytes.

    Args:
        pictures: uint8 (H, W, 3) of training images, to find the activations' ranges on.
    """
    last = [node.input[1] for node in graph.graph.node if MAP in node.output]
    names = quantized_tensors(graph, MAP, keep=last)
    ranges = calibrate(graph, ({"frames": picture[None]} for picture in pictures), names)
    return quantize_graph(graph, ranges, MAP, keep=last)


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
