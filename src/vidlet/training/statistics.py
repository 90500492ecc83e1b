"""Running statistics of batch normalization, where a training does not bring them to where they belong.

They begin at 0 and 1 and move by a share ``momentum`` of each batch. After few batches they still hold their start, and
the network is judged by noise, however well it has learned. Weights that are a mean of others have none of their own.
In both cases they are measured anew behind the training.

Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2 (one more pass behind the averaging of weights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

START_LEFT = 1e-3


def learning_norms(network: nn.Module) -> list[_BatchNorm]:
    """The norms of a network in training that keep running statistics and see batches; it is left in training."""
    network.train()
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm)]
    return [norm for norm in norms if norm.training and norm.track_running_stats]


def least_items(network: nn.Module) -> int:
    """How many items must be in a batch: two where a norm sees one number of a channel an item, as in a vector."""
    return 2 if any(isinstance(norm, nn.BatchNorm1d) for norm in learning_norms(network)) else 1


def is_short(norm: _BatchNorm, updates: int) -> bool:
    """Whether more than a thousandth of the start would be left in the running statistics after so many updates.

    A thousandth is little where features have a variance near 1, and no little where they have one of 1/1000.
    """
    return norm.momentum is not None and (1 - norm.momentum) ** updates > START_LEFT


class Hurry:
    """Running statistics of norms whose training is short for their momentum move faster, as long as it lasts.

    They move as averaged weights do (``average_``): early on by large shares, so that the start is soon forgotten.

    Args:
        updates: of the training, that are planned.
    """

    def __init__(self, network: nn.Module, updates: int) -> None:
        self.momenta = {norm: norm.momentum for norm in learning_norms(network) if is_short(norm, updates)}

    def before(self, updates: int) -> None:
        """Set the share by which the next update moves them, with so many updates behind."""
        for norm, momentum in self.momenta.items():
            assert momentum is not None
            norm.momentum = max(momentum, 9 / (updates + 10))

    def end(self) -> None:
        """Give the norms their own momenta again."""
        for norm, momentum in self.momenta.items():
            norm.momentum = momentum


@torch.no_grad()
def estimate_statistics_(
    network: nn.Module, batches: Iterable[Any], see: Callable[[Any], object], seed: int = 0
) -> None:
    """Put the plain mean over batches into every norm that learns; the network is left in eval mode.

    A clip alone has no deviation: a batch of one is left out, and where there is no other nothing changes.

    Args:
        batches: with the ``names`` of what is in them; read only where there is a norm that learns.
        see: puts a batch through the network.
    """
    norms = learning_norms(network)
    if norms:
        known = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
        momenta, seen = [norm.momentum for norm in norms], 0
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
        torch.manual_seed(seed)
        for batch in batches:
            if len(batch.names) > 1:
                see(batch)
                seen += 1
        for norm, momentum, buffers in zip(norms, momenta, known, strict=True):
            norm.momentum = momentum
            if not seen:
                norm.load_state_dict(buffers, strict=False)
    network.eval()
