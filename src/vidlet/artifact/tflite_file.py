"""TFLite files, written: tensors, operators and named inputs and outputs as the FlatBuffer that LiteRT reads.

Format: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
(models/tflite.py reads such files.)
"""

from __future__ import annotations

import importlib
import io
import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np

from ..errors import DependencyError
from ..progress import without_remarks
from ..wording import how_to_install

SIGNATURE = "serving_default"
_ALIGNED = 16  # bytes, of every buffer


@dataclass(frozen=True)
class Quantization:
    """value = scale * (code - zero point); several scales are those of the slices along ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a file; ``data`` is None where it is computed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class FileOperator:
    """An operator: its builtin name, tensors by index (-1: absent), its options' table and fields."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


@dataclass
class FileGraph:
    """What is written: tensors and operators in order, and tensors by the names of inputs and outputs."""

    tensors: list[FileTensor] = field(default_factory=list)
    operators: list[FileOperator] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)

    def add(self, tensor: FileTensor) -> int:
        """Its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1


class _Aligned(flatbuffers.Builder):
    """A builder whose vectors of bytes begin at multiples of 16, as the format demands of what is stored."""

    def StartVector(self, size: int, count: int, alignment: int) -> int:
        return int(super().StartVector(size, count, _ALIGNED if size == 1 else alignment))


def tflite_bytes(graph: FileGraph, description: str, files: Mapping[str, bytes]) -> bytes:
    """A file of one subgraph with one signature; the same arguments give the same bytes.

    ``files`` are appended as a zip archive, as TFLite's own metadata are: whatever opens a zip reads them.

    Raises:
        DependencyError: the package ``ai-edge-litert`` is not installed.
    """
    schema = litert_package("schema_py_generated")
    builder = _Aligned(sum(tensor.data.nbytes for tensor in graph.tensors if tensor.data is not None) + 1024)
    builder.Finish(_model(schema, graph, description).Pack(builder), file_identifier=b"TFL3")
    content = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(content, "a") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()


def open_interpreter(content: bytes, threads: int = 1) -> Any:
    """LiteRT with the content of a .tflite file.

    Raises:
        DependencyError: the package is not installed.
    """
    module = litert_package("interpreter")
    with without_remarks():  # it tells its kernels' name each time
        return module.Interpreter(model_content=content, num_threads=threads)


def litert_package(name: str) -> ModuleType:
    """A module of the package ``ai-edge-litert``, which has the interpreter and the tables of the format.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(f"ai_edge_litert.{name}")
    except ImportError as error:
        raise DependencyError(
            f"a .tflite file is written and checked with ai-edge-litert: {how_to_install('litert')}"
        ) from error


def _model(schema: ModuleType, graph: FileGraph, description: str) -> Any:
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    kinds = list(dict.fromkeys((op.kind, op.version) for op in graph.operators))
    stored = [tensor.data for tensor in graph.tensors if tensor.data is not None]
    places = itertools.count(1)  # by convention the first buffer is empty: that of what is computed
    subgraph.name = "main"
    subgraph.tensors = [_tensor(schema, found, 0 if found.data is None else next(places)) for found in graph.tensors]
    subgraph.operators = [_operator(schema, op, kinds.index((op.kind, op.version))) for op in graph.operators]
    subgraph.inputs, subgraph.outputs = list(graph.inputs.values()), list(graph.outputs.values())
    model.version, model.description, model.subgraphs = 3, description, [subgraph]
    model.operatorCodes = [_code(schema, *kind) for kind in kinds]
    model.buffers = [_filled(schema.BufferT(), data=data) for data in (None, *map(_as_bytes, stored))]
    named = {name: getattr(graph, name) for name in ("inputs", "outputs")}
    tables = {
        name: [_filled(schema.TensorMapT(), name=key, tensorIndex=index) for key, index in found.items()]
        for name, found in named.items()
    }
    model.signatureDefs = [_filled(schema.SignatureDefT(), signatureKey=SIGNATURE, **tables)]
    return model


def _filled(table: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        if not hasattr(table, name):
            raise AssertionError(f"{type(table).__name__} has no field {name}")
        setattr(table, name, value)
    return table


def _as_bytes(data: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)


def _code(schema: ModuleType, kind: str, version: int) -> Any:
    number = getattr(schema.BuiltinOperator, kind)
    return _filled(schema.OperatorCodeT(), deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=version)


def _tensor(schema: ModuleType, tensor: FileTensor, buffer: int) -> Any:
    scales = None
    if tensor.quantization:
        found = tensor.quantization
        scales = _filled(
            schema.QuantizationParametersT(),
            scale=np.array(found.scale, np.float32),
            zeroPoint=np.array(found.zero_point, np.int64),
            quantizedDimension=found.axis,
        )
    return _filled(
        schema.TensorT(),
        shape=np.array(tensor.shape, np.int32),
        type=getattr(schema.TensorType, tensor.dtype.upper()),
        buffer=buffer,
        name=tensor.name,
        quantization=scales,
        hasRank=True,
    )


def _operator(schema: ModuleType, op: FileOperator, code: int) -> Any:
    table = schema.OperatorT()
    if op.options:
        table.builtinOptionsType = getattr(schema.BuiltinOptions, op.options)
        table.builtinOptions = _filled(getattr(schema, f"{op.options}T")(), **op.fields)
    return _filled(table, opcodeIndex=code, inputs=list(op.inputs), outputs=list(op.outputs))
