"""Units of heads are really removed: what nothing reads is gone without a trace, and the rest still knows its task."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steps_material import OPTIONS, SHAPE, Quarters, accuracy, check_streams, made_up, material, trained
from vidlet.artifact import ArtifactNetwork, artifact_graph, torch_reference
from vidlet.artifact.classifier import check_parity
from vidlet.compression.shrink import _entries, best_units, importance, keep_units, units, units_of
from vidlet.errors import RecipeError
from vidlet.models import build_head
from vidlet.models.head import Head as HeadModule
from vidlet.recipe import Head
from vidlet.training import Draw

CASES = [(name, {}) for name in OPTIONS] + [("grid-gru", {"appearance": True}), ("gru", {"units": 0})]


def head_of(name: str, options: dict, seed: int = 0) -> HeadModule:
    torch.manual_seed(seed)
    head = build_head(Head(name, OPTIONS[name] | options), SHAPE, 3)
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return head.eval()


def test_entries_of_units_by_hand():
    assert _entries(torch.tensor([0, 2]), 3, 2).tolist() == [0, 2, 3, 5]


@given(case=st.sampled_from(CASES), seed=st.integers(0, 1000), share=st.floats(0.1, 0.9))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_units_that_nothing_reads_are_removed_without_a_trace(case, seed, share):
    head = head_of(*case, seed)
    draw, kept = torch.Generator().manual_seed(seed), {}
    for group in units_of(head):
        count = max(1, round(share * group.count))
        kept[group.name] = torch.randperm(group.count, generator=draw)[:count].sort().values
        silent = [i for i in range(group.count) if i not in kept[group.name].tolist()]
        for use in group.read:
            head.state_dict()[use.tensor].index_fill_(use.axis, _entries(torch.tensor(silent, dtype=torch.long), group.count, use.blocks), 0.0)  # noqa: E501  # fmt: skip
    small = keep_units(head, kept)
    assert type(small) is type(head)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in head.parameters())
    clip = torch.randn(2, 6, *SHAPE, generator=draw)
    whole, _ = head(clip, head.zero_state(2, clip))
    found, _ = small(clip, small.zero_state(2, clip))
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_shrunken_head_streams(case):
    head = head_of(*case)
    check_streams(keep_units(head, {g.name: torch.arange(0, g.count, 2) for g in units_of(head)}), frames=7)


def test_the_worth_of_a_unit_is_the_squared_derivative_by_a_gate_on_it():
    network = trained("grid-gru")
    groups = {g.name: g for g in units_of(network.head)}
    clips = made_up(4, 5)
    one = material()
    object.__setattr__(one, "features", lambda _: (clips, clips))
    found = importance(network, list(groups.values()), one)["project"]
    gate = torch.ones(groups["project"].count, requires_grad=True)
    hook = network.head.dropout.register_forward_hook(lambda _, __, out: out * gate if out.ndim == 3 else out)
    batch = next(iter(clips.batches(Draw(4, range(4)))))
    logits, _ = network.head(batch.x, network.head.zero_state(4, batch.x), batch.mask)
    hook.remove()
    torch.nn.functional.cross_entropy(logits, batch.y).backward()
    torch.testing.assert_close(found, gate.grad**2, atol=1e-8, rtol=1e-3)


def test_the_units_worth_least_go_whatever_their_group_but_an_eighth_of_each_stays():
    worth = {"a": torch.tensor([9.0, 0.05, 8.0, 7.0]), "b": torch.arange(16.0) / 100}
    kept = best_units(worth, 0.5)
    assert kept["a"].tolist() == [0, 2, 3]
    assert kept["b"].tolist() == [
        9,
        10,
        11,
        12,
        13,
        14,
        15,
    ]  # of twenty units ten are left; 0.05 is worth less than 0.09
    assert {name: len(units) for name, units in best_units(worth, 0.95).items()} == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", ["grid-gru", "gru", "mean"])
def test_half_the_units_do_for_an_easy_task_and_the_network_before_is_untouched(name):
    before = trained(name)
    kept = {key: value.clone() for key, value in before.head.state_dict().items()}
    after = units(before, 0.5, material())
    assert accuracy(before) >= 0.95
    assert accuracy(after) >= 0.95
    counts = [sum(group.count for group in units_of(network.head)) for network in (before, after)]
    assert counts[1] == counts[0] - round(0.5 * counts[0])
    for key, value in before.head.state_dict().items():
        np.testing.assert_array_equal(value, kept[key])


def test_the_exported_file_holds_what_is_left_and_obeys_the_contract():
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    before = trained("grid-gru").head
    small = keep_units(before, {"hidden": torch.arange(4), "project": torch.arange(5)})
    network = ArtifactNetwork(Quarters(), small)
    model = artifact_graph(network, (4, 4))
    check_parity(model.SerializeToString(), frames, torch_reference(network))
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    counts = [sum(p.numel() for p in head.parameters()) for head in (before, small)]
    assert counts[1] <= stored <= counts[1] + 100  # scales of the features, and shapes
    assert counts[1] < 0.2 * counts[0]
    state = {i.name: i.type.tensor_type.shape for i in model.graph.input}["state.h"]
    assert state.dim[1].dim_value == 4


def test_a_head_without_such_units_and_a_wrong_share_are_refused():
    network = trained("mean")
    with pytest.raises(RecipeError, match="Mean has no units that can be removed"):
        units_of(head_of("mean", {"units": 0}))
    with pytest.raises(RecipeError, match="share of units removed"):
        units(network, 1.0, material())
