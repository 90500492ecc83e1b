"""Two classifiers on the same clips, class by class, with paired intervals over groups."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .bootstrap import Groups, group_indices, paired_bootstrap
from .classification import confusion_matrix, per_class

FIGURES = ("precision", "recall", "f1")
_BLOCK = 8_000_000  # numbers in memory at once


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
    groups, rng, made = len(counts), np.random.default_rng(seed), []
    block = max(1, _BLOCK // max(counts.shape[1], 1))
    for start in range(0, repeats, block):
        draws = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(block, repeats - start))  # (block, G)
        sums = (draws @ counts).reshape(len(draws), 2, 3, classes)  # A and B: hits, clips, named
        hits, clips, named = sums[:, :, 0], sums[:, :, 1], sums[:, :, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = np.stack([hits / named, hits / clips, 2 * hits / (named + clips)], axis=2)  # (block, 2, 3, K)
        made.append(figures[:, 0] - figures[:, 1])
    return np.concatenate(made)


def _plain(found: ClassDifference) -> Mapping[str, float | None]:
    a, b, difference, low, high = (None if np.isnan(value) else value for value in found)
    return {"model": a, "against": b, "difference": difference, "low": low, "high": high}
