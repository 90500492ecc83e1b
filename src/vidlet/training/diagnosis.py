"""What a training that failed looks like in its log, told in a sentence with the likely cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..recipe import Training

KNOWN_BY_HEART = 0.95  # of the training clips answered rightly
FEW_CLIPS = 20  # of a class
FEW_UPDATES = 100
FEW_EPOCHS = 3  # before which nothing is said of how the loss goes
STILL = 0.98  # of its first value: a loss that ends above has not fallen
LEAP = 1.5  # times its first value


class Odds(NamedTuple):
    """What naming the commonest class would reach on so many validation clips, and training clips a class."""

    chance: float
    clips: int
    of_class: float


def what_failed(
    history: Sequence[Mapping[str, float]], config: Training, updates: int, odds: Odds | None, val_accuracy: float
) -> list[str]:
    """Sentences about a training: none where it learned.

    Args:
        history: rows of its log.
        odds: None where nothing is answered rightly or wrongly (boxes).
        val_accuracy: of the weights that were chosen.
    """
    found = []
    train = history[-1].get("train_accuracy", 0.0) if history else 0.0
    if odds is not None and _by_heart(train, val_accuracy, odds):
        found.append(
            f"{train:.0%} of the training clips are answered rightly, but {val_accuracy:.0%} of the {odds.clips} "
            f"validation clips, where always naming the commonest class gives {odds.chance:.0%}: {_why_by_heart(odds)}"
        )
    if len(history) >= FEW_EPOCHS and _is_still(history, odds):
        losses = [row["train_loss"] for row in history]
        found.append(
            f"the loss did not fall: {losses[0]:.4g} in the first epoch, {losses[-1]:.4g} in the last; "
            + _why_still(losses, config, updates)
        )
    return found


def _by_heart(train: float, val: float, odds: Odds) -> bool:
    """Whether what was learned of the training clips says nothing of others, within a standard error."""
    error = (odds.chance * (1 - odds.chance) / max(1, odds.clips)) ** 0.5
    return train >= KNOWN_BY_HEART and val <= odds.chance + error < KNOWN_BY_HEART


def _why_by_heart(odds: Odds) -> str:
    if odds.of_class < FEW_CLIPS:
        return f"likely because {odds.of_class:.0f} training clips a class are few; add clips, or augmentation"
    return (
        "likely because they are unlike (other people, places or cameras in validation; clips whose label is not what "
        "they show); `vidlet data` tells how the clips were split"
    )


def _is_still(history: Sequence[Mapping[str, float]], odds: Odds | None) -> bool:
    if odds is not None and history[-1]["train_accuracy"] > odds.chance + 0.05:
        return False
    return history[-1]["train_loss"] > STILL * history[0]["train_loss"]


def _why_still(losses: Sequence[float], config: Training, updates: int) -> str:
    if max(losses) > LEAP * losses[0]:
        return f"it rose to {max(losses):.4g} on the way: likely training.lr = {config.lr:g} is too high"
    if updates < FEW_UPDATES:
        return f"likely because {updates} updates are few: raise training.epochs, or training.least_updates"
    return (
        f"likely training.lr = {config.lr:g} is too low (or much too high), or what the model sees does not tell the "
        "labels apart"
    )
