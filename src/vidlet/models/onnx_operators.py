"""Operators of image networks, as PyTorch computes them: values of one picture a row, T rows at once.

Each takes the attributes of the node and its inputs: tensors, or NumPy arrays of whole numbers that the file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import WeightsError

Attributes = Mapping[str, Any]


def _pads(attributes: Attributes) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise WeightsError(f"auto_pad {attributes['auto_pad'].decode()} is not read; expected pads as numbers")
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return top, left, bottom, right


def _padded(x: Tensor, attributes: Attributes, fill: float) -> tuple[Tensor, tuple[int, int]]:
    """What is left for the operator itself to pad: uneven paddings are made here."""
    top, left, bottom, right = _pads(attributes)
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=fill), (0, 0)


def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _padded(x, attributes, 0.0)
    strides, dilations = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    return functional.conv2d(x, weight, bias, strides, padding, dilations, attributes.get("group", 1))


def _max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    x, padding = _padded(x, attributes, -torch.inf)
    whole = bool(attributes.get("ceil_mode", 0))
    return functional.max_pool2d(
        x, attributes["kernel_shape"], attributes.get("strides", (1, 1)), padding, ceil_mode=whole
    )


def _average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    counted = bool(attributes.get("count_include_pad", 0))
    if counted:
        x, padding = _padded(x, attributes, 0.0)
    else:
        top, left, bottom, right = _pads(attributes)
        if (top, left) != (bottom, right):
            raise WeightsError("an average over uneven paddings that do not count is not read")
        padding = (top, left)
    whole = bool(attributes.get("ceil_mode", 0))
    return functional.avg_pool2d(
        x, attributes["kernel_shape"], attributes.get("strides", (1, 1)), padding, whole, counted
    )


def _batch_norm(attributes: Attributes, x: Tensor, *parameters: Tensor) -> Tensor:
    scale, bias, mean, variance = parameters
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | float = 0.0) -> Tensor:
    b = b.T if attributes.get("transB", 0) else b
    return attributes.get("alpha", 1.0) * (a @ b) + attributes.get("beta", 1.0) * c


def _clip(attributes: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    bounds = [attributes.get(key) if v is None else float(v) for key, v in (("min", low), ("max", high))]
    return functional.relu6(x) if bounds == [0.0, 6.0] else x.clamp(*bounds)


def _hard_sigmoid(attributes: Attributes, x: Tensor) -> Tensor:
    return (attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5)).clamp(0, 1)


# Operators on maps (T, C, h, w) or rows (T, D), and elementwise ones.
PLAIN: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda attributes, x: x.mean((2, 3), keepdim=True),
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
}
ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Relu": lambda attributes, x: x.relu(),
    "Clip": _clip,
    "Sigmoid": lambda attributes, x: x.sigmoid(),
    "Tanh": lambda attributes, x: x.tanh(),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda attributes, x: nn.functional.hardswish(x),
    "LeakyRelu": lambda attributes, x: functional.leaky_relu(x, attributes.get("alpha", 0.01)),
    "Add": lambda attributes, a, b: a + b,
    "Sub": lambda attributes, a, b: a - b,
    "Mul": lambda attributes, a, b: a * b,
    "Div": lambda attributes, a, b: a / b,
    "Identity": lambda attributes, x: x,
    "Dropout": lambda attributes, x, *unused: x,
}


FRONT = "front"  # attribute that we add: how many axes stand before those that the file knows


def _place(attributes: Attributes, x: Tensor, axis: int) -> int:
    """Where an axis of the file lies in x."""
    front = attributes[FRONT]
    return int(axis) % (x.ndim - front) + front


def _slice(attributes: Attributes, x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = _place(attributes, x, axis)
        if step < 0:
            raise WeightsError("a slice backwards is not read")
        size = x.shape[place]
        begin, stop = (max(0, min(size, int(v) + size if v < 0 else int(v))) for v in (start, end))
        x = x[(slice(None),) * place + (slice(begin, stop, int(step)),)]
    return x


def _gather(attributes: Attributes, x: Tensor, indices: Any) -> Tensor:
    place = _place(attributes, x, attributes.get("axis", 0))
    if np.ndim(indices) == 0:
        return x.select(place, int(indices))
    return x.index_select(place, torch.as_tensor(np.asarray(indices).reshape(-1)))


def _pad(attributes: Attributes, x: Tensor, pads: Any, value: Any = None, axes: Any = None) -> Tensor:
    if attributes.get("mode", b"constant") != b"constant" or axes is not None:
        raise WeightsError("only paddings of a constant on all axes are read")
    half = len(pads) // 2
    pairs = [int(n) for pair in zip(pads[:half][::-1], pads[half:][::-1], strict=True) for n in pair]
    return x if not any(pairs) else functional.pad(x, pairs, value=0.0 if value is None else float(value))


def _transpose(attributes: Attributes, x: Tensor) -> Tensor:
    front = attributes[FRONT]
    return x.permute(*range(front), *(axis + front for axis in attributes["perm"]))


def _mean(attributes: Attributes, x: Tensor, axes: Any = None) -> Tensor:
    chosen = attributes.get("axes") if axes is None else axes
    assert chosen is not None
    return x.mean([_place(attributes, x, axis) for axis in chosen], keepdim=bool(attributes.get("keepdims", 1)))


# Operators that may move axes: x has ``FRONT`` axes before those that the file knows.
MOVING: dict[str, Callable[..., Tensor]] = {
    "Transpose": _transpose,
    "Concat": lambda attributes, *parts: torch.cat(parts, _place(attributes, parts[0], attributes["axis"])),
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Softmax": lambda attributes, x: x.softmax(_place(attributes, x, attributes.get("axis", -1))),
    "ReduceMean": _mean,
}


def touches_first(kind: str, attributes: Attributes, inputs: Sequence[Any], rank: int) -> bool:
    """Whether an operator does something with the first axis of values of this rank."""
    if kind == "Transpose":
        return bool(attributes["perm"][0] != 0)
    if kind == "Pad":
        return bool(inputs[1][0] or inputs[1][rank])
    if kind == "Slice":
        axes = range(len(inputs[1])) if len(inputs) < 4 or inputs[3] is None else inputs[3]
    elif kind == "ReduceMean":
        axes = attributes.get("axes") or (inputs[1] if len(inputs) > 1 else [0])
    else:
        axes = [attributes.get("axis", -1 if kind == "Softmax" else 0)]
    return any(int(axis) % rank == 0 for axis in axes)


SHAPED = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")  # the same numbers in the shape that the file infers


def resized(attributes: Attributes, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Maps enlarged by whole numbers, every pixel repeated."""
    ratio = [after / before for after, before in zip(shape[2:], x.shape[2:], strict=True)]
    nearest = attributes.get("mode", b"nearest") == b"nearest"
    if not nearest or any(r != round(r) or r < 1 for r in ratio):
        raise WeightsError("only enlarging by whole numbers, mode nearest, is read")
    return functional.interpolate(x, scale_factor=tuple(float(r) for r in ratio), mode="nearest")


READ = sorted([*PLAIN, *ELEMENTWISE, *MOVING, *SHAPED, "Resize", "Split"])
