"""3-D convolutions in integers: the 2-D form gives the integers of the 3-D one, and streams."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from artifacts import session
from vidlet.artifact import ArtifactNetwork, artifact_graph
from vidlet.artifact.exporter import to_onnx_graph
from vidlet.compression.calibrate import calibrate
from vidlet.compression.graph_steps import int8
from vidlet.compression.int8 import quantize_graph, quantized_tensors
from vidlet.compression.volumes import flatten_volumes, integer_volumes, relu_before_pool
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Extractor, Head


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, feeds), strict=True))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


class Clip(nn.Module):
    """Bytes (N, T, H, W, 3) to the maps of a 3-D network."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*layers)

    def forward(self, frames):
        return self.layers((frames.permute(0, 4, 1, 2, 3).float() - 128) * (1 / 128))


CLIPS = np.random.default_rng(0).integers(0, 256, (3, 7, 13, 11, 3), dtype=np.uint8)


def graph_of(*layers: nn.Module) -> onnx.ModelProto:
    return to_onnx_graph(Clip(*layers), {"frames": torch.from_numpy(CLIPS)}, ["features"], {"frames": {0: "N"}})


def quantized(graph: onnx.ModelProto) -> onnx.ModelProto:
    return quantize_graph(graph, calibrate(graph, [{"frames": CLIPS}], quantized_tensors(graph)))


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv3d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2, ceil_mode=True), nn.Conv3d(5, 4, 3, padding=1)),
        (nn.Conv3d(3, 5, (2, 3, 3), padding="same"), nn.MaxPool3d((3, 2, 1)), nn.Conv3d(5, 4, (1, 3, 3), bias=False)),
        (nn.Conv3d(3, 6, (3, 1, 1)), nn.ReLU(), nn.MaxPool3d((1, 2, 2)), nn.MaxPool3d((2, 1, 1), stride=(1, 1, 1))),
        (nn.Conv3d(3, 4, (5, 3, 3), stride=(1, 2, 2), padding=(2, 1, 1)), nn.LeakyReLU(0.1), nn.Conv3d(4, 4, 1)),
    ],
)
def test_the_integers_are_those_of_the_three_dimensional_convolution(layers):
    three = quantized(graph_of(*layers))
    two = flatten_volumes(three)
    assert "Conv" in kinds(three)
    assert "Conv" not in kinds(two)
    assert "QLinearConv" in kinds(two)
    whole = run(two, frames=CLIPS)["features"]
    np.testing.assert_array_equal(whole, run(three, frames=CLIPS)["features"])
    np.testing.assert_array_equal(whole[:1], run(two, frames=CLIPS[:1])["features"])


@pytest.mark.parametrize("layer", [nn.Conv3d(3, 6, 3, groups=3), nn.Conv3d(3, 6, 3, stride=(2, 1, 1))])
def test_groups_and_steps_in_time_stay_as_they_are(layer):
    three = quantized(graph_of(layer))
    assert kinds(flatten_volumes(three)) == kinds(three)


def test_a_rectifier_moves_before_the_pooling_and_nothing_changes():
    graph = graph_of(nn.Conv3d(3, 5, 3), nn.MaxPool3d(2), nn.ReLU(), nn.Conv3d(5, 4, 1), nn.MaxPool3d(2), nn.ReLU())
    moved = relu_before_pool(graph)
    order = [kind for kind in kinds(moved) if kind in ("Conv", "MaxPool", "Relu")]
    assert order == ["Conv", "Relu", "MaxPool"] * 2
    np.testing.assert_array_equal(run(graph, frames=CLIPS)["features"], run(moved, frames=CLIPS)["features"])


def clip_network() -> onnx.ModelProto:
    """An artifact of a 3-D network on pixels."""
    torch.manual_seed(0)
    extractor = build_extractor(Extractor("pixels", input_size=(28, 62), cut="gray-sobel", grid=0, weights="none"))
    head = build_head(Head("clip-network", {"network": "viva-1", "frames": 8}), extractor.feature_shape, 4).eval()
    with torch.no_grad():
        head.network.classify.weight.normal_(0, 0.1)
    return artifact_graph(ArtifactNetwork(extractor, head), extractor.input_size)


def test_a_clip_network_computes_in_integers_near_the_float_one_and_streams():
    graph = clip_network()
    coarse = np.random.default_rng(1).integers(0, 256, (4, 8, 7, 9, 3), dtype=np.uint8)
    clips = list(np.ascontiguousarray(coarse.repeat(4, 2).repeat(7, 3)[:, :, :, :62]))
    small = int8(graph, None, clips)
    assert kinds(small).count("QLinearConv") == 3
    assert "Conv" not in kinds(small)
    zero = {"state.ring": np.zeros((2, 7, 2, 28, 62), np.float32), "state.count": np.zeros((2, 1), np.float32)}
    for clip in clips:
        whole = run(small, frames=clip, **zero)["scores"]
        expected = run(graph, frames=clip, **zero)["scores"]
        np.testing.assert_allclose(whole, expected, atol=0.03)
        lead = np.diff(np.sort(expected, 1))[:, -1]  # one of the four clips is all but a tie, .005
        assert ((whole.argmax(1) == expected.argmax(1)) | (lead < 0.01)).all()
    state = zero
    for frame in clips[-1]:
        found = run(small, frames=frame[None], **state)
        state = {name: found[f"next_{name}"] for name in zero}
    np.testing.assert_allclose(found["scores"], whole, atol=1e-6)


def test_a_graph_without_volumes_is_left_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU())
    flat = to_onnx_graph(network, {"frames": torch.zeros(2, 3, 8, 8)}, ["features"], {"frames": {0: "N"}})
    assert integer_volumes(flat, []).SerializeToString() == flat.SerializeToString()
