"""Whether an ONNX file says what it holds: every stored tensor is here, as long as its shape says, every name is made.

Everything is read from the bytes, before a runtime sees them. What the graph would do is judged in ``safety.py``.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Sequence
from typing import NoReturn

from ..errors import ModelError
from .onnx_parts import DATA_TYPES, Graph, Node, OnnxFile, SparseTensor, Tensor, Value
from .onnx_wire import parse_onnx

MAX_ELEMENTS = 2**28  # of one tensor
MAX_DIMS = 64
DOMAINS = ("", "ai.onnx", "com.microsoft")
REFUSED_OPERATORS = ("EPContext",)  # names a compiled file of its own
SMALL_ATTRIBUTES = ("kernel_shape", "strides", "dilations", "pads", "output_shape", "output_padding")
MAX_SMALL = 2**16  # of a number in one of SMALL_ATTRIBUTES


def check_structure(data: bytes | memoryview, where: str) -> OnnxFile:
    """Read an ONNX file and return what it says; its graph is not judged.

    Raises:
        ModelError: truncated, foreign, external data anywhere, model-local functions, operators of unknown domains,
            shapes that do not fit what is stored, negative or absurdly large ones, or graphs nested too deep. One line
            that begins with ``where``.
    """
    model = parse_onnx(data, where)
    if model.functions or model.training:
        what = "functions of its own" if model.functions else "training graphs"
        raise ModelError(f"{where}: refused, the file carries {what}")
    _Check(model).graph(model.graph, ChainMap())
    return model


class _Check:
    """Walks the graphs of one file; every refusal names the file and the tensor or node."""

    def __init__(self, model: OnnxFile) -> None:
        self.model = model

    def refuse(self, why: str) -> NoReturn:
        raise ModelError(f"{self.model.where}: refused, {why}")

    def graph(self, graph: Graph, names: ChainMap[str, None]) -> None:
        """Check one graph; ``names`` are those of the graphs around it."""
        names = names.new_child()
        own: set[str] = set()
        for tensor in graph.initializers:
            if tensor.name in own:
                self.refuse(f"tensor {tensor.name!r} stands twice")
            own.add(tensor.name)
            self.tensor(tensor)
        for sparse in graph.sparse:
            self.sparse(sparse)
            own.add(sparse.values.name if sparse.values else "")
        for value in (*graph.inputs, *graph.outputs, *graph.values):
            self.value(value)
        names.update(dict.fromkeys(own | {value.name for value in graph.inputs}))
        for node in graph.nodes:
            self.node(node, names)
            names.update(dict.fromkeys(node.outputs))

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

    def node(self, node: Node, names: ChainMap[str, None]) -> None:
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
            if attribute.name in SMALL_ATTRIBUTES and any(abs(number) > MAX_SMALL for number in attribute.ints):
                self.refuse(f"{label} has the absurd {attribute.name} {list(attribute.ints)}")
        for body in node.bodies:
            self.graph(body, names)


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
