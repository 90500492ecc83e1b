"""Convolutions and poolings of pictures, and integers, in a TFLite file; the other operators: lowered_operators.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ExportError
from ..onnx_graph.normal import Operation
from .lowering import Codes, Lowering, shifted
from .tflite_file import Quantization

SAME, VALID = 0, 1
_RELU, _RELU6 = 1, 3


def _conv(file: Lowering, op: Operation) -> None:
    axes = len(op.options["kernel_shape"])
    if axes > 2:
        raise ExportError(f"Conv ({op.outputs[0]}): convolutions over time and space have no form in TFLite here")
    if axes == 1:
        _conv_line(file, op)
    elif not _integer_conv(file, op):
        weights = file.constant(op.inputs[1])
        bias = file.constant(op.inputs[2]) if len(op.inputs) > 2 else np.zeros(len(weights), np.float32)
        depth = _is_depthwise(file, op, weights)
        kernel = file.weights(_kernel(weights, depth), op.inputs[1], 3 if depth else 0)
        index = _windowed(file, op, file.tensor(op.inputs[0], True), [kernel, file.store(bias)], depth)
        file.keep(op, index, picture=True)


def _conv_line(file: Lowering, op: Operation) -> None:
    """A convolution over one axis is one over pictures of one row."""
    n, channels, length = file.shapes[op.inputs[0]]
    weights = file.constant(op.inputs[1])[:, :, None]
    bias = file.constant(op.inputs[2]) if len(op.inputs) > 2 else np.zeros(len(weights), np.float32)
    picture = file.transposed(file.reshaped(file.tensor(op.inputs[0]), (n, channels, 1, length)), (0, 2, 3, 1))
    first, last = op.options["pads"]
    more = {name: [1, *op.options[name]] for name in ("strides", "dilations", "kernel_shape")}
    wide = Operation(op.kind, op.inputs, op.outputs, {**op.options, **more, "pads": [0, first, 0, last]})
    depth = op.options.get("group", 1) == channels > 1
    kernel = file.weights(_kernel(weights, depth), op.inputs[1], 3 if depth else 0)
    found = _windowed(file, wide, picture, [kernel, file.store(bias)], depth)
    file.keep(op, file.reshaped(file.transposed(found, (0, 3, 1, 2)), file.shapes[op.outputs[0]]))


def _is_depthwise(file: Lowering, op: Operation, weights: np.ndarray) -> bool:
    groups = op.options.get("group", 1)
    return bool(groups > 1 and groups == file.shapes[op.inputs[0]][1])


def _kernel(weights: np.ndarray, depth: bool) -> np.ndarray:
    """(O, I, h, w) as TFLite has it: (O, h, w, I), or (1, h, w, O) of a convolution a channel."""
    return np.ascontiguousarray(weights.transpose(1, 2, 3, 0) if depth else weights.transpose(0, 2, 3, 1))


def _windowed(
    file: Lowering, op: Operation, index: int, more: Sequence[int], depth: bool, kind: str = "", **rest: Any
) -> int:
    """A convolution or pooling of a picture; paddings that TFLite's rule SAME would not give are an operator before."""
    strides, kernel, pads = (op.options[name] for name in ("strides", "kernel_shape", "pads"))
    dilations = op.options.get("dilations") or [1, 1]
    sizes = file.shape_of(index)[1:3]
    same = all(_same(*numbers) for numbers in zip(sizes, strides, kernel, dilations, pads[:2], pads[2:], strict=True))
    if any(pads) and not same:
        index = file.padded(index, np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]))
        sizes = file.shape_of(index)[1:3]
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    shape = [
        -(-size // stride) if same and any(pads) else (size - length) // stride + 1
        for size, stride, length in zip(sizes, strides, reach, strict=True)
    ]
    fields = {"padding": SAME if same and any(pads) else VALID, "strideH": strides[0], "strideW": strides[1]}
    if kind:
        fields |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
        channels, options = file.shape_of(index)[3], "Pool2DOptions"
    else:
        fields |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
        channels = file.shape_of(more[0])[3 if depth else 0]
        kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depth else ("CONV_2D", "Conv2DOptions")
        fields |= {"depthMultiplier": channels // file.shape_of(index)[3]} if depth else {}
    fields |= rest.pop("fields", {})
    return file.emit(kind, [index, *more], [1, *shape, channels], options=options, fields=fields, **rest)


def _same(size: int, stride: int, kernel: int, dilation: int, before: int, after: int) -> bool:
    """Whether paddings are those of TFLite's rule SAME."""
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return (before, after) == (total // 2, total - total // 2)


def _pool(file: Lowering, op: Operation) -> None:
    pads, mean = list(op.options["pads"]), op.kind == "AveragePool"
    whole = not op.options.get("ceil_mode", 0)
    if not whole:  # a last window that reaches over the edge
        sizes = zip(file.shapes[op.inputs[0]][2:], op.options["kernel_shape"], op.options["strides"], strict=True)
        for i, (size, kernel, stride) in enumerate(sizes):
            pads[i + 2] += -(size + pads[i] + pads[i + 2] - kernel) % stride
    zeros = whole and op.options.get("count_include_pad", 0)  # count in a mean
    if len(op.options["kernel_shape"]) != 2 or (mean and any(pads) and not zeros):
        raise ExportError(f"{op.kind} ({op.outputs[0]}): this pooling has no form in TFLite here")
    index = file.tensor(op.inputs[0], True)
    if any(pads):
        pairs = np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]])
        index = file.padded(index, pairs, 0.0 if mean else float(np.finfo(np.float32).min))
    plain = Operation(op.kind, op.inputs, op.outputs, {**op.options, "pads": [0, 0, 0, 0]})
    kind = "AVERAGE_POOL_2D" if mean else "MAX_POOL_2D"
    file.keep(op, _windowed(file, plain, index, [], False, kind), picture=True)


def _global_pool(file: Lowering, op: Operation) -> None:
    kind = "MEAN" if op.kind == "GlobalAveragePool" else "REDUCE_MAX"
    file.keep(op, file.reduced(kind, file.tensor(op.inputs[0], True), [1, 2], True), picture=True)


# Integers


def _scale_of(file: Lowering, op: Operation) -> tuple[float, int]:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear of a whole tensor of uint8."""
    scale = file.graph.value(op.inputs[1])
    zero = file.graph.value(op.inputs[2]) if len(op.inputs) > 2 else np.uint8(0)
    if scale.size != 1 or zero.dtype != np.uint8:
        raise ExportError(f"{op.kind} ({op.outputs[0]}): only codes of uint8 and one scale have a form in TFLite here")
    return float(scale.item()), int(zero.item())


def _dequantize(file: Lowering, op: Operation) -> None:
    """The float values are only made where an operator asks for them."""
    file.integers[op.outputs[0]] = (op.inputs[0], *_scale_of(file, op))


def _quantize(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    found = file.emit(
        "QUANTIZE", [index], file.shape_of(index), op.outputs[0], "int8", "QuantizeOptions",
        quantization=shifted(*_scale_of(file, op)),
    )  # fmt: skip
    file.keep(op, found, picture)


def _rounded(file: Lowering, name: str) -> tuple[Operation, int] | None:
    """The QuantizeLinear that alone reads a tensor, and the rectifier between the two as TFLite fuses it."""
    fused, op = 0, None
    node = file.graph.only_reader(name)
    if node is not None and node.op_type in ("Relu", "Clip"):
        op = file.read[name]
        bounds = (0, None) if op.kind == "Relu" else (op.options["min"], op.options["max"])
        fused = {(0, None): _RELU, (0, 6): _RELU6}.get(bounds, 0)
        if not fused:
            return None
        name = op.outputs[0]
        node = file.graph.only_reader(name)
    if node is None or node.op_type != "QuantizeLinear":
        return None
    file.done |= {name, *([op.outputs[0]] if op else [])}
    return file.read[name], fused


def _integer_conv(file: Lowering, op: Operation) -> bool:
    """A convolution between integers: what stands between DequantizeLinear and QuantizeLinear."""
    source, kernel = op.inputs[:2]
    if source not in file.integers or kernel not in file.codes or len(op.inputs) < 3:
        return False
    after = _rounded(file, op.outputs[0])
    if after is None:
        return False
    rounding, fused = after
    codes, scale, zero = file.integers[source]
    weights, scales = file.codes[kernel]
    scales = np.broadcast_to(scales.reshape(-1), len(weights))
    depth = _is_depthwise(file, op, weights)
    bias = _bias_codes(file, op.inputs[2], scale * scales)
    more = [
        file.store(_kernel(weights, depth), kernel, _per_channel(scales, 3 if depth else 0)),
        file.store(bias, op.inputs[2], _per_channel(scale * scales, 0)),
    ]
    index = file.code_tensor(codes, scale, zero, True)
    found = _windowed(
        file, op, index, more, depth, name=rounding.outputs[0], dtype="int8", version=3,
        quantization=shifted(*_scale_of(file, rounding)), fields={"fusedActivationFunction": fused},
    )  # fmt: skip
    file.done.add(rounding.outputs[0])
    file.keep(rounding, found, picture=True)
    return True


def _per_channel(scales: np.ndarray, axis: int) -> Quantization:
    return Quantization(tuple(float(scale) for scale in scales), (0,) * len(scales), axis)


def _bias_codes(file: Lowering, name: str, scales: np.ndarray) -> np.ndarray:
    """A bias in int32 whose unit is the product of the scales of picture and weights."""
    found: Codes | None = file.codes.get(name)
    if found is not None and np.allclose(found[1].reshape(-1), scales, rtol=1e-5):
        return found[0].astype(np.int32)
    return np.rint(file.constant(name).astype(np.float64) / scales).astype(np.int32)


PICTURES: dict[str, Callable[[Lowering, Operation], None]] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MaxPool": _pool,
    "QuantizeLinear": _quantize,
}
