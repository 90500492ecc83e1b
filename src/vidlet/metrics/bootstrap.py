"""Intervals by resampling groups: clips of one person or scene are not independent, so whole groups are drawn.

Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8 (hierarchical data).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

Groups = Sequence[str | None] | NDArray[np.generic] | None

_BLOCK = 4_000_000  # draws held in memory at once


class Difference(NamedTuple):
    """Mean of A minus mean of B, with its interval; one that holds 0 shows no difference."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    correct: ArrayLike, groups: Groups, seed: int = 0, repeats: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of ``correct`` (N,) (booleans, or any figure a clip), resampling groups.

    A clip whose group is None or "" is a group of its own; ``groups=None``: all are. The order of the clips does not
    matter. A single group leaves nothing to resample: low = high = the mean, which says that the interval is unknown,
    not that it is small. No clips: NaN.
    """
    means = _resampled_means(np.asarray(correct, np.float64), groups, seed, repeats)
    if not means.size:
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    groups: Groups,
    *,
    seed: int = 0,
    repeats: int = 2000,
    level: float = 0.95,
) -> Difference:
    """A minus B on the same clips, both (N,): resampling keeps the pairs, so what the clips share cancels."""
    a, b = np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)
    if a.shape != b.shape:
        raise DataError(f"pairs need the same clips, got {a.shape} and {b.shape}")
    mean = float((a - b).mean()) if a.size else float("nan")
    return Difference(mean, *bootstrap_interval(a - b, groups, seed, repeats, level))


def _resampled_means(values: NDArray[np.float64], groups: Groups, seed: int, repeats: int) -> NDArray[np.float64]:
    """Mean of the clips of G groups drawn with replacement, ``repeats`` times: (repeats,), or (0,) without clips.

    Groups with the same number of clips and the same sum are interchangeable, so that what is drawn is how often each
    of the U kinds occurs; the order of clips cannot matter, and many single clips cost no more than two groups.
    """
    if not values.size:
        return np.empty(0)
    member = _group_indices(groups, len(values))
    clips, sums = np.bincount(member).astype(np.float64), np.bincount(member, values)
    kinds, count = np.unique(np.stack([clips, sums], axis=1), axis=0, return_counts=True)  # (U, 2), (U,)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(kinds))
    means = []
    for start in range(0, repeats, block):
        draws = rng.multinomial(len(clips), count / len(clips), size=min(block, repeats - start))  # (block, U)
        drawn_clips, drawn_sum = (draws @ kinds).T
        means.append(drawn_sum / drawn_clips)
    return np.concatenate(means)


def _group_indices(groups: Groups, clips: int) -> NDArray[np.int64]:
    """Index of every clip's group, counted in order of appearance: (N,)."""
    if groups is None:
        return np.arange(clips)
    if len(groups) != clips:
        raise DataError(f"{clips} clips need {clips} groups, got {len(groups)}")
    known: dict[object, int] = {}
    keys = ((i,) if group is None or group == "" else group for i, group in enumerate(groups))
    return np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64, clips)
