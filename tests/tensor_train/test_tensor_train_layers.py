"""Tensor-train layers: the formula by hand, every form equal, gradients, variance, caches and counts."""

import copy
import io
import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from vidlet.errors import RecipeError, WeightsError
from vidlet.runtime import train_plan
from vidlet.runtime.train_plan import groupings, merge_flops, plan_kernel, plan_rows
from vidlet.tensor_train import (
    TTGRU,
    TTLSTM,
    TTConv2d,
    TTConv3d,
    TTLinear,
    conv_ranks,
    maximal_ranks,
)
from vidlet.tensor_train.cores import merge_flat, train_norm
from vidlet.tensor_train.layers import run_steps, step_matrices

PIXELS = ((1, 8, 16, 4), (4, 20, 4, 4), (4, 20, 4, 4), (4, 18, 4, 1))  # 57,600 -> 1,024


def digits(number: int, modes: tuple[int, ...]) -> list[int]:
    """Row-major multi-index, the first mode slowest."""
    return list(np.unravel_index(number, modes))


def slow_matrix(layer: TTLinear) -> np.ndarray:
    """W[i, j] as the product of core slices, entry by entry: the definition."""
    cores = [core.detach().double().numpy() for core in layer.cores]
    whole = np.empty((layer.in_features, layer.out_features))
    for i, j in itertools.product(range(layer.in_features), range(layer.out_features)):
        row = np.ones((1, 1))
        for core, m, n in zip(cores, digits(i, layer.in_modes), digits(j, layer.out_modes), strict=True):
            row = row @ core[:, m, n, :]
        whole[i, j] = row[0, 0]
    return whole


def slow_kernel(layer: TTConv2d | TTConv3d) -> np.ndarray:
    """K(p', C, S) by the definition, with p' = w' h t + h' t + t'."""
    first, *others = [core.detach().double().numpy() for core in layer.cores]
    size = (1, *layer.kernel_size) if len(layer.kernel_size) == 2 else layer.kernel_size
    t, h, _ = size
    kernel = np.empty((layer.out_channels, layer.in_channels, *size))
    for s, c, a, b, g in itertools.product(*map(range, kernel.shape)):
        row = first[g * h * t + b * t + a][None]
        for core, m, n in zip(others, digits(c, layer.in_modes), digits(s, layer.out_modes), strict=True):
            row = row @ core[:, m, n, :]
        kernel[s, c, a, b, g] = row[0, 0]
    return kernel.reshape(layer.out_channels, layer.in_channels, *layer.kernel_size)


def test_two_cores_of_rank_one_are_a_kronecker_product():
    layer = TTLinear((2, 2), (1, 2), 1, bias=False)
    with torch.no_grad():
        layer.cores[0].copy_(torch.tensor([2.0, 3.0]).view(1, 2, 1, 1))
        layer.cores[1].copy_(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]).view(1, 2, 2, 1))
    assert layer.matrix().tolist() == [[2.0, 20.0], [200.0, 2000.0], [3.0, 30.0], [300.0, 3000.0]]
    assert layer(torch.tensor([1.0, 0.0, 0.0, 1.0])).tolist() == [302.0, 3020.0]


def test_matrix_and_product_equal_the_definition():
    torch.manual_seed(0)
    layer = TTLinear((2, 3, 2), (3, 1, 2), (2, 3)).double()
    layer.bias.data.normal_()
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    want = slow_matrix(layer)
    np.testing.assert_allclose(layer.matrix().detach().numpy(), want, atol=1e-12)
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() @ want + layer.bias.detach().numpy(), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_chain_super_cores_and_rebuilt_agree_in_both_directions(data):
    d = data.draw(st.integers(1, 4))
    modes = [tuple(data.draw(st.lists(st.integers(1, 4), min_size=d, max_size=d))) for _ in range(2)]
    ranks = tuple(data.draw(st.lists(st.integers(1, 5), min_size=d - 1, max_size=d - 1)))
    layer = TTLinear(*modes, ranks, bias=False, clip=False).double()
    x = torch.randn(data.draw(st.integers(0, 3)), layer.in_features, dtype=torch.float64)
    want = x @ layer.matrix()
    for groups, last_first in itertools.product(groupings(d), (True, False)):
        matrices = step_matrices(list(layer.cores), groups, last_first)
        out = run_steps(x, matrices, *layer._merged_modes(groups), last_first)
        torch.testing.assert_close(out, want, atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(layer(x), want, atol=1e-10, rtol=1e-9)


def test_there_are_two_to_the_power_of_d_less_one_groupings():
    assert list(groupings(3)) == [((0, 1, 2),), ((0, 1), (2,)), ((0,), (1, 2)), ((0,), (1,), (2,))]
    assert len(set(groupings(5))) == 16


@pytest.mark.parametrize("kernel_size", [(3, 2, 4), (3, 2)])
def test_kernel_equals_the_definition(kernel_size):
    torch.manual_seed(0)
    make = TTConv3d if len(kernel_size) == 3 else TTConv2d
    layer = make((2, 3), (2, 2), kernel_size, (3, 2))
    np.testing.assert_allclose(layer.kernel().detach().numpy(), slow_kernel(layer), atol=1e-6)


@pytest.mark.parametrize(("dims", "padding"), [(2, 1), (2, "same"), (3, (1, 0, 1))])
def test_convolutions_take_stride_padding_and_dilation_as_torch_does(dims, padding):
    torch.manual_seed(0)
    make, dense = ((TTConv2d, functional.conv2d), (TTConv3d, functional.conv3d))[dims - 2]
    stride = 1 if padding == "same" else 2
    layer = make((2, 2), (3, 2), 3, 4, stride, padding, 2)
    layer.bias.data.normal_()
    x = torch.randn(2, 4, *[7, 8, 9][:dims])
    want = dense(x, layer.kernel(), layer.bias, stride, padding, 2)
    torch.testing.assert_close(layer(x), want)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), want)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = TTLinear((2, 3, 2), (2, 2, 1), 2).double()
    x = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))
    for groups, last_first in itertools.product(groupings(3), (True, False)):

        def forced(x, *cores, groups=groups, last_first=last_first):
            return run_steps(x, step_matrices(cores, groups, last_first), *layer._merged_modes(groups), last_first)

        assert torch.autograd.gradcheck(forced, (x, *layer.cores))


def test_gradients_pass_through_a_rebuilt_kernel():
    torch.manual_seed(0)
    layer = TTConv3d((2, 1), (1, 2), (2, 1, 2), 2).double()
    x = torch.randn(1, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


@pytest.mark.parametrize("cls", [TTLSTM, TTGRU])
def test_gradients_pass_through_the_recurrence(cls):
    torch.manual_seed(0)
    layer = cls((2, 2), (2, 1), 2, 2).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))[0]

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=5), st.integers(1, 3))
def test_merging_costs_no_more_than_left_to_right_or_right_to_left(bonds, last):
    ranks = [r for r, _ in bonds] + [last]
    shapes = [(r, q, s) for (r, q), s in zip(bonds, ranks[1:], strict=True)]
    left = right = 0
    for k in range(1, len(shapes)):
        left += 2 * ranks[0] * ranks[k] * ranks[k + 1] * int(np.prod([q for _, q, _ in shapes[: k + 1]]))
        right += 2 * ranks[-1] * ranks[-k - 1] * ranks[-k - 2] * int(np.prod([q for _, q, _ in shapes[-k - 1 :]]))
    assert merge_flops(shapes) <= min(left, right)
    cores = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    want = cores[0]
    for core in cores[1:]:
        want = torch.einsum("aqb,bpc->aqpc", want, core).reshape(want.shape[0], -1, core.shape[2])
    torch.testing.assert_close(merge_flat(cores), want)


@pytest.mark.parametrize("rank", [1, 2, 4, 16])
def test_the_variance_at_the_start_is_exact_at_any_rank(rank):
    torch.manual_seed(rank)
    linear = TTLinear((4, 6, 5), (4, 2, 3), rank)
    assert linear.matrix().square().mean().item() == pytest.approx(2 / (120 + 24), rel=1e-4)
    conv = TTConv3d((4, 4), (4, 8), 3, rank)
    assert conv.kernel().square().mean().item() == pytest.approx(2 / (27 * 16), rel=1e-4)
    norm = train_norm([conv.cores[0][None], *conv.cores[1:]])
    assert norm == pytest.approx(conv.kernel().norm().item(), rel=1e-4)


def test_outputs_keep_the_scale_of_inputs_at_rank_four():
    torch.manual_seed(0)
    layer = TTLinear((8, 8, 8), (8, 8, 8), 4, bias=False)
    assert layer(torch.randn(256, 512)).square().mean().item() == pytest.approx(1.0, rel=0.15)


def test_parameter_counts_are_those_of_the_papers():
    # Yang et al. 2017 and DEEPEYE: printed; the hidden-to-hidden and the whole classifier: recomputed.
    assert TTLinear((17, 19, 19, 25), (16, 4, 4, 4), 4).core_parameters == 1088 + 1216 + 1216 + 400 == 3920
    assert TTLinear((8, 20, 20, 18), (16, 4, 4, 4), (1, 4, 4, 4, 1)).core_parameters == 512 + 1280 + 1280 + 288 == 3360
    assert TTLinear((8, 20, 20, 18), (12, 4, 4, 4), 4).core_parameters == 3232
    assert TTLinear((4, 4, 4, 4), (16, 4, 4, 4), 4).core_parameters == 832
    count = {name: sum(p.numel() for p in layer.parameters()) for name, layer in _classifiers().items()}
    assert count == {"both in tensor train": 8603, "dense hidden": 269_915}
    gru = TTGRU((8, 20, 20, 18), (4, 4, 4, 4), 4, 4)
    assert gru.input_map.core_parameters == 3232


def _classifiers() -> dict[str, nn.Module]:
    """TT-LSTMs on 19 x 19 x 425 features with a linear layer for 11 classes."""
    made = {}
    for name, hidden_ranks in (("both in tensor train", 4), ("dense hidden", None)):
        lstm = TTLSTM((17, 19, 19, 25), (4, 4, 4, 4), 4, hidden_ranks)
        made[name] = nn.ModuleList([lstm, nn.Linear(256, 11)])
    return made


def test_convolution_counts_are_the_paper_s():
    # V1 of the paper: two TT convolutions, at explicit ranks beyond what the second bond can attain.
    first = TTConv3d((4, 4), (4, 8), 3, 16, bias=False, clip=False)
    second = TTConv3d((4, 4, 2), (4, 4, 4), 3, 16, bias=False, clip=False)
    assert first.core_parameters == 27 * 16 + 16 * 16 * 16 + 16 * 32
    dense_first_convolution = 3 * 16 * 27
    assert dense_first_convolution + first.core_parameters + second.core_parameters == 15_088
    assert conv_ranks((4, 4), (4, 8)) == (1, 16, 16, 1)


def test_the_plan_takes_the_chain_where_it_is_short_and_the_matrix_where_it_is_not():
    pixels = plan_rows(PIXELS, 16, True, False)
    assert pixels.last_first and pixels.form != "rebuilt"
    assert pixels.us < pixels.dense_us / 20 and pixels.flops < pixels.dense_flops / 10
    high = ((1, 4, 4, 16), (16, 4, 4, 16), (16, 4, 4, 1))
    assert plan_rows(high, 256).form == "rebuilt"
    assert plan_rows(high, 256).us == plan_rows(high, 256).dense_us  # cached: what dense costs
    assert plan_rows(high, 256, True).us > plan_rows(high, 256, True).dense_us  # the rebuild is not free


def test_flops_of_the_chain_are_the_formula_s(monkeypatch):
    # Section 1: F = sum_k 2 r_{k-1} r_k prod_{i<=k} n_i prod_{i>=k} m_i from the first core, a sample; T-RNN: 8.9 M
    in_modes, out_modes, ranks = (17, 19, 19, 25), (16, 4, 4, 4), (1, 4, 4, 4, 1)
    formula = sum(
        2 * ranks[k] * ranks[k + 1] * int(np.prod(in_modes[: k + 1]) * np.prod(out_modes[k:])) for k in range(4)
    )
    monkeypatch.setattr(train_plan, "product_us", lambda rows, inner, columns, count: rows * inner * columns)
    monkeypatch.setattr(train_plan, "COPIED_A_US", 1e30)
    shapes = tuple(zip(ranks, in_modes, out_modes, ranks[1:], strict=False))
    plan = plan_rows.__wrapped__(shapes, 1)  # not from the cache
    assert plan.form == "chain" and plan.last_first
    assert plan.flops == formula == pytest.approx(8.9e6, rel=0.01)
    assert plan.dense_flops == 2 * 153_425 * 1024


def test_a_convolution_s_plan_is_dense_in_evaluation_and_pays_the_rebuild_in_training():
    shapes = ((16, 4, 4, 16), (16, 4, 8, 16), (16, 4, 4, 1))
    evaluation, training = (plan_kernel(shapes, 75, 4 * 32 * 62 * 28, training) for training in (False, True))
    assert evaluation.us == evaluation.dense_us and evaluation.form == "rebuilt"
    assert training.dense_us < training.us < 1.25 * training.dense_us


def each_change() -> dict[str, object]:
    """Ways in which cores change between two evaluations."""

    def in_place(layer):
        with torch.no_grad():
            layer.cores[1].mul_(2)

    def by_data(layer):
        layer.cores[0].data.mul_(2)

    def new_data(layer):
        layer.cores[0].data = layer.cores[0].data * 2

    def loaded(layer):
        layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})

    def trained(layer):
        optimizer = torch.optim.SGD(layer.train().parameters(), lr=1.0)
        layer(torch.ones(2, *([4] if isinstance(layer, TTLinear) else [4, 3, 3, 3]))).sum().backward()
        optimizer.step()
        layer.eval()

    def replaced(layer):
        layer.cores[0] = nn.Parameter(2 * layer.cores[0].detach())

    def double(layer):
        layer.double().cores[0].data.mul_(2)
        layer.float()

    return {f.__name__: f for f in (in_place, by_data, new_data, loaded, trained, replaced, double)}


@pytest.mark.parametrize("change", list(each_change().values()), ids=list(each_change()))
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_evaluation_sees_every_change_of_the_cores(kind, change):
    torch.manual_seed(0)
    layer = TTLinear((2, 2), (3, 2), 2) if kind == "linear" else TTConv3d((2, 2), (2, 1), 2, 2)
    x = torch.randn(2, 4) if kind == "linear" else torch.randn(2, 4, 3, 3, 3)
    layer.eval()
    with torch.no_grad():
        before = layer(x)
    change(layer)
    with torch.no_grad():
        after = layer(x)
    weight = layer.matrix() if kind == "linear" else layer.kernel()
    want = x @ weight + layer.bias if kind == "linear" else functional.conv3d(x, weight, layer.bias)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, want.detach())


def test_evaluation_rebuilds_nothing_while_cores_stay(monkeypatch):
    layer = TTConv2d((2, 2), (2, 2), 3, 2).eval()
    built = []
    rebuild = layer.kernel
    monkeypatch.setattr(layer, "kernel", lambda: built.append(1) or rebuild())
    with torch.no_grad():
        for _ in range(3):
            layer(torch.ones(1, 4, 5, 5))
    assert len(built) == 1
    layer(torch.ones(1, 4, 5, 5))  # gradients may be wanted: the graph must reach the cores
    assert len(built) == 2


def test_a_cache_made_in_inference_mode_serves_autograd_later():
    layer = TTConv2d((2, 2), (2, 2), 3, 2).eval().requires_grad_(False)
    with torch.inference_mode():
        layer(torch.ones(1, 4, 5, 5))
    x = torch.ones(1, 4, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_caches_are_neither_copied_nor_saved():
    layer = TTConv2d((4, 4), (4, 4), 3, 2).eval()
    with torch.no_grad():
        layer(torch.ones(1, 16, 5, 5))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    assert set(layer.state_dict()) == {"cores.0", "cores.1", "cores.2", "bias"}
    assert copy.deepcopy(layer)._made._values == {} and layer._made._values != {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TTLinear((2, 3), (2,), 2), "2 input modes .* 1 output modes"),
        (lambda: TTLinear((2, 0), (2, 2), 2), "mode 0"),
        (lambda: TTLinear((), (), 2), "at least 1"),
        (lambda: TTLinear((2, 3, 2), (2, 2, 2), (2, 2, 2)), "3 ranks .* 3 cores; give one number, 2 inner bonds or 4"),
        (lambda: TTLinear((2, 3), (2, 2), 0), "whole number >= 1"),
        (lambda: TTLinear((2, 3), (2, 2), (2, 2, 1)), "the outer two are 1"),
        (lambda: TTConv3d((2, 3), (2, 2), 3, (2, 2, 2, 2, 2)), "5 ranks .* 3 cores"),
        (lambda: TTLinear((2, 3), (2, 2), 2)(torch.ones(1, 5)), "5 numbers; modes \\(2, 3\\) multiply to 6"),
    ],
)
def test_impossible_shapes_are_errors_that_say_what_fits(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_ranks_beyond_the_attainable_are_clipped_with_a_warning_or_kept_when_asked():
    assert maximal_ranks((4, 6, 4)) == (1, 4, 4, 1)
    with pytest.warns(UserWarning, match=r"exceed .* using \(1, 4, 4, 1\)"):
        layer = TTLinear((2, 2, 2), (2, 3, 2), (9, 5))
    assert layer.ranks == (1, 4, 4, 1)
    assert TTLinear((2, 2, 2), (2, 3, 2), (9, 5), clip=False).ranks == (1, 9, 5, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TTLinear((2, 2, 2), (2, 3, 2), 9).ranks == (1, 4, 4, 1)  # one number is a cap


@pytest.mark.parametrize("make", [lambda r: TTLinear((4, 4), (4, 4), r), lambda r: TTConv2d((4, 4), (4, 4), 3, r)])
def test_a_checkpoint_of_other_ranks_is_an_error_that_names_layer_and_ranks(make):
    saved = nn.Sequential(nn.ReLU(), make(2)).state_dict()
    with pytest.raises(WeightsError, match=r"1\.cores: the checkpoint's .* ranks \(1, 2, .*this one \(1, 3, "):
        nn.Sequential(nn.ReLU(), make(3)).load_state_dict(saved)
