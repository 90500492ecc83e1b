"""Clip networks: the papers' counts exactly, the ring of frames, trains equal to what they stand for, the file."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from vidlet.artifact import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    check_parity,
    torch_reference,
    write_artifact,
)
from vidlet.errors import RecipeError
from vidlet.models import build_extractor, build_head
from vidlet.models.clip_networks import ClipNetwork3d, count_weights
from vidlet.models.clip_tables import CLIP_NETWORKS, read_train
from vidlet.recipe import Extractor, Head, Recipe, Sampling, load_recipe, recipe_names
from vidlet.runtime import load
from vidlet.tensor_train import TTConv3d, TTLinear, to_conv, to_linear
from vidlet.video import read_clip, write_video

SHAPE, FRAMES = (2, 9, 7), 6
SMALL = {"network": "small", "frames": FRAMES}


def small(**options) -> nn.Module:
    torch.manual_seed(0)
    return build_head(Head("clip-network", {**SMALL, **options}), SHAPE, 4).eval()


def clip_of(frames: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, frames, *SHAPE, generator=torch.Generator().manual_seed(seed))


def logits_of(head, clip, mask=None):
    with torch.no_grad():
        return head(clip, head.zero_state(len(clip), clip), mask)[0]


# The counts of the papers' tables: (convolutions, whole), without biases.


@pytest.mark.parametrize(
    ("name", "dense", "train"),
    [
        ("viva-1", (70_416, 2_303_504), (15_088, 194_032)),
        ("viva-2", (206_520, 13_585_592), (14_880, 285_216)),
        ("viva-3", (2_750_400, 16_129_472), (132_880, 460_304)),
        ("viva-4", (3_905_472, 73_121_216), (228_976, 1_364_080)),
        ("viva-5", (4_790_208, 84_809_664), (245_360, 468_116)),
    ],
)
def test_the_viva_networks_have_the_papers_counts(name, dense, train):
    assert count_weights(name, 19) == dense
    assert count_weights(name, 19, "both") == train


@pytest.mark.parametrize(("classes", "dense", "train"), [(11, 88_172_480, 823_904), (101, 88_356_800, 1_008_224)])
def test_both_streams_of_the_ucf_network_have_the_papers_counts(classes, dense, train):
    assert [2 * n for n in count_weights("ucf", classes)] == [4_949_952, dense]
    assert [2 * n for n in count_weights("ucf", classes, "both")] == [363_776, train]


def test_parts_of_viva_1_in_tensor_train_form_are_those_of_the_papers_fifth_table():
    printed = {"none": (0.07, 2.3), "linear": (0.07, 0.25), "convolutions": (0.015, 2.25), "both": (0.015, 0.2)}
    for form, (convolutions, whole) in printed.items():
        counted = count_weights("viva-1", 19, form)
        assert counted == pytest.approx((1e6 * convolutions, 1e6 * whole), rel=0.035)


def test_pools_leave_the_maps_that_the_fully_connected_sizes_need():
    sizes = {"viva-1": (64, 2, 4, 8), "viva-5": (384, 2, 4, 8), "ucf": (512, 4, 2, 3)}
    for name, maps in sizes.items():
        table = CLIP_NETWORKS[name]
        assert table.maps(table.frames, *table.size) == maps


@pytest.mark.parametrize("name", CLIP_NETWORKS)
def test_a_smaller_table_in_tensor_train_form_has_fewer_weights(name):
    dense, train = count_weights(name, 10)[1], count_weights(name, 10, "both")[1]
    assert train < dense / 4


def test_a_train_is_read_from_its_notation():
    assert read_train("4.4 4.8 @16") == ((4, 4), (4, 8), (16,))
    assert read_train("8.5 8.5 6.5 @40,30") == ((8, 8, 6), (5, 5, 5), (40, 30))


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).head.name == "clip-network"])
def test_the_built_in_recipes_build_their_network_on_their_frames(name):
    recipe = load_recipe(name)
    extractor = build_extractor(recipe.extractor)
    with torch.device("meta"):
        head = build_head(recipe.head, extractor.feature_shape, 19)
    trains = [m for m in head.modules() if isinstance(m, (TTConv3d, TTLinear))]
    assert bool(trains) == name.endswith("-tt")
    frames = recipe.sampling.frames if recipe.sampling.rule == "uniform" else recipe.sampling.max_frames
    assert head.frames == frames


# The ring.


def test_only_the_last_frames_count_however_they_came():
    head, clip = small(), clip_of(2 * FRAMES + 3)
    expected = logits_of(head, clip[:, -FRAMES:])
    torch.testing.assert_close(logits_of(head, clip), expected)
    state = head.zero_state(1, clip)
    with torch.no_grad():
        for part in clip.split(4, dim=1):
            logits, state = head(part, state)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(state["ring"], clip[:, -FRAMES + 1 :])
    assert state["count"].item() == FRAMES


def test_before_the_first_frame_its_copies_stand():
    head, clip = small(), clip_of(2)
    full = torch.cat([clip[:, :1].expand(-1, FRAMES - 2, -1, -1, -1), clip], dim=1)
    torch.testing.assert_close(logits_of(head, clip), logits_of(head, full))


def test_clips_of_several_lengths_in_one_batch_are_scored_as_alone():
    head, clip = small(tt="both"), clip_of(9, batch=4)
    lengths = torch.tensor([1, 4, FRAMES, 9])
    mask = torch.arange(9) < lengths[:, None]
    together = logits_of(head, clip, mask)
    alone = torch.cat([logits_of(head, clip[i : i + 1, :n]) for i, n in enumerate(lengths.tolist())])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_training_drops_pixels_of_the_last_channel_only():
    head, clip = small(pixel_drop=0.5, dropout=0.0), clip_of(FRAMES)
    seen = []
    head.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].transpose(1, 2)))
    logits_of(head, clip)
    logits_of(head.train(), clip)
    still, dropped = seen
    torch.testing.assert_close(still, clip)
    torch.testing.assert_close(dropped[:, :, :-1], clip[:, :, :-1])
    gone = dropped[:, :, -1] == 0
    assert 0.35 < gone.float().mean() < 0.65
    torch.testing.assert_close(dropped[:, :, -1][~gone], clip[:, :, -1][~gone])


# The forms.


def test_a_network_of_trains_scores_as_the_dense_network_that_they_stand_for():
    head, clip = small(tt="both"), clip_of(FRAMES, batch=2)
    expected = logits_of(head, clip)
    network, replaced = head.network, 0
    for block in network.convolutions:
        if isinstance(block.convolution, TTConv3d):
            block.convolution = to_conv(block.convolution)
            replaced += 1
    for i, layer in enumerate(network.linear):
        if isinstance(layer, TTLinear):
            network.linear[i] = to_linear(layer)
            replaced += 1
    assert replaced == 4
    torch.testing.assert_close(logits_of(head, clip), expected, atol=1e-5, rtol=0)


def test_a_given_rank_is_that_of_every_train_and_is_clipped():
    trains = [m for m in small(tt="both", rank=2).modules() if isinstance(m, (TTConv3d, TTLinear))]
    assert all(max(layer.ranks) == 2 for layer in trains)
    clipped = small(tt="both", rank=1000)
    assert max(max(m.ranks) for m in clipped.modules() if isinstance(m, TTLinear)) < 1000


def test_trains_can_be_fitted_to_frames_of_another_size_and_stay_the_tables_where_those_fit():
    options = {"network": "viva-2", "tt": "both", "fitted": True}
    smaller = build_head(Head("clip-network", {**options, "frames": 16}), (2, 14, 31), 4)
    [first, second] = [m for m in smaller.modules() if isinstance(m, TTLinear)]
    assert (first.in_features, first.out_features) == (128 * 1 * 2 * 4, 1536)
    assert (second.in_features, second.ranks) == (1536, (1, 16, 16, 16, 1))  # the table's, which fits
    assert math.prod(first.in_modes) == 1024 and sum(p.numel() for p in first.parameters()) < 1024 * 1536 / 20
    with torch.device("meta"):
        whole = build_head(Head("clip-network", options), (2, 28, 62), 4)
        plain = build_head(Head("clip-network", {**options, "fitted": False}), (2, 28, 62), 4)
    assert [p.shape for p in whole.parameters()] == [p.shape for p in plain.parameters()]


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        ({"network": "viva-11"}, SHAPE, r"no clip network 'viva-11' \(did you mean viva-1\?\)"),
        ({"tt": "all"}, SHAPE, "tt must be one of none, convolutions, linear, both, got 'all'"),
        ({"frames": 1}, SHAPE, "frames must be 0 .* or >= 2, got 1"),
        ({}, (1280,), r"needs whole maps \(C, H, W\); the extractor gives \(1280,\): take pixels"),
        (
            {"network": "viva-1", "tt": "linear"},
            (2, 56, 62),
            "viva-1, fully connected layer 1: modes .* multiply to 4096, its inputs are 7168.* 32 frames of 28 x 62 "
            r"\(head.options.fitted=true",
        ),
    ],
)
def test_what_a_clip_network_cannot_be_is_named(options, shape, said):
    with pytest.raises(RecipeError, match=said), torch.device("meta"):
        build_head(Head("clip-network", options), shape, 4)


# The file.


def test_the_file_holds_the_cores_and_the_runtime_multiplies_them_once_at_load(tmp_path):
    extractor = build_extractor(Extractor("pixels", input_size=SHAPE[1:], cut="gray-sobel", grid=0, weights="none"))
    head = small(tt="both")
    network = ArtifactNetwork(extractor, head).eval()
    graph = artifact_graph(network, SHAPE[1:])
    stored = {t.name: tuple(t.dims) for t in graph.graph.initializer}
    cores = [name for name, _ in head.named_parameters() if ".cores." in name]
    assert {f"head.{name}" for name in cores} <= stored.keys()
    kernels = [shape for shape in stored.values() if len(shape) == 5]
    assert kernels == [(8, 2, 3, 3, 3)]  # the first convolution's alone
    data = graph.SerializeToString()
    frames = np.random.default_rng(0).integers(0, 256, (9, *SHAPE[1:], 3), np.uint8)
    check_parity(data, frames, torch_reference(network))

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    constants = {t.name: tuple(t.dims) for t in loaded.initializer}
    convolutions = [node for node in loaded.node if "Conv" in node.op_type]
    assert [constants[node.input[1]][0] for node in convolutions] == [8, 16, 32, 64]
    assert not [name for name in constants if ".cores." in name and ".convolution." in name]
    assert not [node for node in loaded.node if node.op_type == "BatchNormalization"]


def test_a_clip_of_the_networks_length_is_one_call_of_the_runtime(tmp_path, monkeypatch):
    extractor = build_extractor(Extractor("pixels", input_size=SHAPE[1:], cut="gray-sobel", grid=0, weights="none"))
    network = ArtifactNetwork(extractor, small()).eval()
    plan = Recipe("test", Sampling("uniform", frames=FRAMES), head=Head("clip-network", SMALL))
    clip = np.random.default_rng(0).integers(0, 256, (20, 24, 32, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", clip, fps=10)
    metadata = artifact_metadata(plan, ("a", "b", "c", "d"), 2.0, {"weights": "none"})
    graph = artifact_graph(network, SHAPE[1:])
    write_artifact(graph, tmp_path / "model.onnx", metadata, clip[:6, : SHAPE[1], : SHAPE[2]])
    model = load(tmp_path / "model.onnx", threads=1)
    calls = []
    run = model.run
    monkeypatch.setattr(model, "run", lambda frames, state: calls.append(len(frames)) or run(frames, state))
    prediction = model.classify(tmp_path / "clip.mp4")
    assert calls == [FRAMES]
    frames = read_clip(tmp_path / "clip.mp4", plan.sampling, SHAPE[1:]).frames
    np.testing.assert_allclose(list(prediction.scores.values()), model(frames)[0][0], atol=1e-6)


def test_in_bfloat16_gradients_of_clips_shorter_than_a_kernel_are_those_of_float32():
    found = []
    for low in (False, True):
        torch.manual_seed(0)
        network = ClipNetwork3d("viva-1", (2, 14, 31), 4, frames=8, dropout=0.0, fitted=True).train()
        clips = torch.randn(4, 2, 8, 14, 31)  # two frames are left before the third convolution, of three
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = nn.functional.cross_entropy(network(clips).float(), torch.arange(4))
        loss.backward()
        found.append({name: p.grad for name, p in network.named_parameters()})
    for name, expected in found[0].items():
        assert (found[1][name] - expected).norm() < 0.3 * expected.norm(), name
