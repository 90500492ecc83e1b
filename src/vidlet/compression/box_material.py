"""What a compression step of a detector takes, returns and may learn from; and the training that such steps share."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..models.detector import Detector
from ..recipe import Training
from ..training.box_batches import BoxClips
from ..training.detection import fit_detector
from ..video import resize
from .deepeye import DeepeyeNetwork
from .int8 import Range

CALIBRATION_IMAGES = 64
BATCH = 8  # pictures that activations are looked at on together
LENGTH = 1 / 4  # of the recipe's epochs


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
    """

    config: Training
    train: BoxClips
    val: BoxClips

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


def tune_boxes(
    detector: Detector, amount: float | None, material: BoxMaterial, rate: float, fixed_size: bool = False
) -> None:
    """Train a detector on in place, on the recipe's terms but for ``rate`` times its learning rates.

    Args:
        amount: epochs; None: a quarter of the recipe's.
        fixed_size: all pictures of the network's size, where the network was made for that.
    """
    config = material.config
    epochs = max(1, math.ceil(config.epochs * LENGTH) if amount is None else round(amount))
    augment = {**config.augment, "scales": 0} if fixed_size else config.augment
    config = replace(
        config, epochs=epochs, lr=rate * config.lr, extractor_lr=rate * config.extractor_lr, early_stopping=0,
        augment=augment,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    fit_detector(detector, material.train, material.val, config)


def picture_batches(detector: Detector, pictures: Sequence[np.ndarray]) -> list[Tensor]:
    """Pictures uint8 (H, W, 3) as the network takes them, in batches (B, 3, H, W), at least two in the first."""
    stacked = np.stack([*pictures, *pictures[:1]] if len(pictures) == 1 else list(pictures))
    frames = torch.from_numpy(stacked)
    return [detector.normalize(part.permute(0, 3, 1, 2).float()) for part in frames.split(BATCH)]
