"""3-D convolutions in integers, as 2-D ones: a kernel over kt frames is a kernel over the channels of kt frames.

ONNX Runtime's QLinearConv has fast kernels for two dimensions only; with three it is slower than float (a small 3-D CNN
on 16 x 56 x 56, one thread: float 31 ms, QLinearConv of three dimensions 62, this 9: speed/integer_kernels.py). So
clips are kept as (N, T, C, H, W): the bytes of neighboring frames are laid side by side and convolved as pictures of
kt C channels. The integers are exactly those of the 3-D convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..onnx_graph import alive, attribute, copy_model
from .calibrate import calibrate_along, channel_means, run_along
from .int8 import QuantizableGraph, conv_inputs, quantize_graph, quantized_tensors

RANGE_CLIPS, RANGE_FRAMES = 12, 16  # clips to measure ranges along, frames of them at once
END = np.iinfo(np.int64).max


def integer_volumes(model: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Return a copy whose 3-D convolutions, with their rectifiers and poolings, compute in integers.

    u8 activations by ranges measured along clips, s8 weights with a scale a channel, as in int8.py; what stands before
    and behind them is untouched, and so is a graph without such convolutions.

    Args:
        clips: frames uint8 (T, H, W, 3) of training clips.
    """
    swapped = relu_before_pool(model)
    ends = _ends(swapped)
    some = clips[:: max(1, len(clips) // RANGE_CLIPS)][:RANGE_CLIPS]
    for until in ends:
        keep = _before_volumes(swapped, until)
        names = quantized_tensors(swapped, until, keep)
        ranges = calibrate_along(swapped, some, names, chunk=RANGE_FRAMES)
        read = conv_inputs(swapped, until, keep)
        means = channel_means(read, run_along(swapped, some, read, RANGE_FRAMES))
        swapped = quantize_graph(swapped, ranges, until, keep, means=means)
    return flatten_volumes(swapped) if ends else swapped


def relu_before_pool(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which a ReLU behind a maximum pooling of a 3-D convolution stands before it: the same values."""
    plan = QuantizableGraph(copy_model(model), None)
    for pool in [node for node in plan.nodes if node.op_type == "MaxPool"]:
        conv, relu = plan.makers.get(pool.input[0]), plan.only_reader(pool.output[0])
        if conv is None or not _is_volume(plan, conv) or relu is None or relu.op_type != "Relu":
            continue
        if plan.only_reader(conv.output[0]) is None:
            continue
        last = relu.output[0]
        relu.input[0], relu.output[0] = conv.output[0], f"{conv.output[0]}.relu"
        pool.input[0], pool.output[0] = relu.output[0], last
    plan.index()
    plan.sort()
    return plan.model


def flatten_volumes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which quantized 3-D convolutions (between Dequantize- and QuantizeLinear) are 2-D QLinearConv.

    The same integers. Convolutions with steps or dilation along the height and width are covered, groups are not, nor
    steps or dilation in time: those stay as they are.
    """
    result = copy_model(model)
    _Flattener(result).write()
    onnx.checker.check_model(result)
    return result


class _Flattener:
    """Writes u8 tensors of clips (N, C, T, H, W) a second time as ``NAME.flat`` (N, T, C, H, W)."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.plan = QuantizableGraph(model, None)
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, np.ndarray] = {}
        self.flat: set[str] = set()
        self.pictures: dict[str, str] = {}  # tensor -> the same as (N T, C, H, W), where it stands so already

    def write(self) -> None:
        for node in self.plan.nodes:
            if any(name in self.flat for name in node.output):
                continue  # a QuantizeLinear whose integers were written with its convolution
            self.nodes.append(node)
            quantize = self._quantized_behind(node)
            if quantize is None:
                continue
            if node.op_type == "Conv" and self._covered(node):
                self._conv(node, quantize)
            elif node.op_type == "MaxPool" and self._source(node) in self.flat:
                self._pool(node, quantize)
        self.plan.set_nodes(alive(self.nodes, self.plan.outputs))
        self.plan.prune(nodes=False)
        for name, values in self.added.items():
            if name in self.plan.readers:
                self.plan.store(name, values)

    def _conv(self, conv: onnx.NodeProto, quantize: onnx.NodeProto) -> None:
        source, target = self._source(conv), str(quantize.output[0])
        x, w = self.plan.makers[conv.input[0]], self.plan.makers[conv.input[1]]
        bias = self.plan.makers[conv.input[2]].input[0] if len(conv.input) > 2 and conv.input[2] else ""
        codes = self.plan.value(w.input[0])  # (O, I, kt, kh, kw)
        outputs, _, frames = codes.shape[:3]
        pads = attribute(conv, "pads", [0] * 6)
        beside = self._beside(self._flat(source), x.input[2], frames, (pads[0], pads[3]), f"{target}.")
        pictures = self._pictures(beside, f"{target}.pictures")  # (N T, kt I, H, W)
        self.added[f"{w.input[0]}.flat"] = np.concatenate([codes[:, :, k] for k in range(frames)], axis=1)
        self.added[f"{w.input[0]}.zeros"] = np.zeros(outputs, np.int8)
        inputs = [
            pictures, x.input[1], x.input[2], f"{w.input[0]}.flat", w.input[1], f"{w.input[0]}.zeros",
            quantize.input[1], quantize.input[2], *([bias] if bias else []),
        ]  # fmt: skip
        self._add(
            "QLinearConv", inputs, f"{target}.maps",
            kernel_shape=codes.shape[3:], pads=[*pads[1:3], *pads[4:6]],
            strides=attribute(conv, "strides", [1] * 3)[1:], dilations=attribute(conv, "dilations", [1] * 3)[1:],
        )  # fmt: skip
        self._clips(f"{target}.maps", beside, target)

    def _pool(self, pool: onnx.NodeProto, quantize: onnx.NodeProto) -> None:
        """Height and width first, on pictures as the convolution gives them: what is left for time is smaller."""
        source, target = self._source(pool), str(quantize.output[0])
        kernel, strides = attribute(pool, "kernel_shape", []), attribute(pool, "strides", [1] * 3)
        whole = {"ceil_mode": attribute(pool, "ceil_mode", 0)}
        pictures = self.pictures.get(source) or self._pictures(f"{source}.flat", f"{target}.pictures")
        if max(*kernel[1:], *strides[1:]) > 1:
            self._add("MaxPool", [pictures], f"{target}.maps", kernel_shape=kernel[1:], strides=strides[1:], **whole)
            pictures = f"{target}.maps"
        if max(kernel[0], strides[0]) == 1:
            self._clips(pictures, f"{source}.flat", target)
            return
        sizes = self._shape([(f"{source}.flat", 0, 2), ("", 0, 0)], f"{target}.long")
        rows = self._add("Reshape", [pictures, sizes], f"{target}.rows")  # a frame is one row: (N, T, C H W)
        picture = self._add("Unsqueeze", [rows, self._keep("one", [1])], f"{target}.picture")  # (N, 1, T, C H W)
        longest = self._add(
            "MaxPool", [picture], f"{target}.longest", kernel_shape=[kernel[0], 1], strides=[strides[0], 1], **whole
        )
        times = self._add("Squeeze", [longest, self._keep("one", [1])], f"{target}.times")
        sizes = self._shape([(times, 0, 2), (pictures, 1, 4)], f"{target}.sizes")
        self._finish(self._add("Reshape", [times, sizes], f"{target}.flat"), target)

    def _beside(self, clips: str, zero: str, frames: int, pads: tuple[int, int], p: str) -> str:
        """(N, T, C, H, W) -> the channels of ``frames`` neighbors side by side, (N, T', frames C, H, W)."""
        if any(pads):
            amounts = self._keep(f"pads{pads[0]}.{pads[1]}", [0, pads[0], 0, 0, 0, 0, pads[1], 0, 0, 0])
            clips = self._add("Pad", [clips, amounts, zero], f"{p}padded")
        if frames == 1:
            return clips
        parts = []
        for k in range(frames):
            behind = frames - 1 - k
            bounds = [self._keep(f"at{k}", [k]), self._keep(f"to{behind}", [-behind if behind else END])]
            parts.append(self._add("Slice", [clips, *bounds, self._keep("one", [1])], f"{p}part{k}"))
        return self._add("Concat", parts, f"{p}beside", axis=2)

    def _pictures(self, clips: str, made: str) -> str:
        """(N, T, C, H, W) -> (N T, C, H, W)."""
        return self._add("Reshape", [clips, self._shape([("", 0, 0), (clips, 2, 5)], f"{made}.shape")], made)

    def _clips(self, pictures: str, like: str, target: str) -> None:
        """(N T, C, H, W) -> (N, T, C, H, W), N and T as in ``like``."""
        self.pictures[target] = pictures
        sizes = self._shape([(like, 0, 2), (pictures, 1, 4)], f"{target}.sizes")
        self._finish(self._add("Reshape", [pictures, sizes], f"{target}.flat"), target)

    def _finish(self, flat: str, target: str) -> None:
        """The tensor ``target`` (N, C, T, H, W), for whoever still reads it."""
        self._add("Transpose", [flat], target, perm=[0, 2, 1, 3, 4])
        self.flat.add(target)

    def _flat(self, source: str) -> str:
        if source not in self.flat:
            self._add("Transpose", [source], f"{source}.flat", perm=[0, 2, 1, 3, 4])
            self.flat.add(source)
        return f"{source}.flat"

    def _shape(self, parts: Sequence[tuple[str, int, int]], made: str) -> str:
        """A shape put together of parts (tensor, from, to) of others'; of no tensor, -1."""
        names = []
        for i, (name, start, end) in enumerate(parts):
            part = self._keep("rest", [-1]) if not name else f"{made}.{i}"
            names.append(part)
            if name:
                self._add("Shape", [name], part, start=start, end=end)
        return self._add("Concat", names, made, axis=0)

    def _quantized_behind(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The QuantizeLinear that alone reads a node's output."""
        after = self.plan.only_reader(node.output[0])
        return after if after is not None and after.op_type == "QuantizeLinear" else None

    def _source(self, node: onnx.NodeProto) -> str:
        """The integers that a node reads, "" where it does not read dequantized ones."""
        maker = self.plan.makers.get(node.input[0])
        return str(maker.input[0]) if maker is not None and maker.op_type == "DequantizeLinear" else ""

    def _covered(self, conv: onnx.NodeProto) -> bool:
        makers = [self.plan.makers.get(name) for name in conv.input if name]
        if not all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
            return False
        codes = makers[1].input[0]  # type: ignore[union-attr]
        return (
            codes in self.plan.constants
            and len(self.plan.constants[codes].dims) == 5
            and attribute(conv, "strides", [1])[0] == attribute(conv, "dilations", [1])[0] == 1
            and attribute(conv, "group", 1) == 1
        )

    def _keep(self, name: str, values: Sequence[int]) -> str:
        self.added[f"volume.{name}"] = np.array(values, np.int64)
        return f"volume.{name}"

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def _is_volume(plan: QuantizableGraph, node: onnx.NodeProto) -> bool:
    """Whether a node is a 3-D convolution with constant weights."""
    return (
        node.op_type == "Conv"
        and all(name in plan.constants for name in node.input[1:] if name)
        and len(plan.constants[node.input[1]].dims) == 5
    )


def _ends(model: onnx.ModelProto) -> list[str]:
    """Tensors behind the last 3-D convolutions (and their rectifiers and poolings), the first of each chain first."""
    plan = QuantizableGraph(model, None)
    ends: list[str] = []
    for node in plan.nodes:
        if not _is_volume(plan, node):
            continue
        end = plan.fused_output(node)
        after = plan.readers.get(end, [])
        if len(after) == 1 and after[0].op_type == "MaxPool":
            end = after[0].output[0]
        before = QuantizableGraph(model, end).inside
        ends = [one for one in ends if one not in before] + [str(end)]
    return ends


def _before_volumes(model: onnx.ModelProto, until: str) -> set[str]:
    """Outputs of the nodes before ``until`` that are no part of its 3-D convolutions: they stay in float."""
    plan = QuantizableGraph(model, until)
    behind: set[str] = set()
    for node in plan.nodes:
        if _is_volume(plan, node) or any(name in behind for name in node.input):
            behind.update(node.output)
    return {name for node in plan.nodes for name in node.output if name in plan.inside - behind}
