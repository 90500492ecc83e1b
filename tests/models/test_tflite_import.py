"""Imported TFLite weights against the TFLite interpreter (built-in kernels, fixed), on photographs and video frames."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image

from shared_data import shared
from vidlet.artifact import extractor_graph
from vidlet.compression.exact import pair_sums
from vidlet.compression.storage import lattice_step
from vidlet.compression.tflite import export_tflite, quantize_imported
from vidlet.errors import WeightsError
from vidlet.models import build_extractor
from vidlet.models.mobilenets import InvertedResidual, MobileNetV2
from vidlet.models.tflite import read_tflite
from vidlet.models.tflite_import import import_network
from vidlet.recipe import Extractor

FILES = ("tf2_mobilenet_v2_1.0_224_ptq.tflite", "mobilenet_v2_1.0_224_quant.tflite")
CORAL = ("weights", "coral_tflite")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def photographs() -> np.ndarray:
    """bird.bmp and cat.bmp, uint8 (2, 224, 224, 3)."""
    pictures = [Image.open(shared(*CORAL, name)) for name in ("bird.bmp", "cat.bmp")]
    return np.stack([np.asarray(p.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)) for p in pictures])


def video_frames() -> np.ndarray:
    """The middle frames of four clips of hands, uint8 (4, 224, 224, 3)."""
    import av

    paths = sorted(shared("data", "egogestar", "videos").rglob("*.mp4"))[::60]
    frames = []
    for path in paths:
        with av.open(str(path)) as container:
            images = [frame.to_image() for frame in container.decode(video=0)]
        frames.append(np.asarray(images[len(images) // 2].resize((224, 224), Image.Resampling.BILINEAR)))
    return np.stack(frames)


class Interpreter:
    """The TFLite interpreter with all tensors kept."""

    def __init__(self, path) -> None:
        litert = pytest.importorskip("ai_edge_litert.interpreter")
        self.inner = litert.Interpreter(
            str(path),
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self.inner.allocate_tensors()

    def run(self, frame: np.ndarray) -> None:
        self.inner.set_tensor(self.inner.get_input_details()[0]["index"], frame[None])
        self.inner.invoke()

    def top(self) -> int:
        return int(self.inner.get_tensor(self.inner.get_output_details()[0]["index"]).argmax())

    def value(self, index: int) -> np.ndarray:
        """A tensor, dequantized."""
        scale, zero_point = next(d for d in self.inner.get_tensor_details() if d["index"] == index)["quantization"]
        return scale * (self.inner.get_tensor(index).astype(np.float64) - zero_point)


@functools.cache
def int8_session(file: str, cut: str, grid: int):
    onnxruntime = pytest.importorskip("onnxruntime")
    extractor = build_extractor(Extractor(weights=str(shared(*CORAL, file)), cut=cut, grid=grid))
    quantized = quantize_imported(extractor_graph(extractor), extractor)
    session = onnxruntime.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    return extractor, quantized, session


@functools.cache
def whole(file: str):
    path = shared(*CORAL, file)
    extractor = build_extractor(Extractor(weights=str(path), cut="head", grid=0))
    operators = read_tflite(path).operators
    pool = next(o.output for o in operators if o.kind in ("MEAN", "AVERAGE_POOL_2D"))
    return path, extractor, Interpreter(path), pool


@pytest.mark.parametrize("file", FILES)
def test_photographs_get_the_interpreters_class_and_embedding(file):
    path, extractor, interpreter, pool = whole(file)
    classifier = import_network(MobileNetV2, path, 1.0, "head", classifier=True)
    assert classifier.classes == 1001
    cosines = []
    for frame in photographs():
        interpreter.run(frame)
        with torch.no_grad():
            features = extractor(torch.from_numpy(frame[None])).numpy()
            logits = classifier.backbone.logits(extractor.normalize(torch.from_numpy(frame[None])))
        assert int(logits.argmax()) == interpreter.top()
        cosines.append(cosine(features, interpreter.value(pool)))
    # the interpreter's own rounding noise: its two sets of kernels agree to 0.997 with each other on these pictures
    assert np.mean(cosines) >= 0.997
    assert min(cosines) >= 0.996


@pytest.mark.parametrize("file", FILES)
def test_video_frames_get_the_interpreters_embedding_but_for_its_rounding_noise(file):
    _, extractor, interpreter, pool = whole(file)
    for frame in video_frames():
        interpreter.run(frame)
        with torch.no_grad():
            features = extractor(torch.from_numpy(frame[None])).numpy()
        assert cosine(features, interpreter.value(pool)) >= 0.99


@pytest.mark.parametrize("file", FILES)
def test_every_layer_given_the_interpreters_input_gives_its_output_to_a_rounding_step(file):
    """The proof of weights, biases, strides, padding and activations, without noise adding up over the layers."""
    path, extractor, interpreter, _ = whole(file)
    interpreter.run(photographs()[0])
    operators = {o.output: o for o in read_tflite(path).operators}
    convolutions = [o for o in operators.values() if o.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")][:-1]
    layers = []
    for part in extractor.backbone.parts:
        module = extractor.backbone.get_submodule(part)
        layers += list(module.children()) if isinstance(module, InvertedResidual) else [module]
    assert len(layers) == len(convolutions) == 52
    for layer, operator in zip(layers, convolutions, strict=True):
        x = torch.from_numpy(interpreter.value(operator.inputs[0])).float().permute(0, 3, 1, 2)
        scale, zero_point = operator.range
        with torch.no_grad():
            found = layer(x).permute(0, 2, 3, 1).numpy().clip(-zero_point * scale, (255 - zero_point) * scale)
        steps = np.abs(found - interpreter.value(operator.output)) / scale
        assert steps.max() < 1.6, operator
        assert steps.mean() < 0.3, operator


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("cut", "grid"), [("head", 0), ("block12", 4)])
def test_the_int8_file_of_the_kept_ranges_agrees_with_float_and_with_the_interpreter(file, cut, grid):
    _, _, interpreter, pool = whole(file)
    extractor, _, session = int8_session(file, cut, grid)
    for frame in [*photographs(), *video_frames()]:
        features = session.run(None, {"frames": frame[None]})[0]
        with torch.no_grad():
            expected = extractor(torch.from_numpy(frame[None])).numpy()
        assert features.shape == expected.shape
        assert cosine(features, expected) >= 0.99
        if cut == "head":
            interpreter.run(frame)
            assert cosine(features, interpreter.value(pool)) >= 0.99


@pytest.mark.parametrize("file", FILES)
def test_weights_quantized_before_are_rounded_again_only_where_they_could_saturate(file):
    from onnx import numpy_helper

    extractor, quantized, _ = int8_session(file, "block12", 4)
    stored = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    found = 0
    for name, layer in extractor.backbone.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            weight, scales = layer.weight.detach().numpy(), stored[f"backbone.{name}.weight.scale"].ravel()
            codes = stored[f"backbone.{name}.weight.q"]
            error = np.abs(codes * scales.reshape(-1, 1, 1, 1) - weight).max((1, 2, 3)) / scales
            assert pair_sums(codes).max() <= 128
            assert error.max() < 0.5001
            largest = np.abs(weight).max((1, 2, 3))
            steps = lattice_step(weight) or np.maximum(largest / 127, 1e-30)  # one for all, or one a channel
            within = (pair_sums(weight) <= 128 * steps) & (largest <= 127 * steps)
            assert (error[within] < 1e-2).all(), name
            found += within.sum()
    assert found > 20


def test_imported_weights_work_at_other_sizes():
    config = Extractor(weights=str(shared(*CORAL, FILES[0])), cut="block12", grid=4, input_size=(160, 96))
    extractor = build_extractor(config)
    assert extractor.backbone.map_size(160, 96) == (10, 6)
    with torch.no_grad():
        features = extractor(torch.randint(0, 256, (2, 160, 96, 3), dtype=torch.uint8))
    assert features.shape == (2, 96, 4, 4)
    assert torch.isfinite(features).all()


def test_names_of_the_table_find_the_shared_files(monkeypatch):
    monkeypatch.setenv("VIDLET_WEIGHTS", str(shared("weights")))
    extractor = build_extractor(Extractor(weights="imagenet", cut="block3", grid=0))
    assert extractor.provenance["licence"] == "Apache-2.0"
    assert extractor.provenance["file"] == FILES[0]
    assert float(extractor.zero_point) == 127
    assert float(build_extractor(Extractor(weights="imagenet-paper", cut="block3", grid=0)).scale) == 1 / 128
    with pytest.raises(WeightsError, match=r"not a MobileNetV2 of width 0\.5"):
        build_extractor(Extractor(weights="imagenet", width=0.5))


def test_export_writes_a_whole_file_with_its_provenance(tmp_path):
    import onnx

    out = tmp_path / "extractor.onnx"
    metrics = export_tflite(shared(*CORAL, FILES[1]), out)
    assert metrics["feature_shape"] == [1280]
    assert metrics["float_difference"] < 1e-4
    assert metrics["int8_cosine"] > 0.99
    model = onnx.load(out)
    assert "Apache-2.0" in {entry.key: entry.value for entry in model.metadata_props}["provenance"]
    assert out.stat().st_size < 2_600_000


def test_another_network_is_named_by_its_first_strange_operator(tmp_path):
    path = shared(*CORAL, "mobilenet_v1_0.25_128_quant.tflite")
    with pytest.raises(
        WeightsError, match=r"mobilenet_v1_0\.25.*: operator 0 \(CONV_2D, weights 8x3x3x3\) is not stem"
    ):
        import_network(MobileNetV2, path, 1.0, "head")
    wide = shared(*CORAL, "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite")
    with pytest.raises(WeightsError, match=r"operator 2 \(CONV_2D.*is not block0.project"):
        import_network(MobileNetV2, wide, 1.0, "head")


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_an_error_that_names_it(file, tmp_path):
    data = shared(*CORAL, file).read_bytes()
    for share in (0, 0.001, 0.2, 0.5, 0.9):
        (tmp_path / "cut.tflite").write_bytes(data[: int(share * len(data))])
        with pytest.raises(WeightsError, match=r"cut\.tflite"):
            import_network(MobileNetV2, tmp_path / "cut.tflite", 1.0, "head")


def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path):
    data = bytearray(shared(*CORAL, FILES[0]).read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(data)
        for position in [*rng.integers(8, 2_000, 4), *rng.integers(len(data) - 40_000, len(data), 60)]:
            damaged[position] = rng.integers(256)
        (tmp_path / "damaged.tflite").write_bytes(damaged)
        try:
            read_tflite(tmp_path / "damaged.tflite")
        except WeightsError as error:
            assert "damaged.tflite" in str(error)


def test_unknown_operators_are_named(tmp_path):
    path = shared(*CORAL, FILES[0])
    import tflite

    data = bytearray(path.read_bytes())
    model = tflite.Model.GetRootAsModel(data, 0)
    code = next(
        model.OperatorCodes(i)
        for i in range(model.OperatorCodesLength())
        if model.OperatorCodes(i).DeprecatedBuiltinCode() == tflite.BuiltinOperator.SOFTMAX
    )
    for slot in (4, 10):  # deprecated_builtin_code (1 byte) and builtin_code (4 bytes), where they are stored
        if offset := code._tab.Offset(slot):
            data[code._tab.Pos + offset] = tflite.BuiltinOperator.TANH
    (tmp_path / "tanh.tflite").write_bytes(data)
    with pytest.raises(WeightsError, match=r"tanh\.tflite: operator \d+ is TANH, which is not supported"):
        read_tflite(tmp_path / "tanh.tflite")


def test_what_is_not_tflite_is_an_error(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"PK\x03\x04" * 10)
    with pytest.raises(WeightsError, match=r"a\.tflite: not a TFLite file"):
        read_tflite(tmp_path / "a.tflite")
    with pytest.raises(WeightsError, match=r"b\.tflite: cannot be read"):
        read_tflite(tmp_path / "b.tflite")
