"""The default head: a GRU on the changes of a coarse grid of features. Ours (docs/lab-notes.md)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .head import Head, Standardize, State, last_of


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

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.standardize.set(mean, std)

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
