"""Running statistics of batch normalization, measured anew for weights that no training step has seen.

Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2 (one more pass behind the averaging of weights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def learning_norms(network: nn.Module) -> list[_BatchNorm]:
    """The norms of a network in training that keep running statistics and see batches; it is left in training."""
    network.train()
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm)]
    return [norm for norm in norms if norm.training and norm.track_running_stats]


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
