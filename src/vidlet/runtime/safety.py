"""Whether a model file may run: only operators that we know, and no more memory and work than a model of ours needs.

The graph is walked once for an input of usual size, and once for one that is much longer, with the rules of
``shapes.py``, before a runtime sees it. Refused are operators that are not in ``RULES``, graphs inside of nodes (but
for the loop over frames that our integer cells are), shapes that cannot be bounded beforehand, and more bytes or
multiplications than the limits below. The limits are far above any model of this house.
"""

from __future__ import annotations

import math
from collections import ChainMap, Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from ..errors import ModelError
from .known import Call, Known, Made, Unbounded, known_values
from .onnx_parts import Graph, Node, OnnxFile, Tensor, Value
from .shape_values import with_values
from .shapes import RULES
from .structure import MAX_ELEMENTS, check_structure

FRAMES, WINDOWS = 8, 4  # what free dimensions are judged with: T, and N
LONGER = 128  # times as many frames ...
MOST_GROWTH = 2  # ... may take so many times LONGER as much memory and work: growth with T, not with its square
MAX_LIVE_BYTES = 2**33  # of all tensors that are there at one time, for FRAMES frames
MAX_CONSTANT_BYTES = 2**31  # of what is made of stored tensors, and so may be kept by the runtime
MAX_WORK = 2**42  # multiplications for FRAMES frames
MAX_TURNS = 2**16  # of a loop over frames
DOMAINS = ("", "ai.onnx")
SCAN_WAYS = {  # attributes of a Scan; 0 in all of them is frame after frame, from the first, along the first axis
    "scan_input_axes", "scan_output_axes", "scan_input_directions", "scan_output_directions"
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a run takes at most, and the shapes that it gives."""

    live_bytes: int
    constant_bytes: int
    work: int
    outputs: dict[str, Known]


def check_safe(data: bytes | memoryview, where: str, free: Mapping[str, int] | None = None) -> OnnxFile:
    """Read an ONNX file and refuse what could harm whoever runs it; return what it says.

    Args:
        free: sizes of free dimensions by their name; a first one is FRAMES without it, others are 1.

    Raises:
        ModelError: as ``check_structure``; an operator that is not allowed, a shape that cannot be bounded before it
            runs, or memory or work beyond the limits. One line that begins with ``where``.
    """
    file = check_structure(data, where)
    judge(file, free)
    return file


def judge(file: OnnxFile, free: Mapping[str, int] | None = None) -> Cost:
    """What a run of a file costs at most; refuse it where that is too much, or not known.

    Raises:
        ModelError: names the file and the node.
    """
    cost = _Walk(file, 1, dict(free or {})).cost()
    _refuse_above(file, "memory", cost.live_bytes, MAX_LIVE_BYTES)
    _refuse_above(file, "memory for constants", cost.constant_bytes, MAX_CONSTANT_BYTES)
    _refuse_above(file, "work", cost.work, MAX_WORK)
    longer = _Walk(file, LONGER, dict(free or {})).cost()
    for what, least, short, long in (
        ("memory", 2**20, cost.live_bytes, longer.live_bytes),
        ("work", 2**20, cost.work, longer.work),
    ):
        if long > MOST_GROWTH * LONGER * max(short, least):
            raise ModelError(f"{file.where}: refused, its {what} grows faster than the number of frames")
    return cost


def _refuse_above(file: OnnxFile, what: str, found: int, limit: int) -> None:
    if found > limit:
        unit = "multiplications" if what == "work" else "bytes"
        raise ModelError(f"{file.where}: refused, it would take {found:.2g} {unit} of {what}, more than {limit:.2g}")


class _Walk:
    """One walk over the graph of a file, for inputs of one length."""

    def __init__(self, file: OnnxFile, times: int, free: dict[str, int]) -> None:
        self.file, self.times, self.free = file, times, free
        self.most_elements = MAX_ELEMENTS * times
        self.constant_bytes = self.work = 0

    def refuse(self, node: Node, why: str) -> NoReturn:
        raise ModelError(f"{self.file.where}: refused, {node.op_type} {node.name or node.outputs[:1]!r} {why}")

    def cost(self) -> Cost:
        """Walk the graph."""
        graph = self.file.graph
        if graph.sparse:
            raise ModelError(f"{self.file.where}: refused, it has sparse tensors")
        given = {value.name: self.input(value) for value in graph.given}
        known, live = self.graph(graph, ChainMap(dict(given)), 1)
        missing = [value.name for value in graph.outputs if value.name not in known]
        if missing:
            raise ModelError(f"{self.file.where}: refused, nothing makes its output {missing[0]!r}")
        outputs = {value.name: known[value.name] for value in graph.outputs}
        return Cost(live + sum(value.bytes for value in given.values()), self.constant_bytes, self.work, outputs)

    def input(self, value: Value) -> Known:
        """An input of usual size, ``times`` as long if its first dimension is free."""
        dims = []
        for place, dim in enumerate(value.dims or ()):
            if isinstance(dim, int) and dim > 0:
                dims.append(dim)
            elif isinstance(dim, str) and dim in self.free:
                dims.append(self.free[dim])
            elif place == 0:
                dims.append(WINDOWS if value.name.startswith("state.") else FRAMES * self.times)
            else:
                dims.append(1)
        return Known(value.data_type, tuple(dims))

    def graph(self, graph: Graph, known: ChainMap[str, Known], turns: int) -> tuple[ChainMap[str, Known], int]:
        """Walk one graph whose inputs are known; return what is known at its end, and the most bytes at one time."""
        for tensor in graph.initializers:
            known[tensor.name] = self.stored(tensor)
        reads = Counter(name for node in graph.nodes for name in node.reads)
        reads.update(value.name for value in graph.outputs)
        own = {name for node in graph.nodes for name in node.outputs if name}
        live = peak = 0
        for node in graph.nodes:
            made, scratch = self.node(node, known, turns)
            for name, found in zip(node.outputs, made, strict=False):
                if name:
                    known[name] = found
                    live += found.bytes
            peak = max(peak, live + scratch)
            for name in node.reads:
                reads[name] -= 1
                if not reads[name] and name in own and not known[name].constant:
                    live -= known[name].bytes
        return known, peak

    def stored(self, tensor: Tensor) -> Known:
        if tensor.dtype == "string":
            raise ModelError(f"{self.file.where}: refused, tensor {tensor.name!r} holds texts")
        values = self.file.values_of(tensor, 128)
        if values is None or values.size != tensor.elements:
            return Known(tensor.data_type, tensor.dims, constant=True)
        return replace(known_values(values.reshape(tensor.dims)), type=tensor.data_type)

    def node(self, node: Node, known: ChainMap[str, Known], turns: int) -> tuple[Made, int]:
        """What a node makes, and the bytes that it takes on its way."""
        if node.domain not in DOMAINS or (node.op_type not in RULES and node.op_type not in ("Constant", "Scan")):
            what = f"{node.domain}.{node.op_type}" if node.domain not in DOMAINS else node.op_type
            self.refuse(node, f"is an operator that no model of ours has ({what})")
        if node.bodies and node.op_type != "Scan":
            self.refuse(node, "carries a graph of its own")
        call = Call(node, tuple(known.get(name) if name else None for name in node.inputs))
        try:
            if node.op_type == "Constant":
                return [self.constant(node)], 0
            if node.op_type == "Scan":
                return self.scan(call, known, turns)
            made = RULES[node.op_type](call)
            if len(made) < len(node.outputs):
                raise Unbounded(f"gives {len(node.outputs)} outputs")
            made = with_values(call, made)
            work, scratch = _work_of(call, made), _scratch_of(call, made)
        except Unbounded as error:
            self.refuse(node, str(error))
        except (IndexError, KeyError, ValueError, OverflowError, ZeroDivisionError, TypeError):
            self.refuse(node, "has inputs that make no sense")
        for output in made:
            if output.elements > self.most_elements or len(output.dims) > 64:
                self.refuse(node, f"would make a tensor of more than {self.most_elements} elements")
            if output.constant:
                self.constant_bytes += output.bytes
        self.work += work * turns
        return made, scratch

    def constant(self, node: Node) -> Known:
        attributes = node.attributes
        if "value" in attributes and attributes["value"].tensors:
            return self.stored(attributes["value"].tensors[0])
        for name, kind in (("value_int", np.int64), ("value_float", np.float32)):
            if name in attributes:
                number = attributes[name].i if name == "value_int" else attributes[name].f
                return known_values(np.array(number or 0, kind))
        if "value_ints" in attributes:
            return known_values(np.array(attributes["value_ints"].ints, np.int64))
        if "value_floats" in attributes:
            return known_values(np.array(attributes["value_floats"].floats, np.float32))
        raise Unbounded("is a constant that holds no numbers")

    def scan(self, call: Call, known: ChainMap[str, Known], turns: int) -> tuple[Made, int]:
        """The loop over frames that our integer cells are: one graph without loops, as often as there are frames."""
        node, bodies = call.node, call.node.bodies
        streams = call.number("num_scan_inputs")
        states = len(call.inputs) - streams
        ways = {name: value.ints for name, value in node.attributes.items() if name not in ("body", "num_scan_inputs")}
        plain = set(ways) <= SCAN_WAYS and not any(any(way) for way in ways.values())
        if not plain or turns != 1 or len(bodies) != 1 or streams < 1 or states < 0:
            raise Unbounded("is no loop over frames as our cells have")
        body = bodies[0]
        given = [call[i] for i in range(len(call.inputs))]
        length = max(stream.dims[0] for stream in given[states:])
        if length > MAX_TURNS * self.times or len(body.inputs) != len(given) or len(body.outputs) < states:
            raise Unbounded(f"is a loop of {length} turns, or one whose inputs do not fit")
        inner = {
            value.name: Known(one.type, one.dims if i < states else one.dims[1:], exact=one.exact)
            for i, (value, one) in enumerate(zip(body.inputs, given, strict=True))
        }
        ends, peak = self.graph(body, known.new_child(inner), max(length, 1))
        made = []
        for i, value in enumerate(body.outputs):
            found = ends[value.name]
            if i < states and found.dims != given[i].dims:
                raise Unbounded(f"changes the shape of its state {value.name!r}")
            dims = found.dims if i < states else (length, *found.dims)
            made.append(Known(found.type, dims, exact=call.exact))
        if any(output.elements > self.most_elements for output in made):
            raise Unbounded(f"would make a tensor of more than {self.most_elements} elements")
        return made, peak


def _work_of(call: Call, made: Made) -> int:
    """Multiplications of a node, about; at least the elements that it writes."""
    operator, elements = call.node.op_type, sum(known.elements for known in made)
    if operator in ("Conv", "ConvInteger", "QLinearConv"):
        weight = call[3 if operator == "QLinearConv" else 1].dims
        return elements * math.prod(weight[1:])
    if operator == "ConvTranspose":
        return call[0].elements * math.prod(call[1].dims[1:])
    if operator in ("MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"):
        depth = call[0].dims[0 if operator == "Gemm" and call.number("transA") else -1]
        return elements * depth
    if operator in ("AveragePool", "MaxPool"):
        return elements * math.prod(call.ints("kernel_shape") or [1])
    if operator in ("GRU", "LSTM", "RNN"):
        return call[0].dims[0] * call[0].dims[1] * (math.prod(call[1].dims) + math.prod(call[2].dims))
    if operator == "NonMaxSuppression":
        return made[0].dims[0] * call[0].dims[1]
    if operator == "TopK":
        return 16 * call[0].elements
    if operator == "LRN":
        return elements * max(call.number("size", 1), 1)
    return elements + max((known.elements for known in call.inputs if known is not None), default=0)


def _scratch_of(call: Call, made: Made) -> int:
    """Bytes that a kernel takes for itself: the columns of a convolution, packed weights."""
    if call.node.op_type in ("Conv", "ConvInteger", "QLinearConv", "ConvTranspose"):
        weight = call[3 if call.node.op_type == "QLinearConv" else 1].dims
        places = math.prod((call[0] if call.node.op_type == "ConvTranspose" else made[0]).dims[2:])
        return 4 * math.prod(weight[1:]) * places
    return 0
