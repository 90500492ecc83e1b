"""tiny-YOLOv2 layer for layer, the meaning of its map, its anchors, and detectors that are stored and read again."""

import numpy as np
import pytest
import torch

from vidlet.errors import DataError, RecipeError, WeightsError
from vidlet.models.detector import (
    build_detector,
    detector_state,
    load_detector,
)
from vidlet.models.region import box_overlaps, corners, decode, kmeans_anchors, shape_overlaps
from vidlet.models.tiny_yolo import COCO_ANCHORS, VOC_ANCHORS, LeakyBlock, TinyYolo
from vidlet.recipe import Extractor

SMALL = Extractor("tiny-yolov2", 0.1, (64, 96), weights="none")
ANCHORS = np.array([[0.1, 0.2], [0.4, 0.3]])


def values(network):
    """Numbers that darknet stores: weights, biases, and four a normalized channel."""
    return sum(v.numel() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked"))


def test_the_voc_network_has_the_values_of_the_paper():
    with torch.device("meta"):
        network = TinyYolo(20)
    convolutions = sum(block.conv.weight.numel() for block in network.blocks) + network.predict.weight.numel()
    normalized = 4 * sum(network.channels)
    assert (convolutions, normalized, network.predict.bias.numel()) == (15_855_536, 12_224, 125)
    assert values(network) == 15_867_885 and 4 * values(network) == 63_471_540
    assert convolutions + 4 * (normalized + 125) == 15_904_932  # int8 weights, the rest in float32


@pytest.mark.parametrize(("last", "megabytes"), [(512, 44.95), (1024, 64.70)])
def test_the_two_coco_heads_have_the_sizes_of_the_paper(last, megabytes):
    with torch.device("meta"):
        network = TinyYolo(80, channels=(16, 32, 64, 128, 256, 512, 1024, last))
    assert network.out_channels == 425 and round(4e-6 * values(network), 2) == megabytes


@pytest.mark.parametrize(("size", "cells"), [((416, 416), (13, 13)), ((608, 608), (19, 19)), ((208, 300), (7, 10))])
def test_the_map_has_darknets_sides(size, cells):
    network = TinyYolo(2, width=0.05)
    assert network.map_size(*size) == cells
    assert network(torch.zeros(1, 3, *size)).shape == (1, 5 * 7, *cells)


def test_the_pooling_of_stride_one_looks_below_and_to_the_right_only():
    block = LeakyBlock(1, 1, pool=1).eval()
    with torch.no_grad():
        block.conv.weight.zero_()
        block.conv.weight[0, 0, 1, 1] = 1  # the identity
    x = torch.tensor([[[[5.0, 1.0], [2.0, -4.0]]]])
    expected = torch.tensor([[[[5.0, 1.0], [2.0, -0.4]]]])  # leaky .1; beyond the border stands minus infinity
    torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)


def test_a_block_is_convolution_normalization_and_a_slope_of_a_tenth():
    block = LeakyBlock(3, 8, pool=2).eval()
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 6, 6)
    y = torch.conv2d(x, block.conv.weight, padding=1)
    y = (y - block.norm.running_mean[:, None, None]) / (block.norm.running_var[:, None, None] + 1e-5).sqrt()
    y = torch.where(y > 0, y, 0.1 * y).unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    torch.testing.assert_close(block(x), y, atol=1e-5, rtol=1e-5)


def test_decoding_by_hand():
    maps = torch.zeros(1, 2 * 7, 2, 4)  # two anchors, two classes, 2 x 4 cells
    a, row, column = 1, 1, 3
    maps[0, a * 7 : a * 7 + 7, row, column] = torch.tensor([0.0, 2.0, np.log(2.0), 0.0, 1.0, 3.0, 1.0])
    boxes, scores = decode(maps, torch.tensor([[1.0, 1.0], [0.5, 1.5]]))
    at = a * 8 + row * 4 + column
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    np.testing.assert_allclose(boxes[0, at], [3.5 / 4, (1 + sigmoid(2)) / 2, 2 * 0.5 / 4, 1.5 / 2], atol=1e-6)
    share = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(scores[0, at], [sigmoid(1) * share, sigmoid(1) * (1 - share)], atol=1e-6)
    assert boxes.shape == (1, 16, 4) and scores.shape == (1, 16, 2)
    np.testing.assert_allclose(corners(boxes)[0, at], [0.75, 0.565399, 1, 1], atol=1e-5)


def test_overlaps_of_boxes_and_of_shapes_by_hand():
    a, b = torch.tensor([[0.5, 0.5, 1.0, 1.0]]), torch.tensor([[1.0, 0.5, 1.0, 1.0], [5.0, 5.0, 1.0, 1.0]])
    torch.testing.assert_close(box_overlaps(a, b), torch.tensor([[1 / 3, 0.0]]))
    np.testing.assert_allclose(shape_overlaps(np.array([[2.0, 1.0]]), np.array([[1.0, 1.0], [2, 2]])), [[0.5, 0.5]])


def test_anchors_find_the_clusters_they_were_drawn_from():
    rng = np.random.default_rng(0)
    centers = np.array([[0.05, 0.08], [0.2, 0.1], [0.3, 0.5]])
    sizes = np.concatenate([c * rng.uniform(0.95, 1.05, (60, 2)) for c in centers])
    np.testing.assert_allclose(kmeans_anchors(sizes, 3), centers, rtol=0.02)
    assert (kmeans_anchors(sizes, 3) == kmeans_anchors(sizes, 3)).all()
    many = kmeans_anchors(sizes, 5)
    assert shape_overlaps(sizes, many).max(1).mean() > shape_overlaps(sizes, centers).max(1).mean()
    np.testing.assert_allclose(kmeans_anchors(np.array([[0.1, 0.2]] * 9), 5), [[0.1, 0.2]])
    with pytest.raises(DataError, match="no boxes"):
        kmeans_anchors(np.zeros((0, 2)))
    assert len(VOC_ANCHORS) == len(COCO_ANCHORS) == 5


@pytest.mark.parametrize(
    "config", [SMALL, Extractor("mobilenetv2", 0.35, (64, 96), "block6", weights="none")], ids=lambda c: c.name
)
def test_a_detector_survives_being_stored(config, tmp_path):
    torch.manual_seed(0)
    detector = build_detector(config, ("a", "b", "c"), ANCHORS)
    for buffer in detector.buffers():
        if buffer.dtype.is_floating_point and buffer.ndim == 1:
            buffer.uniform_(0.5, 1.5)  # statistics of the normalizations
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    path = tmp_path / "detector.pt"
    torch.save(detector_state(detector), path)
    again = load_detector(path)
    assert again.plan.labels == ("a", "b", "c") and again.input_size == (64, 96)
    with torch.no_grad():
        for mine, other in zip(detector(frames), again(frames), strict=True):
            torch.testing.assert_close(mine, other)
        assert again.maps(frames).shape[1:] == (16, *detector.network.map_size(64, 96))


def test_anchors_are_kept_in_cells():
    detector = build_detector(SMALL, ("a",), ANCHORS)
    np.testing.assert_allclose(detector.anchors, ANCHORS * [3, 2], rtol=1e-6)  # 96 / 32 columns, 64 / 32 rows


def test_what_cannot_be_built_or_read_is_named(tmp_path):
    with pytest.raises(RecipeError, match="did you mean tiny-yolov2"):
        build_detector(Extractor("tiny-yolo", weights="none"), ("a",), ANCHORS)
    with pytest.raises(RecipeError, match="at least 64 x 64"):
        build_detector(Extractor("tiny-yolov2", input_size=(32, 64), weights="none"), ("a",), ANCHORS)
    with pytest.raises(RecipeError, match="must be 'none', a run's detector"):
        build_detector(Extractor("tiny-yolov2"), ("a",), ANCHORS)
    with pytest.raises(RecipeError, match=r"tiny-yolov2 has no extractor.cut, got 'block6'"):
        build_detector(Extractor("tiny-yolov2", cut="block6", weights="none"), ("a",), ANCHORS)
    with pytest.raises(
        RecipeError, match=r"mobilenetv2 has no extractor.grid, got 2"
    ):  # a detector keeps the whole map
        build_detector(Extractor("mobilenetv2", grid=2, weights="none"), ("a",), ANCHORS)
    with pytest.raises(RecipeError, match="width of tiny-YOLOv2"):
        TinyYolo(3, width=9)
    path = tmp_path / "detector.pt"
    for content, why in ((b"", "cannot be read"), (b"PK", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=why):
            load_detector(path)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match="not a detector"):
        load_detector(path)
    state = detector_state(build_detector(SMALL, ("a",), ANCHORS))
    del state["state_dict"]["network.conv3.conv.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match="not a whole detector"):
        load_detector(path)
