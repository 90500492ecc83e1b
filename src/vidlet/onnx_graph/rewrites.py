"""Changes of a graph that leave what it computes as it is: a smaller, cheaper or cleaner graph of the same values."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..runtime import open_session
from .graph import Graph, alive, attribute, bodies, names_read, redirect, rename, set_attribute

RISING = ("LeakyRelu", "Relu")  # x <= y means f(x) <= f(y): they may be applied before or after a maximum


def hide_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Make outputs inner tensors again, under their names: a way to name a tensor inside an exported module."""
    Graph(model).set_outputs(value for value in model.graph.output if value.name not in names)


def with_outputs(model: onnx.ModelProto, names: Sequence[str], kind: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """A copy of a model whose outputs are some of its tensors; of those that were none, ``kind`` is the type."""
    graph = Graph.copy_of(model)
    known = {value.name: value for value in model.graph.output}
    graph.set_outputs(known.get(name) or helper.make_tensor_value_info(name, kind, None) for name in names)
    return graph.model


def clean(model: onnx.ModelProto) -> None:
    """Drop what a runtime does not need: debug records, inferred shapes, unused initializers."""
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:], model.functions[:]
    graph.doc_string = model.doc_string = model.producer_version = ""
    graph.name, model.producer_name = "vidlet", "vidlet"
    Graph(model).prune(nodes=False)
    for item in [*graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        _clean_node(node)


def fold_pads(model: onnx.ModelProto, kind: str, fill: float) -> int:
    """Move paddings of height and width into the operators that alone read them; returns how many.

    Args:
        kind: of the operators: "Conv" or "MaxPool".
        fill: the number of the paddings: 0, or minus infinity for a maximum.
    """
    graph = Graph(model)
    folded = []
    for pad in [node for node in graph.nodes if node.op_type == "Pad"]:
        after = graph.only_reader(pad.output[0])
        sizes = _spatial_pads(pad, graph, fill)
        if sizes is None or after is None or after.op_type != kind or after.input[0] != pad.output[0]:
            continue
        own = attribute(after, "pads", [0] * 4)
        for found in [found for found in after.attribute if found.name == "auto_pad" and kind == "Conv"]:
            after.attribute.remove(found)
        set_attribute(after, "pads", [a + b for a, b in zip(own, sizes, strict=True)])
        after.input[0] = pad.input[0]
        folded.append(pad)
    graph.remove(folded)
    graph.prune(nodes=False)
    return len(folded)


def pool_before_rectifying(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which a rectifier that only a maximum pooling reads is applied behind it, to fewer numbers.

    Guarantee: every tensor that is an output, and all behind the pooling, keep their values exactly. In float32 ONNX
    Runtime does a rectifier within the convolution, at no cost; in integers it is a pass over the picture of its own.
    """
    graph = Graph.copy_of(model)
    for node in graph.nodes:
        pool = graph.only_reader(node.output[0])
        if node.op_type not in RISING or pool is None or pool.op_type != "MaxPool":
            continue
        if node.op_type == "LeakyRelu" and attribute(node, "alpha", 0.01) < 0:
            continue
        source, between, made = node.input[0], node.output[0], pool.output[0]
        rectifier = onnx.NodeProto()
        rectifier.CopyFrom(node)
        node.CopyFrom(pool)  # the pooling takes the rectifier's place in the order of nodes
        node.input[0], node.output[0] = source, between
        pool.CopyFrom(rectifier)
        pool.input[0], pool.output[0] = between, made
    return graph.model


def run_scans_once(graph: Graph) -> None:
    """Put the body of each Scan in its place, in a graph that takes one frame at a time: there it runs once.

    One that goes along other axes than the first is left as it is.
    """
    for first in [next(filter(None, node.output)) for node in graph.nodes if node.op_type == "Scan"]:
        scan = graph.makers[first]
        if not any(any(attribute(scan, name, [])) for name in ("scan_input_axes", "scan_output_axes")):
            nodes, stored = _once(scan, graph.fresh(f"{first}.once"))
            at = graph.place(first)
            kept = [*graph.nodes]
            graph.set_nodes([*kept[:at], *nodes, *kept[at + 1 :]])
            graph.set_initializers([*graph.proto.initializer, *stored])


def _once(scan: onnx.NodeProto, stem: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes of a Scan's body for one step, and what is stored for them; inner names begin with ``stem``."""
    body = onnx.GraphProto()
    body.CopyFrom(next(bodies(scan)))
    own = {name for node in body.node for name in node.output}
    own |= {value.name for value in (*body.input, *body.initializer)}
    rename(body, lambda name: f"{stem}.{name}" if name in own else name)
    states = len(scan.input) - attribute(scan, "num_scan_inputs")
    axis = numpy_helper.from_array(np.array([0]), f"{stem}.axis")

    def moved(kind: str, number: int, source: str, to: str) -> onnx.NodeProto:
        state = number < states  # others have an axis of time
        return helper.make_node("Identity" if state else kind, [source] if state else [source, axis.name], [to])

    given = enumerate(zip(scan.input, body.input, strict=True))
    taken = enumerate(zip(body.output, scan.output, strict=True))
    begin = [moved("Squeeze", i, name, value.name) for i, (name, value) in given]
    end = [moved("Unsqueeze", i, value.name, name) for i, (value, name) in taken if name]
    return [*begin, *body.node, *end], [axis, *body.initializer]


def share_equal(model: onnx.ModelProto) -> None:
    """Store tensors of equal content once, and compute once what equal nodes compute of equal inputs."""
    graph = Graph(model)
    same: dict[str, str] = {}
    first: dict[str, str] = {}
    for tensor in model.graph.initializer:
        twin = first.setdefault(content_key(tensor), tensor.name)
        if twin != tensor.name:
            same[tensor.name] = twin
    graph.set_initializers(tensor for tensor in model.graph.initializer if tensor.name not in same)
    known: dict[bytes, list[str]] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.nodes:
        redirect(node, same)
        alike = known.get(_work(node))
        if alike is not None and not graph.outputs & set(node.output):
            same.update(zip(node.output, alike, strict=True))
            continue
        known.setdefault(_work(node), list(node.output))
        kept.append(node)
    graph.set_nodes(kept)


def content_key(tensor: onnx.TensorProto) -> str:
    """A hash of what a stored tensor holds, whatever its name."""
    nameless = onnx.TensorProto()
    nameless.CopyFrom(tensor)
    nameless.name = nameless.doc_string = ""
    return hashlib.sha256(nameless.SerializeToString(deterministic=True)).hexdigest()


def _work(node: onnx.NodeProto) -> bytes:
    """What a node does to what, without its own name and those of its results."""
    bare = onnx.NodeProto()
    bare.CopyFrom(node)
    bare.name = bare.doc_string = ""
    bare.output[:] = ["1" if name else "" for name in node.output]
    return bytes(bare.SerializeToString(deterministic=True))


def _clean_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for found in node.attribute:
        found.doc_string = ""
    for body in bodies(node):
        del body.value_info[:]
        for inner in body.node:
            _clean_node(inner)


def _spatial_pads(pad: onnx.NodeProto, graph: Graph, fill: float) -> list[int] | None:
    """[top, left, bottom, right] of a constant padding of (B, C, H, W) with ``fill``, else None."""
    if attribute(pad, "mode", "constant") != "constant" or len(pad.input) < 2 or any(pad.input[3:]):
        return None
    if not all(name in graph.constants for name in pad.input[1:] if name):
        return None
    number = graph.value(pad.input[2]).item() if len(pad.input) > 2 and pad.input[2] else 0.0
    sizes: list[int] = graph.value(pad.input[1]).tolist()
    if number != fill or len(sizes) != 8 or min(sizes) < 0 or any(sizes[axis] for axis in (0, 1, 4, 5)):
        return None
    return [*sizes[2:4], *sizes[6:8]]


# What a graph computes of its constants alone.


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
