"""What each operator that we allow makes: the shape, the element type, the values where they are few, and the work.

A file is judged before it runs (``safety.py``): its graph is walked with these rules for inputs of a given size. A rule
gives shapes that are never smaller than the true ones; where it cannot, it raises ``Unbounded`` and the file is
refused. The rules follow the operator pages of ONNX (https://onnx.ai/onnx/operators/), opset 9 to 25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .known import BOOL, FLOAT, INT32, INT64, UINT8, Call, Made, Shape, Unbounded

Rule = Callable[[Call], Made]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < max(rank, 1):
        raise Unbounded(f"names axis {axis} of {rank}")
    return axis % rank if rank else 0


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of an elementwise operator; sizes that do not fit count as the larger one."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(0 if 0 in dims else max(dims) for dims in zip(*padded, strict=True))


def _same(call: Call) -> Made:
    return [call.made(call[0].dims) for _ in call.node.outputs]


def _cast(call: Call) -> Made:
    return [call.made(call[0].dims, call.number("to", FLOAT))]


def _quantize(call: Call) -> Made:
    code = call[2].type if call.has(2) else call.number("output_dtype", UINT8) or UINT8
    return [call.made(call[0].dims, code)]


def _elementwise(code: int | None = None, like: int = 0) -> Rule:
    def rule(call: Call) -> Made:
        dims = broadcast([known.dims for known in call.inputs if known is not None])
        return [call.made(dims, call[like].type if code is None else code)]

    return rule


def _whole_division(call: Call) -> Made:
    """Div and Mod: a division of whole numbers by zero ends the process, so the divisor must be known."""
    if call[0].type not in (FLOAT, 10, 11, 16):
        divisor = call[1].values if call[1].values is not None else call[1].low
        if divisor is None or not np.all(divisor):
            raise Unbounded("divides whole numbers by what may be zero")
    return _elementwise()(call)


def _matmul(code: int | None = None, second: int = 1, typed_by: int = 0) -> Rule:
    def rule(call: Call) -> Made:
        a, b = call[0].dims, call[second].dims
        if not a or not b:
            raise Unbounded("multiplies a single number as a matrix")
        left, right = a[:-1], b[-1:] if len(b) > 1 else ()
        batch = broadcast([a[:-2], b[:-2]])
        dims = (*batch, *left[-1:], *right)
        return [call.made(dims, call[typed_by].type if code is None else code)]

    return rule


def _gemm(call: Call) -> Made:
    a, b = call[0].dims, call[1].dims
    if len(a) != 2 or len(b) != 2:
        raise Unbounded("is no product of two matrices")
    return [call.made((a[1] if call.number("transA") else a[0], b[0] if call.number("transB") else b[1]))]


def _spaces(call: Call, given: Shape, kernel: Sequence[int], ceil: bool = False) -> list[int]:
    """Output sizes of a window that moves over ``given``."""
    rank = len(given)
    strides, dilations = call.ints("strides") or [1] * rank, call.ints("dilations") or [1] * rank
    pads = call.ints("pads") or [0] * (2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise Unbounded("has a kernel, strides, dilations or pads of another rank than its input")
    if min([*kernel, *strides, *dilations], default=1) < 1 or min(pads, default=0) < 0:
        raise Unbounded("has a kernel, strides, dilations or pads that make no sense")
    auto, found = call.text("auto_pad", "NOTSET"), []
    for i, size in enumerate(given):
        reach = (kernel[i] - 1) * dilations[i] + 1
        if auto.startswith("SAME"):
            found.append(-(-size // strides[i]))
            continue
        free = size - reach + (pads[i] + pads[i + rank] if auto == "NOTSET" else 0)
        found.append(max((-(-free // strides[i]) if ceil else free // strides[i]) + 1, 0))
    return found


def _conv(weight: int = 1, code: int | None = None, typed_by: int = 0) -> Rule:
    def rule(call: Call) -> Made:
        x, w = call[0].dims, call[weight].dims
        if len(x) != len(w) or len(x) < 3:
            raise Unbounded(f"has an input of {len(x)} and a kernel of {len(w)} dimensions")
        dims = (x[0], w[0], *_spaces(call, x[2:], w[2:]))
        return [call.made(dims, call[typed_by].type if code is None else code)]

    return rule


def _conv_transpose(call: Call) -> Made:
    x, w = call[0].dims, call[1].dims
    if len(x) != len(w) or len(x) < 3:
        raise Unbounded(f"has an input of {len(x)} and a kernel of {len(w)} dimensions")
    rank = len(x) - 2
    strides, dilations = call.ints("strides") or [1] * rank, call.ints("dilations") or [1] * rank
    more, asked = call.ints("output_padding") or [0] * rank, call.ints("output_shape")
    if not len(strides) == len(dilations) == len(more) == len(asked or more) == rank:
        raise Unbounded("has strides, dilations or paddings of another rank than its input")
    whole = [
        strides[i] * (x[2 + i] - 1) + more[i] + (w[2 + i] - 1) * dilations[i] + 1 for i in range(rank)
    ]  # pads only make it smaller
    dims = [max(a, b) for a, b in zip(whole, asked, strict=True)] if asked else whole
    return [call.made((x[0], w[1] * call.number("group", 1), *dims), exact=False)]


def _pool(call: Call) -> Made:
    x, kernel = call[0].dims, call.ints("kernel_shape")
    if kernel is None or len(x) < 3:
        raise Unbounded("has no kernel, or nothing to move it over")
    dims = (*x[:2], *_spaces(call, x[2:], kernel, bool(call.number("ceil_mode"))))
    return [call.made(dims), call.made(dims, INT64)][: len(call.node.outputs)]


def _global_pool(call: Call) -> Made:
    x = call[0].dims
    return [call.made((*x[:2], *(1 for _ in x[2:])))]


def _cell(gates: int) -> Rule:
    """RNN, GRU, LSTM: inputs (T, N, I), weights (directions, gates * H, I), states (directions, N, H)."""

    def rule(call: Call) -> Made:
        x, w, r = call[0].dims, call[1].dims, call[2].dims
        if len(x) != 3 or len(w) != 3 or len(r) != 3 or w[1] != gates * r[2] or call.number("layout"):
            raise Unbounded("is no recurrent cell with inputs (T, N, I)")
        state = call.made((w[0], x[1], r[2]))
        return [call.made((x[0], w[0], x[1], r[2])), state, state][: len(call.node.outputs)]

    return rule


def _reshape(call: Call) -> Made:
    data, (asked, sure) = call[0], call.most(1)
    dims = list(asked)
    for i, size in enumerate(dims):
        if size == 0 and not call.number("allowzero"):
            if i >= len(data.dims):
                raise Unbounded("copies a dimension that is not there")
            dims[i] = data.dims[i]
    if dims.count(-1) > 1 or any(size < -1 for size in dims):
        raise Unbounded(f"asks for the shape {asked}")
    if -1 in dims:
        rest = math.prod(size for size in dims if size != -1)
        if sure and data.exact and rest and data.elements % rest:
            raise Unbounded(f"asks for the shape {asked} of {data.elements} elements")
        smallest = rest if sure else 1
        dims[dims.index(-1)] = -(-data.elements // max(smallest, 1))
    elif sure and data.exact and math.prod(dims) != data.elements:
        raise Unbounded(f"asks for the shape {asked} of {data.elements} elements")
    return [call.made(dims, exact=sure)]


def _flatten(call: Call) -> Made:
    dims, axis = call[0].dims, call.number("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return [call.made((math.prod(dims[:axis]), math.prod(dims[axis:])))]


def _unsqueeze(call: Call) -> Made:
    dims, axes = list(call[0].dims), call.whole(1, "axes")
    rank = len(dims) + len(axes)
    for axis in sorted(axis_of(axis, rank) for axis in axes):
        dims.insert(axis, 1)
    return [call.made(dims)]


def _squeeze(call: Call) -> Made:
    dims = call[0].dims
    if call.has(1) or "axes" in call.node.attributes:
        gone = {axis_of(axis, len(dims)) for axis in call.whole(1, "axes")}
        if any(dims[axis] > 1 and call[0].exact for axis in gone):
            raise Unbounded("takes away a dimension that is not 1")
    elif call[0].exact:
        gone = {axis for axis, size in enumerate(dims) if size == 1}
    else:
        raise Unbounded("takes away dimensions that are not known beforehand")
    return [call.made([size for axis, size in enumerate(dims) if axis not in gone])]


def _transpose(call: Call) -> Made:
    dims = call[0].dims
    order = call.ints("perm") or list(range(len(dims)))[::-1]
    if sorted(order) != list(range(len(dims))):
        raise Unbounded(f"has the order {order} of {len(dims)} axes")
    return [call.made([dims[axis] for axis in order])]


def _concat(call: Call) -> Made:
    shapes = [known.dims for known in call.inputs if known is not None]
    if not shapes or len({len(shape) for shape in shapes}) != 1:
        raise Unbounded("joins tensors of different ranks")
    axis = axis_of(call.number("axis"), len(shapes[0]))
    dims = [max(sizes) for sizes in zip(*shapes, strict=True)]
    dims[axis] = sum(shape[axis] for shape in shapes)
    return [call.made(dims)]


def _split(call: Call) -> Made:
    dims, count = call[0].dims, len(call.node.outputs)
    axis = axis_of(call.number("axis"), len(dims))
    if call.has(1) or "split" in call.node.attributes:
        sizes = call.whole(1, "split")
    else:
        each = -(-dims[axis] // max(count, 1))
        sizes = [max(min(each, dims[axis] - i * each), 0) for i in range(count)]
    if len(sizes) != count or min(sizes, default=0) < 0 or sum(sizes) > dims[axis]:
        raise Unbounded(f"splits {dims[axis]} into {sizes[:8]}")
    return [call.made((*dims[:axis], size, *dims[axis + 1 :])) for size in sizes]


def _slice(call: Call) -> Made:
    dims = list(call[0].dims)
    try:
        starts, ends = call.whole(1, "starts"), call.whole(2, "ends")
        axes = call.whole(3, "axes", range(len(starts)))
        steps = call.whole(4, default=[1] * len(starts))
    except Unbounded:
        return [call.made(dims, exact=False)]  # a part is never larger than the whole
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis_of(axis, len(dims))
        if step == 0:
            raise Unbounded("has a step of 0")
        if call[0].exact:
            dims[place] = len(range(*slice(start, end, step).indices(dims[place])))
    return [call.made(dims)]


def _gather(call: Call) -> Made:
    data, indices = call[0].dims, call[1].dims
    axis = axis_of(call.number("axis"), len(data))
    return [call.made((*data[:axis], *indices, *data[axis + 1 :]))]


def _gather_nd(call: Call) -> Made:
    data, indices, batch = call[0].dims, call[1].dims, call.number("batch_dims")
    if not indices or indices[-1] + batch > len(data):
        raise Unbounded("has indices of more dimensions than its data")
    return [call.made((*indices[:-1], *data[batch + indices[-1] :]))]


def _gather_elements(call: Call) -> Made:
    return [call.made(call[1].dims)]


def _expand(call: Call) -> Made:
    asked, sure = call.most(1)
    if any(size < 0 for size in asked):
        raise Unbounded(f"asks for the shape {asked}")
    return [call.made(broadcast([call[0].dims, tuple(asked)]), exact=sure)]


def _tile(call: Call) -> Made:
    dims, (times, sure) = call[0].dims, call.most(1)
    if len(times) != len(dims):
        raise Unbounded("has as many repeats as its input has no dimensions")
    return [call.made([a * b for a, b in zip(dims, times, strict=True)], exact=sure)]


def _pad(call: Call) -> Made:
    dims, pads = list(call[0].dims), call.whole(1, "pads")
    axes = call.whole(3, default=range(len(dims)))
    if len(pads) != 2 * len(axes):
        raise Unbounded(f"has {len(pads)} pads for {len(axes)} axes")
    for i, axis in enumerate(axes):
        dims[axis_of(axis, len(dims))] += pads[i] + pads[i + len(axes)]
    return [call.made([max(size, 0) for size in dims])]


def _constant_of_shape(call: Call) -> Made:
    asked, sure = call.most(0)
    value = call.node.attributes.get("value")
    code = value.tensors[0].data_type if value is not None and value.tensors else FLOAT
    return [call.made(asked, code, exact=sure)]


def _range(call: Call) -> Made:
    (delta,) = call.numbers(2)
    start, limit = call[0], call[1]
    if start.low is None or start.high is None or limit.low is None or limit.high is None or delta == 0:
        raise Unbounded("counts between numbers that are not known beforehand, or by 0")
    ends = (limit.high, start.low) if delta > 0 else (limit.low, start.high)
    first, last = (float(np.ravel(values)[0]) for values in ends)
    sure = start.low is start.high and limit.low is limit.high
    return [call.made((max(math.ceil((first - last) / delta), 0),), exact=sure)]


def _resize(call: Call) -> Made:
    dims = list(call[0].dims)
    axes = call.ints("axes") or list(range(len(dims)))
    if call.has(3):
        sizes: list[int] = call.whole(3)
        if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Unbounded("keeps the aspect ratio")
    else:
        scales = call.numbers(2 if len(call.inputs) > 2 else 1)
        sizes = [math.ceil(dims[axis_of(axis, len(dims))] * s) for axis, s in zip(axes, scales, strict=True)]
    for axis, size in zip(axes, sizes, strict=True):
        dims[axis_of(axis, len(dims))] = size
    return [call.made(dims)]


def _reduce(call: Call) -> Made:
    dims = call[0].dims
    axes = call.whole(1, "axes", ())
    if not axes and call.number("noop_with_empty_axes"):
        return [call.made(dims)]
    gone = {axis_of(axis, len(dims)) for axis in axes} if axes else set(range(len(dims)))
    return [call.made(_reduced(dims, gone, bool(call.number("keepdims", 1))))]


def _arg(call: Call) -> Made:
    dims = call[0].dims
    gone = {axis_of(call.number("axis"), len(dims))}
    return [call.made(_reduced(dims, gone, bool(call.number("keepdims", 1))), INT64)]


def _reduced(dims: Shape, gone: set[int], keep: bool) -> list[int]:
    return [1 if axis in gone else size for axis, size in enumerate(dims) if keep or axis not in gone]


def _top_k(call: Call) -> Made:
    dims = list(call[0].dims)
    asked, sure = call.most(1) if call.has(1) else ([call.number("k")], True)
    axis = axis_of(call.number("axis", -1), len(dims))
    dims[axis] = max(min(asked[0], dims[axis]), 0)
    return [call.made(dims, exact=sure), call.made(dims, INT64, exact=sure)]


def _non_max_suppression(call: Call) -> Made:
    boxes, scores = call[0].dims, call[1].dims
    if len(boxes) != 3 or len(scores) != 3:
        raise Unbounded("takes no boxes (B, N, 4) with scores (B, K, N)")
    each = min(call.whole(2)[0], boxes[1]) if call.has(2) else 0
    return [call.made((scores[0] * scores[1] * max(each, 0), 3), INT64, exact=False)]


def _shape(call: Call) -> Made:
    dims = call[0].dims
    start, end = call.number("start"), call.number("end", len(dims))
    found = np.array(dims[slice(start, end)], np.int64)
    low = found if call[0].exact else np.zeros_like(found)
    return [replace(call.made(found.shape, INT64), low=low, high=found, exact=True)]


def _size(call: Call) -> Made:
    found = np.array(call[0].elements, np.int64)
    low = found if call[0].exact else np.zeros_like(found)
    return [replace(call.made((), INT64), low=low, high=found, exact=True)]


def _blocks(grow: bool) -> Rule:
    """DepthToSpace and SpaceToDepth: elements move, their number stays."""

    def rule(call: Call) -> Made:
        block = call.number("blocksize", 1)
        if len(call[0].dims) != 4 or block < 1:
            raise Unbounded("takes no maps (B, C, H, W)")
        b, c, h, w = call[0].dims
        n = block
        return [call.made((b, c // n**2, h * n, w * n) if grow else (b, c * n**2, h // n, w // n))]

    return rule


_UNARY = (
    "Abs", "BatchNormalization", "Ceil", "Clip", "CumSum", "Dropout", "Elu", "Erf", "Exp", "Floor", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax",
    "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softmax", "Softplus", "Sqrt", "Tanh",
)  # fmt: skip
_BINARY = (
    "Add", "Sub", "Mul", "Pow", "Min", "Max", "Sum", "Mean", "PRelu", "BitShift", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor",
)  # fmt: skip
_COMPARED = ("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_REDUCED = ("Max", "Min", "Sum", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")

RULES: dict[str, Rule] = {
    **dict.fromkeys((*_UNARY, "ScatterElements", "ScatterND"), _same),
    **dict.fromkeys(_BINARY, _elementwise()),
    **dict.fromkeys(_COMPARED, _elementwise(BOOL)),
    **dict.fromkeys([f"Reduce{name}" for name in _REDUCED], _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv(),
    "ConvInteger": _conv(code=INT32),
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _blocks(grow=True),
    "DequantizeLinear": lambda call: [call.made(call[0].dims, call[1].type)],
    "Div": _whole_division,
    "Expand": _expand,
    "Flatten": _flatten,
    "GRU": _cell(3),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "LSTM": _cell(4),
    "MatMul": _matmul(),
    "MatMulInteger": _matmul(code=INT32),
    "Mod": _whole_division,
    "NonMaxSuppression": _non_max_suppression,
    "Pad": _pad,
    "QLinearConv": _conv(weight=3, typed_by=7),
    "QLinearMatMul": _matmul(second=3, typed_by=7),
    "QuantizeLinear": _quantize,
    "RNN": _cell(1),
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _blocks(grow=False),
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(like=1),
}
