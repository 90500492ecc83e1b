"""A float TFLite image network as an ONNX graph of the same arithmetic, from one picture [1, 3, H, W].

TensorFlow lays maps out as (1, H, W, C); here every map is (1, C, H, W), and where an operator reads or makes something
else, a transposition stands beside it. Operators that are not known end their branch: what lies before can still be
taken (``OnnxBackbone``), what lies behind is named with the reason. Operators:
https://www.tensorflow.org/mlir/tfl_ops
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import ModelError, WeightsError
from .tflite import DAMAGE, Reader, open_reader

OPSET = 17
ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {  # what ONNX calls it, and its limits
    "RELU": ("Relu", ()), "RELU6": ("Clip", (0, 6)), "RELU_N1_TO_1": ("Clip", (-1, 1)),
}  # fmt: skip
PLAIN = {
    "ABS": "Abs", "ELU": "Elu", "EXP": "Exp", "HARD_SWISH": "HardSwish", "LOG": "Log", "LOGISTIC": "Sigmoid",
    "NEG": "Neg", "SQRT": "Sqrt", "TANH": "Tanh",
}  # fmt: skip
BINARY = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max", "MINIMUM": "Min"}
WITH_OPTIONS = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}


def is_float(path: Path) -> bool:
    """Whether a .tflite file takes a float picture; False also where it cannot be read."""
    try:
        reader = open_reader(path)
        return reader.dtype(reader.subgraph.Inputs(0)) == np.float32
    except WeightsError:
        return False


def float_network(path: Path) -> onnx.ModelProto:
    """The network of a float file (weights of float32, float16, or int8 with scales that it dequantizes itself).

    Outputs are the last tensors that could be computed; other tensors keep the file's names.

    Raises:
        WeightsError: not TFLite, or truncated.
        ModelError: it does not take one float picture, or none of its operators is known.
    """
    reader = open_reader(path)
    try:
        return _Network(reader).model()
    except DAMAGE as error:
        raise WeightsError(f"{path}: damaged or truncated TFLite file ({error})") from error


class _Network:
    """Operators of a file, one after the other, into nodes of ONNX."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.names: dict[int, str] = {}  # of what has been computed
        self.unknown: list[str] = []
        self.used: set[str] = set()

    def model(self) -> onnx.ModelProto:
        """The whole of it."""
        graph = self.reader.subgraph
        source = graph.Inputs(0)
        shape = self.reader.shape(source)
        if graph.InputsLength() != 1 or len(shape) != 4 or shape[3] != 3 or self.reader.dtype(source) != np.float32:
            raise ModelError(
                f"takes {graph.InputsLength()} inputs, the first {list(shape)}; expected one float picture"
            )
        self._name(source)
        for index in range(graph.OperatorsLength()):
            raw = graph.Operators(index)
            inputs = [raw.Inputs(i) for i in range(raw.InputsLength())]
            kind = self.reader.kind(raw)
            make = OPERATORS.get(kind)
            if all(i < 0 or i in self.names or self.constant(i) is not None for i in inputs):
                if make is None:
                    self.unknown.append(f"operator {index}, {kind}, is not read")
                else:
                    make(self, kind, raw, inputs)
        made = {name for node in self.nodes for name in node.output}
        read = {name for node in self.nodes for name in node.input}
        known = {name: self.onnx_shape(i) for i, name in self.names.items() if name in made}
        ends = [name for name in known if name not in read]
        if not ends:
            raise ModelError(f"none of its operators is read ({'; '.join(self.unknown[:3]) or 'it has none'})")
        described = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in known.items()
        }
        taken = helper.make_tensor_value_info(self.names[source], TensorProto.FLOAT, self.onnx_shape(source))
        outputs = [described.pop(name) for name in ends]
        built = helper.make_graph(
            self.nodes, "network", [taken], outputs, list(self.weights.values()), value_info=list(described.values())
        )
        return helper.make_model(built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _name(self, index: int) -> str:
        """The name of a tensor, the file's own where it has one of its own."""
        said = self.reader.name(index) or f"tensor{index}"
        name = said if said not in self.used else f"{said}/{index}"
        self.used.add(name)
        self.names[index] = name
        return name

    def onnx_shape(self, index: int) -> tuple[int, ...]:
        """The sizes of a tensor, in ONNX's order where it is a map."""
        shape = self.reader.shape(index)
        return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape

    def constant(self, index: int) -> np.ndarray | None:
        """A stored tensor, as it lies in the file, or what is dequantized of one; None: it is computed."""
        if index not in self.constants:
            if not self.reader.is_stored(index):
                return None
            counts = self.reader.dtype(index) in (np.int32, np.int64)
            self.constants[index] = self.reader.constant(index) if counts else self.reader.dequantized(index)
        return self.constants[index]

    def stored(self, index: int) -> np.ndarray:
        """The same, where it has to be one."""
        values = self.constant(index)
        if values is None:
            raise ModelError(f"tensor {self.reader.name(index)} is computed; expected a constant")
        return values

    def input(self, index: int, rank: int = 0) -> str:
        """The name of an operand; a constant is laid out to go with operands of ``rank`` dimensions."""
        values = self.constant(index)
        if values is None:
            return self.names[index]
        if rank == 4:
            values = values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(0, 3, 1, 2)
        return self.weight(values)

    def weight(self, values: np.ndarray) -> str:
        """A new constant."""
        name = f"weight{len(self.weights)}"
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def node(self, kind: str, inputs: list[str], index: int | None = None, **options: Any) -> str:
        """A node; ``index``: the tensor of the file that it makes. Returns the name of its output."""
        name = f"between{len(self.nodes)}" if index is None else self._name(index)
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def activated(self, made: Callable[[int | None], str], options: Any, index: int) -> None:
        """What ``made`` makes, with the activation that is fused into the operator behind it."""
        names = vars(self.reader.schema.ActivationFunctionType)
        code = options.FusedActivationFunction() if options is not None else 0
        known = next((name for name, value in names.items() if value == code), "")
        if known == "NONE":
            made(index)
        elif known in ACTIVATIONS:
            self.activation(known, made(None), index)
        else:
            self.unknown.append(f"activation {known or code} is not read")

    def activation(self, known: str, before: str, index: int) -> None:
        """One of ``ACTIVATIONS`` of something becomes a tensor of the file."""
        kind, limits = ACTIVATIONS[known]
        self.node(kind, [before, *(self.weight(np.asarray(limit, np.float32)) for limit in limits)], index)

    def rows(self, index: int) -> str:
        """An operand in TensorFlow's order of dimensions."""
        name = self.input(index)
        four = len(self.reader.shape(index)) == 4 and self.constant(index) is None
        return self.node("Transpose", [name], perm=[0, 2, 3, 1]) if four else name

    def from_rows(self, name: str, index: int) -> None:
        """Something in TensorFlow's order becomes a tensor of the file."""
        if len(self.reader.shape(index)) == 4:
            self.node("Transpose", [name], index, perm=[0, 3, 1, 2])
        else:
            self.node("Identity", [name], index)

    def pads(
        self, options: Any, shape: tuple[int, ...], kernel: tuple[int, int], dilation: tuple[int, int]
    ) -> list[int]:
        """Top, left, bottom, right, as SAME or VALID pad a map (1, H, W, C)."""
        if options.Padding() != self.reader.schema.Padding.SAME:
            return [0, 0, 0, 0]
        before, behind = [], []
        for size, k, d, stride in zip(
            shape[1:3], kernel, dilation, (options.StrideH(), options.StrideW()), strict=True
        ):  # fmt: skip
            total = max((-(-size // stride) - 1) * stride + (k - 1) * d + 1 - size, 0)
            before.append(total // 2)
            behind.append(total - total // 2)
        return before + behind


def _convolution(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    deep = kind == "DEPTHWISE_CONV_2D"
    options = net.reader.options("DepthwiseConv2DOptions" if deep else "Conv2DOptions", raw)
    stored, channels = net.stored(inputs[1]), net.reader.shape(inputs[0])[3]
    weight = stored.transpose(3, 0, 1, 2) if deep else stored.transpose(0, 3, 1, 2)
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    kernel = (weight.shape[2], weight.shape[3])
    operands = [net.input(inputs[0]), net.weight(weight)]
    if len(inputs) > 2 and inputs[2] >= 0:
        operands.append(net.weight(net.stored(inputs[2])))
    values = {
        "kernel_shape": kernel, "strides": [options.StrideH(), options.StrideW()], "dilations": dilation,
        "pads": net.pads(options, net.reader.shape(inputs[0]), kernel, dilation),
        "group": channels // weight.shape[1],
    }  # fmt: skip
    net.activated(lambda index: net.node("Conv", operands, index, **values), options, raw.Outputs(0))


def _pool(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    options = net.reader.options("Pool2DOptions", raw)
    kernel = (options.FilterHeight(), options.FilterWidth())
    values: dict[str, Any] = {
        "kernel_shape": kernel, "strides": [options.StrideH(), options.StrideW()],
        "pads": net.pads(options, net.reader.shape(inputs[0]), kernel, (1, 1)),
    }  # fmt: skip
    name = "MaxPool" if kind == "MAX_POOL_2D" else "AveragePool"
    net.activated(lambda index: net.node(name, [net.input(inputs[0])], index, **values), options, raw.Outputs(0))


def _binary(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    ranks = [len(net.reader.shape(index)) for index in inputs]
    rank = len(net.reader.shape(raw.Outputs(0)))
    if rank == 4 and any(r < 4 for i, r in zip(inputs, ranks, strict=True) if net.constant(i) is None):
        operands = [net.rows(index) for index in inputs]
        net.from_rows(net.node(BINARY[kind], operands), raw.Outputs(0))
        return
    operands = [net.input(index, rank) for index in inputs]
    options = net.reader.options(WITH_OPTIONS[kind], raw) if kind in WITH_OPTIONS else None
    net.activated(lambda index: net.node(BINARY[kind], operands, index), options, raw.Outputs(0))


def _plain(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    net.node(PLAIN[kind], [net.input(inputs[0])], raw.Outputs(0))


def _activation(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    net.activation(kind, net.input(inputs[0]), raw.Outputs(0))


def _prelu(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    net.node("PRelu", [net.input(inputs[0]), net.input(inputs[1], 4)], raw.Outputs(0))


def _leaky(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    alpha = net.reader.options("LeakyReluOptions", raw).Alpha()
    net.node("LeakyRelu", [net.input(inputs[0])], raw.Outputs(0), alpha=float(alpha))


def _pad(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    pads = net.stored(inputs[1]).astype(np.int64)
    if len(pads) == 4:
        pads = pads[[0, 3, 1, 2]]
    operands = [net.input(inputs[0]), net.weight(pads.T.reshape(-1))]
    if kind == "PADV2":
        operands.append(net.weight(net.stored(inputs[2]).astype(np.float32).reshape(())))
    net.node("Pad", operands, raw.Outputs(0))


def _concatenation(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    options, rank = net.reader.options("ConcatenationOptions", raw), len(net.reader.shape(raw.Outputs(0)))
    axis = options.Axis() % rank
    operands = [net.input(index, rank) for index in inputs]
    axis = (0, 2, 3, 1)[axis] if rank == 4 else axis
    net.activated(lambda index: net.node("Concat", operands, index, axis=axis), options, raw.Outputs(0))


def _resize(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    linear = kind == "RESIZE_BILINEAR"
    options = net.reader.options("ResizeBilinearOptions" if linear else "ResizeNearestNeighborOptions", raw)
    rule = "align_corners" if options.AlignCorners() else "half_pixel" if options.HalfPixelCenters() else "asymmetric"
    nearest = "floor" if rule == "asymmetric" else "round_prefer_ceil"
    sizes = net.weight(np.asarray(net.onnx_shape(raw.Outputs(0)), np.int64))
    net.node(
        "Resize", [net.input(inputs[0]), "", "", sizes], raw.Outputs(0), mode="linear" if linear else "nearest",
        coordinate_transformation_mode=rule, nearest_mode=nearest,
    )  # fmt: skip


def _mean(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    rank, keep = len(net.reader.shape(inputs[0])), net.reader.options("ReducerOptions", raw).KeepDims()
    axes = [int(axis) % rank for axis in net.stored(inputs[1]).reshape(-1)]
    if rank == 4 and not keep and sorted(axes) != [1, 2]:
        made = net.node("ReduceMean", [net.rows(inputs[0])], axes=axes, keepdims=0)
        net.from_rows(made, raw.Outputs(0))
        return
    axes = sorted((0, 2, 3, 1)[axis] for axis in axes) if rank == 4 else axes
    net.node("ReduceMean", [net.input(inputs[0])], raw.Outputs(0), axes=axes, keepdims=int(keep))


def _reshape(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    shape = net.weight(np.asarray(net.reader.shape(raw.Outputs(0)), np.int64))
    net.from_rows(net.node("Reshape", [net.rows(inputs[0]), shape]), raw.Outputs(0))


def _connected(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    options, weight = net.reader.options("FullyConnectedOptions", raw), net.stored(inputs[1])
    flat = net.node("Reshape", [net.rows(inputs[0]), net.weight(np.asarray([-1, weight.shape[1]], np.int64))])
    operands = [flat, net.weight(weight)]
    if len(inputs) > 2 and inputs[2] >= 0:
        operands.append(net.weight(net.stored(inputs[2])))
    if len(net.reader.shape(raw.Outputs(0))) != 2:
        net.unknown.append("a fully connected layer that keeps dimensions is not read")
        return
    net.activated(lambda index: net.node("Gemm", operands, index, transB=1), options, raw.Outputs(0))


def _softmax(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    if net.reader.options("SoftmaxOptions", raw).Beta() != 1:
        net.unknown.append("a softmax with beta is not read")
        return
    axis = 1 if len(net.reader.shape(inputs[0])) == 4 else -1
    net.node("Softmax", [net.input(inputs[0])], raw.Outputs(0), axis=axis)


def _dequantize(net: _Network, kind: str, raw: Any, inputs: list[int]) -> None:
    if net.constant(inputs[0]) is None:
        net.unknown.append("activations are integers: only quantized MobileNetV1 and MobileNetV2 are read")
    else:
        net.constants[raw.Outputs(0)] = net.stored(inputs[0]).astype(np.float32)


OPERATORS: dict[str, Callable[[_Network, str, Any, list[int]], None]] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), _pool),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(PLAIN, _plain),
    **dict.fromkeys(ACTIVATIONS, _activation),
    "PRELU": _prelu,
    "LEAKY_RELU": _leaky,
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    "CONCATENATION": _concatenation,
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "MEAN": _mean,
    "RESHAPE": _reshape,
    "FULLY_CONNECTED": _connected,
    "SOFTMAX": _softmax,
    "DEQUANTIZE": _dequantize,
}
