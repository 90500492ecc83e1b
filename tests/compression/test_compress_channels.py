"""Channels of MobileNetV2's blocks are really removed; the cheapest go, and the others say what they said."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steps_material import CLASSES, EXTRACTOR, material, small_extractor
from vidlet.artifact import ArtifactNetwork, artifact_graph, torch_reference
from vidlet.artifact.classifier import check_parity
from vidlet.compression import Trained
from vidlet.compression import channels as channels_module
from vidlet.compression.channels import (
    Removal,
    channels,
    learn_features_,
    relative_error,
    removal_order,
    share_out,
    spread_frames,
    thin_backbone,
    thin_extractor,
)
from vidlet.compression.graph_steps import int8
from vidlet.errors import RecipeError
from vidlet.models import build_extractor, build_head
from vidlet.models.extractor import Pixels
from vidlet.recipe import Extractor, Head
from vidlet.training import ClipNetwork, predict_logits, train_network


def residual(weight: np.ndarray, covariance: np.ndarray, kept: list[int]) -> float:
    """Squared error of the best outputs from the kept inputs, slowly: trace of the conditional covariance."""
    own = weight @ covariance @ weight.T
    if not kept:
        return float(np.trace(own))
    cross = weight @ covariance[:, kept]
    return float(np.trace(own - cross @ np.linalg.solve(covariance[np.ix_(kept, kept)], cross.T)))


@given(inputs=st.integers(2, 7), outputs=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_each_removal_is_the_cheapest_and_its_error_that_of_least_squares(inputs, outputs, seed):
    draw = np.random.default_rng(seed)
    weight, root = draw.normal(size=(outputs, inputs)), draw.normal(size=(inputs, inputs))
    covariance = root @ root.T + 0.1 * np.eye(inputs)
    order, error = removal_order(torch.from_numpy(weight), torch.from_numpy(covariance))
    left = list(range(inputs))
    for step, one in enumerate(order.tolist()):
        costs = {c: residual(weight, covariance, [i for i in left if i != c]) for c in left}
        assert costs[one] == pytest.approx(min(costs.values()), rel=1e-6, abs=1e-9)
        assert error[step + 1].item() == pytest.approx(costs[one], rel=1e-6, abs=1e-9)
        left.remove(one)
    assert error[0] == 0


def test_a_repeated_channel_costs_nothing():
    covariance = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.double)
    covariance += 1e-9 * torch.eye(3)
    order, error = removal_order(torch.tensor([[1.0, 2.0, 0.1]]), covariance)
    assert order[0].item() in (0, 1)
    assert error[1].item() == pytest.approx(0, abs=1e-6)
    assert order[1].item() == 2


def test_blocks_share_the_removal_as_trying_all_would():
    draw = np.random.default_rng(0)
    removals = {}
    for name, count, each in (("a", 32, 10), ("b", 40, 30), ("c", 24, 20)):
        steps = np.sort(draw.exponential(size=count)) * draw.uniform(0.5, 2)
        removals[name] = Removal(torch.arange(count), np.concatenate([[0], steps.cumsum()]), each)
    total = sum(len(r.order) * r.weights_each for r in removals.values())
    for share in (0.1, 0.3, 0.6):
        found = share_out(removals, share)
        saved = sum(n * removals[k].weights_each for k, n in found.items())
        error = sum(removals[k].error[n] for k, n in found.items())
        assert saved >= share * total
        assert all((len(removals[k].order) - n) % 8 == 0 and len(removals[k].order) - n >= 8 for k, n in found.items())
        options = [range(0, len(r.order) - 7, 8) for r in removals.values()]
        for gone in itertools.product(*options):  # nothing saves as much for less
            other = sum(r.error[n] for r, n in zip(removals.values(), gone, strict=True))
            if sum(n * r.weights_each for r, n in zip(removals.values(), gone, strict=True)) >= saved:
                assert other >= error - 1e-9
    with pytest.raises(RecipeError, match=r"at most 0\.\d+ of the blocks' weights can go"):
        share_out(removals, 0.95)


def frames(count: int = 40) -> np.ndarray:
    return spread_frames(material().samples, count)


def channel_counts(backbone) -> dict[str, int]:
    """Channels inside each block that expands."""
    blocks = {name: backbone.get_submodule(name) for name in backbone.parts}
    return {name: b.depthwise.conv.out_channels for name, b in blocks.items() if getattr(b, "expand", None) is not None}


def inner(extractor) -> int:
    """Numbers in the blocks that expand."""
    names = channel_counts(extractor.backbone)
    layers = [extractor.backbone.get_submodule(name) for name in names]
    return sum(module.weight.numel() for layer in layers for module in layer.modules() if isinstance(module, torch.nn.Conv2d))  # noqa: E501  # fmt: skip


@pytest.mark.parametrize("share", [0.2, 0.6])
@torch.no_grad()
def test_channels_are_really_gone_and_shapes_between_blocks_are_kept(share):
    before = small_extractor()
    after = thin_extractor(before, share, frames())
    assert inner(after) <= (1 - share) * inner(before) * 1.05  # the depthwise share of a channel is counted roughly
    assert after.feature_shape == before.feature_shape
    assert after.ranges is None
    for name, count in channel_counts(after.backbone).items():
        assert count % 8 == 0
        assert 8 <= count <= channel_counts(before.backbone)[name]
        block = after.backbone.get_submodule(name)
        assert block.expand.conv.weight.shape[0] == count
        assert block.depthwise.conv.groups == count
        assert block.project.conv.weight.shape[1] == count
    clip = torch.from_numpy(frames(6))
    assert after(clip).shape == before(clip).shape


@torch.no_grad()
def test_channels_that_say_nothing_go_first_and_leave_no_trace():
    """Half of each block's channels feed nothing: removing that share changes nothing."""
    torch.manual_seed(0)
    extractor = build_extractor(replace(EXTRACTOR, cut="block3"))
    for name, count in channel_counts(extractor.backbone).items():
        block = extractor.backbone.get_submodule(name)
        silent = torch.randperm(count)[: count // 2 + 8]
        block.project.conv.weight[:, silent] = 0
    small = thin_extractor(extractor, 0.45, frames())
    clip = torch.from_numpy(frames(9))
    assert relative_error(small(clip), extractor(clip)) < 1e-4


@torch.no_grad()
def test_solving_the_projections_anew_is_better_than_cutting_alone(monkeypatch):
    extractor = small_extractor()
    pictures = extractor.normalize(torch.from_numpy(frames()))
    wanted = extractor.backbone(pictures)
    solved = relative_error(thin_backbone(extractor.backbone, 0.5, pictures)(pictures), wanted)
    monkeypatch.setattr(channels_module, "_solve_", lambda *_: None)
    cut = relative_error(thin_backbone(extractor.backbone, 0.5, pictures)(pictures), wanted)
    assert solved < 0.5 * cut


def test_learning_features_brings_them_nearer():
    extractor = small_extractor()
    pupil = thin_extractor(extractor, 0.6, frames(16))
    clips = [torch.from_numpy(clip) for clip in material().samples[-4:]]
    with torch.no_grad():
        before = sum(relative_error(pupil(c), extractor(c)) for c in clips)
    losses = learn_features_(pupil, extractor, material().samples[:8], updates=60, rate=3e-3)
    with torch.no_grad():
        after = sum(relative_error(pupil(c), extractor(c)) for c in clips)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert after < before
    assert not pupil.training


def squares() -> tuple[Trained, object]:
    """A network that tells moving squares apart, on features of the small extractor."""
    here = material(on_frames=True, epochs=20)
    torch.manual_seed(1)
    options = {"channels": 8, "project": 32, "hidden": 32, "dropout": 0.0, "appearance": True}
    head = build_head(Head("grid-gru", options), small_extractor().feature_shape, CLASSES)
    train, val = here.features(small_extractor())
    rows = np.concatenate([train.read(i) for i in range(len(train))])
    head.calibrate(torch.from_numpy(rows.mean((0, 2, 3))), torch.from_numpy(rows.std((0, 2, 3))))
    train_network(ClipNetwork(head), train, val, here.config)
    return Trained(small_extractor(), head), here


def test_the_step_gives_a_smaller_file_that_answers_alike_and_quantizes(monkeypatch):
    monkeypatch.setattr(channels_module, "UPDATES", 20)
    before, here = squares()
    after = channels(before, 0.5, here)
    answers = [predict_logits(ClipNetwork(t.head), here.features(t.extractor)[1], 8).argmax(1) for t in (before, after)]
    truth = here.features(before.extractor)[1].targets.argmax(1)
    assert (answers[0] == truth).mean() >= 0.8
    assert (answers[1] == truth).mean() >= (answers[0] == truth).mean() - 0.1
    network = ArtifactNetwork(after.extractor, after.head)
    graph = artifact_graph(network, (32, 32))
    clip = np.resize(here.samples[0], (5, 32, 32, 3))
    check_parity(graph.SerializeToString(), clip, torch_reference(network))
    quantized = int8(graph, None, here.samples[:4])
    check_parity(quantized.SerializeToString(), clip)
    numbers = [sum(p.numel() for p in t.extractor.parameters()) for t in (before, after)]
    assert numbers[1] < 0.75 * numbers[0]
    assert len(graph.SerializeToString()) < 4 * sum(numbers[1:]) + 4 * sum(p.numel() for p in after.head.parameters()) + 40_000  # noqa: E501  # fmt: skip


def test_other_backbones_and_wrong_shares_are_refused():
    extractor = build_extractor(Extractor("pixels", input_size=(32, 32), cut="gray", grid=0, weights="none"))
    assert isinstance(extractor.backbone, Pixels)
    with pytest.raises(RecipeError, match="the extractor is a Pixels, known is MobileNetV2"):
        thin_extractor(extractor, 0.5, frames())
    with pytest.raises(RecipeError, match="share of weights removed"):
        channels(Trained(small_extractor(), None), 1.0, material())
