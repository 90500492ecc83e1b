"""What a head answers for N windows that share the frames, as every artifact gives it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..models.head import Head


def answer(
    head: Head, features: Tensor, state: Sequence[Tensor], temperature: float, multi_label: bool
) -> tuple[Tensor, ...]:
    """Scores (N, K) of N windows after the frames of features (T, ...), and their next states."""
    shared = features.unsqueeze(0)  # (1, T, ...)
    if not head.shares_frames:
        shared = shared.expand(state[0].shape[0], *features.shape)  # (N, T, ...)
    logits, after = head(shared, dict(zip(head.state_shapes, state, strict=True)))
    logits = logits / temperature
    scores = logits.sigmoid() if multi_label else logits.softmax(1)
    return (scores, *(after[name] for name in head.state_shapes))
