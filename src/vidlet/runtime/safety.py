"""What a model file may not do: point to other files, use unknown operators, or make a reader allocate absurdly.

Everything is judged on the bytes, before a runtime sees them. The limits are far above any model of this house.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

import numpy as np

from ..errors import ModelError
from .onnx_parts import DATA_TYPES, Graph, Node, OnnxFile, SparseTensor, Tensor, Value
from .onnx_wire import parse_onnx

MAX_ELEMENTS = 2**28  # of one tensor, stored or made from constants
MAX_DIMS = 64
DOMAINS = ("", "ai.onnx", "com.microsoft")
REFUSED_OPERATORS = ("EPContext",)  # names a compiled file of its own
SMALL_ATTRIBUTES = ("kernel_shape", "strides", "dilations", "pads", "output_shape", "output_padding")
MAX_SMALL = 2**16  # of a number in one of SMALL_ATTRIBUTES

_SAME = ("Identity", "Cast", "DequantizeLinear", "QuantizeLinear", "Neg", "Abs", "Sqrt", "Reciprocal", "Floor", "Ceil")
_SAME_COUNT = ("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose")
_BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Pow", "Where", "Min", "Max", "Mod", "And", "Or", "Equal", "Less", "Greater",
    "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip

Shape = tuple[int, ...]
Constant = tuple[Shape, "np.ndarray | None"]  # shape, and the values where they are few


def check_safe(data: bytes | memoryview, where: str) -> OnnxFile:
    """Read an ONNX file and refuse what could harm its reader; return what it says.

    Raises:
        ModelError: truncated, foreign, external data anywhere, model-local functions, operators of unknown domains,
            shapes that do not fit what is stored, negative or absurdly large ones, constants that would grow beyond
            2^28 elements, or graphs nested too deep. One line that begins with ``where``.
    """
    model = parse_onnx(data, where)
    if model.functions or model.training:
        what = "functions of its own" if model.functions else "training graphs"
        raise ModelError(f"{where}: refused, the file carries {what}")
    _Check(model).graph(model.graph, ChainMap(), ChainMap())
    return model


class _Check:
    """Walks the graphs of one file; every refusal names the file and the tensor or node."""

    def __init__(self, model: OnnxFile) -> None:
        self.model = model

    def refuse(self, why: str) -> NoReturn:
        raise ModelError(f"{self.model.where}: refused, {why}")

    def graph(self, graph: Graph, constants: ChainMap[str, Constant], names: ChainMap[str, None]) -> None:
        """Check one graph; ``constants`` and ``names`` are what the graphs around it have."""
        constants, names = constants.new_child(), names.new_child()
        own: set[str] = set()
        for tensor in graph.initializers:
            if tensor.name in own:
                self.refuse(f"tensor {tensor.name!r} stands twice")
            own.add(tensor.name)
            constants[tensor.name] = self.constant(tensor)
        for sparse in graph.sparse:
            self.sparse(sparse)
            own.add(sparse.values.name if sparse.values else "")
        for value in (*graph.inputs, *graph.outputs, *graph.values):
            self.value(value)
        names.update(dict.fromkeys(own | {value.name for value in graph.inputs}))
        for node in graph.nodes:
            self.node(node, constants, names)
            names.update(dict.fromkeys(node.outputs))

    def constant(self, tensor: Tensor) -> Constant:
        self.tensor(tensor)
        values = self.model.values_of(tensor)
        return tensor.dims, values

    def tensor(self, tensor: Tensor) -> None:
        """What is stored must be here and be exactly what the shape says."""
        label = f"tensor {tensor.name!r}"
        if tensor.external:
            self.refuse(f"{label} points to data outside the file")
        if tensor.data_type not in DATA_TYPES:
            self.refuse(f"{label} has the unknown element type {tensor.data_type}")
        self.shape(tensor.dims, label)
        elements, (_, bits) = tensor.elements, DATA_TYPES[tensor.data_type]
        if tensor.storage == "mixed":
            self.refuse(f"{label} is stored in two ways")
        if tensor.storage == "raw" and bits:
            stored, expected, unit = tensor.stored_bytes, -(-elements * bits // 8), "bytes"
        else:
            stored, expected, unit = tensor.entries, _entries(tensor.data_type, elements), "values"
            kind = _typed_field(tensor.data_type)
            if tensor.storage not in ("", kind):
                self.refuse(f"{label} of {tensor.dtype} is stored as {tensor.storage}")
        if stored != expected:
            self.refuse(f"{label} of shape {list(tensor.dims)} needs {expected} {unit}, {stored} are stored")

    def sparse(self, sparse: SparseTensor) -> None:
        for tensor in (sparse.values, sparse.indices):
            if tensor is None:
                self.refuse("a sparse tensor lacks its values or indices")
            self.tensor(tensor)
        self.shape(sparse.dims, "a sparse tensor")

    def shape(self, dims: Sequence[int], label: str) -> None:
        if len(dims) > MAX_DIMS:
            self.refuse(f"{label} has {len(dims)} dimensions")
        if any(dim < 0 for dim in dims):
            self.refuse(f"{label} has the negative shape {list(dims)}")
        if math.prod(max(dim, 1) for dim in dims) > MAX_ELEMENTS:
            self.refuse(f"{label} of shape {list(dims)} has more than {MAX_ELEMENTS} elements")

    def value(self, value: Value) -> None:
        self.shape([dim for dim in value.dims or () if isinstance(dim, int)], f"{value.name!r}")

    def node(self, node: Node, constants: ChainMap[str, Constant], names: ChainMap[str, None]) -> None:
        label = f"{node.op_type} {node.name!r}"
        if node.domain not in DOMAINS:
            self.refuse(f"{label} is an operator of the unknown domain {node.domain!r}")
        if node.op_type in REFUSED_OPERATORS:
            self.refuse(f"{label} is an operator that reads other files")
        unknown = [name for name in node.inputs if name and name not in names]
        if unknown:
            self.refuse(f"{label} reads {unknown[0]!r}, which nothing before it makes")
        for attribute in node.attributes.values():
            for tensor in attribute.tensors:
                self.tensor(tensor)
            for sparse in attribute.sparse:
                self.sparse(sparse)
            for graph in attribute.graphs:
                self.graph(graph, constants, names)
            if attribute.name in SMALL_ATTRIBUTES and any(abs(number) > MAX_SMALL for number in attribute.ints):
                self.refuse(f"{label} has the absurd {attribute.name} {list(attribute.ints)}")
        try:
            made = self.made(node, constants)
        except (IndexError, ValueError, OverflowError, ZeroDivisionError):
            self.refuse(f"{label} has constant inputs that make no sense")
        if made is not None and node.outputs:
            if math.prod(max(int(dim), 1) for dim in made[0]) > MAX_ELEMENTS:
                self.refuse(f"{label} would make a tensor of more than {MAX_ELEMENTS} elements out of constants")
            constants[node.outputs[0]] = made

    def made(self, node: Node, constants: Mapping[str, Constant]) -> Constant | None:
        """Shape (and few values) of what a node makes out of constants; None where that is not known here."""
        given = [constants.get(name) for name in node.inputs]
        known = [constant for constant in given if constant is not None]
        if node.op_type == "Constant":
            return self.constant_node(node)
        if "shape" in node.attributes and node.op_type.startswith("Random"):
            return node.attributes["shape"].ints, None
        if node.op_type in _PRODUCERS:
            return _grown(node, given)
        if not known or len(known) != len([name for name in node.inputs if name]):
            return None
        shapes = [shape for shape, _ in known]
        if node.op_type in _SAME:
            return known[0]
        if node.op_type in _SAME_COUNT:
            count, values = math.prod(shapes[0]), known[0][1]
            return (count,), values
        if node.op_type in _BROADCAST:
            return _broadcast(shapes), _arithmetic(node.op_type, [values for _, values in known])
        if node.op_type == "MatMul" and min(len(shape) for shape in shapes) > 1:
            return (*shapes[0][:-1], shapes[1][-1]), None
        if node.op_type == "Concat":
            parts = [values for _, values in known]
            total = sum(math.prod(shape) for shape in shapes)
            small = total <= 4096 and all(part is not None for part in parts)
            return (total,), np.concatenate([np.ravel(part) for part in parts if part is not None]) if small else None
        return None

    def constant_node(self, node: Node) -> Constant | None:
        attributes = node.attributes
        if "value" in attributes and attributes["value"].tensors:
            return self.constant(attributes["value"].tensors[0])
        if "value_int" in attributes or "value_float" in attributes:
            attribute = attributes.get("value_int") or attributes["value_float"]
            return (), np.array([attribute.i if attribute.f is None else attribute.f])
        for name in ("value_ints", "value_floats"):
            if name in attributes:
                numbers = attributes[name].ints or attributes[name].floats
                return (len(numbers),), np.array(numbers)
        return None


_PRODUCERS = ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Upsample", "Pad", "OneHot")


def _grown(node: Node, given: list[Constant | None]) -> Constant | None:
    """What an operator that can make much out of little makes; an input that is no constant counts as one element."""
    data: Shape = given[0][0] if given and given[0] is not None else ()
    numbers = [constant[1] if constant is not None else None for constant in given]

    def values(index: int) -> list[float] | None:
        return np.ravel(array).tolist() if index < len(numbers) and (array := numbers[index]) is not None else None

    if node.op_type == "ConstantOfShape":
        shape = values(0)
        return (_dims(shape), None) if shape is not None else None
    if node.op_type == "Range":
        start, limit, delta = values(0), values(1), values(2)
        if start and limit and delta:
            return (max(math.ceil((limit[0] - start[0]) / delta[0]), 0),), None
        return None
    if node.op_type == "OneHot":
        depth = values(1)
        return ((*data, *_dims(depth)), None) if depth else None
    if node.op_type == "Resize":
        scales, sizes = values(2), values(3)
        return _scaled(data, scales, sizes)
    if node.op_type == "Upsample":
        return _scaled(data, values(1), None)
    if node.op_type == "Pad" and "pads" in node.attributes:
        second: list[float] | None = [float(number) for number in node.attributes["pads"].ints]
    else:
        second = values(1)
    if not second:
        return None
    if node.op_type == "Expand":
        return _broadcast([data, _dims(second)]), None
    if node.op_type == "Tile":
        return tuple(a * b for a, b in zip(_like(data, second), _dims(second), strict=True)), None
    half = len(second) // 2  # Pad: all begins, then all ends
    begins, ends = _dims(second[:half]), _dims(second[half:])
    return tuple(
        max(sum(dims), *map(abs, dims[1:])) for dims in zip(_like(data, begins), begins, ends, strict=True)
    ), None


def _scaled(data: Shape, scales: list[float] | None, sizes: list[float] | None) -> Constant | None:
    if sizes:
        return _dims(sizes), None
    if scales:
        return (math.ceil(math.prod(data) * math.prod(max(scale, 0.0) for scale in scales)),), None
    return None


def _dims(values: Iterable[float]) -> Shape:
    return tuple(int(value) for value in values)


def _like(data: Shape, other: Sequence[float]) -> Shape:
    """The shape if its rank fits, else ones."""
    return data if len(data) == len(other) else (1,) * len(other)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(dims) for dims in zip(*padded, strict=True))


def _arithmetic(operator: str, operands: list[np.ndarray | None]) -> np.ndarray | None:
    """Values of a sum, difference or product of few integers (exact, as Python counts)."""
    if operator not in ("Add", "Sub", "Mul") or len(operands) != 2:
        return None
    a, b = operands
    if a is None or b is None or max(a.size, b.size) > 64 or not (a.size in (1, b.size) or b.size == 1):
        return None
    a, b = a.astype(object), b.astype(object)
    return a + b if operator == "Add" else a - b if operator == "Sub" else a * b


def _typed_field(data_type: int) -> str:
    """Name of the typed field in which onnx.proto keeps an element type."""
    named = {1: "float", 14: "float", 7: "int64", 8: "string", 11: "double", 15: "double", 12: "uint64", 13: "uint64"}
    return named.get(data_type, "int32")


def _entries(data_type: int, elements: int) -> int:
    """How many values the typed field of so many elements has: complex ones take two, small ones share one."""
    if data_type in (14, 15):
        return 2 * elements
    bits = DATA_TYPES[data_type][1]
    return -(-elements * bits // 8) if 0 < bits < 8 else elements
