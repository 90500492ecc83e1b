"""Everything that is said of a classifier with one label a clip, as one JSON-able dict."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .bootstrap import Groups, bootstrap_interval
from .calibration import expected_calibration_error, negative_log_likelihood
from .classification import accuracy, checked, confusion_matrix, macro_average, per_class, top_k_accuracy
from .multilabel import MultiLabelScores


def classification_summary(
    scores: ArrayLike, labels: ArrayLike, groups: Groups, names: Sequence[str]
) -> dict[str, Any]:
    """Figures of scores (N, K) against labels (N,), with an interval over groups (N,); names are the K classes.

    Keys: clips, accuracy, accuracy_interval [low, high] (95 %), top5, macro_f1, macro_precision, macro_recall,
    per_class {name: {precision, recall, f1, support}}, confusion (rows: true classes), ece, nll. Rates are fractions;
    top5 is 1.0 with five classes or fewer; without clips what has no value is None.
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
        "accuracy_interval": [_known(bound) for bound in bootstrap_interval(guess == truth, groups)],
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

    Keys: clips, gap20, hit1, perr, map; accuracy (Hit@1 again) with accuracy_interval over groups; top5, the share of
    clips with a label among their five highest scores; macro_precision, macro_recall, macro_f1 and per_class at the
    threshold 0.5, per_class with "ap", the average precision among the 20 highest scores of each clip.
    """
    table, labels = np.asarray(scores), np.asarray(truth, bool)
    if table.shape[1] != len(names):
        raise DataError(f"scores of {table.shape[1]} classes do not fit {len(names)} names")
    found = MultiLabelScores().add(table, labels)
    rows = np.arange(len(table))
    first = labels[rows, table.argmax(axis=1)] if len(table) else np.empty(0, bool)
    best = np.argsort(-table, axis=1)[:, :5]
    said = table >= 0.5
    right, named, support = (said & labels).sum(axis=0), said.sum(axis=0), labels.sum(axis=0)
    precision, recall = right / np.maximum(named, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(named + support, 1)
    columns = zip(names, precision, recall, f1, found.average_precisions(), support, strict=True)
    return found.summary() | {
        "accuracy": _known(float(first.mean())) if len(first) else None,
        "accuracy_interval": [_known(bound) for bound in bootstrap_interval(first, groups)],
        "top5": float(np.take_along_axis(labels, best, 1).any(axis=1).mean()) if len(first) else None,
        "macro_f1": float(f1.mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "ap": float(a), "support": int(s)}
            for name, p, r, f, a, s in columns
        },
    }


def _known(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value
