"""Integer arithmetic written into an ONNX graph: QuantizeLinear and DequantizeLinear around every convolution.

Activations become uint8 (one scale and zero point a tensor), weights int8 (one scale an output channel, symmetric),
biases int32. From this form ONNX Runtime, OpenVINO and others make integer kernels (Jacob et al. 2018,
arXiv:1712.05877). uint8 activations with int8 weights are what x86 computes fastest; the weights are such that
processors without VNNI compute the same integers (exact.py). What rounding them shifts the outputs by in the mean,
the biases take (Nagel et al. 2019, arXiv:1906.04721).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import ExportError
from ..onnx_graph import Graph, alive, copy_model
from .exact import PAIR, clear_of_ties, pair_sums, quantize_exactly

Range = tuple[float, int]  # (scale, zero point): value = scale * (q - zero point), q in 0 ... 255

BIAS_WORTH = 128  # weights of an output, from which on a bias for it adds less than a sixteenth to its bytes
LEVELS = 255
_FUSED = ("Relu", "Clip")
_INTEGER = ("Conv", "Add", "MaxPool", "Concat")
_MOVES = ("Transpose", "Reshape", "Identity", "Slice")  # of numbers, which they leave as they are


def range_of(low: float, high: float) -> Range:
    """The uint8 range that covers [low, high] and holds 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / LEVELS, 1e-9)
    return scale, int(np.clip(np.rint(-low / scale), 0, LEVELS))


def quantized_tensors(model: onnx.ModelProto, until: str = "features", keep: Container[str] = ()) -> list[str]:
    """Tensors whose ranges :func:`quantize_graph` needs, in the order in which they are computed."""
    return QuantizableGraph(model, until, keep).needed()


def quantized_kernels(model: onnx.ModelProto, until: str = "features") -> list[str]:
    """Names of the weights of the convolutions that become integer kernels, in the order in which they are computed."""
    graph = QuantizableGraph(model, until)
    return [node.input[1] for node in graph.nodes if node.op_type == "Conv" and graph.integer(node)]


def conv_inputs(model: onnx.ModelProto, until: str = "features", keep: Container[str] = ()) -> list[str]:
    """Tensors that the convolutions read that become integer kernels: :func:`quantize_graph` can use their means."""
    graph = QuantizableGraph(model, until, keep)
    convs = [node for node in graph.nodes if node.op_type == "Conv" and graph.integer(node)]
    return list(dict.fromkeys(node.input[0] for node in convs))


def ranges_from_tflite(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Give ranges by layer name ("block3.expand", "block3.add") the names of the graph's tensors.

    A convolution is known by the name of its weights ("...block3.expand.conv.weight"), a sum by the projection
    ("block3.project") that it adds.
    """
    found: dict[str, Range] = {}
    graph = QuantizableGraph(model, None)
    for node in graph.nodes:
        key = _layer(node, ranges)
        if key is None:
            continue
        output = graph.fused_output(node)
        found[output] = ranges[key]
        total = f"{key.split('.')[0]}.add"
        for reader in graph.readers.get(output, []):
            if key.endswith(".project") and reader.op_type == "Add" and total in ranges:
                found[reader.output[0]] = ranges[total]
    return found


def quantize_graph(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    until: str = "features",
    keep: Container[str] = (),
    codes: Mapping[str, tuple[np.ndarray, np.ndarray]] = MappingProxyType({}),
    means: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Return a copy in which the ancestors of tensor ``until`` compute in integers; the rest is untouched.

    The integers are the same on every processor: no kernel saturates, whatever the frames (exact.py).

    Conv (with the Clip or Relu behind it), Add, MaxPool and Concat become integer kernels; whatever else stands
    among them reads dequantized values. Features side by side that no convolution reads keep their own precision. uint8
    frames that are only shifted and scaled by one number feed the first convolution without a float pass over them.
    ``until`` keeps its name and stays float32.

    Args:
        ranges: tensor -> (scale, zero point) for at least :func:`quantized_tensors`'s tensors.
        keep: names of weights or outputs of nodes that go on computing in float32.
        codes: weight -> (int8 codes, float32 scales (O, 1, ...)), where they are not to be :func:`quantize_exactly`'s.
        means: of the channels (C,) of :func:`conv_inputs`'s tensors: with them, the outputs' means stay as they were.

    Raises:
        ExportError: a tensor has no range, the graph has no tensor ``until``, or ``codes`` could saturate.
    """
    quantized = copy_model(model)
    _Writer(QuantizableGraph(quantized, until, keep), ranges, codes, means).write()
    onnx.checker.check_model(quantized)
    return quantized


def _layer(node: onnx.NodeProto, names: Mapping[str, object]) -> str | None:
    """The layer among ``names`` whose weights a convolution reads."""
    if node.op_type != "Conv":
        return None
    path = node.input[1].removesuffix(".conv.weight").split(".")
    return next((name for n in (2, 1) if (name := ".".join(path[-n:])) in names), None)


class QuantizableGraph(Graph):
    """A graph of which the nodes before ``until`` (None: no node) can become integer kernels, but for ``keep``."""

    def __init__(self, model: onnx.ModelProto, until: str | None, keep: Container[str] = ()) -> None:
        super().__init__(model)
        self.keep = keep
        if until is not None and until not in self.makers:
            raise ExportError(f"graph has no tensor {until!r} to quantize up to")
        inside = self.ancestors(until) if until is not None else set()
        layers = any(node.op_type == "Conv" and node.output[0] in inside for node in self.nodes)
        self.inside = inside if layers else set()  # without a convolution rounding would save nothing
        convs = [node for node in self.nodes if node.op_type == "Conv" and node.output[0] in self.inside]
        self.read = self.ancestors(*(conv.input[0] for conv in convs))

    def fused_output(self, conv: onnx.NodeProto) -> str:
        """The tensor behind a convolution's activation, or its own output."""
        after = self.only_reader(conv.output[0])
        if after is None or after.op_type not in _FUSED:
            return str(conv.output[0])
        bounded = all(name in self.constants for name in after.input[1:] if name)
        return str(after.output[0] if bounded else conv.output[0])

    def integer(self, node: onnx.NodeProto) -> bool:
        """Whether a node can become an integer kernel."""
        if node.output[0] not in self.inside or node.op_type not in _INTEGER:
            return False
        if node.output[0] in self.keep:
            return False
        if node.op_type == "Concat" and node.output[0] not in self.read:
            return False
        if node.op_type == "Conv":
            return node.input[1] not in self.keep and all(name in self.constants for name in node.input[1:] if name)
        return not any(name in self.constants for name in node.input)

    def within(self, chosen: Range, activation: onnx.NodeProto) -> Range:
        """Shrink a range to what an activation lets through, so that saturation does its work."""
        scale, zero_point = chosen
        low, high = -zero_point * scale, (LEVELS - zero_point) * scale
        if activation.op_type == "Relu":
            bounds = [0.0, np.inf]
        else:
            bounds = [-np.inf, np.inf]
            for i, name in enumerate(activation.input[1:]):
                if name:
                    bounds[i] = float(self.value(name))
        if low >= bounds[0] - scale / 2 and high <= bounds[1] + scale / 2:
            return chosen
        return range_of(max(low, bounds[0]), min(high, bounds[1]))

    def frames_chain(self, tensor: str) -> tuple[str, float, int] | None:
        """(uint8 tensor, scale, zero point) where ``tensor`` is Mul(Sub(Cast(uint8), zero point), scale).

        Where the zero point is 0, the Sub may be absent.
        """
        numbers: dict[str, np.ndarray] = {"Mul": np.ones(()), "Sub": np.zeros(())}
        for kind in numbers:
            node = self.makers.get(tensor)
            if node is not None and node.op_type == kind and node.input[1] in self.constants:
                numbers[kind] = self.value(node.input[1])
                tensor = node.input[0]
            elif kind == "Mul":
                return None
        cast = self.makers.get(tensor)
        if cast is None or cast.op_type != "Cast" or any(number.size != 1 for number in numbers.values()):
            return None
        scale, zero_point = (float(number.reshape(())) for number in numbers.values())
        if not zero_point.is_integer() or not 0 <= zero_point <= LEVELS or not self._is_uint8(cast.input[0]):
            return None
        return cast.input[0], scale, int(zero_point)

    def needed(self) -> list[str]:
        names = []
        for node in self.nodes:
            if not self.integer(node):
                continue
            if node.op_type == "Conv":
                source = node.input[0]
                if source not in names and self.frames_chain(source) is None:
                    names.append(source)
                names.append(self.fused_output(node))
            elif node.op_type in ("Add", "Concat"):
                names += [name for name in node.input if name not in names]
                names.append(node.output[0])
        return list(dict.fromkeys(names))

    def _is_uint8(self, tensor: str) -> bool:
        while (node := self.makers.get(tensor)) is not None and node.op_type in _MOVES:
            tensor = node.input[0]
        return any(
            value.name == tensor and value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
            for value in self.proto.input
        )


class _Writer:
    """Writes the nodes: tensor ``t`` becomes ``t.raw`` -> QuantizeLinear -> ``t.q`` -> DequantizeLinear -> ``t``."""

    def __init__(
        self,
        graph: QuantizableGraph,
        ranges: Mapping[str, Range],
        given: Mapping[str, tuple[np.ndarray, np.ndarray]],
        means: Mapping[str, np.ndarray],
    ) -> None:
        self.graph, self.ranges, self.given, self.means = graph, ranges, given, means
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.done: dict[str, Range] = {}  # quantized tensors

    def write(self) -> None:
        missing = [name for name in self.graph.needed() if name not in self.ranges]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ExportError(f"no range to quantize {', '.join(missing[:3])}{more}")
        needed = set(self.graph.needed())
        for value in self.graph.proto.input:
            if value.name in needed:
                raise ExportError(f"graph input {value.name} is float32 and feeds a convolution; expected uint8 frames")
        skipped: set[str] = set()
        for node in self.graph.nodes:
            if node.output[0] in skipped:
                continue
            if node.op_type == "Mul" and self._write_frames(node):
                continue
            if not self.graph.integer(node):
                self._write_float(node, needed)
            elif node.op_type == "Conv":
                skipped.add(self._write_conv(node))
            elif node.op_type == "MaxPool":
                self._write_pool(node, needed)
            else:
                self._write_quantized(node, node.output[0], self.ranges[node.output[0]])
        self._finish()

    def _write_frames(self, node: onnx.NodeProto) -> bool:
        """Read the bytes of the frames as the quantized picture that they are."""
        chain = self.graph.frames_chain(node.output[0])
        readers = self.graph.readers.get(node.output[0], [])
        if chain is None or not any(self.graph.integer(reader) for reader in readers):
            return False
        source, scale, zero_point = chain
        self._dequantize(source, node.output[0], scale, zero_point)
        self.done[node.output[0]] = (scale, zero_point)
        return True

    def _write_float(self, node: onnx.NodeProto, needed: set[str]) -> None:
        if node.output[0] in needed:
            self._write_quantized(node, node.output[0], self.ranges[node.output[0]])
        else:
            self.nodes.append(node)

    def _write_conv(self, conv: onnx.NodeProto) -> str:
        """Returns the output of the activation that was folded in, which is not to be written again."""
        output = self.graph.fused_output(conv)
        chosen = self.ranges[output]
        if output != conv.output[0]:
            chosen = self.graph.within(chosen, self.graph.makers[output])
        weight = self.graph.value(conv.input[1])
        codes, scales = self.given.get(conv.input[1]) or quantize_exactly(weight)
        if (pair_sums(codes) > PAIR).any():
            raise ExportError(f"the codes of {conv.input[1]} could saturate where two products are added in 16 bits")
        scales, source_scale = scales.reshape(-1), self.done[conv.input[0]][0]
        bias_name = conv.input[2] if len(conv.input) > 2 else ""
        corrected = conv.input[0] in self.means and (bool(bias_name) or weight[0].size >= BIAS_WORTH)
        if bias_name or corrected:
            bias = self.graph.value(bias_name).astype(np.float64) if bias_name else np.zeros(len(codes))
            if corrected:
                bias = bias + _lost(weight, codes, scales, self.means[conv.input[0]])
            floor = (np.abs(bias) / (source_scale * 2.0**30)).astype(np.float32)  # keeps the codes inside int32
            if (floor > scales).any():
                finer, scales = scales, np.maximum(scales, floor)
                shrink = (finer.astype(np.float64) / scales).reshape(-1, *[1] * (codes.ndim - 1))
                codes = np.rint(codes * shrink).astype(np.int8)
            bias_scales = (np.float32(source_scale) * scales).astype(np.float32)
            bias_codes = np.rint(bias / bias_scales).astype(np.int32)
            bias_name = bias_name or f"{conv.input[1]}.bias"
            del conv.input[2:]
            conv.input.append(self._constant_dequantized(bias_name, bias_codes, bias_scales))
        conv.input[1] = self._constant_dequantized(conv.input[1], codes, scales)
        self._write_quantized(conv, output, chosen)
        return output if output != conv.output[0] else ""

    def _write_pool(self, node: onnx.NodeProto, needed: set[str]) -> None:
        if node.input[0] in self.done:  # a maximum keeps the range of what it is taken of
            self._write_quantized(node, node.output[0], self.done[node.input[0]])
        else:
            self._write_float(node, needed)

    def _write_quantized(self, node: onnx.NodeProto, tensor: str, chosen: Range) -> None:
        if node.op_type == "Add" and all(name in self.done for name in node.input):
            a, b = (self.done[name] for name in node.input)
            chosen = (clear_of_ties(a, b, chosen[0])[0], chosen[1])
        node.output[0] = f"{tensor}.raw"
        self.nodes.append(node)
        scale, zero_point = self._parameters(*chosen)
        self.nodes.append(helper.make_node("QuantizeLinear", [node.output[0], scale, zero_point], [f"{tensor}.q"]))
        self._dequantize(f"{tensor}.q", tensor, *chosen)
        self.done[tensor] = chosen

    def _dequantize(self, source: str, tensor: str, scale: float, zero_point: int) -> None:
        names = self._parameters(scale, zero_point)
        self.nodes.append(helper.make_node("DequantizeLinear", [source, *names], [tensor]))

    def _parameters(self, scale: float, zero_point: int) -> tuple[str, str]:
        """Initializers of a scale and a zero point; equal ones are stored once."""
        scale_name, zero_name = f"scale.{np.float32(scale)!s}", f"zero_point.{zero_point}"
        self._store(scale_name, np.float32(scale))
        self._store(zero_name, np.uint8(zero_point))
        return scale_name, zero_name

    def _constant_dequantized(self, name: str, codes: np.ndarray, scales: np.ndarray) -> str:
        self._store(f"{name}.q", codes)
        self._store(f"{name}.scale", scales)
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", f"{name}.scale"], [f"{name}.dq"], axis=0))
        return f"{name}.dq"

    def _store(self, name: str, value: np.ndarray | np.generic) -> None:
        self.added.setdefault(name, numpy_helper.from_array(np.asarray(value), name))

    def _finish(self) -> None:
        self.graph.set_nodes(alive(self.nodes, self.graph.outputs))
        self.graph.prune(nodes=False)
        for name, tensor in self.added.items():
            if name not in self.graph.constants:  # an earlier pass wrote it: names of scales say their values
                self.graph.proto.initializer.append(tensor)


def _lost(weight: np.ndarray, codes: np.ndarray, scales: np.ndarray, means: np.ndarray) -> np.ndarray:
    """What rounding a weight (O, I, ...) takes from the means of the outputs, (O,), given those of the inputs."""
    error = weight - codes * scales.reshape(-1, *[1] * (weight.ndim - 1)).astype(np.float64)
    groups = len(means) // weight.shape[1]
    own = np.repeat(means.reshape(groups, -1), len(weight) // groups, axis=0)  # (O, I)
    lost: np.ndarray = (error.reshape(*own.shape, -1).sum(2) * own).sum(1)
    return lost
