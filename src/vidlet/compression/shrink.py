"""Structured pruning of heads: whole units are removed, and what is left is the same head with smaller layers.

A unit is judged by what the loss would change without it, to first order: the sum over the weights that read it of
weight times gradient is the derivative of the loss by a gate on the unit. Its square is averaged over training clips.
Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", arXiv:1906.10771.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..models.head import Head
from ..models.own_heads import GridGRU
from ..models.thesis_heads import Mean, PaperGRU, PaperLSTM, PaperRNN, SingleFrame
from ..training import ClipNetwork
from ..training.losses import label_losses
from .material import Material, Trained, clips_of, learned_part, single_batches, tune, tuning_epochs

JUDGED_CLIPS = 400  # training clips that say what a unit is worth
JUDGED_AT_ONCE = 4
LEAST = 8  # a group keeps at least one in so many of its units


@dataclass(frozen=True)
class Use:
    """Where a group's units lie along an axis of a tensor: ``blocks`` runs, each with an entry for every unit."""

    tensor: str
    axis: int
    blocks: int = 1


@dataclass(frozen=True)
class Units:
    """A group of units that can be removed: ``read`` are the weights that take them in, ``made`` what computes them."""

    name: str
    count: int
    read: tuple[Use, ...]
    made: tuple[Use, ...]


def units(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Remove whole units of the head, those that the loss misses least, and tune what is left.

    Guarantee: the head is of the same class; of its n units ``round(amount n)`` are gone, fewer only where every group
    is down to an eighth; the weights among those left start as they were.

    Args:
        amount: share of all units removed, 0.5 by default.

    Raises:
        RecipeError: an amount outside (0, 1), or a head that has no such units.
    """
    share = 0.5 if amount is None else amount
    if not 0 < share < 1:
        raise RecipeError(f"units: the amount is the share of units removed, between 0 and 1, got {share:g}")
    groups = units_of(trained.head)
    kept = best_units(importance(trained, groups, material), share)
    small = Trained(trained.extractor, keep_units(trained.head, kept))
    return tune(small, material)


def units_of(head: Head) -> list[Units]:
    """The groups of units of a head.

    Raises:
        RecipeError: none are known of this head.
    """
    known_head = _HEADS.get(type(head))
    found = known_head[0](head) if known_head is not None else []
    if not found:
        known = ", ".join(kind.__name__ for kind in _HEADS)
        raise RecipeError(f"units: {type(head).__name__} has no units that can be removed; heads that have: {known}")
    return found


def keep_units(head: Head, kept: Mapping[str, Tensor]) -> Head:
    """A head of the same class with only these units (ascending indices by group; groups not named stay whole).

    Units that nothing reads any more change nothing: the logits are those of ``head`` with zeros in the weights that
    read them.
    """
    state = dict(head.state_dict())
    sizes = {}
    for group in units_of(head):
        chosen = kept.get(group.name, torch.arange(group.count))
        sizes[group.name] = len(chosen)
        for use in (*group.read, *group.made):
            state[use.tensor] = state[use.tensor].index_select(use.axis, _entries(chosen, group.count, use.blocks))
    build = _HEADS[type(head)][1]
    with torch.random.fork_rng(devices=[]):  # the new head's own start is overwritten
        small = build(head, sizes)
    small.load_state_dict(state)
    return small.train(head.training)


def sized_as(head: Head, state: Mapping[str, Tensor]) -> Head:
    """A head of the same class, untrained, with as many units as these weights of one have, as ``units`` left it."""
    sizes = {}
    for group in units_of(head):
        use = group.made[0]
        sizes[group.name] = state[use.tensor].shape[use.axis] // use.blocks
    return _HEADS[type(head)][1](head, sizes)


def importance(trained: Trained, groups: list[Units], material: Material) -> dict[str, Tensor]:
    """What each unit is worth (count,), by group: mean squared derivative of the loss by a gate on the unit."""
    network = learned_part(copy.deepcopy(trained), material).eval()
    parameters = dict(network.head.named_parameters())
    read = sorted({use.tensor for group in groups for use in group.read})
    worth = {group.name: torch.zeros(group.count) for group in groups}
    for batch in single_batches(clips_of(trained, material)[0], JUDGED_CLIPS, JUDGED_AT_ONCE):
        with torch.backends.cudnn.flags(enabled=False):
            loss = label_losses(network(batch.x, batch.mask), batch.y, 0.0, material.multi_label).mean()
            gradients = dict(zip(read, torch.autograd.grad(loss, [parameters[name] for name in read]), strict=True))
        for group in groups:
            change = sum(_by_unit(parameters[use.tensor].detach() * gradients[use.tensor], use) for use in group.read)
            worth[group.name] += change**2
    return worth


def best_units(worth: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Ascending indices by group of what is left when this share of all units goes, the least worth first.

    An eighth of each group stays, whatever it is worth.
    """
    order = {name: values.argsort(descending=True, stable=True) for name, values in worth.items()}
    counts = {name: -(-len(values) // LEAST) for name, values in worth.items()}
    rest = sorted(
        ((-float(worth[name][i]), name) for name in worth for i in order[name][counts[name] :]),
    )
    total = sum(len(values) for values in worth.values())
    for _, name in rest[: max(0, total - round(share * total) - sum(counts.values()))]:
        counts[name] += 1
    return {name: order[name][: counts[name]].sort().values for name in worth}


def _by_unit(values: Tensor, use: Use) -> Tensor:
    """Sum over all that belongs to a unit: (count,)."""
    flat = values.movedim(use.axis, -1).flatten(0, -2).sum(0)  # (blocks * count,)
    return flat.view(use.blocks, -1).sum(0)


def _entries(chosen: Tensor, count: int, blocks: int) -> Tensor:
    """Indices along an axis of the chosen units, block by block."""
    return (torch.arange(blocks)[:, None] * count + chosen).flatten()


def _grid_gru_units(head: Head) -> list[Units]:
    assert isinstance(head, GridGRU)
    if type(head.project) is not nn.Linear or type(head.reduce) is not nn.Linear or type(head.rnn) is not nn.GRU:
        raise RecipeError("units: the head's layers are factors already: put units before lowrank in the chain")
    runs = head.project.in_features // head.reduce.out_features  # positions, twice with appearance
    return [
        Units(
            "channels", head.reduce.out_features, (Use("project.weight", 1, runs),), (Use("reduce.weight", 0),)
        ),
        Units(
            "project", head.project.out_features, (Use("rnn.weight_ih_l0", 1),),
            (Use("project.weight", 0), Use("project.bias", 0)),
        ),
        Units("hidden", head.rnn.hidden_size, *_recurrent_uses(3, Use("classify.weight", 1))),
    ]  # fmt: skip


def _build_grid_gru(head: Head, sizes: Mapping[str, int]) -> Head:
    assert isinstance(head, GridGRU)
    positions = head.state_shapes["previous"][0]
    side = math.isqrt(positions)
    shape = (head.reduce.in_features, side, side)
    return GridGRU(
        shape, head.classify.out_features, sizes["channels"], sizes["project"], sizes["hidden"], head.dropout.p,
        head.appearance,
    )  # fmt: skip


def _recurrent_uses(gates: int, *readers: Use) -> tuple[tuple[Use, ...], tuple[Use, ...]]:
    made = tuple(Use(f"rnn.{name}_l0", 0, gates) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return (Use("rnn.weight_hh_l0", 1), *readers), made


def _classifier_units(classifier: nn.Sequential) -> tuple[list[Units], str]:
    """The dense layer's units of a thesis classifier, if it has them, and the name of its first dense layer."""
    dense = [name for name, layer in classifier.named_children() if isinstance(layer, nn.Linear)]
    first = f"classifier.{dense[0]}"
    if len(dense) == 1:
        return [], first
    norm = f"classifier.{int(dense[0]) + 1}"
    made = [Use(f"{first}.{name}", 0) for name in ("weight", "bias")] + _norm_uses(norm)
    count = classifier.get_submodule(dense[0]).out_features
    assert isinstance(count, int)
    return [Units("units", count, (Use(f"classifier.{dense[1]}.weight", 1),), tuple(made))], first


def _norm_uses(norm: str) -> list[Use]:
    return [Use(f"{norm}.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")]


def _paper_units(head: Head) -> list[Units]:
    assert isinstance(head, PaperRNN)
    if not isinstance(head.rnn, (nn.GRU, nn.LSTM)):
        raise RecipeError("units: the head's layers are factors already: put units before lowrank in the chain")
    found, first = _classifier_units(head.classifier)
    read, made = _recurrent_uses(4 if isinstance(head.rnn, nn.LSTM) else 3, Use(f"{first}.weight", 1))
    return [Units("hidden", head.rnn.hidden_size, read, (*made, *_norm_uses("classifier.0"))), *found]


def _build_paper(head: Head, sizes: Mapping[str, int]) -> Head:
    assert isinstance(head, PaperRNN)
    classes, dropout = _last(head.classifier), _dropout(head.classifier)
    return type(head)(
        (head.rnn.input_size,), classes, sizes["hidden"], sizes.get("units", 0), dropout, head.scale
    )  # fmt: skip


def _dense_units(head: Head) -> list[Units]:
    assert isinstance(head, (Mean, SingleFrame))
    return _classifier_units(head.classifier)[0]


def _build_dense(head: Head, sizes: Mapping[str, int]) -> Head:
    assert isinstance(head, (Mean, SingleFrame))
    first = next(layer for layer in head.classifier if isinstance(layer, nn.Linear))
    per_channel = head.standardize.mean
    positions = first.in_features // len(per_channel)
    shape = (
        (len(per_channel), *([1] * (per_channel.ndim - 2)), positions) if per_channel.ndim > 1 else per_channel.shape
    )
    return type(head)(tuple(shape), _last(head.classifier), sizes["units"], _dropout(head.classifier))


def _last(classifier: nn.Sequential) -> int:
    last = classifier[-1]
    assert isinstance(last, nn.Linear)
    return last.out_features


def _dropout(classifier: nn.Sequential) -> float:
    return next(layer.p for layer in classifier if isinstance(layer, nn.Dropout))


_HEADS: dict[type[Head], tuple[Callable[[Head], list[Units]], Callable[[Head, Mapping[str, int]], Head]]] = {
    GridGRU: (_grid_gru_units, _build_grid_gru),
    PaperGRU: (_paper_units, _build_paper),
    PaperLSTM: (_paper_units, _build_paper),
    Mean: (_dense_units, _build_dense),
    SingleFrame: (_dense_units, _build_dense),
}


# Gradual magnitude pruning: the smallest weights of a head become exact zeros while it learns to do without them.
#
# Source: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878. What zeros save is for the storage to show.
MIN_ELEMENTS = 1024  # smaller matrices are left alone: their bit mask would not pay
RAMP = 2 / 3  # of the updates, over which the sparsity rises; the rest recovers with the final mask
EVERY = 5  # updates between two masks


def prune(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Set the smallest weights of the head's large matrices to zero while it is tuned on.

    Guarantee: each matrix of n >= 1024 weights has at least ``floor(amount * n)`` exact zeros; smaller ones, vectors
    and the extractor have no mask.

    Args:
        amount: share of zeros, 0.75 by default.

    Raises:
        RecipeError: an amount outside (0, 1).
    """
    share = 0.75 if amount is None else amount
    if not 0 < share < 1:
        raise RecipeError(f"prune: the amount is the share of zeros, between 0 and 1, got {share:g}")
    epochs = tuning_epochs(material)
    updates = epochs * -(-len(clips_of(trained, material)[0]) // material.config.batch)
    held: list[Masks] = []

    def hold_of(network: ClipNetwork) -> Callable[[], None]:
        held.append(Masks(large_matrices(network.head), share, max(1, int(updates * RAMP))))
        return held[0].update

    tuned = tune(trained, material, epochs, hold_of=hold_of)
    held[0].apply()  # the weights chosen may be an average over the way
    return tuned


def large_matrices(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are pruned: matrices of at least 1024 weights."""
    return [p for p in module.parameters() if p.ndim > 1 and p.numel() >= MIN_ELEMENTS]


def sparsity_at(update: int, ramp: int, final: float) -> float:
    """Zhu and Gupta's cubic schedule: fast at first, while redundant weights abound; ``final`` from ``ramp`` on."""
    return final * (1 - (1 - min(update, ramp) / ramp) ** 3)


class Masks:
    """Masks of matrices that only ever lose weights.

    Args:
        matrices: the parameters, changed in place.
        final: share of zeros after ``ramp`` updates.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], final: float, ramp: int) -> None:
        self.matrices, self.final, self.ramp = list(matrices), final, ramp
        self.masks = [torch.ones_like(p, dtype=torch.bool) for p in self.matrices]
        self.updates = 0

    def update(self) -> None:
        """After an optimizer's update: enlarge the masks every few updates, and put the zeros back."""
        self.updates += 1
        if self.updates <= self.ramp and (self.updates % EVERY == 0 or self.updates == self.ramp):
            share = sparsity_at(self.updates, self.ramp, self.final)
            self.masks = [smaller_mask(p.detach(), m, share) for p, m in zip(self.matrices, self.masks, strict=True)]
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set what is masked to zero."""
        for parameter, mask in zip(self.matrices, self.masks, strict=True):
            parameter.mul_(mask.to(parameter.device))


def smaller_mask(weight: Tensor, mask: Tensor, share: float) -> Tensor:
    """The mask without the weights smallest in magnitude, so that ``floor(share * n)`` are masked; none come back."""
    count = int(share * weight.numel())
    if not count:
        return mask
    magnitude = torch.where(mask, weight.abs(), -1.0).flatten()  # what is masked stays the smallest
    smallest = magnitude.argsort(stable=True)[:count]
    result = mask.flatten().clone()
    result[smallest] = False
    return result.view_as(mask)
