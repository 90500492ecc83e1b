"""Intervals by resampling groups: clips of one person or scene are not independent, so whole groups are drawn.

Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8 (hierarchical data).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

Groups = Sequence[str | None] | NDArray[np.generic] | None

_BLOCK = 4_000_000  # draws held in memory at once


class Difference(NamedTuple):
    """Mean of A minus mean of B, with its interval; one that holds 0 shows no difference.

    None: what is scored is of fewer than two groups, so that nothing can be resampled and the interval is unknown.
    """

    mean: float
    low: float | None
    high: float | None


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


class Interval(NamedTuple):
    """Where a rate lies, and by which rule that was found: "bootstrap over groups", "Wilson", "Wilson over groups"."""

    low: float
    high: float
    rule: str


def rate_interval(right: ArrayLike, groups: Groups, level: float = 0.95) -> Interval:
    """An interval of the share of ``right`` (N,) booleans that holds at 0 and 1, too, and says how it was found.

    Clips that are each a group of their own: Wilson's interval, which knows that 12 of 12 may be 76 %. Groups: the
    bootstrap, unless all have the same share (all clips are right, say, or there is one group): then resampling shows
    nothing, and Wilson's interval counts a group as one clip. No clips: NaN.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    values = np.asarray(right, np.float64)
    if not values.size:
        return Interval(float("nan"), float("nan"), "")
    member = group_indices(groups, len(values))
    clips, sums = np.bincount(member), np.bincount(member, values)
    if len(clips) == len(values):
        return Interval(*wilson_interval(values.mean(), len(values), level), "Wilson")
    if np.ptp(sums / clips) == 0:
        return Interval(*wilson_interval(values.mean(), len(clips), level), "Wilson over groups")
    return Interval(*bootstrap_interval(values, groups, level=level), "bootstrap over groups")


def wilson_interval(rate: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate that was seen in ``count`` independent trials."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    center = (rate + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, min(rate, center - reach)), min(1.0, max(rate, center + reach))


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
    if len(set(group_indices(groups, a.size).tolist())) < 2:
        return Difference(mean, None, None)
    return Difference(mean, *bootstrap_interval(a - b, groups, seed, repeats, level))


def _resampled_means(values: NDArray[np.float64], groups: Groups, seed: int, repeats: int) -> NDArray[np.float64]:
    """Mean of the clips of G groups drawn with replacement, ``repeats`` times: (repeats,), or (0,) without clips.

    Groups with the same number of clips and the same sum are interchangeable, so that what is drawn is how often each
    of the U kinds occurs; the order of clips cannot matter, and many single clips cost no more than two groups.
    """
    if not values.size:
        return np.empty(0)
    member = group_indices(groups, len(values))
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


def group_indices(groups: Groups, clips: int) -> NDArray[np.int64]:
    """Index of every clip's group, counted in order of appearance: (N,)."""
    if groups is None:
        return np.arange(clips)
    if len(groups) != clips:
        raise DataError(f"{clips} clips need {clips} groups, got {len(groups)}")
    known: dict[object, int] = {}
    keys = ((i,) if group is None or group == "" else group for i, group in enumerate(groups))
    return np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64, clips)
