"""How weights move: optimizers, the course of the learning rate, what holds gradients, the average of the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import nn

from ..errors import RecipeError
from ..recipe import Training

MOMENTUM = 0.9  # of "sgd"


def make_optimizer(head: nn.Module, extractor: nn.Module | None, config: Training) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum and L2; head and extractor have rates of their own, vectors are not decayed."""
    groups = []
    for module, rate in ((head, config.lr), (extractor, config.extractor_lr)):
        if module is None:
            continue
        parameters = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in parameters if p.ndim > 1]
        rest = [p for p in parameters if p.ndim <= 1]
        groups += [
            {"params": decayed, "base_lr": rate, "weight_decay": config.weight_decay},
            {"params": rest, "base_lr": rate, "weight_decay": 0.0},
        ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=config.lr)


def for_clips(config: Training, count: int) -> Training:
    """The schedule for so many clips: longer where its epochs give fewer updates than ``least_updates``.

    What is counted in epochs is stretched alike; checkpoints that are averaged come from the last half. A schedule that
    is long enough is returned as it is.
    """
    steps = math.ceil(count / config.batch)
    epochs = math.ceil(config.least_updates / steps)
    if epochs <= config.epochs:
        return config
    longer = epochs / config.epochs
    averaging, schedule = config.averaging, config.schedule
    every = max(1, epochs * steps // (2 * averaging.last)) if averaging.last else averaging.every
    return dataclasses.replace(
        config,
        epochs=epochs,
        early_stopping=round(config.early_stopping * longer),
        schedule=dataclasses.replace(schedule, step_epochs=round(schedule.step_epochs * longer)),
        averaging=dataclasses.replace(averaging, every=min(averaging.every, every)),
    )


def rate_at(config: Training, updates: int, steps: int) -> float:
    """What the learning rate is multiplied by after ``updates`` updates, at ``steps`` an epoch."""
    if config.schedule.kind == "constant":
        return 1.0
    if config.schedule.kind == "keras-decay":
        return 1 / (1 + 1e-6 * updates)
    if config.schedule.kind == "step":
        return config.schedule.step_factor ** (updates // (steps * config.schedule.step_epochs))
    total, warm = config.epochs * steps, min(100, config.epochs * steps // 10)
    if updates < warm:
        return (updates + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (updates - warm) / max(1, total - warm)))


@torch.no_grad()
def penalize_(network: nn.Module, l2: Mapping[str, float]) -> None:
    """Add the gradient of L2 terms, strength |w|^2 / 2, to that of the weights whose names hold a key of ``l2``.

    Raises:
        RecipeError: a key that no weight's name holds.
    """
    for part, strength in l2.items():
        named = [weight for name, weight in network.named_parameters() if part in name and weight.ndim > 1]
        if not named:
            raise RecipeError(f"training.l2: no weight's name holds {part!r}")
        for weight in named:
            if weight.grad is not None:
                weight.grad.add_(weight, alpha=strength)


def clip_(network: nn.Module, config: Training) -> None:
    """Shorten gradients to the norm ``clip_norm``: all together, or each tensor's."""
    if not config.clip_norm:
        return
    for parameters in [[p] for p in network.parameters()] if config.clip_each else [network.parameters()]:
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)


@torch.no_grad()
def average_(average: nn.Module, network: nn.Module, decay: float, updates: int) -> None:
    """Move the average towards the network; early on faster, so that the random start is forgotten."""
    decay = min(decay, (1 + updates) / (10 + updates))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
