"""Quantization-aware training: what was simulated in training is what the integer file computes."""

import copy
import functools

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from artifacts import session
from steps_material import material, trained
from vidlet.artifact import extractor_graph
from vidlet.artifact.exporter import to_onnx_graph
from vidlet.compression import find_chain, shrink_graph
from vidlet.compression.blocks import quantize_blocks
from vidlet.compression.exact import CLEAR, clear_of_ties, quantize_exactly
from vidlet.compression.fake_quant import channel_scales, fake_blocks, fake_int8, fake_int32, fake_rows, fake_uint8
from vidlet.compression.int8 import quantize_graph
from vidlet.compression.material import Trained, with_part
from vidlet.compression.qat import (
    QuantizedNetwork,
    activation_ranges,
    attach_ranges,
    drop_ranges,
    known_layers,
    prepare_qat,
    ranges_by_layer,
    write_back_,
)
from vidlet.compression.qat_steps import extractor_qat, prepare_extractor, qat, qat4, trained_ranges
from vidlet.compression.storage import quantize_weight
from vidlet.errors import ExportError, ModelError
from vidlet.models import FrameExtractor, MobileNetV2, build_head
from vidlet.recipe import Head

SIZE = (64, 48)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Frames uint8 of colored blocks."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 6, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, 1).repeat(8, 2))


def integers(graph: onnx.ModelProto, tensors: list[str], **feeds: np.ndarray) -> list[np.ndarray]:
    """Quantized tensors as the runtime's integer kernels compute them."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    for name in tensors:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    return session(probe).run(tensors, feeds)


def run(graph: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    return session(graph).run(["features"], {"frames": frames})[0]


@functools.cache
def float_extractor() -> FrameExtractor:
    torch.manual_seed(0)
    backbone = MobileNetV2(0.35, "block4", "same")
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
                nn.init.normal_(layer.bias, std=0.3)
        backbone.train()(torch.randn(8, 3, *SIZE))
    return FrameExtractor(backbone.eval(), SIZE, 3).eval()


@functools.cache
def tuned() -> tuple[QuantizedNetwork, FrameExtractor, onnx.ModelProto]:
    """The network after some steps of training, the extractor it was written back to, and that one's float graph."""
    extractor = float_extractor()
    network = prepare_extractor(extractor, [pictures(6, seed) for seed in range(3)])
    x = extractor.normalize(torch.from_numpy(pictures(8, 9)))
    with torch.no_grad():
        target = extractor.backbone(x)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    losses = []
    for _ in range(41):
        loss = (network(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    result = copy.deepcopy(extractor)
    write_back_(result.backbone, network)
    result.ranges = network.ranges()
    return network, result, extractor_graph(result)


@functools.cache
def integer() -> onnx.ModelProto:
    """The integer graph of that extractor."""
    network, _, graph = tuned()
    return integer_graph(graph, network.ranges())


def integer_graph(graph, ranges):
    return quantize_graph(graph, ranges_by_layer(graph, ranges))


def test_the_files_integers_are_the_simulated_ones_at_every_layer():
    network, extractor, graph = tuned()
    frames = pictures(6, 50)
    simulated = network.codes(extractor.normalize(torch.from_numpy(frames)))
    tensors = {layer: tensor for tensor, layer in known_layers(graph, network.ranges()).items()}
    names = [name for name in simulated if network.layers[name] in tensors]
    assert len(names) == 1 + 2 + 4 * 3 + 2  # stem, block 0, blocks 1 to 4, sums
    found = integers(integer(), [f"{tensors[network.layers[name]]}.q" for name in names], frames=frames)
    for depth, (name, codes) in enumerate(zip(names, found, strict=True)):
        distance = np.abs(simulated[name].numpy().astype(int) - codes)
        assert (distance == 0).mean() > (0.999 if depth < 3 else 0.95), network.layers[name]
        assert distance.max() <= 4, network.layers[name]


def test_each_layer_alone_differs_by_one_step_at_ties_only():
    network, extractor, graph = tuned()
    frames = pictures(6, 51)
    tensors = {layer: tensor for tensor, layer in known_layers(graph, network.ranges()).items()}
    names = [name for name in network.zero_points if network.layers[name] in tensors]
    found = dict(
        zip(names, integers(integer(), [f"{tensors[network.layers[n]]}.q" for n in names], frames=frames), strict=True)
    )
    values = {
        name: (torch.from_numpy(codes.astype(np.float32)) - network.zero_points[name]) * network.step(name).detach()
        for name, codes in found.items()
    }
    values["pictures"] = extractor.normalize(torch.from_numpy(frames))
    compared = 0
    with torch.no_grad():
        for operation in network.operations:
            if any(read not in values for read in operation.inputs if read in network.computed):
                continue
            name = operation.outputs[0]
            values.setdefault(name, network.run(operation, values)[0])
            if name in found:
                inputs = {read: values[read] for read in operation.inputs if read in values}
                value = network.observe(name, network.run(operation, inputs)[0])
                codes = (value / network.step(name)).round() + network.zero_points[name]
                distance = np.abs(codes.numpy() - found[name].astype(int))
                assert distance.max() <= 1, network.layers[name]
                assert (distance == 0).mean() > 0.9995, network.layers[name]
                compared += 1
    assert compared == len(found)


def test_the_trained_step_of_a_sum_keeps_clear_of_ties_in_the_simulation_and_the_file():
    network, _, graph = tuned()
    sums = [operation for operation in network.operations if operation.kind == "Add"]
    assert len(sums) == 2
    tensors = {layer: tensor for tensor, layer in known_layers(graph, network.ranges()).items()}
    steps = {node.input[1]: node for node in integer().graph.node if node.op_type == "QuantizeLinear"}
    for operation in sums:
        a, b = ((float(network.step(part).detach()), network.zero_points[part]) for part in operation.inputs)
        step = float(network.step(operation.outputs[0]).detach())
        again, margin = clear_of_ties(a, b, step)
        assert margin >= CLEAR
        assert again == pytest.approx(step, rel=1e-5)  # it was clear before, but for float32 logarithms
        written = [n for n in steps.values() if n.output[0] == f"{tensors[network.layers[operation.outputs[0]]]}.q"]
        assert float(written[0].input[1].removeprefix("scale.")) == pytest.approx(step, rel=1e-5)


def test_the_file_and_the_simulation_choose_the_same_channel():
    network, extractor, _ = tuned()
    frames = pictures(40, 52)
    features = run(integer(), frames)
    with torch.no_grad():
        simulated = with_part(extractor, "backbone", network)(torch.from_numpy(frames)).numpy()
    assert (features.argmax(1) == simulated.argmax(1)).mean() > 0.98


class Video(nn.Module):
    """A small 3-D CNN with a leaky activation, a pooling and normalizations, as a Sequential writes it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.LeakyReLU(0.1), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(16), nn.ReLU(),
            nn.Conv3d(16, 8, 1),
        )  # fmt: skip
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm3d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.bias.data.normal_(0, 0.2)

    def forward(self, x):
        return self.layers(x)


class Clip(nn.Module):
    """Bytes (N, T, H, W, 3) to maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames):
        return self.network((frames.permute(0, 4, 1, 2, 3).float() - 128) * (1 / 128))


def test_a_three_dimensional_network_is_simulated_as_its_file_computes():
    clips = np.random.default_rng(0).integers(0, 256, (4, 4, 12, 12, 3), dtype=np.uint8)
    x = (torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() - 128) / 128
    module = Video().eval()
    network = prepare_qat(module, [x], (1 / 128, 128))
    with torch.no_grad():
        assert (network(x) - module(x)).abs().max() < 0.05 * module(x).abs().max()
    write_back_(module, network)
    float_graph = to_onnx_graph(Clip(module), {"frames": torch.from_numpy(clips)}, ["features"], {"frames": {0: "N"}})
    graph = integer_graph(float_graph, network.ranges())
    tensors = {layer: tensor for tensor, layer in known_layers(float_graph, network.ranges()).items()}
    simulated = network.codes(x)
    names = [name for name in simulated if network.layers[name] in tensors]
    found = integers(graph, [f"{tensors[network.layers[name]]}.q" for name in names], frames=clips)
    assert len(names) == 4
    for name, codes in zip(names, found, strict=True):
        distance = np.abs(simulated[name].numpy().astype(int) - codes)
        assert (distance == 0).mean() > 0.999, network.layers[name]
        assert distance.max() <= 1


def test_a_layer_without_a_trained_range_is_an_error_that_names_it():
    network, _, graph = tuned()
    ranges = network.ranges()
    del ranges["block3.expand"]
    with pytest.raises(ExportError, match=r"no range was trained for layer backbone\.block3\.expand"):
        integer_graph(graph, ranges)


def test_an_operator_that_cannot_be_trained_is_named():
    class Running(nn.Module):
        def forward(self, x):
            return x.cumsum(2)

    with pytest.raises(ModelError, match=r"operator CumSum \(node \S+, set 20\) is not read; read are .*Conv"):
        prepare_qat(nn.Sequential(nn.Conv2d(3, 4, 1), Running()), [torch.randn(2, 3, 8, 8)])


def test_rounding_an_activation_by_hand():
    x = torch.tensor([0.26, -1.0, 30.0, 0.25, 0.35], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    y = fake_uint8(x, scale, 0)
    torch.testing.assert_close(y, torch.tensor([0.3, 0.0, 25.5, 0.2, 0.4]), atol=1e-6, rtol=0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 0, 0, 1, 1]
    # LSQ: where not cut off, round(x / s) - x / s; at the ends the code itself
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(0.4 + 0 + 255 - 0.5 + 0.5, abs=1e-3)


def test_rounding_weights_as_the_file_stores_them():
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    codes, scales = quantize_weight(weight.numpy())
    np.testing.assert_allclose(fake_rows(weight).numpy(), codes * scales, rtol=1e-6)
    codes, scales = quantize_exactly(weight.numpy())
    np.testing.assert_allclose(fake_int8(weight, channel_scales(weight)).numpy(), codes * scales, rtol=1e-6)
    blocks, of_block = quantize_blocks(weight.numpy())
    np.testing.assert_array_equal(
        fake_blocks(weight).numpy(), (blocks * of_block.astype(np.float32)).reshape(weight.shape)
    )


def test_gradients_of_weights_and_biases_pass_the_rounding():
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    bias = torch.randn(4, requires_grad=True)
    kernel, offset = fake_int8(weight, channel_scales(weight)), fake_int32(bias, torch.full((4,), 0.01))
    (kernel.sum() + offset.sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert (weight.grad == 1).all()
    assert (bias.grad == 1).all()
    assert ((offset / 0.01).round() * 0.01 - offset).abs().max() < 1e-6


def test_learned_ranges_travel_with_the_graph_to_the_step_int8_and_are_not_written():
    network, _, graph = tuned()
    carried = attach_ranges(graph, network.ranges())
    learned = activation_ranges(carried, [])
    assert sorted(learned.values()) == sorted(v for k, v in network.ranges().items() if k != "input")
    assert drop_ranges(carried).SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)
    calibrated = activation_ranges(graph, [pictures(4)])
    assert calibrated.keys() == learned.keys()
    assert calibrated != learned
    small = shrink_graph(find_chain("int8"), graph, [pictures(4)], network.ranges())
    np.testing.assert_array_equal(run(small, pictures(3, 5)), run(integer(), pictures(3, 5)))
    assert not any(entry.key == "ranges" for entry in small.metadata_props)


@pytest.mark.parametrize("step", [qat, qat4])
def test_a_head_trained_with_rounded_weights_answers_as_before_and_is_another_object(step):
    before = trained("grid-gru")
    weights = {name: value.clone() for name, value in before.head.state_dict().items()}
    after = step(before, 2, material())
    assert type(after.head) is type(before.head)
    for name, value in before.head.state_dict().items():
        assert torch.equal(value, weights[name])
    assert after.extractor is before.extractor


def test_the_extractor_learns_to_give_its_float_features_in_integers():
    before = trained("grid-gru")
    after = extractor_qat(before, 4, material(on_frames=True))
    assert trained_ranges(before.extractor) is None
    ranges = trained_ranges(after.extractor)
    assert ranges is not None
    graph = integer_graph(extractor_graph(after.extractor), ranges)
    frames = np.concatenate([material().samples[i] for i in range(4)])
    found = run(graph, frames)
    with torch.no_grad():
        wanted = before.extractor(torch.from_numpy(frames)).numpy()
    error = ((found - wanted) ** 2).mean() / wanted.var()
    assert error < 0.02


def test_a_whole_network_is_trained_on_labels_where_the_recipe_does_so():
    before = trained("grid-gru")
    extractor = before.extractor
    head = build_head(Head("grid-gru", {"channels": 8, "project": 16, "hidden": 16}), extractor.feature_shape, 3)
    after = extractor_qat(Trained(extractor, head), 1, material("finetune", extractor_lr=1e-3))
    assert trained_ranges(after.extractor) is not None
    assert not torch.equal(after.extractor.backbone.stem.conv.weight, extractor.backbone.stem.conv.weight)
    assert type(after.extractor.backbone) is type(extractor.backbone)
