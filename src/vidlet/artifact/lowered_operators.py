"""What each ONNX operator becomes in a TFLite file."""

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
_COMBINED = {
    "Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Max": "MAXIMUM", "Min": "MINIMUM", "Pow": "POW",
    "Greater": "GREATER", "GreaterOrEqual": "GREATER_EQUAL", "Less": "LESS", "LessOrEqual": "LESS_EQUAL",
    "Equal": "EQUAL", "And": "LOGICAL_AND", "Or": "LOGICAL_OR",
}  # fmt: skip
_CHANGED = {
    "Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH", "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT", "Abs": "ABS",
    "Floor": "FLOOR", "Neg": "NEG", "Sign": "SIGN", "HardSwish": "HARD_SWISH", "Not": "LOGICAL_NOT",
}  # fmt: skip
_REDUCED = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}
_CELL_OPTIONS = (
    "activations",
    "activation_alpha",
    "activation_beta",
    "clip",
    "input_forget",
)  # that nothing is done for
_MOST_AXES = 4  # that kernels of numbers by numbers take


def _keep(file: Lowering, op: Operation, index: int, picture: bool = False) -> None:
    """The result of an operator, in one of the two orders."""
    (file.pictures if picture else file.plain)[op.outputs[0]] = index


def _shape(file: Lowering, index: int) -> tuple[int, ...]:
    return file.file.tensors[index].shape


# Numbers by numbers


def _change(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    _keep(file, op, file.changed(_CHANGED[op.kind], file.tensor(op.inputs[0], picture)), picture)


def _clip(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    low, high = op.options["min"], op.options["max"]
    if (low, high) == (0, 6):
        index = file.changed("RELU6", index)
    else:
        for kind, bound in (("MAXIMUM", low), ("MINIMUM", high)):
            if bound is not None:
                dtype = file.file.tensors[index].dtype
                index = file.combined(kind, index, file.store(np.array(bound, dtype)))
    _keep(file, op, index, picture)


def _combine(file: Lowering, op: Operation) -> None:
    shape = file.shapes[op.outputs[0]]
    picture = any(file.is_picture(name) for name in op.inputs) and all(
        len(file.shapes[name]) == 4 or file.is_constant(name) for name in op.inputs
    )
    indices = [_operand(file, name, picture, len(shape)) for name in op.inputs]
    dtype = "bool" if file.dtype(op.outputs[0]) == "bool" else ""
    small = shape
    if len(shape) > _MOST_AXES:
        small = tuple(size for size in shape if size != 1)
        indices = [_without_ones(file, index, shape) for index in indices]
    index = indices[0]
    for other in indices[1:]:
        index = file.combined(_COMBINED[op.kind], index, other, dtype)
    _keep(file, op, index if small == shape else file.reshaped(index, shape), picture)


def _operand(file: Lowering, name: str, picture: bool, rank: int) -> int:
    """An operand in the order of its operator."""
    if not file.is_constant(name):
        return file.tensor(name, picture)
    value = file.constant(name)
    if picture and value.ndim:
        value = value.reshape([1] * (rank - value.ndim) + list(value.shape)).transpose(0, 2, 3, 1)
    return file.store(value, name)


def _without_ones(file: Lowering, index: int, shape: Sequence[int]) -> int:
    """A tensor without those axes that have one number in the result ``shape``."""
    found = [1] * (len(shape) - len(_shape(file, index))) + list(_shape(file, index))
    return file.reshaped(index, [size for size, wide in zip(found, shape, strict=True) if wide != 1])


def _where(file: Lowering, op: Operation) -> None:
    shape = file.shapes[op.outputs[0]]
    indices = [_operand(file, name, False, len(shape)) for name in op.inputs]
    _keep(file, op, file.emit("SELECT_V2", indices, shape, dtype=file.dtype(op.outputs[0]), options="SelectV2Options"))


def _cast(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    dtype = file.dtype(op.outputs[0])
    if file.file.tensors[index].dtype != dtype:
        index = file.emit("CAST", [index], _shape(file, index), dtype=dtype, options="CastOptions")
    _keep(file, op, index, picture)


def _leaky(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    slope = file.combined("MUL", index, file.store(np.float32(op.options.get("alpha", 0.01))))
    _keep(file, op, file.combined("MAXIMUM", index, slope), picture)


def _reciprocal(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    _keep(file, op, file.combined("DIV", file.store(np.float32(1)), file.tensor(op.inputs[0], picture)), picture)


def _batch_norm(file: Lowering, op: Operation) -> None:
    """A factor and an offset a channel."""
    picture = file.is_picture(op.inputs[0])
    factor, offset, mean, variance = (file.constant(name) for name in op.inputs[1:5])
    factor = factor / np.sqrt(variance + np.float32(op.options.get("epsilon", 1e-5)))
    shape = [-1] if picture else [-1] + [1] * (len(file.shapes[op.inputs[0]]) - 2)
    index = file.combined("MUL", file.tensor(op.inputs[0], picture), file.store(factor.reshape(shape)))
    _keep(file, op, file.combined("ADD", index, file.store((offset - mean * factor).reshape(shape))), picture)


# Moved numbers


def _alike(file: Lowering, op: Operation) -> None:
    """Identity and its kin."""
    picture = file.is_picture(op.inputs[0])
    _keep(file, op, file.tensor(op.inputs[0], picture), picture)


def _reshape(file: Lowering, op: Operation) -> None:
    _keep(file, op, file.reshaped(file.tensor(op.inputs[0]), file.shapes[op.outputs[0]]))


def _transpose(file: Lowering, op: Operation) -> None:
    source = op.inputs[0]
    order = tuple(op.options.get("perm") or reversed(range(len(file.shapes[source]))))
    if order == (0, 3, 1, 2) and not file.is_picture(source):
        _keep(file, op, file.tensor(source), picture=True)  # the same numbers, called a picture
    elif order == (0, 2, 3, 1) and file.is_picture(source):
        _keep(file, op, file.tensor(source, picture=True))
    else:
        _keep(file, op, file.transposed(file.tensor(source), order))


def _concat(file: Lowering, op: Operation) -> None:
    names = [name for name in op.inputs if not file.is_empty(name)]
    axis, shape = op.options["axis"], list(file.shapes[op.outputs[0]])
    picture = len(shape) == 4 and all(file.is_picture(name) for name in names)
    indices = [file.tensor(name, picture) for name in names]
    if picture:
        axis, shape = (0, 3, 1, 2)[axis], [shape[i] for i in (0, 2, 3, 1)]
    index = indices[0]
    if len(indices) > 1:
        dtype = file.dtype(op.outputs[0])
        index = file.emit(
            "CONCATENATION", indices, shape, dtype=dtype, options="ConcatenationOptions", fields={"axis": axis}
        )
    _keep(file, op, index, picture)


def _slice(file: Lowering, op: Operation) -> None:
    index = file.tensor(op.inputs[0])
    ranges = zip(op.options["axes"], op.options["starts"], op.options["ends"], op.options["steps"], strict=True)
    for axis, start, end, step in ranges:
        size = _shape(file, index)[axis]
        places = range(size)[start:end:step]
        if places == range(size):
            continue
        if places.step == 1:
            index = file.sliced(index, axis, places.start, places.stop)
        else:
            index = _taken(file, index, axis, places)
    _keep(file, op, index)


def _taken(file: Lowering, index: int, axis: int, places: Sequence[int]) -> int:
    """The numbers at some places of an axis."""
    shape = list(_shape(file, index))
    shape[axis] = len(places)
    return file.same_type(
        "GATHER", index, [file.numbers(places)], shape, options="GatherOptions", fields={"axis": axis}
    )


def _split(file: Lowering, op: Operation) -> None:
    index, axis, first = file.tensor(op.inputs[0]), op.options["axis"], 0
    for name in op.outputs:
        end = first + file.shapes[name][axis]
        file.plain[name] = file.sliced(index, axis, first, end)
        first = end


def _gather(file: Lowering, op: Operation) -> None:
    axis = op.options["axis"]
    index = file.tensor(op.inputs[0])
    if not file.is_constant(op.inputs[1]):
        raise ExportError(f"Gather ({op.outputs[0]}): computed places have no form in TFLite here")
    places = file.constant(op.inputs[1]) % _shape(file, index)[axis]
    if places.ndim == 0:
        found = file.sliced(index, axis, int(places), int(places) + 1)
        _keep(file, op, file.reshaped(found, file.shapes[op.outputs[0]]))
        return
    found = _taken(file, index, axis, places.ravel().tolist())
    _keep(file, op, file.reshaped(found, file.shapes[op.outputs[0]]))


def _gather_nd(file: Lowering, op: Operation) -> None:
    if op.options.get("batch_dims", 0):
        raise ExportError(f"GatherND ({op.outputs[0]}): places of a batch have no form in TFLite here")
    index, places = (file.tensor(name) for name in op.inputs)
    _keep(file, op, file.same_type("GATHER_ND", index, [places], file.shapes[op.outputs[0]], options="GatherNdOptions"))


def _expand(file: Lowering, op: Operation) -> None:
    index, shape = file.tensor(op.inputs[0]), file.shapes[op.outputs[0]]
    if int(np.prod(_shape(file, index))) == int(np.prod(shape)):
        _keep(file, op, file.reshaped(index, shape))
        return
    _keep(file, op, file.same_type("BROADCAST_TO", index, [file.numbers(shape)], shape, version=2))


def _pad(file: Lowering, op: Operation) -> None:
    pads = op.options["pads"]
    if op.options.get("mode", "constant") != "constant":
        raise ExportError(f"Pad ({op.outputs[0]}): only constant numbers are padded in TFLite here")
    pairs = np.array(pads, np.int32).reshape(2, -1).T
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    if picture:
        pairs = pairs[[0, 2, 3, 1]]
    _keep(file, op, _padded(file, index, pairs, op.options["value"]), picture)


def _padded(file: Lowering, index: int, pairs: np.ndarray, value: float = 0.0) -> int:
    """A tensor with ``pairs`` (axes, 2) of numbers before and behind; of integers the number 0."""
    shape = [size + int(sum(pair)) for size, pair in zip(_shape(file, index), pairs, strict=True)]
    more = [file.store(np.ascontiguousarray(pairs, np.int32))]
    if value:
        more.append(file.store(np.float32(value)))
    kind = "PADV2" if value else "PAD"
    return file.same_type(kind, index, more, shape, options="PadV2Options" if value else "PadOptions")


# Many numbers to one


def _reduce(file: Lowering, op: Operation) -> None:
    kind, axes, keep = _REDUCED[op.kind], op.options["axes"], op.options["keepdims"]
    source = op.inputs[0]
    picture = file.is_picture(source) and (keep or axes == [2, 3] or 1 in axes)
    index = file.tensor(source, picture)
    places = [(0, 3, 1, 2)[axis] for axis in axes] if picture else axes
    _keep(file, op, _reduced(file, kind, index, places, keep), picture and keep)


def _reduced(file: Lowering, kind: str, index: int, axes: Sequence[int], keep: bool) -> int:
    found = file.file.tensors[index]
    shape = [1 if i in axes else size for i, size in enumerate(found.shape) if keep or i not in axes]
    fields = {"keepDims": keep}
    inputs = [index, file.numbers(sorted(axes))]
    return file.emit(kind, inputs, shape, dtype=found.dtype, options="ReducerOptions", fields=fields)


def _norm(file: Lowering, op: Operation) -> None:
    index = file.tensor(op.inputs[0])
    total = _reduced(file, "SUM", file.combined("MUL", index, index), op.options["axes"], op.options["keepdims"])
    _keep(file, op, file.changed("SQRT", total))


def _log_sum_exp(file: Lowering, op: Operation) -> None:
    index, axes = file.tensor(op.inputs[0]), op.options["axes"]
    _, total, largest = _exponentials(file, index, axes)
    found = file.combined("ADD", file.changed("LOG", total), largest)
    _keep(file, op, file.reshaped(found, file.shapes[op.outputs[0]]))


def _exponentials(file: Lowering, index: int, axes: Sequence[int]) -> tuple[int, int, int]:
    """Numbers less their largest, the sum of their exponentials, and the largest."""
    largest = _reduced(file, "REDUCE_MAX", index, axes, True)
    less = file.combined("SUB", index, largest)
    return less, _reduced(file, "SUM", file.changed("EXP", less), axes, True), largest


def _softmax(file: Lowering, op: Operation) -> None:
    index, axes = file.tensor(op.inputs[0]), op.options["axes"]
    if axes == [len(_shape(file, index)) - 1] and op.kind == "Softmax":
        shape = _shape(file, index)
        _keep(file, op, file.emit("SOFTMAX", [index], shape, options="SoftmaxOptions", fields={"beta": 1.0}))
        return
    less, total, _ = _exponentials(file, index, axes)
    if op.kind == "LogSoftmax":
        _keep(file, op, file.combined("SUB", less, file.changed("LOG", total)))
    else:
        _keep(file, op, file.combined("DIV", file.changed("EXP", less), total))


def _layer_norm(file: Lowering, op: Operation) -> None:
    index = file.tensor(op.inputs[0])
    axes = list(range(op.options["axis"], len(_shape(file, index))))
    less = file.combined("SUB", index, _reduced(file, "MEAN", index, axes, True))
    spread = _reduced(file, "MEAN", file.combined("MUL", less, less), axes, True)
    spread = file.combined("ADD", spread, file.store(np.float32(op.options.get("epsilon", 1e-5))))
    found = file.combined("DIV", less, file.changed("SQRT", spread))
    for kind, name in zip(("MUL", "ADD"), op.inputs[1:], strict=False):
        found = file.combined(kind, found, file.tensor(name))
    _keep(file, op, found)


# Products


def _matmul(file: Lowering, op: Operation) -> None:
    a, b = op.inputs
    shape = file.shapes[op.outputs[0]]
    if file.is_constant(b) and len(file.shapes[b]) == 2:
        rows = file.reshaped(file.tensor(a), (int(np.prod(shape[:-1])), file.shapes[a][-1]))
        found = file.product(rows, file.constant(b).T, None, b)
        _keep(file, op, file.reshaped(found, shape))
        return
    indices = [file.tensor(name) for name in (a, b)]
    _keep(file, op, file.emit("BATCH_MATMUL", indices, shape, options="BatchMatMulOptions"))


def _gemm(file: Lowering, op: Operation) -> None:
    a, b, *rest = op.inputs
    if not file.is_constant(b) or op.options.get("transA", 0):
        raise ExportError(f"Gemm ({op.outputs[0]}): only products with stored matrices have a form in TFLite here")
    matrix = file.constant(b) * np.float32(op.options.get("alpha", 1.0))
    index = file.product(file.tensor(a), matrix if op.options.get("transB", 0) else matrix.T, None, b)
    if rest:
        more = file.tensor(rest[0])
        beta = op.options.get("beta", 1.0)
        if beta != 1.0:
            more = file.combined("MUL", more, file.store(np.float32(beta)))
        index = file.combined("ADD", index, more)
    _keep(file, op, index)


# Recurrent layers, one frame


def _gru(file: Lowering, op: Operation) -> None:
    """Gates in ONNX' order: update, reset, new (ONNX operator GRU)."""
    x, h, weights, recurrent, bias, size = _cell(file, op, 3)
    after = bool(op.options.get("linear_before_reset", 0))
    given = file.product(x, weights, bias[: 3 * size], op.inputs[1])
    kept = file.product(h, recurrent[: 2 * size], bias[3 * size : 5 * size], f"{op.inputs[2]}.gates")
    gates = file.changed("LOGISTIC", file.combined("ADD", file.sliced(given, 1, 0, 2 * size), kept))
    z, r = (file.sliced(gates, 1, i * size, (i + 1) * size) for i in (0, 1))
    matrix, more = recurrent[2 * size :], bias[5 * size :]
    if after:
        new = file.combined("MUL", r, file.product(h, matrix, more, op.inputs[2]))
    else:
        new = file.product(file.combined("MUL", r, h), matrix, more, op.inputs[2])
    new = file.changed("TANH", file.combined("ADD", file.sliced(given, 1, 2 * size, 3 * size), new))
    kept = file.combined("MUL", z, file.combined("SUB", h, new))
    _end_of_cell(file, op, [file.combined("ADD", new, kept)])


def _lstm(file: Lowering, op: Operation) -> None:
    """Gates in ONNX' order: input, output, forget, cell (ONNX operator LSTM)."""
    x, h, weights, recurrent, bias, size = _cell(file, op, 4)
    state = file.reshaped(file.tensor(op.inputs[6]), (1, size))
    given = file.product(x, weights, bias[: 4 * size], op.inputs[1])
    kept = file.product(h, recurrent, bias[4 * size :], op.inputs[2])
    total = file.combined("ADD", given, kept)
    parts = [file.sliced(total, 1, i * size, (i + 1) * size) for i in range(4)]
    i, o, f = (file.changed("LOGISTIC", part) for part in parts[:3])
    state = file.combined(
        "ADD", file.combined("MUL", f, state), file.combined("MUL", i, file.changed("TANH", parts[3]))
    )
    _end_of_cell(file, op, [file.combined("MUL", o, file.changed("TANH", state)), state])


def _cell(file: Lowering, op: Operation, gates: int) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray, int]:
    """Input (1, I), state (1, H), matrices, biases (of the input, then of the state) and H."""
    plain = op.options.get("direction", "forward") == "forward" and not op.options.get("layout", 0)
    if not plain or any(op.options.get(name) for name in _CELL_OPTIONS) or len(op.inputs) < 6:
        raise ExportError(f"{op.kind} ({op.outputs[0]}): only plain layers that go forward have a form in TFLite here")
    weights, recurrent = (file.constant(name)[0] for name in op.inputs[1:3])
    size = recurrent.shape[1]
    bias = file.constant(op.inputs[3])[0] if op.inputs[3] else np.zeros(2 * gates * size, np.float32)
    x = file.reshaped(file.tensor(op.inputs[0]), (1, weights.shape[1]))
    h = file.reshaped(file.tensor(op.inputs[5]), (1, size))
    return x, h, weights, recurrent, bias, size


def _end_of_cell(file: Lowering, op: Operation, states: Sequence[int]) -> None:
    for name, index in zip(op.outputs, [states[0], *states], strict=False):
        if name:
            file.plain[name] = file.reshaped(index, file.shapes[name])


# Pictures


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
        _keep(file, op, index, picture=True)


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
    _keep(file, op, file.reshaped(file.transposed(found, (0, 3, 1, 2)), file.shapes[op.outputs[0]]))


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
    sizes = _shape(file, index)[1:3]
    same = all(_same(*numbers) for numbers in zip(sizes, strides, kernel, dilations, pads[:2], pads[2:], strict=True))
    if any(pads) and not same:
        index = _padded(file, index, np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]))
        sizes = _shape(file, index)[1:3]
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    shape = [
        -(-size // stride) if same and any(pads) else (size - length) // stride + 1
        for size, stride, length in zip(sizes, strides, reach, strict=True)
    ]
    fields = {"padding": SAME if same and any(pads) else VALID, "strideH": strides[0], "strideW": strides[1]}
    if kind:
        fields |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
        channels, options = _shape(file, index)[3], "Pool2DOptions"
    else:
        fields |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
        channels = _shape(file, more[0])[3 if depth else 0]
        kind, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depth else ("CONV_2D", "Conv2DOptions")
        fields |= {"depthMultiplier": channels // _shape(file, index)[3]} if depth else {}
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
        index = _padded(file, index, pairs, 0.0 if mean else float(np.finfo(np.float32).min))
    plain = Operation(op.kind, op.inputs, op.outputs, {**op.options, "pads": [0, 0, 0, 0]})
    kind = "AVERAGE_POOL_2D" if mean else "MAX_POOL_2D"
    _keep(file, op, _windowed(file, plain, index, [], False, kind), picture=True)


def _global_pool(file: Lowering, op: Operation) -> None:
    kind = "MEAN" if op.kind == "GlobalAveragePool" else "REDUCE_MAX"
    _keep(file, op, _reduced(file, kind, file.tensor(op.inputs[0], True), [1, 2], True), picture=True)


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
        "QUANTIZE", [index], _shape(file, index), op.outputs[0], "int8", "QuantizeOptions",
        quantization=shifted(*_scale_of(file, op)),
    )  # fmt: skip
    _keep(file, op, found, picture)


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
    _keep(file, rounding, found, picture=True)
    return True


def _per_channel(scales: np.ndarray, axis: int) -> Quantization:
    return Quantization(tuple(float(scale) for scale in scales), (0,) * len(scales), axis)


def _bias_codes(file: Lowering, name: str, scales: np.ndarray) -> np.ndarray:
    """A bias in int32 whose unit is the product of the scales of picture and weights."""
    found: Codes | None = file.codes.get(name)
    if found is not None and np.allclose(found[1].reshape(-1), scales, rtol=1e-5):
        return found[0].astype(np.int32)
    return np.rint(file.constant(name).astype(np.float64) / scales).astype(np.int32)


LOWERED: dict[str, Callable[[Lowering, Operation], None]] = {
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Dropout": _alike,
    "Expand": _expand,
    "Flatten": _reshape,
    "GRU": _gru,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Identity": _alike,
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Reciprocal": _reciprocal,
    "ReduceL2": _norm,
    "ReduceLogSumExp": _log_sum_exp,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Where": _where,
}
LOWERED |= dict.fromkeys(_COMBINED, _combine) | dict.fromkeys(_CHANGED, _change) | dict.fromkeys(_REDUCED, _reduce)
