"""Several heads on the same features, as one head: their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .head import Head, State


class Ensemble(Head):
    """Heads that share the extractor; the logits are those of the mean of their probabilities.

    State: those of the heads, each name behind "m0_", "m1_" and so on.

    Args:
        heads: at least one, of the same feature shape and classes; they may be of different kinds.
        multi_label: probabilities are sigmoids, not a softmax.
    """

    def __init__(self, heads: Sequence[Head], multi_label: bool = False) -> None:
        super().__init__()
        if not heads:
            raise RecipeError("an ensemble needs at least one head, got none")
        self.members = nn.ModuleList(heads)
        self.multi_label = multi_label
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
        return mean_logits(answers, self.multi_label), after

    def heads(self) -> list[Head]:
        """The heads, in order."""
        return [head for head in self.members if isinstance(head, Head)]


def heads_of(head: Head) -> list[Head]:
    """The heads of an ensemble, or the one head itself."""
    return head.heads() if isinstance(head, Ensemble) else [head]


def mean_logits(answers: Sequence[Tensor], multi_label: bool = False) -> Tensor:
    """Logits (B, K) of the mean of the probabilities of several logits (B, K)."""
    each = torch.stack(list(answers))  # (M, B, K)
    if not multi_label:
        return each.log_softmax(2).logsumexp(0)  # softmax forgets the missing log M
    yes, no = nn.functional.logsigmoid(each).logsumexp(0), nn.functional.logsigmoid(-each).logsumexp(0)
    return yes - no
