"""What follows the pooling of frame features in the models of YouTube-8M: hidden layer, context gating, experts.

Everything here works on one vector a clip, (B, D). Classifiers return logits; a mixture of experts computes
probabilities p, which become log(p / (1 - p)), so that a sigmoid gives them back.

Source: Miech, Laptev, Sivic 2017, arXiv:1706.06905 (gating); Abu-El-Haija et al. 2016, arXiv:1609.08675 (mixture of
experts); Liu and Liu 2018 (ECCV workshop on YouTube-8M; the sizes and constants).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NORM_EPSILON = 1e-3
_CLOSEST = 1e-7  # to 0 and 1 that a probability may come, as a logit


def batch_norm(size: int, momentum: float) -> nn.BatchNorm1d:
    """Batch normalization with the constants of these models; ``momentum`` is torch's, 1 - decay."""
    return nn.BatchNorm1d(size, eps=NORM_EPSILON, momentum=momentum)


class NormalLinear(nn.Linear):
    """A linear layer drawn from N(0, 1/sqrt(inputs)), its bias, if any, from N(0, 0.01) (standard deviations)."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias)

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        if self.bias is not None:
            nn.init.normal_(self.bias, std=0.01)


class XavierLinear(nn.Linear):
    """A linear layer with Xavier's uniform weights and a bias, if any, of 0."""

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def l2_normalize(x: Tensor, dim: int = -1, epsilon: float = 1e-12) -> Tensor:
    """x / max(|x|, sqrt(epsilon)) along ``dim``, as TensorFlow does it."""
    return x * torch.rsqrt((x * x).sum(dim, keepdim=True).clamp(min=epsilon))


def logit_of(p: Tensor) -> Tensor:
    """The logit of probabilities; those closer than 1e-7 to 0 or 1 count as that."""
    p = p.clamp(_CLOSEST, 1 - _CLOSEST)
    return p.log() - (1 - p).log()


class ContextGating(nn.Module):
    """h * sigmoid(BN(h G)): each number is let through as far as all of them together say."""

    def __init__(self, size: int, momentum: float) -> None:
        super().__init__()
        self.gate = NormalLinear(size, size)
        self.norm = batch_norm(size, momentum)

    def forward(self, h: Tensor) -> Tensor:
        """Gate h (B, D), or probabilities (B, K)."""
        return h * self.norm(self.gate(h)).sigmoid()


class MixtureOfExperts(nn.Module):
    """For each class the mean of ``experts`` logistic classifiers, weighted by a softmax of the input.

    The softmax has one weight more than there are experts, of a dummy that predicts 0.
    """

    def __init__(self, inputs: int, classes: int, experts: int) -> None:
        super().__init__()
        self.experts = experts
        self.gates = XavierLinear(inputs, classes * (experts + 1), bias=False)
        self.scores = XavierLinear(inputs, classes * experts)

    def forward(self, h: Tensor) -> Tensor:
        """Probabilities (B, K) of h (B, D)."""
        weights = self.gates(h).unflatten(1, (-1, self.experts + 1)).softmax(2)  # (B, K, experts + 1)
        scores = self.scores(h).unflatten(1, (-1, self.experts)).sigmoid()  # (B, K, experts)
        return (weights[:, :, : self.experts] * scores).sum(2)


class Experts(nn.Module):
    """The last layer, (B, D) -> logits (B, K): a mixture of experts, or with ``experts`` 0 a logistic classifier.

    ``gating`` lets each class through as far as the probabilities of all classes say.
    """

    def __init__(self, inputs: int, classes: int, experts: int, momentum: float, gating: bool = False) -> None:
        super().__init__()
        self.classify = MixtureOfExperts(inputs, classes, experts) if experts else nn.Linear(inputs, classes)
        self.gating = ContextGating(classes, momentum) if gating else None
        self.logistic = not experts

    def forward(self, h: Tensor) -> Tensor:
        """Logits (B, K) of h (B, D)."""
        found: Tensor = self.classify(h)
        if self.gating is None:
            return found if self.logistic else logit_of(found)
        return logit_of(self.gating(found.sigmoid() if self.logistic else found))


class GatedClassifier(nn.Module):
    """(B, D) -> hidden, BN, ReLU6 -> linear 2 x hidden -> context gating -> experts -> gating of the probabilities.

    Args:
        hidden: H; the layer behind it has 2 H.
        experts: M a class; 0 for a logistic classifier.
        gating: context gating of the hidden layer, and of the probabilities.
    """

    def __init__(
        self, inputs: int, classes: int, hidden: int, experts: int, momentum: float, gating: bool = True
    ) -> None:
        super().__init__()
        self.hidden = NormalLinear(inputs, hidden)
        self.norm = batch_norm(hidden, momentum)
        self.widen = NormalLinear(hidden, 2 * hidden, bias=True)
        self.gating = ContextGating(2 * hidden, momentum) if gating else nn.Identity()
        self.experts = Experts(2 * hidden, classes, experts, momentum, gating)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of x (B, D)."""
        h = self.norm(self.hidden(x)).clamp(0, 6)
        found: Tensor = self.experts(self.gating(self.widen(h)))
        return found
