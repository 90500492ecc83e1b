"""Large weights stored in 8 or 16 bits, computed in float32: smaller files for layers without integer kernels.

A weight becomes codes -> Cast -> Mul scale. Runtimes fold this once when they load the file. (DequantizeLinear would be
kept, and computed again at every frame: a GRU of 1280 units took 4.5 ms a frame instead of 2.2.)

Storage comes in layers: whatever takes an initializer's place is made of initializers again, which another layer may
store in fewer bytes (blocks.py, :func:`store_sparse`). All go through :func:`replace_initializers`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..onnx_graph import Graph, attribute, names_read

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


class Stored:
    """What stands for one initializer in the file: smaller ones, and the nodes that make it of them at load.

    Args:
        name: of the initializer; its parts are named for it, with what they are behind a dot.
        taken: how many nodes the graph has before these, so that the tensors between them get names of their own.
    """

    def __init__(self, name: str, taken: int) -> None:
        self.name, self.taken = name, taken
        self.nodes: list[onnx.NodeProto] = []
        self.own: list[onnx.TensorProto] = []
        self.shared: list[onnx.TensorProto] = []

    def keep(self, suffix: str, values: np.ndarray) -> str:
        """Store a part of the tensor; returns its name."""
        self.own.append(numpy_helper.from_array(np.ascontiguousarray(values), f"{self.name}.{suffix}"))
        return str(self.own[-1].name)

    def share(self, values: np.ndarray | np.generic) -> str:
        """Store a small constant, once for all tensors that need it; returns its name."""
        values = np.asarray(values)
        content = f"{values.dtype.str} {values.shape} ".encode() + values.tobytes()
        name = f"{_PREFIX}{hashlib.sha256(content).hexdigest()[:10]}"
        self.shared.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        """Add a node; returns the name of what it makes, which is the initializer's own if it is the last."""
        made = self.name if last else f"{_PREFIX}{self.taken + len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [made], **attributes))
        return made

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes in the file, but for shared constants."""
        return sum(item.ByteSize() + 3 for items in (self.own, self.nodes) for item in items)


Write = Callable[[Stored, onnx.TensorProto], "Stored | None"]
_PREFIX = "stored."


def replace_initializers(model: onnx.ModelProto, write: Write) -> onnx.ModelProto:
    """Return a copy in which initializers are stored as ``write(stored, tensor)`` says; None: as they are."""
    graph = Graph.copy_of(model)
    nodes: list[onnx.NodeProto] = []
    kept: list[onnx.TensorProto] = []
    shared: dict[str, onnx.TensorProto] = {}
    for tensor in graph.proto.initializer:
        stored = write(Stored(tensor.name, len(graph.nodes) + len(nodes)), tensor)
        if stored is None:
            kept.append(tensor)
            continue
        nodes += stored.nodes
        kept += stored.own
        shared |= {constant.name: constant for constant in stored.shared}
    names = {tensor.name for tensor in kept}
    kept += [constant for name, constant in shared.items() if name not in names]
    graph.insert(0, nodes)
    graph.set_initializers(kept)
    onnx.checker.check_model(graph.model)
    return graph.model


def store_weights_int8(
    model: onnx.ModelProto, skip: Sequence[str] = (), min_elements: int = MIN_ELEMENTS
) -> onnx.ModelProto:
    """Return a copy whose large float32 matrices are int8 codes with one float32 scale an output row.

    For each stored weight w: ``|w - codes * scales| <= scales / 2``, scales being 1/127 of the row's largest entry. A
    row is what makes one output: a gate unit of a GRU or LSTM, a column of a MatMul, a channel of a convolution.

    Args:
        skip: names of initializers to leave alone, or what stands before a dot in them.
        min_elements: smaller initializers are left alone, and all vectors.
    """
    axes = large_weights(model, 2, skip, min_elements)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.name not in axes:
            return None
        return write_int8(stored, numpy_helper.to_array(tensor), axes[tensor.name])

    return replace_initializers(model, write)


def write_int8(stored: Stored, weight: np.ndarray, axis: int) -> Stored:
    """A float32 weight as int8 codes with a scale an index of ``axis``."""
    codes, scales = quantize_weight(weight, axis)
    cast = stored.node("Cast", stored.keep("q", codes), to=onnx.TensorProto.FLOAT)
    stored.node("Mul", cast, stored.keep("scale", scales), last=True)
    return stored


def store_weights_half(model: onnx.ModelProto, skip: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy whose large float32 initializers are float16: a relative error of at most 2^-11.

    (Of values between 6.1e-5 and 65504; smaller ones keep an absolute error of 3e-8, and an initializer that has
    larger ones stays float32.)
    """
    names = large_weights(model, 1, skip)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        values = numpy_helper.to_array(tensor) if tensor.name in names else np.array(np.inf)
        if not np.abs(values).max() < np.finfo(np.float16).max:
            return None
        stored.node("Cast", stored.keep("q", values.astype(np.float16)), last=True, to=onnx.TensorProto.FLOAT)
        return stored

    return replace_initializers(model, write)


def large_weights(
    model: onnx.ModelProto, rank: int, skip: Sequence[str] = (), min_elements: int = MIN_ELEMENTS
) -> Mapping[str, int]:
    """The float32 initializers of at least ``rank`` dimensions that are large: name -> axis of the outputs."""
    axes = _output_axes(model.graph)
    return {
        tensor.name: axes[tensor.name]
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) >= rank
        and int(np.prod(tensor.dims)) >= min_elements
        and tensor.name in axes
        and not any(tensor.name == name or tensor.name.startswith(f"{name}.") for name in skip)
    }


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
        transposed = attribute(node, "transB" if position == 1 else "transA", 0)
        return 0 if bool(transposed) == (position == 1) else rank - 1
    return 0


# Tensors with many zeros stored as their other values and where these stand, in whatever type they have.
#
# Two forms, of which the smaller is taken: a bit mask (n / 8 bytes and the values) and, where fewer than about one in
# eight is left, the gaps between the values in a byte each (the idea of Han et al. 2016, arXiv:1510.00149, with bytes).
# Both are expanded once, when the runtime loads the file; what it computes is dense.
FAR = 255  # the largest gap; what lies further has zeros stored on the way
TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
MIN_BYTES = 256  # of a tensor: smaller ones cannot repay the nodes


def store_sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose tensors with many zeros take fewer bytes: exactly the same values (-0 is 0).

    Each is stored as a bit mask or as gaps with its nonzero values, in the type that it has, where the file becomes
    smaller by it (nodes and names count), else as it is. Stands behind steps that round, which leave zeros zero.
    """

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.data_type not in TYPES or tensor.ByteSize() < MIN_BYTES:
            return None
        values = numpy_helper.to_array(tensor)
        flat = values.reshape(-1)
        forms = [
            write_mask(Stored(stored.name, stored.taken), flat, values.shape),
            write_gaps(Stored(stored.name, stored.taken), flat, values.shape),
        ]
        smallest = min(forms, key=lambda form: form.size_bytes)
        return smallest if smallest.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def write_mask(stored: Stored, values: np.ndarray, shape: tuple[int, ...]) -> Stored:
    """A flat array as one bit a value and the nonzero values behind one zero.

    At load: bits -> running count, 0 where the bit is -> the value of that number.
    """
    present = values != 0
    mask = np.packbits(present, bitorder="little").reshape(-1, 1)
    table = np.concatenate([np.zeros(1, values.dtype), values[present]])
    shifted = stored.node(
        "BitShift", stored.keep("mask", mask), stored.share(np.arange(8, dtype=np.uint8)), direction="RIGHT"
    )
    bits = stored.node("BitwiseAnd", shifted, stored.share(np.uint8(1)))  # (n / 8, 8)
    ones = stored.node("Cast", bits, to=onnx.TensorProto.INT32)
    flat = stored.node("Reshape", ones, stored.share(np.array([-1], np.int64)))
    if values.size % 8:
        ends = [stored.share(np.array([end], np.int64)) for end in (0, values.size)]
        flat = stored.node("Slice", flat, *ends)
    number = stored.node("CumSum", flat, stored.share(np.int64(0)))
    index = stored.node("Mul", number, flat)
    dense = stored.node("Gather", stored.keep("nonzero", table), index)
    stored.node("Reshape", dense, stored.share(np.array(shape, np.int64)), last=True)
    return stored


def write_gaps(stored: Stored, values: np.ndarray, shape: tuple[int, ...]) -> Stored:
    """A flat array as its nonzero values with their distances to the ones before, a byte each."""
    places = _places(values)
    gaps = np.diff(places, prepend=0).astype(np.uint8)
    distances = stored.node("Cast", stored.keep("gaps", gaps), to=onnx.TensorProto.INT32)
    index = stored.node("CumSum", distances, stored.share(np.int64(0)))
    length = stored.share(np.array([values.size], np.int64))
    zero = numpy_helper.from_array(np.zeros(1, values.dtype))
    zeros = stored.node("ConstantOfShape", length, value=zero)
    dense = stored.node("ScatterElements", zeros, index, stored.keep("nonzero", values[places]))
    stored.node("Reshape", dense, stored.share(np.array(shape, np.int64)), last=True)
    return stored


def _places(values: np.ndarray) -> np.ndarray:
    """Indices of the nonzero values, with indices of zeros between those that are too far apart."""
    places = np.flatnonzero(values)
    steps = np.diff(places, prepend=0)
    extra = np.maximum(steps - 1, 0) // FAR  # stops before each
    stops = [
        place - step + FAR * np.arange(1, more + 1) for place, step, more in zip(places, steps, extra, strict=True)
    ]
    return np.sort(np.concatenate([places, *stops])).astype(np.int64)
