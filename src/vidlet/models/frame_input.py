"""What the heads of stored frame features share: frames of one or two modalities, drawn or all, and where they lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .gating import l2_normalize
from .head import Standardize, flat_size


class FrameInput(nn.Module):
    """Features (B, T, *feature_shape) -> frames (B, T, D), and the widths of their modalities.

    Args:
        audio: how many of the D numbers, at the end, are of a second modality; 0: there is one.
        standardize: to mean 0 and deviation 1 of the training clips.
        normalize: each frame to length 1.
        sampled: in training draw so many frames of each clip, uniformly and with replacement; 0: all frames.
    """

    def __init__(
        self,
        name: str,
        feature_shape: tuple[int, ...],
        audio: int = 0,
        standardize: bool = False,
        normalize: bool = False,
        sampled: int = 0,
    ) -> None:
        super().__init__()
        size = flat_size(feature_shape)
        if not 0 <= audio < size:
            raise RecipeError(f"head {name}: option audio must be 0 to {size - 1} of {size} features, got {audio}")
        if sampled < 0:
            raise RecipeError(f"head {name}: option sampled must be 0 (all frames) or more, got {sampled}")
        self.widths = (size - audio, audio) if audio else (size,)
        self.size, self.normalize, self.sampled = size, normalize, sampled
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1) if standardize else None

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        if self.standardize is not None:
            self.standardize.set(mean, std)

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames (B, T, D) and their mask (B, T), None where all frames are real."""
        x = features if self.standardize is None else self.standardize(features)
        x = x.flatten(2)  # (B, T, D)
        if self.training and self.sampled:
            x, mask = _draw(x, mask, self.sampled), None
        return (l2_normalize(x) if self.normalize else x), mask

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The modalities of frames (B, T, D): (B, T, width) each."""
        return x.split(self.widths, 2) if len(self.widths) > 1 else (x,)


class FrameNorm(nn.Module):
    """A linear layer and batch normalization of frames, whose statistics know nothing of padding."""

    def __init__(self, linear: nn.Linear, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.linear, self.norm = linear, norm

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Frames (B, T, D) -> (B, T, outputs); in training padded frames give 0."""
        if mask is None or not self.training:
            return self.norm(self.linear(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        found = self.norm(self.linear(x[mask]))  # (frames, outputs)
        out = found.new_zeros(*mask.shape, found.shape[1])
        return out.masked_scatter(mask.unsqueeze(2), found)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, T, ...) with zeros where mask (B, T) is False."""
    return x if mask is None else x * mask.reshape(*mask.shape, *([1] * (x.ndim - 2)))


def _draw(x: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """``count`` real frames of each clip of x (B, T, D), with replacement: (B, count, D)."""
    frames = x.new_full((len(x), 1), x.shape[1]) if mask is None else mask.sum(1, keepdim=True).to(x.dtype)  # (B, 1)
    place = (torch.rand(len(x), count, device=x.device) * frames).long()  # (B, count)
    return x.gather(1, place.unsqueeze(2).expand(-1, -1, x.shape[2]))
