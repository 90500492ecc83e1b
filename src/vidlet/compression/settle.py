"""Biases that take what an integer network shifts its layers by: the means of real frames stay as they were in float.

Rounding activations shifts means where pictures are alike: what is flat in all of them is rounded in one direction in
all of them. On frames of mouths that shift was half of what the features vary by, three quarters of the error of
integers (docs/lab-notes.md). It is measured layer by layer, each behind the layers that are settled already, and taken
into the integer biases (Nagel et al. 2019, arXiv:1906.04721, "empirical bias correction").
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from ..onnx_graph import Graph, copy_model, with_outputs
from .calibrate import channel_means, clip_feeds, run_inner
from .int8 import QuantizableGraph, quantize_graph
from .ranges import activation_ranges, input_means, learned_ranges

__all__ = ["integer_graph", "settle"]

FRAMES = 2  # of a clip
LARGEST = 2**30  # of a bias in codes


def integer_graph(
    graph: onnx.ModelProto, clips: Sequence[np.ndarray], until: str = "features", keep: Container[str] = ()
) -> onnx.ModelProto:
    """Return a copy whose convolutions before ``until`` compute in integers, with ranges and biases found on clips.

    Where training has learned ranges, they are taken, and the biases stay, for they were trained with them.
    """
    ranges, means = activation_ranges(graph, clips, until), input_means(graph, clips, until)
    quantized = quantize_graph(graph, ranges, until, keep, means=means)
    return quantized if learned_ranges(graph) is not None else settle(quantized, graph, clips, until, keep)


def settle(
    quantized: onnx.ModelProto,
    model: onnx.ModelProto,
    clips: Sequence[np.ndarray],
    until: str = "features",
    keep: Container[str] = (),
) -> onnx.ModelProto:
    """Return a copy whose layers before ``until`` have about the means that they have in float, on frames of the clips.

    Settled are the convolutions that no activation bounds, and the last; the means are those of their rounded outputs.
    Guarantee: integer biases change and nothing else, so neither bytes nor time do.

    Args:
        quantized: what :func:`~vidlet.compression.int8.quantize_graph` made of ``model``.
        clips: frames uint8 (T, H, W, 3) of training clips.
        keep: as there.
    """
    result = copy_model(quantized)
    names = _settled(QuantizableGraph(model, until, keep))
    if not names:
        return result
    wanted = _means(model, clips, names)
    for name in names:
        _shift_bias_(result, name, wanted[name] - _means(result, clips, [name])[name])
    return result


def _settled(graph: QuantizableGraph) -> list[str]:
    """Outputs of the integer convolutions that are settled, in the order in which they are computed."""
    convs = [node for node in graph.nodes if node.op_type == "Conv" and graph.integer(node)]
    return [
        graph.fused_output(conv)
        for conv in convs
        if len(conv.output) == 1 and (graph.fused_output(conv) == conv.output[0] or conv is convs[-1])
    ]


def _means(model: onnx.ModelProto, clips: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean of each channel (C,) of tensors; nothing else of the graph is computed."""
    part = Graph(with_outputs(model, names))
    part.prune()
    return channel_means(names, run_inner(part.model, clip_feeds(model, clips, FRAMES), names))


def _shift_bias_(quantized: onnx.ModelProto, name: str, shift: np.ndarray) -> None:
    """Add to the bias of the convolution whose quantized output is ``name``; one without a bias stays as it is."""
    graph = Graph(quantized)
    conv = graph.makers.get(f"{name}.raw")
    if conv is None or conv.op_type != "Conv" or len(conv.input) < 3:
        return
    codes, scales = graph.makers[conv.input[2]].input[:2]
    if len(graph.readers[codes]) > 1:
        return
    moved = graph.value(codes) + np.rint(shift / graph.value(scales).astype(np.float64))
    stored = graph.constants[codes]
    stored.CopyFrom(numpy_helper.from_array(moved.clip(-LARGEST, LARGEST).astype(np.int32), codes))
