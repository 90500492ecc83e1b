"""Gradual magnitude pruning: exact zeros, as many as asked for, and a head that still knows its task."""

import numpy as np
import pytest
import torch

from steps_material import accuracy, material, trained
from vidlet.compression.shrink import Masks, large_matrices, prune, smaller_mask, sparsity_at
from vidlet.errors import RecipeError


def test_the_schedule_by_hand():
    assert [sparsity_at(n, 4, 0.8) for n in (0, 1, 2, 4, 9)] == pytest.approx(
        [0, 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.125), 0.8, 0.8]
    )


def test_the_smallest_weights_are_masked_and_none_comes_back():
    weight = torch.tensor([[0.1, -3.0, 0.2], [-0.3, 2.0, 1.0]])
    first = smaller_mask(weight, torch.ones(2, 3, dtype=torch.bool), 0.34)
    assert first.tolist() == [[False, True, False], [True, True, True]]
    weight[0, 0] = 9.0  # large now, but masked
    second = smaller_mask(weight, first, 0.5)
    assert second.tolist() == [[False, True, False], [False, True, True]]
    assert smaller_mask(weight, second, 0.1).sum() == 3


def test_masks_grow_with_the_schedule_and_hold_what_an_optimizer_moves():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.randn(40, 50))
    masks = Masks([matrix], 0.9, 20)
    zeros = []
    for _ in range(30):
        matrix.data += 0.01 * torch.randn(40, 50)
        masks.update()
        zeros.append(int((matrix == 0).sum()))
    assert zeros == sorted(zeros)
    assert zeros[4] == int(sparsity_at(5, 20, 0.9) * 2000)
    assert zeros[19] == zeros[29] == 1800


@pytest.mark.parametrize(("name", "epochs"), [("grid-gru", 15), ("lstm", 40)])
def test_a_pruned_head_has_the_zeros_asked_for_and_still_answers_rightly(name, epochs):
    before = trained(name)
    kept = {key: value.clone() for key, value in before.head.state_dict().items()}
    after = prune(before, 0.75, material(epochs=epochs))
    assert accuracy(before) >= 0.95
    assert accuracy(after) >= 0.95
    matrices = large_matrices(after.head)
    assert len(matrices) >= 2
    for matrix in matrices:
        assert (matrix == 0).sum() >= int(0.75 * matrix.numel())
        assert (matrix != 0).sum() >= 0.2 * matrix.numel()
    for key, value in before.head.state_dict().items():
        np.testing.assert_array_equal(value, kept[key])
    assert after.extractor is before.extractor


@pytest.mark.parametrize("amount", [1.0, 1.5])
def test_a_share_that_is_none_is_refused(amount):
    with pytest.raises(RecipeError, match="share of zeros, between 0 and 1"):
        prune(trained(), amount, material())
