"""Intervals by resampling groups: clips of one person or scene are not independent, so whole groups are drawn.

Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8 (hierarchical data).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .classification import confusion_matrix, per_class

Groups = Sequence[str | None] | NDArray[np.generic] | None

_BLOCK = 4_000_000  # numbers held in memory at once


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
    means = []
    for draws in _draws(len(clips), count / len(clips), len(kinds), seed, repeats):  # (block, U)
        drawn_clips, drawn_sum = (draws @ kinds).T
        means.append(drawn_sum / drawn_clips)
    return np.concatenate(means)


def _draws(count: int, shares: NDArray[np.float64], width: int, seed: int, repeats: int) -> Iterator[NDArray[np.int64]]:
    """How often each is drawn in ``count`` draws, ``repeats`` times, in blocks of which ``width`` numbers a row fit."""
    rng, block = np.random.default_rng(seed), max(1, _BLOCK // max(width, 1))
    for start in range(0, repeats, block):
        yield rng.multinomial(count, shares, size=min(block, repeats - start))


def group_indices(groups: Groups, clips: int) -> NDArray[np.int64]:
    """Index of every clip's group, counted in order of appearance: (N,)."""
    if groups is None:
        return np.arange(clips)
    if len(groups) != clips:
        raise DataError(f"{clips} clips need {clips} groups, got {len(groups)}")
    known: dict[object, int] = {}
    keys = ((i,) if group is None or group == "" else group for i, group in enumerate(groups))
    return np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64, clips)


# Two classifiers on the same clips, class by class, with paired intervals over groups.
FIGURES = ("precision", "recall", "f1")


class ClassDifference(NamedTuple):
    """A figure of one class: of A, of B, A minus B, and the interval of the difference (NaN where it is unknown)."""

    a: float
    b: float
    difference: float
    low: float
    high: float


def compare_classes(
    predicted_a: ArrayLike,
    predicted_b: ArrayLike,
    labels: ArrayLike,
    groups: Groups,
    names: Sequence[str],
    *,
    seed: int = 0,
    repeats: int = 1000,
    level: float = 0.95,
) -> dict[str, dict[str, ClassDifference]]:
    """Precision, recall and F1 of every class, A against B: {name: {figure: ClassDifference}}.

    Predictions and labels are class indices (N,). Whole groups are resampled, the same for both, so that what the
    clips share cancels. A resample in which a figure of either is 0/0 says nothing of it; with fewer than two groups
    nothing can be resampled, and low and high are unknown.
    """
    truth, a, b = (np.asarray(values) for values in (labels, predicted_a, predicted_b))
    classes = len(names)
    points = [per_class(confusion_matrix(guess, truth, classes)) for guess in (a, b)]
    member = group_indices(groups, len(truth))
    counts = np.concatenate([_counts(guess, truth, member, classes) for guess in (a, b)], axis=1)  # (G, 2 * 3 K)
    drawn = _drawn_differences(counts, classes, seed, repeats)  # (R, 3, K)
    found: dict[str, dict[str, ClassDifference]] = {}
    for k, name in enumerate(names):
        row = {}
        for i, figure in enumerate(FIGURES):
            one, other = (float(getattr(point, figure)[k]) for point in points)
            values = drawn[:, i, k]
            known = values[np.isfinite(values)] if len(counts) > 1 else values[:0]
            low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if known.size else (np.nan, np.nan)
            row[figure] = ClassDifference(one, other, one - other, float(low), float(high))
        found[name] = row
    return found


def comparison_summary(
    scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, groups: Groups, names: Sequence[str]
) -> dict[str, Any]:
    """What is said of A beside B, as one JSON-able dict, from scores (N, K) of both on the same clips.

    Keys: ``difference`` {mean, low, high} of accuracy (A minus B, 95 %, paired over groups; of one group low and high
    are None), ``both``, ``only``,
    ``only_against``, ``neither`` (clips that A and B, A alone, B alone, none names rightly), ``agree`` (share of the
    clips on which they say the same), ``per_class`` {name: {figure: {model, against, difference, low, high}}}.

    Raises:
        DataError: scores of different shapes, or no clips.
    """
    a, b, truth = np.asarray(scores_a), np.asarray(scores_b), np.asarray(labels)
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise DataError(f"pairs need scores (N, K) of the same clips and classes, got {a.shape} and {b.shape}")
    guess_a, guess_b = a.argmax(1), b.argmax(1)
    right_a, right_b = guess_a == truth, guess_b == truth
    return {
        "difference": paired_bootstrap(right_a, right_b, groups)._asdict(),
        "both": int((right_a & right_b).sum()),
        "only": int((right_a & ~right_b).sum()),
        "only_against": int((right_b & ~right_a).sum()),
        "neither": int((~right_a & ~right_b).sum()),
        "agree": float((guess_a == guess_b).mean()),
        "per_class": {
            name: {figure: _plain(row[figure]) for figure in FIGURES}
            for name, row in compare_classes(guess_a, guess_b, truth, groups, names).items()
        },
    }


def _counts(guess: NDArray[Any], truth: NDArray[Any], member: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Of each group (G, 3 K): clips of a class named rightly, clips of it, clips given its name."""
    hits = np.where(guess == truth, truth, classes)
    columns = [_table(member, which, classes) for which in (hits, truth, guess)]
    return np.concatenate(columns, axis=1)


def _table(member: NDArray[np.int64], which: NDArray[Any], classes: int) -> NDArray[np.float64]:
    rows = int(member.max()) + 1 if len(member) else 0
    cells = np.bincount(member * (classes + 1) + which, minlength=rows * (classes + 1)).astype(np.float64)
    return cells.reshape(rows, classes + 1)[:, :classes]


def _drawn_differences(counts: NDArray[np.float64], classes: int, seed: int, repeats: int) -> NDArray[np.float64]:
    """Differences A minus B of (precision, recall, F1) in every resample: (R, 3, K); NaN is 0/0."""
    groups, made = len(counts), []
    for draws in _draws(groups, np.full(groups, 1 / groups), counts.shape[1], seed, repeats):  # (block, G)
        sums = (draws @ counts).reshape(len(draws), 2, 3, classes)  # A and B: hits, clips, named
        hits, clips, named = sums[:, :, 0], sums[:, :, 1], sums[:, :, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = np.stack([hits / named, hits / clips, 2 * hits / (named + clips)], axis=2)  # (block, 2, 3, K)
        made.append(figures[:, 0] - figures[:, 1])
    return np.concatenate(made)


def _plain(found: ClassDifference) -> Mapping[str, float | None]:
    a, b, difference, low, high = (None if np.isnan(value) else value for value in found)
    return {"model": a, "against": b, "difference": difference, "low": low, "high": high}
