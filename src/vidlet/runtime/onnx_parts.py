"""What an ONNX file is made of: plain frozen objects that point into the file's bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import mul

import numpy as np

# onnx.TensorProto.DataType: name and bits of one element
DATA_TYPES: dict[int, tuple[str, int]] = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    8: ("string", 0),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    14: ("complex64", 64),
    15: ("complex128", 128),
    16: ("bfloat16", 16),
    17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8),
    19: ("float8e5m2", 8),
    20: ("float8e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4e2m1", 4),
    24: ("float8e8m0", 8),
    25: ("uint2", 2),
    26: ("int2", 2),
}

Span = tuple[int, int]  # first byte, byte after the last


@dataclass(frozen=True)
class Tensor:
    """A stored tensor. ``spans`` are the places of its data, ``entries`` how many values a typed field holds."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    storage: str  # "raw", "float", "int32", "string", "int64", "double", "uint64", "mixed" or "" (nothing stored)
    spans: tuple[Span, ...]
    entries: int
    external: bool

    @property
    def dtype(self) -> str:
        """Name of the element type, as NumPy would say it."""
        return DATA_TYPES.get(self.data_type, (f"type {self.data_type}", 0))[0]

    @property
    def elements(self) -> int:
        """Number of elements that the shape says."""
        return reduce(mul, self.dims, 1)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the file that hold the values."""
        return sum(end - start for start, end in self.spans)


@dataclass(frozen=True)
class SparseTensor:
    """Values and their places in a dense shape."""

    values: Tensor | None
    indices: Tensor | None
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A named graph input or output. A dim is a number, a name, or None where the file says nothing."""

    name: str
    data_type: int
    dims: tuple[int | str | None, ...] | None

    @property
    def dtype(self) -> str:
        """Name of the element type, as NumPy would say it; "" for what is no tensor."""
        return DATA_TYPES.get(self.data_type, ("", 0))[0]


@dataclass(frozen=True)
class Attribute:
    """A node's attribute; what it does not have is empty."""

    name: str
    i: int | None = None
    f: float | None = None
    s: bytes = b""
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    sparse: tuple[SparseTensor, ...] = ()
    graphs: tuple[Graph, ...] = ()


@dataclass(frozen=True)
class Node:
    """One operation."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]

    @cached_property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs inside of it."""
        return tuple(graph for attribute in self.attributes.values() for graph in attribute.graphs)

    @cached_property
    def reads(self) -> frozenset[str]:
        """The tensors that it reads, itself or in the graphs inside of it."""
        inner = (name for body in self.bodies for node in body.nodes for name in node.reads)
        given = (value.name for body in self.bodies for value in body.outputs)
        return frozenset(self.inputs).union(inner, given)


@dataclass(frozen=True)
class Graph:
    """Operations in their order, with what they read and give."""

    nodes: tuple[Node, ...]
    initializers: tuple[Tensor, ...]
    sparse: tuple[SparseTensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    values: tuple[Value, ...]

    @cached_property
    def given(self) -> tuple[Value, ...]:
        """The inputs that whoever runs it must give: those that no stored tensor fills."""
        stored = {tensor.name for tensor in self.initializers}
        return tuple(value for value in self.inputs if value.name not in stored)

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    def all_nodes(self) -> Iterator[Node]:
        """Its nodes, each before those of the graphs inside of it."""
        for node in self.nodes:
            yield node
            for body in node.bodies:
                yield from body.all_nodes()

    def ancestors(self, name: str) -> set[str]:
        """A tensor and all that it is made of."""
        found: set[str] = set()
        todo = [name]
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.makers[name].reads if name in self.makers else ()
        return found


@dataclass(frozen=True)
class MetadataEntry:
    """One key and value of the file's metadata_props; ``span`` is the whole field, its tag included."""

    key: str
    value: Span
    span: Span


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says. ``data`` is the whole file; tensors and metadata point into it."""

    data: memoryview
    where: str
    graph: Graph
    metadata: tuple[MetadataEntry, ...]
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    producer: str = ""
    functions: int = 0
    training: int = 0

    def values_of(self, tensor: Tensor, limit: int = 4096) -> np.ndarray | None:
        """The stored numbers as a flat array, or None: not numbers of 8 to 64 bits, not stored here, or too many."""
        return _numbers(self.data, tensor, limit)


def signed(value: int) -> int:
    """The two's complement number of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


_RAW = {"uint8": "u1", "int8": "i1", "uint16": "<u2", "int16": "<i2", "int32": "<i4", "int64": "<i8", "float32": "<f4"}
_RAW |= {"float64": "<f8", "uint32": "<u4", "uint64": "<u8", "bool": "u1", "float16": "<f2"}


def _numbers(data: memoryview, tensor: Tensor, limit: int) -> np.ndarray | None:
    if tensor.external or tensor.dtype not in _RAW or tensor.storage in ("", "mixed", "string"):
        return None
    if tensor.elements > limit or tensor.stored_bytes > 10 * limit:
        return None
    content = b"".join(data[start:end] for start, end in tensor.spans)
    if tensor.storage == "raw":
        kind = np.dtype(_RAW[tensor.dtype])
        return np.frombuffer(content, kind) if len(content) % kind.itemsize == 0 else None
    if tensor.storage in ("float", "double"):
        return np.frombuffer(content, "<f4" if tensor.storage == "float" else "<f8")
    numbers, value, shift = [], 0, 0
    for byte in content:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(signed(value & 0xFFFF_FFFF_FFFF_FFFF))
            value = shift = 0
    if tensor.dtype == "float16":  # float16 stands in int32_data as its bit pattern
        return np.array(numbers, np.int64).astype(np.uint16).view(np.float16)
    return np.array(numbers, np.int64)
