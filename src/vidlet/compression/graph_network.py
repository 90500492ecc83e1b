"""A float32 ONNX graph as a PyTorch module whose weights can be trained, so that what is trained is what is written.

Tensors keep the graph's names, which lets a subclass round each of them as the file will (qat.py). Covers what networks
of convolutions are made of; batch normalizations are folded by the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ExportError

WEIGHTED = ("Conv", "Gemm")
_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


class GraphNetwork(nn.Module):
    """The tensor ``until`` of a graph as a function of its tensor ``source``.

    Matrices and kernels read by ``WEIGHTED`` operators are parameters, biases too; a convolution without one gets one.
    Other constants are buffers.

    Raises:
        ExportError: an operator that is not covered, or ``until`` depends on another input.
    """

    def __init__(self, graph: onnx.ModelProto, source: str, until: str) -> None:
        super().__init__()
        self.source, self.until = source, until
        self.nodes = _between(graph, source, until)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        trained = {name for node in self.nodes if node.op_type in WEIGHTED for name in node.input[1:]}
        read = {name for node in self.nodes for name in node.input if name in constants}
        self.fixed = {name: constants[name] for name in read if constants[name].dtype != np.float32}
        floats = {name: torch.from_numpy(constants[name].copy()) for name in sorted(read - set(self.fixed))}
        self.weights = nn.ParameterDict({_key(n): nn.Parameter(v) for n, v in floats.items() if n in trained})
        for node in self.nodes:
            if node.op_type == "Conv" and not _bias(node):
                outputs = len(floats[node.input[1]])
                self.weights[_key(f"{node.input[1]}.bias")] = nn.Parameter(torch.zeros(outputs))
        for name, value in floats.items():
            if name not in trained:
                self.register_buffer(_key(name), value)

    def forward(self, x: Tensor) -> Tensor:
        """``source``'s values -> ``until``'s; both as the graph has them."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # what convolutions are fastest on
        return self.trace(x, (self.until,))[self.until]

    def trace(self, x: Tensor, keep: tuple[str, ...]) -> dict[str, Tensor]:
        """The values of several tensors."""
        values = {self.source: self.observe(self.source, x)}
        last = {name: i for i, node in enumerate(self.nodes) for name in node.input}
        for i, node in enumerate(self.nodes):
            name = node.output[0]
            values[name] = self.observe(name, self.run(node, values))
            for read in node.input:
                if last[read] == i and read not in keep:
                    values.pop(read, None)
        return {name: values[name] for name in keep}

    def observe(self, name: str, value: Tensor) -> Tensor:
        """What a computed tensor is replaced by: here, itself."""
        return value

    def run(self, node: onnx.NodeProto, values: Mapping[str, Tensor]) -> Tensor:
        """One operator."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        inputs = [self.value(name, values) for name in node.input]
        if node.op_type == "Conv":
            inputs[1:] = self.kernel(node)
        return OPERATORS[node.op_type](attributes, *inputs)

    def kernel(self, node: onnx.NodeProto) -> tuple[Tensor, Tensor]:
        """Weight (O, I / groups, ...) and bias (O,) that a convolution computes with: here, the parameters."""
        return self.parameters_of(node)

    def parameters_of(self, node: onnx.NodeProto) -> tuple[Tensor, Tensor]:
        """The parameters of a convolution: weight and bias."""
        bias = _bias(node) or f"{node.input[1]}.bias"
        return self.weights[_key(node.input[1])], self.weights[_key(bias)]

    def value(self, name: str, values: Mapping[str, Tensor]) -> Any:
        """A computed tensor, a parameter, a buffer, a NumPy array of whole numbers, or None for an absent input."""
        if name in values:
            return values[name]
        if _key(name) in self.weights:
            return self.weights[_key(name)]
        return self.fixed[name] if name in self.fixed else getattr(self, _key(name), None)

    @torch.no_grad()
    def kernels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight and bias that each convolution computes with, by the weight's name in the graph."""
        return {str(node.input[1]): self.kernel(node) for node in self.nodes if node.op_type == "Conv"}


def _between(graph: onnx.ModelProto, source: str, until: str) -> list[onnx.NodeProto]:
    """The nodes from ``source`` to ``until``, in order."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.graph.initializer}
    wanted, seen = [until], {source}
    while wanted:
        name = wanted.pop()
        if name in seen or name in constants or not name:
            continue
        seen.add(name)
        if name not in makers:
            raise ExportError(f"{until} depends on {name}, not on {source} alone")
        if makers[name].op_type not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise ExportError(f"{name}: operator {makers[name].op_type} cannot be trained here; known: {known}")
        wanted += makers[name].input
    return [node for node in graph.graph.node if node.output[0] in seen and node.output[0] != source]


def _key(name: str) -> str:
    return name.replace(".", "/")  # PyTorch keeps dots for itself


def _bias(node: onnx.NodeProto) -> str:
    return str(node.input[2]) if len(node.input) > 2 else ""


def _pads(attributes: Mapping[str, Any], rank: int) -> tuple[list[int], list[int]]:
    """Paddings (before, after) of each axis."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ExportError(f"auto_pad {attributes['auto_pad'].decode()} cannot be trained here; expected numbers")
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    return pads[:rank], pads[rank:]


def _padded(x: Tensor, attributes: Mapping[str, Any], fill: float) -> tuple[Tensor, list[int] | int]:
    """What is left to pad by the operator itself: uneven paddings are made here."""
    before, after = _pads(attributes, x.ndim - 2)
    if before == after:
        return x, before
    pairs = [size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair]
    return functional.pad(x, pairs, value=fill), 0


def _conv(attributes: Mapping[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _padded(x, attributes, 0.0)
    ones = [1] * (x.ndim - 2)
    return _CONV[x.ndim - 2](
        x, weight, bias, attributes.get("strides", ones), padding, attributes.get("dilations", ones),
        attributes.get("group", 1),
    )  # fmt: skip


def _max_pool(attributes: Mapping[str, Any], x: Tensor) -> Tensor:
    x, padding = _padded(x, attributes, -torch.inf)
    ones = [1] * (x.ndim - 2)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    whole = bool(attributes.get("ceil_mode", 0))
    return _POOL[x.ndim - 2](x, attributes["kernel_shape"], strides, padding, dilations, whole)


def _number(value: Tensor | None) -> float | None:
    return None if value is None else float(value)


def _gemm(attributes: Mapping[str, Any], a: Tensor, b: Tensor, c: Tensor | float = 0.0) -> Tensor:
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    return attributes.get("alpha", 1.0) * (a @ b) + attributes.get("beta", 1.0) * c


def _mean(attributes: Mapping[str, Any], x: Tensor, axes: np.ndarray) -> Tensor:
    return x.mean(tuple(axes.tolist()), keepdim=bool(attributes.get("keepdims", 1)))


def _pad(attributes: Mapping[str, Any], x: Tensor, pads: np.ndarray, value: Tensor | None = None) -> Tensor:
    if attributes.get("mode", b"constant") != b"constant":
        raise ExportError("only paddings of a constant can be trained here")
    before, after = pads[: x.ndim].tolist(), pads[x.ndim :].tolist()
    pairs = [size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair]
    return functional.pad(x, pairs, value=_number(value) or 0.0)


def _reshape(attributes: Mapping[str, Any], x: Tensor, shape: np.ndarray) -> Tensor:
    if attributes.get("allowzero", 0):
        return x.reshape(shape.tolist())
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Gemm": _gemm,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Relu": lambda attributes, x: x.relu(),
    "Clip": lambda attributes, x, low=None, high=None: x.clamp(_number(low), _number(high)),
    "LeakyRelu": lambda attributes, x: functional.leaky_relu(x, attributes.get("alpha", 0.01)),
    "Add": lambda attributes, a, b: a + b,
    "Sub": lambda attributes, a, b: a - b,
    "Mul": lambda attributes, a, b: a * b,
    "MatMul": lambda attributes, a, b: a @ b,
    "Concat": lambda attributes, *parts: torch.cat(parts, attributes["axis"]),
    "Transpose": lambda attributes, x: x.permute(attributes["perm"]),
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "GlobalAveragePool": lambda attributes, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "Sigmoid": lambda attributes, x: x.sigmoid(),
    "Identity": lambda attributes, x: x,
}
