"""DEEPEYE's pipeline: a detector's file and a head on its map in one file, which gives boxes and the action."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import vidlet
from boxes_case import OVERRIDES, write_squares
from vidlet.artifact.classifier import check_same_boxes, pipeline_graph
from vidlet.errors import ParityError, RecipeError, WeightsError
from vidlet.models.detector_file import DetectorFile
from vidlet.models.extractors import build_extractor
from vidlet.models.heads import build_head
from vidlet.models.tt_heads import group_last, map_modes
from vidlet.recipe import Extractor, Head, load_recipe

SIZE = [64, 64]


@pytest.fixture(scope="module")
def detector_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("boxes")
    data = write_squares(root / "squares")
    overrides = OVERRIDES | {"compress": ["deepeye:1"], "training.epochs": 1}
    vidlet.train(data, "tiny-yolov2", root / "run", overrides)
    return root / "run"


@pytest.fixture(scope="module")
def run(detector_run, motion_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    overrides = {
        "extractor.weights": str(detector_run),
        "extractor.input_size": SIZE,
        "head.options": {"groups": 0, "out_modes": [2, 2, 2, 2], "ranks": [2], "recurrent_ranks": [2]},
        "training.epochs": 2,
        "training.augment": {"redraw": 2},
    }
    return folder, vidlet.train(motion_clips, "deepeye", folder, overrides)


def frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_the_papers_map_gets_the_papers_modes_and_order():
    assert map_modes("tt-lstm", (425, 19, 19), ()) == (25, (17, 19, 19, 25))
    assert map_modes("tt-lstm", (75, 7, 7), ()) == (15, (5, 7, 7, 15))
    maps = torch.arange(425 * 4.0).reshape(1, 1, 425, 2, 2)
    flat = group_last(maps, 25).reshape(17, 2, 2, 25)
    assert flat[3, 1, 0, 7] == maps[0, 0, 7 * 17 + 3, 1, 0]


def test_both_mappings_of_the_recipe_are_tensor_trains_and_the_ablations_is_one():
    plan = load_recipe("deepeye")
    head = build_head(plan.head, (425, 19, 19), 11)
    ablation = load_recipe("deepeye", {"head.options.recurrent_ranks": []})
    both = sum(p.numel() for p in head.rnn.parameters())
    one = sum(p.numel() for p in build_head(ablation.head, (425, 19, 19), 11).rnn.parameters())
    assert both < 10_000 and one > 256 * 1024  # the recurrent matrix of 256 units, dense
    assert head.dropout == head.recurrent_dropout == 0.25
    assert plan.sampling.rule == "uniform" and plan.sampling.frames == 6 and "redraw" in plan.training.augment


@pytest.mark.parametrize("name", ["model.onnx", "model.deepeye1.onnx"])
def test_the_extractor_gives_the_maps_of_the_detectors_own_file(name, detector_run):
    extractor = DetectorFile(detector_run / name)
    assert extractor.feature_shape == (14, 2, 2) and extractor.box_labels == ("red", "green")
    several = extractor(torch.from_numpy(frames(3)))
    single = torch.cat([extractor(torch.from_numpy(frame[None])) for frame in frames(3)])
    torch.testing.assert_close(several, single, atol=1e-5, rtol=0)
    graph = onnx.load(str(detector_run / name))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, None))
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(["map"], {"frames": frames(3)})[0]
    np.testing.assert_allclose(several[-1:].numpy(), expected, atol=1e-5)


def test_one_file_gives_the_detectors_boxes_and_the_action_in_one_pass(run, detector_run):
    folder, result = run
    model = vidlet.load(folder / "model.onnx")
    detector = vidlet.load(detector_run / "model.onnx")
    assert model.labels and model.box_labels == ("red", "green") and set(model.state_spec) == {"h", "c"}
    clip = frames(5)
    whole = model.run(clip)
    state = None
    for frame in clip:
        step = model.run(frame[None], state)
        state = step.state
        np.testing.assert_array_equal(step.boxes, detector.run(frame[None]).boxes)
    np.testing.assert_allclose(step.scores, whole.scores, atol=1e-5)
    np.testing.assert_allclose(step.boxes, whole.boxes, atol=1e-5)
    convolutions = [node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node].count("Conv")
    assert convolutions == 9, "the detector must run once a frame"
    three = model.run(clip, model.zero_state(3))
    np.testing.assert_allclose(three.scores, np.repeat(whole.scores, 3, 0), atol=1e-5)
    assert result["files"]["model.int8.onnx"] < 0.7 * result["files"]["model.onnx"]
    small = vidlet.load(folder / "model.int8.onnx")
    assert small.run(clip).boxes.shape[1] == 6 and small.run(clip).scores.shape == whole.scores.shape


def test_the_defaults_head_stands_on_an_8_bit_detector_too(detector_run, motion_clips, tmp_path):
    small = detector_run / "model.deepeye1.onnx"
    overrides = {"extractor.weights": str(small), "extractor.input_size": SIZE, "training.epochs": 1, "compress": []}
    vidlet.train(motion_clips, "detector-grid-gru", tmp_path / "run", overrides)
    model = vidlet.load(tmp_path / "run" / "model.onnx")
    clip, state = frames(5), None
    for frame in clip:
        step = model.run(frame[None], state)
        state = step.state
        np.testing.assert_array_equal(step.boxes, vidlet.load(small).run(frame[None]).boxes)
    np.testing.assert_allclose(step.scores, model.run(clip).scores, atol=1e-5)


def test_the_commands_take_the_file(run, motion_clips):
    folder, result = run
    found = vidlet.evaluate(folder / "model.onnx", motion_clips)
    assert found["accuracy"] == result["metrics"]["accuracy"]
    inside = vidlet.inspect(folder / "model.onnx")
    assert {value["name"] for value in inside["outputs"]} == {"scores", "boxes", "next_state.h", "next_state.c"}
    assert {part["part"] for part in inside["parts"]} == {"extractor", "head"}
    assert vidlet.benchmark(folder / "model.int8.onnx", seconds=0.2)["frame_ms"]["p50"] > 0
    provenance = vidlet.load(folder / "model.onnx").metadata["provenance"]
    assert provenance["weights"] == "detector" and len(provenance["sha256"]) == 64


def test_an_8_bit_detector_stays_as_it_is_and_runs_in_integers(detector_run):
    extractor = DetectorFile(detector_run / "model.deepeye1.onnx")
    head = build_head(Head("tt-lstm", {"groups": 0, "out_modes": [2, 2], "in_modes": [7, 8]}), (14, 2, 2), 3)
    graph = pipeline_graph(extractor, head)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("QLinearConv") == 8 and "Conv" not in kinds
    check_same_boxes(graph, extractor, frames(3))
    other = DetectorFile(detector_run / "model.onnx")
    with pytest.raises(ParityError, match="not those of the detector's own file"):
        check_same_boxes(graph, other, frames(3))


def test_what_cannot_be_an_extractor_is_said(detector_run, run, tmp_path):
    def build(weights, size=(64, 64), grid=0):
        return build_extractor(Extractor("detector", 1.0, size, "map", grid, str(weights)))

    with pytest.raises(RecipeError, match="must be the run folder of a detector"):
        build("none")
    with pytest.raises(WeightsError, match="no such file, or no finished run"):
        build(tmp_path)
    with pytest.raises(RecipeError, match=r"takes frames of 64 x 64: --set extractor.input_size=\[64,64\]"):
        build(detector_run, (96, 96))
    with pytest.raises(WeightsError, match="not the file of a detector alone"):
        build(run[0] / "model.onnx")
    (tmp_path / "broken.onnx").write_bytes((detector_run / "model.onnx").read_bytes()[:5000])
    with pytest.raises(WeightsError):
        build(tmp_path / "broken.onnx")
    assert isinstance(build(detector_run / "model.onnx").backbone, nn.Identity)
