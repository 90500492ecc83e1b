"""Gradual magnitude pruning: the smallest weights of a head become exact zeros while it learns to do without them.

Source: Zhu and Gupta 2017, "To prune, or not to prune", arXiv:1710.01878. What zeros save is for the storage to show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..training import ClipNetwork
from .material import Material, Trained
from .tuning import clips_of, tune, tuning_epochs

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
