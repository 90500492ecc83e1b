"""One network from several: the mean of their weights (the size of one), or all of them as one head (the size of all).

Source of weight averaging: Wortsman et al. 2022, "Model soups", arXiv:2203.05482 (the uniform one, from one start).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from ..errors import RecipeError
from ..models.ensemble import Ensemble
from ..models.head import Head
from .material import Material, Trained, tune

Network = TypeVar("Network", bound=nn.Module)

MEMBERS = 3
SEED_STEP = 1000  # seeds of members are this far apart, so that their epochs draw nothing alike


def average(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Tune the network several times from where it stands, with other orders of clips, and take the mean weights.

    Guarantee: the same layers and bytes as before.

    Args:
        amount: how many, 3 by default.

    Raises:
        RecipeError: fewer than two.
    """
    count = _members("average", amount)
    tuned = [tune(trained, material, seed=material.seed + SEED_STEP * i) for i in range(1, count + 1)]
    if material.config.mode == "frozen":
        return Trained(trained.extractor, average_weights([one.head for one in tuned]))
    return Trained(average_weights([one.extractor for one in tuned]), average_weights([one.head for one in tuned]))


def ensemble(trained: Trained, amount: float | None, material: Material) -> Trained:
    """The head and others like it, trained from other starts on the same features, their probabilities averaged.

    Guarantee: the extractor is as it was, and the trained head is the first member, unchanged.

    Args:
        amount: how many heads in all, 3 by default.

    Raises:
        RecipeError: fewer than two, or a recipe that trains the extractor with the head (members share it).
    """
    count = _members("ensemble", amount)
    if material.config.mode != "frozen":
        raise RecipeError(
            "ensemble: members share the extractor, which training.mode 'finetune' fits to one head; "
            "use average, or mode 'frozen'"
        )
    members = [copy.deepcopy(trained.head)]
    for i in range(1, count):
        fresh = Trained(trained.extractor, fresh_start(trained.head, material.seed + SEED_STEP * i))
        seed = material.seed + SEED_STEP * i
        members.append(tune(fresh, material, seed=seed).head)
    return Trained(trained.extractor, Ensemble(members, material.multi_label))


def average_weights(networks: Sequence[Network]) -> Network:
    """A copy of the first network with the mean of all their parameters and buffers (whole numbers: the first's).

    Raises:
        RecipeError: networks whose tensors differ in name or shape.
    """
    states = [network.state_dict() for network in networks]
    first = states[0]
    for state in states[1:]:
        for name in sorted(first.keys() | state.keys()):
            shapes = [tuple(s[name].shape) if name in s else None for s in (first, state)]
            if shapes[0] != shapes[1]:
                raise RecipeError(f"average: {name} has the shapes {shapes[0]} and {shapes[1]}; they must be alike")
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in first.items()
    }
    result = copy.deepcopy(networks[0])
    result.load_state_dict(mean)
    return result


def fresh_start(head: Head, seed: int) -> Head:
    """A copy whose layers have the weights of a new start; scales learned of the data are kept."""
    fresh = copy.deepcopy(head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in fresh.modules():
            reset = getattr(layer, "reset_parameters", None)
            if reset is not None:
                reset()
    return fresh


def _members(step: str, amount: float | None) -> int:
    count = MEMBERS if amount is None else amount
    if count < 2 or count != int(count):
        raise RecipeError(f"{step}: the amount is a number of networks, 2 or more, got {count:g}")
    return int(count)
