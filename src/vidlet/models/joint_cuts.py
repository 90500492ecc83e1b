"""Several cuts of one network as one extractor, computed in one pass: their features side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .extractor import FrameExtractor, network_of
from .head import flat_size


class JointCuts(FrameExtractor):
    """Several cuts of one network as one extractor: uint8 frames (T, H, W, 3) -> their features side by side (T, D).

    Args:
        cuts: cut -> its extractor, as for ``Taps``; the features come in the order of the network's blocks.
    """

    def __init__(self, cuts: Mapping[str, FrameExtractor]) -> None:
        deepest = max(cuts.values(), key=lambda extractor: len(network_of(extractor).parts))
        super().__init__(
            network_of(deepest), deepest.input_size, ranges=deepest.ranges, provenance=deepest.provenance,
            freeze_norm=deepest.freeze_norm,
        )  # fmt: skip
        self.zero_point, self.scale = deepest.zero_point, deepest.scale
        order = [part for part in network_of(deepest).parts if part in cuts]
        self.pools = nn.ModuleDict({part: cuts[part].pooled for part in order})
        self.grids = {part: cuts[part].grid for part in order}
        self.shapes = {part: cuts[part].feature_shape for part in order}
        self.feature_shape = (sum(flat_size(shape) for shape in self.shapes.values()),)

    def features(self, pictures: Tensor) -> Tensor:
        """Normalized pictures (T, 3, H, W) -> features float32 (T, D)."""
        maps, found = pictures, []
        for part in network_of(self).parts:
            maps = self.backbone.get_submodule(part)(maps)
            if part in self.pools:
                found.append((self.pools[part](maps) if self.grids[part] else maps.mean((2, 3))).flatten(1))
        return torch.cat(found, 1)

    def places(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Cut -> where its features begin, and their shape."""
        begin, found = 0, {}
        for part, shape in self.shapes.items():
            found[part] = (begin, shape)
            begin += flat_size(shape)
        return found


def split_cuts(cut: str) -> dict[str, int]:
    """Cut -> grid of ``extractor.cut`` of several cuts, "block6/4+head/0".

    Raises:
        RecipeError: a cut without its grid, or the same cut twice.
    """
    found: dict[str, int] = {}
    for text in cut.split("+"):
        name, _, grid = text.partition("/")
        if not re.fullmatch("[0-9]{1,4}", grid) or name in found:
            raise RecipeError(
                f"extractor.cut of several cuts is as in block6/4+head/0, CUT/GRID each once, got {cut!r}"
            )
        found[name] = int(grid)
    return found
