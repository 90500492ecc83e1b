"""What a compression step takes, returns and may learn from, for classifiers and for detectors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from ..models.detector import Detector
from ..models.extractor import FrameExtractor
from ..models.head import Head
from ..recipe import Training
from ..training import Clips
from ..training.box_batches import BoxClips
from ..video import resize
from .deepeye import DeepeyeNetwork
from .int8 import Range

CALIBRATION_IMAGES = 64


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
        device: where steps train: "cpu", "cuda", or "auto" for a GPU where there is one.
    """

    config: Training
    multi_label: bool
    samples: Sequence[np.ndarray]
    features: Callable[[FrameExtractor], tuple[Clips, Clips]]
    frames: Callable[[], tuple[Clips, Clips]]
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class TrainedBoxes:
    """A trained detector. Steps return another one and leave theirs as it was.

    ``integers``: what computes the map in DEEPEYE's 8 bits instead of ``detector.network``; ``ranges``: of
    activations, by layer, where training has learned them.
    """

    detector: Detector
    integers: DeepeyeNetwork | None = None
    ranges: Mapping[str, Range] | None = None

    @property
    def computed(self) -> Detector:
        """The detector as its file computes it."""
        return self.detector if self.integers is None else with_network(self.detector, self.integers)


@dataclass(frozen=True)
class BoxMaterial:
    """What a step may learn from; never images of the test split.

    Args:
        config: how the recipe trains.
        device: as in ``Material``.
    """

    config: Training
    train: BoxClips
    val: BoxClips
    device: str = "auto"

    def pictures(self) -> list[np.ndarray]:
        """Up to 64 training pictures uint8 (H, W, 3) of the network's size, to find ranges on."""
        rows = np.linspace(0, len(self.train) - 1, min(CALIBRATION_IMAGES, len(self.train))).astype(int)
        return [resize(self.train.picture(int(i)), self.val.size) for i in rows]


def with_network(detector: Detector, network: nn.Module) -> Detector:
    """A copy of a detector that has another network of the same maps."""
    shell = copy.copy(detector)
    shell._modules = dict(detector._modules)
    shell._buffers = dict(detector._buffers)
    shell.network = network  # type: ignore[assignment]
    return shell
