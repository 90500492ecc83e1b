"""What every head shares: the contract, the names and shapes of its state, and a few steps on padded sequences.

    logits, next_state = head(features, state, mask)

``features`` is (B, T, *feature_shape); ``state`` maps each name of ``head.state_shapes`` to a float tensor (B, *shape),
zeros to begin with; ``mask`` (B, T), True on real frames, is for training on padded clips (real frames first). A whole
clip at once, or one frame at a time with the state handed on, gives the same logits (B, K), those after the last frame.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class Head(nn.Module):
    """What all heads share: the names and shapes of their state, and zeros to begin with.

    ``shares_frames``: features of batch 1 go with a state of any batch. The windows of an artifact share the frames;
    such a head computes once for all of them what does not depend on the state.
    """

    state_shapes: Mapping[str, tuple[int, ...]]
    shares_frames: bool = False

    def zero_state(self, batch: int, like: Tensor) -> State:
        """State of ``batch`` windows that have seen nothing, on the device of ``like``."""
        return {name: like.new_zeros(batch, *shape) for name, shape in self.state_shapes.items()}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """Learn the scale of the features: mean and deviation per channel, shape (feature_shape[0],)."""
        for part in self.modules():
            if isinstance(part, Calibrated):
                part.set(mean, std)


class Calibrated(nn.Module):
    """A layer whose numbers come from the training features, not from gradients."""

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and deviation (channels,) of the training features."""
        raise NotImplementedError


class Standardize(Calibrated):
    """(x - mean) / std over the channel axis; the numbers come from the training clips, not from gradients.

    Args:
        power: of std; below 1 channels stay as different in size as that leaves them, with a mean square of 1 together.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, dims_after: int, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        shape = (channels, *([1] * dims_after))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and deviation (channels,) of the training features; constant channels keep their scale."""
        self.mean.copy_(mean.reshape(self.mean.shape))
        varies = std > 1e-6
        scale = torch.where(varies, std.clamp(min=1e-6) ** -self.power, 1.0)
        if self.power != 1 and varies.any():
            scale = scale / (scale * std)[varies].square().mean().sqrt()
        self.scale.copy_(scale.reshape(self.scale.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize (..., C, *spatial)."""
        return (x - self.mean) * self.scale


def flat_size(shape: tuple[int, ...]) -> int:
    """How many numbers a shape holds."""
    size = 1
    for n in shape:
        size *= n
    return size


def last_of(x: Tensor, mask: Tensor | None) -> Tensor:
    """The entry of x (B, T, ...) at each clip's last real frame: (B, ...)."""
    if mask is None:
        return x[:, -1]
    return x[torch.arange(len(x), device=x.device), mask.sum(1).clamp(min=1) - 1]


def draw_frame(x: Tensor, mask: Tensor) -> Tensor:
    """One random real frame of each clip of x (B, T, ...): (B, 1, ...)."""
    place = (torch.rand(len(x), device=x.device) * mask.sum(1)).long()  # (B,)
    return x[torch.arange(len(x), device=x.device), place][:, None]


def add_frames(x: Tensor, mask: Tensor | None, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Add the real frames of x (B, T, D) to total (B, D) and their number to count (B, 1)."""
    if mask is None:
        return total + x.sum(1), count + x.shape[1]
    return total + (x * mask.unsqueeze(-1)).sum(1), count + mask.sum(1, keepdim=True)


def last_frames(features: Tensor, state: State, mask: Tensor | None, length: int) -> tuple[Tensor, State]:
    """The last ``length`` frames (B, L, ...) of a ring and the features (B, T, ...) behind it, and the next state.

    Frames before the first are copies of the first.
    """
    seen = torch.cat([state["ring"], features], dim=1)  # (B, L - 1 + T, ...)
    places = torch.arange(length, device=seen.device)  # (L,)
    if mask is None:
        count = state["count"] + features.shape[1]
        last = seen[:, -length:]
    else:
        real = mask.sum(1, keepdim=True)  # (B, 1)
        count = state["count"] + real
        last = _rows(seen, real + places - 1)
    count = count.clamp(max=length)
    missing = (length - count).clamp(max=length - 1).to(torch.int64)  # (B, 1)
    first = _rows(last, missing)  # (B, 1, ...)
    known = (places >= missing).reshape(-1, length, *[1] * (last.ndim - 2))
    return torch.where(known, last, first), {"ring": last[:, 1:], "count": count}


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """Entries of x (B, T, ...) at places (B, n) of each row: (B, n, ...)."""
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(1), places]  # len() would be fixed in a graph
