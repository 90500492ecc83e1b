"""Compression steps of detectors: the file computes what training simulated, and integers begin with the bytes."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import steps_material
import vidlet
from artifacts import session
from boxes_case import OVERRIDES, write_squares
from vidlet.artifact.detector import MAP, detector_graph
from vidlet.compression import boxes_graph, find_box_chain
from vidlet.compression.box_graph import int8_boxes
from vidlet.compression.box_qat import SimulatedBoxes, deepeye_boxes, picture_batches, qat_boxes, tune_boxes
from vidlet.compression.material import BoxMaterial, TrainedBoxes, tune
from vidlet.datasets import read_boxes, with_box_splits
from vidlet.errors import RecipeError, TrainingError
from vidlet.models.detector import build_detector
from vidlet.onnx_graph import pool_before_rectifying
from vidlet.recipe import Averaging, Extractor, Training
from vidlet.training.box_batches import BoxClips
from vidlet.training.region_loss import WARM_IMAGES, RegionWeights, region_loss

SIZE = (64, 64)


def run(graph, frames, tensor=MAP):
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    probe.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return session(probe).run([tensor], {"frames": frames})[0]


def detector(name="tiny-yolov2"):
    torch.manual_seed(0)
    config = Extractor(name, 0.1, SIZE, "block6" if name == "mobilenetv2" else "block12", 0, "none")
    found = build_detector(config, ["red", "green"], np.array([[0.2, 0.3], [0.4, 0.4]]))
    nn.init.normal_(found.network.predict.weight, std=0.3)
    return found


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("steps") / "squares")


@pytest.fixture(scope="module")
def material(squares):
    table = with_box_splits(read_boxes(squares))
    train, val = BoxClips(table.of_split("train"), SIZE, larger=True), BoxClips(table.of_split("val"), SIZE)
    return BoxMaterial(
        Training(epochs=8, batch=8, augment={"flip": 0.5, "scales": 1}, averaging=Averaging(0.9)), train, val
    )


def frames(material):
    return np.stack(material.pictures()[:1])


def test_a_rectifier_behind_the_pooling_gives_the_same_numbers(material):
    graph = detector_graph(detector())
    swapped = pool_before_rectifying(graph)
    kinds = [node.op_type for node in swapped.graph.node if node.op_type in ("LeakyRelu", "MaxPool")]
    assert kinds == ["MaxPool", "LeakyRelu"] * 6 + ["LeakyRelu"] * 2
    np.testing.assert_array_equal(run(swapped, frames(material)), run(graph, frames(material)))


def test_the_last_convolution_stays_in_float(material):
    graph = detector_graph(detector())
    quantized = int8_boxes(graph, material.pictures())
    stored = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    floats = [stored.get(node.input[1]) == onnx.TensorProto.FLOAT for node in convolutions]
    assert floats == [False] * 8 + [True]


@pytest.mark.parametrize(
    ("name", "moves"), [("tiny-yolov2", ["Reshape", "Slice", "Transpose"]), ("mobilenetv2", ["Slice", "Transpose"])]
)
def test_the_first_convolution_reads_the_bytes_of_the_frame(material, name, moves):
    graph = detector_graph(detector(name))
    quantized = int8_boxes(graph, material.pictures())
    makers = {made: node for node in quantized.graph.node for made in node.output}
    first = next(node for node in quantized.graph.node if node.op_type == "Conv")
    dequantize = makers[first.input[0]]
    path = [dequantize.op_type]
    tensor = dequantize.input[0]
    while tensor in makers:
        path.append(makers[tensor].op_type)
        tensor = makers[tensor].input[0]
    assert tensor == "frames" and sorted(path[1:]) == moves and path[0] == "DequantizeLinear"
    gap = np.abs(run(quantized, frames(material)) - run(graph, frames(material))).max()
    assert gap < 0.1 * np.abs(run(graph, frames(material))).max()


def test_deepeyes_file_has_the_map_of_the_network_that_was_trained(material):
    before = {name: value.clone() for name, value in detector().state_dict().items()}
    start = detector()
    trained = deepeye_boxes(TrainedBoxes(start), None, material)
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name]), f"the step changed {name} of the detector it was given"
    graph = boxes_graph(find_box_chain("deepeye", "tiny-yolov2"), trained, material.pictures())
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("QLinearConv") == 8 and kinds.count("ConvInteger") == 1 and "Conv" not in kinds
    with torch.no_grad():
        expected = trained.computed.maps(torch.from_numpy(frames(material))).numpy()
    np.testing.assert_allclose(run(graph, frames(material)), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny-yolov2", pytest.param("mobilenetv2", marks=pytest.mark.slow)])
def test_the_standard_steps_file_computes_what_was_simulated(name, material):
    start = detector(name)
    simulated = SimulatedBoxes(start, material.pictures()).eval()
    trained = qat_boxes(TrainedBoxes(start), 1, material)
    graph = boxes_graph(find_box_chain("qat+int8", name), trained, material.pictures())
    again = SimulatedBoxes(trained.detector, material.pictures()).eval()
    assert set(again.body.ranges()) == set(trained.ranges) == set(simulated.body.ranges())
    for key, parameter in again.body.log_steps.items():  # what was learned, into a simulation of the weights written
        layer = again.body.layers[key.replace("/", ".")]
        parameter.data.fill_(np.log(trained.ranges[layer][0]))
        again.body.zero_points[key.replace("/", ".")] = trained.ranges[layer][1]
    with torch.no_grad():
        expected = again(picture_batches(start, list(frames(material)))[0])[:1].numpy()
        float_map = start.maps(torch.from_numpy(frames(material))).numpy()
    found = run(graph, frames(material))
    spread = np.abs(expected).std()
    assert np.abs(found - expected).mean() < 0.02 * spread, "file and simulation differ"
    assert np.abs(found - float_map).mean() > 1e-6, "training left everything as it was"


def test_train_and_compress_write_a_file_for_each_chain(squares, tmp_path):
    overrides = OVERRIDES | {"compress": ["int8", "qat:1+int8"], "training.epochs": 1}
    result = vidlet.train(squares, "tiny-yolov2", tmp_path / "run", overrides)
    assert {"model.onnx", "model.int8.onnx", "model.qat1-int8.onnx"} <= set(result["files"])
    again = vidlet.compress(tmp_path / "run", squares, "deepeye:1")
    figures = again["metrics"]["files"]["model.deepeye1.onnx"]
    assert 0 <= figures["map50"] <= 1 and figures["difference"]["against"] == "model.onnx"
    assert figures["bytes"] == (tmp_path / "run" / "model.deepeye1.onnx").stat().st_size
    assert figures["bytes"] < 0.6 * result["files"]["model.onnx"]
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())["files"]
    assert set(stored) == {"model.onnx", "model.int8.onnx", "model.qat1-int8.onnx", "model.deepeye1.onnx"}
    model = vidlet.load(tmp_path / "run" / "model.deepeye1.onnx")
    assert model.metadata["recipe"]["compress"] == ["deepeye:1"]
    assert {row["what"] for row in model.metadata["evidence"]} >= {"map50, split test"}
    with pytest.raises(RecipeError, match="deepeye takes a chain of convolutions"):
        find_box_chain("deepeye", "mobilenetv2")
    with pytest.raises(RecipeError, match="computes in 8 bits by itself"):
        find_box_chain("deepeye+int8", "tiny-yolov2")
    with pytest.raises(RecipeError, match="int8 of a detector has no amount"):
        vidlet.compress(tmp_path / "run", squares, "int8:2")


def test_boxes_that_were_learned_are_not_drawn_to_the_anchors_again(material, monkeypatch):
    pulls = []

    def loss(maps, targets, anchors, seen, weights):
        pulls.append(seen < WARM_IMAGES and (weights or RegionWeights()).anchors)
        return region_loss(maps, targets, anchors, seen, weights)

    monkeypatch.setattr("vidlet.training.detection.region_loss", loss)
    tune_boxes(detector(), 1, material, 0.1)
    assert pulls and not any(pulls)


def test_steps_train_on_the_device_that_was_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr("vidlet.compression.box_qat.fit_detector", lambda *_, device, **told: seen.append(device))
    for device in ("cpu", "cuda"):
        tune_boxes(None, 1, BoxMaterial(Training(), None, None, device), 0.1)
    assert seen == ["cpu", "cuda"]
    with pytest.raises(TrainingError, match="--device nowhere"):
        tune(steps_material.trained(), replace(steps_material.material(), device="nowhere"))
