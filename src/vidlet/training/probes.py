"""Heads that are solved instead of trained: probes, and blends of heads of which some are probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models.ensemble import Part, heads_of
from ..models.head import Head
from ..models.probe import Probe
from .batches import Clips, Draw
from .linear import coordinates, solve, solve_squares

Take = Callable[[torch.Tensor], torch.Tensor]  # features (B, T, ...) -> the part of them that a head sees

LANDMARKS = 4000  # clips whose span holds the solution, where there are more of them; of fewer where
KEPT = 1e8  # numbers would be more: those of the landmarks' statistics, and their products with all clips
LEAST_LANDMARKS = 200
ENOUGH = 1.5  # landmarks a number: so many clips span all that the numbers can say
CHUNK = 256  # clips described at once, where not all of them are kept
_CONSTANT = 1e-6  # deviation below which a number says nothing


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


def solve_probe_(probe: Probe, clips: Clips, multi_label: bool, take: Take = lambda x: x) -> None:
    """Set a probe's scales and its classifier by the training clips, solved to convergence.

    The solution is sought in the span of at most ``LANDMARKS`` clips, with the loss of all of them; memory is bounded.
    """
    count = len(clips)
    numbers = sum(probe.rows) * probe.seen
    most = int(np.clip(min(KEPT / numbers, KEPT / count, ENOUGH * numbers), LEAST_LANDMARKS, LANDMARKS))
    chosen = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    parts = [scaled(values, probe.whiten) for values in describe(probe, clips, take, chosen.tolist())]
    share = np.float32(len(parts) ** -0.5)
    landmarks = np.concatenate([part.vectors for part in parts], 1) * share  # (M, rows * D of all)
    span = coordinates((landmarks @ landmarks.T).astype(np.float64))
    z, basis = span.z, span.basis
    if len(chosen) < count:
        z, basis = _orthogonal(_all_coordinates(probe, clips, take, parts, landmarks, basis), basis)
    weights = _weights(probe, z, clips.targets, multi_label)
    dense = landmarks.T.astype(np.float64) @ (basis @ weights[:-1])  # (rows * D of all, K)
    middle = np.concatenate([part.middle for part in parts]) * share
    with torch.no_grad():
        probe.center.copy_(torch.from_numpy(np.stack([part.center for part in parts])))
        probe.gain.copy_(torch.from_numpy(np.stack([part.gain * share for part in parts])))
        probe.classify.weight.copy_(torch.from_numpy(dense.T))
        probe.classify.bias.copy_(torch.from_numpy(weights[-1] - middle @ dense))


def _weights(probe: Probe, z: np.ndarray, targets: np.ndarray, multi_label: bool) -> np.ndarray:
    """Weights (R + 1, K) for coordinates (N, R), the last row a bias."""
    sizes = len(z) * z.var(0, dtype=np.float64)
    if probe.squares:
        found = solve_squares(z, sizes, targets, probe.strength, multi_label)
        found[-1] -= 0.5
        return found * probe.squares
    weights = None
    for strength in (100 * probe.strength, 10 * probe.strength, probe.strength):
        weights = solve(z, sizes, targets.astype(np.float64), strength, multi_label, weights)
    assert weights is not None
    return weights


def _all_coordinates(
    probe: Probe, clips: Clips, take: Take, parts: Sequence[Scaled], landmarks: np.ndarray, basis: np.ndarray
) -> np.ndarray:
    """Coordinates (N, R) of all clips in the span of the landmarks; the statistics of a chunk are held at a time."""
    share = np.float32(len(parts) ** -0.5)
    there = (landmarks.T @ basis).astype(np.float32)  # (rows * D of all, R)
    z = np.empty((len(clips), basis.shape[1]), np.float32)
    for begin in range(0, len(clips), CHUNK):
        rows = range(begin, min(begin + CHUNK, len(clips)))
        own = [
            ((values - part.center) * part.gain).reshape(len(rows), -1) - part.middle
            for part, values in zip(parts, describe(probe, clips, take, rows), strict=True)
        ]
        z[begin : begin + len(rows)] = np.concatenate(own, 1) * share @ there
    return z


def _orthogonal(z: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, R) turned so that they are orthogonal over all clips, as the solvers need them, and their basis.

    Those of the landmarks are orthogonal over the landmarks alone.
    """
    center = z.mean(0, dtype=np.float64)
    turn = np.linalg.eigh((z.T @ z).astype(np.float64) - len(z) * np.outer(center, center))[1]
    return z @ turn.astype(z.dtype), basis @ turn


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
    for member in heads_of(head):
        probe = probe_of(member)
        if probe is None:
            left.append(member)
            continue
        take = member.take if isinstance(member, Part) else lambda x: x
        solve_probe_(probe, clips, multi_label, take)
    return left
