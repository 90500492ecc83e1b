"""Several columns of a first convolution at once: the same integers, whatever kernel, stride and borders are."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import session
from vidlet.compression.exact import PAIR, pair_sums, quantize_exactly
from vidlet.compression.graph_steps import compact_graph as compact
from vidlet.onnx_graph import attribute
from vidlet.onnx_graph.columns import join_columns, part_columns


def picture_network(width, channels, outputs, kernel, stride, pads, bias=True, height=1200, bytes_in="frames"):
    """uint8 frames -> one integer convolution -> uint8 maps (T, O, H', W')."""
    draw = np.random.default_rng(0)
    codes, scales = quantize_exactly(draw.normal(size=(outputs, channels, kernel, kernel)))
    scales, source = scales.reshape(-1), np.float32(1 / 128)
    stored = {
        "source": source, "zero": np.uint8(127), "w.q": codes, "w.scale": scales,
        "result": np.float32(0.05), "middle": np.uint8(100),
    }  # fmt: skip
    weights = [helper.make_node("DequantizeLinear", ["w.q", "w.scale"], ["w"], axis=0)]
    if bias:
        stored |= {"b.q": draw.integers(-3000, 3000, outputs).astype(np.int32), "b.scale": source * scales}
        weights.append(helper.make_node("DequantizeLinear", ["b.q", "b.scale"], ["b"], axis=0))
    top, left, bottom, right = pads
    nodes = [
        helper.make_node("Transpose", [bytes_in], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["turned", "source", "zero"], ["x"]),
        *weights,
        helper.make_node("Conv", ["x", "w", *(["b"] if bias else [])], ["raw"], strides=[stride] * 2,
                         kernel_shape=[kernel] * 2, pads=[top, left, bottom, right]),
        helper.make_node("QuantizeLinear", ["raw", "result", "middle"], ["maps"]),
    ]  # fmt: skip
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["T", height, width, channels])
    maps = helper.make_tensor_value_info("maps", TensorProto.UINT8, ["T", outputs, None, None])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", [frames], [maps], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, frames):
    return session(model).run(["maps"], {"frames": frames})[0]


CASES = [  # width, channels, outputs, kernel, stride, pads
    (16, 3, 32, 3, 2, (0, 0, 1, 1)),
    (16, 3, 32, 3, 2, (1, 1, 1, 1)),
    (16, 3, 16, 3, 2, (1, 1, 0, 0)),
    (32, 3, 8, 3, 2, (1, 1, 1, 1)),
    (16, 3, 16, 3, 1, (1, 1, 1, 1)),
    (16, 3, 4, 3, 1, (1, 1, 1, 1)),
    (32, 3, 4, 5, 1, (2, 2, 2, 2)),
    (32, 3, 64, 7, 2, (3, 3, 3, 3)),
    (16, 1, 16, 3, 2, (1, 1, 1, 1)),
    (16, 2, 16, 3, 1, (1, 1, 1, 1)),
    (32, 6, 16, 3, 1, (1, 1, 1, 1)),
    (24, 3, 16, 2, 2, (0, 0, 0, 0)),
    (32, 3, 16, 4, 4, (0, 0, 0, 0)),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_maps_are_the_same_to_the_bit(case, bias):
    model = picture_network(*case, bias=bias)
    joined = join_columns(model)
    onnx.checker.check_model(joined)
    draw = np.random.default_rng(1)
    for frames in (
        draw.integers(0, 256, (2, 1200, *case[:2]), np.uint8),
        np.full((1, 1200, *case[:2]), 255, np.uint8),
    ):
        np.testing.assert_array_equal(run(joined, frames), run(model, frames))
    assert any(node.op_type == "Reshape" for node in joined.graph.node)
    assert join_columns(joined).SerializeToString() == joined.SerializeToString()
    np.testing.assert_array_equal(run(compact(joined), frames), run(model, frames))
    for wide in (joined, compact(joined)):
        parted = part_columns(wide)
        kinds = [node.op_type for node in parted.graph.node]
        assert kinds.count("Conv") == 1
        assert "Reshape" not in kinds
        conv = next(node for node in parted.graph.node if node.op_type == "Conv")
        assert (attribute(conv, "kernel_shape"), attribute(conv, "strides")) == ([case[3]] * 2, [case[4]] * 2)
        np.testing.assert_array_equal(run(parted, frames), run(model, frames))


@pytest.mark.parametrize(
    "changed",
    [
        {"width": 18},  # not so many blocks
        {"channels": 4},
        {"height": 200},  # a small map
        {"bytes_in": "copy"},  # sizes that are not known
    ],
)
def test_what_would_not_be_quicker_or_is_not_known_stays_as_it_is(changed):
    model = picture_network(
        **{"width": 16, "channels": 3, "outputs": 32, "kernel": 3, "stride": 2, "pads": (1, 1, 1, 1)} | changed
    )
    if "bytes_in" in changed:
        model.graph.node.insert(0, helper.make_node("Identity", ["frames"], ["copy"]))
    assert join_columns(model).graph == model.graph


@pytest.mark.parametrize("pads", [(0, 0, 2, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_kernels_side_by_side_are_exact_everywhere(tmp_path, stride, pads):
    joined = join_columns(picture_network(16, 3, 32, 3, stride, pads))
    session(joined, str(tmp_path / "folded.onnx"))
    kernels = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "folded.onnx").graph.initializer
        if len(tensor.dims) == 4
    ]
    assert [kernel.shape[:2] for kernel in kernels] == [(64 if stride == 2 else 128, 12)]
    assert all(pair_sums(kernel).max() <= PAIR for kernel in kernels)
