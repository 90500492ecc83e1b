"""What each ONNX operator becomes in a TFLite file; lowered_pictures.py has convolutions, poolings and integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ExportError
from ..onnx_graph.normal import Operation
from .lowered_pictures import PICTURES
from .lowering import Lowering

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


# Numbers by numbers


def _change(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    file.keep(op, file.changed(_CHANGED[op.kind], file.tensor(op.inputs[0], picture)), picture)


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
    file.keep(op, index, picture)


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
    file.keep(op, index if small == shape else file.reshaped(index, shape), picture)


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
    found = [1] * (len(shape) - len(file.shape_of(index))) + list(file.shape_of(index))
    return file.reshaped(index, [size for size, wide in zip(found, shape, strict=True) if wide != 1])


def _where(file: Lowering, op: Operation) -> None:
    shape = file.shapes[op.outputs[0]]
    indices = [_operand(file, name, False, len(shape)) for name in op.inputs]
    file.keep(op, file.emit("SELECT_V2", indices, shape, dtype=file.dtype(op.outputs[0]), options="SelectV2Options"))


def _cast(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    dtype = file.dtype(op.outputs[0])
    if file.file.tensors[index].dtype != dtype:
        index = file.emit("CAST", [index], file.shape_of(index), dtype=dtype, options="CastOptions")
    file.keep(op, index, picture)


def _leaky(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    slope = file.combined("MUL", index, file.store(np.float32(op.options.get("alpha", 0.01))))
    file.keep(op, file.combined("MAXIMUM", index, slope), picture)


def _reciprocal(file: Lowering, op: Operation) -> None:
    picture = file.is_picture(op.inputs[0])
    file.keep(op, file.combined("DIV", file.store(np.float32(1)), file.tensor(op.inputs[0], picture)), picture)


def _batch_norm(file: Lowering, op: Operation) -> None:
    """A factor and an offset a channel."""
    picture = file.is_picture(op.inputs[0])
    factor, offset, mean, variance = (file.constant(name) for name in op.inputs[1:5])
    factor = factor / np.sqrt(variance + np.float32(op.options.get("epsilon", 1e-5)))
    shape = [-1] if picture else [-1] + [1] * (len(file.shapes[op.inputs[0]]) - 2)
    index = file.combined("MUL", file.tensor(op.inputs[0], picture), file.store(factor.reshape(shape)))
    file.keep(op, file.combined("ADD", index, file.store((offset - mean * factor).reshape(shape))), picture)


# Moved numbers


def _alike(file: Lowering, op: Operation) -> None:
    """Identity and its kin."""
    picture = file.is_picture(op.inputs[0])
    file.keep(op, file.tensor(op.inputs[0], picture), picture)


def _reshape(file: Lowering, op: Operation) -> None:
    file.keep(op, file.reshaped(file.tensor(op.inputs[0]), file.shapes[op.outputs[0]]))


def _transpose(file: Lowering, op: Operation) -> None:
    source = op.inputs[0]
    order = tuple(op.options.get("perm") or reversed(range(len(file.shapes[source]))))
    if order == (0, 3, 1, 2) and not file.is_picture(source):
        file.keep(op, file.tensor(source), picture=True)  # the same numbers, called a picture
    elif order == (0, 2, 3, 1) and file.is_picture(source):
        file.keep(op, file.tensor(source, picture=True))
    else:
        file.keep(op, file.transposed(file.tensor(source), order))


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
    file.keep(op, index, picture)


def _slice(file: Lowering, op: Operation) -> None:
    index = file.tensor(op.inputs[0])
    ranges = zip(op.options["axes"], op.options["starts"], op.options["ends"], op.options["steps"], strict=True)
    for axis, start, end, step in ranges:
        size = file.shape_of(index)[axis]
        places = range(size)[start:end:step]
        if places == range(size):
            continue
        if places.step == 1:
            index = file.sliced(index, axis, places.start, places.stop)
        else:
            index = _taken(file, index, axis, places)
    file.keep(op, index)


def _taken(file: Lowering, index: int, axis: int, places: Sequence[int]) -> int:
    """The numbers at some places of an axis."""
    shape = list(file.shape_of(index))
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
    places = file.constant(op.inputs[1]) % file.shape_of(index)[axis]
    if places.ndim == 0:
        found = file.sliced(index, axis, int(places), int(places) + 1)
        file.keep(op, file.reshaped(found, file.shapes[op.outputs[0]]))
        return
    found = _taken(file, index, axis, places.ravel().tolist())
    file.keep(op, file.reshaped(found, file.shapes[op.outputs[0]]))


def _gather_nd(file: Lowering, op: Operation) -> None:
    if op.options.get("batch_dims", 0):
        raise ExportError(f"GatherND ({op.outputs[0]}): places of a batch have no form in TFLite here")
    index, places = (file.tensor(name) for name in op.inputs)
    file.keep(op, file.same_type("GATHER_ND", index, [places], file.shapes[op.outputs[0]], options="GatherNdOptions"))


def _expand(file: Lowering, op: Operation) -> None:
    index, shape = file.tensor(op.inputs[0]), file.shapes[op.outputs[0]]
    if int(np.prod(file.shape_of(index))) == int(np.prod(shape)):
        file.keep(op, file.reshaped(index, shape))
        return
    file.keep(op, file.same_type("BROADCAST_TO", index, [file.numbers(shape)], shape, version=2))


def _pad(file: Lowering, op: Operation) -> None:
    pads = op.options["pads"]
    if op.options.get("mode", "constant") != "constant":
        raise ExportError(f"Pad ({op.outputs[0]}): only constant numbers are padded in TFLite here")
    pairs = np.array(pads, np.int32).reshape(2, -1).T
    picture = file.is_picture(op.inputs[0])
    index = file.tensor(op.inputs[0], picture)
    if picture:
        pairs = pairs[[0, 2, 3, 1]]
    file.keep(op, file.padded(index, pairs, op.options["value"]), picture)


# Many numbers to one


def _reduce(file: Lowering, op: Operation) -> None:
    kind, axes, keep = _REDUCED[op.kind], op.options["axes"], op.options["keepdims"]
    source = op.inputs[0]
    picture = file.is_picture(source) and (keep or axes == [2, 3] or 1 in axes)
    index = file.tensor(source, picture)
    places = [(0, 3, 1, 2)[axis] for axis in axes] if picture else axes
    file.keep(op, file.reduced(kind, index, places, keep), picture and keep)


def _norm(file: Lowering, op: Operation) -> None:
    index = file.tensor(op.inputs[0])
    total = file.reduced("SUM", file.combined("MUL", index, index), op.options["axes"], op.options["keepdims"])
    file.keep(op, file.changed("SQRT", total))


def _log_sum_exp(file: Lowering, op: Operation) -> None:
    index, axes = file.tensor(op.inputs[0]), op.options["axes"]
    _, total, largest = _exponentials(file, index, axes)
    found = file.combined("ADD", file.changed("LOG", total), largest)
    file.keep(op, file.reshaped(found, file.shapes[op.outputs[0]]))


def _exponentials(file: Lowering, index: int, axes: Sequence[int]) -> tuple[int, int, int]:
    """Numbers less their largest, the sum of their exponentials, and the largest."""
    largest = file.reduced("REDUCE_MAX", index, axes, True)
    less = file.combined("SUB", index, largest)
    return less, file.reduced("SUM", file.changed("EXP", less), axes, True), largest


def _softmax(file: Lowering, op: Operation) -> None:
    index, axes = file.tensor(op.inputs[0]), op.options["axes"]
    if axes == [len(file.shape_of(index)) - 1] and op.kind == "Softmax":
        shape = file.shape_of(index)
        file.keep(op, file.emit("SOFTMAX", [index], shape, options="SoftmaxOptions", fields={"beta": 1.0}))
        return
    less, total, _ = _exponentials(file, index, axes)
    if op.kind == "LogSoftmax":
        file.keep(op, file.combined("SUB", less, file.changed("LOG", total)))
    else:
        file.keep(op, file.combined("DIV", file.changed("EXP", less), total))


def _layer_norm(file: Lowering, op: Operation) -> None:
    index = file.tensor(op.inputs[0])
    axes = list(range(op.options["axis"], len(file.shape_of(index))))
    less = file.combined("SUB", index, file.reduced("MEAN", index, axes, True))
    spread = file.reduced("MEAN", file.combined("MUL", less, less), axes, True)
    spread = file.combined("ADD", spread, file.store(np.float32(op.options.get("epsilon", 1e-5))))
    found = file.combined("DIV", less, file.changed("SQRT", spread))
    for kind, name in zip(("MUL", "ADD"), op.inputs[1:], strict=False):
        found = file.combined(kind, found, file.tensor(name))
    file.keep(op, found)


# Products


def _matmul(file: Lowering, op: Operation) -> None:
    a, b = op.inputs
    shape = file.shapes[op.outputs[0]]
    if file.is_constant(b) and len(file.shapes[b]) == 2:
        rows = file.reshaped(file.tensor(a), (int(np.prod(shape[:-1])), file.shapes[a][-1]))
        found = file.product(rows, file.constant(b).T, None, b)
        file.keep(op, file.reshaped(found, shape))
        return
    indices = [file.tensor(name) for name in (a, b)]
    file.keep(op, file.emit("BATCH_MATMUL", indices, shape, options="BatchMatMulOptions"))


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
    file.keep(op, index)


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


LOWERED: dict[str, Callable[[Lowering, Operation], None]] = {
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _alike,
    "Expand": _expand,
    "Flatten": _reshape,
    "GRU": _gru,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "Identity": _alike,
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Pad": _pad,
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
LOWERED |= PICTURES
LOWERED |= dict.fromkeys(_COMBINED, _combine) | dict.fromkeys(_CHANGED, _change) | dict.fromkeys(_REDUCED, _reduce)
