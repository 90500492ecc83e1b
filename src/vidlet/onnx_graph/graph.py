"""A graph with its indices: the node that makes each tensor, the nodes that read it, the tensors that are stored.

Nodes may have bodies (those of Scan, Loop and If), which read tensors of the graph around them: such a node reads what
its bodies read, and a tensor that is renamed is renamed in the bodies too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import ModelError


class Graph:
    """The graph of a model, which it reads and changes in place.

    The indices hold what the graph was when they were made. Methods that change the graph make them anew; who changes
    nodes itself calls ``index`` where the changes are done.

    Attributes:
        model, proto: the model, and its graph.
        nodes: the nodes in their order.
        makers: tensor -> the node that makes it.
        readers: tensor -> the nodes that read it, in order, each once.
        constants: tensor -> its value, of what is stored as an initializer or made by a Constant node.
        inputs: names of the inputs that are not stored.
        outputs: names of the outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.proto = model, model.graph
        self.index()

    @classmethod
    def copy_of(cls, model: onnx.ModelProto) -> Graph:
        """The graph of a copy of a model."""
        return Graph(copy_model(model))

    def index(self) -> None:
        """Make the indices anew."""
        self.nodes: list[onnx.NodeProto] = list(self.proto.node)
        self.makers: dict[str, onnx.NodeProto] = {name: n for n in self.nodes for name in n.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in names_read(node):
                self.readers.setdefault(name, []).append(node)
        self.constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in self.proto.initializer}
        self.inputs: list[str] = [value.name for value in self.proto.input if value.name not in self.constants]
        self.outputs: set[str] = {value.name for value in self.proto.output}
        self.constants |= {node.output[0]: _constant(node) for node in self.nodes if node.op_type == "Constant"}

    def value(self, name: str) -> np.ndarray:
        """The value of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def values(self) -> dict[str, np.ndarray]:
        """The values of all constants."""
        return {name: numpy_helper.to_array(tensor) for name, tensor in self.constants.items()}

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The node that alone reads a tensor; None where several do, none does, or the tensor is an output."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def ancestors(self, *names: str, stop: Collection[str] = ()) -> set[str]:
        """The tensors that nodes make and that tensors are computed from, these included.

        ``stop`` are tensors at which the walk ends; they are not among the ancestors.
        """
        return _walk(names, stop, lambda name: names_read(self.makers[name]) if name in self.makers else None)

    def sources(self, *names: str) -> set[str]:
        """The inputs and constants that tensors are computed from."""
        read = {name for made in self.ancestors(*names) for name in names_read(self.makers[made])}
        return read - set(self.makers) | (read & set(self.constants))

    def descendants(self, *names: str) -> set[str]:
        """The tensors that are computed from tensors, these included."""
        return _walk(names, (), lambda name: [made for node in self.readers.get(name, []) for made in node.output])

    def place(self, name: str) -> int:
        """How many nodes stand before the one that makes a tensor.

        Raises:
            ModelError: no node makes it.
        """
        if name not in self.makers:
            raise ModelError(f"the graph has no tensor {name!r}")
        return next(i for i, node in enumerate(self.nodes) if name in node.output)

    def fresh(self, stem: str) -> str:
        """A name that begins with ``stem`` and that no tensor has."""
        taken = {*self.makers, *self.readers, *self.constants, *self.inputs, *self.outputs}
        taken |= names_in_bodies(self.nodes)
        return next(name for name in _numbered(stem) if name not in taken)

    def set_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Put nodes in the place of all that the graph has. The graph holds copies of them."""
        kept = list(nodes)
        del self.proto.node[:]
        self.proto.node.extend(kept)
        self.index()

    def insert(self, place: int, nodes: Sequence[onnx.NodeProto]) -> None:
        """Add nodes before the one at a place."""
        self.set_nodes([*self.nodes[:place], *nodes, *self.nodes[place:]])

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Remove nodes."""
        gone = {id(node) for node in nodes}
        self.set_nodes(node for node in self.nodes if id(node) not in gone)

    def store(self, name: str, value: np.ndarray | np.generic) -> str:
        """Add an initializer; returns its name."""
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        self.constants[name] = self.proto.initializer[-1]
        return name

    def set_initializers(self, tensors: Iterable[onnx.TensorProto]) -> None:
        """Put initializers in the place of all that the graph has."""
        kept = list(tensors)
        del self.proto.initializer[:]
        self.proto.initializer.extend(kept)
        self.index()

    def set_inputs(self, values: Iterable[onnx.ValueInfoProto]) -> None:
        """Put inputs in the place of all that the graph has."""
        kept = list(values)
        del self.proto.input[:]
        self.proto.input.extend(kept)
        self.index()

    def set_outputs(self, values: Iterable[onnx.ValueInfoProto]) -> None:
        """Put outputs in the place of all that the graph has."""
        kept = list(values)
        del self.proto.output[:]
        self.proto.output.extend(kept)
        self.index()

    def prune(self, nodes: bool = True) -> None:
        """Remove nodes that no output depends on, and initializers that nothing reads."""
        if nodes:
            self.set_nodes(alive(self.nodes, self.outputs))
        read = set(self.readers) | self.outputs
        self.set_initializers(tensor for tensor in self.proto.initializer if tensor.name in read)

    def rename(self, new: Callable[[str], str]) -> None:
        """Give every tensor the name that ``new`` makes of its own, in bodies too."""
        rename(self.proto, new)
        self.index()

    def drop_node_names(self) -> None:
        """Take the names of the nodes themselves away: nothing needs them."""
        for node in _all_nodes(self.nodes):
            node.name = ""

    def redirect(self, names: Mapping[str, str]) -> None:
        """Let nodes read other tensors: each key's readers read its value."""
        for node in self.nodes:
            redirect(node, names)
        self.index()

    def sort(self) -> None:
        """Bring the nodes into an order in which each stands behind those that make what it reads.

        Of the nodes that may come next the first is taken, so that what is in order stays in its order.

        Raises:
            ModelError: the nodes form a circle.
        """
        places = {id(node): i for i, node in enumerate(self.nodes)}
        waits = {
            i: {places[id(self.makers[name])] for name in names_read(node) if name in self.makers}
            for i, node in enumerate(self.nodes)
        }
        ready = [i for i, before in waits.items() if not before]
        order: list[int] = []
        while ready:
            order.append(heapq.heappop(ready))
            for name in self.nodes[order[-1]].output:
                for reader in self.readers.get(name, []):
                    place = places[id(reader)]
                    waits[place].discard(order[-1])
                    if not waits[place] and place not in ready and place not in order:
                        heapq.heappush(ready, place)
        if len(order) < len(self.nodes):
            left = next(node for i, node in enumerate(self.nodes) if waits[i])
            raise ModelError(f"the graph has a circle at {left.output[0]}")
        self.set_nodes([self.nodes[i] for i in order])


def names_read(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, in order, each once; what its bodies read and do not make themselves too."""
    names = dict.fromkeys(name for name in node.input if name)
    for body in bodies(node):
        own = {item.name for item in (*body.input, *body.initializer)}
        own |= {name for inner in body.node for name in inner.output}
        read = [name for inner in body.node for name in names_read(inner)] + [value.name for value in body.output]
        names |= dict.fromkeys(name for name in read if name not in own)
    return list(names)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node."""
    for found in node.attribute:
        if found.type == onnx.AttributeProto.GRAPH:
            yield found.g


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute (texts as ``str``, several numbers as a list); ``default`` where it has none."""
    return next((_plain(found) for found in node.attribute if found.name == name), default)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The values of a node's attributes, as ``attribute`` gives them."""
    return {found.name: _plain(found) for found in node.attribute}


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute, in the place of one of this name."""
    for found in [found for found in node.attribute if found.name == name]:
        node.attribute.remove(found)
    node.attribute.append(helper.make_attribute(name, value))


def alive(nodes: Sequence[onnx.NodeProto], results: Iterable[str]) -> list[onnx.NodeProto]:
    """Those nodes that one of the results depends on, in order."""
    used, kept = set(results), []
    for node in reversed(nodes):
        if any(name in used for name in node.output):
            used.update(names_read(node))
            kept.append(node)
    return kept[::-1]


def redirect(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and its bodies, read other tensors."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for body in bodies(node):
        for inner in body.node:
            redirect(inner, names)
        for value in body.output:
            value.name = names.get(value.name, value.name)


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def rename(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    """Give all tensors of a graph, and of the bodies in it, other names."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new(value.name)
    for node in graph.node:
        node.input[:] = [new(name) if name else "" for name in node.input]
        node.output[:] = [new(name) if name else "" for name in node.output]
        for body in bodies(node):
            rename(body, new)


def _walk(begin: Sequence[str], stop: Collection[str], following: Callable[[str], Iterable[str] | None]) -> set[str]:
    """All that can be reached; ``following`` gives None for what is not to be counted."""
    todo, seen = list(begin), set[str]()
    while todo:
        name = todo.pop()
        if not name or name in seen or name in stop:
            continue
        behind = following(name)
        if behind is not None:
            seen.add(name)
            todo += behind
    return seen


def _constant(node: onnx.NodeProto) -> onnx.TensorProto:
    """What a Constant node makes, named for it."""
    tensor = onnx.TensorProto()
    found = node.attribute[0]
    if found.type == onnx.AttributeProto.TENSOR:
        tensor.CopyFrom(found.t)
    elif found.type in _NUMBERS:
        tensor.CopyFrom(numpy_helper.from_array(np.array(_plain(found), _NUMBERS[found.type])))
    tensor.name = node.output[0]
    return tensor


_NUMBERS = {
    onnx.AttributeProto.FLOAT: np.float32, onnx.AttributeProto.FLOATS: np.float32,
    onnx.AttributeProto.INT: np.int64, onnx.AttributeProto.INTS: np.int64,
}  # fmt: skip


def _plain(found: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(found)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if found.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _all_nodes(body.node)


def names_in_bodies(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names that the bodies of nodes use, their own and those from outside."""
    found: set[str] = set()
    for body in (body for node in nodes for body in bodies(node)):
        found |= {item.name for item in (*body.input, *body.output, *body.initializer)}
        found |= {name for inner in body.node for name in (*inner.input, *inner.output)}
        found |= names_in_bodies(body.node)
    return found


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 1
    while True:
        yield f"{stem}.{number}"
        number += 1
