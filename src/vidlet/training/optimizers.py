"""How weights move: the optimizers, the course of the learning rate, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn

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


def rate_at(config: Training, updates: int, steps: int) -> float:
    """What the learning rate is multiplied by after ``updates`` updates, at ``steps`` an epoch."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "keras-decay":
        return 1 / (1 + 1e-6 * updates)
    if config.schedule == "step":
        return config.step_factor ** (updates // (steps * config.step_epochs))
    total, warm = config.epochs * steps, min(100, config.epochs * steps // 10)
    if updates < warm:
        return (updates + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (updates - warm) / max(1, total - warm)))


@torch.no_grad()
def average_(average: nn.Module, network: nn.Module, decay: float, updates: int) -> None:
    """Move the average towards the network; early on faster, so that the random start is forgotten."""
    decay = min(decay, (1 + updates) / (10 + updates))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
