"""Everything that is said of a classifier with one label a clip, as one JSON-able dict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .bootstrap import Groups, rate_interval
from .calibration import expected_calibration_error, negative_log_likelihood
from .classification import accuracy, checked, confusion_matrix, macro_average, per_class, top_k_accuracy
from .multilabel import MultiLabelScores, highest


def percentiles_ms(times_s: ArrayLike, percentiles: Sequence[int] = (50, 95)) -> dict[str, float]:
    """Percentiles, in milliseconds, of times in seconds: {"p50": ..., "p95": ...}, linear between neighbors."""
    times = np.asarray(times_s, np.float64)
    if not times.size:
        raise DataError("no times to summarize: nothing was measured")
    return {f"p{p}": float(ms) for p, ms in zip(percentiles, np.percentile(times * 1e3, percentiles), strict=True)}


def classification_summary(
    scores: ArrayLike, labels: ArrayLike, groups: Groups, names: Sequence[str]
) -> dict[str, Any]:
    """Figures of scores (N, K) against labels (N,), with an interval over groups (N,); names are the K classes.

    Keys: clips, accuracy, accuracy_interval [low, high] (95 %), accuracy_interval_rule (see ``rate_interval``), top5,
    macro_f1, macro_precision, macro_recall, per_class {name: {precision, recall, f1, support}}, confusion (rows: true
    classes), ece, nll. Rates are fractions; top5 is 1.0 with five classes or fewer; without clips what has no value is
    None.
    """
    table, truth = checked(scores, labels)
    if table.shape[1] != len(names):
        raise DataError(f"scores of {table.shape[1]} classes do not fit {len(names)} names")
    guess = table.argmax(axis=1) if len(truth) else truth
    confusion = confusion_matrix(guess, truth, len(names))
    macro, figures = macro_average(confusion), per_class(confusion)
    columns = zip(names, *(values.tolist() for values in figures), strict=True)
    return {
        "clips": len(truth),
        "accuracy": _known(accuracy(table, truth)),
        **_accuracy_interval(guess == truth, groups),
        "top5": _known(top_k_accuracy(table, truth, k=5)),
        "macro_f1": _known(macro.f1),
        "macro_precision": _known(macro.precision),
        "macro_recall": _known(macro.recall),
        "per_class": {
            name: {"precision": precision, "recall": recall, "f1": f1, "support": support}
            for name, precision, recall, f1, support in columns
        },
        "confusion": confusion.tolist(),
        "ece": _known(expected_calibration_error(table, truth)),
        "nll": _known(negative_log_likelihood(table, truth)),
    }


def many_labels_summary(scores: ArrayLike, truth: ArrayLike, groups: Groups, names: Sequence[str]) -> dict[str, Any]:
    """Figures of scores (N, K) against labels (N, K), 0 or 1, of clips that may have many.

    Keys: clips, gap20, hit1, perr, map; accuracy (Hit@1 again) with accuracy_interval over groups and its rule; top5,
    the share of clips with a label among their five highest scores; macro_precision, macro_recall, macro_f1 and
    per_class at the threshold 0.5, per_class with "ap", the average precision among the 20 highest scores of each clip.
    """
    return ManyLabels(names).add(scores, truth).summary(groups)


class ManyLabels:
    """What ``many_labels_summary`` says, of clips that come in chunks: a few hundred bytes a clip, whatever K.

    >>> ManyLabels(["run", "jump"]).add([[0.9, 0.2]], [[1, 0]]).summary(["a"])["accuracy"]
    1.0
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.found = MultiLabelScores()
        self._first: list[NDArray[np.bool_]] = []  # of each chunk: whether the highest score is that of a label
        self._near = 0  # clips with a label among the five highest
        self._right, self._named, self._support = (np.zeros(len(names), np.int64) for _ in range(3))

    def add(self, scores: ArrayLike, truth: ArrayLike) -> ManyLabels:
        """Count scores (n, K) of clips with labels (n, K), 0 or 1; returns itself.

        Raises:
            DataError: scores of another number of classes than there are names; see ``MultiLabelScores.add``.
        """
        table, labels = np.asarray(scores), np.asarray(truth, bool)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise DataError(f"scores of {table.shape[-1]} classes do not fit {len(self.names)} names")
        self.found.add(table, labels)
        if not len(table):
            return self
        best = np.take_along_axis(labels, highest(table, min(5, table.shape[1])), 1)  # (n, 5)
        self._first.append(best[:, 0].copy())
        self._near += int(best.any(axis=1).sum())
        said = table >= 0.5
        self._right += (said & labels).sum(axis=0)
        self._named += said.sum(axis=0)
        self._support += labels.sum(axis=0)
        return self

    def summary(self, groups: Groups) -> dict[str, Any]:
        """See ``many_labels_summary``; groups (N,) of all clips, in the order in which they came."""
        right, named, support = self._right, self._named, self._support
        precision, recall = right / np.maximum(named, 1), right / np.maximum(support, 1)
        f1 = 2 * right / np.maximum(named + support, 1)
        columns = zip(self.names, precision, recall, f1, self.found.average_precisions(), support, strict=True)
        first = np.concatenate(self._first) if self._first else np.empty(0, bool)
        return self.found.summary() | {
            "accuracy": _known(float(first.mean())) if len(first) else None,
            **_accuracy_interval(first, groups),
            "top5": self._near / len(first) if len(first) else None,
            "macro_f1": float(f1.mean()),
            "macro_precision": float(precision.mean()),
            "macro_recall": float(recall.mean()),
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "ap": float(a), "support": int(s)}
                for name, p, r, f, a, s in columns
            },
        }


def _accuracy_interval(right: ArrayLike, groups: Groups) -> dict[str, Any]:
    """``accuracy_interval`` [low, high] (95 %), and by which rule."""
    low, high, rule = rate_interval(right, groups)
    return {"accuracy_interval": [_known(low), _known(high)], "accuracy_interval_rule": rule or None}


def _known(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value
