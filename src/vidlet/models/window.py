"""A head for short clips in which order matters: the last frames, each at its own place. Ours (docs/lab-notes.md)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .clip_networks import last_frames
from .head import Head, Standardize, State, flat_size


class OrderedWindow(Head):
    """The last L frames side by side, each reduced to a few numbers, and a dense layer over all of them.

    features (D...) -> standardize -> linear to ``project`` -> the last L frames, in order -> linear to ``hidden``,
    ReLU -> dropout -> linear K: a convolution over time as long as its window. While fewer than L frames were seen, the
    first one stands for those before it. State: ring (L - 1, project), count (1,).

    Args:
        frames: L.
        hidden: 0: no hidden layer, a linear classifier of the L places.
        whiten: power of each feature's deviation that it is divided by: 1 makes all alike, 0 keeps their sizes; of
            principal components, whose last are noise, something between.
        noise: deviation of what is added to the standardized features in training (their mean square is 1).
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        frames: int = 16,
        project: int = 128,
        hidden: int = 256,
        dropout: float = 0.5,
        whiten: float = 0.5,
        noise: float = 0.3,
    ) -> None:
        super().__init__()
        if frames < 2:
            raise RecipeError(f"head window: option frames must be at least 2, got {frames}")
        if not 0 <= whiten <= 1:
            raise RecipeError(f"head window: option whiten must be from 0 to 1, got {whiten:g}")
        self.frames, self.noise = frames, noise
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1, whiten)
        self.reduce = nn.Linear(flat_size(feature_shape), project)
        self.mix: nn.Module = nn.Sequential(nn.Linear(frames * project, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.drop_inputs = nn.Dropout(0.6 * dropout)
        self.classify = nn.Linear(hidden or frames * project, classes)
        self.state_shapes = {"ring": (frames - 1, project), "count": (1,)}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.standardize.set(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify the last L frames of features (B, T, D...) and of the ring into logits (B, K)."""
        x = self.standardize(features).flatten(2)
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        window, after = last_frames(self.reduce(x), state, mask, self.frames)  # (B, L, project)
        return self.classify(self.dropout(self.mix(self.drop_inputs(window).flatten(1)))), after
