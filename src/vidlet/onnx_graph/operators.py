"""The operators of image networks in PyTorch, for many rows at once: a row is what the graph computes of one picture.

Each takes an operation's options and its tensors. Those of ``PER_ROW`` take a batch in the first axis, as in the file.
The others take ``front`` too: how many axes stand before those that the file knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError

Options = Mapping[str, Any]

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _pairs(before: list[int], after: list[int]) -> list[int]:
    """Paddings of the axes as PyTorch wants them: the last axis first."""
    return [size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair]


def _padded(x: Tensor, options: Options, fill: float) -> tuple[Tensor, list[int] | int]:
    """What is left for the operator itself to pad: uneven paddings are made here."""
    pads, rank = list(options["pads"]), x.ndim - 2
    before, after = pads[:rank], pads[rank:]
    if before == after:
        return x, before
    return functional.pad(x, _pairs(before, after), value=fill), 0


def _conv(options: Options, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, padding = _padded(x, options, 0.0)
    return _CONV[x.ndim - 2](
        x, weight, bias, options["strides"], padding, options["dilations"], options.get("group", 1)
    )  # fmt: skip


def _conv_transpose(options: Options, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    pads, rank = list(options["pads"]), x.ndim - 2
    if pads[:rank] != pads[rank:] or options.get("output_shape"):
        raise ModelError("ConvTranspose with uneven pads or an output_shape is not read")
    return _TRANSPOSED[rank](
        x, weight, bias, options["strides"], pads[:rank], options.get("output_padding") or 0, options.get("group", 1),
        options["dilations"],
    )  # fmt: skip


def _max_pool(options: Options, x: Tensor) -> Tensor:
    x, padding = _padded(x, options, -torch.inf)
    whole = bool(options.get("ceil_mode", 0))
    return _MAXIMUM[x.ndim - 2](
        x, options["kernel_shape"], options["strides"], padding, options["dilations"], whole
    )  # fmt: skip


def _average_pool(options: Options, x: Tensor) -> Tensor:
    if max(options["dilations"]) > 1:
        raise ModelError("an average over a dilated window is not read")
    whole, counted = bool(options.get("ceil_mode", 0)), bool(options.get("count_include_pad", 0))
    padded, padding = _padded(x, options, 0.0)
    pool = _AVERAGE[x.ndim - 2]
    found = pool(padded, options["kernel_shape"], options["strides"], padding, whole, counted)
    if counted or padded is x:
        return found
    ones = _padded(torch.ones_like(x[:1, :1]), options, 0.0)[0]  # uneven paddings that do not count
    return found / pool(ones, options["kernel_shape"], options["strides"], 0, whole)


def _global(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda options, x: reduce(x, tuple(range(2, x.ndim)), keepdim=True)


def _batch_norm(options: Options, x: Tensor, *parameters: Tensor) -> Tensor:
    scale, bias, mean, variance = parameters
    return functional.batch_norm(x, mean, variance, scale, bias, eps=options.get("epsilon", 1e-5))


def _instance_norm(options: Options, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=options.get("epsilon", 1e-5))


def _group_norm(options: Options, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = options["num_groups"]
    if options["per_group"]:
        scale, bias = (values.repeat_interleave(x.shape[1] // groups) for values in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, options.get("epsilon", 1e-5))


def _gemm(options: Options, a: Tensor, b: Tensor, c: Tensor | float = 0.0) -> Tensor:
    if options.get("transA", 0):
        raise ModelError("Gemm of a transposed first matrix mixes pictures")
    b = b.T if options.get("transB", 0) else b
    return options.get("alpha", 1.0) * (a @ b) + options.get("beta", 1.0) * c


def _depth_to_space(options: Options, x: Tensor) -> Tensor:
    side = options["blocksize"]
    if options.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, side)
    rows, channels, height, width = x.shape
    parts = x.reshape(rows, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(rows, channels // side**2, height * side, width * side)


def _space_to_depth(options: Options, x: Tensor) -> Tensor:
    side = options["blocksize"]
    rows, channels, height, width = x.shape
    parts = x.reshape(rows, channels, height // side, side, width // side, side).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(rows, channels * side**2, height // side, width // side)


def resized(options: Options, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Maps (B, C, h, w) in other sizes."""
    mode, coordinates = options["mode"], options["coordinates"]
    if mode == "nearest":
        return _nearest(options, x, sizes)
    if mode != "linear" or options.get("antialias", 0) or x.ndim != 4:
        raise ModelError(f"Resize with mode {mode} is not read; read are nearest, and linear of two axes")
    if coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return functional.interpolate(x, sizes, mode="bilinear", align_corners=coordinates == "align_corners")
    rows, columns = (_shares(*axis).to(x) for axis in _axes(options, x, sizes))
    return ((x @ columns).transpose(2, 3) @ rows).transpose(2, 3)


def _axes(options: Options, x: Tensor, sizes: tuple[int, ...]) -> list[tuple[int, np.ndarray]]:
    """For height, width: how many values there are, and where between them those of the result lie."""
    scales = options.get("scales") or []
    given = scales[2:] if len(scales) == x.ndim else [size / old for size, old in zip(sizes, x.shape[2:], strict=True)]
    whole = zip(x.shape[2:], sizes, given, strict=True)
    return [(int(before), _places(options["coordinates"], int(before), size, scale)) for before, size, scale in whole]


def _shares(before: int, places: np.ndarray) -> Tensor:
    """What each of ``before`` values gives to each of the result, by its distance: a matrix (before, size)."""
    inside = np.clip(places, 0, before - 1)
    return torch.from_numpy(np.clip(1 - np.abs(np.arange(before)[:, None] - inside), 0, 1))


def _nearest(options: Options, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Every value a copy of the one that lies nearest by the file's rule."""
    before = list(x.shape[2:])
    indices = [
        np.clip(_ROUNDING[options["rounding"]](at), 0, n - 1).astype(np.int64) for n, at in _axes(options, x, sizes)
    ]
    whole = [size // old for size, old in zip(sizes, before, strict=True)]
    if all(np.array_equal(i, np.arange(old).repeat(n)) for i, old, n in zip(indices, before, whole, strict=True)):
        return functional.interpolate(x, scale_factor=tuple(float(n) for n in whole), mode="nearest")
    for axis, index in enumerate(indices, 2):
        x = x.index_select(axis, torch.from_numpy(index).to(x.device))
    return x


_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
}


def _places(coordinates: str, before: int, size: int, scale: float) -> np.ndarray:
    """Where each of ``size`` values lies among ``before`` ones."""
    places = np.arange(size, dtype=np.float64)
    if coordinates == "asymmetric":
        return places / scale
    if coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and size > 1):
        return (places + 0.5) / scale - 0.5
    if coordinates in ("pytorch_half_pixel", "align_corners"):
        return places * (before - 1) / max(size - 1, 1)
    raise ModelError(f"Resize with coordinate_transformation_mode {coordinates} is not read")


# Operators on batches of maps (B, C, ...) or rows (B, D): each row of the result is made of that row alone.
PER_ROW: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "Gemm": _gemm,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}


def _clip(options: Options, front: int, x: Tensor) -> Tensor:
    low, high = options["min"], options["max"]
    return x if low is None and high is None else x.clamp(low, high)


def _prelu(options: Options, front: int, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _gelu(options: Options, front: int, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=options.get("approximate", "none"))


def _elu(options: Options, front: int, x: Tensor) -> Tensor:
    return functional.elu(x, options.get("alpha", 1.0))


def _hard_sigmoid(options: Options, front: int, x: Tensor) -> Tensor:
    return (options.get("alpha", 0.2) * x + options.get("beta", 0.5)).clamp(0, 1)


def _swish(options: Options, front: int, x: Tensor) -> Tensor:
    return x * (options.get("alpha", 1.0) * x).sigmoid()


def _cast(options: Options, front: int, x: Tensor) -> Tensor:
    if options["to"] != 1:  # float32
        raise ModelError("Cast to another type than float32 is not read")
    return x


def _of(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of one tensor without options."""
    return lambda options, front, x, *unused: function(x)


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A function of two tensors, of as many as there are, from the left."""

    def folded(options: Options, front: int, first: Tensor, *rest: Tensor) -> Tensor:
        for other in rest:
            first = function(first, other)
        return first

    return folded


# Operators on values of equal ranks that stand at the same place, or are repeated; MatMul's last two axes aside.
BROADCAST: dict[str, Callable[..., Tensor]] = {
    "Abs": _of(torch.abs),
    "Add": _fold(torch.add),
    "Cast": _cast,
    "Clip": _clip,
    "Div": _fold(torch.div),
    "Dropout": _of(lambda x: x),
    "Elu": _elu,
    "Erf": _of(torch.erf),
    "Exp": _of(torch.exp),
    "Gelu": _gelu,
    "Greater": _fold(torch.gt),
    "GreaterOrEqual": _fold(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _of(functional.hardswish),
    "Identity": _of(lambda x: x),
    "LeakyRelu": lambda options, front, x: functional.leaky_relu(x, options.get("alpha", 0.01)),
    "Less": _fold(torch.lt),
    "LessOrEqual": _fold(torch.le),
    "Log": _of(torch.log),
    "MatMul": lambda options, front, a, b: a @ b,
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Mish": _of(functional.mish),
    "Mul": _fold(torch.mul),
    "Neg": _of(torch.neg),
    "PRelu": _prelu,
    "Pow": _fold(torch.pow),
    "Reciprocal": _of(torch.reciprocal),
    "Relu": _of(torch.relu),
    "Selu": _of(functional.selu),
    "Sigmoid": _of(torch.sigmoid),
    "Softplus": _of(functional.softplus),
    "Sqrt": _of(torch.sqrt),
    "Sub": _fold(torch.sub),
    "Sum": _fold(torch.add),
    "Swish": _swish,
    "Tanh": _of(torch.tanh),
    "Where": lambda options, front, chosen, a, b: torch.where(chosen.bool(), a, b),
}


def _concat(options: Options, front: int, *parts: Tensor) -> Tensor:
    return torch.cat(parts, options["axis"] + front)


def _slice(options: Options, front: int, x: Tensor) -> Tensor:
    for start, end, axis, step in zip(
        options["starts"], options["ends"], options["axes"], options["steps"], strict=True
    ):
        if step < 0:
            raise ModelError("a slice backwards is not read")
        place = axis + front
        size = x.shape[place]
        begin, stop = (max(0, min(size, int(v) + size if v < 0 else int(v))) for v in (start, end))
        x = x[(slice(None),) * place + (slice(begin, stop, int(step)),)]
    return x


def _gather(options: Options, front: int, x: Tensor, indices: Any) -> Tensor:
    place = options["axis"] + front
    found = np.asarray(indices)
    found = np.where(found < 0, found + x.shape[place], found)
    if found.ndim == 0:
        return x.select(place, int(found))
    picked = x.index_select(place, torch.as_tensor(found.reshape(-1), device=x.device))
    return picked if found.ndim == 1 else picked.unflatten(place, found.shape)


def _pad(options: Options, front: int, x: Tensor) -> Tensor:
    mode = options.get("mode", "constant")
    half = len(options["pads"]) // 2
    before, after = options["pads"][:half], options["pads"][half:]
    if mode == "constant":
        return x if not any(options["pads"]) else functional.pad(x, _pairs(before, after), value=options["value"])
    if mode not in ("reflect", "edge") or any(before[:2]) or any(after[:2]) or x.ndim != 4:
        raise ModelError(f"Pad with mode {mode} of these axes is not read; expected constant, or height and width")
    sizes = _pairs(before[2:], after[2:])
    return functional.pad(x, sizes, mode="reflect" if mode == "reflect" else "replicate")


def _transpose(options: Options, front: int, x: Tensor) -> Tensor:
    axes = options.get("perm") or range(x.ndim - front)[::-1]
    return x.permute(*range(front), *(axis + front for axis in axes))


def _softmax(options: Options, front: int, x: Tensor) -> Tensor:
    first = options["axes"][0] + front
    if len(options["axes"]) == 1:
        return x.softmax(first)
    return x.flatten(first).softmax(-1).reshape(x.shape)


def _reduction(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduced(options: Options, front: int, x: Tensor) -> Tensor:
        axes = [axis + front for axis in options["axes"]]
        return reduce(x, axes, keepdim=options["keepdims"]) if axes else x

    return reduced


def _layer_norm(options: Options, front: int, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    sizes = x.shape[options["axis"] + front :]
    return functional.layer_norm(x, sizes, scale, bias, options.get("epsilon", 1e-5))


# Operators that move or join what stands at different places of an axis.
ALONG_AXES: dict[str, Callable[..., Tensor]] = {
    "Concat": _concat,
    "Gather": _gather,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": lambda options, front, x: _softmax(options, front, x).log(),
    "Pad": _pad,
    "ReduceL2": _reduction(torch.linalg.vector_norm),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Slice": _slice,
    "Softmax": _softmax,
    "Transpose": _transpose,
}

SHAPED = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")  # the same numbers in another shape
SIZED = ("Resize", "Upsample", "Split", "Expand")  # options beside the shape of the result
KNOWN = (*PER_ROW, *BROADCAST, *ALONG_AXES, *SHAPED, *SIZED)


def axes_touched(kind: str, options: Options, rank: int) -> list[int]:
    """The axes of the file along which an operator of ``ALONG_AXES``, or Split, does something."""
    if kind == "Transpose":
        order = options.get("perm") or range(rank)[::-1]
        return [axis for axis, place in enumerate(order) if axis != place]
    if kind == "Pad":
        return [axis for axis in range(rank) if options["pads"][axis] or options["pads"][axis + rank]]
    if kind == "LayerNormalization":
        return list(range(options["axis"], rank))
    return list(options["axes"]) if "axes" in options else [options["axis"]]
