"""Several model files as one graph: shared inputs, what they compute alike computed and stored once, scores averaged.

Guarantee: the scores are the weighted mean of the files' scores; each member's tensors stay stored as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..artifact.feeds import clip_inputs
from ..errors import ExportError

SCORES = "scores"


def join_graphs(graphs: Sequence[onnx.ModelProto], weights: Sequence[float]) -> onnx.ModelProto:
    """One graph whose ``scores`` are the mean of those of ``graphs``, weighted.

    A member takes what it needs of the shared inputs. States get names of their own: ``state.h`` of the second member
    is ``state.m1_h``. Tensors of equal content, and nodes of equal inputs and attributes, stand once.

    Raises:
        ExportError: none, or graphs whose inputs, scores or operator versions do not go together.
    """
    if not graphs or len(graphs) != len(weights):
        raise ExportError(f"an ensemble needs a weight a member, got {len(graphs)} members and {len(weights)} weights")
    parts = [_renamed(graph, f"m{i}") for i, graph in enumerate(graphs)]
    joined = onnx.ModelProto()
    joined.ir_version = max(graph.ir_version for graph in graphs)
    joined.opset_import.extend(_opsets(graphs))
    joined.graph.name = "ensemble"
    joined.graph.input.extend(_inputs(graphs, parts))
    for part in parts:
        joined.graph.initializer.extend(part.initializer)
        joined.graph.node.extend(part.node)
    _average(joined.graph, [f"m{i}.{SCORES}" for i in range(len(parts))], weights)
    scores = next(value for value in graphs[0].graph.output if value.name == SCORES)
    joined.graph.output.append(scores)
    joined.graph.output.extend(value for part in parts for value in part.output if value.name != SCORES)
    share_(joined)
    onnx.checker.check_model(joined)
    return joined


def share_(model: onnx.ModelProto) -> None:
    """Store tensors of equal content once, and compute once what equal nodes compute of equal inputs."""
    graph = model.graph
    same: dict[str, str] = {}
    _share_tensors(graph, same)
    outputs = {value.name for value in graph.output}
    known: dict[bytes, list[str]] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        _rename_reads(node, same)
        key = _content(node)
        twin = known.get(key)
        if twin is not None and not outputs & set(node.output):
            same.update(zip(node.output, twin, strict=True))
            continue
        known.setdefault(key, list(node.output))
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def content_sizes(graph: onnx.ModelProto) -> dict[str, int]:
    """Bytes of each stored tensor by a hash of its content."""
    return {_tensor_key(tensor): tensor.ByteSize() for tensor in graph.graph.initializer}


def _share_tensors(graph: onnx.GraphProto, same: dict[str, str]) -> None:
    known: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        first = known.setdefault(_tensor_key(tensor), tensor.name)
        if first != tensor.name:
            same[tensor.name] = first
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _tensor_key(tensor: onnx.TensorProto) -> str:
    nameless = onnx.TensorProto()
    nameless.CopyFrom(tensor)
    nameless.name = nameless.doc_string = ""
    return hashlib.sha256(nameless.SerializeToString(deterministic=True)).hexdigest()


def _content(node: onnx.NodeProto) -> bytes:
    """What a node does to what, without its own name and those of its results."""
    bare = onnx.NodeProto()
    bare.CopyFrom(node)
    bare.name = bare.doc_string = ""
    del bare.output[:]
    bare.output.extend("1" if name else "" for name in node.output)
    return bytes(bare.SerializeToString(deterministic=True))


def _renamed(model: onnx.ModelProto, prefix: str) -> onnx.GraphProto:
    """A copy of the graph with every name behind a prefix, but for the inputs that members share."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    shared = set(clip_inputs(model))

    def name(old: str) -> str:
        if not old or old in shared:
            return old
        for kind in ("state.", "next_state."):
            if old.startswith(kind):
                return f"{kind}{prefix}_{old.removeprefix(kind)}"
        return f"{prefix}.{old}"

    _rename_all(graph, name)
    for value in graph.output:
        if value.name == f"{prefix}.{SCORES}":
            value.name = SCORES
    return graph


def _rename_all(graph: onnx.GraphProto, name) -> None:  # type: ignore[no-untyped-def]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = name(value.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [name(old) for old in node.input]
        node.output[:] = [name(old) for old in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename_all(attribute.g, name)


def _rename_reads(node: onnx.NodeProto, names: dict[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename_reads(inner, names)
            for value in attribute.g.output:
                value.name = names.get(value.name, value.name)


def _opsets(graphs: Sequence[onnx.ModelProto]) -> list[onnx.OperatorSetIdProto]:
    found: dict[str, int] = {}
    for graph in graphs:
        for opset in graph.opset_import:
            if found.setdefault(opset.domain, opset.version) != opset.version:
                raise ExportError(
                    f"members use versions {found[opset.domain]} and {opset.version} of the operators "
                    f"{opset.domain or 'ai.onnx'}; export them with one vidlet"
                )
    return [helper.make_opsetid(domain, version) for domain, version in found.items()]


def _inputs(graphs: Sequence[onnx.ModelProto], parts: Sequence[onnx.GraphProto]) -> list[onnx.ValueInfoProto]:
    """The shared inputs of clips, then every member's states."""
    shared: dict[str, onnx.ValueInfoProto] = {}
    states = []
    for model, part in zip(graphs, parts, strict=True):
        clips = clip_inputs(model)
        for value in part.input:
            if value.name.startswith("state."):
                states.append(value)
            elif value.name in clips:
                first = shared.setdefault(value.name, value)
                if _sizes(first) != _sizes(value):
                    raise ExportError(
                        f"members take {value.name} of sizes {_sizes(first)} and {_sizes(value)}; they must be alike"
                    )
    if "frames" in shared and not set(shared) <= {"frames", "flow"}:
        raise ExportError(f"members take different inputs: {', '.join(shared)}")
    order = sorted(shared, key=lambda name: _KINDS.index(name) if name in _KINDS else len(_KINDS))
    return [*(shared[name] for name in order), *states]


_KINDS = ("frames", "flow", "rgb", "audio")


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]


def _average(graph: onnx.GraphProto, names: Sequence[str], weights: Sequence[float]) -> None:
    whole = float(sum(weights))
    parts = []
    for i, (name, weight) in enumerate(zip(names, weights, strict=True)):
        graph.initializer.append(numpy_helper.from_array(np.asarray(weight / whole, np.float32), f"weight{i}"))
        graph.node.append(helper.make_node("Mul", [name, f"weight{i}"], [f"weighted{i}"]))
        parts.append(f"weighted{i}")
    graph.node.append(helper.make_node("Sum", parts, [SCORES]))
