"""Small model files for the runtime's tests, made by hand with the onnx package: every score can be worked out.

The classifier looks at the mean brightness of each frame's color channels, in [0, 1]:

    score "dark" ... softmax over labels of SHARPNESS * (mean over time of red, green, blue, and the mean difference of
    the green channel to the frame before)

State: ``sum`` (N, 3), ``count`` (N, 1), ``last`` (N, 1) the green of the frame before, ``moved`` (N, 1) the sum of
differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vidlet.runtime import write_metadata
from vidlet.video import RESIZE

SIZE = (6, 8)
LABELS = ("red", "green", "blue", "moving")
SHARPNESS = 10.0


def session(model: onnx.ModelProto, dump: str = "") -> Any:
    """A graph in ONNX Runtime with one thread; ``dump`` names a file that gets what the runtime made of the graph."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if dump:
        options.optimized_model_filepath = dump
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def metadata(**changes: Any) -> dict[str, Any]:
    """A valid metadata object; ``changes`` replace keys, None takes a key away."""
    found = {
        "format": "1.0",
        "labels": list(LABELS),
        "box_labels": [],
        "inputs": ["frames"],
        "sampling": {"rule": "rate", "hz": 8, "median_s": 2.0},
        "resize": RESIZE,
        "recipe": {"name": "test"},
        "provenance": {"weights": "none"},
        "temperature": None,
        "evidence": [{"what": "accuracy", "value": 0.5, "data": "clips", "command": "vidlet evaluate"}],
        "sizes": {"head": 12},
    }
    return {key: value for key, value in (found | changes).items() if value is not None}


def constant(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    """A stored tensor."""
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def classifier(size: tuple[int, int] = SIZE, labels: int = len(LABELS), sigmoid: bool = False) -> onnx.ModelProto:
    """The classifier above; ``labels`` beyond four get a score of their own from nothing."""
    height, width = size
    n = helper.make_node
    nodes = [
        n("Cast", ["frames"], ["extractor.float"], to=TensorProto.FLOAT),
        n("ReduceMean", ["extractor.float", "axes.pixels"], ["extractor.mean"], keepdims=0),  # (T, 3)
        n("Mul", ["extractor.mean", "extractor.scale"], ["features"]),
        # the sum over time, for every window
        n("ReduceSum", ["features", "axes.time"], ["clip.sum"], keepdims=1),  # (1, 3)
        n("Add", ["state.sum", "clip.sum"], ["next_state.sum"]),
        n("Shape", ["features"], ["clip.length"], start=0, end=1),
        n("Cast", ["clip.length"], ["clip.count"], to=TensorProto.FLOAT),
        n("Add", ["state.count", "clip.count"], ["next_state.count"]),
        # differences of green: within the clip, and from the state's last frame where there was one
        n("Slice", ["features", "one", "two", "one"], ["green"]),  # (T, 1)
        n("Slice", ["green", "zero", "minus_one", "zero"], ["green.before"]),
        n("Slice", ["green", "one", "end", "zero"], ["green.after"]),
        n("Sub", ["green.after", "green.before"], ["green.steps"]),
        n("Abs", ["green.steps"], ["green.moves"]),
        n("ReduceSum", ["green.moves", "axes.time"], ["green.moved"], keepdims=1),  # (1, 1)
        n("Slice", ["green", "zero", "one", "zero"], ["green.first"]),
        n("Sub", ["state.last", "green.first"], ["green.jump"]),
        n("Abs", ["green.jump"], ["green.jumped"]),
        n("Sign", ["state.count"], ["seen"]),
        n("Mul", ["green.jumped", "seen"], ["green.entered"]),
        n("Add", ["green.entered", "green.moved"], ["green.added"]),
        n("Add", ["state.moved", "green.added"], ["next_state.moved"]),
        n("Slice", ["green", "minus_one", "end", "zero"], ["green.last"]),  # (1, 1)
        n("Mul", ["state.last", "zero.float"], ["state.nothing"]),
        n("Add", ["state.nothing", "green.last"], ["next_state.last"]),
        # scores
        n("Div", ["next_state.sum", "next_state.count"], ["means"]),
        n("Div", ["next_state.moved", "next_state.count"], ["movement"]),
        n("Concat", ["means", "movement"], ["pooled"], axis=1),
        n("MatMul", ["pooled", "head.weight"], ["logits"]),
        n("Sigmoid", ["logits"], ["scores"]) if sigmoid else n("Softmax", ["logits"], ["scores"], axis=1),
    ]
    stored = [
        constant("axes.pixels", [1, 2], np.int64),
        constant("axes.time", [0], np.int64),
        constant("extractor.scale", 1 / 255),
        constant("head.weight", SHARPNESS * np.eye(4, labels)),
        constant("zero", [0], np.int64),
        constant("one", [1], np.int64),
        constant("two", [2], np.int64),
        constant("minus_one", [-1], np.int64),
        constant("end", [2**31], np.int64),
        constant("zero.float", 0.0),
    ]
    states = [("sum", 3), ("count", 1), ("last", 1), ("moved", 1)]
    value = helper.make_tensor_value_info
    inputs = [value("frames", TensorProto.UINT8, ["T", height, width, 3])]
    inputs += [value(f"state.{name}", TensorProto.FLOAT, ["N", size]) for name, size in states]
    outputs = [value("scores", TensorProto.FLOAT, ["N", labels])]
    outputs += [value(f"next_state.{name}", TensorProto.FLOAT, ["N", size]) for name, size in states]
    return model_of(nodes, inputs, outputs, stored)


def detector() -> onnx.ModelProto:
    """Two boxes per frame: the whole frame with the mean red as its score, class 0; its left half with half of it."""
    n = helper.make_node
    nodes = [
        n("Gather", ["frames", "last"], ["newest"], axis=0),
        n("Cast", ["newest"], ["float"], to=TensorProto.FLOAT),
        n("ReduceMean", ["float", "axes"], ["mean"], keepdims=1),
        n("Reshape", ["mean", "row"], ["channels"]),
        n("MatMul", ["channels", "detector.to_boxes"], ["flat"]),
        n("Reshape", ["flat", "six"], ["variable"]),
        n("Add", ["variable", "detector.fixed"], ["boxes"]),
    ]
    to_boxes = np.zeros((3, 12))
    to_boxes[0, 4], to_boxes[0, 10] = 1 / 255, 0.5 / 255
    stored = [
        constant("last", [-1], np.int64),
        constant("axes", [0, 1, 2], np.int64),
        constant("row", [1, 3], np.int64),
        constant("six", [2, 6], np.int64),
        constant("detector.to_boxes", to_boxes),
        constant("detector.fixed", [[0, 0, 1, 1, 0, 0], [0, 0, 0.5, 1, 0, 1]]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("frames", TensorProto.UINT8, ["T", *SIZE, 3])]
    return model_of(nodes, inputs, [value("boxes", TensorProto.FLOAT, ["M", 6])], stored)


def features_model() -> onnx.ModelProto:
    """Mean of rgb (T, 4) and audio (T, 2) so far -> three sigmoid scores."""
    n = helper.make_node
    nodes = [
        n("Concat", ["rgb", "audio"], ["both"], axis=1),
        n("Cast", ["both"], ["float"], to=TensorProto.FLOAT),
        n("ReduceSum", ["float", "time"], ["clip.sum"], keepdims=1),
        n("Add", ["state.sum", "clip.sum"], ["next_state.sum"]),
        n("MatMul", ["next_state.sum", "head.weight"], ["logits"]),
        n("Sigmoid", ["logits"], ["scores"]),
    ]
    stored = [constant("time", [0], np.int64), constant("head.weight", np.eye(6, 3) / 1000)]
    value = helper.make_tensor_value_info
    inputs = [
        value("rgb", TensorProto.UINT8, ["T", 4]),
        value("audio", TensorProto.UINT8, ["T", 2]),
        value("state.sum", TensorProto.FLOAT, ["N", 6]),
    ]
    outputs = [value("scores", TensorProto.FLOAT, ["N", 3]), value("next_state.sum", TensorProto.FLOAT, ["N", 6])]
    return model_of(nodes, inputs, outputs, stored)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    stored: list[onnx.TensorProto],
) -> onnx.ModelProto:
    """A checked ONNX model of one graph."""
    graph = helper.make_graph(nodes, "test", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def save(model: onnx.ModelProto, path: Path, **changes: Any) -> Path:
    """Write a model with valid metadata (``changes`` as in ``metadata``)."""
    path.write_bytes(model.SerializeToString())
    write_metadata(path, metadata(**changes))
    return path


def frames_of(colors: list[tuple[int, int, int]], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Plain frames (T, H, W, 3) of these colors."""
    return np.stack([np.broadcast_to(np.array(color, np.uint8), (*size, 3)) for color in colors])


def expected_scores(frames: np.ndarray) -> np.ndarray:
    """The classifier's scores (K,), slowly."""
    means = frames.reshape(len(frames), -1, 3).astype(np.float64).mean(1) / 255
    moved = sum(abs(means[t, 1] - means[t - 1, 1]) for t in range(1, len(frames)))
    logits = SHARPNESS * np.array([*means.mean(0), moved / len(frames)])
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
