"""Heads of several kinds, each on its part of the features, as one head: the weighted mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .head import Head, State, flat_size


class Part(Head):
    """A head on one part of features that lie side by side: (B, T, D of all) -> its own feature shape."""

    def __init__(self, head: Head, begin: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.head, self.begin, self.shape = head, begin, shape
        self.state_shapes, self.shares_frames = head.state_shapes, head.shares_frames

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """See Head; features (B, T, D)."""
        return self.head(self.take(features), state, mask)

    def take(self, features: Tensor) -> Tensor:
        """The part of features (B, T, D) that the head sees, in its shape."""
        return features[..., self.begin : self.begin + flat_size(self.shape)].unflatten(-1, self.shape)

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate; mean and deviation (D,) are of each number, those of the head of each channel."""
        rows = slice(self.begin, self.begin + flat_size(self.shape))
        means, variances = (x[rows].reshape(self.shape[0], -1) for x in (mean, std.square()))
        center = means.mean(1)
        self.head.calibrate(center, (variances + (means - center[:, None]).square()).mean(1).sqrt())


class Blend(Head):
    """Heads that share the extractor; the logits are those of the weighted mean of their probabilities.

    State: those of the heads, each name behind "m0_", "m1_" and so on.

    Args:
        heads: at least one, of the same classes, each on the whole features or a ``Part`` of them.
        weights: of their probabilities.
        multi_label: probabilities are sigmoids, not a softmax.
        temperature: that fits clips which the members had not seen; the file gets it, and no other is looked for.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        weights: Sequence[float] = (),
        multi_label: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not heads:
            raise RecipeError("head blend: option members must name at least one head, got none")
        weights = list(weights) or [1.0] * len(heads)
        if not temperature > 0 or not min(weights) > 0:
            raise RecipeError("head blend: temperature and weights must be positive")
        self.members = nn.ModuleList(heads)
        self.multi_label, self.temperature = multi_label, temperature
        self.shares = [math.log(weight / sum(weights)) for weight in weights]
        self.shares_frames = all(head.shares_frames for head in heads)
        self.state_shapes = {
            f"m{i}_{name}": shape for i, head in enumerate(heads) for name, shape in head.state_shapes.items()
        }

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        for head in self.heads():
            head.calibrate(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Features (B, T, *feature_shape) -> logits (N, K) of the mean probability, after the last frame."""
        answers, after = [], {}
        for i, head in enumerate(self.heads()):
            logits, later = head(features, {name: state[f"m{i}_{name}"] for name in head.state_shapes}, mask)
            answers.append(logits)
            after.update({f"m{i}_{name}": value for name, value in later.items()})
        return self._mean(answers), after

    def _mean(self, answers: Sequence[Tensor]) -> Tensor:
        if len(answers) == 1:
            return answers[0]
        shares = torch.tensor(self.shares).to(answers[0])[:, None, None]
        each = torch.stack(list(answers))  # (M, N, K)
        if not self.multi_label:
            return (each.log_softmax(2) + shares).logsumexp(0)
        yes = (nn.functional.logsigmoid(each) + shares).logsumexp(0)
        return yes - (nn.functional.logsigmoid(-each) + shares).logsumexp(0)

    def heads(self) -> list[Head]:
        """The heads, in order."""
        return [head for head in self.members if isinstance(head, Head)]
