"""Files for LiteRT: every operator answers as in ONNX Runtime, whole models do, and what would not is never written."""

import json
import sys
import zipfile

import numpy as np
import onnx
import pytest

import artifacts
from vidlet.artifact import litert
from vidlet.artifact.litert import compare_litert, export_litert, litert_graph
from vidlet.artifact.lowered_operators import LOWERED
from vidlet.artifact.tflite_file import (
    SIGNATURE,
    FileGraph,
    FileOperator,
    FileTensor,
    Quantization,
    open_interpreter,
    tflite_bytes,
)
from vidlet.datasets import read_table
from vidlet.errors import ExportError
from vidlet.models.tflite import read_tflite
from vidlet.runtime import load
from vidlet.video import read_clip

interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")

# name -> shapes of the inputs, and the graph that makes y of a, b, c; w and v are stored random numbers
OPERATORS = {
    "sums of numbers of other shapes": ({"a": (1, 6, 5, 7), "b": (1, 6, 1, 1)}, "y = Add(a, b)"),
    "a picture and a number": ({"a": (1, 6, 5, 7)}, "p = MaxPool <kernel_shape = [2, 2]> (a) y = Mul(p, two)"),
    "a picture and a number a channel": (
        {"a": (1, 6, 5, 7)},
        "p = MaxPool <kernel_shape = [2, 2]> (a) y = Sub(p, w)",
        {"w": (6, 1, 1)},
    ),
    "five axes": ({"a": (1, 2, 3, 4, 5), "b": (1, 2, 1, 4, 1)}, "y = Div(a, b)"),
    "largest, smallest": ({"a": (1, 12), "b": (1, 12)}, "p = Max(a, b) y = Min(p, two)"),
    "powers": ({"a": (1, 12)}, "p = Abs(a) y = Pow(p, two)"),
    "choices": ({"a": (1, 12), "b": (1, 12)}, "p = Greater(a, b) q = Not(p) y = Where(q, a, b)"),
    "comparisons": (
        {"a": (1, 12), "b": (1, 12)},
        "p = Less(a, b) q = LessOrEqual(b, two) r = And(p, q) s = GreaterOrEqual(a, two) t = Or(r, s) "
        "y = Cast <to = 1> (t)",
    ),
    "equality": ({"a": (1, 12)}, "p = Floor(a) q = Equal(p, zero) y = Cast <to = 1> (q)"),
    "curves": (
        {"a": (1, 12)},
        "p = Sigmoid(a) q = Tanh(p) r = Exp(q) s = Log(r) t = Sqrt(s) u = Relu(a) v = Neg(t) y = Add(u, v)",
    ),
    "a step over time": (
        {"a": (1, 1, 4), "s": (1, 4)},
        "n, m = Scan <num_scan_inputs = 1, body = b (float[1, 4] h, float[1, 4] x) => (float[1, 4] k, float[1, 4] o) "
        "{ p = Tanh(x) k = Add(h, p) o = Mul(k, k) }> (s, a) q = Sub(m, n) y = Neg(q)",
    ),
    "signs": ({"a": (1, 12)}, "y = Sign(a)"),
    "hard swish": ({"a": (1, 12)}, "y = HardSwish(a)"),
    "leaks": ({"a": (1, 12)}, "y = LeakyRelu <alpha = 0.1> (a)"),
    "bounds": (
        {"a": (1, 12)},
        "p = Clip(a, zero, six) q = Clip(a, zero, two) r = Clip(a, , two) s = Add(p, q) y = Add(s, r)",
    ),
    "the same": ({"a": (1, 12)}, "p = Identity(a) y = Dropout(p)"),
    "turned": ({"a": (1, 2, 3, 4)}, "y = Transpose <perm = [2, 3, 0, 1]> (a)"),
    "a picture turned back": (
        {"a": (1, 5, 7, 6)},
        "p = Transpose <perm = [0, 3, 1, 2]> (a) q = MaxPool <kernel_shape = [2, 2]> (p) "
        "y = Transpose <perm = [0, 2, 3, 1]> (q)",
    ),
    "five axes turned": ({"a": (1, 2, 3, 4, 5)}, "y = Transpose <perm = [0, 4, 2, 1, 3]> (a)"),
    "joined": ({"a": (1, 6, 5, 7), "b": (1, 2, 5, 7)}, "y = Concat <axis = 1> (a, b)"),
    "pictures joined": (
        {"a": (1, 6, 5, 7), "b": (1, 6, 5, 7)},
        "p = MaxPool <kernel_shape = [2, 2]> (a) q = MaxPool <kernel_shape = [2, 2]> (b) y = Concat <axis = 1> (p, q)",
    ),
    "pieces": ({"a": (1, 8)}, "y = Slice(a, one, three, one)"),
    "every second, backwards": ({"a": (1, 8)}, "y = Slice(a, last, first, one, back)"),
    "halves": ({"a": (1, 8)}, "p, q = Split <axis = 1, num_outputs = 2> (a) y = Sub(p, q)"),
    "taken": ({"a": (1, 8)}, "y = Gather <axis = 1> (a, places)"),
    "taken at computed places": (
        {"a": (1, 8, 3)},
        "t = Reshape(a, eight) p = ReduceMax <keepdims = 0> (a) q = Sign(p) r = Cast <to = 7> (q) s = Reshape(r, one) "
        "y = GatherND(t, s)",
    ),
    "one taken": ({"a": (1, 8, 2)}, "y = Gather <axis = 1> (a, place)"),
    "shapes": ({"a": (1, 6, 5, 7)}, "p = Flatten(a) q = Unsqueeze(p, one) r = Squeeze(q, one) y = Reshape(r, rows)"),
    "widened": ({"a": (1, 3, 1)}, "y = Expand(a, wide)"),
    "widened by nothing": ({"a": (1, 3, 1)}, "y = Expand(a, thin)"),
    "edges": ({"a": (1, 8)}, "y = Pad(a, edges, three_and_a_half)"),
    "edges of a picture": ({"a": (1, 2, 5, 7)}, "p = MaxPool <kernel_shape = [2, 2]> (a) y = Pad(p, around)"),
    "sums over axes": ({"a": (1, 3, 4)}, "y = ReduceSum <keepdims = 0> (a, one)"),
    "means of a picture": (
        {"a": (1, 6, 5, 7)},
        "p = MaxPool <kernel_shape = [2, 2]> (a) y = ReduceMean <keepdims = 0> (p, places_of_pixels)",
    ),
    "over the rows of a picture": (
        {"a": (1, 6, 5, 7)},
        "p = MaxPool <kernel_shape = [2, 2]> (a) y = ReduceMax <keepdims = 0> (p, last_axis)",
    ),
    "smallest over axes": ({"a": (1, 3, 4)}, "y = ReduceMin <keepdims = 1> (a, one)"),
    "lengths": ({"a": (1, 3, 4)}, "y = ReduceL2 <keepdims = 1> (a, last_axis)"),
    "logarithms of sums": ({"a": (1, 3, 10)}, "y = ReduceLogSumExp <keepdims = 0> (a, last_axis)"),
    "shares": ({"a": (1, 9)}, "y = Softmax <axis = 1> (a)"),
    "shares over another axis": ({"a": (1, 9, 3)}, "y = Softmax <axis = 1> (a)"),
    "logarithms of shares": ({"a": (1, 9)}, "y = LogSoftmax <axis = 1> (a)"),
    "layers brought to one scale": (
        {"a": (1, 9)},
        "y = LayerNormalization <axis = 1> (a, w, v)",
        {"w": (9,), "v": (9,)},
    ),
    "products with stored numbers": ({"a": (1, 3, 4)}, "y = MatMul(a, w)", {"w": (4, 5)}),
    "features brought to one scale": (
        {"a": (1, 9)},
        "p = Reciprocal(w) q = Abs(p) y = BatchNormalization(a, v, w, w, q)",
        {"v": (9,), "w": (9,)},
    ),
    "pictures brought to one scale": (
        {"a": (1, 9, 5, 7)},
        "q = Abs(w) p = MaxPool <kernel_shape = [2, 2]> (a) y = BatchNormalization(p, v, w, w, q)",
        {"v": (9,), "w": (9,)},
    ),
    "reciprocals": ({"a": (1, 9)}, "y = Reciprocal(a)"),
    "products": ({"a": (1, 2, 3, 4), "b": (1, 2, 4, 5)}, "y = MatMul(a, b)"),
    "layers": ({"a": (1, 4)}, "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (a, w, v)", {"w": (5, 4), "v": (5,)}),
    "gated units": (
        {"a": (1, 1, 4), "b": (1, 1, 3)},
        "p, q = GRU <hidden_size = 3, linear_before_reset = 1> (a, w, v, u, , b) y = Concat <axis = 0> (q, b)",
        {"w": (1, 9, 4), "v": (1, 9, 3), "u": (1, 18)},
    ),
    "gated units of the first kind": (
        {"a": (1, 1, 4), "b": (1, 1, 3)},
        "p, y = GRU <hidden_size = 3> (a, w, v, u, , b)",
        {"w": (1, 9, 4), "v": (1, 9, 3), "u": (1, 18)},
    ),
    "long short-term memory": (
        {"a": (1, 1, 4), "b": (1, 1, 3), "c": (1, 1, 3)},
        "p, q, r = LSTM <hidden_size = 3> (a, w, v, u, , b, c) y = Concat <axis = 0> (q, r)",
        {"w": (1, 12, 4), "v": (1, 12, 3), "u": (1, 24)},
    ),
    "convolutions": ({"a": (1, 3, 9, 8)}, "y = Conv <pads = [1, 1, 1, 1]> (a, w, v)", {"w": (4, 3, 3, 3), "v": (4,)}),
    "steps and paddings of PyTorch": (
        {"a": (1, 3, 8, 8)},
        "y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (a, w)",
        {"w": (4, 3, 3, 3)},
    ),
    "paddings to the same size": (
        {"a": (1, 3, 9, 8)},
        'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2], dilations = [1, 1]> (a, w)',
        {"w": (4, 3, 3, 3)},
    ),
    "wide convolutions": ({"a": (1, 3, 9, 8)}, "y = Conv <dilations = [2, 2]> (a, w)", {"w": (4, 3, 3, 3)}),
    "a convolution a channel": (
        {"a": (1, 4, 9, 8)},
        "y = Conv <group = 4, pads = [1, 1, 1, 1]> (a, w, v)",
        {"w": (8, 1, 3, 3), "v": (8,)},
    ),
    "groups": ({"a": (1, 4, 9, 8)}, "y = Conv <group = 2> (a, w)", {"w": (6, 2, 3, 3)}),
    "convolutions over time": ({"a": (1, 4, 9)}, "y = Conv <pads = [2, 0]> (a, w, v)", {"w": (5, 4, 3), "v": (5,)}),
    "largest of windows": (
        {"a": (1, 4, 9, 8)},
        "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (a)",
    ),
    "windows that are not whole": (
        {"a": (1, 4, 9, 8)},
        "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (a)",
    ),
    "means of windows": ({"a": (1, 4, 9, 8)}, "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2]> (a)"),
    "means of windows and of zeros around": (
        {"a": (1, 4, 9, 8)},
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (a)",
    ),
    "means of all": ({"a": (1, 4, 9, 8)}, "y = GlobalAveragePool(a)"),
    "largest of all": ({"a": (1, 4, 9, 8)}, "y = GlobalMaxPool(a)"),
    "codes": (
        {"a": (1, 4, 9, 8)},
        "p = QuantizeLinear(a, step, middle) y = DequantizeLinear(p, step, middle)",
    ),
}
STORED = {
    "two": np.float32(2), "zero": np.float32(0), "six": np.float32(6), "three_and_a_half": np.float32(3.5),
    "step": np.float32(0.03), "middle": np.uint8(117), "one": np.array([1]), "three": np.array([3]),
    "last": np.array([-1]), "first": np.array([-9]), "back": np.array([-2]), "places": np.array([3, -1, 0]),
    "place": np.array(5), "rows": np.array([6, -1]), "eight": np.array([8, -1]), "pair": np.array([1, 2]),
    "wide": np.array([1, 3, 5]),
    "thin": np.array([1, 1, 1]), "edges": np.array([0, 2, 0, 1]), "around": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    "last_axis": np.array([-1]), "places_of_pixels": np.array([2, 3]),
}  # fmt: skip


def graph_of(inputs, body, weights, seed=0):
    """A graph of ONNX with random stored numbers."""
    rng = np.random.default_rng(seed)
    given = ", ".join(f"float{list(shape)} {name}" for name, shape in inputs.items())
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g ({given}) => (float y) {{ {body} }}')
    stored = STORED | {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in weights.items()}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(stored[name]), name) for name in stored if name in read
    )
    return model


def answered(content, feeds):
    return interpreter.Interpreter(model_content=content).get_signature_runner(SIGNATURE)(**feeds)


@pytest.mark.parametrize("case", OPERATORS)
def test_an_operator_answers_as_in_onnx_runtime(case):
    inputs, body, *weights = OPERATORS[case]
    model = graph_of(inputs, body, weights[0] if weights else {})
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(0, 1.5, shape).astype(np.float32) for name, shape in inputs.items()}
    (expected,) = artifacts.session(model).run(["y"], feeds)
    found = answered(tflite_bytes(litert_graph(model.SerializeToString(), case), "test", {}), feeds)["y"]
    assert found.shape == expected.shape
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=2e-6)


def test_every_operator_that_is_lowered_stands_in_a_case():
    bodies = " ".join(body for _, body, *_ in OPERATORS.values())
    assert [kind for kind in LOWERED if f"{kind}(" not in bodies and f"{kind} <" not in bodies] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("p = Sin(a) q = Erf(p) y = Sin(q)", "of its operators Erf, Sin"),
        ("p = ReduceMax <keepdims = 0> (a) q = Cast <to = 7> (p) y = Gather (a, q)", "Gather (y): computed places"),
        ('y = Pad <mode = "reflect"> (a, edges)', "Pad (y): only constant numbers"),
        (
            "p = Unsqueeze (a, pair) y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (p)",
            "AveragePool (y): this pooling",
        ),
        ("y = Gemm <transB = 1> (a, a)", "Gemm (y): only products with stored matrices"),
    ],
)
def test_an_operator_without_a_form_is_named(body, said):
    model = graph_of({"a": (1, 8)}, body, {})
    with pytest.raises(ExportError, match=r"^my\.onnx: ") as raised:
        litert_graph(model.SerializeToString(), "my.onnx")
    assert said in str(raised.value)


def test_the_interpreter_starts_and_answers_without_a_remark_of_its_own(capfd):
    """Alone it says on standard error, past Python, which kernels it took."""
    model = graph_of({"a": (1, 12)}, "y = Sign(a)", {})
    content = tflite_bytes(litert_graph(model.SerializeToString(), "signs"), "test", {})
    feeds = {"a": np.linspace(-1, 1, 12, dtype=np.float32)[None]}
    found = open_interpreter(content).get_signature_runner(SIGNATURE)(**feeds)["y"]
    assert (found == np.sign(feeds["a"])).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_run_becomes_a_file_that_answers_alike_for_a_thousand_frames_and_on_real_clips(name, tiny_run, run):
    status, out, err = run("export", tiny_run.folder / name, "--format", "litert", "--out", "phone.tflite", "--json")
    assert status == 0, err
    told = json.loads(out)["metrics"]
    assert (told["frames"], told["bound"]) == (1000, 1e-3)
    assert 0 < told["score_difference"] <= 1e-3
    assert 0 < told["state_difference"] <= 1e-3
    assert told["same_label"] >= 0.99 and told["litert_ms"] > 0 and told["onnx_ms"] > 0

    model = load(tiny_run.folder / name)
    reader = interpreter.Interpreter("phone.tflite").get_signature_runner(SIGNATURE)
    for clip in read_table(tiny_run.clips).clips[:4]:
        frames = read_clip(clip.path, model.sampling, model.input_size).frames
        kept = {f"state.{name}": value for name, value in model.zero_state().items()}
        for frame in frames:
            found = reader(frames=frame[None], **kept)
            kept = {name: found[f"next_{name}"] for name in kept}
        np.testing.assert_allclose(found["scores"], model(frames)[0], atol=1e-3)


def test_an_int8_run_computes_its_convolutions_in_integers_and_stores_a_byte_a_weight(tiny_run):
    graph = litert_graph((tiny_run.folder / "model.int8.onnx").read_bytes(), "x")
    convolutions = [op for op in graph.operators if op.kind.endswith("CONV_2D")]
    assert convolutions
    assert {graph.tensors[op.outputs[0]].dtype for op in convolutions} == {"int8"}
    sizes = {name: (tiny_run.folder / name).stat().st_size for name in ("model.onnx", "model.int8.onnx")}
    assert len(tflite_bytes(graph, "", {})) < 1.1 * sizes["model.int8.onnx"] < sizes["model.onnx"]


def test_the_metadata_are_in_the_file_where_any_zip_reader_finds_them(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(litert, "CHECKED", 20)
    export_litert(tiny_run.model, tmp_path / "model.tflite")
    told = json.loads(zipfile.ZipFile(tmp_path / "model.tflite").read("vidlet.json"))
    model = load(tiny_run.model)
    assert told["labels"] == list(model.labels)
    assert told["sampling"] == model.metadata["sampling"] and told["resize"] == model.metadata["resize"]
    assert "evidence" not in told and len(told["made_of"]) == 64
    first = (tmp_path / "model.tflite").read_bytes()
    export_litert(tiny_run.model, tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == first


def test_a_file_that_would_answer_otherwise_is_not_written(tiny_run, tmp_path, monkeypatch):
    lowered = LOWERED["Softmax"]

    def blunt(file, op):  # the shares of half the numbers
        index = file.combined("MUL", file.tensor(op.inputs[0]), file.store(np.float32(0.9)))
        file.plain[op.inputs[0]] = index
        lowered(file, op)

    monkeypatch.setitem(LOWERED, "Softmax", blunt)
    monkeypatch.setattr(litert, "CHECKED", 20)
    with pytest.raises(ExportError, match=r"not written: over 20 frames .* in a score .* \(at most 0\.001 may be"):
        export_litert(tiny_run.model, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_forgets_is_found_though_the_model_is_sure_of_all_it_sees(tiny_run, tmp_path):
    """Scores that are 1 in both files say nothing; the states do."""
    model = artifacts.classifier((8, 8))
    for tensor in model.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(artifacts.constant("head.weight", np.diag([0, 0, 1e6, 0])))
    sure = artifacts.save(model, tmp_path / "sure.onnx")
    graph = litert_graph(sure.read_bytes(), "sure")
    assert compare_litert(tflite_bytes(graph, "", {}), load(sure), 60)["state_difference"] < 1e-5
    graph.outputs["next_state.sum"] = graph.inputs["state.sum"]
    told = compare_litert(tflite_bytes(graph, "", {}), load(sure), 60)
    assert told["score_difference"] < 1e-4
    assert told["state_difference"] > 0.5


def test_models_of_other_kinds_are_refused_in_one_line(refused, tmp_path):
    boxes = artifacts.save(artifacts.detector(), tmp_path / "boxes.onnx", labels=[], box_labels=["a", "b"])
    features = artifacts.save(
        artifacts.features_model(), tmp_path / "features.onnx", inputs=["rgb", "audio"], labels=["x", "y", "z"]
    )
    for path, said in ((boxes, "a detector"), (features, "one on rgb and audio")):
        refused("export", path, "--format", "litert", "--out", "x.tflite", said=("classifiers on frames", said))
    refused("export", "missing", "--format", "litert", "--out", "x.tflite", said="no such file or run")
    refused("export", boxes, "--format", "litert", "--out", "x.tflite", "--labels", "coco", said="--labels")
    assert not list(tmp_path.glob("*.tflite"))


def test_without_the_interpreter_nothing_is_written_and_the_extra_is_named(tiny_run, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    refused("export", tiny_run.model, "--format", "litert", "--out", "x.tflite", said="pip install '.[litert]'")
    assert not (tmp_path / "x.tflite").exists()


def test_a_file_made_by_hand_is_read_back_by_our_own_reader(tmp_path):
    rng = np.random.default_rng(0)
    weights, bias = rng.integers(-127, 128, (4, 3, 3, 3), dtype=np.int8), rng.integers(-99, 99, 4, dtype=np.int32)
    scales = (0.1, 0.2, 0.3, 0.4)
    graph = FileGraph()
    graph.inputs["frames"] = graph.add(FileTensor("frames", (1, 8, 8, 3), "uint8", None, Quantization((0.5,), (128,))))
    codes = graph.add(FileTensor("codes", (1, 8, 8, 3), "int8", None, Quantization((0.5,), (0,))))
    kernel = graph.add(FileTensor("kernel", weights.shape, "int8", weights, Quantization(scales, (0,) * 4)))
    more = graph.add(FileTensor("bias", (4,), "int32", bias, Quantization(tuple(s / 2 for s in scales), (0,) * 4)))
    result = graph.add(FileTensor("result", (1, 4, 4, 4), "int8", None, Quantization((30.0,), (-128,))))
    fields = {"padding": 0, "strideH": 2, "strideW": 2, "fusedActivationFunction": 3}
    graph.operators += [
        FileOperator("QUANTIZE", (0,), (codes,)),
        FileOperator("CONV_2D", (codes, kernel, more), (result,), "Conv2DOptions", fields, 3),
    ]
    graph.outputs["maps"] = result
    path = tmp_path / "hand.tflite"
    path.write_bytes(tflite_bytes(graph, "made by hand", {"note.txt": b"hello"}))

    found = read_tflite(path)
    assert found.input_shape == (1, 8, 8, 3) and found.input_range == (0.5, 128)
    assert [op.kind for op in found.operators] == ["QUANTIZE", "CONV_2D"]
    conv = found.operators[1]
    assert (conv.stride, conv.same, conv.relu6, conv.range) == (2, True, True, (30.0, 0))
    expected = weights.transpose(0, 3, 1, 2) * np.float32(scales)[:, None, None, None]
    np.testing.assert_allclose(conv.weight, expected, rtol=1e-6)
    np.testing.assert_allclose(conv.bias, bias * np.float32(scales) / 2, rtol=1e-6)


def test_what_is_stored_begins_at_multiples_of_sixteen_bytes():
    stored = [np.arange(count, dtype=np.float32) + 0.5 for count in (3, 5, 7, 64)]
    graph = FileGraph()
    for i, data in enumerate(stored):
        graph.outputs[str(i)] = graph.add(FileTensor(str(i), data.shape, "float32", data))
    content = tflite_bytes(graph, "", {})
    assert [content.index(data.tobytes()) % 16 for data in stored] == [0, 0, 0, 0]
