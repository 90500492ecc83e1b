"""Steps on the exported graph: kernels in 4 bits, 8 bits within a bound, calibration along the sequence."""

import collections
import functools
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts import session
from vidlet.compression import CLIP_STEPS, find_chain, shrink_graph
from vidlet.compression.blocks import quantize_kernel
from vidlet.compression.calibrate import calibrate, calibrate_along, clip_feeds, run_along, run_inner, zero_states
from vidlet.compression.graph_steps import RESTORED, divergence, narrow_biases, quantize_within, score_loss
from vidlet.compression.kernels import input_moments, round_kernels, round_with_feedback
from vidlet.errors import ExportError, RecipeError
from vidlet.runtime.safety import check_safe

SIZE, CLASSES, HIDDEN = 24, 3, 40


@functools.cache
def artifact() -> onnx.ModelProto:
    """An artifact by the contract: three convolutions (a depthwise between two others), a GRU, a classifier."""
    rng = np.random.default_rng(0)

    def some(*shape: int, size: float | None = None) -> np.ndarray:
        return (rng.normal(size=shape) * (size or np.prod(shape[1:]) ** -0.5)).astype(np.float32)

    stored = {
        "zero": np.float32(0), "six": np.float32(6), "scale": np.float32(1 / 64), "middle": np.float32(128),
        "stem.weight": some(48, 3, 3, 3), "stem.bias": some(48, size=0.3),
        "depth.weight": some(48, 1, 3, 3), "depth.bias": some(48, size=0.3),
        "point.weight": some(96, 48, 1, 1), "point.bias": some(96, size=0.3),
        "head.w": some(1, 3 * HIDDEN, 96), "head.r": some(1, 3 * HIDDEN, HIDDEN),
        "head.b": some(1, 6 * HIDDEN, size=0.1),
        "head.classify": some(HIDDEN, CLASSES, size=2.0),
        "one": np.array([1], np.int64), "zero.axis": np.array([0], np.int64), "pixels": np.array([2, 3], np.int64),
    }  # fmt: skip
    n = helper.make_node
    nodes = [
        n("Transpose", ["frames"], ["pictures"], perm=[0, 3, 1, 2]),
        n("Cast", ["pictures"], ["cast"], to=TensorProto.FLOAT),
        n("Sub", ["cast", "middle"], ["centered"]),
        n("Mul", ["centered", "scale"], ["x"]),
        n("Conv", ["x", "stem.weight", "stem.bias"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        n("Clip", ["a", "zero", "six"], ["a6"]),
        n("Conv", ["a6", "depth.weight", "depth.bias"], ["d"], group=48, pads=[1, 1, 1, 1]),
        n("Clip", ["d", "zero", "six"], ["d6"]),
        n("Conv", ["d6", "point.weight", "point.bias"], ["features"]),
        n("ReduceMean", ["features", "pixels"], ["pooled"], keepdims=0),  # (T, 96)
        n("Unsqueeze", ["pooled", "one"], ["sequence"]),  # (T, 1, 96)
        n("Unsqueeze", ["state.h", "zero.axis"], ["before"]),
        n("GRU", ["sequence", "head.w", "head.r", "head.b", "", "before"], ["", "after"],
          hidden_size=HIDDEN, linear_before_reset=1),
        n("Squeeze", ["after", "zero.axis"], ["next_state.h"]),
        n("MatMul", ["next_state.h", "head.classify"], ["logits"]),
        n("Softmax", ["logits"], ["scores"], axis=1),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("frames", TensorProto.UINT8, ["T", SIZE, SIZE, 3]), value("state.h", TensorProto.FLOAT, [1, HIDDEN])],
        [value("scores", TensorProto.FLOAT, [1, CLASSES]), value("next_state.h", TensorProto.FLOAT, [1, HIDDEN])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@functools.cache
def clips(count: int = 6, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 7, 6, 6, 3), dtype=np.uint8)
    return tuple(np.ascontiguousarray(clip.repeat(4, 1).repeat(4, 2)) for clip in coarse)


def features(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    return next(run_inner(model, [{"frames": frames, **zero_states(model)}], ["features"]))[0]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum() / (a**2).sum()))


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


CHAINS = [
    "int8",
    "int4",
    "half",
    "weights8",
    "codebook",
    "codebook:16+sparse",
    "head4+int8",
    "int4:16+sparse",
    "int8:1",
    "int4+compact",
    "weights8+compact",
]


@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_gives_a_safe_file_that_streams_and_says_nearly_the_same(chain):
    small = shrink_graph(find_chain(chain), artifact(), clips())
    data = small.SerializeToString()
    check_safe(data, "model")
    assert small.ir_version <= 10
    assert {opset.domain for opset in small.opset_import} <= {"", "com.microsoft"}
    streams(data)
    assert len(data) < 0.62 * artifact().ByteSize()
    assert score_loss(artifact(), clips(6, 1))(small) < 0.01


def streams(data: bytes) -> None:
    model = onnx.load_from_string(data)
    for value in (*model.graph.input, *model.graph.output):  # N is fixed to 1 in this small artifact
        assert value.type.tensor_type.shape.dim[0].dim_param in ("T", "")
    whole, states = run_whole(model, clips()[0])
    state = zero_states(model)
    for frame in clips()[0]:
        scores, state = run_whole(model, frame[None], state)
    np.testing.assert_allclose(scores, whole, atol=1e-5)
    assert set(states) == {"state.h"}


def run_whole(model, frames, state=None):
    found = session(model).run(["scores", "next_state.h"], {"frames": frames, **(state or zero_states(model))})
    return found[0], {"state.h": found[1]}


def test_kernels_in_4_bits_run_in_the_integer_kernels_of_8(tmp_path):
    small = CLIP_STEPS["int4"].apply(artifact(), None, clips())
    values = initializers(small)
    assert values["point.weight.q.int4"].nbytes == 96 * 48 // 2
    assert values["depth.weight.q"].dtype == np.int8
    assert values["stem.weight.q"].dtype == np.int8
    assert "head.w.int4" in values
    session(small, str(tmp_path / "optimized.onnx"))
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    assert not {"Conv", "BitShift", "BitwiseAnd", "Gather"} & set(kinds)


@pytest.mark.parametrize("chain", ["int8", "int4", "int8+sparse"])
def test_a_compact_file_says_the_same_to_the_last_bit_in_fewer_bytes(chain, tmp_path):
    large = shrink_graph(find_chain(chain), artifact(), clips())
    small = shrink_graph(find_chain("compact"), large, clips())
    (scores, state), (same, same_state) = run_whole(large, clips()[1]), run_whole(small, clips()[1])
    np.testing.assert_array_equal(scores, same)
    np.testing.assert_array_equal(state["state.h"], same_state["state.h"])
    np.testing.assert_array_equal(features(large, clips()[0]), features(small, clips()[0]))
    names = initializers(small)
    assert "point.weight.q" in names or "point.weight.q.int4" in names
    assert not any(name.endswith("bias.scale") for name in names)
    assert large.ByteSize() - small.ByteSize() > 1000
    session(small, str(tmp_path / "optimized.onnx"))
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    twice = shrink_graph(find_chain("compact"), small, clips())
    assert twice.ByteSize() <= small.ByteSize()


def test_biases_that_fit_16_bits_are_stored_in_them_and_others_are_not():
    values = {"small": np.arange(-300, 300, dtype=np.int32), "large": np.arange(0, 60_000_000, 100_000, dtype=np.int32)}
    nodes = [helper.make_node("Add", list(values), ["sum"])]
    made = [helper.make_tensor_value_info("sum", TensorProto.INT32, [600])]
    stored = [numpy_helper.from_array(array, name) for name, array in values.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [], made, stored), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    found = initializers(narrow_biases(model))
    assert {name: array.dtype.name for name, array in found.items()} == {"small.q": "int16", "large": "int32"}
    np.testing.assert_array_equal(session(narrow_biases(model)).run(None, {})[0], values["small"] + values["large"])


def test_errors_that_later_weights_make_up_for_are_smaller_in_what_comes_out():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(5000, 16)) @ rng.normal(size=(16, 64)) + 0.3 * rng.normal(size=(5000, 64))
    kernel = rng.normal(size=(32, 64, 1, 1)).astype(np.float32)
    covariance = np.cov(inputs.T, bias=True)

    def error(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
        lost = (kernel - codes * scales).reshape(32, 64)
        return (inputs @ lost.T).var(0)

    plain, learned = error(*quantize_kernel(kernel)), error(*round_with_feedback(kernel, covariance))
    assert (learned <= plain * (1 + 1e-6)).all()
    assert learned.sum() < 0.5 * plain.sum()


def test_moments_are_those_of_all_positions():
    feeds = list(clip_feeds(artifact(), clips(3)))
    found = input_moments(artifact(), {"p": "d6"}, iter(feeds))["p"]
    every = np.concatenate([values[0] for values in run_inner(artifact(), feeds, ["d6"])])
    flat = every.transpose(1, 0, 2, 3).reshape(48, -1).astype(np.float64)
    np.testing.assert_allclose(found.mean, flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(flat, bias=True), atol=1e-4)


def test_rounded_kernels_keep_the_mean_of_what_comes_out():
    feeds = list(clip_feeds(artifact(), clips()))
    rounded = round_kernels(artifact(), iter(feeds))
    assert list(rounded.codes) == ["point.weight"]
    frames = np.concatenate([feed["frames"] for feed in feeds])
    a, b = features(artifact(), frames), features(rounded.model, frames)
    np.testing.assert_allclose(b.mean((0, 2, 3)), a.mean((0, 2, 3)), atol=1e-5)
    assert 0 < distance(a, b) < 0.1
    codes, scales = rounded.codes["point.weight"]
    np.testing.assert_array_equal(initializers(rounded.model)["point.weight"], codes * scales)


def test_layers_are_restored_until_the_loss_is_within_the_bound():
    loss = score_loss(artifact(), clips(4, 1))
    plain = quantize_within(artifact(), 1.0, clips(), loss)
    assert plain.restored == ()
    assert plain.losses == (loss(CLIP_STEPS["int8"].apply(artifact(), None, clips())),)
    some = quantize_within(artifact(), plain.losses[0] / 4, clips(), loss)
    assert 1 <= len(some.restored) < 5
    assert some.losses[1] <= plain.losses[0] / 4 < some.losses[0] == plain.losses[0]
    assert loss(some.model) == some.losses[-1]
    values = initializers(some.model)
    for name in some.restored:
        assert f"{name}.scale" not in values
    least = quantize_within(artifact(), 1e-12, clips(), loss)
    assert set(least.restored) == {"stem.weight", "depth.weight", "point.weight", "head.w", "head.r"}
    assert initializers(least.model)["head.w.q"].dtype == np.float16


def test_a_bound_of_the_step_int8_leaves_the_names_of_restored_layers_in_the_file():
    loss = quantize_within(artifact(), 1.0, clips()).losses[0]
    small = CLIP_STEPS["int8"].apply(artifact(), loss / 4, clips())
    entry = next(entry for entry in small.metadata_props if entry.key == RESTORED)
    told = json.loads(entry.value)
    assert told["layers"]
    assert set(told["layers"]) <= {"stem.weight", "depth.weight", "point.weight", "head.w", "head.r"}
    assert told["losses"][1] <= loss / 4 < told["losses"][0]
    check_safe(small.SerializeToString(), "model")


def test_divergence_is_zero_for_equal_scores_and_counts_opposites_of_many_labels():
    p = np.array([[0.5, 0.5]], np.float32)
    assert divergence(p, p) == 0
    assert divergence(p, np.array([[0.25, 0.75]])) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    many = np.array([[0.5, 0.9]])
    assert divergence(many, np.array([[0.25, 0.9]])) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_along_the_sequence_a_state_is_seen_as_it_grows():
    whole = np.stack([values[0] for values in run_along(artifact(), clips()[:1], ["after"])])  # (T, 1, 1, HIDDEN)
    state = zero_states(artifact())
    for frame, seen in zip(clips()[0], whole, strict=True):
        _, state = run_whole(artifact(), frame[None], state)
        np.testing.assert_allclose(seen[0], state["state.h"], atol=1e-6)
    along = calibrate_along(artifact(), clips(), ["logits", "after"], 100)
    still = calibrate(artifact(), clip_feeds(artifact(), (clip[:1] for clip in clips()), 1), ["logits", "after"], 100)
    assert along["after"][0] > 1.2 * still["after"][0]  # from zeros the first frame says less
    wide = calibrate_along(artifact(), clips(), ["after"], 100, chunk=3)["after"]
    assert wide[0] <= along["after"][0]


def test_calibration_along_nothing_is_an_error():
    with pytest.raises(ExportError, match="at least one clip"):
        calibrate_along(artifact(), [], ["logits"])


def test_amounts_that_make_no_sense_are_refused():
    with pytest.raises(RecipeError, match="codebook has 16 or 256 entries, got 20"):
        CLIP_STEPS["codebook"].apply(artifact(), 20.0, ())
    with pytest.raises(RecipeError, match=r"whole number from 2, got 2\.5"):
        CLIP_STEPS["int4"].apply(artifact(), 2.5, ())


def test_the_head_alone_in_4_bits_leaves_the_extractor_as_it_is():
    small = CLIP_STEPS["head4"].apply(artifact(), None, ())
    values = initializers(small)
    assert {name for name in values if name.endswith(".int4")} == {"head.w.int4", "head.r.int4"}
    np.testing.assert_array_equal(features(small, clips()[0]), features(artifact(), clips()[0]))
