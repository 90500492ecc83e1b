"""The baselines of YouTube-8M: statistics over time, or a recurrent layer, then a logistic classifier or experts.

Source: Abu-El-Haija et al. 2016, arXiv:1609.08675 (mean, deviation and the highest values; LSTM with experts).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .frame_parts import Experts, FrameInput, batch_norm, check_positive, masked
from .head import Head, State, last_of

_LEAST_VARIANCE = 1e-2  # of standardized features; keeps the root from what rounding leaves of a variance of 0


class Pooled(Head):
    """Mean over time, deviation and the ``top`` highest values of each feature -> (hidden, ReLU) -> classifier.

    A clip of fewer than ``top`` frames repeats its lowest value. State: sums of x and x^2, count, the highest values.

    Args:
        deviation, top: which statistics beside the mean. hidden: units of a layer between; 0: none.
        experts: of each class; 0: a logistic classifier.
        dropout: of the statistics. hidden_dropout: of the hidden units.
        unit: each frame is brought to one length first; stored features of whole videos are longer where less goes on.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        deviation: bool = True,
        top: int = 5,
        hidden: int = 0,
        experts: int = 2,
        dropout: float = 0.0,
        sampled: int = 0,
        standardize: bool = True,
        momentum: float = 0.001,
        hidden_dropout: float = 0.0,
        unit: bool = False,
    ) -> None:
        super().__init__()
        if top < 0 or hidden < 0:
            raise RecipeError(f"head pooled: options top and hidden must be 0 or more, got {top} and {hidden}")
        self.input = FrameInput("pooled", feature_shape, 0, standardize, False, sampled, unit)
        size, self.deviation, self.top = self.input.size, deviation, top
        inputs = size * (1 + deviation + top)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Sequential()
        if hidden:
            linear, norm = nn.Linear(inputs, hidden, bias=False), batch_norm(hidden, momentum)
            self.hidden.extend([linear, norm, nn.ReLU(), nn.Dropout(hidden_dropout)])
        self.experts = Experts(hidden or inputs, classes, experts, momentum)
        self.state_shapes = {"sum": (size,), "count": (1,)}
        if deviation:
            self.state_shapes["squares"] = (size,)
        if top:
            self.state_shapes["top"] = (top, size)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (B, K)."""
        x, mask = self.input(features, mask)
        real = masked(x, mask)
        frames = x.shape[1] if mask is None else mask.sum(1, keepdim=True)
        after = {"sum": state["sum"] + real.sum(1), "count": state["count"] + frames}
        mean = after["sum"] / after["count"]
        found = [mean]
        if self.deviation:
            after["squares"] = state["squares"] + (real * real).sum(1)
            variance = after["squares"] / after["count"] - mean * mean
            found.append(variance.clamp(min=0).add(_LEAST_VARIANCE).sqrt())
        if self.top:
            after["top"] = self._highest(x, mask, state, after["count"])
            found.append(after["top"].flatten(1))
        return self.experts(self.hidden(self.dropout(torch.cat(found, 1)))), after

    def _highest(self, x: Tensor, mask: Tensor | None, state: State, count: Tensor) -> Tensor:
        """The highest values of each feature so far, descending: (B, top, D)."""
        place = torch.arange(self.top, device=x.device)
        before = state["top"].masked_fill((place >= state["count"]).unsqueeze(2), float("-inf"))
        now = x if mask is None else x.masked_fill(~mask.unsqueeze(2), float("-inf"))
        best = torch.cat([before, now], 1).topk(self.top, 1).values
        lowest = torch.minimum(place.to(count.dtype), count - 1).long()  # (B, top): the last that is a value
        return best.gather(1, lowest.unsqueeze(2).expand_as(best))


class RecurrentExperts(Head):
    """Frames -> ``layers`` GRUs or LSTMs -> the last output -> dropout -> mixture of experts.

    State: h of each layer, and c of an LSTM.
    """

    layer: type[nn.GRU] | type[nn.LSTM]

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        hidden: int = 1024,
        layers: int = 1,
        experts: int = 2,
        dropout: float = 0.0,
        normalize: bool = False,
        standardize: bool = False,
        momentum: float = 0.001,
    ) -> None:
        super().__init__()
        name = f"{self.layer.__name__.lower()}-moe"
        check_positive(name, hidden=hidden, layers=layers)
        self.input = FrameInput(name, feature_shape, 0, standardize, normalize)
        sizes = [self.input.size, *[hidden] * layers]
        self.rnns = nn.ModuleList(self.layer(sizes[i], hidden, batch_first=True) for i in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.experts = Experts(hidden, classes, experts, momentum)
        self.kept = ("h", "c") if self.layer is nn.LSTM else ("h",)
        self.state_shapes = {f"{key}{i}": (hidden,) for i in range(layers) for key in self.kept}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) by the last output into logits (B, K).

        With a mask (training) the returned c of an LSTM is that after the padding: start from zeros then.
        """
        x, _ = self.input(features, mask)
        after: State = {}
        for i, rnn in enumerate(self.rnns):
            start = tuple(state[f"{key}{i}"].unsqueeze(0) for key in self.kept)  # (1, B, H) each
            x, end = rnn(x, start if len(start) > 1 else start[0])
            after[f"h{i}"] = last_of(x, mask)
            if len(start) > 1:
                after[f"c{i}"] = end[1].squeeze(0)
        return self.experts(self.dropout(last_of(x, mask))), after


class ExpertsGRU(RecurrentExperts):
    """A GRU with experts."""

    layer = nn.GRU


class ExpertsLSTM(RecurrentExperts):
    """An LSTM with experts, the frame-level baseline of the data set's paper."""

    layer = nn.LSTM
