"""What is in a file adds up to its last byte; what is measured is measured in a fresh process."""

import sys

import numpy as np
import onnx
import pytest
from onnx import helper

import artifacts
from vidlet.errors import DependencyError, ModelError
from vidlet.runtime import benchmark, graph_sha256, inspect_artifact
from vidlet.runtime.benchmark import peak_rss_bytes


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return artifacts.save(artifacts.classifier(), tmp_path_factory.mktemp("model") / "model.onnx")


def test_the_bytes_add_up_to_the_file(model_path):
    found = inspect_artifact(model_path)["bytes"]
    assert found["weights"] + found["graph"] + found["metadata"] == found["total"] == model_path.stat().st_size
    model = onnx.load(model_path)
    assert found["weights"] == sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    del model.metadata_props[:]
    assert found["metadata"] == model_path.stat().st_size - len(model.SerializeToString())


def test_tensors_come_with_their_part_the_largest_first(model_path):
    found = inspect_artifact(model_path)
    first = found["tensors"][0]
    assert first["name"] == "head.weight"
    assert (first["part"], first["dtype"], first["shape"], first["bytes"]) == ("head", "float32", [4, 4], 64)
    assert first["share"] == 64 / model_path.stat().st_size
    assert {part["part"]: part["bytes"] for part in found["parts"]} == {
        "head": 64 + 8 + 5 * 8 + 4,
        "extractor": 4 + 16,
    }
    assert sum(part["bytes"] for part in found["parts"]) == found["bytes"]["weights"]
    assert found["parameters"] == sum(int(np.prod(row["shape"])) for row in found["tensors"])


def test_parts_are_named_by_the_tensors_where_there_is_no_inner_features(tmp_path):
    path = artifacts.save(artifacts.detector(), tmp_path / "d.onnx", labels=[], box_labels=["all", "left"])
    assert {part["part"]: part["tensors"] for part in inspect_artifact(path)["parts"]} == {
        "detector": 2,
        "constants": 4,
    }


def test_operators_inputs_and_state_are_listed(model_path):
    found = inspect_artifact(model_path)
    assert found["operators"]["Slice"] == 5
    assert sum(found["operators"].values()) == len(onnx.load(model_path).graph.node)
    assert found["inputs"] == [{"name": "frames", "dtype": "uint8", "shape": ["T", 6, 8, 3]}]
    assert [row["name"] for row in found["state"]] == ["state.sum", "state.count", "state.last", "state.moved"]
    assert found["outputs"][0] == {"name": "scores", "dtype": "float32", "shape": ["N", 4]}
    assert found["metadata"]["labels"] == list(artifacts.LABELS)
    assert found["graph_sha256"] == graph_sha256(model_path.read_bytes())


def test_weights_inside_nodes_and_subgraphs_count(tmp_path):
    model = artifacts.classifier()
    value = helper.make_tensor_value_info("w", 1, [3])
    inner = helper.make_node("Constant", [], ["w"], value=artifacts.constant("head.inner", [1.0, 2.0, 3.0]))
    branch = helper.make_graph([inner], "b", [], [value])
    yes = helper.make_node("Constant", [], ["yes"], value=artifacts.constant("", True, bool))
    choice = helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch)
    model.graph.node.extend([yes, choice])
    found = inspect_artifact(artifacts.save(model, tmp_path / "m.onnx"))
    names = [row["name"] for row in found["tensors"]]
    assert names.count("head.inner") == 2
    assert "yes" in names
    assert (found["operators"]["Constant"], found["operators"]["If"]) == (3, 1)


def test_weights_in_typed_fields_count_as_they_are_stored(tmp_path):
    model = artifacts.classifier()
    typed = helper.make_tensor("head.typed", onnx.TensorProto.INT64, [3], [1, 300, 70000])
    model.graph.initializer.append(typed)
    found = inspect_artifact(artifacts.save(model, tmp_path / "m.onnx"))
    row = next(row for row in found["tensors"] if row["name"] == "head.typed")
    assert row["bytes"] == 1 + 2 + 3


def test_a_file_of_others_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(artifacts.classifier().SerializeToString())
    with pytest.raises(ModelError, match="not a vidlet model"):
        inspect_artifact(tmp_path / "m.onnx")


def test_a_benchmark_has_the_figures_of_the_contract(model_path):
    found = benchmark(model_path, seconds=0.1)
    assert 0 < found["frame_ms"]["p50"] <= found["frame_ms"]["p95"]
    assert 0 < found["clip_ms"]["p50"] <= found["clip_ms"]["p95"]
    assert found["fps"] == pytest.approx(1000 / found["frame_ms"]["p50"])
    assert (found["clip_frames"], found["threads"], found["provider"]) == (16, 1, "cpu")
    assert found["bytes"] == model_path.stat().st_size
    assert found["load_ms"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="the size of this process is read from /proc or getrusage")
def test_the_callers_memory_does_not_count(model_path):
    ballast = np.ones(300_000_000 // 8)
    found = benchmark(model_path, seconds=0.05, clip_frames=4)
    assert peak_rss_bytes() > ballast.nbytes
    assert 20_000_000 < found["peak_rss_bytes"] < ballast.nbytes
    assert found["clip_frames"] == 4


def test_what_is_wrong_with_a_file_is_said_by_the_benchmark_too(tmp_path, model_path):
    (tmp_path / "cut.onnx").write_bytes(model_path.read_bytes()[:300])
    with pytest.raises(ModelError, match=r"cut\.onnx: not a whole ONNX file"):
        benchmark(tmp_path / "cut.onnx")
    with pytest.raises(DependencyError, match="unknown provider"):
        benchmark(model_path, provider="abacus")


def test_packed_weights_say_how_they_are_stored_and_what_they_hold(tmp_path):
    from vidlet.compression.blocks import store_weights_int4
    from vidlet.compression.storage import store_sparse

    pruned = np.random.default_rng(0).normal(size=(96, 64)) * (np.arange(6144).reshape(96, 64) % 4 == 0)
    model = artifacts.classifier()
    model.graph.initializer.append(artifacts.constant("head.large", pruned))
    model.graph.node.append(helper.make_node("MatMul", ["head.large", "head.large.other"], ["unused"]))
    model.graph.initializer.append(artifacts.constant("head.large.other", np.ones((64, 1))))
    for opset in model.opset_import:
        opset.version = 20
    for store, expected in (
        (
            store_weights_int4,
            {"head.large.int4": ("4-bit blocks", 6144, 3072), "head.large.scale": ("scales", 192, 384)},
        ),
        (store_sparse, {"head.large.mask": ("bit mask", 0, 768), "head.large.nonzero": ("nonzero values", 1537, 6148)}),
    ):
        path = artifacts.save(store(model), tmp_path / "m.onnx")
        found = inspect_artifact(path)
        rows = {row["name"]: (row["storage"], row["parameters"], row["bytes"]) for row in found["tensors"]}
        assert {name: rows[name] for name in expected} == expected
        assert rows["head.weight"][0] == "dense"
        sizes = found["bytes"]
        assert sizes["weights"] + sizes["graph"] + sizes["metadata"] == path.stat().st_size
