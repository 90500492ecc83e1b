"""Clips as Wang et al. read VIVA's: 32 frames, the nearest in time, bicubic in space, depth beside intensity.

Each clip becomes a folder of small pictures. Of twin folders (datasets/viva.py) red is intensity and green is depth;
of other clips all three channels are their gray, which is depth where they are clips of depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets import Clip
from ..datasets.viva import depth_of, twin_folders
from ..recipe import Sampling
from ..video import probe, read_clip
from .clips import unsplit_clips
from .flow import write_pictures


def small_clips(
    data: str | Path, out: Path, size: tuple[int, int] = (28, 62), frames: int = 32, strict: bool = False
) -> dict[str, Any]:
    """Write the clips so into ``out``; what is there already is kept. Returns what ``write_pictures`` does.

    Raises:
        DataError: none of the clips can be read.
    """
    table, twins = unsplit_clips(data, strict), twin_folders(Path(data))

    def pictures(clip: Clip) -> Iterator[np.ndarray]:
        intensity = list(_gray(clip.path, clip, size, frames))
        beside = depth_of(clip.path, twins) if twins else None
        depth = list(_gray(beside, clip, size, frames)) if beside else intensity
        for one, other in zip(intensity, depth, strict=True):
            yield np.stack([one, other, one], axis=2)

    return write_pictures(table, out, pictures, "small clips", strict)


def _gray(path: Path, clip: Clip, size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """Frames uint8 (H, W): of n frames number floor((k + 0.5) n / frames), the nearest to the k-th moment."""
    info = probe(path, clip.fps)
    sampling = Sampling("uniform", frames=frames)
    native = (info.height, info.width)
    found = read_clip(path, sampling, native, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps).frames
    for frame in found:
        picture = Image.fromarray(frame).convert("L").resize((size[1], size[0]), Image.Resampling.BICUBIC)
        yield np.array(picture)
