"""Heads that are solved instead of trained: probes, and blends of heads of which some are probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models.ensemble import Part, heads_of
from ..models.head import Head
from ..models.probe import Probe
from ..progress import working
from .batches import Clips, Draw
from .linear import coordinates, evened, solve

Take = Callable[[torch.Tensor], torch.Tensor]  # features (B, T, ...) -> the part of them that a head sees

LANDMARKS = 4000  # clips whose span holds the solution, where there are more of them; of fewer where
KEPT = 1e8  # numbers would be more: those of the landmarks' statistics, and their products with all clips
LEAST_LANDMARKS = 200
ENOUGH = 1.5  # landmarks a number: so many clips span all that the numbers can say
CHUNK = 256  # clips described at once, where not all of them are kept
_CONSTANT = 1e-6  # deviation below which a number says nothing
_RANK = 1e-6  # of the largest sum of squares: what is below is rounding of float32


@dataclass(frozen=True)
class Scaled:
    """One statistic of all clips, (N, rows, D), brought to one size: ``(value - center) * gain``.

    The mean over the clips of the squared length of ``vectors`` (N, rows * D), those centered, is 1.
    """

    vectors: np.ndarray
    center: np.ndarray  # (D,)
    gain: np.ndarray  # (D,)
    middle: np.ndarray  # (rows * D,) the mean that ``vectors`` lack

    def products(self) -> np.ndarray:
        """(N, N) of the vectors."""
        return (self.vectors @ self.vectors.T).astype(np.float64)


def scaled(values: np.ndarray, whiten: float = 1.0) -> Scaled:
    """Center and scale one statistic (N, rows, D) of the training clips; each number's rows share their scale."""
    center, spread = values.mean((0, 1)), values.std((0, 1))
    gain = np.where(spread > _CONSTANT, np.maximum(spread, _CONSTANT) ** -whiten, 0).astype(np.float32)
    vectors = ((values - center) * gain).reshape(len(values), -1)
    middle = vectors.mean(0)
    vectors = vectors - middle
    length = float(np.sqrt(np.square(vectors).sum(1).mean())) or 1.0
    return Scaled(vectors / length, center, gain / length, middle / length)


@torch.no_grad()
def describe(
    probe: Probe, clips: Clips, take: Take = lambda x: x, rows: Sequence[int] | None = None
) -> list[np.ndarray]:
    """The statistics of clips as they are, (N, rows, D) each; ``take`` gives the probe's part of their features.

    Args:
        rows: which of the clips; None: all.
    """
    found = [
        [value.numpy() for value in probe.describe(take(batch.x))]
        for batch in clips.batches(Draw(1, range(len(clips)) if rows is None else rows))
    ]
    return [np.concatenate(column) for column in zip(*found, strict=True)]


@dataclass(frozen=True)
class Ground:
    """Where a probe's solution is sought: each statistic's scale, and the directions ``there`` (P, R) of its numbers.

    P is how many numbers the classifier sees. ``z`` (M, R) are coordinates of the landmarks, orthogonal over them.
    """

    parts: Sequence[Scaled]
    there: np.ndarray
    z: np.ndarray
    whole: bool  # the landmarks are all clips

    @property
    def share(self) -> np.float32:
        """By which each of several statistics is multiplied."""
        return np.float32(len(self.parts) ** -0.5)

    def of_clips(self, probe: Probe, clips: Clips, take: Take) -> Iterator[tuple[range, np.ndarray]]:
        """Coordinates of clips, chunk by chunk: which of the clips, (n, R)."""
        there = self.there.astype(np.float32)
        for begin in range(0, len(clips), CHUNK):
            rows = range(begin, min(begin + CHUNK, len(clips)))
            own = [
                ((values - part.center) * part.gain).reshape(len(rows), -1) - part.middle
                for part, values in zip(self.parts, describe(probe, clips, take, rows), strict=True)
            ]
            yield rows, np.concatenate(own, 1) * self.share @ there

    def put_into_(self, probe: Probe, weights: np.ndarray) -> None:
        """Set a probe's scales and its classifier by weights (R + 1, K) of the coordinates, the last row a bias."""
        dense = self.there.astype(np.float64) @ weights[:-1]  # (P, K)
        middle = np.concatenate([part.middle for part in self.parts]) * self.share
        with torch.no_grad():
            probe.center.copy_(torch.from_numpy(np.stack([part.center for part in self.parts])))
            probe.gain.copy_(torch.from_numpy(np.stack([part.gain * self.share for part in self.parts])))
            probe.classify.weight.copy_(torch.from_numpy(dense.T))
            probe.classify.bias.copy_(torch.from_numpy(weights[-1] - middle @ dense))

    def put_squares_into_(self, probe: Probe, weights: np.ndarray) -> None:
        """Set a probe by weights (R + 1, K) of least squares: scores, less one half, times a factor are its logits."""
        half = np.append(np.zeros(len(weights) - 1), 0.5)[:, None]
        self.put_into_(probe, (weights - half) * probe.squares)


def ground_of(probe: Probe, clips: Clips, take: Take = lambda x: x) -> Ground:
    """The span of at most ``LANDMARKS`` clips."""
    count, numbers = len(clips), sum(probe.rows) * probe.seen
    most = int(np.clip(min(KEPT / numbers, KEPT / count, ENOUGH * numbers), LEAST_LANDMARKS, LANDMARKS))
    chosen = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    parts = [scaled(values, probe.whiten) for values in describe(probe, clips, take, chosen.tolist())]
    landmarks = np.concatenate([part.vectors for part in parts], 1) * np.float32(len(parts) ** -0.5)  # (M, P)
    span = coordinates((landmarks @ landmarks.T).astype(np.float64))
    return Ground(parts, landmarks.T @ span.basis, span.z, len(chosen) == count)


def solve_probe_(probe: Probe, clips: Clips, multi_label: bool, take: Take = lambda x: x) -> None:
    """Set a probe's scales and its classifier by the training clips, solved to convergence.

    The solution is sought in the span of at most ``LANDMARKS`` clips, with the loss of all of them; memory is bounded.
    """
    ground = ground_of(probe, clips, take)
    if probe.squares:
        sums = squares_of(probe, clips, ground, take)
        ground.put_squares_into_(probe, sums.weights(probe.strength, probe.alike and not multi_label))
        return
    strengths = [scale * probe.strength for scale in (100, 10, 1)]
    *_, weights = logistic_weights(probe, clips, ground, strengths, multi_label, take)
    ground.put_into_(probe, weights * probe.sharpness)


def logistic_weights(
    probe: Probe,
    clips: Clips,
    ground: Ground,
    strengths: Sequence[float],
    multi_label: bool,
    take: Take = lambda x: x,
) -> Iterator[np.ndarray]:
    """Weights (R + 1, K) of least cross-entropy, the last row a bias, for each strength, in descending order."""
    z, turn, weights = ground.z, None, None
    if not ground.whole:
        z, turn = _orthogonal(np.concatenate([own for _, own in ground.of_clips(probe, clips, take)]))
    sizes = len(z) * z.var(0, dtype=np.float64)
    for strength in strengths:
        weights = solve(z, sizes, clips.targets.astype(np.float64), strength, multi_label, weights)
        yield weights if turn is None else np.concatenate([turn @ weights[:-1], weights[-1:]])


@dataclass(frozen=True)
class Squares:
    """Least squares over many clips, from sums alone: whatever the penalty, it is solved at once.

    Args:
        center: (R,) of the coordinates. turn: (R, Q) what makes centered ones orthogonal. sizes: (Q,) their sums of
            squares. cross: (Q, K) their products with the targets. counts: (K,) clips of each class. clips: how many.
    """

    center: np.ndarray
    turn: np.ndarray
    sizes: np.ndarray
    cross: np.ndarray
    counts: np.ndarray
    clips: int

    def weights(self, strength: float, alike: bool) -> np.ndarray:
        """Weights (R + 1, K), the last row a bias, of least squares + strength |w|^2; see ``linear.solve_squares``."""
        gains = evened(self.counts) if alike else np.ones(len(self.counts))
        found = self.turn @ (self.cross * gains / (self.sizes + self.clips * strength)[:, None])
        bias = self.counts * gains / self.clips - self.center @ found
        return np.concatenate([found, bias[None]])

    def best_of(self, strengths: Sequence[float]) -> float:
        """The strength with the least generalized cross-validation, where targets are 0 and 1.

        Source: Golub, Heath and Wahba 1979, "Generalized cross-validation as a method for choosing a good ridge
        parameter".
        """
        every, own = self.counts * (1 - self.counts / self.clips), np.square(self.cross).sum(1)  # (K,), (Q,)

        def missed(strength: float) -> float:
            ridge = self.clips * strength
            left = every.sum() - (own * (self.sizes + 2 * ridge) / (self.sizes + ridge) ** 2).sum()
            free = 1 - (1 + (self.sizes / (self.sizes + ridge)).sum()) / self.clips
            return float(left / max(free, 1e-9) ** 2)

        return min(strengths, key=missed)


def squares_of(probe: Probe, clips: Clips, ground: Ground, take: Take = lambda x: x) -> Squares:
    """The sums that least squares need of all clips; a chunk of them is held at a time."""
    size, classes = ground.there.shape[1], clips.targets.shape[1]
    products, sums = np.zeros((size, size)), np.zeros(size)
    cross, counts = np.zeros((size, classes)), np.zeros(classes)
    targets = clips.targets
    for rows, z in ground.of_clips(probe, clips, take):
        y = targets[rows.start : rows.stop].astype(np.float32)
        products += z.T @ z
        cross += z.T @ y
        sums += z.sum(0, dtype=np.float64)
        counts += y.sum(0, dtype=np.float64)
    center = sums / len(clips)
    sizes, turn = np.linalg.eigh(products - len(clips) * np.outer(center, center))
    kept = sizes > max(sizes[-1], 0) * _RANK
    turn = turn[:, kept]
    return Squares(center, turn, sizes[kept], turn.T @ (cross - np.outer(center, counts)), counts, len(clips))


def _orthogonal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, R) turned so that they are orthogonal over all clips, as the solvers need them, and the turn.

    Those of the landmarks are orthogonal over the landmarks alone.
    """
    center = z.mean(0, dtype=np.float64)
    turn = np.linalg.eigh((z.T @ z).astype(np.float64) - len(z) * np.outer(center, center))[1]
    return z @ turn.astype(z.dtype), turn


def probe_of(head: Head) -> Probe | None:
    """The probe that a head is, alone or on its part of the features."""
    inner = head.head if isinstance(head, Part) else head
    return inner if isinstance(inner, Probe) else None


def solvable(head: Head) -> bool:
    """Whether a head is, or has among its members, what is solved instead of trained."""
    return any(probe_of(member) is not None for member in heads_of(head))


def solve_probes_(head: Head, clips: Clips, multi_label: bool) -> list[Head]:
    """Solve every probe among the members of a head on the training clips; what is left must be trained."""
    left: list[Head] = []
    with working("solve the classifiers"):  # of many clips that takes minutes
        for member in heads_of(head):
            probe = probe_of(member)
            if probe is None:
                left.append(member)
                continue
            take = member.take if isinstance(member, Part) else lambda x: x
            solve_probe_(probe, clips, multi_label, take)
    return left
