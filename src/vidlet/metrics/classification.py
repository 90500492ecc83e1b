"""One label a clip: accuracy, top-k, the confusion matrix and what is read off it.

Scores are (N, K), labels are class indices (N,). All rates are fractions; a rate of no clips is NaN.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError


class PerClass(NamedTuple):
    """Figures of every class, each (K,). A rate whose denominator is zero is 0, as in scikit-learn."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]


class MacroAverage(NamedTuple):
    """Means over classes that all count the same."""

    precision: float
    recall: float
    f1: float


def checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores (N, K) as float64 and labels (N,) as integers.

    Raises:
        DataError: shapes that do not fit, a score that is not finite, or a label outside 0..K-1.
    """
    table, truth = np.asarray(scores, np.float64), np.asarray(labels)
    if table.ndim != 2 or truth.shape != table.shape[:1]:
        raise DataError(f"scores must be (N, K) with labels (N,), got {table.shape} and {truth.shape}")
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if bad.size:
        raise DataError(f"scores: row {bad[0]} holds a value that is not finite ({bad.size} such rows of {len(table)})")
    return table, _indices(truth, table.shape[1], "labels")


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of clips whose highest score is their label's; of equal scores the first class counts."""
    return top_k_accuracy(scores, labels, k=1)


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int = 5) -> float:
    """Fraction of clips whose label is among the k highest scores; 1.0 if there are no more than k classes.

    Equal scores rank in class order, so that exactly k classes are named and k = 1 is argmax. A model that gives
    every class the same score names the first k classes, and gains nothing by it.
    """
    table, truth = checked(scores, labels)
    if not len(truth):
        return float("nan")
    own = table[np.arange(len(truth)), truth][:, None]  # (N, 1)
    earlier = np.arange(table.shape[1]) < truth[:, None]  # (N, K)
    rank = ((table > own) | ((table == own) & earlier)).sum(axis=1)  # (N,)
    return float((rank < k).mean())


def confusion_matrix(predicted: ArrayLike, labels: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count clips by true class (rows) and predicted class (columns): (K, K)."""
    guess, truth = np.asarray(predicted), np.asarray(labels)
    if guess.ndim != 1 or guess.shape != truth.shape:
        raise DataError(f"predicted and labels must both be (N,), got {guess.shape} and {truth.shape}")
    cells = _indices(truth, classes, "labels") * classes + _indices(guess, classes, "predicted")
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class(confusion: ArrayLike) -> PerClass:
    """Precision, recall, F1 and support of every class of a confusion matrix (K, K) with true classes as rows."""
    matrix = np.asarray(confusion)
    hits, support, named = np.diagonal(matrix).astype(np.float64), matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(_ratio(hits, named), _ratio(hits, support), _ratio(2 * hits, named + support), support)


def macro_average(confusion: ArrayLike) -> MacroAverage:
    """Unweighted means over the classes that occur among the labels or the predictions (as scikit-learn's "macro").

    A class that has no clip and is never predicted says nothing and does not count; no clips at all: NaN.
    """
    matrix = np.asarray(confusion)
    seen = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    if not seen.any():
        return MacroAverage(float("nan"), float("nan"), float("nan"))
    figures = per_class(matrix)
    return MacroAverage(*(float(values[seen].mean()) for values in figures[:3]))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _indices(values: NDArray[Any], classes: int, what: str) -> NDArray[np.int64]:
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{what} must be class indices, got {values.dtype}")
    outside = np.flatnonzero((values < 0) | (values >= classes)) if values.size else np.empty(0, np.int64)
    if outside.size:
        raise DataError(f"{what}: {values[outside[0]]} at row {outside[0]} is outside 0..{classes - 1}")
    return values.astype(np.int64)


def doubts(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """How much each label is doubted, (N,) from -1 to 1: the best other class's probability less the label's own.

    The margin of confident learning (Northcutt et al. 2021, arXiv:1911.00068), by models that have not seen the clip.

    Args:
        probabilities: (N, K); NaN rows are of clips that nobody was asked about: their doubt is NaN.
        labels: (N,) as indices.
    """
    table, own = np.array(probabilities, np.float64), np.asarray(labels, np.int64)
    rows = np.arange(len(own))
    given = table[rows, own].copy()
    table[rows, own] = -np.inf
    result: NDArray[np.float64] = table.max(1) - given
    return result
