"""Tensor trains of trained layers: large matrices of a head become chains of small cores, and the head is tuned.

A matrix that was trained without a train in mind has no such structure: the error has to be large before anything is
saved, and tuning has to make up for it (docs/lab-notes.md). Heads that are trained as trains from the start are in
models/tt_heads.py.
"""

from __future__ import annotations

import copy

from torch import nn

from ..errors import RecipeError
from ..models.head import Head
from ..tensor_train import TTLinear, from_linear, from_recurrent, pair_modes
from .lowrank import factored_layers, replace_layer_
from .material import Material, Trained
from .tuning import tune

DEFAULT_ERROR = 0.7
CORES = (2, 3)  # numbers of cores that are tried


def tensor_train(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Replace large matrices of the head by tensor trains, where those have fewer numbers, and tune the head.

    Guarantee, before tuning: each train is within ``amount`` of its matrix, in relative Frobenius norm (TT-SVD), and
    has fewer numbers; the other layers are untouched.

    Args:
        amount: relative error, 0.7 by default.

    Raises:
        RecipeError: an amount outside (0, 1).
    """
    error = DEFAULT_ERROR if amount is None else amount
    if not 0 < error < 1:
        raise RecipeError(f"tt: the amount is a relative error, between 0 and 1, got {error:g}")
    return tune(Trained(trained.extractor, tensorize_head(trained.head, error)), material)


def tensorize_head(head: Head, error: float) -> Head:
    """A copy whose fully connected layers and recurrent input matrices are trains where that has fewer numbers."""
    small = copy.deepcopy(head)
    for name in factored_layers(head):
        layer = small.get_submodule(name)
        trains = [train for cores in CORES if (train := _train(layer, cores, error)) is not None]
        if trains:
            replace_layer_(small, name, min(trains, key=_numbers))
    return small


def _train(layer: nn.Module, cores: int, error: float) -> nn.Module | None:
    """The layer with its matrix as a train of so many cores, or None where that is not smaller."""
    if isinstance(layer, nn.Linear):
        train: nn.Module = from_linear(layer, *pair_modes(layer.in_features, layer.out_features, cores), error=error)
    else:
        assert isinstance(layer, (nn.GRU, nn.LSTM))
        modes = pair_modes(layer.input_size, layer.hidden_size, cores)
        train = from_recurrent(layer, *modes, error=error, name=f"TT{type(layer).__name__}")
    return train if _matrix(train) < _matrix(layer) and _numbers(train) < _numbers(layer) else None


def _matrix(layer: nn.Module) -> int:
    """Numbers of the layer's input matrix, as it is stored."""
    own = getattr(layer, "input_map", layer)
    if isinstance(own, TTLinear):
        return own.core_parameters
    return next(p.numel() for name, p in layer.named_parameters() if name in ("weight", "weight_ih_l0"))


def _numbers(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())
