"""Large matrix products of heads in integers: linear layers, and GRU and LSTM cells taken apart into such products.

Runtimes have no integer kernel for a GRU, but one for a product: codes of the inputs times codes of the weights, summed
in int32 (Jacob et al. 2018, arXiv:1712.05877). A cell becomes the product of all inputs at once, and a Scan over the
frames with the product of the state in it; sums, gates and states stay float32. A state lies within -1 and 1, so its
range is known; those of inputs are measured along whole clips. The ranges are fixed, so frame by frame equals the clip.

What is small stays float, because it is faster so. Measured on one thread, float -> integer, ms a frame: GRU 96 -> 128
.013 -> .021, 192 -> 256 .030 -> .026, 1280 -> 512 .18 -> .064, 1280 -> 1280 2.35 -> .19.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ..onnx_graph import Graph, alive, attribute, attributes, copy_model
from ..onnx_graph.rewrites import constant_values
from .calibrate import calibrate_along
from .exact import quantize_exactly
from .int8 import Range

MIN_WEIGHTS = 400_000  # of a layer: where integers begin to be faster
STATE: Range = (1 / 127, 128)  # of what a cell hands on
RANGE_CLIPS, RANGE_FRAMES = 12, 16  # clips to measure ranges along, frames of them at once
_GATES = {"GRU": 3, "LSTM": 4}
_MOVES = ("Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity")  # no arithmetic


def product_inputs(model: onnx.ModelProto, min_weights: int = MIN_WEIGHTS) -> list[str]:
    """Tensors whose ranges :func:`integer_products` needs."""
    return list(dict.fromkeys(node.input[0] for node in _Products(model, min_weights).nodes()))


def product_weights(model: onnx.ModelProto, min_weights: int = MIN_WEIGHTS) -> list[str]:
    """Names of the matrices of the layers that :func:`integer_products` writes; a cell's is that of its inputs."""
    return list(dict.fromkeys(node.input[1] for node in _Products(model, min_weights).nodes()))


def product_ranges(
    model: onnx.ModelProto, clips: Sequence[np.ndarray], min_weights: int = MIN_WEIGHTS
) -> dict[str, Range]:
    """The ranges that :func:`integer_products` needs, measured along up to 12 of the clips (T, H, W, 3)."""
    names = product_inputs(model, min_weights)
    some = clips[:: max(1, len(clips) // RANGE_CLIPS)][:RANGE_CLIPS]
    return calibrate_along(model, some, names, chunk=RANGE_FRAMES) if names else {}


def integer_products(
    model: onnx.ModelProto, ranges: Mapping[str, Range], keep: Container[str] = (), min_weights: int = MIN_WEIGHTS
) -> onnx.ModelProto:
    """Return a copy in which large products with constant matrices are computed in integers, 8 bits a weight.

    Per output, ``|w - code * scale| <= scale / 2``; per input, within its range, half a step. The integers are the same
    on every processor (exact.py).

    Args:
        ranges: for at least the tensors of :func:`product_inputs`.
        keep: names of weights whose layers stay float32.
    """
    result = copy_model(model)
    _Products(result, min_weights, keep).write(ranges)
    onnx.checker.check_model(result)
    return result


@dataclass
class _Products:
    """The products of one graph, and what is written in their place."""

    model: onnx.ModelProto
    min_weights: int
    keep: Container[str] = ()

    def __post_init__(self) -> None:
        self.values = constant_floats(self.model, [name for node in self.model.graph.node for name in _weights(node)])
        self.written: list[onnx.NodeProto] = []
        self.added: dict[str, np.ndarray] = {}

    def nodes(self) -> Iterator[onnx.NodeProto]:
        for node in self.model.graph.node:
            large = _weights(node)[:2]
            if not large or any(name not in self.values or name in self.keep for name in _weights(node)):
                continue
            if sum(self.values[name].size for name in large) >= self.min_weights and self._writable(node):
                yield node

    def write(self, ranges: Mapping[str, Range]) -> None:
        chosen = {node.output[0] or node.output[1]: node for node in self.nodes()}
        for node in self.model.graph.node:
            if not any(name in chosen for name in node.output if name):
                self.written.append(node)
            elif node.op_type in _GATES:
                self._cell(node, ranges[node.input[0]])
            else:
                self._linear(node, ranges[node.input[0]])
        graph = Graph(self.model)
        graph.set_nodes(alive(self.written, graph.outputs))
        graph.prune(nodes=False)
        for name, array in self.added.items():
            graph.store(name, array)

    def _linear(self, node: onnx.NodeProto, chosen: Range) -> None:
        weight, output = self.values[node.input[1]], node.output[0]
        if node.op_type == "Gemm" and attribute(node, "transB", 0):
            weight = weight.T  # (in, out)
        biased = node.op_type == "Gemm" and len(node.input) > 2
        product = f"{output}.product" if biased else output
        self._product(node.input[0], weight, node.input[1], chosen, product)
        if biased:
            self._add("Add", [product, node.input[2]], output)

    def _product(self, source: str, weight: np.ndarray, name: str, chosen: Range, output: str) -> None:
        """source (..., in) times weight (in, out), of their codes; stores those of the weight and scales (out,)."""
        codes, scales = quantize_exactly(weight, 1)
        scale, zero_point = self._parameters(chosen)
        self.added[f"{name}.q"] = np.ascontiguousarray(codes)
        self.added[f"{name}.scale"] = (scales.reshape(-1) * np.float32(chosen[0])).astype(np.float32)
        self._add("QuantizeLinear", [source, scale, zero_point], f"{output}.q")
        self._add("MatMulInteger", [f"{output}.q", f"{name}.q", zero_point], f"{output}.sums")
        self._add("Cast", [f"{output}.sums"], f"{output}.float", to=onnx.TensorProto.FLOAT)
        self._add("Mul", [f"{output}.float", f"{name}.scale"], output)

    def _cell(self, node: onnx.NodeProto, chosen: Range) -> None:
        """A GRU or LSTM of inputs (T, N, I) with states (1, N, H)."""
        name = next(made for made in node.output if made)
        gates, hidden = _GATES[node.op_type], int(attribute(node, "hidden_size", 0))
        inputs, state = self.values[node.input[1]][0], self.values[node.input[2]][0]  # (gates * H, I), (gates * H, H)
        bias = self.values[node.input[3]] if any(node.input[3:4]) else np.zeros(2 * gates * hidden)
        self.added[f"{name}.bias"], self.added[f"{name}.state_bias"] = bias.astype(np.float32).reshape(2, -1)  # each
        self.added[f"{name}.axis"] = np.array([0], np.int64)
        self._product(node.input[0], inputs.T, node.input[1], chosen, f"{name}.inputs")  # (T, N, gates * H)
        self._add("Add", [f"{name}.inputs", f"{name}.bias"], f"{name}.sequence")
        states = [node.input[5], *([node.input[6]] if node.op_type == "LSTM" else [])]
        before = [f"{name}.before{i}" for i in range(len(states))]
        after = [f"{name}.after{i}" for i in range(len(states))]
        for source, made in zip(states, before, strict=True):
            self._add("Squeeze", [source, f"{name}.axis"], made)  # (N, H)
        outside, self.written = self.written, []
        body = self._body(node, name, state.T, hidden, len(states))
        self.written = outside
        self._add("Scan", [*before, f"{name}.sequence"], [*after, f"{name}.all"], body=body, num_scan_inputs=1)
        self.added[f"{name}.directions"] = np.array([1], np.int64)
        sources = [(f"{name}.all", f"{name}.directions"), *((state, f"{name}.axis") for state in after)]
        for output, (source, axis) in zip(node.output, sources, strict=False):
            if output:
                self._add("Unsqueeze", [source, axis], output)

    def _body(self, node: onnx.NodeProto, name: str, weight: np.ndarray, hidden: int, states: int) -> onnx.GraphProto:
        """One frame: (h (N, H), [c (N, H)], inputs' part (N, gates * H)) -> (h, [c], h)."""
        p = f"{name}.step."
        self._product(f"{p}h", weight, node.input[2], STATE, f"{p}product")
        self._add("Add", [f"{p}product", f"{name}.state_bias"], f"{p}state")
        (self._gru if node.op_type == "GRU" else self._lstm)(name, p, hidden)
        self._add("Identity", [f"{p}h.next"], f"{p}seen")
        value = helper.make_tensor_value_info
        rows: list[str | int | None] = ["N", hidden]
        wide: list[str | int | None] = ["N", _GATES[node.op_type] * hidden]
        names = ["h", "c"][:states]
        return helper.make_graph(
            self.written,
            "step",
            [*(value(f"{p}{s}", 1, rows) for s in names), value(f"{p}x", 1, wide)],
            [*(value(f"{p}{s}.next", 1, rows) for s in names), value(f"{p}seen", 1, rows)],
        )

    def _gru(self, name: str, p: str, hidden: int) -> None:
        """Gates z, r and the candidate n, whose state part is reset after its product (Cho et al. 2014, as cuDNN)."""
        self.added[f"{name}.two"] = np.array([2 * hidden, hidden], np.int64)
        self.added[f"{name}.one"] = np.array([hidden, hidden], np.int64)
        self._add("Split", [f"{p}x", f"{name}.two"], [f"{p}x.gates", f"{p}x.new"], axis=-1)
        self._add("Split", [f"{p}state", f"{name}.two"], [f"{p}h.gates", f"{p}h.new"], axis=-1)
        self._add("Add", [f"{p}x.gates", f"{p}h.gates"], f"{p}gates")
        self._add("Sigmoid", [f"{p}gates"], f"{p}open")
        self._add("Split", [f"{p}open", f"{name}.one"], [f"{p}z", f"{p}r"], axis=-1)
        self._add("Mul", [f"{p}r", f"{p}h.new"], f"{p}reset")
        self._add("Add", [f"{p}x.new", f"{p}reset"], f"{p}sum")
        self._add("Tanh", [f"{p}sum"], f"{p}n")
        self._add("Sub", [f"{p}h", f"{p}n"], f"{p}old")
        self._add("Mul", [f"{p}z", f"{p}old"], f"{p}part")
        self._add("Add", [f"{p}n", f"{p}part"], f"{p}h.next")

    def _lstm(self, name: str, p: str, hidden: int) -> None:
        """Gates i, o, f and the candidate (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.)."""
        self.added[f"{name}.two"] = np.array([3 * hidden, hidden], np.int64)
        self.added[f"{name}.one"] = np.array([hidden] * 3, np.int64)
        self._add("Add", [f"{p}x", f"{p}state"], f"{p}sum")
        self._add("Split", [f"{p}sum", f"{name}.two"], [f"{p}gates", f"{p}new"], axis=-1)
        self._add("Sigmoid", [f"{p}gates"], f"{p}open")
        self._add("Tanh", [f"{p}new"], f"{p}candidate")
        self._add("Split", [f"{p}open", f"{name}.one"], [f"{p}i", f"{p}o", f"{p}f"], axis=-1)
        self._add("Mul", [f"{p}f", f"{p}c"], f"{p}kept")
        self._add("Mul", [f"{p}i", f"{p}candidate"], f"{p}taken")
        self._add("Add", [f"{p}kept", f"{p}taken"], f"{p}c.next")
        self._add("Tanh", [f"{p}c.next"], f"{p}shown")
        self._add("Mul", [f"{p}o", f"{p}shown"], f"{p}h.next")

    def _writable(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a plain product, or a forward cell with its usual functions and given states."""
        known = attributes(node)
        if node.op_type == "MatMul":
            return self.values[node.input[1]].ndim == 2
        if node.op_type == "Gemm":
            return not known.get("transA", 0) and known.get("alpha", 1.0) == known.get("beta", 1.0) == 1.0
        if node.op_type not in _GATES or {"activations", "clip"} & set(known) or known.get("input_forget", 0):
            return False
        forward = known.get("direction", "forward") == "forward"
        states = [*node.input[5:6], *(node.input[6:7] if node.op_type == "LSTM" else [])]
        given = all(states) and len(states) == (2 if node.op_type == "LSTM" else 1) and not node.input[4]
        usual = node.op_type == "LSTM" or known.get("linear_before_reset", 0) == 1
        return forward and given and usual and not any(node.input[7:]) and not known.get("layout", 0)

    def _add(self, operator: str, inputs: list[str], outputs: str | list[str], **attributes: object) -> None:
        made = [outputs] if isinstance(outputs, str) else outputs
        self.written.append(helper.make_node(operator, inputs, made, **attributes))  # type: ignore[arg-type]

    def _parameters(self, chosen: Range) -> tuple[str, str]:
        scale, zero_point = f"product.scale.{np.float32(chosen[0])!s}", f"product.zero_point.{chosen[1]}"
        self.added[scale], self.added[zero_point] = np.array(chosen[0], np.float32), np.array(chosen[1], np.uint8)
        return scale, zero_point


def _weights(node: onnx.NodeProto) -> list[str]:
    """The inputs of a product that must be constant: matrices, and a cell's bias."""
    if node.op_type in _GATES:
        return [name for name in node.input[1:4] if name]
    return list(node.input[1:2]) if node.op_type in ("MatMul", "Gemm") else []


def constant_floats(model: onnx.ModelProto, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """Values of those of the wanted tensors that are stored as float32, or put together of stored ones alone."""
    values = constant_values(Graph(model), wanted, _MOVES)
    return {name: value for name, value in values.items() if value.dtype == np.float32}
