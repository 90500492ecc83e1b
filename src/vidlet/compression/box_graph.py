"""Integer convolutions for the graph of a detector, alone or with a head on its map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ..artifact.detector import MAP
from ..errors import RecipeError
from ..onnx_graph import Graph, pool_before_rectifying
from ..onnx_graph.columns import join_columns
from .calibrate import calibrate, clip_feeds
from .int8 import QuantizableGraph, Range, quantize_graph, quantized_tensors
from .qat import input_means, layer_names, learned_ranges
from .settle import settle

FRAMES = 3  # of a clip, to find ranges on


def int8_boxes(graph: onnx.ModelProto, pictures: Sequence[np.ndarray], until: str = MAP) -> onnx.ModelProto:
    """Integer convolutions (u8 activations, s8 weights per channel) up to the last, which makes the map in float32.

    Sizes are exponentials of the map's values: in 8 bits it cost tiny-YOLOv2 a third of a point of mAP, in float32 it
    is a few per cent of the bytes. The first convolution reads a frame's bytes as the integers that they are.

    Args:
        pictures: uint8 (H, W, 3) of training images, to find the activations' ranges on where none were learned.
        until: the map's name in the graph.
    """
    learned = learned_ranges(graph)
    graph = pool_before_rectifying(graph)
    kept = float_kernels(graph, until)
    names = quantized_tensors(graph, until, keep=kept)
    frames = [picture[None] for picture in pictures]
    if learned is not None:
        ranges = _by_layer(graph, learned, names, until)
    else:
        ranges = calibrate(graph, clip_feeds(graph, frames), names)
    integer = quantize_graph(graph, ranges, until, keep=kept, means=input_means(graph, frames, until))
    return join_columns(integer if learned is not None else settle(integer, graph, frames, until, kept))


def int8_detections(graph: onnx.ModelProto, amount: float | None, pictures: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The step ``int8`` of a detector's own file: see :func:`int8_boxes`.

    Raises:
        RecipeError: an amount, of which there is none.
    """
    if amount is not None:
        raise RecipeError(f"compress: int8 of a detector has no amount, got {amount:g}")
    return int8_boxes(graph, pictures)


def float_kernels(graph: onnx.ModelProto, until: str) -> list[str]:
    """Weights of the convolution that an integer file computes in float32: the last."""
    found = Graph(graph)
    last = found.makers[until]
    return [str(last.input[1])] if last.op_type == "Conv" and last.input[1] in found.constants else []


def finds_boxes(graph: onnx.ModelProto) -> bool:
    """Whether a graph gives boxes."""
    return any(output.name == "boxes" for output in graph.graph.output)


def int8_detector(graph: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """:func:`int8_boxes` for the detector of a graph with a head; one that is in integers already stays as it is.

    Args:
        clips: frames uint8 (T, H, W, 3) of training clips.
    """
    plan = QuantizableGraph(graph, "features")
    kinds = {node.op_type for node in plan.nodes if node.output[0] in plan.inside}
    if kinds & {"QLinearConv", "ConvInteger", "QuantizeLinear"} or "Conv" not in kinds:
        return graph
    rows = [np.linspace(0, len(clip) - 1, min(FRAMES, len(clip))).astype(int) for clip in clips]
    return int8_boxes(graph, [frame for clip, own in zip(clips, rows, strict=True) for frame in clip[own]], "features")


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
