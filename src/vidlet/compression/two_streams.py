"""A network on pictures and one on pictures of optical flow as one graph: frames and flow in, averaged scores out.

Source: Simonyan and Zisserman 2014, arXiv:1406.2199; as 3-D networks in tensor-train form, Wang et al., "Compressing
3DCNNs Based on Tensor Train Decomposition". Flow is computed by the client; how it becomes a picture is in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..artifact.feeds import clip_inputs
from ..onnx_graph import Graph
from .join import join_graphs

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
