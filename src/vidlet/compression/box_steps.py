"""The compression steps of detectors, as recipes name them, and how a chain of them makes a graph.

Network steps train the detector on; graph steps change the graph that it is exported to. A chain is written as for
classifiers (chain.py): "int8", "qat+int8", "deepeye:20".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ..artifact.detector import MAP, detector_graph
from ..errors import RecipeError
from .box_graph import int8_boxes
from .box_material import BoxMaterial, TrainedBoxes
from .box_qat import deepeye_boxes, qat_boxes
from .chain import Chain, parse_chain
from .deepeye_graph import replace_network
from .ranges import attach_ranges, drop_ranges
from .storage import store_weights_half

BoxNetworkStep = Callable[[TrainedBoxes, "float | None", BoxMaterial], TrainedBoxes]
BoxGraphStep = Callable[[onnx.ModelProto, "float | None", Sequence[np.ndarray]], onnx.ModelProto]


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
