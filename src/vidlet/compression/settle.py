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
from .calibrate import channel_means, clip_feeds, run_along, run_inner
from .int8 import QuantizableGraph, quantize_graph
from .qat import activation_ranges, input_means, learned_ranges

FRAMES = 2  # of a clip
ERRORS = 2.0  # standard errors within which a shift of answers counts as chance
ANSWERED, CHUNK = 16, 8  # clips that the last layers of the head are settled on, and frames of them at once
PRODUCTS = ("Gemm", "MatMul", "Conv", "GRU", "LSTM")
LARGEST = 2**30  # of a bias in codes


def integer_graph(graph: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Return a copy whose convolutions before the features compute in integers, with ranges and biases found on clips.

    Where training has learned ranges, they are taken, and the biases stay, for they were trained with them.
    """
    ranges, means = activation_ranges(graph, clips), input_means(graph, clips)
    quantized = quantize_graph(graph, ranges, means=means)
    return quantized if learned_ranges(graph) is not None else settle(quantized, graph, clips)


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


def settle_answers(quantized: onnx.ModelProto, model: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Return a copy whose last linear layers answer whole clips as they do in float, in the mean over the clips.

    In integers a still picture always changes a little, and some heads read how much it changes: over idle footage that
    is 1.6 times what clips differ by, the same in all of them (docs/lab-notes.md). Linear layers make it a shift of
    their outputs, which their biases take: as much of it as is the same in all clips and not their chance. (A mean m
    with standard error e is shrunk to m (1 - 4 e^2 / m^2), and to 0 within two errors: the form of James and Stein's
    estimate.) Guarantee: biases of last layers change and nothing else; of layers that look at each frame alone none,
    for ``settle`` did that.

    Args:
        quantized: what was made of ``model``; its head is the same.
        clips: training clips, frames uint8 (T, H, W, 3); up to 16 of them are run whole.
    """
    result = copy_model(quantized)
    biases = _last_biases(Graph(model))
    if not biases or len(clips) < 2 or not any(node.op_type == "QuantizeLinear" for node in result.graph.node):
        return result
    some = clips[:: max(1, len(clips) // ANSWERED)][:ANSWERED]
    wanted, found = (_answers(part, some, list(biases)) for part in (model, quantized))
    constants = Graph(result).constants
    for output, bias in biases.items():
        if output not in wanted:
            continue
        shifts = wanted[output] - found[output]
        mean, error = shifts.mean(0), shifts.var(0, ddof=1) / len(shifts)
        shared = np.clip(1 - ERRORS**2 * error / np.maximum(mean**2, np.finfo(np.float32).tiny), 0, 1)
        moved = numpy_helper.to_array(constants[bias]) + shared * mean
        constants[bias].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), bias))
    return result


def _last_biases(graph: Graph) -> dict[str, str]:
    """Output -> bias of the linear layers behind which there is no other product; biases that others read stay."""
    products = [node for node in graph.nodes if node.op_type in PRODUCTS]
    before = {id(node): graph.ancestors(*node.input) for node in products}
    found = {}
    for node in products:
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[2] not in graph.constants:
            continue
        last = not any(node.output[0] in own for own in before.values())
        if last and "features" in before[id(node)] and len(graph.readers[node.input[2]]) == 1:
            found[str(node.output[0])] = str(node.input[2])
    return found


def _answers(model: onnx.ModelProto, clips: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Of tensors that have one row, whatever the frames: their values after each clip's last frame, (clips, K)."""
    ends = set(np.cumsum([-(-len(clip) // CHUNK) for clip in clips]) - 1)
    runs = list(run_along(model, clips, names, CHUNK))
    single = [k for k in range(len(names)) if all(len(values[k]) == 1 for values in runs)]
    return {names[k]: np.concatenate([values[k] for i, values in enumerate(runs) if i in ends]) for k in single}


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
