"""Running statistics of batch normalization, measured anew for weights that no training step has seen.

Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2 (one more pass behind the averaging of weights).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .batches import Clips


@torch.no_grad()
def estimate_statistics_(network: nn.Module, clips: Clips, batch: int, seed: int = 0, device: str = "cpu") -> None:
    """Put the plain mean over batches of ``clips``, seen as in training, into every norm that learns; left in eval.

    ``network`` takes (x, mask). A clip alone has no deviation: batches are of two at least, one left over is left out.
    """
    network.train()
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.training]
    momenta = [norm.momentum for norm in norms]
    if norms and len(clips) > 1:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        torch.manual_seed(seed)
        for part in clips.batches(max(2, batch), list(range(len(clips))), {}, [seed, 0]):
            if len(part.y) > 1:
                network(part.x.to(device), part.mask.to(device))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    network.eval()
