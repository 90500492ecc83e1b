"""What a person should know before a long training begins."""

from __future__ import annotations

import torch
from torch import nn

from ..models.head import Head
from ..progress import say
from ..recipe import Recipe
from ..tensor_train import TTConv2d, TTConv3d, TTLinear, slow_trains
from ..training.precision import lacks_bfloat16


def warn_of_precision(plan: Recipe, device: str) -> None:
    """Say that a processor without instructions for bfloat16 will be slower at it."""
    if plan.training.precision == "bfloat16" and lacks_bfloat16(device):
        say("warning: this processor has no instructions for bfloat16; training.precision = 'float32' is faster here")


def warn_of_slow_trains(
    head: Head, feature_shape: tuple[int, ...], plan: Recipe, median_s: float, device: str
) -> list[str]:
    """Say, with expected figures, which tensor trains of the head will train slower on the CPU than dense layers."""
    if device != "cpu" or not any(isinstance(part, TTLinear | TTConv2d | TTConv3d) for part in head.modules()):
        return []
    clips = min(plan.training.batch, plan.training.micro_batch or plan.training.batch)
    sampling = plan.sampling
    frames = sampling.frames if sampling.rule == "uniform" else max(1, round(sampling.hz * median_s))
    shape = (clips, min(frames, sampling.max_frames), *feature_shape)

    def run(shadow: nn.Module) -> None:
        assert isinstance(shadow, Head)
        x = torch.empty(shape, device="meta")
        shadow(x, shadow.zero_state(clips, x))

    found = slow_trains(head, run)
    for line in found:
        say(f"warning: {line}")
    return found
