"""Clips as padded batches: from stored features or from decoded frames, augmented, the same for the same epoch."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import TrainingError, VidletError
from ..video import read_many
from .augment import mix, read_between, redrawn, time_positions, transform_frames, without_turns
from .team import ALONE, Team

WORKERS = min(8, max(2, (os.cpu_count() or 2) // 2))  # threads that decode and augment


@dataclass(frozen=True)
class Batch:
    """x (B, T, ...), padded at the end; mask (B, T), True on real frames; y (B, K), target probabilities.

    ``answers`` (B, K): the probabilities of a teacher that was asked before (taught.py). ``there``: which of the B
    clips x and mask hold, where several processes share a batch (team.py); None: all.
    """

    x: Tensor
    mask: Tensor
    y: Tensor
    names: tuple[str, ...]
    answers: Tensor | None = None
    there: tuple[int, ...] | None = None

    def clips(self, rows: slice | Sequence[int]) -> tuple[Tensor, Tensor]:
        """x and mask of some of the clips, without what is padding in all of them."""
        if self.there is not None:
            rows = [self.there.index(row) for row in (range(len(self.y))[rows] if isinstance(rows, slice) else rows)]
        mask = self.mask[rows]
        frames = int(mask.sum(1).max())
        return self.x[rows, :frames], mask[:, :frames]


@dataclass(frozen=True)
class Draw:
    """Which items come in which batches, and how they are changed: all of an epoch that is drawn.

    Attributes:
        size: items of a batch.
        order: the items, by number.
        amounts: of augmentations; None: the items as they are.
        seed: fixes every draw.
        least: items of the smallest batch (``batch_slices``).
        team: what is dear to read is read only where it is one of its items of a batch.
    """

    size: int
    order: Sequence[int]
    amounts: Mapping[str, float] | None = None
    seed: Sequence[int] = (0,)
    least: int = 1
    team: Team = ALONE

    def parts(self) -> list[slice]:
        """The batches as slices of the order."""
        return batch_slices(len(self.order), self.size, self.least)


class Clips(Protocol):
    """Labelled clips that give batches."""

    @property
    def targets(self) -> np.ndarray:
        """(N, K) float32."""
        ...

    def __len__(self) -> int: ...

    def batches(self, draw: Draw) -> Iterator[Batch]:
        """The clips of a draw in batches."""
        ...


def batch_slices(count: int, size: int, least: int = 1) -> list[slice]:
    """Slices of ``size`` out of ``count``, in order; the last one is what is left.

    Where that is fewer than ``least`` (batch normalization has nothing to normalize by in one clip), the one before
    gives of its own or takes it in. Only a ``count`` below ``least`` is a slice of fewer.
    """
    size = max(size, least)
    edges = [*range(0, count, size), count]
    missing = least - (count - edges[-2]) if count else 0
    if missing > 0 and len(edges) > 2:
        if size - missing >= least:
            edges[-2] -= missing
        else:
            del edges[-2]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


class FeatureClips:
    """Clips as stored features.

    Args:
        read: index -> features (T, *shape).
        targets: (N, K) target probabilities.
        names: of the clips, for messages.
        spread: deviation of each channel, shape (*shape[:1],), the unit of the augmentation "noise".
        one_way: bool (N,), True for a clip that is never mirrored or reversed; None: there is none.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        targets: np.ndarray,
        names: Sequence[str],
        spread: np.ndarray,
        max_frames: int = 256,
        one_way: np.ndarray | None = None,
    ) -> None:
        self.read, self.targets, self.names, self.spread, self.max_frames = read, targets, names, spread, max_frames
        self.one_way = one_way

    def __len__(self) -> int:
        return len(self.targets)

    def reading(self, read: Callable[[int], np.ndarray]) -> FeatureClips:
        """The same clips with other features: ``read`` gives them by index."""
        changed = copy.copy(self)
        changed.read = read
        return changed

    def some(self, rows: np.ndarray) -> FeatureClips:
        """Some of the clips, in this order."""
        read, one_way = self.read, self.one_way[rows] if self.one_way is not None else None
        names = [self.names[row] for row in rows]
        return FeatureClips(
            lambda i: read(int(rows[i])), self.targets[rows], names, self.spread, self.max_frames, one_way
        )

    def with_targets(self, change: Callable[[Any], Any]) -> FeatureClips:
        """The same clips with other targets: ``change`` gets ours, (N, K), and gives what has rows like them."""
        changed = copy.copy(self)
        changed.targets = change(self.targets)
        return changed

    def batches(self, draw: Draw) -> Iterator[Batch]:
        """See Clips.batches."""
        for rows in draw.parts():
            chosen = list(draw.order[rows])
            rng = np.random.default_rng([*draw.seed, rows.start])
            x, mask = _pad([self._clip(i, draw.amounts, rng) for i in chosen])
            y = torch.from_numpy(self.targets[chosen])
            if draw.amounts and draw.amounts.get("mixup"):
                x, mask, y = mix(x, mask, y, draw.amounts["mixup"], rng)
            yield Batch(x, mask, y, tuple(self.names[i] for i in chosen))

    def _clip(self, index: int, amounts: Mapping[str, float] | None, rng: np.random.Generator) -> np.ndarray:
        features = self.read(index)
        if amounts is None:
            return features.astype(np.float32)
        if self.one_way is not None and self.one_way[index]:
            amounts = without_turns(amounts)
        features = _window(redrawn(features, amounts, rng), self.max_frames, rng)
        features = read_between(features, time_positions(len(features), amounts, rng)).astype(np.float32)
        if noise := amounts.get("noise", 0.0):
            spread = self.spread.reshape(-1, *([1] * (features.ndim - 2))) if features.ndim > 2 else self.spread
            features += rng.standard_normal(features.shape, np.float32) * (noise * spread).astype(np.float32)
        return features


class FrameClips:
    """Clips as frames, read and augmented by threads while the network works.

    Args:
        read: index -> frames uint8 (T, H, W, 3), from memory or decoded anew.
        targets, names, max_frames, one_way: as in FeatureClips.
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        targets: np.ndarray,
        names: Sequence[str],
        max_frames: int = 32,
        one_way: np.ndarray | None = None,
    ) -> None:
        self.read, self.targets, self.names, self.max_frames = read, targets, names, max_frames
        self.one_way = one_way

    def __len__(self) -> int:
        return len(self.targets)

    def some(self, rows: np.ndarray) -> FrameClips:
        """Some of the clips, in this order."""
        read, one_way = self.read, self.one_way[rows] if self.one_way is not None else None
        names = [self.names[row] for row in rows]
        return FrameClips(lambda i: read(int(rows[i])), self.targets[rows], names, self.max_frames, one_way)

    def turned(self, turns: Sequence[tuple[bool, bool]]) -> FrameClips:
        """The same clips, each mirrored or not, and played backwards or not."""
        read = self.read

        def frames(index: int) -> np.ndarray:
            mirrored, back = turns[index]
            return read(index)[:: -1 if back else 1, :, :: -1 if mirrored else 1]

        changed = copy.copy(self)
        changed.read = frames
        return changed

    def with_targets(self, change: Callable[[Any], Any]) -> FrameClips:
        """See FeatureClips.with_targets."""
        changed = copy.copy(self)
        changed.targets = change(self.targets)
        return changed

    def batches(self, draw: Draw) -> Iterator[Batch]:
        """See Clips.batches. x is float (B, T, 3, H, W), 0..255."""
        dealt = [(list(draw.order[rows]), draw.team.items(rows.stop - rows.start)) for rows in draw.parts()]

        def prepare(index: int) -> Tensor:
            return self._clip(index, draw.amounts, np.random.default_rng([*draw.seed, index]))

        wanted = [chosen[row] for chosen, there in dealt for row in there]
        read = read_many(wanted, prepare, workers=WORKERS, ahead=2 * draw.size)
        for chosen, there in dealt:
            clips: list[Tensor] = []
            for _, clip in itertools.islice(read, len(there)):
                if isinstance(clip, VidletError):
                    raise TrainingError(f"a clip became unreadable during training: {clip}")
                clips.append(clip)
            yield self._batch(clips, chosen, None if draw.team.size == 1 else tuple(there))

    def _batch(self, clips: list[Tensor], chosen: list[int], there: tuple[int, ...] | None) -> Batch:
        longest = max(len(c) for c in clips)
        x = clips[0].new_zeros(len(clips), longest, *clips[0].shape[1:])
        mask = torch.zeros(len(clips), longest, dtype=torch.bool)
        for row, clip in enumerate(clips):
            x[row, : len(clip)] = clip
            mask[row, : len(clip)] = True
        y = torch.from_numpy(self.targets[chosen])
        return Batch(x, mask, y, tuple(self.names[i] for i in chosen), there=there)

    def _clip(self, index: int, amounts: Mapping[str, float] | None, rng: np.random.Generator) -> Tensor:
        frames = self.read(index)
        if amounts is not None:
            if self.one_way is not None and self.one_way[index]:
                amounts = without_turns(amounts)
            frames = _window(redrawn(frames, amounts, rng), self.max_frames, rng)
            frames = frames[np.round(time_positions(len(frames), amounts, rng)).astype(int)]
        clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()  # (T, 3, H, W)
        return clip if amounts is None else transform_frames(clip, amounts, rng)


def _window(clip: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of at most ``most`` frames."""
    begin = int(rng.integers(0, max(1, len(clip) - most + 1)))
    return clip[begin : begin + most]


def _pad(clips: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    longest = max(len(c) for c in clips)
    x = np.zeros((len(clips), longest, *clips[0].shape[1:]), np.float32)
    mask = np.zeros((len(clips), longest), bool)
    for row, clip in enumerate(clips):
        x[row, : len(clip)] = clip
        mask[row, : len(clip)] = True
    return torch.from_numpy(x), torch.from_numpy(mask)
