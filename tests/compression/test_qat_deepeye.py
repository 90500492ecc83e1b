"""DEEPEYE's 8 bits: the scheme's formulas, and that the file's integers are those of the simulation, to the bit."""

import functools
import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from artifacts import session
from vidlet.artifact.exporter import to_onnx_graph
from vidlet.compression.deepeye import (
    EXACT,
    DeepeyeLayer,
    DeepeyeNetwork,
    Layer,
    Pool,
    activation_codes,
    chain_of,
    deepeye_quantize,
    exact_sums,
    weight_codes,
    weight_unit,
)
from vidlet.compression.deepeye_graph import deepeye_graph, replace_network
from vidlet.compression.fake_quant import straight_through
from vidlet.errors import ExportError
from vidlet.models.mobilenets import MobileNetV2
from vidlet.models.tiny_yolo import TinyYolo

SIZE = 64


def file_codes(network: DeepeyeNetwork, frames: np.ndarray) -> list[np.ndarray]:
    """What the file computes: the integers of each layer (pooled), the values of a linear last one."""
    graph = deepeye_graph(network, frames.shape[1:3])
    pooled = {node.input[0]: node.output[0] for node in graph.graph.node if node.op_type == "MaxPool"}
    names = [node.output[0] for node in graph.graph.node if node.op_type == "QLinearConv"]
    names = [pooled.get(name, name) for name in names]
    for name in names:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    return session(graph).run([*names, "features"], {"frames": frames})


@functools.cache
def yolo() -> tuple[TinyYolo, DeepeyeNetwork]:
    torch.manual_seed(0)
    network = TinyYolo(3, anchors=2, width=0.1)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
                layer.bias.normal_(0, 0.3)
                layer.weight.uniform_(0.5, 1.5)
        network.blocks[1].norm.weight[:3] *= -1  # channels that a normalization turns over
        network.blocks[2].norm.weight[0] = 0.0  # and one that it silences
        network.train()(torch.rand(4, 3, SIZE, SIZE))
    network.eval()
    return network, deepeye_quantize(network, [pictures(4, 1)], 1 / 255)


def frames(count: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(frames(count, seed)).permute(0, 3, 1, 2).float() / 255


def test_weights_are_truncated_and_never_become_zero():
    weight = torch.tensor([1.0, -1.0, 0.0, 0.001, -0.001, 0.5, -0.5, 126.9 / 128, -2.5 / 128, 1.5 / 128])
    weight = weight[:, None]  # one input each: nothing to be added to
    assert weight_codes(weight)[:, 0].tolist() == [127, -127, 0, 1, -1, 64, -64, 126, -2, 1]
    assert weight_codes(3 * weight).tolist() == weight_codes(weight).tolist()
    assert weight_unit(3 * weight)[:, 0].tolist() == [3 / 128] * 10
    assert weight_codes(torch.zeros(3, 1)).tolist() == [[0], [0], [0]]


def test_a_channel_that_could_saturate_has_a_coarser_unit_of_its_own():
    weight = torch.tensor([[1.0, 0.5, -1.0, 0.0], [0.25, 0.25, -0.5, 0.5]])
    assert weight_unit(weight)[:, 0].tolist() == [1.5 / 128, 1 / 128]
    assert weight_codes(weight).tolist() == [[85, 42, -85, 0], [32, 32, -64, 64]]


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_weight_codes_are_those_of_the_formula(values):
    largest = max(abs(v) for v in values)
    expected = [
        0 if v == 0 or largest == 0 else math.copysign(min(127, max(1, math.floor(128 * (abs(v) / largest)))), v)
        for v in values
    ]
    assert weight_codes(torch.tensor(values, dtype=torch.float32)[:, None])[:, 0].tolist() == expected


def test_activations_are_truncated():
    a = torch.tensor([0.0, 0.0039, 1 / 256, 0.5, 0.9999, 1.0])
    assert activation_codes(a).tolist() == [0, 0, 1, 128, 255, 255]


def test_gradients_go_straight_through_inside_the_unit_interval():
    a = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    inside = a.clamp(0, 1)
    straight_through(inside, activation_codes(inside) / 256).sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [0, 1, 1, 1, 0]
    weight = torch.tensor([[0.2, -0.7, 0.0]], requires_grad=True)
    straight_through(weight, weight_codes(weight)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("divisor", [1, 3, 5, 101, 4097, 8191, EXACT])
def test_division_by_an_odd_number_and_rounding_is_the_floor_for_every_sum(divisor):
    total = np.arange(-2 * divisor, 258 * divisor)
    shifted = (total - (divisor - 1) // 2).astype(np.float32)
    rounded = np.clip(np.rint(shifted * np.float32(1 / divisor)), 0, 255)
    np.testing.assert_array_equal(rounded, np.clip(total // divisor, 0, 255))


def test_the_files_integers_are_the_simulated_ones_to_the_bit(tmp_path):
    _, network = yolo()
    for seed in (3, 4):
        given_frames = frames(3, seed)
        simulated = network.codes(torch.from_numpy(given_frames).permute(0, 3, 1, 2).float() / 255)
        found = file_codes(network, given_frames)
        assert len(found) == len(simulated) == 9
        for mine, other in zip(simulated[:-1], found[:-1], strict=True):
            assert other.dtype == np.uint8
            assert len(np.unique(other)) > 20
            np.testing.assert_array_equal(mine.numpy(), other)
        np.testing.assert_allclose(simulated[-1].numpy(), found[-1], atol=1e-5 * np.abs(found[-1]).max())
    session(deepeye_graph(network, (SIZE, SIZE)), str(tmp_path / "optimized.onnx"))
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 8
    assert not {"Conv", "FusedConv", "QuantizeLinear", "LeakyRelu"} & set(kinds)


def test_floors_follow_the_affine_map_they_were_made_of():
    """Against plain Python: floor(256 (gain sum + shift) / beta), but for the rounding of offset and divisor."""
    _, network = yolo()
    unit = network.input_unit
    layer = network.layers[0]
    assert isinstance(layer, DeepeyeLayer)
    rule = layer.integers(unit)
    assert rule.divisor is not None
    assert (rule.divisor % 2 == 1).all()
    q = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        total = layer.conv(q, weight_codes(layer.weight).double())
        exact = (
            layer.norm(total.float() * weight_unit(layer.weight).float().reshape(-1, 1, 1) * unit)
            / layer.log_beta.exp()
            * 256
        )
        floors = exact.floor().clamp(0, 255)
        mine = (layer.conv(q, rule.codes.double()).long() + rule.offset[:, None, None]) // rule.divisor[:, None, None]
    distance = (mine.clamp(0, 255) - floors).abs()
    assert distance.max() <= 2  # of 255: an odd divisor near 100 is off by 1/200 at most
    assert distance.mean() < 0.3


def exact_floor(rule, layer: DeepeyeLayer, q: np.ndarray) -> np.ndarray:
    """The layer in Python's whole numbers."""
    total = layer.conv(torch.from_numpy(q).double(), rule.codes.double()).long()
    return ((total + rule.offset[:, None, None]) // rule.divisor[:, None, None]).clamp(0, 255).numpy()


def test_sums_are_whole_whatever_their_size():
    conv = nn.Conv2d(700, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.uniform_(0.99, 1.0)
    layer = DeepeyeNetwork([Layer(conv, rectified=True)]).layers[0]
    assert isinstance(layer, DeepeyeLayer)
    q = torch.randint(200, 256, (1, 700, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    codes = weight_codes(layer.weight).to(torch.int8)
    slow = layer.conv(q.double(), codes.double())
    assert slow.max() > 2**24
    assert torch.equal(exact_sums(layer, codes, q), slow)


@given(st.integers(0, 2**31), st.sampled_from([1, 3, 27, 300, 9216]), st.floats(0.01, 100), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_any_layer_is_exact_ties_and_largest_sums_included(seed, inputs, beta, shift):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(inputs, 8, 1, bias=True)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
        conv.weight[0] = conv.weight.abs().max()  # the largest sums there can be
        conv.weight[1] = -conv.weight[0]
        conv.weight[2] = 0
        conv.bias.fill_(shift)
    network = DeepeyeNetwork([Layer(conv, rectified=True)]).eval()
    layer = network.layers[0]
    assert isinstance(layer, DeepeyeLayer)
    with torch.no_grad():
        layer.log_beta.fill_(math.log(beta * inputs**0.5))
    rule = layer.integers(network.input_unit)
    q = torch.randint(0, 256, (1, inputs, 5, 5), generator=generator).numpy().astype(np.uint8)
    q[..., 0, 0], q[..., 1, 1] = 255, 0
    graph = one_layer_graph(network, inputs)
    found = session(graph).run(None, {"q": q})[0]
    simulated = network.layers[0](torch.from_numpy(q).float(), network.input_unit)[0].detach().numpy()
    np.testing.assert_array_equal(found, simulated)
    small = (rule.divisor <= EXACT).numpy()
    np.testing.assert_array_equal(found[:, small], exact_floor(rule, layer, q)[:, small])


def one_layer_graph(network: DeepeyeNetwork, inputs: int) -> onnx.ModelProto:
    """The only QLinearConv of a network, on its own: ``q`` (1, I, H, W) -> integers."""
    whole = deepeye_graph(network, (8, 8))
    conv = next(node for node in whole.graph.node if node.op_type == "QLinearConv")
    conv.input[0] = "q"
    graph = onnx.helper.make_graph(
        [conv], "layer", [onnx.helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, [1, inputs, None, None])],
        [onnx.helper.make_tensor_value_info(conv.output[0], onnx.TensorProto.UINT8, None)], whole.graph.initializer,
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)


def test_what_is_trained_is_what_is_evaluated():
    """The float form of training and the integer form differ by the rounding of offsets and divisors only."""
    _, network = yolo()
    x = pictures(2, 6)
    with torch.no_grad():
        integer = network.eval()(x)
        network.train()
        for layer in network.layers:
            if layer.norm is not None:
                layer.norm.eval()
        smooth = network(x)
        network.eval()
    assert float(torch.corrcoef(torch.stack([integer.flatten(), smooth.flatten()]))[0, 1]) > 0.995


def test_the_network_learns_in_place_with_its_batch_norms():
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1),
    ).eval()  # fmt: skip
    x, y = pictures(16, 0), torch.randint(0, 4, (16,))
    x[torch.arange(16), y % 3] *= 0.3
    x = (x * 255).round() / 255
    network = deepeye_quantize(chain, [x], 1 / 255)
    before = network.layers[0].log_beta.item(), network.layers[0].norm.running_mean.clone()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    network.train()
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(network(x).mean((2, 3)), y % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert network.layers[0].log_beta.item() != before[0]
    assert not torch.equal(network.layers[0].norm.running_mean, before[1])
    network.eval()
    given_frames = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    for mine, other in zip(network.codes(x), file_codes(network, given_frames), strict=True):
        np.testing.assert_allclose(mine.numpy(), other, atol=0 if other.dtype == np.uint8 else 1e-5)


class Both(nn.Module):
    """Bytes -> map, and something that stands on it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, given_frames):
        maps = self.network(given_frames[-1:].permute(0, 3, 1, 2).float() * (1 / 255))
        return maps.sigmoid(), maps


def test_the_network_takes_the_place_of_the_float_one_in_a_file():
    float_network, network = yolo()
    given_frames = frames(3, 8)
    graph = to_onnx_graph(Both(float_network), {"frames": torch.from_numpy(given_frames)}, ["scores", "map"], {"frames": {0: "T"}})  # fmt: skip  # noqa: E501
    replaced = replace_network(graph, network, "map")
    assert not any(node.op_type == "Conv" for node in replaced.graph.node)
    assert {v.name for v in replaced.graph.input} == {"frames"}
    scores, maps = session(replaced).run(["scores", "map"], {"frames": given_frames})
    with torch.no_grad():
        expected = network(torch.from_numpy(given_frames[-1:]).permute(0, 3, 1, 2).float() / 255).numpy()
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected)), atol=1e-5)
    with pytest.raises(ExportError, match="no tensor 'boxes'"):
        replace_network(graph, network, "boxes")


def test_chains_are_read_and_what_is_none_is_refused():
    layers = chain_of(yolo()[0])
    assert [layer.rectified for layer in layers] == [True] * 8 + [False]
    assert yolo()[1].map_size(100, SIZE) == yolo()[0].map_size(100, SIZE)
    assert [layer.pool for layer in layers] == [Pool(2, 2, ceil=True)] * 5 + [Pool(2, 1, behind=1)] + [None] * 3
    with pytest.raises(ExportError, match="is not the chain of its convolutions"):
        deepeye_quantize(MobileNetV2(0.35, "block2").eval(), [pictures(2, 0)])
    with pytest.raises(ExportError, match="Sigmoid is not part of one"):
        chain_of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()))


def test_bytes_of_the_papers_detector():
    """15,904,932 bytes with float batch norm; here an offset and a divisor a channel in place of four floats."""
    network = TinyYolo(20)
    weights = sum(layer.conv.weight.numel() for layer in chain_of(network))
    channels = sum(layer.conv.out_channels for layer in chain_of(network) if layer.norm is not None)
    assert weights == 15_855_536
    assert weights + 4 * (4 * channels + 125) == 15_904_932
