"""Heads that are solved instead of trained: probes, and blends of heads of which some are probes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from tempfile import TemporaryFile
from typing import IO, cast

import numpy as np
import torch

from ..files import cache_folder
from ..models.ensemble import Part, heads_of
from ..models.head import Head
from ..models.probe import Probe
from ..progress import working
from .batches import Clips, Draw
from .linear import Coordinates, coordinates, evened, solve_with_ones

Take = Callable[[torch.Tensor], torch.Tensor]  # features (B, T, ...) -> the part of them that a head sees

LANDMARKS = 4000  # clips whose span holds the solution, where there are more of them; of fewer where
KEPT = 1e8  # numbers would be more: those of the landmarks' statistics, and their products with all clips
LEAST_LANDMARKS = 200
ENOUGH = 1.5  # landmarks a number: so many clips span all that the numbers can say
CHUNK = 256  # clips described at once, where not all of them are kept
COPIED = 4e6  # numbers that are worked on at once, where a copy of all would be as large as they are
ASIDE = 4e7  # bytes, from which on what is not needed just then lies on disk
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
    return scaled_(values.copy(), whiten)


def scaled_(values: np.ndarray, whiten: float = 1.0) -> Scaled:
    """As ``scaled``, in place: ``values`` (N, rows, D) become the vectors, and no copy of them is made.

    Means and deviations are of blocks of columns, lengths of blocks of clips: the sums are the same, to the bit.
    """
    blocks = _blocks(values.shape[2], values.shape[0] * values.shape[1])
    center = np.concatenate([values[..., own].mean((0, 1)) for own in blocks])
    spread = np.concatenate([values[..., own].std((0, 1)) for own in blocks])
    gain = np.where(spread > _CONSTANT, np.maximum(spread, _CONSTANT) ** -whiten, 0).astype(np.float32)
    values -= center
    values *= gain
    vectors = values.reshape(len(values), -1)
    assert np.shares_memory(vectors, values)
    middle = vectors.mean(0)
    vectors -= middle
    squares = [np.square(vectors[i : i + CHUNK]).sum(1) for i in range(0, len(vectors), CHUNK)]
    length = float(np.sqrt(np.concatenate(squares).mean())) or 1.0
    vectors /= length
    return Scaled(vectors, center, gain / length, middle / length)


def _blocks(count: int, rows: int) -> list[slice]:
    """So many columns of so many rows in blocks; none of a single column, whose sum would have another order."""
    width = max(2, int(COPIED / rows))
    edges = np.linspace(0, count, max(1, count // width) + 1).astype(int).tolist()
    return [slice(begin, end) for begin, end in pairwise(edges)]


@torch.no_grad()
def describe(
    probe: Probe, clips: Clips, take: Take = lambda x: x, rows: Sequence[int] | None = None
) -> list[np.ndarray]:
    """The statistics of clips as they are, (N, rows, D) each; ``take`` gives the probe's part of their features.

    Args:
        rows: which of the clips; None: all.
    """
    count = len(clips) if rows is None else len(rows)
    found = [np.empty((count, own, probe.seen), np.float32) for own in probe.rows]
    _describe_into_(found, probe, clips, take, range(count) if rows is None else rows)
    return found


@torch.no_grad()
def _describe_into_(found: Sequence[np.ndarray], probe: Probe, clips: Clips, take: Take, rows: Sequence[int]) -> None:
    """Put the statistics of clips into ``found``, (N, rows, D) each."""
    for place, batch in enumerate(clips.batches(Draw(1, rows))):
        for own, value in zip(found, probe.describe(take(batch.x)), strict=True):
            own[place] = value[0].numpy()


def _side_by_side(probe: Probe, clips: Clips, take: Take, rows: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The statistics of clips side by side, (N, P), and each of them as a view of that, (N, rows, D)."""
    whole = np.empty((len(rows), sum(probe.rows) * probe.seen), np.float32)
    edges = np.cumsum([0, *probe.rows]) * probe.seen
    parts = [
        whole[:, begin:end].reshape(len(rows), own, probe.seen)
        for (begin, end), own in zip(pairwise(edges.tolist()), probe.rows, strict=True)
    ]
    _describe_into_(parts, probe, clips, take, rows)
    return whole, parts


Scale = tuple[np.ndarray, np.ndarray, np.ndarray]


class Ground:
    """Where a probe's solution is sought: each statistic's scale, and the directions of its numbers.

    P is how many numbers the classifier sees, R how many directions. Of the landmarks' numbers and the directions,
    which are as many, one is held at a time: the second takes the place of the first.

    Args:
        scales: center, gain and middle of each statistic (``Scaled``).
        landmarks: (M, P) their numbers, scaled.
        span: their coordinates, (M, R).
        whole: the landmarks are all clips.
    """

    def __init__(self, scales: Sequence[Scale], landmarks: np.ndarray, span: Coordinates, whole: bool) -> None:
        self.centers, self.gains, self.middles = ([scale[i] for scale in scales] for i in range(3))
        self.size, self.whole = span.z.shape[1], whole  # R
        self.z = span.z if whole else None
        self._basis: np.ndarray | None = span.basis
        self._landmarks: np.ndarray | None = landmarks
        self._there: np.ndarray | None = None  # (R, P)
        self._aside: _Aside | None = None

    @property
    def share(self) -> np.float32:
        """By which each of several statistics is multiplied."""
        return np.float32(len(self.centers) ** -0.5)

    def of_clips(self, probe: Probe, clips: Clips, take: Take) -> Iterator[tuple[range, np.ndarray]]:
        """Coordinates of clips, chunk by chunk: which of the clips, (n, R)."""
        there = self._directions()
        for begin in range(0, len(clips), CHUNK):
            rows = range(begin, min(begin + CHUNK, len(clips)))
            whole, parts = _side_by_side(probe, clips, take, rows)
            for own, center, gain in zip(parts, self.centers, self.gains, strict=True):
                np.subtract(own, center, out=own)
                np.multiply(own, gain, out=own)
            whole -= np.concatenate(self.middles)
            whole *= self.share
            yield rows, whole @ there.T

    def _directions(self) -> np.ndarray:
        """The directions (R, P) float32, in the place where the landmarks were."""
        if self._aside is not None:
            self._there, self._aside = self._aside.back(), None
        if self._there is None:
            there, basis = self._landmarks, self._basis
            assert there is not None
            assert basis is not None
            self._landmarks = self._basis = None
            for own in _blocks(there.shape[1], len(there)):
                there[: self.size, own] = (there[:, own].T @ basis).T
            self._there = there[: self.size]
        return self._there

    def put_aside(self) -> None:
        """Where directions are many, keep them on disk until they are asked for: other work needs their memory."""
        if self._there is not None and self._there.nbytes > ASIDE:
            self._aside, self._there = _Aside(self._there), None

    def _dense(self, weights: np.ndarray) -> np.ndarray:
        """Weights (P, K) of the numbers, from weights (R, K) of the coordinates."""
        if self._landmarks is not None and self._basis is not None:  # directions times weights, without the directions
            numbers, turned = self._landmarks, self._basis @ weights
        else:
            numbers, turned = self._directions(), weights
        blocks = _blocks(numbers.shape[1], len(numbers))
        return np.concatenate([numbers[:, own].T.astype(np.float64) @ turned for own in blocks])

    def put_into_(self, probe: Probe, weights: np.ndarray) -> None:
        """Set a probe's scales and its classifier by weights (R + 1, K) of the coordinates, the last row a bias."""
        dense = self._dense(weights[:-1])
        middle = np.concatenate(self.middles) * self.share
        with torch.no_grad():
            probe.center.copy_(torch.from_numpy(np.stack(self.centers)))
            probe.gain.copy_(torch.from_numpy(np.stack([gain * self.share for gain in self.gains])))
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
    landmarks, values = _side_by_side(probe, clips, take, chosen.tolist())
    scales = []
    while values:
        own = scaled_(values.pop(0), probe.whiten)
        scales.append((own.center, own.gain, own.middle))
        del own  # a view of the landmarks
    landmarks *= np.float32(len(scales) ** -0.5)
    products = (landmarks @ landmarks.T).astype(np.float64)
    if landmarks.nbytes > ASIDE:
        aside = _Aside(landmarks)
        del landmarks
        span = coordinates(products)
        landmarks = aside.back()
    else:
        span = coordinates(products)
    return Ground(scales, landmarks, span, len(chosen) == count)


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
    turn = weights = None
    if ground.z is not None:
        x = np.concatenate([ground.z, np.ones((len(clips), 1))], 1)
    else:
        x, turn = _orthogonal(ground, probe, clips, take)
    z = x[:, :-1]
    sizes = np.concatenate([len(z) * z[:, own].var(0, dtype=np.float64) for own in _blocks(z.shape[1], len(z))])
    for strength in strengths:
        weights = solve_with_ones(x, sizes, clips.targets, strength, multi_label, weights)
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
    size, classes = ground.size, clips.targets.shape[1]
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


def _orthogonal(ground: Ground, probe: Probe, clips: Clips, take: Take) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of clips with a column of ones, (N, R + 1) float32, orthogonal over all clips, and the turn (R, R).

    Those of the landmarks are orthogonal over the landmarks alone, and the solvers need such. There are at most
    ``KEPT`` numbers; they lie on disk while directions, or what their turn takes, are in memory.
    """
    count, size = len(clips), ground.size
    with _scratch(4 * count * size) as kept:
        for _, own in ground.of_clips(probe, clips, take):
            kept.write(own.tobytes())
        ground.put_aside()
        kept.seek(0)
        turn = np.linalg.eigh(_covered(np.frombuffer(kept.read(), np.float32).reshape(count, size)))[1]
        x, own = np.ones((count, size + 1), np.float32), turn.astype(np.float32)
        kept.seek(0)
        for begin in range(0, count, CHUNK):
            part = np.frombuffer(kept.read(4 * CHUNK * size), np.float32).reshape(-1, size)
            x[begin : begin + CHUNK, :-1] = part @ own
    return x, turn


def _covered(z: np.ndarray) -> np.ndarray:
    """The products (R, R) of centered coordinates (N, R)."""
    center = z.mean(0, dtype=np.float64)
    found: np.ndarray = (z.T @ z).astype(np.float64)
    found -= len(z) * np.outer(center, center)
    return found


class _Aside:
    """An array that lies on disk until it is asked for; where the disk has no room it stays in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self._values: np.ndarray | None = None
        self._file = _scratch(values.nbytes)
        try:
            np.save(self._file, values, allow_pickle=False)
        except OSError:
            self._file.close()
            self._values = values

    def back(self) -> np.ndarray:
        """The array; the file is gone then."""
        if self._values is not None:
            return self._values
        with self._file as file:
            file.seek(0)
            found: np.ndarray = np.load(file, allow_pickle=False)
        return found

    def __del__(self) -> None:
        self._file.close()


def _scratch(size: int) -> IO[bytes]:
    """A file without a name for so many bytes; in memory where they are few or the disk has no room for them."""
    folder = cache_folder("scratch")
    if size > ASIDE:
        with contextlib.suppress(OSError):  # it may be read only
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free > 2 * size:
                return cast(IO[bytes], TemporaryFile(dir=folder))
    return BytesIO()


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
