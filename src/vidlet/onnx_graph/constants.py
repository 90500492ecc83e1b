"""What a graph computes of its constants alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import helper

from ..runtime import open_session
from .graph import Graph, alive, bodies, names_read


def constant_nodes(graph: Graph, kinds: Collection[str] = ()) -> list[onnx.NodeProto]:
    """The nodes that read constants alone, or what such nodes make; of these operators, or (none given) of any."""
    constant, found = set(graph.constants), []
    for node in graph.nodes:
        read = names_read(node)
        if read and constant.issuperset(read) and (not kinds or node.op_type in kinds) and not any(bodies(node)):
            constant |= set(node.output)
            found.append(node)
    return found


def constant_values(graph: Graph, wanted: Iterable[str], kinds: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The values of those of the wanted tensors that are stored, or made of stored ones by ``constant_nodes``."""
    names = list(dict.fromkeys(wanted))
    values = {name: graph.value(name) for name in names if name in graph.constants}
    nodes = constant_nodes(graph, kinds)
    computed = {name for node in nodes for name in node.output}
    made = [name for name in names if name in computed]
    if not made:
        return values
    nodes = alive(nodes, made)
    read = {name for node in nodes for name in names_read(node)}
    stored = [tensor for name, tensor in graph.constants.items() if name in read]
    outputs = [helper.make_empty_tensor_value_info(name) for name in made]
    part = helper.make_graph(nodes, "constants", [], outputs, stored)
    model = helper.make_model(part, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)
    return values | dict(zip(made, open_session(model).run(made, {}), strict=True))


def fold_constants(graph: Graph) -> int:
    """Store what is computed of constants alone, and no longer compute it; returns how many nodes are gone."""
    nodes = constant_nodes(graph)
    gone = {id(node) for node in nodes}
    needed = [
        name
        for node in nodes
        for name in node.output
        if name in graph.outputs or any(id(reader) not in gone for reader in graph.readers.get(name, []))
    ]
    values = constant_values(graph, needed)
    graph.set_nodes(node for node in graph.nodes if id(node) not in gone)
    for name, value in values.items():
        graph.store(name, value)
    return len(nodes)
