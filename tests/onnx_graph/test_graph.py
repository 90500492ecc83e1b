"""The graph kit: who makes and reads what, and edits that keep this true, on graphs small enough to follow by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vidlet.errors import ModelError
from vidlet.onnx_graph import (
    Graph,
    alive,
    attribute,
    attributes,
    fold_pads,
    names_read,
    pool_before_rectifying,
    share_equal,
    with_outputs,
)
from vidlet.onnx_graph.graph import set_attribute
from vidlet.runtime import open_session

n, value = helper.make_node, helper.make_tensor_value_info


def model(nodes, inputs=("x",), outputs=("y",), stored=None, shape=("T", 4)) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in (stored or {}).items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [value(name, TensorProto.FLOAT, shape) for name in inputs],
        [value(name, TensorProto.FLOAT, [None] * len(shape)) for name in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def diamond() -> onnx.ModelProto:
    """x -> a -> (b, c) -> y = b + c; d is read by nobody."""
    nodes = [
        n("Mul", ["x", "two"], ["a"]),
        n("Relu", ["a"], ["b"]),
        n("Mul", ["a", "a"], ["c"]),
        n("Mul", ["c", "three"], ["d"]),
        n("Add", ["b", "c"], ["y"]),
    ]
    return model(nodes, stored={"two": 2.0, "three": 3.0})


def looping() -> onnx.ModelProto:
    """A Scan whose body reads ``gain`` from outside, and tensors of its own."""
    inner = [
        n("Mul", ["row", "gain"], ["part"], name="inner"),
        n("Add", ["sum", "part"], ["next"]),
        n("Identity", ["next"], ["s"]),
    ]
    body = helper.make_graph(
        inner,
        "body",
        [value("sum", 1, [4]), value("row", 1, [4])],
        [value("next", 1, [4]), value("s", 1, [4])],
    )
    nodes = [
        n("Relu", ["x"], ["a"]),
        n("Scan", ["begin", "a"], ["end", "y"], body=body, num_scan_inputs=1, name="outer"),
    ]
    return model(nodes, stored={"gain": 0.5, "begin": [0.0] * 4})


def run(graph: onnx.ModelProto, x=None) -> np.ndarray:
    x = np.arange(-6.0, 6.0, dtype=np.float32).reshape(3, 4) if x is None else x
    return open_session(graph).run(["y"], {"x": x})[0]


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def test_makers_readers_and_sources_of_a_diamond():
    graph = Graph(diamond())
    assert graph.makers["c"].op_type == "Mul" and "x" not in graph.makers
    assert [node.op_type for node in graph.readers["a"]] == ["Relu", "Mul"]  # a reader that reads it twice stands once
    assert graph.only_reader("b") is graph.makers["y"] and graph.only_reader("a") is None
    assert graph.only_reader("y") is None and graph.inputs == ["x"] and graph.outputs == {"y"}
    assert graph.ancestors("y") == {"a", "b", "c", "y"}
    assert graph.ancestors("y", stop=["a"]) == {"b", "c", "y"}
    assert graph.descendants("b") == {"b", "y"}
    assert graph.sources("c") == {"x", "two"} and graph.sources("d") == {"x", "two", "three"}
    assert float(graph.value("three")) == 3.0


def test_constant_nodes_are_constants_as_initializers_are():
    nodes = [
        n("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5), "any")),
        n("Constant", [], ["axes"], value_ints=[1, 2]),
        n("Constant", [], ["rate"], value_float=1.5),
        n("Mul", ["x", "half"], ["y"]),
    ]
    graph = Graph(model(nodes))
    assert float(graph.value("half")) == 0.5 and graph.value("axes").tolist() == [1, 2]
    assert graph.value("axes").dtype == np.int64 and float(graph.value("rate")) == 1.5
    assert graph.constants["half"].name == "half" and graph.sources("y") == {"x", "half"}


def test_a_body_reads_what_lies_outside_it_and_not_its_own():
    graph = Graph(looping())
    assert names_read(graph.makers["y"]) == ["begin", "a", "gain"]
    assert graph.sources("y") == {"begin", "gain", "x"}
    before = run(graph.model)
    graph.rename(lambda name: {"gain": "factor", "a": "rectified"}.get(name, name))
    assert names_read(graph.makers["y"]) == ["begin", "rectified", "factor"]
    np.testing.assert_array_equal(run(graph.model), before)
    graph.prune()
    assert set(graph.constants) == {"factor", "begin"}
    graph.drop_node_names()
    assert b"inner" not in graph.model.SerializeToString() and b"outer" not in graph.model.SerializeToString()


def test_pruning_leaves_what_an_output_needs_and_the_same_values():
    graph = Graph.copy_of(diamond())
    graph.prune()
    assert kinds(graph) == ["Mul", "Relu", "Mul", "Add"] and set(graph.constants) == {"two"}
    np.testing.assert_array_equal(run(graph.model), run(diamond()))
    assert [node.output[0] for node in alive(Graph(diamond()).nodes, ["d"])] == ["a", "c", "d"]


def test_nodes_can_be_inserted_removed_and_read_past():
    graph = Graph.copy_of(diamond())
    graph.insert(graph.place("b"), [n("Neg", ["a"], ["negative"])])
    graph.redirect({"a": "negative"})
    assert [node.op_type for node in graph.readers["negative"]] == ["Neg", "Relu", "Mul"]
    graph.makers["negative"].input[0] = "a"
    graph.index()
    np.testing.assert_array_equal(
        run(graph.model), run(diamond(), -np.arange(-6.0, 6.0, dtype=np.float32).reshape(3, 4))
    )
    graph.remove([graph.makers["d"]])
    assert "d" not in graph.makers and len(graph.nodes) == 5
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        graph.place("nowhere")


def test_a_fresh_name_is_one_that_nothing_has_not_even_a_body():
    graph = Graph(looping())
    assert graph.fresh("new") == "new"
    assert graph.fresh("gain") == "gain.1" and graph.fresh("row") == "row.1"
    graph.store("gain.1", np.float32(1))
    assert graph.fresh("gain") == "gain.2"


def test_sorting_brings_makers_before_readers_and_leaves_order_in_order():
    graph = Graph.copy_of(diamond())
    order = [node.output[0] for node in graph.nodes]
    graph.sort()
    assert [node.output[0] for node in graph.nodes] == order
    graph.set_nodes(reversed(graph.nodes))
    graph.sort()
    onnx.checker.check_model(graph.model)
    np.testing.assert_array_equal(run(graph.model), run(diamond()))
    graph.makers["a"].input[1] = "d"
    graph.index()
    with pytest.raises(ModelError, match="a circle at a"):
        graph.sort()


def test_attributes_are_plain_values():
    node = n("Pad", ["x"], ["y"], mode="edge", pads=[0, 1], value=1.0)
    assert attributes(node) == {"mode": "edge", "pads": [0, 1], "value": 1.0}
    assert attribute(node, "axis", 7) == 7 and attribute(node, "axis") is None
    set_attribute(node, "pads", [2, 2])
    assert attribute(node, "pads") == [2, 2] and len(node.attribute) == 3


def test_inner_tensors_can_be_made_outputs():
    graph = with_outputs(diamond(), ["c", "y"])
    c, y = open_session(graph).run(None, {"x": np.ones((1, 4), np.float32)})
    assert c.tolist() == [[4.0] * 4] and y.tolist() == [[6.0] * 4]


def padded(kind: str, fill: float, **options) -> onnx.ModelProto:
    weights = {"w": np.ones((1, 1, 3, 3)), "fill": fill}
    second = n("Conv", ["p", "w"], ["y"], **options) if kind == "Conv" else n(kind, ["p"], ["y"], **options)
    found = model([n("Pad", ["x", "sizes", "fill"], ["p"]), second], stored=weights, shape=(1, 1, 4, 4))
    Graph(found).store("sizes", np.array([0, 0, 1, 0, 0, 0, 2, 1]))
    return found


@pytest.mark.parametrize(
    ("kind", "fill", "options"),
    [("Conv", 0.0, {"pads": [1, 1, 0, 0]}), ("Conv", 0.0, {}), ("MaxPool", -np.inf, {"kernel_shape": [3, 3]})],
)
def test_paddings_move_into_the_operator_that_reads_them(kind, fill, options):
    before = padded(kind, fill, **options)
    after = Graph.copy_of(before)
    assert fold_pads(after.model, kind, fill) == 1
    after.index()
    assert kinds(after) == [kind] and "sizes" not in after.constants
    x = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(after.model, x), run(before, x), atol=1e-6)


def test_paddings_with_another_number_stay():
    assert fold_pads(padded("Conv", 1.0), "Conv", 0.0) == 0
    assert fold_pads(padded("MaxPool", 0.0, kernel_shape=[2, 2]), "MaxPool", -np.inf) == 0


def test_a_rectifier_of_negative_slope_is_not_moved_behind_a_maximum():
    for slope, moved in ((0.1, True), (-0.1, False)):
        nodes = [n("LeakyRelu", ["x"], ["r"], alpha=slope), n("MaxPool", ["r"], ["y"], kernel_shape=[2, 2])]
        before = model(nodes, shape=(1, 1, 4, 4))
        after = pool_before_rectifying(before)
        assert (kinds(Graph(after)) == ["MaxPool", "LeakyRelu"]) == moved
        x = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32)
        np.testing.assert_array_equal(run(after, x), run(before, x))


def test_equal_tensors_are_stored_and_equal_work_done_once():
    nodes = [
        n("Mul", ["x", "two"], ["a"]),
        n("Mul", ["x", "pair"], ["b"]),
        n("Relu", ["a"], ["c"]),
        n("Relu", ["b"], ["d"]),
        n("Add", ["c", "d"], ["y"]),
    ]
    graph = Graph(model(nodes, stored={"two": 2.0, "pair": 2.0}))
    before = run(graph.model)
    share_equal(graph.model)
    graph.index()
    assert kinds(graph) == ["Mul", "Relu", "Add"] and set(graph.constants) == {"two"}
    np.testing.assert_array_equal(run(graph.model), before)
