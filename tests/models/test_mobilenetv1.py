"""MobileNetV1: the paper's numbers, its cuts, and the quantized files against the TFLite interpreter."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image

from shared_data import shared
from vidlet.artifact import extractor_graph
from vidlet.compression.tflite import export_tflite, quantize_imported
from vidlet.errors import RecipeError, WeightsError
from vidlet.models import build_extractor
from vidlet.models.extractor import Taps
from vidlet.models.mobilenets import V1_CUTS, MobileNetV1
from vidlet.models.tflite import read_tflite
from vidlet.models.tflite_import import import_network
from vidlet.recipe import Extractor

CORAL = ("weights", "coral_tflite")
FILES = {  # file: width, side
    "mobilenet_v1_0.25_128_quant.tflite": (0.25, 128),
    "mobilenet_v1_0.5_160_quant.tflite": (0.5, 160),
    "mobilenet_v1_0.75_192_quant.tflite": (0.75, 192),
    "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite": (1.0, 224),
}
SMALL = dict(list(FILES.items())[:2])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def photographs(side: int) -> np.ndarray:
    """bird.bmp and cat.bmp, uint8 (2, side, side, 3)."""
    pictures = [Image.open(shared(*CORAL, name)) for name in ("bird.bmp", "cat.bmp")]
    return np.stack([np.asarray(p.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)) for p in pictures])


@functools.cache
def interpreter(file: str):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    inner = litert.Interpreter(
        str(shared(*CORAL, file)),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    inner.allocate_tensors()
    return inner


def value(inner, index: int) -> np.ndarray:
    """A tensor of the interpreter, dequantized."""
    scale, zero_point = next(d for d in inner.get_tensor_details() if d["index"] == index)["quantization"]
    return scale * (inner.get_tensor(index).astype(np.float64) - zero_point)


def run(file: str, frame: np.ndarray):
    inner = interpreter(file)
    inner.set_tensor(inner.get_input_details()[0]["index"], frame[None])
    inner.invoke()
    return inner


def test_parameters_are_those_of_the_published_network():
    def count(**values) -> int:
        return sum(p.numel() for p in MobileNetV1(**values).parameters())

    assert count(classes=1000) == 4_231_976  # "4.2 million" of the paper
    assert count(classes=1000, width=0.25) == 470_072  # "0.5 million"
    # by hand, weights and two of each normalization: stem 3 8 9 + 16, depthwise 8 9 + 16, pointwise 8 16 + 32
    assert count(width=0.25, cut="block0") == 232 + 88 + 160


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_size_of_the_map_is_foretold_and_a_cut_is_the_beginning_of_the_whole(padding):
    torch.manual_seed(0)
    whole = MobileNetV1(0.25, padding=padding).eval()
    x = torch.randn(1, 3, 65, 96)
    expected = x
    for name in whole.parts:
        expected = whole.get_submodule(name)(expected)
        if name not in ("block3", "block10"):
            continue
        cut = MobileNetV1(0.25, name, padding).eval()
        cut.load_state_dict({key: value for key, value in whole.state_dict().items() if key in cut.state_dict()})
        torch.testing.assert_close(cut(x), expected)
        assert tuple(expected.shape[1:]) == (cut.out_channels, *cut.map_size(65, 96))
    assert whole.map_size(65, 96) == tuple(expected.shape[2:]) == (3, 3)


@pytest.mark.parametrize("file", FILES)
def test_every_layer_given_the_interpreters_input_gives_its_output_to_a_rounding_step(file):
    width, side = FILES[file]
    path = shared(*CORAL, file)
    inner = run(file, photographs(side)[0])
    backbone = import_network(MobileNetV1, path, width, "block12").backbone
    layers = [backbone.stem]
    for part in backbone.parts[1:]:
        layers += list(backbone.get_submodule(part).children())
    convolutions = [o for o in read_tflite(path).operators if o.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert len(layers) == 27
    for layer, operator in zip(layers, convolutions[:27], strict=True):
        x = torch.from_numpy(value(inner, operator.inputs[0])).float().permute(0, 3, 1, 2)
        scale, zero_point = operator.range
        with torch.no_grad():
            found = layer(x).permute(0, 2, 3, 1).numpy().clip(-zero_point * scale, (255 - zero_point) * scale)
        steps = np.abs(found - value(inner, operator.output)) / scale
        assert steps.max() < 1.6, operator
        assert steps.mean() < 0.3, operator


@pytest.mark.parametrize("file", SMALL)
def test_photographs_get_the_interpreters_class_and_both_files_its_embedding(file):
    onnxruntime = pytest.importorskip("onnxruntime")
    width, side = FILES[file]
    path = shared(*CORAL, file)
    classifier = import_network(MobileNetV1, path, width, "block12", classifier=True)
    assert classifier.classes == 1001
    extractor = build_extractor(Extractor("mobilenetv1", width, (side, side), "block12", 0, str(path)))
    graph = quantize_imported(extractor_graph(extractor), extractor)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pool = next(o.output for o in read_tflite(path).operators if o.kind == "AVERAGE_POOL_2D")
    for frame in photographs(side):
        inner = run(file, frame)
        top = int(inner.get_tensor(inner.get_output_details()[0]["index"]).argmax())
        with torch.no_grad():
            features = extractor(torch.from_numpy(frame[None])).numpy()
            logits = classifier.backbone.logits(extractor.normalize(torch.from_numpy(frame[None])))
        assert int(logits.argmax()) == top
        assert cosine(features, value(inner, pool)) > 0.98
        assert cosine(session.run(None, {"frames": frame[None]})[0], value(inner, pool)) > 0.98


def test_taps_of_a_mobilenetv1_are_its_cuts():
    torch.manual_seed(0)
    cuts = {
        cut: build_extractor(Extractor("mobilenetv1", 0.25, (64, 64), cut, 4, "none")) for cut in ("block3", "block10")
    }
    weights = cuts["block10"].state_dict()
    cuts["block3"].load_state_dict({k: weights[k] for k in cuts["block3"].state_dict() if k != "bins"}, strict=False)
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        for found, extractor in zip(Taps(cuts)(frames), cuts.values(), strict=True):
            assert found.shape == (3, *extractor.feature_shape)
            torch.testing.assert_close(found, extractor(frames))


def test_imagenet_means_the_file_of_this_width(monkeypatch):
    monkeypatch.setenv("VIDLET_WEIGHTS", str(shared("weights")))
    for file, (width, side) in FILES.items():
        extractor = build_extractor(Extractor("mobilenetv1", width, (side, side), "block2", 4, "imagenet"))
        assert extractor.provenance["file"] == file
        assert extractor.provenance["licence"] == "Apache-2.0"
        assert extractor.feature_shape == (int(128 * width), 4, 4)


def test_export_recognizes_the_network_and_its_width(tmp_path):
    metrics = export_tflite(shared(*CORAL, "mobilenet_v1_0.25_128_quant.tflite"), tmp_path / "out.onnx")
    assert (metrics["network"], metrics["width"], metrics["feature_shape"]) == ("MobileNetV1", 0.25, [256])
    assert metrics["float_difference"] < 1e-4
    assert metrics["int8_cosine"] > 0.99
    assert (tmp_path / "out.onnx").stat().st_size < 330_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cut": "head"}, r"extractor.cut of mobilenetv1 must be one of block0 ... block12 \(the whole.*got 'head'"),
        ({"input_size": (16, 64)}, "extractor.input_size must be at least 32 x 32"),
        ({"width": 9.0}, "extractor.width must be between"),
    ],
)
def test_an_impossible_extractor_is_an_error_that_names_the_key(change, words):
    with pytest.raises(RecipeError, match=words):
        build_extractor(Extractor(**{"name": "mobilenetv1", "weights": "none", "input_size": (64, 64), **change}))


def test_weights_of_other_networks_are_refused_with_what_would_fit(tmp_path):
    with pytest.raises(WeightsError, match=r"MobileNetV1 has them for the widths 0\.25, 0\.5, 0\.75, 1, got 0\.35"):
        build_extractor(Extractor("mobilenetv1", 0.35, (64, 64), "block3", 0, "imagenet"))
    torch.save(MobileNetV1(0.25).state_dict(), tmp_path / "thin.pt")
    with pytest.raises(WeightsError, match=r"stem\.conv\.weight has shape .*set extractor.width = 0\.25"):
        build_extractor(Extractor("mobilenetv1", 0.5, (64, 64), "block3", 0, str(tmp_path / "thin.pt")))
    fitted = build_extractor(Extractor("mobilenetv1", 0.25, (64, 64), "block3", 0, str(tmp_path / "thin.pt")))
    assert fitted.feature_shape == (64,)
    assert V1_CUTS.index("block3") == 3
