"""TT-SVD: its error bound, layers to trains and back, the paper's rules for modes and ranks."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vidlet.errors import RecipeError
from vidlet.tensor_train import (
    channel_modes,
    conv_ranks,
    convert,
    factor,
    from_conv,
    from_linear,
    from_recurrent,
    kernel_to_cores,
    linear_modes,
    linear_ranks,
    matrix_to_cores,
    maximal_ranks,
    pair_modes,
    relative_error,
    split_places,
    to_conv,
    to_linear,
    to_recurrent,
    tt_svd,
)
from vidlet.tensor_train.cores import merge_cores, merge_flat


def rebuilt(cores: list[torch.Tensor]) -> torch.Tensor:
    return merge_flat(cores).reshape([core.shape[1] for core in cores])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_tt_svd_meets_its_error_bound_and_its_caps(data):
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    error = data.draw(st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 0.5]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    decay = data.draw(st.sampled_from([0.0, 1.0, 3.0]))  # how fast the entries, and with them the spectrum, fall off
    tensor = torch.randn(sizes, generator=generator, dtype=torch.float64)
    for axis, size in enumerate(sizes):
        falling = torch.arange(1, size + 1, dtype=torch.float64) ** -decay
        tensor = tensor * falling.view([-1 if k == axis else 1 for k in range(len(sizes))])
    cores = tt_svd(tensor, error=error)
    assert (rebuilt(cores) - tensor).norm() <= (error + 1e-10) * tensor.norm()
    ranks = (1, *(core.shape[2] for core in cores))
    assert all(map(int.__le__, ranks, maximal_ranks(sizes)))
    caps = [1, *data.draw(st.lists(st.integers(1, 4), min_size=len(sizes) - 1, max_size=len(sizes) - 1)), 1]
    capped = tt_svd(tensor, ranks=caps)
    assert all(core.shape[2] <= cap for core, cap in zip(capped, caps[1:], strict=True))
    # Oseledets 2011: the error is at most the root of the sum of the squared tails of all unfoldings
    tails = 0.0
    for k in range(1, len(sizes)):
        singular = torch.linalg.svdvals(tensor.reshape(math.prod(sizes[:k]), -1))
        tails += singular[caps[k] :].square().sum().item()
    assert (rebuilt(capped) - tensor).norm().item() <= math.sqrt(tails) + 1e-7 * tensor.norm().item()


def test_tt_svd_of_a_matrix_is_the_best_approximation_of_its_rank():
    torch.manual_seed(0)
    matrix = torch.randn(6, 9, dtype=torch.float64)
    singular = torch.linalg.svdvals(matrix)
    cores = tt_svd(matrix, ranks=(1, 2, 1))
    assert (rebuilt(cores) - matrix).norm().item() == pytest.approx(singular[2:].norm().item())


def test_tt_svd_finds_the_ranks_of_a_train():
    torch.manual_seed(0)
    shapes = [(1, 6, 2), (2, 5, 3), (3, 6, 2), (2, 4, 1)]
    tensor = rebuilt([torch.randn(shape, dtype=torch.float64) for shape in shapes])
    assert [core.shape for core in tt_svd(tensor, error=1e-10)] == shapes


def test_few_components_of_a_large_matrix_come_out_as_of_the_whole_decomposition(monkeypatch):
    torch.manual_seed(0)
    falling = torch.arange(1, 81, dtype=torch.float64) ** -1.0
    matrix = (torch.randn(90, 80, dtype=torch.float64) * falling) @ torch.randn(80, 100, dtype=torch.float64)
    exact = (rebuilt(tt_svd(matrix, ranks=(1, 8, 1))) - matrix).norm()
    monkeypatch.setattr(convert, "LARGE", 16)
    drawn = (rebuilt(tt_svd(matrix, ranks=(1, 8, 1))) - matrix).norm()
    assert exact <= drawn * (1 + 1e-9) and drawn <= exact * 1.001


def test_a_matrix_of_full_rank_is_its_train():
    torch.manual_seed(0)
    dense = nn.Linear(24, 30)
    layer = from_linear(dense, (2, 3, 4), (5, 2, 3))
    x = torch.randn(4, 24)
    torch.testing.assert_close(layer(x), dense(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(to_linear(layer)(x), dense(x), atol=1e-5, rtol=1e-5)
    assert relative_error(layer, dense.weight) < 1e-6
    norms = [core.norm().item() for core in layer.cores]
    assert max(norms) == pytest.approx(min(norms), rel=1e-3)  # steps of one size suit all cores


@pytest.mark.parametrize(
    "dense",
    [
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
        nn.Conv2d(4, 6, 3, padding="same", bias=False),
        nn.Conv3d(4, 6, (2, 3, 4), stride=(1, 2, 1), padding=(0, 1, 2)),
    ],
    ids=["2d", "2d same without bias", "3d"],
)
def test_a_convolution_of_full_rank_is_its_train(dense):
    torch.manual_seed(0)
    layer = from_conv(dense, (2, 2), (3, 2))
    x = torch.randn(2, 4, *[6, 7, 8][: dense.weight.dim() - 2])
    torch.testing.assert_close(layer(x), dense(x), atol=1e-5, rtol=1e-5)
    back = to_conv(layer)
    torch.testing.assert_close(back(x), dense(x), atol=1e-5, rtol=1e-5)
    assert type(back) is type(dense) and (back.bias is None) == (dense.bias is None)


@pytest.mark.parametrize("keep_norm", [False, True])
def test_a_truncated_layer_keeps_the_norm_where_it_is_asked_to(keep_norm):
    torch.manual_seed(0)
    linear, conv = nn.Linear(64, 64), nn.Conv3d(8, 8, 3)
    for dense, modes in ((linear, (4, 4, 4)), (conv, (2, 4))):
        build = from_linear if dense is linear else from_conv
        small = build(dense, modes, modes, ranks=2, keep_norm=keep_norm)
        own = small.matrix().t() if dense is linear else small.kernel()
        share = float((own.norm() / dense.weight.norm()).detach())
        assert share == pytest.approx(1, abs=1e-4) if keep_norm else share < 0.7
        nearest = build(dense, modes, modes, ranks=2)
        nearest = nearest.matrix().t() if dense is linear else nearest.kernel()
        assert torch.allclose(own / own.norm(), nearest / nearest.norm(), atol=1e-5)  # the same but for the scale
        assert torch.equal(small.bias, dense.bias)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("trains", [(True, False), (False, True), (True, True)], ids=["i2h", "h2h", "both"])
def test_a_recurrent_layer_of_full_rank_is_its_train(kind, trains):
    torch.manual_seed(0)
    dense = kind(12, 8, batch_first=True)
    layer = from_recurrent(dense, (3, 4), (2, 4), input_train=trains[0], hidden_train=trains[1])
    x, start = torch.randn(2, 5, 12), torch.randn(1, 2, 8)
    state = (start, -start) if kind is nn.LSTM else start
    want, got, back = dense(x, state), layer(x, state), to_recurrent(layer)(x, state)
    without = layer(x)
    for pair in ((got, want), (back, want), (without, dense(x))):
        for a, b in zip(*map(flat, pair), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def flat(nested) -> list[torch.Tensor]:
    return [nested] if isinstance(nested, torch.Tensor) else [tensor for part in nested for tensor in flat(part)]


def test_ranks_cap_and_error_decides():
    torch.manual_seed(0)
    weight = torch.randn(16, 24, dtype=torch.float64)
    exact = matrix_to_cores(weight, (4, 4), (4, 6))
    torch.testing.assert_close(merge_cores(exact).reshape(16, 24), weight)
    capped = matrix_to_cores(weight, (4, 4), (4, 6), ranks=3)
    assert capped[0].shape == (1, 4, 4, 3)
    loose = matrix_to_cores(weight, (4, 4), (4, 6), error=0.5)
    lost = (merge_cores(loose).reshape(16, 24) - weight).norm() / weight.norm()
    assert 0.3 < lost <= 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matrix_to_cores(torch.ones(6, 4), (2, 2), (2, 2)), r"input modes .* to 4, .* 6; \(3, 2\)"),
        (lambda: kernel_to_cores(torch.ones(6, 4, 3, 3), (2, 2), (2, 2)), r"output modes .* the layer has 6"),
        (lambda: from_conv(nn.Conv2d(4, 4, 3, groups=2), (2, 2), (2, 2), name="body.3"), "body.3: 2 groups"),
        (lambda: from_recurrent(nn.LSTM(4, 4, num_layers=2), (2, 2), (2, 2)), "2 layers"),
        (lambda: from_recurrent(nn.GRU(4, 4), (2, 2), (2, 2)), "batch_first False"),
        (lambda: factor(0, 2), "size 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_that_says_what_would(call, message):
    with pytest.raises(RecipeError, match=message):
        call()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5))
def test_factors_multiply_to_the_size(size, d):
    modes = factor(size, d)
    assert len(modes) == d and math.prod(modes) == size and list(modes) == sorted(modes, reverse=True)


def test_factors_of_the_paper_s_sizes():
    assert factor(4096, 4) == (8, 8, 8, 8)
    assert factor(3125, 5) == (5, 5, 5, 5, 5)
    assert factor(64, 3) == (4, 4, 4)
    assert sorted(factor(1536, 4)) == [4, 6, 8, 8]
    assert factor(19, 3) == (19, 1, 1)


def test_pairs_are_those_of_the_paper_s_third_network():
    # V3's first fully connected layer, (8.6)(8.8)(8.8)(16.4) at rank 48, and the TT convolution 128 -> 256 of V4
    in_modes, out_modes = linear_modes(8192, 1536)
    assert sorted(zip(in_modes, out_modes, strict=True)) == [(8, 6), (8, 8), (8, 8), (16, 4)]
    assert linear_ranks(in_modes, out_modes) == (1, 48, 48, 48, 1)
    assert sorted(m * n for m, n in zip(*channel_modes(128, 256), strict=True)) == [32, 32, 32]


def test_pairing_minimizes_the_spread_of_the_products():
    in_modes, out_modes = pair_modes(360, 84, 3)
    products = [m * n for m, n in zip(in_modes, out_modes, strict=True)]
    spreads = []
    for order in itertools.permutations(factor(84, 3)):
        others = [m * n for m, n in zip(factor(360, 3), order, strict=True)]
        spreads.append(max(others) / min(others))
    assert max(products) / min(products) == min(spreads)
    assert products == sorted(products)


@pytest.mark.parametrize(
    ("in_modes", "out_modes", "ranks"),
    [
        ((8, 4, 4, 4, 8), (4, 4, 4, 2, 4), (1, 32, 32, 32, 32, 1)),  # V1 FC1 @32
        ((8, 16, 16, 8), (8, 8, 8, 8), (1, 64, 64, 64, 1)),  # V4 FC1 @64
        ((8, 8, 8, 8, 6), (5, 5, 5, 5, 5), (1, 40, 40, 40, 30, 1)),  # V5 FC1 @40,40,40,30
        ((8, 8, 8, 6, 4), (5, 5, 5, 5, 5), (1, 40, 40, 40, 20, 1)),  # UCF FC1 @40,40,40,20
        ((5, 5, 5, 5, 5), (4, 4, 4, 4, 4), (1, 20, 20, 20, 20, 1)),  # V5 FC2 @20
    ],
)
def test_the_rank_rule_of_fully_connected_layers_gives_the_paper_s_ranks(in_modes, out_modes, ranks):
    assert linear_ranks(in_modes, out_modes) == ranks


@pytest.mark.parametrize(
    ("in_modes", "out_modes", "rank"),
    [((4, 2), (8, 4), 8), ((4, 4, 2), (4, 4, 8), 16), ((4, 8, 8), (8, 4, 4), 32), ((8, 8, 4), (6, 8, 8), 32)],
)
def test_the_rank_rule_of_convolutions_gives_the_paper_s_ranks(in_modes, out_modes, rank):
    assert conv_ranks(in_modes, out_modes) == (1, *[rank] * len(in_modes), 1)


def test_kernels_split_as_the_paper_s_do():
    assert [split_places(p) for p in (27, 45, 75, 125, 245)] == [(9, 3), (9, 5), (15, 5), (25, 5), (35, 7)]
    assert all(math.prod(split_places(p)) == p for p in range(1, 300))


def test_tt_svd_keeps_the_dtype_and_needs_no_balance_for_zeros():
    cores = matrix_to_cores(torch.zeros(4, 4), (2, 2), (2, 2))
    assert {core.dtype for core in cores} == {torch.float32}
    assert not np.any([core.numpy().any() for core in cores[-1:]])
