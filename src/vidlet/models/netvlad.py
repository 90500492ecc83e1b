"""Gated NetVLAD: what is left of each frame beside the nearest of K learned centers, summed over time.

Source: Arandjelovic et al. 2016, arXiv:1511.07247 (NetVLAD); Miech, Laptev, Sivic 2017, arXiv:1706.06905 (gated, on
video, the light variant); Liu and Liu 2018, ECCV workshop on YouTube-8M (as run: sizes, constants).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .frame_input import FrameInput, FrameNorm, masked
from .gating import GatedClassifier, NormalLinear, batch_norm, l2_normalize
from .head import Head, State


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


class GatedNetVLAD(Head):
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
        super().__init__()
        check_positive("netvlad", clusters=clusters, hidden=hidden)
        self.input = FrameInput("netvlad", feature_shape, audio, standardize, True, sampled)
        counts = (clusters, max(1, clusters // 2))
        self.pools = nn.ModuleList(
            NetVLAD(width, count, momentum, light) for width, count in zip(self.input.widths, counts, strict=False)
        )
        inputs = sum(width * count for width, count in zip(self.input.widths, counts, strict=False))
        self.classifier = GatedClassifier(inputs, classes, hidden, experts, momentum, gating)
        self.state_shapes = joined_shapes(self.pools)

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.input.calibrate(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (B, K); the logit of a probability, see gating.py."""
        frames, real = self.input(features, mask)
        pooled, after = pool_modalities(self.pools, self.input.split(frames), state, real)
        return self.classifier(pooled), after


MODALITIES = ("video", "audio")


def joined_shapes(pools: nn.ModuleList) -> dict[str, tuple[int, ...]]:
    """State shapes of the pools of all modalities: "video_sum", "audio_sum" ..."""
    return {
        f"{name}_{key}": shape
        for name, pool in zip(MODALITIES, pools, strict=False)
        for key, shape in pool.state_shapes.items()  # type: ignore[union-attr, operator]
    }


def pool_modalities(
    pools: nn.ModuleList, parts: tuple[Tensor, ...], state: State, mask: Tensor | None
) -> tuple[Tensor, State]:
    """Descriptors of all modalities side by side (B, sum), and their states under joined names."""
    found: list[Tensor] = []
    after: State = {}
    for name, pool, part in zip(MODALITIES, pools, parts, strict=False):
        own = {key: state[f"{name}_{key}"] for key in pool.state_shapes}  # type: ignore[union-attr]
        pooled, inner = pool(part, own, mask)
        found.append(pooled)
        after |= {f"{name}_{key}": value for key, value in inner.items()}
    return torch.cat(found, 1), after


def check_positive(head: str, **options: int) -> None:
    """Refuse options below 1.

    Raises:
        RecipeError: names the option.
    """
    for key, value in options.items():
        if value < 1:
            raise RecipeError(f"head {head}: option {key} must be at least 1, got {value}")
