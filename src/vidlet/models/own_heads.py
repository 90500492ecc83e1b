"""Heads of ours: a GRU on the changes of a coarse grid, the default, and a window in order (docs/lab-notes.md)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .head import Head, Standardize, State, flat_size, last_frames, last_of


class GridGRU(Head):
    """A coarse grid, what changes in it, and a small GRU: where things are and how they move.

    features (C, G, G) -> standardize -> 1x1 to ``channels`` -> the change since the previous frame, beside the map
    itself if ``appearance`` -> linear to ``project``, ReLU -> GRU ``hidden`` -> dropout -> linear K. The first frame
    has no change: the state keeps a count. State: previous (channels, G, G), count (1,), h (hidden,).
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        channels: int = 32,
        project: int = 96,
        hidden: int = 128,
        dropout: float = 0.3,
        appearance: bool = False,
    ) -> None:
        super().__init__()
        if len(feature_shape) != 3:
            raise RecipeError(f"head grid-gru needs features (C, G, G); the extractor gives {feature_shape}: set grid")
        c, g, _ = feature_shape
        self.appearance = appearance
        self.standardize = Standardize(c, 2)
        self.reduce = nn.Linear(c, channels, bias=False)  # a 1x1 convolution
        self.project: nn.Module = nn.Linear(channels * g * g * (2 if appearance else 1), project)
        self.rnn: nn.Module = nn.GRU(project, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden, classes)
        self.state_shapes = {"previous": (g * g, channels), "count": (1,), "h": (hidden,)}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, C, G, G) into logits (B, K) after the last frame."""
        x = self.standardize(features).flatten(3).transpose(2, 3)  # (B, T, G*G, C)
        x = self.reduce(x)  # (B, T, G*G, channels)
        before = torch.cat([state["previous"].unsqueeze(1), x[:, :-1]], dim=1)
        known = (state["count"] > 0).to(x.dtype)[:, None, None]  # (B, 1, 1, 1)
        known = torch.cat([known.expand(-1, -1, *x.shape[2:]), torch.ones_like(x[:, :-1])], dim=1)
        change = (x - before) * known
        seen = torch.cat([change, x], dim=-1) if self.appearance else change
        out, _ = self.rnn(self.dropout(self.project(seen.flatten(2)).relu()), state["h"].unsqueeze(0))
        last = last_of(out, mask)
        frames = x.shape[1] * torch.ones_like(state["count"]) if mask is None else mask.sum(1, keepdim=True)
        return self.classify(self.dropout(last)), {
            "previous": last_of(x, mask),
            "count": state["count"] + frames,
            "h": last,
        }


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

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify the last L frames of features (B, T, D...) and of the ring into logits (B, K)."""
        x = self.standardize(features).flatten(2)
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        window, after = last_frames(self.reduce(x), state, mask, self.frames)  # (B, L, project)
        return self.classify(self.dropout(self.mix(self.drop_inputs(window).flatten(1)))), after
