"""NeXtVLAD: frames are widened and cut into groups; each group is assigned to clusters of its own, smaller width.

Source: Lin, Xiao, Fan 2018, NeXtVLAD, arXiv:1811.05014; constants of the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .frame_input import FrameInput, FrameNorm, masked
from .gating import Experts, NormalLinear, batch_norm, l2_normalize
from .head import Head, State
from .netvlad import check_positive, joined_shapes, pool_modalities


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


class NeXtVLADHead(Head):
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
        super().__init__()
        check_positive("nextvlad", clusters=clusters, groups=groups, expansion=expansion, hidden=hidden)
        check_positive("nextvlad", reduction=reduction)
        self.input = FrameInput("nextvlad", feature_shape, audio, standardize, False, sampled)
        self.pools = nn.ModuleList(
            NeXtVLAD(width, max(1, clusters // part), max(1, groups // part), expansion, momentum)
            for part, width in enumerate(self.input.widths, 1)
        )
        inputs = sum(pool.inner * pool.clusters for pool in self.pools)  # type: ignore[operator, misc]
        inside = max(1, hidden // reduction)
        self.dropout = nn.Dropout(dropout)
        self.hidden, self.norm = NormalLinear(inputs, hidden), batch_norm(hidden, momentum)
        self.squeeze, self.squeeze_norm = NormalLinear(hidden, inside), batch_norm(inside, momentum)
        self.excite = NormalLinear(inside, hidden)
        self.experts = Experts(hidden, classes, experts, momentum)
        self.state_shapes = joined_shapes(self.pools)

    def calibrate(self, mean: Tensor, std: Tensor) -> None:
        """See Head.calibrate."""
        self.input.calibrate(mean, std)

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, *feature_shape) into logits (B, K)."""
        frames, real = self.input(features, mask)
        pooled, after = pool_modalities(self.pools, self.input.split(frames), state, real)
        h = self.norm(self.hidden(self.dropout(pooled)))
        gates = self.excite(self.squeeze_norm(self.squeeze(h)).relu()).sigmoid()
        return self.experts(h * gates), after
