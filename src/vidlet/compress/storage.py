"""Large weights stored in 8 or 16 bits, computed in float32: smaller files for layers without integer kernels.

A weight becomes codes -> Cast -> Mul scale. Runtimes fold this once when they load the file. (DequantizeLinear would be
kept, and computed again at every frame: a GRU of 1280 units took 4.5 ms a frame instead of 2.2.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..export.onnx_graph import names_read

MIN_ELEMENTS = 1024


def quantize_weight(weight: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Round to int8, symmetrically, one scale an index of ``axis``.

    Returns codes (the shape of ``weight``, -127 to 127) and float32 scales (n along ``axis``, 1 elsewhere) with
    ``|weight - codes * scales| <= scales / 2`` (to float32's rounding). Weights that were quantized before, with one
    step for all, keep that step wherever their codes fit, and so stay as they are.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scales = np.maximum(largest / 127, np.finfo(np.float32).tiny)
    if step := lattice_step(weight):
        scales = np.where(largest <= 127.25 * step, np.float32(step), scales)
    codes = np.clip(np.rint(weight.astype(np.float64) / scales), -127, 127).astype(np.int8)
    return codes, scales.astype(np.float32)


def lattice_step(weight: np.ndarray) -> float:
    """The step of which all weights are whole multiples (at most 255), or 0.0 where there is none."""
    values = np.unique(np.append(weight, 0.0))  # a multiple too
    gaps = np.diff(values)
    gaps = gaps[gaps > 1e-5 * np.abs(values).max(initial=0.0)]  # equal up to rounding
    if not len(gaps):
        return 0.0
    multiples = values / gaps.min()
    step = float(gaps.min() * (np.abs(multiples).max() / np.rint(np.abs(multiples).max())))  # less rounding in the gap
    multiples = values / step
    whole = np.abs(multiples).max() <= 255 and np.abs(multiples - np.rint(multiples)).max() < 1e-2
    return step if whole else 0.0


def store_weights_int8(
    model: onnx.ModelProto, skip: Sequence[str] = (), min_elements: int = MIN_ELEMENTS
) -> onnx.ModelProto:
    """Return a copy whose large float32 matrices are int8 codes with one float32 scale an output row.

    For each stored weight w: ``|w - codes * scales| <= scales / 2``, scales being 1/127 of the row's largest entry. A
    row is what makes one output: a gate unit of a GRU or LSTM, a column of a MatMul, a channel of a convolution.

    Args:
        skip: prefixes of the names of initializers to leave alone.
        min_elements: smaller initializers are left alone, and all vectors.
    """
    return _stored(model, skip, min_elements, 2, quantize_weight)


def store_weights_half(
    model: onnx.ModelProto, skip: Sequence[str] = (), min_elements: int = MIN_ELEMENTS
) -> onnx.ModelProto:
    """Return a copy whose large float32 initializers are float16: a relative error of at most 2^-11.

    (Of values between 6.1e-5 and 65504; smaller ones keep an absolute error of 3e-8, and an initializer that has
    larger ones stays float32.)
    """

    def store(array: np.ndarray, axis: int) -> tuple[np.ndarray, None] | None:
        return (array.astype(np.float16), None) if np.abs(array).max() < np.finfo(np.float16).max else None

    return _stored(model, skip, min_elements, 1, store)


Store = Callable[[np.ndarray, int], tuple[np.ndarray, "np.ndarray | None"] | None]


def _stored(model: onnx.ModelProto, skip: Sequence[str], min_elements: int, rank: int, store: Store) -> onnx.ModelProto:
    """Replace each large float32 initializer by its codes, a Cast, and a Mul where there are scales."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    axes = _output_axes(graph)
    nodes: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        name, elements = tensor.name, int(np.prod(tensor.dims))
        if tensor.data_type != onnx.TensorProto.FLOAT or elements < min_elements or len(tensor.dims) < rank:
            continue
        if name.startswith(tuple(skip)) or name not in axes:
            continue
        stored = store(numpy_helper.to_array(tensor), axes[name])
        if stored is None:
            continue
        codes, scales = stored
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(codes, f"{name}.q"))
        cast = name if scales is None else f"{name}.cast"
        nodes.append(helper.make_node("Cast", [f"{name}.q"], [cast], to=onnx.TensorProto.FLOAT))
        if scales is not None:
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scale"))
            nodes.append(helper.make_node("Mul", [cast, f"{name}.scale"], [name]))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(result)
    return result


def _output_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Initializer -> the axis whose indices are the outputs of the node that reads it first."""
    sizes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    axes: dict[str, int] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in sizes:
                axes.setdefault(name, _output_axis(node, position, sizes[name]))
        for name in names_read(node):  # read by the body of a Scan, Loop or If
            if name in sizes:
                axes.setdefault(name, 0)
    return axes


def _output_axis(node: onnx.NodeProto, position: int, rank: int) -> int:
    if node.op_type in ("GRU", "LSTM", "RNN"):
        return 1  # (directions, gates * hidden, inputs)
    if node.op_type == "MatMul":
        return rank - 1 if position == 1 else max(rank - 2, 0)
    if node.op_type == "Gemm":
        transposed = next((a.i for a in node.attribute if a.name == ("transB" if position == 1 else "transA")), 0)
        return 0 if bool(transposed) == (position == 1) else rank - 1
    return 0
