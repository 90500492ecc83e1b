"""Several model files as one graph: shared inputs, what they compute alike computed and stored once, scores averaged.

Guarantee: the scores are the weighted mean of the files' scores; each member's tensors stay stored as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..artifact.feeds import clip_inputs
from ..errors import ExportError
from ..onnx_graph import Graph, share_equal
from ..onnx_graph.rewrites import content_key

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
    share_equal(joined)
    onnx.checker.check_model(joined)
    return joined


def content_sizes(graph: onnx.ModelProto) -> dict[str, int]:
    """Bytes of each stored tensor by a hash of its content."""
    return {content_key(tensor): tensor.ByteSize() for tensor in graph.graph.initializer}


def _renamed(model: onnx.ModelProto, prefix: str) -> onnx.GraphProto:
    """A copy of the graph with every name behind a prefix, but for the inputs that members share."""
    shared = set(clip_inputs(model))

    def name(old: str) -> str:
        if old in shared:
            return old
        for kind in ("state.", "next_state."):
            if old.startswith(kind):
                return f"{kind}{prefix}_{old.removeprefix(kind)}"
        return f"{prefix}.{old}"

    graph = Graph.copy_of(model)
    graph.rename(name)
    graph.drop_node_names()
    for value in graph.proto.output:
        if value.name == f"{prefix}.{SCORES}":
            value.name = SCORES
    return graph.proto


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


# A network on pictures and one on pictures of optical flow as one graph: frames and flow in, averaged scores out.
#
# Source: Simonyan and Zisserman 2014, arXiv:1406.2199; as 3-D networks in tensor-train form, Wang et al., "Compressing
# 3DCNNs Based on Tensor Train Decomposition". Flow is computed by the client; how it becomes a picture is in the graph.
FRAMES, FLOW, PICTURES = "frames", "flow", "flow_pictures"


def join_streams(
    pictures: onnx.ModelProto, motion: onnx.ModelProto, most: float, weights: Sequence[float]
) -> onnx.ModelProto:
    """One graph of two networks on ``frames``, the second of which was trained on pictures of flow.

    Args:
        most: pixels of motion in 127 levels of such a picture (``video.flow.flow_pictures``).
        weights: of the scores of pictures and motion.

    Returns:
        The graph: ``frames`` uint8 (T, H, W, 3) and ``flow`` float32 (T, H, W, 2) in, both at the size of the frames.

    Raises:
        ExportError: graphs of other operator versions.
    """
    return join_graphs([pictures, takes_flow(motion, most)], weights)


def takes_flow(motion: onnx.ModelProto, most: float) -> onnx.ModelProto:
    """The same network with ``flow`` in the place of ``frames``: x, y and length, cut at ``most``, as 8-bit levels."""
    graph = Graph.copy_of(motion)
    assert list(clip_inputs(motion)) == [FRAMES]
    graph.redirect({FRAMES: PICTURES})
    frames = next(value for value in graph.proto.input if value.name == FRAMES)
    length, height, width, _ = frames.type.tensor_type.shape.dim
    size = [length.dim_param, height.dim_value, width.dim_value, 2]
    frames.CopyFrom(helper.make_tensor_value_info(FLOW, TensorProto.FLOAT, size))
    numbers = {"axis": np.array([3], np.int64), "least": np.float32(-most), "most": np.float32(most),
               "levels": np.float32(127 / most), "none": np.float32(128)}  # fmt: skip
    for name, number in numbers.items():
        graph.store(f"{FLOW}.{name}", np.asarray(number))
    steps = [
        helper.make_node("ReduceL2", [FLOW, f"{FLOW}.axis"], [f"{FLOW}.length"], keepdims=1),
        helper.make_node("Concat", [FLOW, f"{FLOW}.length"], [f"{FLOW}.channels"], axis=3),
        helper.make_node("Clip", [f"{FLOW}.channels", f"{FLOW}.least", f"{FLOW}.most"], [f"{FLOW}.cut"]),
        helper.make_node("Mul", [f"{FLOW}.cut", f"{FLOW}.levels"], [f"{FLOW}.scaled"]),
        helper.make_node("Add", [f"{FLOW}.scaled", f"{FLOW}.none"], [f"{FLOW}.moved"]),
        helper.make_node("Round", [f"{FLOW}.moved"], [f"{FLOW}.rounded"]),
        helper.make_node("Cast", [f"{FLOW}.rounded"], [PICTURES], to=TensorProto.UINT8),
    ]
    graph.insert(0, steps)
    return graph.model
