"""Orderless bags of frames: deep bag of frames, soft bag of visual words, and the Fisher vector as a layer (NetFV).

Source: Abu-El-Haija et al. 2016, arXiv:1609.08675 (deep bag of frames); Miech, Laptev, Sivic 2017, arXiv:1706.06905
(soft bag of words, NetFV, gating).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .frame_input import FrameInput, FrameNorm, masked
from .gating import GatedClassifier, NormalLinear, batch_norm, l2_normalize
from .head import Head, State
from .netvlad import Assignment, check_positive, joined_shapes, pool_modalities


class BagOfFrames(Head):
    """Each frame to ``project`` numbers, BN, ReLU6; their maximum (or mean) over time; then GatedClassifier.

    State: the maximum so far (ReLU6 has nothing below 0), or sum and count.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        project: int = 2048,
        hidden: int = 1024,
        experts: int = 2,
        pool: str = "max",
        gating: bool = True,
        sampled: int = 0,
        standardize: bool = False,
        momentum: float = 0.001,
    ) -> None:
        super().__init__()
        check_positive("bag-of-frames", project=project, hidden=hidden)
        if pool not in ("max", "mean"):
            raise RecipeError(f"head bag-of-frames: option pool must be max or mean, got {pool!r}")
        self.input = FrameInput("bag-of-frames", feature_shape, 0, standardize, True, sampled)
        self.project = FrameNorm(NormalLinear(self.input.size, project), batch_norm(project, momentum))
        self.classifier = GatedClassifier(project, classes, hidden, experts, momentum, gating)
        self.mean = pool == "mean"
        self.state_shapes = {"sum": (project,), "count": (1,)} if self.mean else {"max": (project,)}

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.input.calibrate(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (B, K)."""
        x, mask = self.input(features, mask)
        x = masked(self.project(x, mask).clamp(0, 6), mask)  # (B, T, project)
        if not self.mean:
            highest = torch.maximum(state["max"], x.amax(1))
            return self.classifier(highest), {"max": highest}
        frames = x.shape[1] if mask is None else mask.sum(1, keepdim=True)
        after = {"sum": state["sum"] + x.sum(1), "count": state["count"] + frames}
        return self.classifier(after["sum"] / after["count"]), after


class WordCounts(nn.Module):
    """Frames (B, T, D) -> (B, V): how much of all frames belongs to each of V words, as a vector of length 1."""

    def __init__(self, width: int, clusters: int, momentum: float) -> None:
        super().__init__()
        self.assign = Assignment(width, clusters, momentum)
        self.state_shapes = {"mass": (clusters,)}
        self.outputs = clusters

    def forward(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Descriptor of all frames so far, and the state: sum_t a_tv (B, V)."""
        mass = state["mass"] + self.assign(x, mask).sum(1)
        return l2_normalize(mass), {"mass": mass}


class FisherVector(nn.Module):
    """Frames (B, T, D) -> (B, 2 D V): how their mean and their variance differ from those of V Gaussians.

    Each Gaussian's two parts have length 1, then all means and all variances together. Deviations s are learned.
    """

    def __init__(self, width: int, clusters: int, momentum: float) -> None:
        super().__init__()
        self.assign = Assignment(width, clusters, momentum)
        self.centers = nn.Parameter(torch.empty(width, clusters))
        self.root_deviation = nn.Parameter(torch.empty(width, clusters))
        self.state_shapes = {"sum": (width, clusters), "squares": (width, clusters), "mass": (clusters,)}
        self.outputs = 2 * width * clusters
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw centers around 0 and deviations around 1, both with a standard deviation of 1/sqrt(D)."""
        nn.init.normal_(self.centers, std=len(self.centers) ** -0.5)
        nn.init.normal_(self.root_deviation, 1.0, len(self.centers) ** -0.5)

    def forward(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Descriptor of all frames so far, and the state: sums of a x, a x^2 (B, D, V) and a (B, V)."""
        shares = self.assign(x, mask)  # (B, T, V)
        after = {
            "sum": state["sum"] + x.transpose(1, 2) @ shares,
            "squares": state["squares"] + (x * x).transpose(1, 2) @ shares,
            "mass": state["mass"] + shares.sum(1),
        }
        deviation = self.root_deviation.square() + 1e-6
        mass = after["mass"].unsqueeze(1)  # (B, 1, V)
        first = (after["sum"] - mass * self.centers) / deviation
        spread = after["squares"] - 2 * after["sum"] * self.centers + mass * self.centers.square()
        second = spread / deviation.square() - mass
        parts = [l2_normalize(l2_normalize(part, 1).flatten(1)) for part in (first, second)]
        return torch.cat(parts, 1), after


class _Bag(Head):
    """A pool for each modality, the second with half the clusters, then GatedClassifier; options as GatedNetVLAD's."""

    name: str
    pool: type[WordCounts] | type[FisherVector]

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        clusters: int = 64,
        hidden: int = 1024,
        experts: int = 2,
        audio: int = 0,
        gating: bool = True,
        sampled: int = 0,
        standardize: bool = False,
        momentum: float = 0.001,
    ) -> None:
        super().__init__()
        check_positive(self.name, clusters=clusters, hidden=hidden)
        self.input = FrameInput(self.name, feature_shape, audio, standardize, True, sampled)
        counts = (clusters, max(1, clusters // 2))
        pools = [self.pool(width, count, momentum) for width, count in zip(self.input.widths, counts, strict=False)]
        self.pools = nn.ModuleList(pools)
        inputs = sum(pool.outputs for pool in pools)
        self.classifier = GatedClassifier(inputs, classes, hidden, experts, momentum, gating)
        self.state_shapes = joined_shapes(self.pools)

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.input.calibrate(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (B, K)."""
        frames, real = self.input(features, mask)
        pooled, after = pool_modalities(self.pools, self.input.split(frames), state, real)
        return self.classifier(pooled), after


class BagOfWords(_Bag):
    """Soft bag of visual words. State: how much of the frames each word has had."""

    name, pool = "bag-of-words", WordCounts


class NetFV(_Bag):
    """The Fisher vector as a layer. State: sums of shares, of frames and of their squares by Gaussian."""

    name, pool = "netfv", FisherVector
