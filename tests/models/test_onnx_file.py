"""Image models brought along as ONNX: computed as ONNX Runtime computes the file, for any number of pictures."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from shared_data import shared
from vidlet.artifact import extractor_graph
from vidlet.cli import main
from vidlet.compression.calibrate import calibrate
from vidlet.compression.int8 import quantize_graph, quantized_tensors
from vidlet.errors import RecipeError, WeightsError
from vidlet.models import build_extractor
from vidlet.models.onnx_file import OnnxBackbone
from vidlet.recipe import Extractor
from vidlet.tasks.brought import extractor_overrides, split_name

ort = pytest.importorskip("onnxruntime")
SIDE = 32
n = helper.make_node


def shuffling(batch=1, kind=TensorProto.FLOAT) -> onnx.ModelProto:
    """Convolutions, a channel shuffle that splits the first axis as ShuffleNet's does, an average, a row of classes."""
    draw = np.random.default_rng(0)

    def stored(name: str, values) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(values), name)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return stored(name, (draw.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    nodes = [
        n("Conv", ["images", "w.1", "b.1"], ["c1"], strides=[2, 2], pads=[0, 0, 1, 1], kernel_shape=[3, 3]),
        n("Relu", ["c1"], ["r1"]),  # (1, 8, 16, 16)
        n("Reshape", ["r1", "shape.split"], ["s1"]),  # (4, 2, 256)
        n("Transpose", ["s1"], ["s2"], perm=[1, 0, 2]),
        n("Reshape", ["s2", "shape.halves"], ["s3"]),  # (2, 1, 4, 16, 16)
        n("Gather", ["s3", "zero"], ["left"], axis=0),
        n("Gather", ["s3", "one"], ["right"], axis=0),
        n("Conv", ["right", "w.2"], ["c2"], kernel_shape=[1, 1]),
        n("Sigmoid", ["c2"], ["gate"]),
        n("Mul", ["c2", "gate"], ["silu"]),
        n("Concat", ["left", "silu"], ["maps"], axis=1),
        n("GlobalAveragePool", ["maps"], ["mean"]),
        n("Flatten", ["mean"], ["row"]),
        n("Gemm", ["row", "w.3"], ["classes"], transB=1),
        n("ArgMax", ["classes"], ["best"], axis=1),
    ]
    initializers = [
        weights("w.1", 8, 3, 3, 3), weights("b.1", 8), weights("w.2", 4, 4, 1, 1), weights("w.3", 5, 8),
        stored("shape.split", np.array([4, 2, 256])), stored("shape.halves", np.array([2, -1, 4, 16, 16])),
        stored("zero", np.array(0)), stored("one", np.array(1)),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", kind, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("classes", kind, None), helper.make_tensor_value_info("best", 7, None)],
        initializers,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(shuffling(), path)
    return path


def answers(path, tensor: str, pictures: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes for the file, one picture after the other."""
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run([tensor], {name: picture[None]})[0] for picture in pictures])


def config(path, **changes) -> Extractor:
    return Extractor(
        **{"name": "onnx", "weights": str(path), "input_size": (SIDE, SIDE), "cut": "", "grid": 4, **changes}
    )


def frames(count: int, side: int = SIDE) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tensor", ["maps", "r1", "mean", "classes"])
def test_every_tensor_is_what_the_runtime_computes_picture_by_picture(net, tensor):
    backbone = OnnxBackbone(net, tensor, (SIDE, SIDE))
    pictures = np.random.default_rng(1).normal(size=(5, 3, SIDE, SIDE)).astype(np.float32)
    with torch.no_grad():
        found = backbone(torch.from_numpy(pictures)).numpy()
    expected = answers(net, tensor, pictures)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)
    assert found.shape[1:] == (backbone.out_channels, *backbone.map_size(SIDE, SIDE))


def test_without_a_name_it_is_the_map_that_the_classifier_averages(net):
    extractor = build_extractor(config(net))
    assert extractor.backbone.cut == "maps"
    assert extractor.feature_shape == (8, 4, 4)
    assert extractor.provenance["tensor"] == "maps"


@pytest.mark.parametrize(("pixels", "value"), [("unit", 1.0), ("signed", 1.0), ("bytes", 255.0), ("bytes-bgr", 255.0)])
def test_pictures_come_as_the_file_takes_them(net, pixels, value):
    extractor = build_extractor(config(net, options={"pixels": pixels}, grid=0, cut="r1"))
    red = torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)
    red[..., 0] = 255
    picture = np.full((1, 3, SIDE, SIDE), -1.0 if pixels == "signed" else 0.0, np.float32)
    picture[:, 2 if "bgr" in pixels else 0] = value
    with torch.no_grad():
        found = extractor(red).numpy()
    np.testing.assert_allclose(found, answers(net, "r1", picture).mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_the_graph_of_any_number_of_frames_is_torchs_and_becomes_integer(net):
    extractor = build_extractor(config(net))
    graph = extractor_graph(extractor)
    quantized = quantize_graph(graph, calibrate(graph, [{"frames": frames(4).numpy()}], quantized_tensors(graph)))
    with torch.no_grad():
        expected = extractor(frames(3)).numpy()
    for model, error in ((graph, 1e-5), (quantized, 0.1)):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for count in (1, 3):
            found = session.run(None, {"frames": frames(3)[:count].numpy()})[0]
            assert np.abs(found - expected[:count]).max() < error * np.abs(expected).max()
    codes = [t for t in quantized.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4]
    assert len(codes) == 2


def test_a_run_with_a_file_of_ones_own_ends_in_one_file_that_holds_it(net, motion_clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    words = ["train", str(motion_clips), "--recipe", "tiny-grid-gru", "--extractor", f"{net}:maps", "--epochs", "1"]
    words += ["--set", "training.mode=frozen", "--set", "training.augment={}", "--set", 'compress=["int8"]']
    assert main([*words, "--out", str(tmp_path / "run"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    net.unlink()  # the artifact needs it no more
    for name in ("model.onnx", "model.int8.onnx"):
        assert made["files"][name] > 0
        assert main(["evaluate", str(tmp_path / "run" / name), str(motion_clips), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["accuracy"] == made["metrics"]["files"][name]["accuracy"]


def classifier(ends: list, opset: int, **stored) -> onnx.ModelProto:
    """A convolution cut at 0 and 6 by inputs, and the nodes behind its map ``maps`` (1, 8, 16, 16)."""
    draw = np.random.default_rng(0)
    stored |= {"w.1": draw.normal(size=(8, 3, 3, 3)), "low": 0.0, "high": 6.0, "w.2": draw.normal(size=(8, 5))}
    nodes = [
        n("Conv", ["images", "w.1"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        n("Clip", ["c", "low", "high"], ["maps"]),
        *ends,
    ]
    tensors = [
        numpy_helper.from_array(np.asarray(v, np.int64 if k == "axes" else np.float32), k) for k, v in stored.items()
    ]
    value = helper.make_tensor_value_info
    images = value("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "g", [images], [value("y", TensorProto.FLOAT, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


AVERAGES = {
    "axes as an attribute": (13, {}, [n("ReduceMean", ["maps"], ["row"], axes=[2, 3], keepdims=0)]),
    "axes as an input": (18, {"axes": [-1, -2]}, [n("ReduceMean", ["maps", "axes"], ["row"], keepdims=0)]),
    "a pool as large as the map": (
        13, {}, [n("AveragePool", ["maps"], ["mean"], kernel_shape=[16, 16]), n("Flatten", ["mean"], ["row"])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGES)
def test_the_map_that_is_averaged_is_found_however_the_file_says_it_and_becomes_integer(name, tmp_path):
    opset, stored, nodes = AVERAGES[name]
    onnx.save(classifier([*nodes, n("MatMul", ["row", "w.2"], ["y"])], opset, **stored), tmp_path / "net.onnx")
    extractor = build_extractor(config(tmp_path / "net.onnx"))
    assert extractor.backbone.cut == "maps" and extractor.feature_shape == (8, 4, 4)
    graph = extractor_graph(extractor)
    assert [node.op_type for node in graph.graph.node].count("Clip") == 1
    quantized = quantize_graph(graph, calibrate(graph, [{"frames": frames(4).numpy()}], quantized_tensors(graph)))
    with torch.no_grad():
        expected = extractor(frames(3)).numpy()
    for model, error in ((graph, 1e-5), (quantized, 0.1)):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {"frames": frames(3).numpy()})[0]
        assert np.abs(found - expected).max() < error * np.abs(expected).max()


GATED = [
    n("GlobalAveragePool", ["maps"], ["squeezed"]),
    n("Sigmoid", ["squeezed"], ["gate"]),
    n("Mul", ["maps", "gate"], ["gated"]),
]


def test_a_cut_that_is_not_beyond_doubt_is_an_error_that_lists_the_maps(tmp_path):
    path = tmp_path / "net.onnx"
    flat = [n("Flatten", ["gated"], ["row"]), n("ReduceMean", ["row"], ["y"], axes=[1])]
    onnx.save(classifier([*GATED, *flat], 13), path)  # the only average is a gate's
    with pytest.raises(WeightsError, match=r"it averages no map at its end, so name .*last maps are c, maps, gated$"):
        build_extractor(config(path))
    two = [
        n("GlobalAveragePool", ["maps"], ["a"]),
        n("GlobalAveragePool", ["gated"], ["b"]),
        n("Add", ["a", "b"], ["y"]),
    ]
    onnx.save(classifier([*GATED, *two], 13), path)
    with pytest.raises(WeightsError, match=r"it averages 2 maps, so name the tensor to take \(FILE:TENSOR\)"):
        build_extractor(config(path))
    onnx.save(classifier([*GATED, n("Identity", ["gated"], ["y"])], 13), path)  # a map is all that it gives
    assert build_extractor(config(path)).backbone.cut == "y"
    assert build_extractor(config(path, cut="gated")).backbone.cut == "gated"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cut": "nowhere"}, r"has no tensor 'nowhere'; its last maps are .*maps"),
        ({"cut": "s1"}, r"tensor s1 has shape \[4, 2, 256\]; features are a float map \[1, C, h, w\]"),
        ({"cut": "best"}, r"operator ArgMax \(best\) is not read|not float32"),
        ({"input_size": (64, 64)}, r"takes pictures of \[32, 32\], set extractor\.input_size"),
        (
            {"options": {"pixels": "hsv"}},
            r"extractor\.options\.pixels must be one of imagenet, unit, signed, bytes, or that and -bgr",
        ),
        ({"cut": "mean"}, r"extractor\.grid must be 0: tensor mean is one vector"),
    ],
)
def test_what_is_no_extractor_is_named_with_what_would_fit(net, change, words):
    with pytest.raises((WeightsError, RecipeError), match=words):
        build_extractor(config(net, **change))


def test_files_that_take_something_else_are_refused(tmp_path):
    for name, model, words in (
        ("two.onnx", shuffling(batch=2), "takes 2 pictures at once"),
        ("whole.onnx", shuffling(kind=TensorProto.DOUBLE), "its input is not float32"),
    ):
        onnx.save(model, tmp_path / name)
        with pytest.raises(WeightsError, match=words):
            build_extractor(config(tmp_path / name))
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 30)
    with pytest.raises(WeightsError, match=r"junk\.onnx"):
        build_extractor(config(tmp_path / "junk.onnx"))


def test_a_name_on_the_command_line_becomes_values_of_the_recipe(net):
    assert split_name("a/net.onnx:x:0") == ("a/net.onnx", "x:0")
    assert split_name("net.tflite") == ("net.tflite", "")
    found = extractor_overrides(f"{net}:r1")
    assert found == {
        "extractor.name": "onnx", "extractor.weights": str(net), "extractor.cut": "r1",
        "extractor.width": 1.0, "extractor.input_size": [SIDE, SIDE],
    }  # fmt: skip
    with pytest.raises(WeightsError, match="no such file"):
        extractor_overrides("nowhere.onnx")
    mobile = extractor_overrides(str(shared("weights", "coral_tflite", "mobilenet_v1_0.25_128_quant.tflite")))
    assert mobile["extractor.name"] == "mobilenetv1"
    assert (mobile["extractor.width"], mobile["extractor.cut"]) == (0.25, "block12")
    assert mobile["extractor.input_size"] == [128, 128]


@pytest.mark.parametrize(
    ("file", "tensor", "side", "pixels"),
    [
        (("weights", "fastestdet", "FastestDet.onnx"), "", 352, "unit-bgr"),  # a ShuffleNetV2
        (("weights", "yolox", "yolox_nano.onnx"), "input.367", 416, "bytes-bgr"),
    ],
)
def test_real_networks_are_read(file, tensor, side, pixels):
    extractor = build_extractor(config(shared(*file), cut=tensor, input_size=(side, side), options={"pixels": pixels}))
    pictures = extractor.normalize(frames(2, side))
    with torch.no_grad():
        found = extractor.backbone(pictures).numpy()
    given = pictures.numpy()[:, ::-1].copy()  # the file takes blue first
    expected = answers(shared(*file), extractor.backbone.cut, given)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_damaged_network_is_one_line_whatever_the_libraries_raise(tmp_path):
    whole, path, rng = shuffling().SerializeToString(), tmp_path / "net.onnx", np.random.default_rng(0)
    failed = 0
    for _ in range(25):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            OnnxBackbone(path, "maps")
        except WeightsError as error:
            failed += 1
            assert str(path) in str(error)
            assert "\n" not in str(error)
    assert failed > 3
