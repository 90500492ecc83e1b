"""A step graph of ONNX as the tensors and operators of a TFLite file; lowered_operators.py has the operators.

Pictures are (1, C, H, W) in ONNX and (1, H, W, C) in TFLite. ``Lowering`` keeps each tensor in the order in which it
was made and turns it only where an operator needs the other one. What a graph stores between a QuantizeLinear and a
DequantizeLinear is stored in the file with the same scale, its codes less 128 (TFLite has int8); convolutions between
the two become integer operators, whose codes are those of ONNX Runtime to the bit. All else is computed in float32, as
in the graph: sums too, for LiteRT's integer sums round otherwise, and one code that differs becomes many in a deep
network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..onnx_graph.graph import Graph
from ..onnx_graph.normal import Operation
from .tflite_file import FileGraph, FileOperator, FileTensor, Quantization

TO_PICTURE, FROM_PICTURE = (0, 2, 3, 1), (0, 3, 1, 2)
_DTYPES = {
    "int64": "int32",
    "float64": "float32",
    "float16": "float32",
}  # what a file has in the place of what a graph has
_GRID_ROW = 8  # numbers of a slice from which on it is looked whether they lie on a grid of 8 bits
_SHIFT = 128  # uint8 codes of a graph less this are the int8 codes of a file

_WITH_OPTIONS = ("ADD", "SUB", "MUL", "DIV")

Codes = tuple[np.ndarray, np.ndarray]  # int8 or int32 codes, and their scales, one or one a slice of the first axis


class Lowering:
    """A step graph, operator by operator, as a ``FileGraph``.

    Args:
        graph: with all sizes fixed.
        tensors: all of its tensors, whose shapes and types are looked at.
        codes: constants that the graph stored as integers: name -> codes and scales.
        lowered: what is done with each operator.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, np.ndarray],
        codes: Mapping[str, Codes],
        lowered: Mapping[str, Callable[[Lowering, Operation], None]],
    ) -> None:
        self.graph, self.codes, self.lowered = graph, codes, lowered
        self.shapes = {name: value.shape for name, value in tensors.items()}
        self.dtypes = {name: str(value.dtype) for name, value in tensors.items()}
        self.file = FileGraph()
        self.plain: dict[str, int] = {}
        self.pictures: dict[str, int] = {}
        self.integers: dict[str, tuple[str, float, int]] = {}  # float tensor -> its codes, scale and zero point
        self.done: set[str] = set()  # results of operators that became part of another
        self.stored: dict[tuple[bytes, str, tuple[int, ...]], int] = {}

    def lower(self, operations: Sequence[Operation]) -> FileGraph:
        """All operators in their order.

        Raises:
            ExportError: an operator, or the way in which it is used, has no counterpart.
        """
        for name in self.graph.inputs:
            index = self.file.add(FileTensor(name, self.shapes[name], self.dtype(name)))
            self.plain[name] = self.file.inputs[name] = index
        self.made = {name: op for op in operations for name in op.outputs}
        self.read = {name: op for op in operations for name in op.inputs}
        for op in operations:
            if op.outputs[0] not in self.done:
                self.lowered[op.kind](self, op)
        for value in self.graph.proto.output:
            self.file.outputs[value.name] = self.result(value.name)
        return self.file

    # What stands where

    def dtype(self, name: str) -> str:
        """The type that a tensor has in the file."""
        found = self.dtypes[name]
        return _DTYPES.get(found, found)

    def is_empty(self, name: str) -> bool:
        """Whether a tensor has no numbers at all (earlier frames of a clip of one)."""
        return 0 in self.shapes[name]

    def is_picture(self, name: str) -> bool:
        """Whether a tensor, or what it is the value of, stands in the order of TFLite's pictures."""
        return name in self.pictures or (name in self.integers and self.is_picture(self.integers[name][0]))

    def tensor(self, name: str, picture: bool = False) -> int:
        """The index of a tensor in one of the two orders; operators that turn or rescale it are added once."""
        places, others = (self.pictures, self.plain) if picture else (self.plain, self.pictures)
        if name in places:
            return places[name]
        if name in self.integers:
            places[name] = self._float_of(name, picture)
        elif name in others:
            places[name] = self.transposed(others[name], TO_PICTURE if picture else FROM_PICTURE)
        elif name in self.graph.constants:
            value = self.constant(name)
            places[name] = self.weights(value.transpose(TO_PICTURE) if picture else value, name)
        else:
            raise AssertionError(f"{name} was not made yet")
        return places[name]

    def result(self, name: str) -> int:
        """An output of the graph: a tensor of its own name in the order of the graph."""
        index = self.tensor(name)
        if index in self.file.inputs.values() or self.file.tensors[index].data is not None:
            index = self.reshaped(index, self.shapes[name])  # an output is never an input itself
        elif index in self.file.outputs.values():
            index = self.reshaped(index, self.shapes[name])
        self.file.tensors[index] = FileTensor(name, self.shapes[name], self.dtype(name))
        return index

    def _float_of(self, name: str, picture: bool) -> int:
        codes, scale, zero = self.integers[name]
        picture_codes = self.is_picture(codes)
        index = self.code_tensor(codes, scale, zero, picture_codes)
        shape = self.file.tensors[index].shape
        found = self.emit("DEQUANTIZE", [index], shape, name=name, options="DequantizeOptions", version=2)
        if picture == picture_codes:
            return found
        (self.pictures if picture_codes else self.plain)[name] = found
        return self.transposed(found, TO_PICTURE if picture else FROM_PICTURE)

    def code_tensor(self, name: str, scale: float, zero: int, picture: bool) -> int:
        """int8 codes of a tensor of uint8 codes; those that come from outside (frames) are shifted by an operator."""
        index = self.tensor(name, picture)
        found = self.file.tensors[index]
        if found.dtype == "int8":
            return index
        key = f"{name}.int8"
        places = self.pictures if picture else self.plain
        if key not in places:
            source = next((i for i in self.file.inputs.values() if i == index), index)
            self.file.tensors[source] = FileTensor(
                found.name, found.shape, found.dtype, found.data, Quantization((scale,), (zero,))
            )
            places[key] = self.emit("QUANTIZE", [index], found.shape, key, "int8", quantization=shifted(scale, zero))
        return places[key]

    # Constants

    def constant(self, name: str) -> np.ndarray:
        """A constant of the graph, in the type that the file has for it."""
        value = self.graph.value(name)
        return value.astype(_DTYPES.get(str(value.dtype), str(value.dtype)))

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def store(self, value: ArrayLike, name: str = "constant", quantization: Quantization | None = None) -> int:
        """The index of a constant; equal ones are stored once."""
        value = np.asarray(value, order="C")
        key = (value.tobytes(), f"{value.dtype}{quantization}", value.shape)
        if key not in self.stored:
            self.stored[key] = self.file.add(FileTensor(name, value.shape, str(value.dtype), value, quantization))
        return self.stored[key]

    def numbers(self, values: Sequence[int]) -> int:
        """A vector of int32."""
        return self.store(np.array(values, np.int32))

    def weights(self, value: np.ndarray, name: str = "weights", axis: int = 0) -> int:
        """A constant in as few bytes as it has without loss: codes of 8 bits, half floats, or as it is."""
        if value.dtype != np.float32 or value.ndim < 2:
            return self.store(value, name)
        found = on_grid(value, axis)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if found is not None:
            codes, scales = found
            small = self.store(codes, f"{name}.codes", Quantization(tuple(scales), (0,) * len(scales), axis))
        elif np.array_equal(value, half):
            small = self.store(half, f"{name}.half")
        else:
            return self.store(value, name)
        version = 5 if found is not None and len(found[1]) > 1 else 3
        key = (b"%d" % small, "float of", value.shape)
        if key not in self.stored:
            self.stored[key] = self.emit(
                "DEQUANTIZE", [small], value.shape, name, options="DequantizeOptions", version=version
            )
        return self.stored[key]

    # Operators

    def emit(
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], name: str = "", dtype: str = "float32",
        options: str = "", fields: Mapping[str, Any] | None = None, version: int = 1,
        quantization: Quantization | None = None,
    ) -> int:  # fmt: skip
        """Add an operator and its result; returns the result's index."""
        name = name or f"{kind.lower()}.{len(self.file.operators)}"
        made = self.file.add(FileTensor(name, tuple(int(size) for size in shape), dtype, None, quantization))
        self.file.operators.append(FileOperator(kind, tuple(inputs), (made,), options, fields or {}, version))
        return made

    def same_type(self, kind: str, index: int, more: Sequence[int], shape: Sequence[int], **rest: Any) -> int:
        """An operator that moves numbers, so that the result has its input's type and scale."""
        found = self.file.tensors[index]
        return self.emit(kind, [index, *more], shape, dtype=found.dtype, quantization=found.quantization, **rest)

    def transposed(self, index: int, order: Sequence[int]) -> int:
        shape = self.file.tensors[index].shape
        wide = [axis for axis in order if shape[axis] != 1]
        turned = [shape[axis] for axis in order]
        if wide == sorted(wide):
            return self.reshaped(index, turned)
        if len(order) > 4:  # axes of one number are left out: not all kernels take five axes
            kept = sorted(wide)
            small = self.reshaped(index, [shape[axis] for axis in kept])
            return self.reshaped(self.transposed(small, [kept.index(axis) for axis in wide]), turned)
        return self.same_type("TRANSPOSE", index, [self.numbers(order)], turned, options="TransposeOptions")

    def reshaped(self, index: int, shape: Sequence[int]) -> int:
        return self.same_type("RESHAPE", index, [self.numbers(shape)], shape, options="ReshapeOptions")

    def combined(self, kind: str, a: int, b: int, dtype: str = "", **rest: Any) -> int:
        """An operator on two tensors, number by number."""
        found = [self.file.tensors[i] for i in (a, b)]
        shape = np.broadcast_shapes(found[0].shape, found[1].shape)
        options = f"{kind.title().replace('_', '')}Options" if kind in _WITH_OPTIONS else ""
        return self.emit(kind, [a, b], shape, dtype=dtype or found[0].dtype, options=options, **rest)

    def changed(self, kind: str, index: int) -> int:
        """An operator on one tensor, number by number."""
        found = self.file.tensors[index]
        return self.emit(kind, [index], found.shape, dtype=found.dtype)

    def product(self, a: int, weights: np.ndarray, bias: np.ndarray | None, name: str = "weights") -> int:
        """(rows, I) times weights (O, I) plus bias (O,)."""
        inputs = [a, self.weights(np.ascontiguousarray(weights), name)]
        if bias is not None:
            inputs.append(self.store(bias.astype(np.float32)))
        shape = (self.file.tensors[a].shape[0], len(weights))
        return self.emit("FULLY_CONNECTED", inputs, shape, options="FullyConnectedOptions")

    def sliced(self, index: int, axis: int, first: int, end: int) -> int:
        shape = list(self.file.tensors[index].shape)
        begin, size = [0] * len(shape), [*shape]
        begin[axis], size[axis] = first, end - first
        return self.same_type("SLICE", index, [self.numbers(begin), self.numbers(size)], size, options="SliceOptions")

    def shape_of(self, index: int) -> tuple[int, ...]:
        """The shape of a tensor of the file."""
        return self.file.tensors[index].shape

    def keep(self, op: Operation, index: int, picture: bool = False) -> None:
        """The result of an operator, in one of the two orders."""
        (self.pictures if picture else self.plain)[op.outputs[0]] = index

    def padded(self, index: int, pairs: np.ndarray, value: float = 0.0) -> int:
        """A tensor with ``pairs`` (axes, 2) of numbers before and behind; of integers the number 0."""
        shape = [size + int(sum(pair)) for size, pair in zip(self.shape_of(index), pairs, strict=True)]
        more = [self.store(np.ascontiguousarray(pairs, np.int32))]
        if value:
            more.append(self.store(np.float32(value)))
        kind = "PADV2" if value else "PAD"
        return self.same_type(kind, index, more, shape, options="PadV2Options" if value else "PadOptions")

    def reduced(self, kind: str, index: int, axes: Sequence[int], keep: bool) -> int:
        """Many numbers to one along some axes."""
        found = self.file.tensors[index]
        shape = [1 if i in axes else size for i, size in enumerate(found.shape) if keep or i not in axes]
        inputs = [index, self.numbers(sorted(axes))]
        return self.emit(kind, inputs, shape, dtype=found.dtype, options="ReducerOptions", fields={"keepDims": keep})


def shifted(scale: float, zero: int) -> Quantization:
    """The scale of int8 codes that stand for uint8 codes of this zero point."""
    return Quantization((scale,), (zero - _SHIFT,))


def on_grid(value: np.ndarray, axis: int) -> tuple[np.ndarray, list[float]] | None:
    """int8 codes, and a scale a slice along ``axis``, that give a constant without loss. None: there are none.

    A slice lies on such a grid if, its largest number being code 1 to 127, all others are whole too, to a thousandth.
    Of slices of few numbers that says nothing.
    """
    rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).astype(np.float64)
    if rows.shape[1] < _GRID_ROW:
        return None
    scales = []
    for row in rows:
        largest = np.abs(row).max()
        told = row / (largest / np.arange(1, 128)[:, None]) if largest else np.zeros((1, len(row)))
        fits = np.flatnonzero(np.abs(told - np.rint(told)).max(axis=1) < 1e-3)
        if not len(fits):
            return None
        scales.append(float(largest / (1 + fits[0])) if largest else 1.0)
    shape = [1] * value.ndim
    shape[axis] = -1
    return np.rint(value / np.reshape(scales, shape)).astype(np.int8), scales
