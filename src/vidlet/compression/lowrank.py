"""Low rank: matrices of trained layers as products of two thin ones, cut where the layer's own outputs allow it.

A layer's outputs on training clips span few directions. Projecting them onto the r strongest is the best that any
matrix of rank r can do on these clips, so the error is one of what the layer says, not of its weights. Without clips it
is the truncated singular value decomposition.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..models.head import Head
from ..tensor_train import TTGRU, TTLSTM, TTLinear, from_linear, from_recurrent, pair_modes
from .material import Material, Trained, clips_of, learned_part, single_batches, tune

DEFAULT_ERROR = 0.3
JUDGED_CLIPS = 100  # training clips on which layers are watched


class Factors(nn.Module):
    """A fully connected layer through r numbers: in -> r -> out."""

    def __init__(self, inputs: int, rank: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        out: Tensor = self.up(self.down(x))
        return out


class FactoredRNN(nn.Module):
    """A recurrent layer that sees its input through r numbers; called as the layer is."""

    def __init__(self, inputs: int, rank: int, rnn: nn.GRU | nn.LSTM) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.rnn = rnn

    def forward(self, x: Tensor, state: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, object]:
        """x (B, T, in) and the layer's state -> its outputs (B, T, H) and its next state."""
        out, after = self.rnn(self.down(x), state)
        return out, after


@dataclass(frozen=True)
class Moments:
    """Of the inputs of a layer: mean (in,) and covariance about it (in, in)."""

    mean: Tensor
    covariance: Tensor


def lowrank(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Replace large matrices of the head by products of two, where that has fewer numbers, and tune the head.

    Guarantee, before tuning: for each replaced matrix, the squared error of its products with the training clips'
    inputs is at most ``amount``^2 of their variance (of their squares, in a layer without bias); every replaced layer
    has fewer numbers than before, and the others are untouched.

    Args:
        amount: relative error, 0.3 by default.

    Raises:
        RecipeError: an amount outside (0, 1).
    """
    error = DEFAULT_ERROR if amount is None else amount
    if not 0 < error < 1:
        raise RecipeError(f"lowrank: the amount is a relative error, between 0 and 1, got {error:g}")
    small = factor_head(trained.head, error, input_moments(trained, material))
    return tune(Trained(trained.extractor, small), material)


def factor_head(head: Head, error: float, moments: dict[str, Moments] | None = None) -> Head:
    """A copy whose matrices are products of two where that keeps the error and has fewer numbers.

    Args:
        moments: of the inputs of its layers, by name; a layer that is not there is judged by its weights alone.
    """
    small = copy.deepcopy(head)
    for name in factored_layers(head):
        layer = small.get_submodule(name)
        replaced = _factor(layer, error, (moments or {}).get(name))
        if replaced is not None:
            replace_layer_(small, name, replaced)
    return small


def replace_layer_(head: Head, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one of that name."""
    parent, _, last = name.rpartition(".")
    setattr(head.get_submodule(parent), last, layer)


def factored_layers(head: Head) -> list[str]:
    """Names of the layers that can be factored: fully connected ones, and recurrent ones of one layer and direction."""
    compound = (Factors, FactoredRNN, TTLSTM, TTGRU)  # their parts are what they expect
    inside = tuple(name for name, layer in head.named_modules() if isinstance(layer, compound))
    return [
        name
        for name, layer in head.named_modules()
        if type(layer) is nn.Linear or (type(layer) in (nn.GRU, nn.LSTM) and _single(layer))
        if not any(name.startswith(f"{outer}.") for outer in inside)
    ]


@torch.no_grad()
def input_moments(trained: Trained, material: Material) -> dict[str, Moments]:
    """Moments of what enters each layer on up to 100 training clips."""
    network = learned_part(copy.deepcopy(trained), material).eval()
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        network.head.get_submodule(name).register_forward_pre_hook(_watch(seen, name))
        for name in factored_layers(network.head)
    ]
    for batch in single_batches(clips_of(trained, material)[0], JUDGED_CLIPS):
        network(batch.x, batch.mask)
    for hook in hooks:
        hook.remove()
    found = {}
    for name, (count, total, squares) in seen.items():
        mean = total / count
        found[name] = Moments(mean, squares / count - torch.outer(mean, mean))
    return found


def best_factors(weight: Tensor, second: Tensor | None, error: float) -> tuple[Tensor, Tensor]:
    """up (out, r) and down (r, in), with the least r for which their product keeps a relative error on the inputs.

    E|W x - up down x|^2 <= error^2 E|W x|^2 for inputs with second moments ``second`` (in, in); None: the identity.
    ``up`` has orthonormal columns.
    """
    w = weight.double()
    outputs = w @ w.T if second is None else w @ second.double() @ w.T  # E (W x)(W x)^T
    values, vectors = torch.linalg.eigh(outputs)  # ascending
    values = values.clamp(min=0)
    lost = values.cumsum(0)
    rank = int((lost > error**2 * values.sum()).sum().clamp(min=1))
    up = vectors[:, -rank:].flip(1)
    return up, up.T @ w


def _factor(layer: nn.Module, error: float, moments: Moments | None) -> nn.Module | None:
    """The layer as a product, or None where that is not smaller."""
    bias: Tensor | None
    if isinstance(layer, nn.Linear):
        weight, bias = layer.weight.detach(), layer.bias
    else:
        assert isinstance(layer, (nn.GRU, nn.LSTM))
        own = dict(layer.named_parameters())
        weight, bias = own["weight_ih_l0"].detach(), own.get("bias_ih_l0")
    second = None
    if moments is not None:
        square = torch.outer(moments.mean, moments.mean)
        second = moments.covariance if bias is not None else moments.covariance + square
    up, down = best_factors(weight, second, error)
    outputs, inputs = weight.shape
    rank = up.shape[1]
    if rank * (inputs + outputs) >= inputs * outputs:
        return None
    with torch.no_grad():
        if bias is not None and moments is not None:  # what the cut directions say on average
            missing = weight.double() @ moments.mean.double() - up @ (down @ moments.mean.double())
            bias = (bias.double() + missing).float()
        if isinstance(layer, nn.Linear):
            product = Factors(inputs, rank, outputs, bias is not None)
            product.down.weight.copy_(down)
            product.up.weight.copy_(up)
            if bias is not None:
                product.up.bias.copy_(bias)
            return product
        small = type(layer)(rank, layer.hidden_size, bias=layer.bias, batch_first=layer.batch_first)
        state = layer.state_dict() | {"weight_ih_l0": up.float()}
        small.load_state_dict(state if bias is None else state | {"bias_ih_l0": bias})
        factored = FactoredRNN(inputs, rank, small)
        factored.down.weight.copy_(down)
        return factored


def _single(layer: nn.Module) -> bool:
    assert isinstance(layer, (nn.GRU, nn.LSTM))
    return layer.num_layers == 1 and not layer.bidirectional


def _watch(seen: dict[str, list[Tensor]], name: str) -> Callable[[nn.Module, Sequence[Tensor]], None]:
    """A hook that adds a layer's inputs (..., in) to their count, sum and sum of outer products."""

    def hook(_: nn.Module, inputs: Sequence[Tensor]) -> None:
        x = inputs[0].detach().cpu().double().flatten(0, -2)  # (rows, in)
        new = [torch.tensor(float(len(x))), x.sum(0), x.T @ x]
        seen[name] = [a + b for a, b in zip(seen[name], new, strict=True)] if name in seen else new

    return hook


# Tensor trains of trained layers: large matrices of a head become chains of small cores, and the head is tuned.
#
# A matrix that was trained without a train in mind has no such structure: the error has to be large before anything is
# saved, and tuning has to make up for it (docs/lab-notes.md). Heads that are trained as trains from the start are in
# models/tt_heads.py.
TRAIN_ERROR = 0.7
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
    error = TRAIN_ERROR if amount is None else amount
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
