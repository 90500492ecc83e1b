"""Low rank: the error that is promised, never more numbers than before, and a head that still streams and knows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steps_material import Quarters, accuracy, check_streams, material, trained
from vidlet.artifact import ArtifactNetwork, artifact_graph, torch_reference
from vidlet.artifact.classifier import check_parity
from vidlet.compression.lowrank import Factors, best_factors, factor_head, factored_layers, input_moments, lowrank
from vidlet.errors import RecipeError
from vidlet.training import ClipNetwork, Draw


@given(outputs=st.integers(1, 12), inputs=st.integers(1, 12), error=st.floats(0.05, 0.9), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_rank_is_the_least_that_keeps_the_error(outputs, inputs, error, seed):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=draw, dtype=torch.double)
    x = torch.randn(50, inputs, generator=draw, dtype=torch.double) * torch.logspace(0, -2, inputs)
    up, down = best_factors(weight, x.T @ x / 50, error)
    whole = x @ weight.T
    missed = (whole - x @ (up @ down).T).norm() / whole.norm()
    assert missed <= error + 1e-9
    rank = up.shape[1]
    if rank > 1:  # Eckart and Young: no matrix of a rank less does
        assert torch.linalg.svdvals(whole)[rank - 1 :].norm() / whole.norm() > error - 1e-9


def test_without_inputs_it_is_the_truncated_svd():
    weight = torch.randn(9, 5, dtype=torch.double)
    up, down = best_factors(weight, None, 0.5)
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    rank = up.shape[1]
    torch.testing.assert_close(up @ down, (u[:, :rank] * s[:rank]) @ v[:rank])


@torch.no_grad()
@pytest.mark.parametrize("error", [0.2, 0.5])
@pytest.mark.parametrize("name", ["grid-gru", "gru", "lstm", "mean"])
def test_every_replaced_layer_is_smaller_and_keeps_its_outputs_on_the_clips(name, error):
    network, here = trained(name), material()
    moments = input_moments(network, here)
    small = factor_head(network.head, error, moments)
    replaced = [n for n in factored_layers(network.head) if type(small.get_submodule(n)) is not type(network.head.get_submodule(n))]  # noqa: E501  # fmt: skip
    assert error < 0.5 or replaced
    seen = {name: [] for name in replaced}
    hooks = [
        network.head.get_submodule(n).register_forward_pre_hook(lambda _, x, n=n: seen[n].append(x[0].flatten(0, -2)))
        for n in replaced
    ]
    for batch in here.features(network.extractor)[0].batches(Draw(1, range(48))):
        ClipNetwork(network.head).eval()(batch.x, batch.mask)
    for hook in hooks:
        hook.remove()
    for n in replaced:
        old, new, x = network.head.get_submodule(n), small.get_submodule(n), torch.cat(seen[n])
        assert sum(p.numel() for p in new.parameters()) < sum(p.numel() for p in old.parameters())
        if isinstance(old, torch.nn.Linear):
            whole, found = old(x), new(x)
            center = whole.mean(0) if old.bias is not None else 0.0
        else:
            whole = x @ old.weight_ih_l0.T + old.bias_ih_l0
            found = new.down(x) @ new.rnn.weight_ih_l0.T + new.rnn.bias_ih_l0
            center = whole.mean(0)
            torch.testing.assert_close(new.rnn.weight_hh_l0, old.weight_hh_l0)
        assert (found - whole).norm() <= (error + 1e-3) * (whole - center).norm()
    for n in set(factored_layers(network.head)) - set(replaced):
        for a, b in zip(small.get_submodule(n).parameters(), network.head.get_submodule(n).parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["grid-gru", "gru", "lstm"])
def test_factored_heads_are_smaller_stream_and_know_the_task(name):
    before = trained(name)
    after = lowrank(before, 0.4, material(epochs=24))
    counts = [sum(p.numel() for p in t.head.parameters()) for t in (before, after)]
    assert counts[1] < counts[0]
    assert accuracy(before) >= 0.95
    assert accuracy(after) >= 0.95
    check_streams(after.head)


@pytest.mark.slow
def test_a_factored_head_is_exported_and_obeys_the_contract():
    before = trained("grid-gru")
    network = ArtifactNetwork(Quarters(), factor_head(before.head, 0.5, input_moments(before, material())))
    assert any(isinstance(layer, Factors) for layer in network.head.modules())
    data = artifact_graph(network, (4, 4)).SerializeToString()
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    check_parity(data, frames, torch_reference(network))
    assert len(data) < 4 * sum(p.numel() for p in before.head.parameters())


def test_factoring_twice_leaves_factors_alone():
    once = factor_head(trained("grid-gru").head, 0.5)
    twice = factor_head(once, 0.5)
    factors = [name for name, layer in once.named_modules() if isinstance(layer, Factors)]
    assert factors
    for name in factors:
        assert torch.equal(twice.get_submodule(name).down.weight, once.get_submodule(name).down.weight)


def test_an_error_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="relative error, between 0 and 1"):
        lowrank(trained(), 1.0, material())
