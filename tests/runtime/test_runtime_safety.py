"""A model may have the operators that ours have, no loops, and no more memory and work than ours need."""

import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import artifacts
from shared_data import shared
from vidlet.errors import ModelError
from vidlet.runtime import check_safe, load
from vidlet.runtime.safety import judge
from vidlet.runtime.shapes import RULES
from vidlet.runtime.structure import check_structure

INT, FLOAT = np.int64, np.float32
FULL = (np.ones((6, 1, 1, 1)), np.float32)  # weights of a ConvTranspose of six channels
BIG = 10**6  # squared it is beyond every limit


def model_of(nodes, stored, dims=("T", 6, 8, 3), output="made"):
    """Nodes behind ``x`` float32; ``made`` is the output."""
    value = helper.make_tensor_value_info
    return artifacts.model_of(nodes, [value("x", TensorProto.FLOAT, dims)], [value(output, 1, None)], stored)


def refusal(model, free=None):
    with pytest.raises(ModelError) as caught:
        check_safe(model.SerializeToString(), "bad.onnx", free)
    line = str(caught.value)
    assert line.startswith("bad.onnx: refused, ")
    assert "\n" not in line
    return line


def n(op_type, inputs, output="made", **attributes):
    return helper.make_node(op_type, inputs, [output] if isinstance(output, str) else output, **attributes)


def stored(**values):
    return [artifacts.constant(name, array, dtype) for name, (array, dtype) in values.items()]


SIZE = stored(one=([1.0], FLOAT), k=(BIG, INT), kk=([BIG, BIG], INT), two=(2, INT), zero=([0], INT), half=(5e-7, FLOAT))
EXPAND = [n("Reshape", ["s", "row"], "shape"), n("Expand", ["one", "shape"])]
ROW = stored(row=([-1], INT))
COMPUTED = {
    "Mul": [n("Mul", ["k", "k"], "s")],
    "Pow": [n("Pow", ["k", "two"], "s")],
    "Div": [n("Reciprocal", ["half"], "r"), n("Cast", ["r"], "i", to=7), n("Mul", ["i", "k"], "s")],
    "Max": [n("Mul", ["k", "k"], "a"), n("Max", ["a", "k"], "s")],
    "Gather": [n("Gather", ["kk", "zero"], "a"), n("Mul", ["a", "a"], "s")],
    "Slice": [n("Slice", ["kk", "zero", "row1", "zero"], "a"), n("Mul", ["a", "a"], "s")],
    "ReduceProd": [n("ReduceProd", ["kk"], "s", keepdims=1)],
    "ReduceSum": [n("ReduceSum", ["kk"], "a", keepdims=1), n("Mul", ["a", "a"], "s")],
    "ReduceMax": [n("ReduceMax", ["kk"], "a", keepdims=1), n("Mul", ["a", "k"], "s")],
    "Gemm": [n("Cast", ["kk"], "f", to=1), n("Reshape", ["f", "two_one"], "m"), n("Reshape", ["f", "one_two"], "l"),
             n("Gemm", ["l", "m"], "g"), n("Cast", ["g"], "s", to=7)],
    "MatMul": [n("MatMul", ["kk", "kk"], "s")],
    "Einsum": [n("Einsum", ["kk", "kk"], "s", equation="i,i->")],
    "Shape of the input": [n("Shape", ["x"], "d"), n("ReduceProd", ["d"], "p", keepdims=1), n("Mul", ["p", "k"], "s")],
    "values of the input": [n("ReduceMax", ["x"], "m", keepdims=0), n("Cast", ["m"], "s", to=7)],
}  # fmt: skip
MORE = stored(row1=([1], INT), two_one=([2, 1], INT), one_two=([1, 2], INT))


@pytest.mark.parametrize("how", list(COMPUTED))
def test_a_size_that_is_computed_in_any_way_is_bounded(how):
    line = refusal(model_of([*COMPUTED[how], *EXPAND], SIZE + ROW + MORE))
    assert "more than" in line or "not known beforehand" in line or "no model of ours has" in line


GROWING = {
    "Pad with axes": (n("Pad", ["x", "pads", "", "axis"]), stored(pads=([0, 10**9], INT), axis=([1], INT))),
    "Pad of an attribute": (n("Pad", ["x"], pads=[0, 0, 0, 0, 0, 2**15, 2**15, 0]), []),
    "Resize with axes": (n("Resize", ["x", "", "scales"], axes=[1]), stored(scales=([1e7], FLOAT))),
    "Resize by sizes": (n("Resize", ["x", "", "", "sizes"]), stored(sizes=([1, 10**5, 10**5, 3], INT))),
    "Tile": (n("Tile", ["x", "times"]), stored(times=([1, 10**4, 10**4, 1], INT))),
    "ConvTranspose strides": (n("ConvTranspose", ["x", "w"], strides=[2**15, 2**15]), stored(w=FULL)),
    "ConvTranspose group": (n("ConvTranspose", ["x", "w"], group=10**9), stored(w=FULL)),
    "ConvTranspose output": (n("ConvTranspose", ["x", "w"], output_shape=[2**16, 2**16]), stored(w=FULL)),
    "ConvTranspose padding": (n("ConvTranspose", ["x", "w"], output_padding=[2**16, 2**16]), stored(w=FULL)),
    "Conv pads": (n("Conv", ["x", "w"], pads=[2**15] * 4), stored(w=(np.ones((8, 6, 1, 1)), FLOAT))),
    "MaxPool pads": (n("MaxPool", ["x"], kernel_shape=[2**16, 2**16], pads=[2**15] * 4), []),
    "an outer sum": (n("Add", ["a", "b"]), stored(a=(np.zeros((2**15, 1)), FLOAT), b=(np.zeros((1, 2**15)), FLOAT))),
    "a Gather of many": (n("Gather", ["a", "i"]), stored(a=(np.zeros((1, 2**15)), FLOAT), i=(np.zeros(2**15), INT))),
    "Einsum": (n("Einsum", ["x", "x"], equation="abcd,efgh->abcdefgh"), []),
    "OneHot": (n("OneHot", ["i", "k", "v"]), stored(i=([1], INT), k=(10**12, INT), v=([0.0, 1.0], FLOAT))),
    "HannWindow": (n("HannWindow", ["k"]), stored(k=(10**12, INT))),
    "AffineGrid": (n("AffineGrid", ["t", "s"]), stored(t=(np.ones((1, 2, 3)), FLOAT), s=([1, 1, BIG, BIG], INT))),
    "Range": (n("Range", ["a", "b", "c"]), stored(a=(0, INT), b=(10**12, INT), c=(1, INT))),
    "ConstantOfShape": (n("ConstantOfShape", ["s"]), stored(s=([BIG, BIG], INT))),
    "RandomNormal": (n("RandomNormal", [], shape=[BIG, BIG]), []),
    "NonZero": (n("NonZero", ["x"]), []),
    "a foreign operator": (helper.make_node("Inverse", ["x"], ["made"], domain="com.microsoft"), []),
}  # fmt: skip


@pytest.mark.parametrize("name", list(GROWING))
def test_an_operator_that_makes_much_of_little_is_refused(name):
    node, constants = GROWING[name]
    line = refusal(model_of([node], constants))
    assert any(why in line for why in ("more than", "no model of ours has", "unknown domain", "makes no sense"))


def test_many_small_tensors_add_up():
    nodes = [n("ConstantOfShape", ["s"], f"a{i}") for i in range(64)]
    nodes.append(n("Sum", [f"a{i}" for i in range(64)]))
    assert "bytes of memory" in refusal(model_of(nodes, stored(s=([2**26], INT))))


def test_many_small_tensors_of_the_input_add_up():
    nodes = [n("Tile", ["x", "times"], f"a{i}") for i in range(200)]  # 75 MB each
    nodes.append(n("Sum", [f"a{i}" for i in range(200)]))
    assert "bytes of memory" in refusal(model_of(nodes, stored(times=([1, 128, 128, 1], INT))))


def test_what_grows_with_the_square_of_the_frames_is_refused():
    nodes = [n("Reshape", ["x", "rows"], "a"), n("Transpose", ["a"], "b", perm=[1, 0]), n("MatMul", ["a", "b"])]
    line = refusal(model_of(nodes, stored(rows=([-1, 3], INT))))
    assert "grows faster than the number of frames" in line


def test_work_without_memory_is_bounded():
    nodes = [n("Tile", ["x", "times"], "a0"), *(n("MatMul", [f"a{i}", "w"], f"a{i + 1}") for i in range(100))]
    constants = stored(w=(np.zeros((1023, 1023)), FLOAT), times=([1, 1, 128, 341], INT))
    model = model_of([*nodes, n("Identity", ["a100"])], constants)
    assert "of work" in refusal(model)


def body(inputs, outputs, nodes):
    value = helper.make_tensor_value_info
    return helper.make_graph(nodes, "b", [value(*i) for i in inputs], [value(*o) for o in outputs])


def test_loops_and_branches_are_refused():
    turn = body([("i", 7, []), ("go", 9, [])], [("on", 9, [])], [n("Identity", ["go"], "on")])
    loop = model_of(
        [n("Loop", ["m", "yes"], [], body=turn), n("Identity", ["x"])], stored(m=(2**62, INT), yes=(True, bool))
    )
    assert "Loop" in refusal(loop)
    branch = body([], [("w", 1, [1])], [n("Constant", [], "w", value=artifacts.constant("", [1.0]))])
    assert "If" in refusal(
        model_of([n("If", ["yes"], then_branch=branch, else_branch=branch)], stored(yes=(True, bool)))
    )


def scan(length, state=None, **attributes):
    """A loop over ``length`` stored rows that adds them up; ``state`` nodes make the next state of h and row."""
    nodes = state or [n("Add", ["h", "row"], "next")]
    turn = body([("h", 1, [2]), ("row", 1, [2])], [("next", 1, None)], nodes)
    node = helper.make_node("Scan", ["start", "rows"], ["made"], body=turn, num_scan_inputs=1, **attributes)
    return model_of([node], stored(start=([0.0, 0.0], FLOAT), rows=(np.ones((length, 2)), FLOAT)))


def test_a_loop_over_frames_is_allowed_if_it_is_short_and_keeps_its_shapes():
    cost = judge(check_structure(scan(5).SerializeToString(), "m.onnx"))
    assert cost.outputs["made"].dims == (2,)
    assert "turns" in refusal(scan(2**17))
    assert "changes the shape" in refusal(scan(5, [n("Concat", ["h", "row"], "next", axis=0)]))
    assert judge(check_structure(scan(5, scan_input_axes=[0]).SerializeToString(), "m.onnx")).outputs == cost.outputs
    assert "no loop over frames" in refusal(scan(5, scan_input_axes=[1]))
    inner = scan(5).graph.node[0]
    assert "no loop over frames" in refusal(
        scan(5, [helper.make_node("Scan", ["h", "row"], ["next"], body=inner.attribute[0].g, num_scan_inputs=1)])
    )


def test_a_division_of_whole_numbers_by_what_may_be_zero_is_refused():
    nodes = [n("Cast", ["x"], "i", to=7), n("Div", ["i", "i"])]
    assert "may be zero" in refusal(model_of(nodes, []))
    assert "may be zero" in refusal(model_of([n("Cast", ["x"], "i", to=7), n("Mod", ["i", "k"])], stored(k=(0, INT))))


def test_texts_and_sparse_tensors_are_refused():
    text = helper.make_tensor("t", TensorProto.STRING, [1], [b"x"])
    assert "texts" in refusal(model_of([n("Identity", ["x"])], [text]))
    model = model_of([n("Identity", ["x"])], [])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(artifacts.constant("s", [1.0]), artifacts.constant("", [0], INT), [4])
    )
    assert "sparse" in refusal(model)


# The rules give the shapes that the onnx package and the runtime give.


def shapes_by_the_runtime(model, feeds):
    import onnxruntime

    wanted = [name for node in model.graph.node for name in node.output if name]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(wanted, (np.asarray(v) for v in session.run(wanted, feeds)), strict=True))


RIGHT = {
    "Conv": (
        [n("Conv", ["x", "w"], pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])],
        stored(w=(np.ones((4, 6, 3, 2)), FLOAT)),
    ),
    "Conv SAME": (
        [n("Conv", ["x", "w"], auto_pad="SAME_UPPER", strides=[3, 2])],
        stored(w=(np.ones((4, 6, 3, 3)), FLOAT)),
    ),
    "MaxPool ceil": ([n("MaxPool", ["x"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)], []),
    "AveragePool": ([n("AveragePool", ["x"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], []),
    "ConvTranspose": ([n("ConvTranspose", ["x", "w"], strides=[2, 3])], stored(w=(np.ones((6, 2, 3, 3)), FLOAT))),
    "Gemm": ([n("Flatten", ["x"], "f"), n("Gemm", ["f", "w"], transB=1)], stored(w=(np.ones((5, 144)), FLOAT))),
    "MatMul": ([n("MatMul", ["x", "w"])], stored(w=(np.ones((2, 1, 1, 3, 5)), FLOAT))),
    "Slice": (
        [n("Slice", ["x", "s", "e", "a", "p"])],
        stored(s=([-1, 1], INT), e=([-(2**40), 7], INT), a=([1, -2], INT), p=([-2, 2], INT)),
    ),
    "Gather": ([n("Gather", ["x", "i"], axis=1)], stored(i=([[0, 1, 2]], INT))),
    "Split": ([n("Split", ["x"], ["made", "b", "c"], axis=2, num_outputs=3)], []),
    "Reduce": ([n("ReduceMean", ["x", "a"], keepdims=0)], stored(a=([1, -1], INT))),
    "Squeeze": ([n("Unsqueeze", ["x", "a"], "u"), n("Squeeze", ["u", "b"])], stored(a=([0, 5], INT), b=([0], INT))),
    "Pad": ([n("Pad", ["x", "p", "", "a"])], stored(p=([1, 0, 2, -1], INT), a=([1, 3], INT))),
    "Resize": ([n("Resize", ["x", "", "s"])], stored(s=([1, 1, 1.5, 2], FLOAT))),
    "GRU": (
        [n("Reshape", ["x", "r"], "f"), n("GRU", ["f", "w", "u"], ["made", "last"], hidden_size=4)],
        stored(r=([-1, 2, 72], INT), w=(np.ones((1, 12, 72)), FLOAT), u=(np.ones((1, 12, 4)), FLOAT)),
    ),
    "sizes are arithmetic": (
        [
            n("Shape", ["x"], "d"), n("Gather", ["d", "i"], "t"), n("Div", ["t", "two"], "h"),
            n("Sub", ["t", "h"], "g"),
            n("Concat", ["h", "g", "d"], "s", axis=0), n("Cast", ["s"], "f", to=1), n("Sqrt", ["f"], "q"),
            n("Ceil", ["q"], "c"), n("Cast", ["c"], "sizes", to=7), n("ConstantOfShape", ["sizes"]),
        ],
        stored(i=([0], INT), two=([3], INT)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(RIGHT))
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_shapes_are_those_that_the_runtime_gives(name, opset):
    nodes, constants = RIGHT[name]
    if opset == 13 and name in ("Split", "Reduce", "Pad"):
        pytest.skip("written otherwise then")
    model = model_of(nodes, constants, dims=("T", 6, 8, 3))
    model.opset_import[0].version = opset
    x = np.zeros((8, 6, 8, 3), FLOAT)
    real = shapes_by_the_runtime(model, {"x": x})
    value = helper.make_tensor_value_info
    del model.graph.output[:]
    model.graph.output.extend(value(key, 1, None) for key in real)
    found = judge(check_structure(model.SerializeToString(), "m.onnx")).outputs
    for key, array in real.items():
        if found[key].exact:
            assert found[key].dims == array.shape, key
        else:
            assert all(most >= size for most, size in zip(found[key].dims, array.shape, strict=True)), key
        if found[key].values is not None:
            np.testing.assert_array_equal(found[key].values, array)
        assert math.prod(array.shape) <= found[key].elements


def test_what_is_left_of_boxes_is_bounded():
    nodes = [
        n("NonMaxSuppression", ["b", "s", "most", "iou"], "kept"), n("Shape", ["kept"], "d"),
        n("Gather", ["d", "zero"], "count"), n("Min", ["count", "k"], "few"),
        n("TopK", ["values", "few"], ["made", "at"]),
    ]  # fmt: skip
    constants = stored(
        b=(np.zeros((1, 50, 4)), FLOAT), s=(np.zeros((1, 3, 50)), FLOAT), most=([20], INT), iou=([0.5], FLOAT),
        zero=([0], INT), k=([30], INT), values=(np.arange(100), FLOAT),
    )  # fmt: skip
    made = judge(check_structure(model_of(nodes, constants).SerializeToString(), "m.onnx")).outputs["made"]
    assert (made.dims, made.exact) == ((30,), False)


def test_every_allowed_operator_is_one_of_onnx():
    for name in RULES:
        assert onnx.defs.has(name), name


@pytest.mark.parametrize("path", ["fastestdet/FastestDet.onnx", "yolox/yolox_nano.onnx", "nanodet/nanodet_m.onnx"])
def test_networks_of_others_are_judged_too(path):
    file = shared("weights", *path.split("/"))
    assert judge(check_structure(file.read_bytes(), str(file))).live_bytes > 10**6


# The contract's outputs.


def test_scores_of_another_width_than_the_labels_are_refused_on_loading(tmp_path):
    model = artifacts.classifier(labels=5)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "K"  # the file does not say how many
    with pytest.raises(ModelError, match="scores of shape"):
        load(artifacts.save(model, tmp_path / "m.onnx"))


def test_scores_that_are_not_finite_are_an_error(tmp_path):
    model = artifacts.classifier(sigmoid=True)
    for tensor in model.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(artifacts.constant("head.weight", np.full((4, 4), np.nan)))
    loaded = load(artifacts.save(model, tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="not finite"):
        loaded(artifacts.frames_of([(10, 20, 30)]))


def test_names_that_are_not_utf8_come_back_from_metadata(tmp_path):
    labels = ["caf\udce9", "grün", "blue", "moving"]
    path = artifacts.save(artifacts.classifier(), tmp_path / "m.onnx", labels=labels)
    assert load(path).labels == tuple(labels)
    entry = next(p.value for p in onnx.load(path).metadata_props if p.key == "vidlet")
    assert json.loads(entry)["labels"] == labels
