"""A detector's file: its boxes are those of the network, suppressed by the stated rule, of the last frame only."""

import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import artifacts
import vidlet
from vidlet.artifact.detector import (
    MAP,
    MOST_OVERLAP,
    broken_rule,
    check_boxes,
    detector_graph,
    detector_metadata,
    suppress,
    torch_boxes,
    write_detector,
)
from vidlet.compression.box_graph import int8_boxes
from vidlet.errors import DataError, ModelError, ParityError
from vidlet.metrics import overlaps
from vidlet.models.detector import build_detector
from vidlet.recipe import Extractor, recipe_from_dict
from vidlet.runtime import read_metadata

ANCHORS = np.array([[0.2, 0.3], [0.5, 0.4], [0.3, 0.7]])
LABELS = ("cat", "dog")
SIZE = (64, 96)


def random_detector(name, seed=0):
    torch.manual_seed(seed)
    config = (
        Extractor(name, 0.1, SIZE, "", 0, "none")
        if "yolo" in name
        else Extractor(name, 0.35, SIZE, "block6", 0, "none")
    )
    detector = build_detector(config, LABELS, ANCHORS)
    torch.nn.init.normal_(detector.network.predict.weight, std=0.3)
    torch.nn.init.normal_(detector.network.predict.bias, std=1.5)
    return detector


@pytest.fixture(scope="module", params=["tiny-yolov2", "mobilenetv2"])
def made(request):
    """A detector with random weights and its graph."""
    detector = random_detector(request.param)
    return detector, detector_graph(detector)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    return np.stack([np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))) for _ in range(4)]).astype(np.uint8)


@pytest.fixture
def model(made, frames, tmp_path):
    detector, graph = made
    recipe = recipe_from_dict({"name": "test"})
    metadata = detector_metadata(recipe, LABELS, {"weights": "none"}, detector.anchors.numpy())
    write_detector(graph, tmp_path / "model.onnx", metadata, frames, torch_boxes(detector))
    return tmp_path / "model.onnx"


def test_the_file_gives_the_networks_boxes_of_the_last_frame(made, model, frames):
    detector, _ = made
    loaded = vidlet.load(model)
    places, scores = torch_boxes(detector)(frames)
    expected = suppress(places, scores)
    found = loaded.run(frames).boxes
    assert len(found) > 5 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found, loaded.run(frames[-1:]).boxes)
    assert loaded.box_labels == LABELS and loaded.labels == () and loaded.run(frames).scores.shape == (1, 0)
    assert (found[:, 4] >= 0.001).all() and (np.diff(found[:, 4]) <= 0).all()


def test_the_graph_is_pools_and_convolutions_without_paddings_of_their_own(made):
    kinds = [node.op_type for node in made[1].graph.node]
    assert "Pad" not in kinds and "BatchNormalization" not in kinds and kinds.count("NonMaxSuppression") == 1
    (boxes,) = made[1].graph.output
    assert boxes.name == "boxes"


def test_suppression_by_hand_and_by_its_rule():
    places = np.array([[0, 0, 0.5, 0.5], [0.05, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [0, 0, 0.1, 0.1]], np.float32)
    scores = np.array([[0.6, 0.9, 0.5, 0.0005], [0.7, 0.1, 0.0, 0.001]], np.float32)
    found = suppress(places, scores)
    assert found[:, 4].tolist() == [np.float32(v) for v in (0.9, 0.7, 0.5, 0.001)]
    assert found[:, 5].tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(found[:, :4], places[[1, 0, 2, 3]])
    for label in (0, 1):
        own = found[found[:, 5] == label, :4]
        assert (overlaps(own, own) - np.eye(len(own)) <= MOST_OVERLAP).all()


def test_a_choice_of_boxes_that_breaks_the_rule_is_told():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.6, (200, 2))
    places = np.hstack([low, low + rng.uniform(0.1, 0.4, (200, 2))]).astype(np.float32)
    scores = rng.random((2, 200)).astype(np.float32) ** 4
    found = suppress(places, scores)
    assert len(found) > 20 and broken_rule(found, places, scores) == ""
    assert "is missing" in broken_rule(found[1:], places, scores)
    assert "is none of the network's" in broken_rule(found + np.float32([0.001, 0, 0.001, 0, 0, 0]), places, scores)
    both = suppress(places, scores, most_overlap=0.9)
    assert "overlap by" in broken_rule(both, places, scores)
    many = suppress(places, scores, most_overlap=1.0)  # 100 a class
    assert len(many) == 200 and (many[:, 5] == 0).sum() == 100


def test_a_frame_in_which_nothing_is_found_has_no_boxes(frames, tmp_path):
    detector = random_detector("tiny-yolov2")
    with torch.no_grad():
        detector.network.predict.bias.view(3, 7)[:, 4] = -60
        detector.network.predict.weight.view(3, 7, -1)[:, 4] = 0
    graph = detector_graph(detector)
    write_detector(graph, tmp_path / "m.onnx", detector_metadata(recipe_from_dict({"name": "t"}), LABELS, {}, ANCHORS),
                   frames, torch_boxes(detector))  # fmt: skip
    assert vidlet.load(tmp_path / "m.onnx").run(frames).boxes.shape == (0, 6)


def test_a_file_that_differs_from_its_network_is_not_written(made, frames, tmp_path):
    detector, graph = made
    other = random_detector(detector.plan.name, seed=1)
    with pytest.raises(ParityError, match="file and network"):
        write_detector(graph, tmp_path / "m.onnx", {}, frames, torch_boxes(other))
    assert not (tmp_path / "m.onnx").exists()
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    overlap = next(tensor for tensor in wrong.graph.initializer if tensor.name == "nms.overlap")
    overlap.CopyFrom(onnx.numpy_helper.from_array(np.array([0.01], np.float32), "nms.overlap"))
    with pytest.raises(ParityError, match="by the rule"):
        check_boxes(wrong, frames)


def test_integers_after_training_keep_the_contract_and_the_last_convolution_in_float(made, frames):
    _, graph = made
    quantized = int8_boxes(graph, list(frames))
    check_boxes(quantized, frames)
    last = next(node for node in quantized.graph.node if MAP in node.output)
    stored = {tensor.name: tensor.data_type for tensor in quantized.graph.initializer}
    assert last.op_type == "Conv" and stored[last.input[1]] == onnx.TensorProto.FLOAT
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv" and node is not last]
    makers = {name: node for node in quantized.graph.node for name in node.output}
    assert convolutions and all(makers[node.input[1]].op_type == "DequantizeLinear" for node in convolutions)


def test_detect_takes_files_and_pictures_of_any_size_and_says_what_it_cannot(model, frames, tmp_path):
    loaded = vidlet.load(model)
    Image.fromarray(frames[0]).resize((240, 100)).save(tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(loaded.detect(tmp_path / "a.png"), loaded.detect(picture))
    np.testing.assert_array_equal(loaded.detect(frames[0]), loaded.run(frames[:1]).boxes)
    with pytest.raises(DataError, match="must be uint8"):
        loaded.detect(picture.astype(np.float32))
    (tmp_path / "b.png").write_text("no")
    with pytest.raises(DataError, match="not a readable image"):
        loaded.detect(tmp_path / "b.png")
    with pytest.raises(ModelError, match="names no clips"):
        loaded.classify(tmp_path / "a.png")


def test_a_stream_gives_boxes_and_the_metadata_say_what_they_are(model, frames, tmp_path):
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{i}.png")
    moments = list(vidlet.load(model).stream(tmp_path))
    assert moments and all(moment.boxes.shape[1] == 6 and moment.scores == {} for moment in moments)
    metadata = read_metadata(model)
    assert metadata["box_labels"] == list(LABELS) and metadata["labels"] == []
    assert json.loads(json.dumps(metadata)) == metadata


def test_a_classifier_has_no_boxes(tmp_path):
    artifacts.save(artifacts.classifier(), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="no detector"):
        vidlet.load(tmp_path / "model.onnx").detect(np.zeros((8, 8, 3), np.uint8))
