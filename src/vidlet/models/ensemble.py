"""Several heads as one: the weighted mean of their probabilities, each on the whole features or on its part of them."""

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


class Ensemble(Head):
    """Heads that share the extractor; the logits are those of the weighted mean of their probabilities.

    State: those of the heads, each name behind "m0_", "m1_" and so on.

    Args:
        heads: at least one, of the same classes; they may be of different kinds, each may be a ``Part``.
        multi_label: probabilities are sigmoids, not a softmax.
        weights: of their probabilities; none: all alike.
        temperature: one that fits clips which no member has seen; the file gets it, and no other is looked for.

    Raises:
        RecipeError: no heads, or a weight or temperature that is not positive.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        multi_label: bool = False,
        weights: Sequence[float] = (),
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        if not heads:
            raise RecipeError("an ensemble needs at least one head among its members, got none")
        if min([*weights, 1.0 if temperature is None else temperature]) <= 0:
            raise RecipeError(f"an ensemble's weights and temperature must be positive: {weights}, {temperature}")
        self.members = nn.ModuleList(heads)
        self.multi_label, self.temperature = multi_label, temperature
        self.weights = list(weights) or [1.0] * len(heads)
        self.shares_frames = all(head.shares_frames for head in heads)
        self.state_shapes = {
            f"m{i}_{name}": shape for i, head in enumerate(heads) for name, shape in head.state_shapes.items()
        }

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        for head in self.heads():
            head.calibrate(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Features (B, T, *feature_shape) -> logits (B, K) of the mean probability, after the last frame."""
        answers, after = [], {}
        for i, head in enumerate(self.heads()):
            logits, own = head(features, {name: state[f"m{i}_{name}"] for name in head.state_shapes}, mask)
            answers.append(logits)
            after.update({f"m{i}_{name}": value for name, value in own.items()})
        return mean_logits(answers, self.multi_label, self.weights), after

    def heads(self) -> list[Head]:
        """The heads, in order."""
        return [head for head in self.members if isinstance(head, Head)]


def heads_of(head: Head) -> list[Head]:
    """The heads of an ensemble, or the one head itself."""
    return head.heads() if isinstance(head, Ensemble) else [head]


def mean_logits(answers: Sequence[Tensor], multi_label: bool = False, weights: Sequence[float] = ()) -> Tensor:
    """Logits (B, K) of the mean of the probabilities of several logits (B, K), weighted where weights are given."""
    if len(answers) == 1:
        return answers[0]
    each = torch.stack(list(answers))  # (M, B, K)
    shares: Tensor | float = 0.0  # what all have in common, softmax and the difference of two logarithms forget
    if len(set(weights)) > 1:
        shares = torch.tensor([math.log(weight / sum(weights)) for weight in weights]).to(each)[:, None, None]
    if not multi_label:
        return (each.log_softmax(2) + shares).logsumexp(0)
    yes, no = ((nn.functional.logsigmoid(sign * each) + shares).logsumexp(0) for sign in (1, -1))
    return yes - no
