"""What a compression step takes, returns and may learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.extractor import FrameExtractor
from ..models.head import Head
from ..recipe import Training
from ..training import Clips


@dataclass(frozen=True)
class Trained:
    """A trained network: frames -> features -> logits. Steps return another one and leave theirs as it was."""

    extractor: FrameExtractor
    head: Head


@dataclass(frozen=True)
class Material:
    """What a step may learn from; never clips of the test split.

    Args:
        config: how the recipe trains.
        samples: frames uint8 (T, H, W, 3) of up to 40 training clips.
        features: extractor -> (train, val) clips as its stored features, computed through the runtime, kept by content.
        frames: () -> (train, val) clips as decoded frames.
    """

    config: Training
    multi_label: bool
    samples: Sequence[np.ndarray]
    features: Callable[[FrameExtractor], tuple[Clips, Clips]]
    frames: Callable[[], tuple[Clips, Clips]]
    seed: int = 0
