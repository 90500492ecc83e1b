"""The parts that the heads of stored frame features share, of the models of YouTube-8M.

In front are the frames of one or two modalities, drawn or all (``FrameInput``, ``FrameNorm``). Behind their pooling
everything works on one vector a clip, (B, D): a hidden layer, context gating, experts. Classifiers return logits; a
mixture of experts computes probabilities p, which become log(p / (1 - p)), so that a sigmoid gives them back.

Source: Miech, Laptev, Sivic 2017, arXiv:1706.06905 (gating); Abu-El-Haija et al. 2016, arXiv:1609.08675 (mixture of
experts); Liu and Liu 2018 (ECCV workshop on YouTube-8M; the sizes and constants).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .head import Calibrated, Standardize, flat_size

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

    ``gating`` lets each class through as far as the probabilities of all classes say. A logistic classifier begins at
    the odds of one class a clip: of thousands of classes, it would take epochs to learn that most are absent.
    """

    def __init__(self, inputs: int, classes: int, experts: int, momentum: float, gating: bool = False) -> None:
        super().__init__()
        self.classify = MixtureOfExperts(inputs, classes, experts) if experts else _unlikely(inputs, classes)
        self.gating = ContextGating(classes, momentum) if gating else None
        self.logistic = not experts

    def forward(self, h: Tensor) -> Tensor:
        """Logits (B, K) of h (B, D)."""
        found: Tensor = self.classify(h)
        if self.gating is None:
            return found if self.logistic else logit_of(found)
        return logit_of(self.gating(found.sigmoid() if self.logistic else found))


def _unlikely(inputs: int, classes: int) -> nn.Linear:
    """A logistic classifier that begins at the odds of one class a clip."""
    layer = nn.Linear(inputs, classes)
    nn.init.constant_(layer.bias, -math.log(max(1, classes - 1)))
    return layer


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


class MeanLength(Calibrated):
    """Each frame's numbers brought to the length that frames of the training clips have in the mean (of squares).

    Args:
        places: numbers of a channel.
    """

    length: Tensor

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places
        self.register_buffer("length", torch.ones(()))

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and deviation (channels,) of the training features."""
        self.length.copy_(((mean.square() + std.square()).sum() * self.places).sqrt().clamp(min=1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, T, *feature_shape) at that length."""
        return (l2_normalize(x.flatten(2)) * self.length).reshape(x.shape)


class FrameInput(nn.Module):
    """Features (B, T, *feature_shape) -> frames (B, T, D), and the widths of their modalities.

    Args:
        audio: how many of the D numbers, at the end, are of a second modality; 0: there is one.
        standardize: to mean 0 and deviation 1 of the training clips.
        normalize: each frame to length 1.
        sampled: in training draw so many frames of each clip, uniformly and with replacement; 0: all frames.
        unit: each frame to the mean length of the training clips before all else, so that its direction alone counts.
    """

    def __init__(
        self,
        name: str,
        feature_shape: tuple[int, ...],
        audio: int = 0,
        standardize: bool = False,
        normalize: bool = False,
        sampled: int = 0,
        unit: bool = False,
    ) -> None:
        super().__init__()
        size = flat_size(feature_shape)
        if not 0 <= audio < size:
            raise RecipeError(f"head {name}: option audio must be 0 to {size - 1} of {size} features, got {audio}")
        if sampled < 0:
            raise RecipeError(f"head {name}: option sampled must be 0 (all frames) or more, got {sampled}")
        self.widths = (size - audio, audio) if audio else (size,)
        self.size, self.normalize, self.sampled = size, normalize, sampled
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1) if standardize else None
        self.length = MeanLength(size // feature_shape[0]) if unit else None

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames (B, T, D) and their mask (B, T), None where all frames are real."""
        x = features if self.length is None else self.length(features)
        x = x if self.standardize is None else self.standardize(x)
        x = x.flatten(2)  # (B, T, D)
        if self.training and self.sampled:
            x, mask = _draw(x, mask, self.sampled), None
        return (l2_normalize(x) if self.normalize else x), mask

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The modalities of frames (B, T, D): (B, T, width) each."""
        return x.split(self.widths, 2) if len(self.widths) > 1 else (x,)


class FrameNorm(nn.Module):
    """A linear layer and batch normalization of frames, whose statistics know nothing of padding."""

    def __init__(self, linear: nn.Linear, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.linear, self.norm = linear, norm

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Frames (B, T, D) -> (B, T, outputs); in training padded frames give 0."""
        if mask is None or not self.training:
            return self.norm(self.linear(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        found = self.norm(self.linear(x[mask]))  # (frames, outputs)
        out = found.new_zeros(*mask.shape, found.shape[1])
        return out.masked_scatter(mask.unsqueeze(2), found)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, T, ...) with zeros where mask (B, T) is False."""
    return x if mask is None else x * mask.reshape(*mask.shape, *([1] * (x.ndim - 2)))


def _draw(x: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """``count`` real frames of each clip of x (B, T, D), with replacement: (B, count, D)."""
    frames = x.new_full((len(x), 1), x.shape[1]) if mask is None else mask.sum(1, keepdim=True).to(x.dtype)  # (B, 1)
    place = (torch.rand(len(x), count, device=x.device) * frames).long()  # (B, count)
    return x.gather(1, place.unsqueeze(2).expand(-1, -1, x.shape[2]))


def check_positive(head: str, **options: int) -> None:
    """Refuse options below 1.

    Raises:
        RecipeError: names the option.
    """
    for key, value in options.items():
        if value < 1:
            raise RecipeError(f"head {head}: option {key} must be at least 1, got {value}")
