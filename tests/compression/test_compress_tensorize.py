"""Tensor trains of trained layers: within the error, fewer numbers, and a head that streams and knows its task."""

import pytest
import torch

from steps_material import accuracy, check_streams, material, trained
from vidlet.compression.lowrank import factored_layers, tensor_train, tensorize_head
from vidlet.errors import RecipeError
from vidlet.tensor_train import TTGRU, TTLSTM, TTLinear, relative_error


@pytest.mark.parametrize("error", [0.3, 0.7])
@pytest.mark.parametrize("name", ["grid-gru", "lstm"])
def test_every_train_is_within_the_error_and_has_fewer_numbers(name, error):
    head = trained(name).head
    small = tensorize_head(head, error)
    trains = 0
    for layer in factored_layers(head):
        old, new = head.get_submodule(layer), small.get_submodule(layer)
        if isinstance(new, TTLinear):
            assert relative_error(new, old.weight) <= error + 1e-5
        elif isinstance(new, (TTGRU, TTLSTM)):
            assert relative_error(new.input_map, old.weight_ih_l0) <= error + 1e-5
        else:
            for a, b in zip(new.parameters(), old.parameters(), strict=True):
                assert torch.equal(a, b)
            continue
        trains += 1
        assert sum(p.numel() for p in new.parameters()) < sum(p.numel() for p in old.parameters())
    assert trains or error < 0.5


def test_a_head_of_trains_streams_and_knows_the_task():
    before = trained("grid-gru")
    after = tensor_train(before, None, material(epochs=30))
    assert any(isinstance(layer, (TTLinear, TTGRU)) for layer in after.head.modules())
    assert accuracy(after) >= 0.95
    check_streams(after.head)


def test_trains_are_not_factored_again():
    once = tensorize_head(trained("grid-gru").head, 0.7)
    assert isinstance(once.rnn, TTGRU)
    assert not [name for name in factored_layers(once) if name.startswith("rnn")]


def test_an_error_that_is_none_is_refused():
    with pytest.raises(RecipeError, match="tt: the amount is a relative error"):
        tensor_train(trained(), 1.0, material())
