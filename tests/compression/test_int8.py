"""Integer graphs and weights in 8 and 16 bits: what they promise, and that a runtime computes them as meant."""

import collections
import functools

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from artifacts import session
from vidlet.artifact import ArtifactNetwork, artifact_graph
from vidlet.artifact.exporter import to_onnx_graph
from vidlet.compression import find_chain, shrink_graph
from vidlet.compression.calibrate import PERCENTILE, Histogram, calibrate, run_along
from vidlet.compression.int8 import quantize_graph, quantized_tensors, range_of
from vidlet.compression.settle import integer_graph, settle, settle_answers
from vidlet.compression.storage import lattice_step, quantize_weight, store_weights_half, store_weights_int8
from vidlet.errors import ExportError
from vidlet.models import FrameExtractor, MobileNetV2
from vidlet.models.heads import build_head
from vidlet.onnx_graph import fold_pads, hide_outputs
from vidlet.recipe import Head

SIZE = (64, 48)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    return session(model).run(None, feeds)[0]


def extractor(padding: str = "same", **values) -> FrameExtractor:
    torch.manual_seed(0)
    backbone = MobileNetV2(0.35, "block5", padding)
    with torch.no_grad():  # statistics and offsets as after some training
        x = torch.randn(8, 3, *SIZE)
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
                nn.init.normal_(layer.bias, std=0.3)
        backbone.train()(x)
    return FrameExtractor(backbone.eval(), SIZE, 3, **values).eval()


def graph_of(module: nn.Module) -> onnx.ModelProto:
    frames = torch.zeros(3, *SIZE, 3, dtype=torch.uint8)
    return to_onnx_graph(module, {"frames": frames}, ["features"], {"frames": {0: "T"}})


def some_frames(count: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 6, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_the_graph_is_clean_dynamic_reproducible_and_equal_to_torch(padding):
    module = extractor(padding)
    graph = graph_of(module)
    assert graph.SerializeToString(deterministic=True) == graph_of(module).SerializeToString(deterministic=True)
    kinds = collections.Counter(node.op_type for node in graph.graph.node)
    assert not {"BatchNormalization", "Pad"} & set(kinds)
    assert [node.op_type for node in graph.graph.node][:2] == ["Transpose", "Cast"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "T"
    assert graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "T"
    assert not graph.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())  # the module is as it was
    for count in (1, 2, 5):
        frames = some_frames(count)
        with torch.no_grad():
            expected = module(torch.from_numpy(frames)).numpy()
        np.testing.assert_allclose(run(graph, frames=frames), expected, atol=1e-5, rtol=1e-4)


class Window(nn.Module):
    """Frames and a state of N windows -> a score each; and the features, to be named inside."""

    def forward(self, frames, state):
        features = frames.float().mean((1, 2))
        return features.sum() + state.sum(1), features


def test_two_free_dimensions_keep_their_names_and_inner_tensors_theirs():
    examples = {"frames": torch.zeros(3, 4, 4, 3, dtype=torch.uint8), "state.h": torch.zeros(2, 5)}
    dynamic = {"frames": {0: "T"}, "state.h": {0: "N"}}
    for _ in range(2):  # a second export in one process used to fix dimensions
        graph = to_onnx_graph(Window(), examples, ["scores", "features"], dynamic)
        names = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.input]
        assert names == [["T", 4, 4, 3], ["N", 5]]
    hide_outputs(graph, ["features"])
    assert [output.name for output in graph.graph.output] == ["scores"]
    assert any("features" in node.output for node in graph.graph.node)
    scores = run(graph, **{"frames": np.ones((7, 4, 4, 3), np.uint8), "state.h": np.ones((4, 5), np.float32)})
    np.testing.assert_allclose(scores, np.full(4, 26.0))


class Fixed(nn.Module):
    def forward(self, frames):
        return frames.float().reshape(3 * 4 * 4 * 3).sum()


def test_a_module_that_fixes_a_dimension_is_refused():
    with pytest.raises(ExportError, match=r"Fixed: the graph fixes a free dimension: it fails at \{'T': 1\}"):
        to_onnx_graph(Fixed(), {"frames": torch.zeros(3, 4, 4, 3)}, ["features"], {"frames": {0: "T"}})


def test_a_padding_is_folded_into_the_convolution_behind_it():
    weight = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    pads = np.array([0, 0, 0, 1, 0, 0, 1, 2], np.int64)
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "w"], ["y"], pads=[1, 0, 0, 0], strides=[2, 2]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(pads, "pads")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = np.random.default_rng(0).normal(size=(1, 1, 6, 6)).astype(np.float32)
    before = run(model, x=x)
    assert fold_pads(model, "Conv", 0.0) == 1
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    np.testing.assert_allclose(run(model, x=x), before, atol=1e-6)


@functools.cache
def plain() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The extractor's graph, and quantized."""
    return calibrated(extractor())


def calibrated(module: nn.Module) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    graph = graph_of(module)
    feeds = ({"frames": some_frames(4, seed)} for seed in range(4))
    return graph, quantize_graph(graph, calibrate(graph, feeds, quantized_tensors(graph), 100))


def test_quantized_convolutions_run_in_integers_from_the_bytes_of_the_frames_on(tmp_path):
    _, quantized = plain()
    inner = session(quantized, str(tmp_path / "optimized.onnx"))
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 1 + 2 + 5 * 3
    assert kinds["QLinearAdd"] == 3
    assert not {"Conv", "FusedConv", "QuantizeLinear", "Clip", "Cast"} & set(kinds)
    frames = some_frames(25, 9)
    whole = inner.run(None, {"frames": frames})[0]
    alone = np.concatenate([inner.run(None, {"frames": frame[None]})[0] for frame in frames])
    np.testing.assert_array_equal(whole, alone)


@pytest.mark.parametrize("values", [{}, {"zero_point": (124.0, 116.5, 103.5), "scale": (0.017, 0.0175, 0.0174)}])
def test_quantized_features_stay_near_the_float_ones(values):
    graph, quantized = calibrated(extractor(**values)) if values else plain()
    frames = some_frames(8, 77)
    a, b = run(graph, frames=frames), run(quantized, frames=frames)
    assert b.dtype == np.float32
    assert np.sqrt(((a - b) ** 2).mean() / (a**2).mean()) < 0.12
    assert len(quantized.SerializeToString()) < 0.7 * len(graph.SerializeToString())


def alike(count: int, seed: int) -> np.ndarray:
    """Frames of one scene: all nearly the same picture, whose flat parts integers round in one direction."""
    noise = np.random.default_rng(seed).integers(-4, 5, (count, *SIZE, 3))
    return np.clip(some_frames(1).astype(int) + noise, 0, 255).astype(np.uint8)


def test_the_means_of_frames_that_are_alike_stay_where_they_were():
    graph, quantized = plain()
    clips = [alike(4, seed) for seed in range(6)]
    settled = settle(quantized, graph, clips)
    frames = alike(20, 99)
    wanted, before, after = (run(model, frames=frames).mean((0, 2, 3)) for model in (graph, quantized, settled))
    assert np.abs(after - wanted).mean() < 0.5 * np.abs(before - wanted).mean()
    kept = {tensor.name for tensor in quantized.graph.initializer}
    assert {tensor.name for tensor in settled.graph.initializer} == kept
    assert len(settled.SerializeToString()) == len(quantized.SerializeToString())


def still(seed: int, frames: int = 9) -> np.ndarray:
    """Frames of one picture, whose numbers are off by one at most: what changes is mostly what integers make of it."""
    rng = np.random.default_rng(seed)
    return np.clip(some_frames(1, seed).astype(int) + rng.integers(-1, 2, (frames, *SIZE, 3)), 0, 255).astype(np.uint8)


def test_the_answers_for_still_footage_stay_where_they_were():
    torch.manual_seed(0)
    seen = extractor()
    head = build_head(Head("probe", {"statistics": "deviation"}), seen.feature_shape, 3).eval()
    graph = artifact_graph(ArtifactNetwork(seen, head), SIZE)
    clips = [still(seed) for seed in range(16)]
    quantized = integer_graph(graph, clips)
    settled = settle_answers(quantized, graph, clips)
    answers = next(node.output[0] for node in graph.graph.node if node.op_type == "Gemm")

    def off(seen: list[np.ndarray]) -> list[np.ndarray]:
        """Answers less those in float, (clips, K), before and after."""
        wanted, before, after = (
            np.concatenate([next(iter(run_along(model, [clip], [answers], 9)))[0] for clip in seen])
            for model in (graph, quantized, settled)
        )
        return [before - wanted, after - wanted]

    before, after = (found.mean(0) for found in off(clips))
    errors = off(clips)[0].std(0, ddof=1) / len(clips) ** 0.5
    shared = np.abs(before) > 2 * errors
    assert shared.any() and not shared.all()
    assert (np.abs(after)[shared] < np.abs(before)[shared]).all() and np.abs(after).max() < 0.3 * np.abs(before).max()
    np.testing.assert_allclose(after[~shared], before[~shared], atol=1e-5)  # what may be chance stays
    before, after = off([still(50 + seed) for seed in range(8)])
    assert np.abs(after).mean() < 0.8 * np.abs(before).mean()
    changed = [
        a.name
        for a, b in zip(quantized.graph.initializer, settled.graph.initializer, strict=True)
        if a.SerializeToString() != b.SerializeToString()
    ]
    assert changed == ["head.classify.bias"]


def test_a_head_that_was_trained_on_integers_keeps_its_biases():
    seen = extractor()
    head = build_head(Head("probe", {"statistics": "deviation"}), seen.feature_shape, 3).eval()
    graph = artifact_graph(ArtifactNetwork(seen, head), SIZE)
    clips = [still(seed) for seed in range(3)]
    biases = []
    for knows in (True, False):
        written = shrink_graph(find_chain("int8"), graph, clips, head_of_integers=knows)
        assert not written.metadata_props
        named = {tensor.name: tensor for tensor in written.graph.initializer}
        biases.append(numpy_helper.to_array(named["head.classify.bias"]))
    np.testing.assert_array_equal(biases[0], head.classify.bias.detach().numpy())
    assert not np.array_equal(*biases)


def test_settling_changes_biases_alone_and_not_those_of_layers_that_stay_in_float():
    graph, quantized = plain()
    clips = [alike(4, seed) for seed in range(3)]
    last = "backbone.block5.project.conv.weight"
    kept = quantize_graph(graph, calibrate(graph, [{"frames": clips[0]}], quantized_tensors(graph)), keep=[last])
    for before, after in (
        (quantized, settle(quantized, graph, clips)),
        (kept, settle(kept, graph, clips, keep=[last])),
    ):
        old, new = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (before, after))
        changed = {name for name, value in old.items() if not np.array_equal(value, new[name])}
        assert changed
        assert all(name.endswith("bias.q") and old[name].dtype == np.int32 for name in changed)
        assert any("block5.project" in name for name in changed) == (before is quantized)


def test_what_lies_behind_the_named_tensor_stays_as_it_is():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.extractor, self.head = extractor(), nn.Conv2d(16, 4, 1)
            assert self.extractor.feature_shape[0] == 16

        def forward(self, frames):
            features = self.extractor(frames)
            return self.head(features).mean((2, 3)), features

    frames = torch.zeros(3, *SIZE, 3, dtype=torch.uint8)
    graph = to_onnx_graph(Both(), {"frames": frames}, ["scores", "features"], {"frames": {0: "T"}})
    hide_outputs(graph, ["features"])
    ranges = calibrate(graph, [{"frames": some_frames(4)}], quantized_tensors(graph))
    before = graph.SerializeToString(deterministic=True)
    quantized = quantize_graph(graph, ranges)
    assert graph.SerializeToString(deterministic=True) == before
    names = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    assert names["head.weight"] == TensorProto.FLOAT
    assert names["extractor.backbone.stem.conv.weight.q"] == TensorProto.INT8
    assert run(quantized, frames=some_frames(2)).shape == (2, 4)


def test_missing_ranges_and_tensors_are_errors_that_name_them():
    graph, _ = plain()
    with pytest.raises(ExportError, match=r"no range to quantize .* and \d+ more"):
        quantize_graph(graph, {})
    with pytest.raises(ExportError, match="graph has no tensor 'nothing'"):
        quantized_tensors(graph, "nothing")
    with pytest.raises(ExportError, match="no tensor 'nothing' to calibrate"):
        calibrate(graph, [], ["nothing"])
    with pytest.raises(ExportError, match="at least one clip"):
        calibrate(graph, [], quantized_tensors(graph))


def test_a_channel_of_zeros_with_a_large_offset_is_kept():
    module = extractor()
    with torch.no_grad():
        module.backbone.block5.project.norm.weight[0] = 0.0
        module.backbone.block5.project.norm.bias[0] = 2.0
    graph, quantized = calibrated(module)
    frames = some_frames(2, 5)
    np.testing.assert_allclose(run(quantized, frames=frames)[:, 0], run(graph, frames=frames)[:, 0], atol=0.5)


def test_a_histogram_counts_what_numpy_counts_whatever_the_order():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=1000) * size for size in (1, 8, 3, 40)]
    forwards, backwards = Histogram(), Histogram()
    for part in parts:
        forwards.add(part)
    for part in parts[::-1]:
        backwards.add(part)
    values = np.concatenate(parts)
    assert forwards.limit == backwards.limit
    assert (forwards.low, forwards.high) == (values.min(), values.max())
    assert forwards.counts.sum() == 4000
    exact, _ = np.histogram(values, len(forwards.counts), (-forwards.limit, forwards.limit))
    np.testing.assert_array_equal(forwards.counts, exact)
    np.testing.assert_array_equal(backwards.counts, exact)


@pytest.mark.parametrize("percentile", [PERCENTILE, 100])
def test_ranges_hold_zero_exactly_and_what_they_should_cover(percentile):
    histogram = Histogram()
    histogram.add(np.linspace(-1, 3, 100_001))
    scale, zero_point = histogram.range(percentile)
    assert 0 <= zero_point <= 255
    assert -zero_point * scale == pytest.approx(-1, abs=0.03)
    assert (255 - zero_point) * scale == pytest.approx(3, abs=0.03)


def test_one_far_value_does_not_widen_the_range_where_the_tails_are_cut():
    histogram = Histogram()
    values = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    values[0] = 3.0
    histogram.add(values)
    assert 255 * histogram.range(100)[0] == pytest.approx(3)
    assert 255 * histogram.range(99.9)[0] == pytest.approx(1, abs=0.01)


def test_a_tensor_of_zeros_has_a_range():
    histogram = Histogram()
    histogram.add(np.zeros(10))
    scale, zero_point = histogram.range()
    assert scale > 0
    assert zero_point == 0
    assert range_of(2.0, 3.0) == (pytest.approx(3 / 255), 0)


def test_rounding_a_weight_errs_by_half_a_step_at_most():
    weight = np.random.default_rng(0).normal(size=(1, 6, 50)).astype(np.float32)
    codes, scales = quantize_weight(weight, axis=1)
    assert codes.dtype == np.int8
    assert scales.shape == (1, 6, 1)
    assert (np.abs(weight - codes * scales) <= scales / 2 * (1 + 1e-5)).all()
    again, _ = quantize_weight(codes * scales, axis=1)
    np.testing.assert_array_equal(again, codes)


def test_weights_on_a_lattice_stay_on_it():
    codes = np.array([[-100, 3, 60], [200, -7, 1]], np.float32)
    assert lattice_step(codes * 0.25) == 0.25
    assert lattice_step(np.random.default_rng(0).normal(size=(50, 9))) == 0.0
    assert lattice_step(np.zeros(5)) == 0.0
    found, scales = quantize_weight(codes * 0.25)
    np.testing.assert_array_equal(found[0], codes[0])
    assert scales[0, 0] == 0.25
    assert scales[1, 0] == pytest.approx(50 / 127)  # too large for 127 steps of 0.25


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.out = nn.GRU(40, 24, batch_first=True), nn.Linear(24, 60)
        self.register_buffer("bins", torch.randn(40, 40))

    def forward(self, x, state):
        y, h = self.gru((x @ self.bins).unsqueeze(0), state.unsqueeze(0))
        return self.out(y[0]), h[0]


@functools.cache
def recurrent() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    examples = {"x": torch.randn(3, 40), "state.h": torch.zeros(1, 24)}
    graph = to_onnx_graph(Recurrent(), examples, ["scores", "next_state.h"], {"x": {0: "T"}})
    x = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    return graph, {"x": x, "state.h": np.zeros((1, 24), np.float32)}


def test_stored_weights_keep_their_guarantee_row_by_row_and_no_dequantization_is_left(tmp_path):
    graph, feeds = recurrent()
    stored = store_weights_int8(graph)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.graph.initializer}
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    replaced = [name for name in original if f"{name}.q" in values]
    assert len(replaced) == 4  # W and R of the GRU, the linear, the product
    for name in replaced:
        codes, scales = values[f"{name}.q"].astype(np.float32), values[f"{name}.scale"]
        assert (np.abs(original[name] - codes * scales) <= scales / 2 * (1 + 1e-5)).all()
        if original[name].ndim == 3:
            assert scales.shape == (1, 72, 1)
    assert values["bins.scale"].shape == (1, 40)
    session(stored, str(tmp_path / "optimized.onnx"))
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert not {"DequantizeLinear", "Cast"} & {node.op_type for node in nodes}
    assert not any(name.endswith((".q", ".cast", ".scale")) for node in nodes for name in node.input)
    np.testing.assert_allclose(run(stored, **feeds), run(graph, **feeds), atol=0.05)
    assert len(stored.SerializeToString()) < 0.45 * len(graph.SerializeToString())


def test_half_precision_errs_by_one_part_in_2048():
    graph, feeds = recurrent()
    stored = store_weights_half(graph)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored.graph.initializer}
    for tensor in graph.graph.initializer:
        if f"{tensor.name}.q" in values:
            original = numpy_helper.to_array(tensor)
            error = np.abs(values[f"{tensor.name}.q"].astype(np.float32) - original)
            assert (error <= np.abs(original) / 2048 + 3e-8).all()
    np.testing.assert_allclose(run(stored, **feeds), run(graph, **feeds), atol=2e-3)
    assert len(stored.SerializeToString()) < 0.65 * len(graph.SerializeToString())


def test_small_and_named_weights_are_left_alone():
    graph, _ = recurrent()
    stored = store_weights_int8(graph, skip=("bins",), min_elements=1500)
    names = {tensor.name for tensor in stored.graph.initializer}
    assert "bins" in names
    assert sum(name.endswith(".q") for name in names) == 2  # 24 x 60 = 1440 is small
