"""Several extractors that are cuts of one network, computed in one pass over the frames."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .extractor import FrameExtractor
from .inceptionv3 import InceptionV3
from .mobilenetv1 import MobileNetV1
from .mobilenetv2 import MobileNetV2


class Taps(nn.Module):
    """The features of each cut of a network, for the price of the deepest.

    Args:
        cuts: cut ("block6") -> its extractor; weights, input size and normalization are those of one network.
    """

    def __init__(self, cuts: Mapping[str, FrameExtractor]) -> None:
        super().__init__()
        depth = {name: len(_backbone(extractor).parts) for name, extractor in cuts.items()}
        self.deepest = cuts[max(cuts, key=lambda name: depth[name])]
        self.names = tuple(cuts)
        self.extractors = nn.ModuleList(cuts.values())
        self.input_size = self.deepest.input_size

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Frames uint8 (T, H, W, 3) -> the features (T, ...) of each cut, in the order of ``names``."""
        maps, found = self.deepest.normalize(frames), {}
        for part in _backbone(self.deepest).parts:
            maps = self.deepest.backbone.get_submodule(part)(maps)
            if part in self.names:
                extractor = self.extractors[self.names.index(part)]
                assert isinstance(extractor, FrameExtractor)
                found[part] = extractor.pool(maps)
        return tuple(found[name] for name in self.names)


def _backbone(extractor: FrameExtractor) -> InceptionV3 | MobileNetV1 | MobileNetV2:
    assert isinstance(extractor.backbone, InceptionV3 | MobileNetV1 | MobileNetV2), (
        "taps are cuts of a network of blocks"
    )
    return extractor.backbone
