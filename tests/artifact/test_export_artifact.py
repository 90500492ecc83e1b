"""The artifact: every head behind an extractor keeps the contract, and a file that differs is never written."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from vidlet.artifact import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    check_parity,
    torch_reference,
    write_artifact,
)
from vidlet.compression import CLIP_STEPS
from vidlet.errors import ExportError, ParityError
from vidlet.models import HEADS, build_extractor, build_head
from vidlet.recipe import Extractor, Head, Recipe
from vidlet.runtime import load, read_metadata
from vidlet.video import RESIZE

LABELS = ("jump", "run", "sit")
OPTIONS = {
    "single": {"units": 16},
    "mean": {"units": 16},
    "gru": {"hidden": 16, "units": 16},
    "lstm": {"hidden": 16, "units": 16},
    "grid-gru": {"channels": 8, "project": 16, "hidden": 16, "appearance": True},
    "netvlad": {"clusters": 8, "hidden": 32, "experts": 2, "audio": 4},
    "nextvlad": {"clusters": 8, "groups": 4, "hidden": 32},
    "bag-of-frames": {"project": 32, "hidden": 32},
    "bag-of-words": {"clusters": 32, "hidden": 32},
    "netfv": {"clusters": 8, "hidden": 16, "audio": 4},
    "pooled": {"hidden": 32},
    "gru-moe": {"hidden": 32},
    "lstm-moe": {"hidden": 32},
    "tt-grid-gru": {"channels": 8, "project": 16, "hidden": 16, "ranks": [3], "appearance": True},
    "tt-lstm": {"out_modes": [2, 2, 4], "ranks": [3], "recurrent_ranks": [3, 2]},
    "tt-gru": {"in_modes": [2, 2, 4], "out_modes": [2, 2, 4], "ranks": [3], "changes": True},
    "clip-network": {"network": "small", "frames": 12, "tt": "linear"},
    "frame-network": {"network": "cnn-2"},
    "window": {"frames": 12, "project": 16, "hidden": 32},
    "probe": {"statistics": "mean+deviation+change+highest+middle+segments+steps", "segments": 2},
    "blend": {
        "members": [
            {"head": "gru", "options": {"hidden": 24, "units": 24}},
            {"head": "probe", "options": {"statistics": "segments+steps", "segments": 2}, "weight": 2.0},
        ]
    },
}
GRID = Extractor(width=0.35, input_size=(64, 64), cut="block4", grid=4, weights="none")
POOLED = Extractor(width=0.35, input_size=(64, 64), cut="block4", grid=0, weights="none")


def moving(count: int, seed: int = 0) -> np.ndarray:
    """Frames uint8 (T, 64, 64, 3): a bright block that wanders over blurred noise."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 160, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([ground] * count)
    for t in range(count):
        frames[t, 8 + 2 * t % 40 :, 5 + 3 * t % 50 :][:12, :12] = 240
    return frames


def network(name: str, multi_label: bool = False) -> ArtifactNetwork:
    torch.manual_seed(1)
    extractor = build_extractor(GRID if "grid" in name or name in ("clip-network", "frame-network") else POOLED)
    head = build_head(Head(name, OPTIONS[name]), extractor.feature_shape, len(LABELS))
    with torch.no_grad():  # a head that has learned something: scores far from equal
        features = extractor.eval()(torch.from_numpy(moving(12)))
        dims = (0, *range(2, features.ndim))
        head.calibrate(features.mean(dims), features.std(dims))
        # seven layers, or 192 inputs of one, multiply it
        noise = {"clip-network": 0.02, "frame-network": 0.02, "window": 0.1}.get(name, 0.3)
        for parameter in head.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return ArtifactNetwork(extractor, head, 1.3, multi_label).eval()


def described(name: str, multi_label: bool = False) -> dict:
    plan = Recipe("test", extractor=GRID, head=Head(name, OPTIONS[name]))
    return artifact_metadata(plan, LABELS, 1.5, {"weights": "none"}, 1.3, multi_label)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Each head's network, graph and file, made once."""
    made: dict[str, tuple] = {}

    def get(name: str):
        if name not in made:
            net = network(name)
            graph = artifact_graph(net, (64, 64))
            path = tmp_path_factory.mktemp("artifact") / f"{name}.onnx"
            write_artifact(graph, path, described(name), moving(6), torch_reference(net))
            made[name] = (net, graph, path)
        return made[name]

    return get


every_head = pytest.mark.parametrize("name", sorted(HEADS))


@every_head
def test_names_and_free_dimensions_are_the_contracts(name, exported):
    net, _, path = exported(name)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    outputs = {o.name: o.shape for o in session.get_outputs()}
    assert inputs["frames"] == ("tensor(uint8)", ["T", 64, 64, 3])
    assert outputs["scores"] == ["N", len(LABELS)]
    assert set(inputs) == {"frames", *(f"state.{key}" for key in net.head.state_shapes)}
    assert set(outputs) == {"scores", *(f"next_state.{key}" for key in net.head.state_shapes)}
    for key, shape in net.head.state_shapes.items():
        assert inputs[f"state.{key}"] == ("tensor(float)", ["N", *shape])


@every_head
@pytest.mark.parametrize(("frames", "windows"), [(1, 1), (2, 3), (9, 1), (17, 2)])
def test_the_file_gives_the_networks_scores_at_any_length_and_number_of_windows(name, frames, windows, exported):
    net, _, path = exported(name)
    model, clip = load(path, threads=1), moving(frames, seed=frames)
    scores, state = model(clip, model.zero_state(windows))
    np.testing.assert_allclose(scores, torch_reference(net)(clip, windows), atol=1e-5)
    np.testing.assert_allclose(scores.sum(1), 1.0, atol=1e-5)
    assert {key: array.shape for key, array in state.items()} == {
        key: (windows, *shape) for key, shape in net.head.state_shapes.items()
    }


@every_head
def test_streaming_one_frame_at_a_time_equals_the_whole_clip(name, exported):
    model, clip = load(exported(name)[2], threads=1), moving(11)
    whole, _ = model(clip)
    for step in (1, 4):
        state = None
        for begin in range(0, len(clip), step):
            scores, state = model(clip[begin : begin + step], state)
        np.testing.assert_allclose(scores, whole, atol=1e-5)


@pytest.mark.parametrize("positions", ["mirrored", "pooled"])
def test_what_a_probe_leaves_of_a_grid_is_the_same_in_the_file(positions, tmp_path):
    """Writing holds the file to the network and to itself frame by frame; loading, to what a file may hold."""
    torch.manual_seed(3)
    extractor = build_extractor(GRID).eval()
    options = OPTIONS["probe"] | {"positions": positions}
    net = ArtifactNetwork(
        extractor, build_head(Head("probe", options), extractor.feature_shape, len(LABELS)), 1.0
    ).eval()
    path = tmp_path / "model.onnx"
    write_artifact(artifact_graph(net, (64, 64)), path, described("probe"), moving(6), torch_reference(net))
    clip = moving(9, seed=4)
    np.testing.assert_allclose(load(path, threads=1)(clip)[0], torch_reference(net)(clip, 1), atol=1e-5)


@every_head
def test_windows_share_the_frames_and_keep_their_own_history(name, exported):
    model, early, late = load(exported(name)[2], threads=1), moving(5, seed=1), moving(6, seed=2)
    _, state = model(early, model.zero_state(2))
    for array in state.values():
        array[1] = 0  # window 1 begins anew
    scores, _ = model(late, state)
    np.testing.assert_allclose(scores[0], model(np.concatenate([early, late]))[0][0], atol=1e-5)
    np.testing.assert_allclose(scores[1], model(late)[0][0], atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4


@every_head
def test_the_metadata_are_valid_and_say_how_to_use_the_file(name, exported):
    path = exported(name)[2]
    found = read_metadata(path)
    assert found["labels"] == list(LABELS)
    assert found["inputs"] == ["frames"]
    assert found["sampling"] == {"rule": "rate", "hz": 8.0, "median_s": 1.5}
    assert found["resize"]["golden"] == RESIZE["golden"]
    assert found["recipe"]["head"] == {"name": name, "options": OPTIONS[name]}
    assert found["temperature"] == 1.3


def tampered(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with one weight of its head changed."""
    found = copy.deepcopy(graph)
    largest = [t for t in found.graph.initializer if t.name.startswith("head") and len(t.dims) == 2][-1]
    values = numpy_helper.to_array(largest).copy()
    values[0] += 0.5
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))
    return found


@every_head
def test_a_graph_with_a_changed_weight_is_refused_and_nothing_written(name, exported, tmp_path):
    net, graph, _ = exported(name)
    path = tmp_path / "out" / "model.onnx"
    with pytest.raises(ParityError, match="file and network"):
        write_artifact(tampered(graph), path, described(name), moving(6), torch_reference(net))
    assert not list(tmp_path.rglob("*.onnx"))


def test_a_file_that_forgets_its_state_is_refused(exported):
    graph = copy.deepcopy(exported("gru")[1])
    for node in graph.graph.node:  # whoever reads the state reads zeros instead
        for i, used in enumerate(node.input):
            if used == "state.h":
                node.input[i] = "forgotten"
    source = onnx.helper.make_node("Sub", ["state.h", "state.h"], ["forgotten"])
    graph.graph.node.insert(0, source)
    with pytest.raises(ParityError, match="frames one by one and at once"):
        check_parity(graph.SerializeToString(), moving(6))


def test_a_reference_of_another_shape_is_refused(exported):
    data = exported("mean")[1].SerializeToString()
    with pytest.raises(ParityError, match="shapes"):
        check_parity(data, moving(5), lambda frames, windows: np.zeros((windows, 2), np.float32))


def test_many_labels_have_independent_scores(tmp_path):
    net = network("gru", multi_label=True)
    graph = artifact_graph(net, (64, 64))
    path = tmp_path / "model.onnx"
    write_artifact(graph, path, described("gru", True), moving(6), torch_reference(net))
    model, clip = load(path, threads=1), moving(7)
    assert model.multi_label
    with torch.no_grad():
        features = net.extractor(torch.from_numpy(clip))[None]
        logits, _ = net.head(features, net.head.zero_state(1, features))
    np.testing.assert_allclose(model(clip)[0], (logits / 1.3).sigmoid().numpy(), atol=1e-5)


def test_temperature_divides_the_logits(exported):
    net, clip = exported("gru")[0], torch.from_numpy(moving(6))
    cooler = ArtifactNetwork(net.extractor, net.head, 1.0)
    state = list(net.head.zero_state(1, torch.zeros(1)).values())
    with torch.no_grad():
        warm, cold = net(clip, *state)[0], cooler(clip, *state)[0]
    torch.testing.assert_close(warm, (cold.log() / 1.3).softmax(1))


def test_the_same_network_gives_the_same_bytes(exported, tmp_path):
    net, _, path = exported("grid-gru")
    again = tmp_path / "again.onnx"
    write_artifact(artifact_graph(net, (64, 64)), again, described("grid-gru"), moving(6), torch_reference(net))
    assert again.read_bytes() == path.read_bytes()


# The steps that make the other files of a run.


@every_head
def test_the_int8_file_streams_in_integers_and_has_a_fraction_of_the_bytes(name, exported, tmp_path):
    _, graph, path = exported(name)
    clips = [moving(6, seed) for seed in range(4)]
    before = graph.SerializeToString(deterministic=True)
    small = CLIP_STEPS["int8"].apply(graph, None, clips)
    assert graph.SerializeToString(deterministic=True) == before  # a step returns a copy
    out = tmp_path / "model.int8.onnx"
    size = write_artifact(small, out, described(name), moving(6))
    kinds = {t.data_type for t in small.graph.initializer if np.prod(t.dims) >= 1024}
    assert kinds == {onnx.TensorProto.INT8}  # what is smaller costs more in scales than it saves
    stored, floats = (sum(numpy_helper.to_array(t).nbytes for t in g.graph.initializer) for g in (small, graph))
    assert stored < 0.45 * floats
    assert size == out.stat().st_size < path.stat().st_size
    model, clip = load(out, threads=1), moving(9, seed=7)
    whole, _ = model(clip)
    state = None
    for frame in clip:
        scores, state = model(frame[None], state)
    np.testing.assert_allclose(scores, whole, atol=1e-5)
    float32, others = load(path, threads=1), [moving(9, seed) for seed in range(7, 27)]
    differences = [np.abs(model(clip)[0] - float32(clip)[0]).max() for clip in others]
    assert np.mean(differences) < 0.08  # of random weights that make the scores steep
    assert np.median(differences) < 0.05


def test_every_convolution_of_the_int8_extractor_is_an_integer_kernel(exported, tmp_path):
    graph = exported("grid-gru")[1]
    small = CLIP_STEPS["int8"].apply(graph, None, [moving(6, seed) for seed in range(3)])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = onnx.load(tmp_path / "optimized.onnx").graph.node
    convolutions = sum(node.op_type == "Conv" for node in graph.graph.node)
    assert sum(node.op_type == "QLinearConv" for node in run) == convolutions > 5
    assert not [node.name for node in run if node.op_type in ("Conv", "FusedConv")]


def test_the_half_step_halves_the_weights_and_hardly_changes_a_score(exported, tmp_path):
    _, graph, path = exported("gru")
    small = CLIP_STEPS["half"].apply(graph, None, [])
    write_artifact(small, tmp_path / "model.half.onnx", described("gru"), moving(6))
    kinds = {t.data_type for t in small.graph.initializer if np.prod(t.dims) > 1000}
    assert kinds == {onnx.TensorProto.FLOAT16}
    clip = moving(8)
    found, full = (load(p, threads=1)(clip)[0] for p in (tmp_path / "model.half.onnx", path))
    np.testing.assert_allclose(found, full, atol=5e-3)


def test_steps_are_deterministic(exported):
    graph, clips = exported("grid-gru")[1], [moving(6, seed) for seed in range(3)]
    for name in ("int8", "half"):
        step = CLIP_STEPS[name].apply
        first, second = (step(graph, None, clips).SerializeToString(deterministic=True) for _ in range(2))
        assert first == second


# heads whose step has no form in a .tflite file, and what is said of it
WITHOUT_LITERT = {"clip-network": "over time and space", "pooled": "GatherElements, TopK"}


@every_head
def test_a_file_for_litert_answers_as_the_file_it_is_made_of_or_its_head_is_named_here(name, exported):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    from vidlet.artifact.litert import compare_litert, litert_graph
    from vidlet.artifact.tflite_file import tflite_bytes

    path = exported(name)[2]
    if name in WITHOUT_LITERT:
        with pytest.raises(ExportError, match=WITHOUT_LITERT[name]):
            litert_graph(path.read_bytes(), str(path))
        return
    told = compare_litert(tflite_bytes(litert_graph(path.read_bytes(), name), "", {}), load(path, threads=1), 60)
    assert told["score_difference"] < 1e-4
    assert told["state_difference"] < 1e-4
