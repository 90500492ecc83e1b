"""What the plainest classifiers reach on the same features and clips: what any training has to be held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..metrics import gap
from ..models.probe import Probe
from ..training import Draw, FeatureClips
from ..training.probes import describe, ground_of, scaled_, solve_probe_, squares_of
from .candidates import CLOSER
from .measure import best_solution

STEEP = 16.0  # scores of least squares times this are logits
SQUARES: dict[str, dict[str, Any]] = {  # name -> options of the probe
    "least squares on the mean": {"statistics": "mean", "whiten": 0.0},
    "least squares on the mean at one length": {"statistics": "mean", "whiten": 0.0, "unit": True},
    "least squares on mean and deviation": {"statistics": "mean+deviation", "whiten": 0.3},  # of several frames
}
BASELINES = {"one frame": "mean", "mean": "mean", "mean and deviation": "mean+deviation"}  # name -> statistics


@dataclass(frozen=True)
class Baseline:
    """A plain classifier: its name, which of the scored clips (N,) it names rightly, and GAP@20 of many labels."""

    name: str
    correct: np.ndarray
    gap20: float | None = None

    @property
    def accuracy(self) -> float:
        """Share of the scored clips."""
        return float(self.correct.mean())


def measure_baselines(
    train: FeatureClips,
    held: Sequence[np.ndarray],
    scored: FeatureClips,
    multi_label: bool,
) -> list[Baseline]:
    """Chance, and linear classifiers of the middle frame, of the mean, and of mean and deviation over time.

    Each is solved to convergence on the training clips, with the penalty that is best on folds of them.

    Args:
        held: folds of the training clips, bool (N,) each, True where a clip is held out.
        scored: the clips that the files are scored on.
    """
    most = int(train.targets.sum(0).argmax())
    found = [Baseline("chance", scored.targets[:, most] > 0)]
    for name, statistics in BASELINES.items():
        look = middle_frame if name == "one frame" else (lambda clips: clips)
        probe = Probe(tuple(train.read(0).shape[1:]), train.targets.shape[1], statistics).eval()
        values = describe(probe, look(train))
        products = sum(scaled_(value).products() for value in values) / len(values)
        options, _ = best_solution(np.asarray(products), train.targets, held, multi_label)
        probe.strength, probe.squares = options["strength"], options.get("squares", 0.0)
        probe.alike = options.get("alike", True)
        solve_probe_(probe, look(train), multi_label)
        answers = _answers(probe, look(scored))
        found.append(Baseline(name, scored.targets[np.arange(len(answers)), answers.argmax(1)] > 0))
    return found


def measure_squares(train: FeatureClips, scored: FeatureClips, multi_label: bool) -> list[Baseline]:
    """Chance, and least squares on the mean over time, of all training clips at once: where they, or classes, are many.

    The penalty is that of the least generalized cross-validation; the vectors are as they are, or at one length.
    """
    most, truth = int(train.targets.sum(0).argmax()), scored.targets > 0
    found = [Baseline("chance", truth[:, most])]
    several = any(len(train.read(i)) > 1 for i in range(min(len(train), 20)))
    for name, options in SQUARES.items():
        if "deviation" in name and not several:
            continue
        shape = tuple(train.read(0).shape[1:])
        probe = Probe(shape, truth.shape[1], **options, squares=STEEP, alike=False).eval()
        ground = ground_of(probe, train)
        sums = squares_of(probe, train, ground)
        ground.put_squares_into_(probe, sums.weights(sums.best_of(CLOSER), alike=False))
        answers = _answers(probe, scored)
        correct = truth[np.arange(len(answers)), answers.argmax(1)]
        found.append(Baseline(name, correct, gap(answers, truth) if multi_label else None))
    return found


def middle_frame(clips: FeatureClips) -> FeatureClips:
    """The clips as their middle frames alone."""
    read = clips.read
    return clips.reading(lambda i: _middle(read(i)))


def _middle(features: np.ndarray) -> np.ndarray:
    return features[len(features) // 2 : len(features) // 2 + 1]


@torch.no_grad()
def _answers(probe: Probe, clips: FeatureClips) -> np.ndarray:
    found = []
    for batch in clips.batches(Draw(8, range(len(clips)))):
        found.append(probe(batch.x, probe.zero_state(len(batch.x), batch.x), batch.mask)[0].numpy())
    return np.concatenate(found)


def pixel_features(read: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """The colors of an 8 x 8 grid of each frame, (T, 192) from frames uint8 (T, H, W, 3), where nothing is stored."""

    def look(index: int) -> np.ndarray:
        frames = torch.from_numpy(np.asarray(read(index))).permute(0, 3, 1, 2).float() / 255
        found: np.ndarray = torch.nn.functional.adaptive_avg_pool2d(frames, 8).flatten(1).numpy()
        return found

    return look
