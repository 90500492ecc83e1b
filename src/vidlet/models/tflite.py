"""Quantized TFLite image models as a list of operators.

``read_tflite`` reads the operators of a .tflite file with their weights dequantized, w = scale (q - zero point), and
keeps every activation's range. tflite_import.py proves that they are a network of ours and fills one. Format:
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DependencyError, WeightsError
from ..wording import how_to_install

Range = tuple[float, int]  # (scale, zero point) of a uint8 tensor: value = scale * (q - zero point)

SUPPORTED = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "AVERAGE_POOL_2D", "MEAN", "RESHAPE", "SOFTMAX",
    "QUANTIZE", "DEQUANTIZE", "PAD",
)  # fmt: skip
_DTYPES = {
    0: np.float32,
    1: np.float16,
    2: np.int32,
    3: np.uint8,
    4: np.int64,
    9: np.int8,
}  # TensorType codes of the schema
_MAX_OPERATORS = 10_000
DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, MemoryError)  # of FlatBuffers


@dataclass(frozen=True)
class Operator:
    """One operator: weights as PyTorch lays them out (O, I, kh, kw), float32; tensors are indices into the file."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    output: int
    output_shape: tuple[int, ...]
    range: Range | None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: int = 1
    same: bool = True
    relu6: bool = False
    pads: tuple[int, ...] = ()  # PAD: top, bottom, left, right

    def __str__(self) -> str:
        shape = "" if self.weight is None else f", weights {'x'.join(map(str, self.weight.shape))}"
        return f"operator {self.index} ({self.kind}{shape})"


@dataclass(frozen=True)
class TfliteGraph:
    """A file's operators in order, and the shape and range of its only input."""

    path: str
    operators: tuple[Operator, ...]
    input: int
    input_shape: tuple[int, ...]
    input_range: Range


def read_tflite(path: str | os.PathLike[str]) -> TfliteGraph:
    """Read the operators of a quantized TFLite image model.

    Raises:
        WeightsError: not TFLite, truncated, more than one input, an operator or a layout that is not supported.
        DependencyError: the package ``tflite`` is not installed.
    """
    reader = open_reader(path)
    try:
        return reader.graph()
    except DAMAGE as error:
        raise WeightsError(f"{path}: damaged or truncated TFLite file ({error})") from error


def open_reader(path: str | os.PathLike[str]) -> Reader:
    """What reads the tensors and operators of a file.

    Raises:
        WeightsError: not TFLite, truncated, or of more than one subgraph.
        DependencyError: the package ``tflite`` is not installed.
    """
    schema = _schema()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) < 16 or data[4:8] != b"TFL3":
        raise WeightsError(f"{path}: not a TFLite file (no TFL3 mark)")
    try:
        return Reader(schema, data, str(path))
    except DAMAGE as error:
        raise WeightsError(f"{path}: damaged or truncated TFLite file ({error})") from error


class Reader:
    """FlatBuffers -> Operators. Errors of the FlatBuffers library mean damage; ours are WeightsError."""

    def __init__(self, schema: ModuleType, data: bytes, path: str) -> None:
        self.schema, self.path = schema, path
        self.model = schema.Model.GetRootAsModel(data, 0)
        if self.model.SubgraphsLength() != 1:
            raise WeightsError(f"{path}: has {self.model.SubgraphsLength()} subgraphs, expected 1")
        self.subgraph = self.model.Subgraphs(0)
        codes = vars(schema.BuiltinOperator)
        self.kinds = {code: name for name, code in codes.items() if not name.startswith("_")}

    def graph(self) -> TfliteGraph:
        if self.subgraph.InputsLength() != 1:
            raise WeightsError(f"{self.path}: has {self.subgraph.InputsLength()} inputs, expected one picture")
        source = self.subgraph.Inputs(0)
        shape, found = self.shape(source), self._range(source)
        if len(shape) != 4 or shape[3] != 3:
            raise WeightsError(f"{self.path}: input has shape {shape}, expected (1, H, W, 3)")
        if found is None:
            raise WeightsError(f"{self.path}: the input is not quantized (no scale), so its normalization is not known")
        if not 1 <= self.subgraph.OperatorsLength() <= _MAX_OPERATORS:
            raise WeightsError(f"{self.path}: has {self.subgraph.OperatorsLength()} operators")
        operators = tuple(self._operator(i) for i in range(self.subgraph.OperatorsLength()))
        return TfliteGraph(self.path, operators, source, shape, found)

    def _operator(self, index: int) -> Operator:
        raw = self.subgraph.Operators(index)
        kind = self.kind(raw)
        if kind not in SUPPORTED:
            raise WeightsError(
                f"{self.path}: operator {index} is {kind}, which is not supported ({', '.join(SUPPORTED)} are)"
            )
        inputs = tuple(raw.Inputs(i) for i in range(raw.InputsLength()))
        output = raw.Outputs(0)
        values: dict[str, Any] = {}
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            values = self._layer(kind, index, raw, inputs)
            inputs = inputs[:1]
        elif kind == "ADD":
            values = {"relu6": self._activation(index, self.options("AddOptions", raw))}
        elif kind == "PAD":
            pads = self.constant(inputs[1])
            values = {"pads": tuple(int(v) for v in pads.reshape(4, 2)[1:3].reshape(-1))}
            inputs = inputs[:1]
        elif kind in ("MEAN", "RESHAPE", "SOFTMAX"):
            inputs = inputs[:1]
        return Operator(index, kind, inputs, output, self.shape(output), self._range(output), **values)

    def _layer(self, kind: str, index: int, raw: Any, inputs: tuple[int, ...]) -> dict[str, Any]:
        """Weights, bias and options of a convolution or a fully connected layer."""
        weight = self.dequantized(inputs[1])
        where = f"{self.path}: operator {index} ({kind})"
        if kind == "FULLY_CONNECTED":
            options, stride, same = self.options("FullyConnectedOptions", raw), 1, True
        else:
            options = self.options("Conv2DOptions" if kind == "CONV_2D" else "DepthwiseConv2DOptions", raw)
            stride, same = options.StrideH(), options.Padding() == self.schema.Padding.SAME
            if weight.ndim != 4 or options.StrideW() != stride or options.DilationHFactor() != 1:
                raise WeightsError(f"{where}: weights of shape {weight.shape}, uneven stride or dilation")
            if kind == "DEPTHWISE_CONV_2D":  # (1, kh, kw, C) -> (C, 1, kh, kw)
                weight = weight.transpose(3, 0, 1, 2)
            else:  # (O, kh, kw, I) -> (O, I, kh, kw)
                weight = weight.transpose(0, 3, 1, 2)
        bias = self.dequantized(inputs[2]) if len(inputs) > 2 and inputs[2] >= 0 else np.zeros(len(weight), np.float32)
        if bias.shape != (len(weight),):
            raise WeightsError(f"{where}: bias of shape {bias.shape} for {len(weight)} outputs")
        relu6 = self._activation(index, options)
        return {
            "weight": np.ascontiguousarray(weight),
            "bias": bias, "stride": stride, "same": same, "relu6": relu6,
        }  # fmt: skip

    def _activation(self, index: int, options: Any) -> bool:
        """Whether ReLU6 is fused into an operator; no other activation is known."""
        code, names = options.FusedActivationFunction(), self.schema.ActivationFunctionType
        if code not in (names.NONE, names.RELU6):
            raise WeightsError(f"{self.path}: operator {index} has activation code {code}, expected none or RELU6")
        return code == names.RELU6

    def options(self, kind: str, raw: Any) -> Any:
        """The options of an operator, of the schema's table ``kind``."""
        options, table = getattr(self.schema, kind)(), raw.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def kind(self, raw: Any) -> str:
        """The name of an operator in the schema."""
        code = self.model.OperatorCodes(raw.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return self.kinds.get(number, f"code {number}")

    def name(self, index: int) -> str:
        """The name of a tensor in the file, perhaps ""."""
        return (self.subgraph.Tensors(index).Name() or b"").decode("utf-8", "replace")

    def dtype(self, index: int) -> type | None:
        """The type of a tensor, None for those that are not read."""
        return _DTYPES.get(self.subgraph.Tensors(index).Type())

    def picture(self) -> list[int]:
        """Height and width of the picture that the file takes."""
        return list(self.shape(self.subgraph.Inputs(0))[1:3])

    def is_stored(self, index: int) -> bool:
        """Whether a tensor is a constant of the file."""
        return isinstance(self.model.Buffers(self.subgraph.Tensors(index).Buffer()).DataAsNumpy(), np.ndarray)

    def shape(self, index: int) -> tuple[int, ...]:
        """Its sizes, () for one number."""
        tensor = self.subgraph.Tensors(index)
        return tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()

    def constant(self, index: int) -> np.ndarray:
        """A stored tensor as it lies in the file."""
        tensor = self.subgraph.Tensors(index)
        dtype = _DTYPES.get(tensor.Type())
        if tensor.Sparsity() is not None:
            raise WeightsError(f"{self.path}: tensor {index} is stored sparse, which is not read")
        if dtype is None:
            raise WeightsError(
                f"{self.path}: tensor {index} has type code {tensor.Type()}, expected one of {[*_DTYPES]}"
            )
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise WeightsError(f"{self.path}: tensor {index} holds no data")
        return data.view(dtype).reshape(self.shape(index))

    def dequantized(self, index: int) -> np.ndarray:
        """A stored tensor as real numbers: integers by their scale."""
        values = self.constant(index)
        if values.dtype in (np.float32, np.float16):
            return values.astype(np.float32)
        parameters = self.subgraph.Tensors(index).Quantization()
        if parameters is None or not parameters.ScaleLength():
            raise WeightsError(f"{self.path}: tensor {index} has integers without a scale")
        scale = parameters.ScaleAsNumpy().astype(np.float64)
        zero = parameters.ZeroPointAsNumpy().astype(np.int64)
        shape = [1] * values.ndim
        if len(scale) > 1:
            shape[parameters.QuantizedDimension()] = len(scale)
        real = (values.astype(np.int64) - zero.reshape(shape if len(zero) > 1 else ())) * scale.reshape(
            shape if len(scale) > 1 else ()
        )
        return real.astype(np.float32)

    def _range(self, index: int) -> Range | None:
        """Range of an activation in terms of uint8; an int8 tensor's zero point is moved by 128."""
        tensor = self.subgraph.Tensors(index)
        parameters = tensor.Quantization()
        if parameters is None or parameters.ScaleLength() != 1 or tensor.Type() not in (3, 9):
            return None
        return float(parameters.Scale(0)), int(parameters.ZeroPoint(0)) + (128 if tensor.Type() == 9 else 0)


def _schema() -> ModuleType:
    try:
        import tflite
    except ImportError as error:
        raise DependencyError(f"reading .tflite files needs tflite: {how_to_install('train')}") from error
    return tflite
