"""The reader of ONNX files says what the onnx package says, and refuses what is truncated, foreign or hostile."""

import json
import random
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import artifacts
from shared_data import shared
from vidlet.errors import ModelError
from vidlet.runtime import check_safe, load, read_metadata
from vidlet.runtime.onnx_wire import MAX_FIELDS, parse_onnx


def one_node_model(op_type, inputs, stored, domain="", **attributes):
    """A model that adds what ``op_type`` makes of stored tensors to its input."""
    nodes = [
        helper.make_node(op_type, inputs, ["made"], domain=domain, **attributes),
        helper.make_node("Add", ["x", "made"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    given_x = [value("x", TensorProto.FLOAT, ["T"])]
    return artifacts.model_of(nodes, given_x, [value("y", TensorProto.FLOAT, ["T"])], stored)


def refusal(model):
    """The one line with which a model is refused."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ModelError) as caught:
        check_safe(data, "bad.onnx")
    line = str(caught.value)
    assert line.startswith("bad.onnx: ")
    assert "\n" not in line
    return line


def external(tensor, location="/etc/passwd"):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_the_reader_sees_what_the_onnx_package_sees():
    model = artifacts.classifier()
    seen = parse_onnx(model.SerializeToString(), "m.onnx")
    assert [n.op_type for n in seen.graph.nodes] == [n.op_type for n in model.graph.node]
    assert [list(n.inputs) for n in seen.graph.nodes] == [list(n.input) for n in model.graph.node]
    assert [(t.name, t.dims, t.data_type) for t in seen.graph.initializers] == [
        (t.name, tuple(t.dims), t.data_type) for t in model.graph.initializer
    ]
    assert [(v.name, v.dims, v.dtype) for v in seen.graph.inputs][:2] == [
        ("frames", ("T", 6, 8, 3), "uint8"),
        ("state.sum", ("N", 3), "float32"),
    ]
    assert seen.opsets == {"": 18}
    assert seen.ir_version == 10


@pytest.mark.parametrize(
    "name", ["float32", "float64", "float16", "int32", "int64", "int8", "uint8", "uint16", "uint32", "uint64", "bool"]
)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_numbers_of_every_type_are_read_as_the_onnx_package_reads_them(name, raw):
    values = np.array([0, 1, 1, 0, 100, 77], name)
    code = helper.np_dtype_to_tensor_dtype(values.dtype)
    content = values.tobytes() if raw else values
    tensor = helper.make_tensor("t", code, [2, 3], content, raw=raw)
    model = one_node_model("Cast", ["t"], [tensor], to=1)
    seen = check_safe(model.SerializeToString(), "m.onnx")
    read = seen.values_of(seen.graph.initializers[0])
    np.testing.assert_array_equal(np.asarray(read).astype(name).reshape(2, 3), numpy_helper.to_array(tensor))
    assert seen.graph.initializers[0].dtype == name


@pytest.mark.parametrize("values", [[-8, 7, 3], [1, 2, 3, 4]])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_packed_four_bit_weights_are_as_long_as_their_shape_says(values, raw):
    tensor = helper.make_tensor("t", TensorProto.INT4, [len(values)], values)
    if raw:
        packed = bytes(tensor.int32_data)
        tensor.ClearField("int32_data")
        tensor.raw_data = packed
    model = one_node_model("Cast", ["t"], [tensor], to=1)
    assert check_safe(model.SerializeToString(), "m.onnx").graph.initializers[0].elements == len(values)
    tensor.dims[0] += 2
    assert "needs" in refusal(one_node_model("Cast", ["t"], [tensor], to=1))


@pytest.mark.parametrize("path", ["fastestdet/FastestDet.onnx", "yolox/yolox_nano.onnx"])
def test_models_of_others_are_read_and_found_safe(path):
    file = shared("weights", *path.split("/"))
    model = onnx.load(file)
    seen = check_safe(file.read_bytes(), str(file))
    assert len(seen.graph.nodes) == len(model.graph.node)
    assert sum(t.elements for t in seen.graph.initializers) == sum(np.prod(t.dims) for t in model.graph.initializer)


# What must be refused.


def test_external_data_in_a_weight_is_refused():
    model = artifacts.classifier()
    external(model.graph.initializer[0])
    assert "outside the file" in refusal(model)


def test_an_external_entry_without_the_flag_is_refused():
    model = artifacts.classifier()
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    assert "outside the file" in refusal(model)


def test_external_data_in_a_node_is_refused():
    tensor = external(artifacts.constant("", [1.0, 2.0]))
    assert "outside the file" in refusal(one_node_model("Constant", [], [], value=tensor))


def test_external_data_in_a_subgraph_is_refused():
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", 1, [2])])
    branch.initializer.append(external(artifacts.constant("w", [1.0, 2.0])))
    stored = [artifacts.constant("yes", True, bool)]
    assert "outside the file" in refusal(one_node_model("If", ["yes"], stored, then_branch=branch, else_branch=branch))


def test_external_data_in_a_sparse_weight_is_refused():
    model = artifacts.classifier()
    values = external(artifacts.constant("s", [1.0]))
    sparse = helper.make_sparse_tensor(values, artifacts.constant("", [0], np.int64), [4])
    model.graph.sparse_initializer.append(sparse)
    assert "outside the file" in refusal(model)


def test_a_sparse_weight_of_absurd_size_is_refused():
    model = artifacts.classifier()
    sparse = helper.make_sparse_tensor(
        artifacts.constant("s", [1.0]), artifacts.constant("", [0], np.int64), [2**20, 2**20]
    )
    model.graph.sparse_initializer.append(sparse)
    assert "more than" in refusal(model)


def test_functions_in_the_file_are_refused():
    model = artifacts.classifier()
    body = helper.make_node("Constant", [], ["y"], value=external(artifacts.constant("", [1.0])))
    model.functions.append(helper.make_function("mine", "f", [], ["y"], [body], [helper.make_opsetid("", 18)]))
    assert "functions of its own" in refusal(model)


def test_unknown_operator_domains_are_refused():
    model = one_node_model("Steal", ["a"], [artifacts.constant("a", [1.0])], domain="evil.ops")
    assert "'evil.ops'" in refusal(model)


def test_operators_that_read_compiled_files_are_refused():
    model = one_node_model("EPContext", [], [], domain="com.microsoft", ep_cache_context="/etc/passwd")
    assert "reads other files" in refusal(model)


@pytest.mark.parametrize(
    ("dims", "why"),
    [
        ([2**40], "more than"),
        ([2**20, 2**20], "more than"),
        ([-1], "negative"),
        ([3], "needs"),
        ([0, 2**40], "more than"),
    ],
)
def test_weights_whose_shape_is_not_what_is_stored_are_refused(dims, why):
    model = artifacts.classifier()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    assert why in refusal(model)


def test_an_input_of_absurd_size_is_refused():
    model = artifacts.classifier()
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 2**40
    assert "'state.sum'" in refusal(model)


INT, FLOAT = np.int64, np.float32
GROWING = {
    "ConstantOfShape": ("ConstantOfShape", [("shape", [10**12], INT)], {}),
    "Expand": ("Expand", [("x0", [1.0], FLOAT), ("shape", [10**6, 10**6], INT)], {}),
    "Tile": ("Tile", [("x0", [1.0, 2.0], FLOAT), ("times", [10**12], INT)], {}),
    "Range": ("Range", [("a", 0, INT), ("b", 10**12, INT), ("c", 1, INT)], {}),
    "Range backwards": ("Range", [("a", 10.0**12, FLOAT), ("b", 0.0, FLOAT), ("c", -1.0, FLOAT)], {}),
    "Range without step": ("Range", [("a", 0, INT), ("b", 1, INT), ("c", 0, INT)], {}),
    "Pad": ("Pad", [("x0", [1.0], FLOAT), ("pads", [0, 10**12], INT)], {}),
    "OneHot": ("OneHot", [("x0", [1], INT), ("depth", 10**12, INT), ("v", [0.0, 1.0], FLOAT)], {}),
    "RandomNormal": ("RandomNormal", [], {"shape": [10**6, 10**6]}),
    "outer sum": ("Add", [("x0", np.zeros((2**16, 1)), FLOAT), ("x1", np.zeros((1, 2**16)), FLOAT)], {}),
    "outer product": ("MatMul", [("x0", np.zeros((2**16, 1)), FLOAT), ("x1", np.zeros((1, 2**16)), FLOAT)], {}),
    "kernel": ("MaxPool", [("x0", np.zeros((1, 1, 4, 4)), FLOAT)], {"kernel_shape": [2**40, 2**40]}),
}


@pytest.mark.parametrize("name", list(GROWING))
def test_little_that_grows_into_much_is_refused(name):
    op_type, inputs, attributes = GROWING[name]
    stored = [artifacts.constant(label, values, dtype) for label, values, dtype in inputs]
    line = refusal(one_node_model(op_type, [label for label, _, _ in inputs], stored, **attributes))
    assert any(why in line for why in ("more than", "absurd", "no sense", "or by 0", "no model of ours has"))


@pytest.mark.parametrize("what", ["sizes", "scales"])
def test_a_resize_that_grows_into_much_is_refused(what):
    stored = [artifacts.constant("x0", np.zeros((1, 1, 4, 4)))]
    stored += [
        artifacts.constant("sizes", [1, 1, 10**6, 10**6], INT),
        artifacts.constant("scales", [1, 1, 10**6, 10**6], FLOAT),
    ]
    inputs = ["x0", "", "", "sizes"] if what == "sizes" else ["x0", "", "scales"]
    assert "more than" in refusal(one_node_model("Resize", inputs, stored))


def test_growth_in_several_steps_is_refused():
    stored = [artifacts.constant("a", [1.0]), artifacts.constant("k", 10**6, INT), artifacts.constant("one", [0], INT)]
    nodes = [
        helper.make_node("Mul", ["k", "k"], ["large"]),  # 10^12, never stored
        helper.make_node("Unsqueeze", ["large", "one"], ["shape"]),
        helper.make_node("Expand", ["a", "shape"], ["made"]),
        helper.make_node("Add", ["x", "made"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    model = artifacts.model_of(nodes, [value("x", 1, ["T"])], [value("y", 1, ["T"])], stored)
    assert "more than" in refusal(model)


def test_doubling_by_concatenation_is_refused():
    nodes = [helper.make_node("Concat", [f"a{i}", f"a{i}"], [f"a{i + 1}"], axis=0) for i in range(40)]
    value = helper.make_tensor_value_info
    model = artifacts.model_of(nodes, [], [value("a40", 1, ["T"])], [artifacts.constant("a0", np.zeros(1000))])
    assert "more than" in refusal(model)


def test_growth_by_constants_of_reasonable_size_is_allowed():
    stored = [artifacts.constant("shape", [1000], INT)]
    assert check_safe(one_node_model("ConstantOfShape", ["shape"], stored).SerializeToString(), "m.onnx")


def test_graphs_nested_too_deep_are_refused():
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=artifacts.constant("", [1.0]))],
        "b",
        [],
        [helper.make_tensor_value_info("w", 1, [1])],
    )
    for _ in range(20):
        node = helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch.__class__())
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("w", 1, [1])])
    model = artifacts.model_of([], [], [], [artifacts.constant("yes", True, bool)])
    model.graph.node.extend(branch.node)
    assert "nested more than 8 deep" in refusal(model)


def test_nodes_out_of_order_are_refused():
    model = artifacts.classifier()
    last = model.graph.node.pop()
    model.graph.node.insert(0, last)
    assert "which nothing before it makes" in refusal(model)


def test_a_second_graph_is_refused_where_protobuf_would_merge_it():
    data = artifacts.classifier().SerializeToString()
    extra = onnx.ModelProto(graph=onnx.GraphProto(name="again")).SerializeToString()
    assert "second graph" in refusal(data + extra)


def test_a_tensor_stored_twice_is_refused():
    model = artifacts.classifier()
    model.graph.initializer[2].float_data.append(1.0)
    assert "two ways" in refusal(model)


# What is no ONNX file at all, in part, or by accident.


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = artifacts.save(artifacts.classifier(), tmp_path / "whole.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for part in range(20):
        cut.write_bytes(whole[: len(whole) * part // 20])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            load(cut)


def test_random_bytes_are_refused(tmp_path):
    noise = tmp_path / "noise.onnx"
    for seed in range(50):
        noise.write_bytes(random.Random(seed).randbytes(300))
        with pytest.raises(ModelError, match=r"noise\.onnx"):
            load(noise)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 a zip", b"hello, world\n", b"\xff" * 64])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"other\.onnx: "):
        load(tmp_path / "other.onnx")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.onnx: cannot be read \(No such file or directory\)"):
        load(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="not a file"):
        load(tmp_path)


def test_a_file_above_two_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as handle:
        handle.truncate(2**31)
    with pytest.raises(ModelError, match="2147483648 bytes, more than"):
        load(path)


def test_an_onnx_file_of_others_is_named_as_such(tmp_path):
    path = tmp_path / "theirs.onnx"
    path.write_bytes(artifacts.classifier().SerializeToString())
    with pytest.raises(ModelError, match=r"theirs\.onnx: an ONNX file, but not a vidlet model"):
        load(path)


def test_a_million_tiny_fields_end_soon():
    data = b"\x08\x01" * (MAX_FIELDS + 10)
    began = time.perf_counter()
    assert "more than 1000000 fields" in refusal(data)
    assert time.perf_counter() - began < 10


WHOLE = artifacts.classifier().SerializeToString()


@settings(max_examples=200, deadline=2000)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_read_or_refused_and_nothing_else(changes):
    data = bytearray(WHOLE)
    for place, byte in changes:
        data[place] = byte
    try:
        check_safe(bytes(data), "changed.onnx")
    except ModelError as error:
        assert str(error).startswith("changed.onnx: ")


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(data):
    for read in (check_safe, read_metadata):
        try:
            read(data, "any.onnx")
        except ModelError as error:
            assert str(error).startswith("any.onnx: ")


def test_a_changed_byte_is_found_by_the_checksum(tmp_path):
    whole = artifacts.save(artifacts.classifier(), tmp_path / "whole.onnx").read_bytes()
    path, rng = tmp_path / "changed.onnx", random.Random(0)
    for _ in range(150):
        data, place = bytearray(whole), rng.randrange(len(whole))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"changed\.onnx: "):
            load(path, threads=1)


def test_a_changed_file_without_checksum_loads_or_is_refused(tmp_path):
    model = artifacts.classifier()
    model.metadata_props.add(key="vidlet", value=json.dumps(artifacts.metadata()))  # as files were written once
    whole = model.SerializeToString()
    (tmp_path / "whole.onnx").write_bytes(whole)
    load(tmp_path / "whole.onnx")
    path, rng, refused = tmp_path / "changed.onnx", random.Random(0), 0
    for _ in range(150):
        data = bytearray(whole)
        data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load(path, threads=1)
        except ModelError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert 20 < refused < 150
