"""What a compression step takes, returns and may learn from, for classifiers and for detectors."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from torch import nn

from ..models.detector import Detector
from ..models.extractor import FrameExtractor
from ..models.head import Head
from ..recipe import Training
from ..training import Batch, ClipNetwork, Clips, Draw, Teacher, find_device, train_network
from ..training.box_batches import BoxClips
from ..video import resize
from .deepeye import DeepeyeNetwork
from .int8 import Range

CALIBRATION_IMAGES = 64

Whole = TypeVar("Whole", bound=nn.Module)


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
        return self.detector if self.integers is None else with_part(self.detector, "network", self.integers)


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


def with_part(whole: Whole, name: str, part: nn.Module) -> Whole:
    """A shallow copy of a module that has another module of the same maps under a name."""
    shell = copy.copy(whole)
    shell._modules = {**whole._modules, name: part}
    shell._buffers = dict(whole._buffers)
    return shell


def tuning_share(amount: float | None, config: Training) -> int:
    """Epochs of a step that trains on: the amount, else a quarter of the recipe's."""
    return max(1, math.ceil(config.epochs / 4) if amount is None else round(amount))


# What the network steps share: which clips a recipe's networks learn from, and training on where a step has cut.
LENGTH = {"frozen": 1.0, "finetune": 0.5}  # of the recipe's epochs: how long a network is tuned after a step
RATE = {"frozen": 1.0, "finetune": 0.5}  # of the recipe's learning rates


def learned_part(trained: Trained, material: Material) -> ClipNetwork:
    """The network as the recipe trains it: the head alone on stored features, or head and extractor on frames."""
    frozen = material.config.mode == "frozen"
    return ClipNetwork(trained.head, None if frozen else trained.extractor)


def clips_of(trained: Trained, material: Material) -> tuple[Clips, Clips]:
    """(train, val) clips as :func:`learned_part` takes them."""
    return material.features(trained.extractor) if material.config.mode == "frozen" else material.frames()


def tuning_epochs(material: Material) -> int:
    """How many epochs a step tunes for: the recipe's for a head on stored features, half of them on frames."""
    return max(1, math.ceil(material.config.epochs * LENGTH[material.config.mode]))


def tune(
    trained: Trained,
    material: Material,
    epochs: int | None = None,
    *,
    rate: float | None = None,
    teacher: Teacher | None = None,
    clips: tuple[Clips, Clips] | None = None,
    hold_of: Callable[[ClipNetwork], Callable[[], None]] | None = None,
    seed: int | None = None,
    precision: str | None = None,
) -> Trained:
    """Train a copy on, as its recipe does: the head on stored features, or the whole network on frames.

    Without ``hold_of``, a recipe's early stopping holds here too. A frozen extractor stays the same object.

    Args:
        epochs: None: :func:`tuning_epochs`.
        rate: the recipe's learning rates are multiplied by it; None: 1 for a head on stored features, 1/2 on frames.
        clips: other (train, val) clips than the recipe's (some of train without labels, say).
        hold_of: gives, for the network that is trained, what keeps its weights in place after each update.
        seed: of the order of clips and the augmentation; None: the material's.
        precision: of products, as ``training.precision``; None: the recipe's.
    """
    rate = RATE[material.config.mode] if rate is None else rate
    config = replace(
        material.config,
        epochs=epochs or tuning_epochs(material),
        least_updates=0,
        lr=material.config.lr * rate,
        extractor_lr=material.config.extractor_lr * rate,
        early_stopping=material.config.early_stopping if hold_of is None else 0,
        seed=material.seed if seed is None else seed,
        precision=precision or material.config.precision,
    )
    frozen = config.mode == "frozen"
    tuned = Trained(trained.extractor if frozen else copy.deepcopy(trained.extractor), copy.deepcopy(trained.head))
    network = learned_part(tuned, material)
    train, val = clips_of(tuned, material) if clips is None else clips
    device = find_device(material.device)
    network.to(device)  # what holds it holds it there
    train_network(
        network,
        train,
        val,
        config,
        multi_label=material.multi_label,
        device=device,
        teacher=teacher,
        hold=hold_of(network) if hold_of is not None else None,
        title="tune",
    )
    return tuned


def single_batches(clips: Clips, most: int, size: int = 1) -> Iterator[Batch]:
    """Up to ``most`` clips, spread over the set, as they are, in batches of ``size``."""
    count = min(most, len(clips))
    return clips.batches(Draw(size, [i * len(clips) // count for i in range(count)]))
