"""The compression steps of detectors, as recipes name them, and how a chain of them makes a graph.

Network steps train the detector on; graph steps change the graph that it is exported to. A chain is written as for
classifiers (chain.py): "int8", "qat+int8", "deepeye:20".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from ..errors import RecipeError
from ..export.detector import MAP, detector_graph
from .box_material import BoxMaterial, TrainedBoxes
from .box_qat import deepeye_boxes, qat_boxes
from .calibrate import calibrate
from .chain import Chain, parse_chain
from .deepeye_graph import replace_network
from .int8 import Range, quantize_graph, quantized_tensors
from .qat import layer_names
from .ranges import attach_ranges, drop_ranges, learned_ranges
from .reorder import pool_before_rectifying
from .storage import store_weights_half

BoxNetworkStep = Callable[[TrainedBoxes, "float | None", BoxMaterial], TrainedBoxes]
BoxGraphStep = Callable[[onnx.ModelProto, "float | None", Sequence[np.ndarray]], onnx.ModelProto]


def int8_boxes(graph: onnx.ModelProto, pictures: Sequence[np.ndarray], until: str = MAP) -> onnx.ModelProto:
    """Integer convolutions (u8 activations, s8 weights per channel) up to the last, which makes the map in float32.

    Sizes are exponentials of the map's values: in 8 bits it cost tiny-YOLOv2 a third of a point of mAP, in float32 it
    is a few per cent of the bytes. A frame's bytes are the first convolution's integers.

    Args:
        pictures: uint8 (H, W, 3) of training images, to find the activations' ranges on where none were learned.
        until: the map's name in the graph.
    """
    learned = learned_ranges(graph)
    graph = pool_before_rectifying(graph)
    last = [node.input[1] for node in graph.graph.node if until in node.output]
    names = quantized_tensors(graph, until, keep=last)
    if learned is not None:
        ranges = _by_layer(graph, learned, names, until)
    else:
        ranges = calibrate(graph, ({"frames": picture[None]} for picture in pictures), names)
    return quantize_graph(graph, ranges, until, keep=last)


def half_boxes(graph: onnx.ModelProto, amount: float | None, pictures: Sequence[np.ndarray]) -> onnx.ModelProto:
    """All large weights stored as float16, computed in float32."""
    return store_weights_half(graph)


def _int8(graph: onnx.ModelProto, amount: float | None, pictures: Sequence[np.ndarray]) -> onnx.ModelProto:
    if amount is not None:
        raise RecipeError(f"compress: int8 of a detector has no amount, got {amount:g}")
    return int8_boxes(graph, pictures)


BOX_NETWORK_STEPS: dict[str, BoxNetworkStep] = {"deepeye": deepeye_boxes, "qat": qat_boxes}
BOX_GRAPH_STEPS: dict[str, BoxGraphStep] = {"int8": _int8, "half": half_boxes}


def find_box_chain(text: str, network: str) -> Chain:
    """The steps of a chain for a detector whose recipe's ``extractor.name`` is ``network``.

    Raises:
        RecipeError: an unknown step, a wrong order, or a step that the network cannot have.
    """
    chain = parse_chain(text, BOX_NETWORK_STEPS, BOX_GRAPH_STEPS)
    names = [step.name for step in chain]
    if "deepeye" in names and network != "tiny-yolov2":
        raise RecipeError(
            f"compress: {text!r}: deepeye takes a chain of convolutions (tiny-yolov2), {network} is none; qat+int8 is "
            "the standard form"
        )
    if "deepeye" in names and {"qat", "int8"} & set(names):
        raise RecipeError(f"compress: {text!r}: deepeye computes in 8 bits by itself; qat and int8 are other chains")
    return chain


def shrink_detector(chain: Chain, trained: TrainedBoxes, material: BoxMaterial) -> TrainedBoxes:
    """Apply the network steps of a chain."""
    for step in chain:
        if step.name in BOX_NETWORK_STEPS:
            trained = BOX_NETWORK_STEPS[step.name](trained, step.amount, material)
    return trained


def boxes_graph(chain: Chain, trained: TrainedBoxes, pictures: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The graph of a detector behind the graph steps of a chain."""
    graph = detector_graph(trained.detector)
    if trained.integers is not None:
        graph = replace_network(graph, trained.integers, MAP)
    graph = attach_ranges(graph, trained.ranges)
    for step in chain:
        if step.name in BOX_GRAPH_STEPS:
            graph = BOX_GRAPH_STEPS[step.name](graph, step.amount, pictures)
    return drop_ranges(graph)


def _by_layer(
    graph: onnx.ModelProto, learned: Mapping[str, Range], names: Sequence[str], until: str
) -> dict[str, Range]:
    """Ranges by layer under the names of a graph's tensors; a layer may lie deeper in it than where it was trained."""
    layers = layer_names(graph, until)
    found = {}
    for tensor in names:
        layer = next((layer for layer in learned if f".{layers[tensor]}".endswith(f".{layer}")), None)
        assert layer is not None, f"no range was trained for {layers[tensor]}"
        found[tensor] = learned[layer]
    return found
