"""Quantized TFLite classifiers as PyTorch weights: a generic walk of the operator list, then MobileNetV2 out of it.

``read_tflite`` reads the operators of a .tflite file with their weights dequantized, w = scale (q - zero point), and
keeps every activation's range. ``import_mobilenetv2`` proves that they are a MobileNetV2 and fills one. Format:
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
import torch

from ..errors import DependencyError, WeightsError
from .mobilenetv2 import MobileNetV2, same_pads

Range = tuple[float, int]  # (scale, zero point) of a uint8 tensor: value = scale * (q - zero point)

SUPPORTED = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "AVERAGE_POOL_2D", "MEAN", "RESHAPE", "SOFTMAX",
    "QUANTIZE", "DEQUANTIZE", "PAD",
)  # fmt: skip
_DTYPES = {0: np.float32, 2: np.int32, 3: np.uint8, 9: np.int8}  # TensorType codes of the schema
_MAX_OPERATORS = 10_000


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


@dataclass(frozen=True)
class ImportedMobileNetV2:
    """A filled network (TensorFlow padding, folded normalization) and what the file knows beside the weights.

    ``ranges`` maps layer names ("stem", "block3.expand", "block3.add", "pool", ...; "input") to (scale, zero point)
    of uint8. ``input_size`` is (H, W).
    """

    backbone: MobileNetV2
    ranges: dict[str, Range]
    input_size: tuple[int, int]
    classes: int


def read_tflite(path: str | os.PathLike[str]) -> TfliteGraph:
    """Read the operators of a quantized TFLite image model.

    Raises:
        WeightsError: not TFLite, truncated, more than one input, an operator or a layout that is not supported.
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
        return _Reader(schema, data, str(path)).graph()
    except (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, MemoryError) as error:
        raise WeightsError(f"{path}: damaged or truncated TFLite file ({error})") from error


def import_mobilenetv2(
    path: str | os.PathLike[str], width: float = 1.0, cut: str = "head", classifier: bool = False
) -> ImportedMobileNetV2:
    """Fill a MobileNetV2 of ``width``, up to ``cut``, from a quantized TFLite file.

    The whole file is compared with the whole network, also what lies behind the cut. Biases of the convolutions (the
    file's folded batch normalization) become the offsets of normalizations that are otherwise the identity.

    Args:
        classifier: keep the file's classifier (its class 0 is "background" where it has 1001).

    Raises:
        WeightsError: as :func:`read_tflite`, or another network; names the first operator that differs.
    """
    graph = read_tflite(path)
    walk = _Walk(graph, width)
    walk.all()
    backbone = MobileNetV2(width, cut, "same", walk.classes if classifier else None)
    with torch.no_grad():
        for name, operator in walk.layers.items():
            if name == "classifier":
                if backbone.classifier is not None:
                    _copy_linear(backbone.classifier, operator)
            elif name.split(".")[0] in backbone.parts and operator.weight is not None:
                _copy_conv(backbone.get_submodule(name), operator)
    ranges = {name: operator.range for name, operator in walk.layers.items() if operator.range is not None}
    size = (graph.input_shape[1], graph.input_shape[2])
    return ImportedMobileNetV2(backbone.eval(), {"input": graph.input_range, **ranges}, size, walk.classes)


def _copy_conv(layer: Any, operator: Operator) -> None:
    layer.conv.weight.copy_(torch.from_numpy(operator.weight))
    layer.norm.weight.fill_(1.0)
    layer.norm.bias.copy_(torch.from_numpy(operator.bias))
    layer.norm.running_mean.zero_()
    layer.norm.running_var.fill_(1.0 - layer.norm.eps)


def _copy_linear(layer: torch.nn.Linear, operator: Operator) -> None:
    assert operator.weight is not None and operator.bias is not None
    layer.weight.copy_(torch.from_numpy(operator.weight.reshape(layer.weight.shape)))
    layer.bias.copy_(torch.from_numpy(operator.bias))


class _Reader:
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
        shape, found = self._shape(source), self._range(source)
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
        code = self.model.OperatorCodes(raw.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = self.kinds.get(number, f"code {number}")
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
            values = {"relu6": self._activation(index, self._options("AddOptions", raw))}
        elif kind == "PAD":
            pads = self._constant(inputs[1])
            values = {"pads": tuple(int(v) for v in pads.reshape(4, 2)[1:3].reshape(-1))}
            inputs = inputs[:1]
        elif kind in ("MEAN", "RESHAPE", "SOFTMAX"):
            inputs = inputs[:1]
        return Operator(index, kind, inputs, output, self._shape(output), self._range(output), **values)

    def _layer(self, kind: str, index: int, raw: Any, inputs: tuple[int, ...]) -> dict[str, Any]:
        """Weights, bias and options of a convolution or a fully connected layer."""
        weight = self._dequantized(inputs[1])
        where = f"{self.path}: operator {index} ({kind})"
        if kind == "FULLY_CONNECTED":
            options, stride, same = self._options("FullyConnectedOptions", raw), 1, True
        else:
            options = self._options("Conv2DOptions" if kind == "CONV_2D" else "DepthwiseConv2DOptions", raw)
            stride, same = options.StrideH(), options.Padding() == self.schema.Padding.SAME
            if weight.ndim != 4 or options.StrideW() != stride or options.DilationHFactor() != 1:
                raise WeightsError(f"{where}: weights of shape {weight.shape}, uneven stride or dilation")
            if kind == "DEPTHWISE_CONV_2D":  # (1, kh, kw, C) -> (C, 1, kh, kw)
                weight = weight.transpose(3, 0, 1, 2)
            else:  # (O, kh, kw, I) -> (O, I, kh, kw)
                weight = weight.transpose(0, 3, 1, 2)
        bias = self._dequantized(inputs[2]) if len(inputs) > 2 and inputs[2] >= 0 else np.zeros(len(weight), np.float32)
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

    def _options(self, kind: str, raw: Any) -> Any:
        options, table = getattr(self.schema, kind)(), raw.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _shape(self, index: int) -> tuple[int, ...]:
        tensor = self.subgraph.Tensors(index)
        return tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()

    def _constant(self, index: int) -> np.ndarray:
        """A stored tensor as it lies in the file."""
        tensor = self.subgraph.Tensors(index)
        dtype = _DTYPES.get(tensor.Type())
        if dtype is None:
            raise WeightsError(
                f"{self.path}: tensor {index} has type code {tensor.Type()}, expected one of {[*_DTYPES]}"
            )
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(data, np.ndarray):
            raise WeightsError(f"{self.path}: tensor {index} holds no data")
        return data.view(dtype).reshape(self._shape(index))

    def _dequantized(self, index: int) -> np.ndarray:
        values = self._constant(index)
        if values.dtype == np.float32:
            return values.copy()
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


class _Walk:
    """Reads a graph's operators as the layers of a MobileNetV2, and names the first that is none."""

    def __init__(self, graph: TfliteGraph, width: float) -> None:
        self.graph, self.width = graph, width
        self.rest = list(graph.operators)
        self.tensor = graph.input  # where the network's signal is now
        self.shape = graph.input_shape
        self.pads: tuple[int, ...] = ()
        self.layers: dict[str, Operator] = {}
        self.classes = 0

    def all(self) -> None:
        with torch.device("meta"):
            whole = MobileNetV2(self.width, padding="same")
        for part in whole.parts:
            layer = whole.get_submodule(part)
            if part in ("stem", "head"):
                self._conv(part, layer)
                continue
            start = self.tensor
            for name, inner in layer.named_children():
                self._conv(f"{part}.{name}", inner)
            if layer.residual:
                self._add(f"{part}.add", start)
        self._tail()

    def _next(self, wanted: str) -> Operator:
        """The next operator that computes; requantization is skipped, paddings are kept for the convolution."""
        while self.rest:
            operator = self.rest.pop(0)
            if operator.kind == "PAD" and self.tensor in operator.inputs:
                self.pads, self.tensor = operator.pads, operator.output
            elif operator.kind in ("QUANTIZE", "DEQUANTIZE", "RESHAPE") and self.tensor in operator.inputs:
                self.tensor = operator.output
            elif self.tensor not in operator.inputs:
                raise self._differs(operator, wanted, "which follows another tensor")
            else:
                return operator
        raise WeightsError(f"{self.graph.path}: ends before {wanted}: not a MobileNetV2 classifier")

    def _conv(self, name: str, layer: Any) -> None:
        shape, relu6 = tuple(layer.conv.weight.shape), isinstance(layer.act, torch.nn.ReLU6)
        stride = layer.stride
        wanted = f"{name}, weights {'x'.join(map(str, shape))}, stride {stride}{', RELU6' if relu6 else ''}"
        operator = self._next(wanted)
        if operator.weight is None or operator.weight.shape != shape:
            raise self._differs(operator, wanted)
        if operator.stride != stride or operator.relu6 != relu6:
            raise self._differs(operator, wanted, f"of stride {operator.stride}{', RELU6' if operator.relu6 else ''}")
        _, height, width, _ = self.shape
        pads = (*same_pads(height, shape[2], stride), *same_pads(width, shape[3], stride))
        if not operator.same and self.pads != pads and any((*pads, *self.pads)):
            raise self._differs(operator, wanted, f"with padding {self.pads or 'VALID'} instead of SAME {pads}")
        self.pads = ()
        self._step(name, operator)

    def _add(self, name: str, start: int) -> None:
        operator = self._next(name)
        if operator.kind != "ADD" or start not in operator.inputs or operator.relu6:
            raise self._differs(operator, f"{name}, the sum of the block's input and output")
        self._step(name, operator)

    def _tail(self) -> None:
        operator = self._next("pool")
        if operator.kind not in ("MEAN", "AVERAGE_POOL_2D") or operator.output_shape[1:-1] not in ((), (1, 1)):
            raise self._differs(operator, "pool, the average over the map")
        self._step("pool", operator)
        features = operator.output_shape[-1]
        operator = self._next("classifier")
        if operator.weight is None or operator.weight.size != len(operator.weight) * features:
            raise self._differs(operator, f"classifier, K x {features}")
        self.classes = len(operator.weight)
        self._step("classifier", operator)

    def _step(self, name: str, operator: Operator) -> None:
        self.layers[name] = operator
        self.tensor, self.shape = operator.output, operator.output_shape

    def _differs(self, operator: Operator, wanted: str, how: str = "") -> WeightsError:
        return WeightsError(
            f"{self.graph.path}: {operator}{' ' + how if how else ''} is not {wanted}: "
            f"the file is not a MobileNetV2 of width {self.width:g}"
        )


def _schema() -> ModuleType:
    try:
        import tflite
    except ImportError as error:
        raise DependencyError("reading .tflite files needs the package tflite: pip install 'vidlet[train]'") from error
    return tflite
