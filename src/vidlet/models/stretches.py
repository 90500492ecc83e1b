"""Means over ordered stretches of a clip whose length is not known beforehand, at constant memory.

A clip's frames are summed into R bins of w frames each. When all bins are full, neighbors are added together and w
doubles, so between R / 2 and R bins hold the whole clip, however long it is. A stretch, say the third eighth of the
clip, is the weighted mean of the bins that it overlaps: exact while w is 1, else as if a bin's frames were alike. What
is in the bins depends on the number of frames alone, so frame by frame equals all at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DOUBLINGS = 20  # of a bin's width: 32 bins hold 33 million frames, and float32 counts to 16 million


class Stretches(nn.Module):
    """The bins of a clip and the means of its stretches.

    Args:
        bins: R, even.
        edges: begin and end of each stretch, as fractions of the clip.
    """

    def __init__(self, bins: int, edges: list[tuple[float, float]]) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("begin", torch.tensor([begin for begin, _ in edges]), persistent=False)
        self.register_buffer("end", torch.tensor([end for _, end in edges]), persistent=False)
        self.register_buffer("place", torch.arange(float(bins)), persistent=False)
        self.register_buffer("doubles", 2.0 ** torch.arange(float(DOUBLINGS)), persistent=False)
        self.begin: Tensor
        self.end: Tensor
        self.place: Tensor
        self.doubles: Tensor

    def width(self, count: Tensor) -> Tensor:
        """Frames a bin of clips of ``count`` (N, 1) frames: the least power of two w with R w >= count."""
        return 1 + ((count > self.bins * self.doubles) * self.doubles).sum(1, keepdim=True)

    def add(self, bins: Tensor, count: Tensor, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Add the real frames of x (B, T, D) to bins (N, R, D) of ``count`` (N, 1) frames; B is N or 1."""
        number = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        frames = torch.full_like(count, x.shape[1]) if mask is None else mask.sum(1, keepdim=True).to(count.dtype)
        total = count + frames
        before, after = self.width(count), self.width(total)
        place = self.place.unsqueeze(1)  # (R, 1)
        merged = torch.floor(self.place * before / after).unsqueeze(1) == place  # (N, R, R): old bin -> new bin
        added = torch.floor((count + number) / after).unsqueeze(1) == place  # (N, R, T): frame -> new bin
        if mask is not None:
            added = added & mask.unsqueeze(1)
        return merged.to(x.dtype) @ bins + added.to(x.dtype) @ x, total

    def means(self, bins: Tensor, count: Tensor) -> Tensor:
        """The mean of each stretch of clips of ``count`` (N, 1) frames in bins (N, R, D): (N, S, D)."""
        width = self.width(count)
        low = torch.minimum(self.place * width, count).unsqueeze(1)  # (N, 1, R)
        high = torch.minimum((self.place + 1) * width, count).unsqueeze(1)
        begin, end = (self.begin * count).unsqueeze(2), (self.end * count).unsqueeze(2)  # (N, S, 1)
        overlap = (torch.minimum(high, end) - torch.maximum(low, begin)).clamp(min=0)  # (N, S, R), in frames
        share = overlap / (high - low).clamp(min=1)
        return (share / (end - begin)) @ bins
