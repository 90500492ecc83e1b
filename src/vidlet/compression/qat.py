"""Training with the rounding of the integer file: a network of convolutions as int8.py will write it.

``prepare_qat`` makes of a module (batch normalizations folded) a network that rounds weights, biases and activations to
exactly the values that the written integers stand for, and lets gradients through (Jacob et al. 2018,
arXiv:1712.05877). What it learned goes back into the module (``write_back_``) and, as ranges by layer, to the graph
(``ranges_by_layer``); the integers that ``quantize_graph`` then writes agree with the simulated ones, but where a sum
lies on the border of two steps.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..artifact.exporter import to_onnx_graph
from ..errors import ExportError
from ..onnx_graph import copy_model, names_read
from ..onnx_graph.interpreter import GraphNetwork
from ..onnx_graph.normal import Operation
from .calibrate import calibrate, channel_means, clip_feeds, run_inner
from .exact import clear_of_ties
from .fake_quant import channel_scales, fake_int8, fake_int32, fake_uint8
from .int8 import QuantizableGraph, Range, conv_inputs, quantized_tensors, range_of

SOURCE, RESULT = "pictures", "maps"
INPUT = "input"  # the layer name of what the first convolution reads


class QuantizedNetwork(GraphNetwork):
    """A graph of convolutions, pictures -> maps, that computes what its integer form would, in float32.

    The logarithm of each activation's step is learned; zero points are not. Weights have one step a channel, the least
    with which no kernel saturates (exact.py), and the step follows the weights.

    Args:
        graph: float32, from ``SOURCE`` to ``RESULT``.
        ranges: of every tensor of ``quantized_tensors(graph, RESULT, keep)``.
        keep: names of weights of convolutions that stay in float.
    """

    def __init__(self, graph: onnx.ModelProto, ranges: Mapping[str, Range], keep: Container[str] = ()) -> None:
        super().__init__(graph, SOURCE, RESULT)
        plan = QuantizableGraph(graph, RESULT, keep)
        convolutions = [operation for operation in self.operations if operation.kind == "Conv"]
        for operation in convolutions:
            if len(operation.inputs) < 3:  # the file has integers of a bias for each
                outputs = self.shapes[operation.inputs[1]][0]
                self.add_weight(_bias(operation), torch.zeros(outputs))
        self.layers = layer_names(graph, RESULT)
        self.integer = {
            operation.outputs[0] for operation in convolutions if plan.integer(plan.makers[operation.outputs[0]])
        }
        self.origin: dict[str, str] = {}  # tensor of integers -> the tensor that has its range
        self.zero_points: dict[str, int] = {}  # of the tensors that have ranges
        self.widest: dict[str, float] = {}  # largest step that the bounds of an activation leave a use for
        self.log_steps = nn.ParameterDict()
        needed = set(plan.needed())
        for name in [SOURCE, *(operation.outputs[0] for operation in self.operations)]:
            maker = plan.makers.get(name)
            if maker is not None and maker.op_type == "MaxPool" and maker.input[0] in self.origin:
                self.origin[name] = self.origin[maker.input[0]]  # a maximum keeps the range of what it is taken of
            elif name in needed:
                self._add(name, *_within(plan, name, ranges[name]))
        if SOURCE in needed:  # a frame's bytes stand for what they stand for
            self.log_steps[_key(SOURCE)].requires_grad_(False)
        self.register_buffer("source_step", torch.tensor(np.float32(ranges[SOURCE][0] if SOURCE in needed else 1.0)))
        self.source_step: Tensor

    def _add(self, name: str, chosen: Range, widest: float) -> None:
        self.origin[name], self.zero_points[name], self.widest[name] = name, chosen[1], widest
        self.log_steps[_key(name)] = nn.Parameter(torch.tensor(chosen[0], dtype=torch.float32).log())

    def forward(self, x: Tensor) -> Tensor:
        """Pictures -> maps, both as the graph has them."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # what convolutions are fastest on
        return super().forward(x)

    def step(self, tensor: str) -> Tensor:
        """What one unit of a tensor's integers is worth, ()."""
        name = self.origin[tensor]
        return self.source_step if name == SOURCE else self.log_steps[_key(name)].exp().clamp(max=self.widest[name])

    def observe(self, name: str, value: Tensor) -> Tensor:
        """Round a tensor that the file keeps as integers."""
        return fake_uint8(value, self.step(name), self.zero_points[name]) if name in self.zero_points else value

    def kernel(self, operation: Operation) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution, rounded to int8 and int32."""
        weight, bias = self.constant(operation.inputs[1]), self.constant(_bias(operation))
        if operation.outputs[0] not in self.integer:
            return weight, bias
        step = self.step(operation.inputs[0]).detach()
        scales = torch.maximum(channel_scales(weight), bias.detach().abs() / (step * 2.0**30))  # bias inside int32
        return fake_int8(weight, scales), fake_int32(bias, step * scales)

    @torch.no_grad()
    def kernels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight and bias that each convolution computes with, by the weight's name in the graph."""
        return {
            operation.inputs[1]: self.kernel(operation) for operation in self.operations if operation.kind == "Conv"
        }

    @torch.no_grad()
    def codes(self, pictures: Tensor) -> dict[str, Tensor]:
        """The integers uint8 of every tensor that has a range of its own, as simulated."""
        values = self.trace(pictures, tuple(self.zero_points))
        return {
            name: ((value / self.step(name)).round() + self.zero_points[name]).to(torch.uint8)
            for name, value in values.items()
        }

    @torch.no_grad()
    def clear_sums_(self) -> None:
        """Move the steps of sums, by less than 1 %, to where every kernel rounds alike, as the file will (exact.py)."""
        for operation in self.operations:
            name, parts = operation.outputs[0], operation.inputs
            if operation.kind == "Add" and name in self.zero_points and all(part in self.origin for part in parts):
                a, b = ((float(self.step(part)), self.zero_points[self.origin[part]]) for part in parts)
                step, _ = clear_of_ties(a, b, float(self.step(name)))
                self.log_steps[_key(name)].copy_(torch.tensor(step).log())

    def ranges(self) -> dict[str, Range]:
        """(scale, zero point) by the name of the layer."""
        return {self.layers[name]: (float(self.step(name).detach()), zero) for name, zero in self.zero_points.items()}


def prepare_qat(module: nn.Module, batches: Sequence[Tensor], input_range: Range | None = None) -> QuantizedNetwork:
    """A network that computes a module as its integer file will, ready to be trained; the module is not changed.

    Args:
        module: pictures (B, C, ...) -> maps (B, C', ...), of convolutions (2-D or 3-D), batch normalizations,
            activations, poolings and sums.
        batches: pictures as float32, at least 2 in the first, to find the activations' ranges on.
        input_range: what the bytes of a picture stand for, where it is one scale and zero point; else the values of
            ``batches`` are covered.

    Raises:
        ModelError: the module has an operator that the interpreter of graphs does not read.
    """
    graph = to_onnx_graph(module, {SOURCE: batches[0]}, [RESULT], {SOURCE: {0: "T"}})
    return rounded_network(graph, batches, input_range)


def rounded_network(
    graph: onnx.ModelProto, batches: Sequence[Tensor], input_range: Range | None, keep: Sequence[str] = ()
) -> QuantizedNetwork:
    """As :func:`prepare_qat`, of a module's graph; weights of convolutions in ``keep`` stay in float."""
    tensors = [name for name in quantized_tensors(graph, RESULT, keep) if name != SOURCE]
    ranges = calibrate(graph, ({SOURCE: batch.contiguous().numpy()} for batch in batches), tensors)
    covered = range_of(min(float(b.min()) for b in batches), max(float(b.max()) for b in batches))
    return QuantizedNetwork(graph, {**ranges, SOURCE: input_range or covered}, keep)


def byte_range(zero_point: Tensor, scale: Tensor) -> Range | None:
    """What a frame's bytes stand for, where it is one scale and a whole zero point for all channels."""
    if zero_point.numel() > 1 or scale.numel() > 1:
        return None
    zero = float(zero_point)
    return (float(scale), int(zero)) if zero.is_integer() and 0 <= zero <= 255 else None


@torch.no_grad()
def write_back_(module: nn.Module, network: QuantizedNetwork) -> None:
    """Give the module that a network was prepared from the rounded weights; normalizations become plain offsets.

    Batch normalizations behind a convolution are left in their place with scale 1, mean 0 and variance 1, so that the
    module keeps its structure; their offset is the bias. The network's sums are cleared of ties first.
    """
    network.clear_sums_()
    for name, (weight, bias) in network.kernels().items():
        parent_path, _, own = name.removesuffix(".weight").rpartition(".")
        parent = module.get_submodule(parent_path)
        conv = parent.get_submodule(own)
        assert isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        conv.weight.copy_(weight)
        children = list(parent.children())
        behind = children[children.index(conv) + 1 :][:1]
        if behind and isinstance(behind[0], _BatchNorm):
            _make_offset_(behind[0], bias)
            if conv.bias is not None:
                conv.bias.zero_()
        else:
            conv.bias = nn.Parameter(bias.clone())


def ranges_by_layer(graph: onnx.ModelProto, ranges: Mapping[str, Range], until: str = "features") -> dict[str, Range]:
    """Give ranges by layer name (:meth:`QuantizedNetwork.ranges`) the names of a graph's tensors.

    Raises:
        ExportError: a tensor that is computed in integers has no range.
    """
    return {tensor: ranges[layer] for tensor, layer in known_layers(graph, ranges, until).items()}


def known_layers(graph: onnx.ModelProto, layers: Collection[str], until: str = "features") -> dict[str, str]:
    """Tensor -> which of ``layers`` it is, for every tensor of a graph that is computed in integers.

    Raises:
        ExportError: it is none of them.
    """
    names = layer_names(graph, until)
    found = {tensor: layer for tensor, name in names.items() for layer in _endings(name) if layer in layers}
    if missing := [name for tensor, name in names.items() if tensor not in found]:
        raise ExportError(f"no range was trained for layer {missing[0]}; known: {', '.join([*layers][:5])} ...")
    return found


def layer_names(graph: onnx.ModelProto, until: str) -> dict[str, str]:
    """Tensor -> layer name, for every tensor that is computed in integers.

    A convolution is named for its weight ("block3.expand"), what follows for the block and the operator ("block3.add"),
    what stands before the first convolution is "input".
    """
    plan = QuantizableGraph(graph, until)
    order = {name: i for i, node in enumerate(plan.nodes) for name in node.output}
    names: dict[str, str] = {}
    needed = plan.needed()
    for name in [tensor for tensor in needed if tensor not in order]:
        names[name] = INPUT
    taken: dict[str, int] = {}
    for node in plan.nodes:
        if node.output[0] not in plan.inside:
            continue
        before = [name for name in names_read(node) if name in order]
        if node.op_type == "Conv":
            name = str(node.input[1]).removesuffix(".weight").removesuffix(".conv")
            names[plan.fused_output(node)] = name
        else:
            latest = max(before, key=lambda name: order[name], default="")
            block = names.get(latest, INPUT).rpartition(".")[0]
            name = INPUT if names.get(latest, INPUT) == INPUT else f"{block}.{node.op_type.lower()}".lstrip(".")
        if node.output[0] in names:  # an activation that the convolution has taken in
            continue
        taken[name] = taken.get(name, 0) + 1
        names[node.output[0]] = name if taken[name] == 1 or name == INPUT else f"{name}{taken[name]}"
    return {tensor: names[tensor] for tensor in needed}


def _within(plan: QuantizableGraph, tensor: str, chosen: Range) -> tuple[Range, float]:
    """A tensor's range inside the bounds of the activation that makes it, and the widest step that they leave."""
    maker = plan.makers.get(tensor)
    before = plan.makers.get(maker.input[0]) if maker is not None and maker.op_type in ("Relu", "Clip") else None
    if maker is None or before is None or before.op_type != "Conv" or plan.fused_output(before) != tensor:
        return chosen, float("inf")
    chosen = plan.within(chosen, maker)
    most = plan.within((chosen[0] * 1e6, chosen[1]), maker)
    return chosen, most[0] if most[1] == chosen[1] else chosen[0]


def _make_offset_(norm: _BatchNorm, bias: Tensor) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.weight.fill_(1.0)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0 - norm.eps)


def _bias(operation: Operation) -> str:
    """The name of a convolution's bias, which the graph need not have."""
    return operation.inputs[2] if len(operation.inputs) > 2 else f"{operation.inputs[1]}.bias"


def _endings(name: str) -> list[str]:
    """ "a.b.c" -> a.b.c, b.c, c: modules may lie deeper in the graph than they lay in training."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _key(name: str) -> str:
    return name.replace(".", "/")


# Ranges of the activations that become integers: those that training has learned, else calibrated ones.
#
# A graph in memory carries learned ranges as an entry of its metadata, by layer; ``drop_ranges`` removes it before the
# graph becomes a file.
KEY = "ranges"
KNOWS = "head.integers"  # entry of a graph whose head was trained on the features in integers


def activation_ranges(graph: onnx.ModelProto, clips: Sequence[np.ndarray], until: str = "features") -> dict[str, Range]:
    """The range of every tensor before ``until`` that becomes integers: learned, or calibrated on frames of clips.

    Raises:
        ExportError: ranges were learned, but a layer has none.
    """
    learned = learned_ranges(graph)
    if learned is not None:
        return ranges_by_layer(graph, learned, until)
    names = quantized_tensors(graph, until)
    return calibrate(graph, clip_feeds(graph, clips), names) if names else {}  # pixels have no convolution


def input_means(graph: onnx.ModelProto, clips: Sequence[np.ndarray], until: str = "features") -> dict[str, np.ndarray]:
    """Means of what integer convolutions before ``until`` read, over frames of clips, for :func:`quantize_graph`.

    None where ranges were learned: training rounded the weights, and the biases were trained with them.
    """
    names = conv_inputs(graph, until) if learned_ranges(graph) is None else []
    return channel_means(names, run_inner(graph, clip_feeds(graph, clips), names)) if names else {}


def learned_ranges(graph: onnx.ModelProto) -> dict[str, Range] | None:
    """The ranges by layer that a graph carries; None where it carries none."""
    for entry in graph.metadata_props:
        if entry.key == KEY:
            return {layer: (float(scale), int(zero)) for layer, (scale, zero) in json.loads(entry.value).items()}
    return None


def attach_ranges(graph: onnx.ModelProto, ranges: Mapping[str, Range] | None) -> onnx.ModelProto:
    """A copy of the graph that carries ranges by layer name; of None, nothing."""
    result = drop_ranges(graph)
    if ranges:
        entry = result.metadata_props.add()
        entry.key, entry.value = KEY, json.dumps(dict(ranges))
    return result


def knows_integers(graph: onnx.ModelProto) -> bool:
    """Whether the head of a graph in memory was trained on the features in integers (``attach_knowledge_``)."""
    return any(entry.key == KNOWS for entry in graph.metadata_props)


def attach_knowledge_(graph: onnx.ModelProto) -> None:
    """Note in a graph that its head was trained on the features in integers."""
    entry = graph.metadata_props.add()
    entry.key, entry.value = KNOWS, "true"


def drop_ranges(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph that carries no ranges, nor what its head was trained on."""
    result = copy_model(graph)
    for entry in [entry for entry in result.metadata_props if entry.key in (KEY, KNOWS)]:
        result.metadata_props.remove(entry)
    return result
