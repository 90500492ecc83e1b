"""Stored frame features as an extractor: codes uint8 (T, D) of one or two modalities -> float32 (T, D of all).

What an artifact does of them is dequantization; the features themselves were computed elsewhere (YouTube-8M records, or
an .npz). docs/data.md says how they are quantized.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .extractor import FrameExtractor

SCALE, BIAS = 4 / 255, 4 / 512 - 2  # of datasets.frame_record.dequantize


class StoredFeatures(FrameExtractor):
    """The codes of each modality, an input each, as numbers side by side.

    Training and compression handle a clip as one array of codes (T, D of all); export/feeds.py cuts it for the file.

    Args:
        widths: numbers a frame of each modality, {"rgb": 1024, "audio": 128}.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__(_Codes(sum(widths.values())), (1, 1), provenance={"weights": "none"})  # type: ignore[arg-type]
        self.widths = dict(widths)

    def forward(self, *codes: Tensor) -> Tensor:
        """Codes uint8 (T, width) of each modality -> features float32 (T, D)."""
        joined = codes[0] if len(codes) == 1 else torch.cat(codes, 1)
        return joined.float() * SCALE + BIAS


class _Codes(nn.Module):
    """Stands for a network where there is none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.out_channels = size

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """The side of a map of one point."""
        return 1, 1

    def forward(self, pictures: Tensor) -> Tensor:
        """Nothing is done."""
        return pictures
