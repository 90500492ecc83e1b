"""Heads that describe all frames of a clip by their shares of learned centers, words or Gaussians, in no order.

Source: Arandjelovic et al. 2016, arXiv:1511.07247 (NetVLAD); Miech, Laptev, Sivic 2017, arXiv:1706.06905 (gated, on
video, the light variant, soft bag of words, NetFV); Liu and Liu 2018, ECCV workshop on YouTube-8M (as run: sizes,
constants); Lin, Xiao, Fan 2018, arXiv:1811.05014 (NeXtVLAD, constants of the authors' code).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .frame_parts import (
    Experts,
    FrameInput,
    FrameNorm,
    GatedClassifier,
    NormalLinear,
    batch_norm,
    check_positive,
    l2_normalize,
    masked,
)
from .head import Head, State

MODALITIES = ("video", "audio")


class Assignment(nn.Module):
    """How much of a frame belongs to each of K clusters: softmax(BN(x Wc)), Wc without bias."""

    def __init__(self, width: int, clusters: int, momentum: float) -> None:
        super().__init__()
        self.score = FrameNorm(NormalLinear(width, clusters), batch_norm(clusters, momentum))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Frames (B, T, D) -> shares (B, T, V) that sum to 1 on real frames, 0 on others."""
        return masked(self.score(x, mask).softmax(2), mask)


class NetVLAD(nn.Module):
    """Frames (B, T, D) -> (B, D V): residuals to V centers, each of length 1, the whole too. ``light``: no centers."""

    def __init__(self, width: int, clusters: int, momentum: float, light: bool = False) -> None:
        super().__init__()
        self.assign = Assignment(width, clusters, momentum)
        self.centers = None if light else nn.Parameter(torch.empty(width, clusters))
        self.state_shapes = {"sum": (width, clusters)} | ({} if light else {"mass": (clusters,)})
        self.outputs = width * clusters
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centers from N(0, 1/sqrt(D)) (standard deviation)."""
        if self.centers is not None:
            nn.init.normal_(self.centers, std=len(self.centers) ** -0.5)

    def forward(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Descriptor (B, D V) of all frames so far, and the state: sum_t a_tv x_t (B, D, V), sum_t a_tv (B, V)."""
        shares = self.assign(x, mask)  # (B, T, V)
        after = {"sum": state["sum"] + x.transpose(1, 2) @ shares}  # (B, D, V)
        residual = after["sum"]
        if self.centers is not None:
            after["mass"] = state["mass"] + shares.sum(1)
            residual = residual - after["mass"].unsqueeze(1) * self.centers
        return l2_normalize(l2_normalize(residual, 1).flatten(1)), after


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


class NeXtVLAD(nn.Module):
    """Frames (B, T, D) -> (B, V E D / G): E D numbers in G groups, each with its attention and its soft assignment."""

    def __init__(self, width: int, clusters: int, groups: int, expansion: int, momentum: float) -> None:
        super().__init__()
        if expansion * width % groups:
            raise RecipeError(
                f"head nextvlad: option groups must divide {expansion * width} (features of a modality x expansion), "
                f"got {groups}"
            )
        wide, self.groups, self.clusters = expansion * width, groups, clusters
        self.inner = wide // groups
        self.expand = nn.Linear(width, wide)
        self.attend = nn.Linear(wide, groups)
        self.assign = FrameNorm(NormalLinear(wide, groups * clusters), batch_norm(groups * clusters, momentum))
        self.centers = nn.Parameter(torch.empty(self.inner, clusters))
        self.norm = batch_norm(self.inner * clusters, momentum)
        self.state_shapes = {"sum": (self.inner, clusters), "mass": (clusters,)}
        self.outputs = self.inner * clusters
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centers from N(0, 1/sqrt(E D / G)) (standard deviation)."""
        nn.init.normal_(self.centers, std=self.inner**-0.5)

    def forward(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """Descriptor (B, V E D / G) of all frames so far, and the state: sums of residual parts and of shares."""
        wide = self.expand(x)  # (B, T, E D)
        attention = masked(self.attend(wide).sigmoid(), mask).unsqueeze(3)  # (B, T, G, 1)
        shares = self.assign(wide, mask).unflatten(2, (self.groups, self.clusters)).softmax(3) * attention
        shares = shares.flatten(1, 2)  # (B, T G, V)
        parts = wide.unflatten(2, (self.groups, self.inner)).flatten(1, 2)  # (B, T G, E D / G)
        after = {
            "sum": state["sum"] + parts.transpose(1, 2) @ shares,  # (B, E D / G, V)
            "mass": state["mass"] + shares.sum(1),  # (B, V)
        }
        residual = after["sum"] - after["mass"].unsqueeze(1) * self.centers
        return self.norm(l2_normalize(residual, 1).flatten(1)), after


Pool = NetVLAD | WordCounts | FisherVector | NeXtVLAD


class PooledModalities(Head):
    """A pool for each modality of the frames, and a classifier of their descriptors side by side.

    Args:
        pools: (frames (B, T, width), state, mask) -> (descriptor (B, outputs), next state) each. The state of the head
            is theirs, under "video_sum", "audio_sum" ...
    """

    classifier: nn.Module

    def __init__(self, frames: FrameInput, pools: Sequence[Pool]) -> None:
        super().__init__()
        self.input, self.pools = frames, nn.ModuleList(pools)
        self.outputs = sum(pool.outputs for pool in pools)
        self.state_shapes = {
            f"{name}_{key}": shape
            for name, pool in zip(MODALITIES, pools, strict=False)
            for key, shape in pool.state_shapes.items()
        }

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (B, K); the logit of a probability, see frame_parts."""
        frames, real = self.input(features, mask)
        found: list[Tensor] = []
        after: State = {}
        for name, pool, part in zip(MODALITIES, self.pools, self.input.split(frames), strict=False):
            own = {key: state[f"{name}_{key}"] for key in pool.state_shapes}  # type: ignore[union-attr]
            descriptor, inner = pool(part, own, real)
            found.append(descriptor)
            after |= {f"{name}_{key}": value for key, value in inner.items()}
        return self.classify(torch.cat(found, 1)), after

    def classify(self, descriptors: Tensor) -> Tensor:
        """Descriptors (B, outputs) -> logits (B, K)."""
        logits: Tensor = self.classifier(descriptors)
        return logits


class GatedNetVLAD(PooledModalities):
    """NetVLAD of each modality -> hidden layer, context gating, mixture of experts, gating of the probabilities.

    The second modality has half the clusters. All frames count, in training too unless ``sampled`` draws some.

    Args:
        clusters: V of the first modality. hidden: H. experts: M, 0 for a logistic classifier.
        light: no centers. gating: context gating and probability gating.
        audio, sampled, standardize: see FrameInput. momentum: of batch normalization; 0.001 wants 10^4 steps and more.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        clusters: int = 32,
        hidden: int = 1024,
        experts: int = 5,
        audio: int = 0,
        light: bool = False,
        gating: bool = True,
        sampled: int = 0,
        standardize: bool = False,
        momentum: float = 0.001,
    ) -> None:
        check_positive("netvlad", clusters=clusters, hidden=hidden)
        frames = FrameInput("netvlad", feature_shape, audio, standardize, True, sampled)
        pools = [
            NetVLAD(width, max(1, clusters // part), momentum, light) for part, width in enumerate(frames.widths, 1)
        ]
        super().__init__(frames, pools)
        self.classifier = GatedClassifier(self.outputs, classes, hidden, experts, momentum, gating)


class _Bag(PooledModalities):
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
        check_positive(self.name, clusters=clusters, hidden=hidden)
        frames = FrameInput(self.name, feature_shape, audio, standardize, True, sampled)
        super().__init__(
            frames,
            [self.pool(width, max(1, clusters // part), momentum) for part, width in enumerate(frames.widths, 1)],
        )
        self.classifier = GatedClassifier(self.outputs, classes, hidden, experts, momentum, gating)


class BagOfWords(_Bag):
    """Soft bag of visual words. State: how much of the frames each word has had."""

    name, pool = "bag-of-words", WordCounts


class NetFV(_Bag):
    """The Fisher vector as a layer. State: sums of shares, of frames and of their squares by Gaussian."""

    name, pool = "netfv", FisherVector


class NeXtVLADHead(PooledModalities):
    """NeXtVLAD of each modality -> dropout -> hidden, BN -> squeeze-and-excite gating -> logistic or experts.

    The second modality has half the clusters and half the groups.

    Args:
        clusters, groups, expansion: V, G, E. hidden: H; ``reduction``: H / r inside the gating.
        experts, audio, sampled, standardize, momentum: as in GatedNetVLAD.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        clusters: int = 64,
        groups: int = 8,
        expansion: int = 2,
        hidden: int = 2048,
        reduction: int = 8,
        dropout: float = 0.5,
        experts: int = 0,
        audio: int = 0,
        sampled: int = 0,
        standardize: bool = False,
        momentum: float = 0.001,
    ) -> None:
        check_positive("nextvlad", clusters=clusters, groups=groups, expansion=expansion, hidden=hidden)
        check_positive("nextvlad", reduction=reduction)
        frames = FrameInput("nextvlad", feature_shape, audio, standardize, False, sampled)
        pools = [
            NeXtVLAD(width, max(1, clusters // part), max(1, groups // part), expansion, momentum)
            for part, width in enumerate(frames.widths, 1)
        ]
        super().__init__(frames, pools)
        inside = max(1, hidden // reduction)
        self.dropout = nn.Dropout(dropout)
        self.hidden, self.norm = NormalLinear(self.outputs, hidden), batch_norm(hidden, momentum)
        self.squeeze, self.squeeze_norm = NormalLinear(hidden, inside), batch_norm(inside, momentum)
        self.excite = NormalLinear(inside, hidden)
        self.experts = Experts(hidden, classes, experts, momentum)

    def classify(self, descriptors: Tensor) -> Tensor:
        """Descriptors (B, outputs) -> logits (B, K)."""
        h = self.norm(self.hidden(self.dropout(descriptors)))
        gates = self.excite(self.squeeze_norm(self.squeeze(h)).relu()).sigmoid()
        logits: Tensor = self.experts(h * gates)
        return logits


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
