"""A network in DEEPEYE's 8 bits written as integer operators of ONNX: QLinearConv, MaxPool of bytes, ConvInteger.

All scales of activations are 1/256 and a channel's weight scale is 1/P, so that the factor that QLinearConv multiplies
a sum with is float32(1/P) to the bit. An offset of -(P - 1)/2 turns its rounding to nearest into the scheme's floor. P
is odd: there are no ties, and the file's integers are those of the simulation (deepeye.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..artifact.exporter import IR_VERSION, OPSET
from ..errors import ExportError
from ..onnx_graph import Graph, clean
from ..onnx_graph.columns import join_columns
from .deepeye import UNIT, DeepeyeLayer, DeepeyeNetwork, Integers, Pool

PREFIX = "deepeye"


def deepeye_graph(network: DeepeyeNetwork, input_size: tuple[int, int]) -> onnx.ModelProto:
    """The network alone: frames uint8 (T, H, W, 3) -> features float32 (T, C, h, w), T free."""
    height, width = input_size
    graph = helper.make_graph(
        [helper.make_node("Transpose", ["frames"], ["bytes"], perm=[0, 3, 1, 2])],
        "vidlet",
        [helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, ["T", height, width, 3])],
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["T", network.out_channels, None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    written = Graph(model)
    written.insert(1, _nodes(written, network, "bytes", "features"))
    clean(model)
    onnx.checker.check_model(model)
    return model


def replace_network(graph: onnx.ModelProto, network: DeepeyeNetwork, until: str = "map") -> onnx.ModelProto:
    """Return a copy in which the tensor ``until`` is computed from the frames' bytes by the network, in integers.

    Args:
        graph: of the float network that it was made from, with its own normalization of the bytes, which is dropped.

    Raises:
        ExportError: ``until`` is not there, or is not computed from uint8 pictures (T, 3, H, W) alone.
    """
    result = Graph.copy_of(graph)
    if until not in result.makers:
        raise ExportError(f"graph has no tensor {until!r} to compute in integers")
    source = _bytes(result, until)
    maker = result.makers[until]
    maker.output[:] = [f"{until}.float" if name == until else name for name in maker.output]
    place = result.place(source) + 1 if source in result.makers else 0
    result.insert(place, _nodes(result, network, source, until))
    result.prune()
    joined = join_columns(result.model)
    clean(joined)
    onnx.checker.check_model(joined)
    return joined


def _nodes(graph: Graph, network: DeepeyeNetwork, source: str, result: str) -> list[onnx.NodeProto]:
    """The network's nodes, from a tensor of bytes (T, 3, H, W) to the float tensor ``result``; constants are stored."""
    writer = _Writer(graph)
    writer.store("one", np.float32(1 / UNIT))
    writer.store("zero", np.uint8(0))
    tensor = source
    layers = [layer for layer in network.layers if isinstance(layer, DeepeyeLayer)]
    for number, (layer, rule) in enumerate(zip(layers, network.rules(), strict=True)):
        last = number + 1 == len(layers)
        made = result if last and rule.divisor is None else f"{PREFIX}.{number}"
        tensor = writer.rectified(number, layer, rule, tensor) if rule.divisor is not None else tensor
        if rule.divisor is None:
            tensor = writer.linear(number, layer, rule, tensor, made)
    if tensor != result:
        writer.store("top", np.float32(float(layers[-1].log_beta.detach().exp()) / UNIT))  # type: ignore[union-attr]
        writer.node("DequantizeLinear", [tensor, f"{PREFIX}.top", f"{PREFIX}.zero"], result)
    return writer.nodes


class _Writer:
    """Makes nodes, and stores constants whose names begin with ``PREFIX``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []

    def store(self, name: str, value: Any) -> str:
        return self.graph.store(f"{PREFIX}.{name}", value)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def rectified(self, number: int, layer: DeepeyeLayer, rule: Integers, source: str) -> str:
        assert rule.offset is not None
        assert rule.divisor is not None
        codes = self.store(f"{number}.codes", rule.codes.numpy())
        scale = self.store(f"{number}.scale", (1 / rule.divisor.double()).float().numpy())
        zeros = self.store(f"{number}.zeros", np.zeros(len(rule.codes), np.int8))
        bias = self.store(f"{number}.bias", (rule.offset - (rule.divisor - 1) // 2).numpy().astype(np.int32))
        one, zero = f"{PREFIX}.one", f"{PREFIX}.zero"
        made = self.node(
            "QLinearConv", [source, one, zero, codes, scale, zeros, one, zero, bias], f"{PREFIX}.{number}.q",
            **_geometry(layer),
        )  # fmt: skip
        return self.pooled(layer.pool, made, f"{PREFIX}.{number}.pooled") if layer.pool is not None else made

    def linear(self, number: int, layer: DeepeyeLayer, rule: Integers, source: str, made: str) -> str:
        assert rule.scale is not None
        assert rule.bias is not None
        codes = self.store(f"{number}.codes", rule.codes.numpy())
        scale = self.store(f"{number}.scale", rule.scale.numpy()[:, None, None])
        bias = self.store(f"{number}.bias", rule.bias.numpy()[:, None, None])
        total = self.node("ConvInteger", [source, codes], f"{PREFIX}.{number}.sum", **_geometry(layer))
        whole = self.node("Cast", [total], f"{PREFIX}.{number}.cast", to=onnx.TensorProto.FLOAT)
        scaled = self.node("Mul", [whole, scale], f"{PREFIX}.{number}.scaled")
        if layer.pool is None:
            return self.node("Add", [scaled, bias], made)
        shifted = self.node("Add", [scaled, bias], f"{PREFIX}.{number}.linear")
        return self.pooled(layer.pool, shifted, made)

    def pooled(self, pool: Pool, source: str, made: str) -> str:
        return self.node(
            "MaxPool", [source], made, kernel_shape=[pool.kernel] * 2, strides=[pool.stride] * 2,
            pads=[0, 0, pool.behind, pool.behind], ceil_mode=int(pool.ceil),
        )  # fmt: skip


def _geometry(layer: DeepeyeLayer) -> dict[str, Any]:
    padding = [int(size) for size in layer.padding]
    return {
        "kernel_shape": list(layer.weight.shape[2:]), "strides": list(layer.stride), "pads": [*padding, *padding],
        "dilations": list(layer.dilation), "group": layer.groups,
    }  # fmt: skip


def _bytes(graph: Graph, until: str) -> str:
    """The uint8 tensor that ``until`` is computed from: what the only Cast before it reads."""
    casts = {node.output[0]: str(node.input[0]) for node in graph.nodes if node.op_type == "Cast"}
    behind = graph.ancestors(until, stop=casts)  # of the casts
    found = {
        source
        for made, source in casts.items()
        if any(name in behind for reader in graph.readers.get(made, []) for name in reader.output)
    }
    if len(found) != 1:
        raise ExportError(f"{until} is not computed from the bytes of pictures alone")
    return found.pop()
