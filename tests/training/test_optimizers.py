"""What is done to gradients before an update: L2 terms, and clipping."""

import pytest
import torch
from torch import nn

from vidlet.errors import RecipeError
from vidlet.recipe import Training
from vidlet.training.optimizers import clip_, penalize_


def test_an_l2_term_is_in_the_gradient_of_the_weights_that_it_names_only():
    net, twin = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    twin.load_state_dict(net.state_dict())
    x = torch.ones(5, 3)
    net(x).square().mean().backward()
    penalize_(net, {"1.": 0.1})
    (twin(x).square().mean() + 0.1 * twin[1].weight.square().sum() / 2).backward()
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    with pytest.raises(RecipeError, match="no weight's name holds 'gates'"):
        penalize_(net, {"gates": 0.1})


def test_gradients_are_clipped_all_together_or_each():
    def norms(each):
        net = nn.Linear(2, 2)
        net.weight.grad, net.bias.grad = torch.full((2, 2), 3.0), torch.full((2,), 0.1)
        clip_(net, Training(clip_norm=1.0, clip_each=each))
        return [p.grad.norm().item() for p in net.parameters()]

    bias = 0.1 * 2**0.5
    assert norms(True) == pytest.approx([1, bias], rel=1e-4)
    assert norms(False) == pytest.approx([6 / (36 + bias**2) ** 0.5, bias / (36 + bias**2) ** 0.5], rel=1e-4)
