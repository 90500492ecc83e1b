"""A first integer convolution that computes several columns at once: the same integers, in half of its time.

ONNX Runtime's quickest integer convolutions take input channels by four and give sixteen or more. A picture has three,
so its bytes are gathered three at a time: 17 % of the time of MobileNetV2, more of a detector's. But rows of pixels
(H, W, C) are, without a copy, rows of blocks (H, W / G, G C), and a convolution that gives the P columns of a block
side by side has kernels of G C channels. The kernels are built from the stored codes when the file is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .graph import Graph, attribute, copy_model

__all__ = ["join_columns", "part_columns"]

TOGETHER, LEAST = 4, 16  # input channels are taken by so many; output channels at least
SMALL = 2000  # places of the map, with fewer of which the kilobyte that it costs is worth more than some microseconds
WASTE = 4.5  # times the multiplications: with more of them it is slower
BY_ROWS, BACK = [0, 3, 1, 2], [0, 2, 3, 1]  # (T, H, W, C) -> (T, C, H, W), and back


@dataclass(frozen=True)
class _Plan:
    """How a convolution computes ``columns`` output columns at once from blocks of ``block`` input columns.

    ``begins`` are the places of the kernel's first column in the blocks that are seen, one an output column; ``pads``
    those of the picture of blocks, (left, right).
    """

    columns: int
    block: int
    seen: int  # blocks
    begins: tuple[int, ...]
    pads: tuple[int, int]


@dataclass(frozen=True)
class _Found:
    """An integer convolution of frames: names of what it reads as (codes, scale, zero point), and of what it gives."""

    conv: onnx.NodeProto
    frames: str
    picture: tuple[str, ...]
    weight: tuple[str, ...]
    bias: tuple[str, ...]  # () where it has none; of a QLinearConv the codes alone
    result: tuple[str, ...]


def join_columns(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose integer convolutions of the frames' bytes compute several columns at once.

    Guarantee: the integers are the same, on every processor. Covered are QLinearConv, and Conv between Dequantize- and
    QuantizeLinear, that read uint8 frames (T, H, W, C) whose width the blocks divide and make maps that are not small;
    others stay as they are.
    """
    graph = Graph(copy_model(model))
    for conv in [node for node in graph.nodes if node.op_type in ("Conv", "QLinearConv")]:
        found = _found(graph, conv)
        plan = _plan(graph, found) if found is not None else None
        if found is not None and plan is not None:
            _Joined(graph, found, plan).write()
    graph.prune()
    return graph.model


def _found(graph: Graph, conv: onnx.NodeProto) -> _Found | None:
    if conv.op_type == "QLinearConv":
        names = list(conv.input)
        parts = [(names[0], *names[1:3]), tuple(names[3:6]), tuple(name for name in names[8:] if name)]
        result = (conv.output[0], *names[6:8])
    else:
        makers = [graph.makers.get(name) for name in conv.input]
        after = graph.only_reader(conv.output[0])
        if after is None or after.op_type != "QuantizeLinear":
            return None
        if any(maker is None or maker.op_type != "DequantizeLinear" for maker in makers):
            return None
        parts = [tuple(maker.input) for maker in makers if maker is not None]
        parts += [()] * (3 - len(parts))
        result = (after.output[0], *after.input[1:])
    turned = graph.makers.get(parts[0][0])
    if turned is None or turned.op_type != "Transpose" or attribute(turned, "perm", []) != BY_ROWS:
        return None
    return _Found(conv, str(turned.input[0]), parts[0], parts[1], parts[2], result)


def _plan(graph: Graph, found: _Found) -> _Plan | None:
    conv, sizes = found.conv, _frame_sizes(graph, found.frames)
    if sizes is None or any(name not in graph.constants for name in (*found.weight, *found.bias)):
        return None
    dims = list(graph.constants[found.weight[0]].dims)
    plain = attribute(conv, "group", 1) == 1 and attribute(conv, "auto_pad", "NOTSET") == "NOTSET"
    if not plain or len(dims) != 4 or dims[1] != sizes[2] or max(attribute(conv, "dilations", [1])) > 1:
        return None
    top, left, bottom, right = attribute(conv, "pads", [0] * 4)
    down, across = attribute(conv, "strides", [1, 1])
    rows, columns = (sizes[0] + top + bottom - dims[2]) // down + 1, (sizes[1] + left + right - dims[3]) // across + 1
    if rows * columns < SMALL:
        return None
    return _blocks(sizes[1], sizes[2], dims[0], dims[3], across, (left, right))


def _frame_sizes(graph: Graph, name: str) -> tuple[int, int, int] | None:
    """(H, W, C) of an input of bytes whose sizes are fixed, or of some of its frames."""
    maker = graph.makers.get(name)
    if maker is not None and maker.op_type == "Slice" and _of_frames(graph, maker):
        return _frame_sizes(graph, maker.input[0])
    for value in graph.proto.input:
        kind = value.type.tensor_type
        if value.name == name and kind.elem_type == onnx.TensorProto.UINT8 and len(kind.shape.dim) == 4:
            height, width, channels = (dim.dim_value for dim in kind.shape.dim[1:])
            return (height, width, channels) if min(height, width, channels) > 0 else None
    return None


def _of_frames(graph: Graph, part: onnx.NodeProto) -> bool:
    """Whether a Slice takes whole frames."""
    axes = part.input[3] if len(part.input) > 3 else ""
    return axes in graph.constants and graph.value(axes).tolist() == [0]


def _blocks(width: int, channels: int, outputs: int, kernel: int, stride: int, pads: tuple[int, int]) -> _Plan | None:
    """The fewest columns with which channels come by four and outputs are enough; None: it would not be quicker."""
    if channels % TOGETHER == 0:
        return None
    columns = TOGETHER // gcd(TOGETHER, stride * channels)
    while columns * outputs < LEAST:
        columns *= 2
    block = columns * stride
    made = (width + sum(pads) - kernel) // stride + 1
    if width % block or made % columns:
        return None
    starts = [stride * p - pads[0] for p in range(columns)]  # of the kernel, from the block's first column on
    first = starts[0] // block
    last = (starts[-1] + kernel - 1) // block
    seen = last - first + 1
    if seen * block / kernel > WASTE:
        return None
    behind = made // columns - 1 + last - (width // block - 1)
    begins = tuple(start - first * block for start in starts)
    return _Plan(columns, block, seen, begins, (-first, behind)) if behind >= 0 else None


class _Joined:
    """Writes the nodes of a convolution of blocks in the place of the node that gave its result."""

    def __init__(self, graph: Graph, found: _Found, plan: _Plan) -> None:
        self.graph, self.found, self.plan = graph, found, plan
        self.stem = graph.fresh("columns")
        self.nodes: list[onnx.NodeProto] = []

    def write(self) -> None:
        graph, found, plan = self.graph, self.found, self.plan
        height, width, channels = _frame_sizes(graph, found.frames) or (0, 0, 0)
        rows = graph.constants[found.weight[0]].dims[2]
        shape = self._numbers("shape", [0, height, width // plan.block, plan.block * channels])
        blocks = self._put("Reshape", [found.frames, shape], "blocks")
        picture = self._put("Transpose", [blocks], "picture", perm=BY_ROWS)
        top, _, bottom, _ = attribute(found.conv, "pads", [0] * 4)
        down = attribute(found.conv, "strides", [1, 1])[0]
        maps = self._convolved(
            picture,
            kernel_shape=[rows, plan.seen], strides=[down, 1], pads=[top, plan.pads[0], bottom, plan.pads[1]],
        )  # fmt: skip
        made = (height + top + bottom - rows) // down + 1
        wide = (width // plan.block + sum(plan.pads) - plan.seen + 1) * plan.columns
        outputs = graph.constants[found.weight[0]].dims[0]
        turned = self._put("Transpose", [maps], "turned", perm=BACK)
        apart = self._put("Reshape", [turned, self._numbers("apart_shape", [0, made, wide, outputs])], "apart")
        self.nodes.append(helper.make_node("Transpose", [apart], [found.result[0]], perm=BY_ROWS))
        place = graph.place(found.result[0])
        graph.set_nodes([*graph.nodes[:place], *self.nodes, *graph.nodes[place + 1 :]])

    def _convolved(self, picture: str, **geometry: Any) -> str:
        found = self.found
        kernels, biases = self._kernels(), [self._for_all(found.bias[0], "biases")] if found.bias else []
        scales = [self._for_all(part[1], f"scales{i}") for i, part in enumerate((found.weight, found.bias)) if part[1:]]
        zeros = [self._for_all(name, "zeros") for name in found.weight[2:]]
        if found.conv.op_type == "QLinearConv":
            inputs = [picture, *found.picture[1:], kernels, *scales, *zeros, *found.result[1:], *biases]
            return self._put("QLinearConv", inputs, "maps", **geometry)
        if biases and _is_product(self.graph, found.picture[1], found.weight[1], found.bias[1]):
            scales[1] = self._put("Mul", [found.picture[1], scales[0]], "bias_scales")  # need not be stored
        read = [self._put("DequantizeLinear", [picture, *found.picture[1:]], "read")]
        read.append(self._put("DequantizeLinear", [kernels, scales[0], *zeros], "weights", axis=0))
        if biases:
            read.append(self._put("DequantizeLinear", [*biases, scales[1]], "bias", axis=0))
        raw = self._put("Conv", read, "raw", **geometry)
        return self._put("QuantizeLinear", [raw, *found.result[1:]], "maps")

    def _kernels(self) -> str:
        """The kernels of all columns (P O, G C, kh, seen), of the stored ones (O, C, kh, kw)."""
        plan, codes = self.plan, self.found.weight[0]
        outputs, channels, rows, kernel = self.graph.constants[codes].dims
        taps = self._put("Transpose", [codes], "taps", perm=BACK)
        parts = []
        for p, begin in enumerate(plan.begins):
            pads = self._numbers(f"pads{p}", [0, 0, begin, 0, 0, 0, plan.seen * plan.block - begin - kernel, 0])
            parts.append(self._put("Pad", [taps, pads], f"part{p}"))
        beside = self._put("Concat", parts, "beside", axis=0)  # (P O, kh, seen G, C)
        shape = self._numbers("kernel_shape", [plan.columns * outputs, rows, plan.seen, plan.block * channels])
        return self._put("Transpose", [self._put("Reshape", [beside, shape], "rows")], "kernels", perm=BY_ROWS)

    def _for_all(self, name: str, title: str) -> str:
        """Numbers of output channels for all columns; a single number stays."""
        if not self.graph.constants[name].dims:
            return name
        return self._put("Concat", [name] * self.plan.columns, title, axis=0)

    def _numbers(self, name: str, values: Sequence[int]) -> str:
        return self.graph.store(f"{self.stem}.{name}", np.array(values, np.int64))

    def _put(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{self.stem}.{name}"], **attributes))
        return f"{self.stem}.{name}"


def part_columns(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose convolutions compute column by column again, for runtimes with kernels of three channels."""
    graph = Graph(copy_model(model))
    for node in list(graph.nodes):
        if node.op_type == "Transpose" and attribute(node, "perm", []) == BY_ROWS:
            _part(graph, node)
    graph.prune()
    return graph.model


def _part(graph: Graph, last: onnx.NodeProto) -> None:
    """Write the convolution of columns in the place of one of blocks between Dequantize- and QuantizeLinear."""
    quantize = _behind(graph, last.input[0], "Reshape", "Transpose", "QuantizeLinear")
    conv = quantize and _behind(graph, quantize.input[0], "Conv")
    read = conv and _behind(graph, conv.input[0], "DequantizeLinear")
    blocks = read and _behind(graph, read.input[0], "Transpose", "Reshape")
    weights = conv and _behind(graph, conv.input[1], "DequantizeLinear")
    beside = weights and _behind(graph, weights.input[0], "Transpose", "Reshape", "Concat")
    pad = beside and _behind(graph, beside.input[0], "Pad")
    taps = pad and _behind(graph, pad.input[0], "Transpose")
    sizes = blocks and _frame_sizes(graph, blocks.input[0])
    if not (quantize and conv and read and blocks and weights and beside and pad and taps and sizes):
        return
    width, columns = sizes[1], len(beside.input)
    block = width // int(graph.value(blocks.input[1])[2])
    begin, behind = (int(graph.value(pad.input[1])[i]) for i in (2, 6))
    _, seen = attribute(conv, "kernel_shape", [0, 0])
    kernel, stride = seen * block - begin - behind, block // columns
    top, before, bottom, after = attribute(conv, "pads", [0] * 4)
    left = before * block - begin
    made = (width // block + before + after - seen + 1) * columns
    right = (made - 1) * stride + kernel - left - width
    stem, nodes = graph.fresh("parted"), list[onnx.NodeProto]()

    def put(kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{stem}.{len(nodes)}"], **attributes))
        return f"{stem}.{len(nodes) - 1}"

    def one(name: str) -> str:
        maker = graph.makers.get(name)
        return str(maker.input[0]) if maker is not None and maker.op_type == "Concat" else name

    picture = put("Transpose", [blocks.input[0]], perm=BY_ROWS)
    scale = one(weights.input[1])
    inputs = [put("DequantizeLinear", [picture, *read.input[1:]])]
    inputs.append(put("DequantizeLinear", [taps.input[0], scale, *map(one, weights.input[2:])], axis=0))
    if len(conv.input) > 2:
        bias = graph.makers[conv.input[2]]
        product, own = graph.makers.get(bias.input[1]), one(bias.input[1])
        if product is not None and product.op_type == "Mul":
            own = graph.store(f"{stem}.scale", (graph.value(read.input[1]) * graph.value(scale)).astype(np.float32))
        inputs.append(put("DequantizeLinear", [one(bias.input[0]), own], axis=0))
    down = attribute(conv, "strides", [1, 1])[0]
    rows = attribute(conv, "kernel_shape", [0, 0])[0]
    raw = put("Conv", inputs, kernel_shape=[rows, kernel], strides=[down, stride], pads=[top, left, bottom, right])
    nodes.append(helper.make_node("QuantizeLinear", [raw, *quantize.input[1:]], [last.output[0]]))
    place = graph.place(last.output[0])
    graph.set_nodes([*graph.nodes[:place], *nodes, *graph.nodes[place + 1 :]])


def _behind(graph: Graph, name: str, *kinds: str) -> onnx.NodeProto | None:
    """The last of a row of nodes of these kinds, from the maker of a tensor towards the inputs."""
    node: onnx.NodeProto | None = None
    for kind in kinds:
        node = graph.makers.get(name)
        if node is None or node.op_type != kind:
            return None
        name = node.input[0]
    return node


def _is_product(graph: Graph, *names: str) -> bool:
    """Whether the scale of a bias is, in float32, that of the input times that of the weights."""
    source, weight, bias = map(graph.value, names)
    return np.array_equal((source * weight).astype(np.float32), bias)
