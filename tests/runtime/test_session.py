"""Sessions: one way into ONNX Runtime, whose errors are one line of ours."""

import numpy as np
import pytest

import artifacts
from vidlet.errors import DependencyError, ModelError
from vidlet.runtime import open_session


def test_a_model_in_memory_and_its_bytes_give_the_same_answers():
    model = artifacts.classifier()
    feeds = {"frames": np.full((2, *artifacts.SIZE, 3), 200, np.uint8)}
    sessions = [open_session(given, threads=1) for given in (model, model.SerializeToString())]
    for name, shape in sessions[0].inputs.items():
        if name.startswith("state."):
            feeds[name] = np.zeros((1, *shape[1:]), np.float32)
    assert sessions[0].inputs["frames"] == ["T", *artifacts.SIZE, 3]
    first, second = (session.run(["scores"], feeds)[0] for session in sessions)
    assert first.shape == (1, 4)
    np.testing.assert_array_equal(first, second)
    everything = sessions[0].run(None, feeds)
    np.testing.assert_array_equal(everything[sessions[0].outputs.index("scores")], first)


def test_what_the_runtime_refuses_or_cannot_run_is_one_line_that_names_the_graph():
    with pytest.raises(ModelError, match=r"^net\.onnx: the runtime refuses it \(") as refused:
        open_session(b"\x08\x0a junk", "net.onnx")
    session = open_session(artifacts.classifier(), "net.onnx")
    with pytest.raises(ModelError, match=r"^net\.onnx: the runtime cannot run it \(") as failed:
        session.run(["scores"], {"frames": np.zeros((1, 2, 2, 3), np.uint8)})
    assert "\n" not in str(refused.value) + str(failed.value)


def test_session_entries_reach_the_runtime():
    with pytest.raises(ModelError, match="refuses it"):
        open_session(artifacts.classifier(), entries={"session.load_model_format": "ORT"})
    with pytest.raises(DependencyError, match="unknown provider 'tpu'"):
        open_session(artifacts.classifier(), provider="tpu")


def test_a_folded_file_has_its_constants_computed(tmp_path):
    onnx = pytest.importorskip("onnx")
    node, number = onnx.helper.make_node, artifacts.constant
    value = onnx.helper.make_tensor_value_info("x", 1, ["T"])
    stored = [number("a", 2.0), number("b", 3.0)]
    nodes = [node("Mul", ["a", "b"], ["six"]), node("Mul", ["x", "six"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [value], [onnx.helper.make_tensor_value_info("y", 1, ["T"])], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    open_session(model, folded_file=str(tmp_path / "folded.onnx"))
    folded = onnx.load(tmp_path / "folded.onnx").graph
    assert [n.op_type for n in folded.node] == ["Mul"]
    assert [float(onnx.numpy_helper.to_array(tensor)) for tensor in folded.initializer] == [6.0]
