"""What training minimizes: the error on labels, and the distance to a teacher's answers.

Losses come clip by clip with the weight of each clip, so that a batch can be computed in parts. A clip whose targets
are NaN has no label: it teaches only what the teacher says of it.

Source of distillation: Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_CLOSEST, _SMALLEST = 1e-7, 1e-30

Answer = Callable[[Tensor, Tensor], Tensor]  # x (B, T, ...), mask (B, T) -> logits (B, K)


@dataclass(frozen=True)
class Teacher:
    """Whose answers are learned, beside the labels.

    Args:
        answer: what it says of a batch; called without gradients, on the clips as they were augmented for the pupil.
            None: the batches bring its answers (taught.py).
        temperature: both distributions are softened by it (one label a clip).
        share: of the teacher in the loss; the labels have the rest. Clips without a label have the teacher alone.
    """

    answer: Answer | None
    temperature: float = 4.0
    share: float = 0.5

    def logits(self, x: Tensor, mask: Tensor, answers: Tensor | None, multi_label: bool) -> Tensor:
        """What it says of a batch: logits (B, K); answers (B, K) are the probabilities that the batch brought."""
        if answers is not None:
            return logits_of(answers.to(x.device), multi_label)
        assert self.answer is not None, "the batches bring no answers"
        with torch.no_grad():
            return self.answer(x, mask).float()


def logits_of(p: Tensor, multi_label: bool) -> Tensor:
    """Logits whose probabilities are p (B, K); with many labels none is taken as closer than 1e-7 to 0 or 1."""
    if not multi_label:
        return p.clamp(min=_SMALLEST).log()  # small ones count: a temperature raises them
    p = p.clamp(_CLOSEST, 1 - _CLOSEST)
    return p.log() - (1 - p).log()


def class_weights(targets: np.ndarray) -> np.ndarray:
    """Weight of each class: inverse of its frequency, square-rooted so that a rare class does not rule; mean 1."""
    count = np.nansum(targets, axis=0)
    weights = np.where(count > 0, 1 / np.sqrt(np.maximum(count, 1)), 0.0)
    return (weights / weights[count > 0].mean()).astype(np.float32)


def clip_weights(y: Tensor, of_class: Tensor | None) -> Tensor:
    """What each clip counts (B,), given targets y (B, K): nothing where it has no label."""
    known = ~y.isnan().any(1)
    if of_class is None:
        return known.to(y)
    return torch.where(known, torch.nan_to_num(y) @ of_class.to(y), 0.0)


def label_losses(logits: Tensor, y: Tensor, smoothing: float = 0.0, multi_label: bool = False) -> Tensor:
    """Cross-entropy (B,) of logits and target probabilities y (B, K); with many labels, the sum of K questions."""
    y = torch.nan_to_num(y)
    if multi_label:
        return functional.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)
    smoothed = y * (1 - smoothing) + smoothing / y.shape[1]
    return -(smoothed * logits.log_softmax(1)).sum(1)


def teacher_losses(logits: Tensor, answer: Tensor, temperature: float, multi_label: bool = False) -> Tensor:
    """Distance (B,) from a teacher's logits: KL of the softened distributions times temperature squared.

    With many labels, the cross-entropy of K questions with the teacher's probabilities, at temperature 1.
    """
    if multi_label:
        return functional.binary_cross_entropy_with_logits(logits, answer.sigmoid(), reduction="none").sum(1)
    target, said = (answer / temperature).log_softmax(1), (logits / temperature).log_softmax(1)
    return functional.kl_div(said, target, reduction="none", log_target=True).sum(1) * temperature**2


def batch_loss(logits: Tensor, y: Tensor, smoothing: float, of_class: Tensor | None, multi_label: bool) -> Tensor:
    """The labels' loss of a whole batch: the weighted mean over clips."""
    weights = clip_weights(y, of_class)
    return (label_losses(logits, y, smoothing, multi_label) * weights).sum() / weights.sum().clamp(min=1e-12)
