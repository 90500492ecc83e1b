"""Large products of heads in integers: cells taken apart equal the runtime's own, and stream."""

import collections

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import session
from vidlet.compression.graph_steps import compact_graph
from vidlet.compression.products import constant_floats, integer_products, product_inputs, product_weights
from vidlet.runtime.safety import check_safe

INPUTS, HIDDEN = 40, 24


def cell(kind: str, moved: bool = True, **attributes) -> onnx.ModelProto:
    """A GRU or LSTM of x (T, N, I) with states (1, N, H) given and handed on; ``moved``: W is put together of parts."""
    rng = np.random.default_rng(0)
    gates = {"GRU": 3, "LSTM": 4}[kind]
    stored = {
        "w": rng.normal(size=(1, gates * HIDDEN, INPUTS)) / INPUTS**0.5,
        "r": rng.normal(size=(1, gates * HIDDEN, HIDDEN)) / HIDDEN**0.5,
        "b": rng.normal(size=(1, 2 * gates * HIDDEN)) * 0.3,
    }
    if moved:
        stored["w.flat"] = stored.pop("w")[0]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()]
    tensors.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    states = ["h", "c"][: gates - 2]
    given = {"hidden_size": HIDDEN, "direction": "forward", "layout": 0}  # as torch's exporter says them
    given |= {"linear_before_reset": 1} if kind == "GRU" else {"input_forget": 0}
    nodes = [helper.make_node("Unsqueeze", ["w.flat", "axis"], ["w"])] if moved else []
    nodes.append(
        helper.make_node(
            kind, ["x", "w", "r", "b", "", *states], ["all", *(f"next.{s}" for s in states)], **(given | attributes)
        )
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [
            value("x", TensorProto.FLOAT, ["T", "N", INPUTS]),
            *(value(s, TensorProto.FLOAT, [1, "N", HIDDEN]) for s in states),
        ],
        [value("all", TensorProto.FLOAT, None), *(value(f"next.{s}", TensorProto.FLOAT, None) for s in states)],
        tensors,
    )
    for output in graph.output:
        rank = 4 if output.name == "all" else 3
        output.CopyFrom(value(output.name, TensorProto.FLOAT, [f"d{i}" for i in range(rank)]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def feeds(kind: str, frames: int = 7, windows: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {"x": rng.uniform(-2, 2, (frames, windows, INPUTS)).astype(np.float32)}
    for state in ["h", "c"][: 1 if kind == "GRU" else 2]:
        found[state] = rng.uniform(-1, 1, (1, windows, HIDDEN)).astype(np.float32)
    return found


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("moved", [True, False])
def test_a_cell_of_integer_products_is_the_runtimes_cell_but_for_the_rounding(kind, moved, tmp_path):
    model = cell(kind, moved)
    assert product_inputs(model, 0) == ["x"]
    assert product_weights(model, 0) == ["w"]
    integer = integer_products(model, {"x": (4 / 255, 128)}, min_weights=0)
    check_safe(integer.SerializeToString(), "model")
    kinds = collections.Counter(node.op_type for node in integer.graph.node)
    assert kind not in kinds
    assert kinds["MatMulInteger"] == kinds["Scan"] == 1
    assert {t.data_type for t in integer.graph.initializer if np.prod(t.dims) > 500} == {TensorProto.INT8}
    expected = session(model).run(None, feeds(kind))
    found = session(integer).run(None, feeds(kind))
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        assert 0 < np.abs(a - b).max() < 0.06


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_frame_by_frame_it_is_the_clip_to_the_last_bit(kind):
    for model in (integer_products(cell(kind), {"x": (4 / 255, 128)}, min_weights=0),):
        for form in (model, compact_graph(model)):
            inner, given = session(form), feeds(kind)
            whole = inner.run(None, given)
            x = given.pop("x")
            for i, frame in enumerate(x):
                every, *states = inner.run(None, {"x": frame[None], **given})
                np.testing.assert_array_equal(every[0], whole[0][i])
                given = dict(zip(given, states, strict=True))
            for state, last in zip(states, whole[1:], strict=True):
                np.testing.assert_array_equal(state, last)


def test_weights_and_inputs_on_their_steps_are_multiplied_exactly():
    rng = np.random.default_rng(0)
    weight = rng.integers(-64, 65, (30, 20)).astype(np.float32) / 64
    weight[:2] = 1.0  # every column's largest two, side by side: as much as 16 bits hold
    bias = rng.normal(size=20).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Gemm", ["x", "wt", "b"], ["z"], transB=1),
    ]
    value = helper.make_tensor_value_info
    stored = {"w": weight, "wt": np.ascontiguousarray(weight.T), "b": bias}
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["N", 30])],
        [value("y", TensorProto.FLOAT, ["N", 20]), value("z", TensorProto.FLOAT, ["N", 20])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    integer = integer_products(model, {"x": (0.25, 100)}, min_weights=600)
    assert [node.op_type for node in integer.graph.node].count("MatMulInteger") == 2
    x = (rng.integers(-100, 156, (5, 30)) * 0.25).astype(np.float32)
    y, z = session(integer).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ weight, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(z, x @ weight + bias, rtol=1e-5, atol=1e-4)
    assert integer_products(model, {}, keep=("w", "wt"), min_weights=600).graph.node[0].op_type == "MatMul"


def test_small_products_and_unusual_cells_stay_as_they_are():
    assert product_inputs(cell("GRU")) == []
    for attributes in ({"linear_before_reset": 0}, {"activations": ["Sigmoid", "Relu"]}, {"clip": 3.0}):
        assert product_inputs(cell("GRU", **attributes), 0) == []
    model = cell("GRU")
    assert integer_products(model, {}).SerializeToString() == model.SerializeToString()


def test_constants_put_together_of_stored_ones_are_known():
    model = cell("GRU")
    found = constant_floats(model, ["w", "r", "x", "all"])
    assert set(found) == {"w", "r"}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(found["w"], stored["w.flat"][None])
