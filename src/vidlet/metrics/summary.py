"""Everything that is said of a classifier with one label a clip, as one JSON-able dict."""

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from ..errors import DataError
from .bootstrap import Groups, bootstrap_interval
from .calibration import expected_calibration_error, negative_log_likelihood
from .classification import accuracy, checked, confusion_matrix, macro_average, per_class, top_k_accuracy


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


def _known(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value
