"""Several files as one graph: the weighted mean of their scores, shared inputs, equal parts stored once."""

import copy

import numpy as np
import onnx
import pytest
import torch

from vidlet.artifact import ArtifactNetwork, artifact_graph, check_parity
from vidlet.compression.graph_steps import half
from vidlet.compression.join import content_sizes, join_graphs
from vidlet.errors import ExportError
from vidlet.models import build_head
from vidlet.models.extractor import StoredFeatures
from vidlet.recipe import Head

CLASSES = 4
WIDTHS = {"rgb": 12, "audio": 5}


def member(name, seed, widths=WIDTHS, **options):
    torch.manual_seed(seed)
    head = build_head(Head(name, options), (sum(widths.values()),), CLASSES).eval()
    extractor = StoredFeatures(widths)
    return artifact_graph(ArtifactNetwork(extractor, head, multi_label=True), extractor.input_size)


def run(graph, feeds, windows=1):
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    states = {
        i.name: np.zeros((windows, *i.shape[1:]), np.float32)
        for i in session.get_inputs()
        if i.name.startswith("state.")
    }
    wanted = {i.name: feeds[i.name] for i in session.get_inputs() if i.name in feeds}
    return session.run(["scores"], {**wanted, **states})[0]


@pytest.fixture(scope="module")
def graphs():
    return [
        member("netvlad", 0, clusters=6, hidden=40, experts=2, audio=5),
        half(member("pooled", 1, hidden=40), None, []),
        member("gru-moe", 2, {"rgb": 12}, hidden=8, experts=2),
    ]


@pytest.fixture(scope="module")
def feeds():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (7, width), dtype=np.uint8) for name, width in WIDTHS.items()}


def test_the_scores_are_the_weighted_mean_of_the_members_scores(graphs, feeds):
    weights = (0.5, 0.3, 0.2)
    joined = join_graphs(graphs, weights)
    expected = sum(w * run(g, feeds, 3) for w, g in zip(weights, graphs, strict=True))
    np.testing.assert_allclose(run(joined, feeds, 3), expected, atol=1e-6)


def test_weights_that_do_not_sum_to_one_are_shares(graphs, feeds):
    np.testing.assert_allclose(
        run(join_graphs(graphs[:2], (3, 1)), feeds), run(join_graphs(graphs[:2], (0.75, 0.25)), feeds), atol=1e-7
    )


def test_the_joint_file_streams_and_keeps_windows_apart(graphs, feeds):
    joined = join_graphs(graphs, (0.5, 0.3, 0.2))
    check_parity(joined.SerializeToString(), np.concatenate([feeds["rgb"], feeds["audio"]], 1))
    inputs = [value.name for value in joined.graph.input]
    assert inputs[:2] == ["rgb", "audio"]
    assert len(inputs) == len(set(inputs))


def test_a_member_twice_costs_its_states_alone(graphs, feeds):
    once, twice = join_graphs(graphs[:1], (1.0,)), join_graphs([graphs[0], graphs[0]], (0.5, 0.5))
    np.testing.assert_allclose(run(twice, feeds), run(once, feeds), atol=1e-7)
    assert len(content_sizes(twice)) <= len(content_sizes(once)) + 1  # the weight 0.5 for the weight 1
    assert twice.ByteSize() - once.ByteSize() < 0.5 * once.ByteSize()


def test_what_members_compute_alike_is_computed_once(graphs):
    joined = join_graphs(graphs[:2], (0.5, 0.5))
    casts = [node for node in joined.graph.node if node.op_type == "Cast" and "rgb" in node.input]
    concats = [node for node in joined.graph.node if node.op_type == "Concat" and "rgb" in node.input]
    assert len(casts) + len(concats) == 1


def test_storage_of_each_member_stays(graphs):
    joined = join_graphs(graphs[:2], (0.5, 0.5))
    kinds = {tensor.data_type for tensor in joined.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert joined.ByteSize() < sum(graph.ByteSize() for graph in graphs[:2]) + 1000


def test_other_sizes_of_an_input_are_refused(graphs):
    other = copy.deepcopy(graphs[1])
    next(value for value in other.graph.input if value.name == "rgb").type.tensor_type.shape.dim[1].dim_value = 9
    with pytest.raises(ExportError, match=r"rgb of sizes \[12\] and \[9\]"):
        join_graphs([graphs[0], other], (1, 1))


def test_no_members_are_refused():
    with pytest.raises(ExportError, match="0 members"):
        join_graphs([], [])
