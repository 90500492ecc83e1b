"""Tensor-train heads: the papers' counts, the order of features, dropout, and files that hold cores alone."""

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vidlet.artifact import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    check_parity,
    torch_reference,
    write_artifact,
)
from vidlet.compression.steps import find_chain, shrink_graph
from vidlet.errors import RecipeError
from vidlet.models import build_extractor, build_head
from vidlet.models.tt_heads import group_last
from vidlet.recipe import Extractor, Head, Recipe, load_recipe
from vidlet.runtime import inspect_artifact, load
from vidlet.runtime.safety import check_safe
from vidlet.runtime.structure import check_structure
from vidlet.runtime.train_plan import TrainPlan, plan_frame, tensor_trains
from vidlet.tensor_train import TTLinear
from vidlet.tensor_train.layers import planned_product

PIXELS = Extractor(name="pixels", input_size=(120, 160), cut="rgb", grid=0, weights="none")
DETECTOR = {"in_modes": [17, 19, 19, 25], "groups": 25}
FRAMES = {"in_modes": [8, 20, 20, 18]}
MAP, FRAME = (425, 19, 19), (3, 120, 160)


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


# The papers' counts.


@pytest.mark.parametrize(
    ("name", "options", "shape", "count"),
    [("tt-lstm", DETECTOR, MAP, 3920), ("tt-lstm", FRAMES, FRAME, 3360), ("tt-gru", FRAMES, FRAME, 3232)],
)
def test_the_input_map_has_the_printed_number_of_parameters(name, options, shape, count):
    head = build_head(Head(name, options), shape, 11)
    assert parameters(head.rnn.input_map) == count
    assert head.rnn.input_map.ranks == (1, 4, 4, 4, 1)


def test_the_dense_forms_are_as_large_as_printed_and_as_recomputed():
    frames, features = (
        build_head(Head("tt-lstm", options), shape, 11).rnn.input_map
        for options, shape in ((FRAMES, FRAME), (DETECTOR, MAP))
    )
    assert frames.in_features * frames.out_features == 58_982_400
    assert round(58_982_400 / parameters(frames), 1) == 17_554.3  # as printed
    assert round(58_982_400 / parameters(features), 1) == 15_046.5  # as printed, of another input
    assert features.in_features * features.out_features == 157_107_200
    assert round(157_107_200 / parameters(features)) == 40_078  # of the same input


def test_a_whole_classifier_of_eleven_classes_has_the_recomputed_totals():
    assert parameters(build_head(Head("tt-lstm", DETECTOR), MAP, 11)) == 269_915
    both = build_head(Head("tt-lstm", {**DETECTOR, "recurrent_ranks": [4]}), MAP, 11)
    assert parameters(both.rnn.hidden_map) == 832
    assert parameters(both) == 8_603
    gru = build_head(Head("tt-gru", FRAMES), FRAME, 11)  # one bias a gate, one more inside the reset gate
    assert parameters(gru) == 3232 + 3 * 256 * 256 + 3 * 256 + 256 + 256 * 11 + 11


def test_the_recipes_build_what_the_papers_count():
    for name, shape, maps in [
        ("tt-lstm-pixels", FRAME, (3360, 832)),
        ("tt-lstm-grid", (96, 4, 4), (1472, 832)),
        ("tt-gru-grid", (96, 4, 4), (1376, 768)),
    ]:
        head = build_head(load_recipe(name).head, shape, 10)
        assert (parameters(head.rnn.input_map), parameters(head.rnn.hidden_map)) == maps, name
    plain = build_head(load_recipe("lstm-pixels").head, FRAME, 10)
    assert plain.rnn.weight_ih_l0.numel() == 58_982_400


# What they compute.


def test_a_detectors_map_is_read_in_the_order_that_the_specification_fixes():
    one = torch.arange(425 * 19 * 19, dtype=torch.float32).reshape(1, 1, 425, 19, 19)
    expected = one.reshape(25, 17, 19, 19).permute(1, 2, 3, 0).flatten()
    torch.testing.assert_close(group_last(one, 25)[0, 0], expected, rtol=0, atol=0)
    channel, row, column = 3 * 17 + 5, 7, 11  # group 3, 5 inside it
    place = ((5 * 19 + row) * 19 + column) * 25 + 3
    assert group_last(one, 25)[0, 0, place] == one[0, 0, channel, row, column]


def test_one_group_is_channels_first_and_as_many_as_channels_is_channels_last():
    x = torch.randn(2, 3, 6, 2, 4)
    torch.testing.assert_close(group_last(x, 1), x.flatten(2), rtol=0, atol=0)
    torch.testing.assert_close(group_last(x, 6), x.permute(0, 1, 3, 4, 2).flatten(2), rtol=0, atol=0)


@torch.no_grad()
def test_a_head_equals_torchs_lstm_of_its_rebuilt_matrices():
    head = build_head(Head("tt-lstm", {"out_modes": [2, 2, 4], "recurrent_ranks": [3, 2]}), (6, 2, 2), 5).eval()
    head.rnn.bias.normal_()
    lstm = torch.nn.LSTM(24, 16, batch_first=True)
    lstm.weight_ih_l0.copy_(head.rnn.input_map.matrix().t())
    lstm.weight_hh_l0.copy_(head.rnn.hidden_map.matrix().t())
    lstm.bias_ih_l0.copy_(head.rnn.bias)
    lstm.bias_hh_l0.zero_()
    clip = torch.randn(3, 7, 6, 2, 2)
    logits, state = head(clip, head.zero_state(3, clip))
    _, (h, c) = lstm(clip.flatten(2))
    torch.testing.assert_close(logits, head.classify(h[0]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state["c"], c[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["tt-lstm", "tt-gru"])
def test_without_ranks_both_matrices_are_dense_and_the_file_keeps_the_contract(name):
    torch.manual_seed(0)
    head = build_head(Head(name, {"out_modes": [4, 2], "ranks": []}), (3, 8, 8), 4)
    assert all(isinstance(m, torch.nn.Linear) for m in (head.rnn.input_map, head.rnn.hidden_map))
    network = ArtifactNetwork(torch.nn.Identity(), head).eval()
    network.extractor.forward = lambda frames: frames.permute(0, 3, 1, 2) / 255
    frames = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    check_parity(artifact_graph(network, (8, 8)).SerializeToString(), frames, torch_reference(network))


def test_dropout_takes_the_same_numbers_from_all_frames_of_a_clip_and_none_from_a_trained_head():
    head = build_head(Head("tt-gru", {"dropout": 0.5, "recurrent_dropout": 0.5}), (6, 8, 8), 5)
    given = {}
    rnn = head.rnn.forward
    head.rnn.forward = lambda x, state, mask: given.update(x=x, mask=mask) or rnn(x, state, mask)
    clip = torch.ones(2, 5, 6, 8, 8)
    head.train()(clip, head.zero_state(2, clip))
    assert set(given["x"].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(given["x"], given["x"][:, :1].expand(-1, 5, -1))
    assert not torch.equal(given["x"][0], given["x"][1])
    assert set(given["mask"].unique().tolist()) == {0.0, 2.0}
    assert given["mask"].shape == (2, 256)
    head.eval()(clip, head.zero_state(2, clip))
    assert torch.equal(given["x"], clip.flatten(2))
    assert given["mask"] is None


def test_an_lstm_starts_with_forget_bias_one_and_orthogonal_recurrence():
    head = build_head(Head("tt-lstm", FRAMES), FRAME, 5)
    assert head.rnn.bias.unflatten(0, (4, 256)).tolist() == [[float(gate == 1)] * 256 for gate in range(4)]
    for gate in head.rnn.hidden_map.weight.unflatten(0, (4, 256)):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(256), atol=1e-4, rtol=0)


# The file.


@pytest.fixture(scope="module")
def pixel_file(tmp_path_factory):
    """Network, graph and file of the recipe tt-lstm-pixels, with weights that have an opinion; frames (6, ...)."""
    torch.manual_seed(0)
    plan = load_recipe("tt-lstm-pixels")
    extractor = build_extractor(plan.extractor)
    head = build_head(plan.head, extractor.feature_shape, 5)
    with torch.no_grad():
        head.classify.weight.mul_(30)
    network = ArtifactNetwork(extractor, head).eval()
    graph = artifact_graph(network, extractor.input_size)
    path = tmp_path_factory.mktemp("pixels") / "model.onnx"
    frames = np.random.default_rng(0).integers(0, 256, (6, 120, 160, 3), dtype=np.uint8)
    metadata = artifact_metadata(plan, tuple("abcde"), 1.5, {"weights": "none"})
    write_artifact(graph, path, metadata, frames, torch_reference(network))
    return graph, path, frames, metadata


def test_a_whole_pixel_to_action_file_is_under_64_kilobytes_and_holds_cores_alone(pixel_file):
    graph, path, _, _ = pixel_file
    assert path.stat().st_size < 64_000
    floats = [t for t in graph.graph.initializer if t.data_type == TensorProto.FLOAT]
    cores = sum(math.prod(t.dims) for t in floats if ".cores." in t.name)
    assert cores == 3360 + 832
    assert sum(math.prod(t.dims) for t in floats) < cores + 1024 + 5 * 256 + 5 + 20  # bias, classifier, pixels


@pytest.mark.parametrize("step", ["int8", "half"])
def test_compression_steps_take_a_network_without_convolutions(step, pixel_file, tmp_path):
    graph, path, frames, metadata = pixel_file
    small = shrink_graph(find_chain(step), graph, [frames] * 2)
    size = write_artifact(small, tmp_path / "small.onnx", metadata, frames)
    assert size < path.stat().st_size
    found, full = (load(p, threads=1)(frames)[0] for p in (tmp_path / "small.onnx", path))
    assert full.max() - full.min() > 0.05
    np.testing.assert_allclose(found, full, atol=0.1 if step == "int8" else 5e-3)
    assert [t["parameters"] for t in tensor_trains(check_safe((tmp_path / "small.onnx").read_bytes(), "").graph)] == [
        832,
        3360,
    ]


def test_inspect_tells_modes_ranks_sizes_and_what_a_frame_is_multiplied_with(pixel_file):
    hidden, inputs = inspect_artifact(pixel_file[1])["tensor_trains"]
    assert inputs == {
        "name": "head.rnn.input_map", "in_modes": [8, 20, 20, 18], "out_modes": [16, 4, 4, 4], "places": 0,
        "ranks": [1, 4, 4, 4, 1], "parameters": 3360, "dense_parameters": 58_982_400, "groups": [[0], [1], [2, 3]],
        **{key: inputs[key] for key in ("form", "why", "expected_us", "dense_us", "chain_us", "slower")},
    }  # fmt: skip
    assert (hidden["name"], hidden["groups"]) == ("head.rnn.hidden_map", [[0, 1], [2, 3]])


def test_inspect_tells_a_convolution_whose_kernel_is_rebuilt_when_the_file_is_loaded():
    cores = {"body.cores.0": (9, 2), "body.cores.1": (2, 4, 6, 1), "lone.cores.0": (3, 3)}
    kept = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in cores.items()]
    kept.append(numpy_helper.from_array(np.array([2, 24]), "flat"))
    kept.append(numpy_helper.from_array(np.array([6, 4, 3, 3]), "kernel"))
    nodes = [
        helper.make_node("Reshape", ["body.cores.1", "flat"], ["right"]),
        helper.make_node("MatMul", ["body.cores.0", "right"], ["whole"]),
        helper.make_node("Reshape", ["whole", "kernel"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"]),
        helper.make_node("MatMul", ["y", "lone.cores.0"], ["z"]),
    ]
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xz")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [z], kept))
    assert tensor_trains(check_structure(model.SerializeToString(), "here").graph) == [
        {"name": "body", "in_modes": [4], "out_modes": [6], "places": 9, "ranks": [2, 1], "parameters": 66,
         "dense_parameters": 216, "groups": [[0, 1]], "form": "rebuilt", "expected_us": None, "dense_us": None,
         "chain_us": None, "why": "kernels are rebuilt at load, a frame costs what it costs dense", "slower": ""}
    ]  # fmt: skip


def test_frames_are_projected_once_whatever_the_number_of_windows(pixel_file):
    graph = onnx.shape_inference.infer_shapes(pixel_file[0]).graph
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.value_info}
    scan = next(node for node in graph.node if node.op_type == "Scan")
    assert shapes[scan.input[-1]][1:] == [1, 1024]
    assert not [node.name for node in graph.node if node.op_type == "Expand"]


@pytest.mark.parametrize(("height", "node", "groups"), [(32, "Scan", 2), (1, "GRU", 1)])
def test_a_train_is_contracted_a_frame_or_becomes_the_matrix_of_the_runtimes_own_node(height, node, groups):
    torch.manual_seed(0)
    shape = (3, height, 48)
    head = build_head(Head("tt-gru", {"out_modes": [4, 4, 4], "ranks": [3]}), shape, 4)
    network = ArtifactNetwork(torch.nn.Identity(), head).eval()
    network.extractor.forward = lambda frames: frames.permute(0, 3, 1, 2) / 255
    graph = artifact_graph(network, shape[1:])
    frames = np.random.default_rng(0).integers(0, 256, (6, *shape[1:], 3), dtype=np.uint8)
    check_parity(graph.SerializeToString(), frames, torch_reference(network))  # whole, frame by frame, 1 and 3 windows
    assert [n.op_type for n in graph.graph.node if n.op_type in ("Scan", "GRU", "Loop")] == [node]
    (train,) = tensor_trains(check_safe(graph.SerializeToString(), "").graph)
    assert len(train["groups"]) == groups
    assert {t.name for t in graph.graph.initializer} >= {f"head.rnn.input_map.cores.{k}" for k in range(3)}


# The plan of a frame.


@pytest.mark.parametrize(
    ("in_modes", "out_modes", "groups"),
    [
        ((8, 20, 20, 18), (16, 4, 4, 4), ((0,), (1,), (2, 3))),
        ((17, 19, 19, 25), (16, 4, 4, 4), ((0,), (1,), (2, 3))),
        ((6, 8, 8, 4), (16, 4, 4, 4), ((0, 1), (2, 3))),
        ((2, 2), (2, 2), ((0, 1),)),
    ],
)
def test_the_plan_of_a_frame_is_the_one_that_was_fastest_when_measured(in_modes, out_modes, groups):
    layer = TTLinear(in_modes, out_modes, 4, bias=False)
    plan = plan_frame(layer.shapes)
    assert plan.groups == groups
    assert plan.last_first
    assert plan.us <= plan.dense_us


@torch.no_grad()
@pytest.mark.parametrize("last_first", [True, False])
@pytest.mark.parametrize("groups", [((0, 1, 2),), ((0, 1), (2,)), ((0,), (1, 2)), ((0,), (1,), (2,))])
def test_every_grouping_in_either_direction_is_the_product_with_the_matrix(groups, last_first):
    torch.manual_seed(0)
    layer = TTLinear((3, 2, 5), (4, 6, 2), (5, 3), bias=False)
    x = torch.randn(7, 30)
    found = planned_product(list(layer.cores), TrainPlan(groups, last_first))(x)
    torch.testing.assert_close(found, x @ layer.matrix(), atol=1e-5, rtol=1e-5)


# What is refused.


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("tt-lstm", {"in_modes": [8, 20, 20, 17]}, r"head tt-lstm: in_modes \[8, 20, 20, 17\] multiply to 54400, "
         r"features \(3, 120, 160\) have 57600 numbers; \[20, 20, 12, 12\] would fit"),
        ("tt-gru", {"groups": 2}, r"head tt-gru: groups must divide the 3 channels of \(3, 120, 160\), got 2"),
        ("tt-gru", {"ranks": [4, 0]}, r"option ranks must be a list of whole numbers >= 1, got \[4, 0\]"),
        ("tt-gru", {"ranks": 2.5}, "option ranks must be a list of whole numbers >= 1, got 2.5"),
        ("tt-gru", {"in_modes": [240, 240]}, "2 input modes .* against 4 output modes"),
        ("tt-lstm", {"recurrent_ranks": [4, 4]}, "2 ranks .* for 4 cores"),
        ("tt-lstm", {"rank": [4]}, "did you mean ranks"),
    ],
)  # fmt: skip
def test_modes_and_ranks_that_do_not_fit_are_named_with_what_would(name, options, said):
    with pytest.raises(RecipeError, match=said):
        build_head(Head(name, options), FRAME, 5)


def test_one_rank_may_stand_without_brackets():
    alone, listed = (build_head(Head("tt-lstm", {"ranks": r}), (6, 2, 2), 5).rnn.input_map.ranks for r in (3, [3]))
    assert alone == listed == (1, 3, 3, 3, 1)


def test_weights_of_other_ranks_are_refused_by_the_layers_name():
    other = build_head(Head("tt-lstm", {"ranks": [3]}), (6, 8, 8), 5)
    head = build_head(Head("tt-lstm", {"ranks": [4]}), (6, 8, 8), 5)
    with pytest.raises(Exception, match=r"rnn\.input_map") as refused:
        head.load_state_dict(other.state_dict())
    assert "4" in str(refused.value)
    assert "3" in str(refused.value)


def test_a_plan_of_recipe_and_metadata_keeps_lists_as_they_are():
    plan = Recipe("x", extractor=PIXELS, head=Head("tt-lstm", {"ranks": [4]}))
    described = artifact_metadata(plan, ("a",), 1.0, {})
    assert described["recipe"]["head"]["options"] == {"ranks": [4]}
