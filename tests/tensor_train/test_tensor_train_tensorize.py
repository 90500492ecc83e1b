"""A trained network into tensor-train form and back."""

import pytest
import torch
from torch import nn

from vidlet.errors import RecipeError, VidletError
from vidlet.tensor_train import (
    TTLSTM,
    TTConv2d,
    TTConv3d,
    TTLinear,
    channel_modes,
    densify,
    layer_plan,
    linear_modes,
    slower_than_dense,
    tensorize,
)


class Network(nn.Module):
    """A small clip network: two convolutions, a recurrent layer, two linear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(3, 16, 3, padding=1)
        self.second = nn.Conv3d(16, 32, 3, padding=1)
        self.rnn = nn.LSTM(32, 32, batch_first=True)
        self.hidden = nn.Linear(32, 64)
        self.classes = nn.Linear(64, 5)

    def forward(self, clip):
        x = self.second(self.first(clip).relu()).relu()  # (B, 32, T, H, W)
        x, _ = self.rnn(x.mean((3, 4)).transpose(1, 2))
        return self.classes(self.hidden(x[:, -1]).relu())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture
def clip():
    torch.manual_seed(1)
    return torch.randn(2, 3, 4, 6, 5)


def test_the_first_convolution_and_the_output_stay_dense_by_default(network, clip):
    made, rows = tensorize(network, example=clip)
    assert [row.name for row in rows] == ["second", "rnn", "hidden"]
    assert isinstance(made.second, TTConv3d) and isinstance(made.rnn, TTLSTM) and isinstance(made.hidden, TTLinear)
    assert type(made.first) is nn.Conv3d and type(made.classes) is nn.Linear
    assert type(network.second) is nn.Conv3d  # the network given is not changed
    assert made(clip).shape == (2, 5)


def test_a_report_counts_what_is_there(network, clip):
    made, rows = tensorize(network, ["second", "hidden"], ranks=2, example=clip)
    for row in rows:
        before, after = network.get_submodule(row.name), made.get_submodule(row.name)
        assert row.parameters_before == sum(p.numel() for p in before.parameters())
        assert row.parameters_after == sum(p.numel() for p in after.parameters()) < row.parameters_before
        weight = after.kernel() if isinstance(after, TTConv3d) else after.matrix().t()
        assert row.relative_error == pytest.approx(((weight - before.weight).norm() / before.weight.norm()).item())
        assert row.shape == tuple(before.weight.shape) and row.ranks == after.ranks
        assert row.factor == row.parameters_before / row.parameters_after
    assert rows[0].flops_before == 2 * 2 * (4 * 6 * 5) * 27 * 16 * 32  # two clips, every output position
    assert rows[1].flops_before == 2 * 2 * 32 * 64


def test_within_a_small_error_the_network_says_the_same(clip):
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():  # weights of small ranks, so that their trains are small
        network.second.weight.copy_(TTConv3d(*channel_modes(16, 32), 3, 3).kernel())
        network.hidden.weight.copy_(TTLinear(*linear_modes(32, 64), 3).matrix().t())
    made, rows = tensorize(network, ["second", "hidden"], error=1e-4)
    assert all(row.relative_error <= 1e-4 for row in rows)
    assert made.second.ranks == (1, 3, 3, 3, 1) and made.hidden.ranks == (1, 3, 3, 3, 1)
    torch.testing.assert_close(made(clip), network(clip), atol=1e-3, rtol=1e-3)


def test_densify_undoes_the_form_and_keeps_the_function(network, clip):
    made, _ = tensorize(network, hidden=True)
    back = densify(made)
    assert [type(m) for m in back.children()] == [type(m) for m in network.children()]
    torch.testing.assert_close(back(clip), made(clip), atol=1e-5, rtol=1e-4)
    assert isinstance(densify(TTLinear((2, 2), (2, 2), 2)), nn.Linear)


def test_tensorized_layers_learn(network, clip):
    made, _ = tensorize(network, hidden=True)
    made.train()(clip).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_a_layer_that_a_train_would_not_shrink_stays_and_says_so(network):
    made, rows = tensorize(network, ["classes"], ranks=64)
    assert type(made.classes) is nn.Linear
    assert "stays dense" in rows[0].note and rows[0].parameters_after == rows[0].parameters_before


def test_layers_that_cannot_be_trains_stay_unless_they_were_named():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 3), nn.Linear(16, 4))
    made, rows = tensorize(network)
    assert type(made[1]) is nn.Conv2d and "8 groups" in rows[0].note and isinstance(made[2], TTConv2d)
    with pytest.raises(RecipeError, match=r"1 \(Conv2d\): 8 groups"):
        tensorize(network, ["1"])


def test_one_layer_in_two_places_stays_one_layer():
    shared = nn.Linear(64, 64)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(64, 4))
    made, rows = tensorize(network, ["0"], ranks=2)
    assert made[0] is made[2] and isinstance(made[0], TTLinear) and len(rows) == 1


def test_modes_and_ranks_can_be_given_by_name(network):
    made, rows = tensorize(
        network, lambda name, _: name == "hidden", ranks={"hidden": (2, 3)}, modes={"hidden": ((4, 4, 2), (4, 4, 4))}
    )
    assert made.hidden.ranks == (1, 2, 3, 1) and rows[0].in_modes == (4, 4, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"select": ["third*"]}, "no layer is called 'third\\*'; there are first, second"),
        ({"ranks": {"nope": 2}}, "no layer is called 'nope'"),
        ({"select": ["hidden"], "modes": {"hidden": ((4, 4), (8, 8))}, "ranks": 2}, r"hidden .* 32; \(8, 4\)"),
    ],
)  # fmt: skip
def test_names_and_modes_that_do_not_exist_are_errors(network, arguments, message):
    with pytest.raises(RecipeError, match=message):
        tensorize(network, **arguments)
    with pytest.raises(RecipeError, match="single Linear"):
        tensorize(nn.Linear(4, 4))


def test_a_layer_slower_than_dense_warns_with_figures(clip):
    small = TTLinear((4, 4, 4), (4, 4, 4), 16)
    told = slower_than_dense(small, 256, training=True)
    assert told is not None and "ms against" in told and "batch 256" in told
    assert slower_than_dense(small, 256) is None  # evaluation multiplies the cached matrix
    assert slower_than_dense(TTLinear((8, 20, 20, 18), (16, 4, 4, 4), 4), 16, training=True) is None
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    with pytest.warns(UserWarning, match=r"0: TTLinear is slower than dense at batch 4096 in training: .* ms against"):
        tensorize(network, ["0"], ranks=8, batch=4096, training=True)


def test_plans_of_all_layers_can_be_read():
    assert layer_plan(TTConv2d((2, 2), (2, 2), 3, 2), 4, True, 100).form == "rebuilt"
    assert layer_plan(TTLSTM((8, 20, 20, 18), (4, 4, 4, 4), 4), 6).dense_flops == 2 * 8 * 57_600 * 1024
    with pytest.raises(VidletError, match="input mapping is dense"):
        layer_plan(TTLSTM((2, 2), (2, 2), None, 2), 1)
