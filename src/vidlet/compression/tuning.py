"""What the network steps share: which clips a recipe's networks learn from, and training on where a step has cut."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..training import Batch, ClipNetwork, Clips, Draw, Teacher, find_device, train_network
from .material import Material, Trained

LENGTH = {"frozen": 1.0, "finetune": 0.5}  # of the recipe's epochs: how long a network is tuned after a step
RATE = {"frozen": 1.0, "finetune": 0.5}  # of the recipe's learning rates


def learned_part(trained: Trained, material: Material) -> ClipNetwork:
    """The network as the recipe trains it: the head alone on stored features, or head and extractor on frames."""
    frozen = material.config.mode == "frozen"
    return ClipNetwork(trained.head, None if frozen else trained.extractor)


def clips_of(trained: Trained, material: Material) -> tuple[Clips, Clips]:
    """(train, val) clips as :func:`learned_part` takes them."""
    return material.features(trained.extractor) if material.config.mode == "frozen" else material.frames()


def tuning_epochs(material: Material, length: float | None = None) -> int:
    """How many epochs a step tunes for: the recipe's for a head on stored features, half of them on frames.

    Args:
        length: another share of the recipe's epochs.
    """
    share = LENGTH[material.config.mode] if length is None else length
    return max(1, math.ceil(material.config.epochs * share))


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
