"""Metrics are NumPy functions: training, evaluation and the device print the same number."""

from .bootstrap import Difference, bootstrap_interval, paired_bootstrap
from .calibration import (
    Reliability,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from .classification import (
    MacroAverage,
    PerClass,
    accuracy,
    confusion_matrix,
    macro_average,
    per_class,
    top_k_accuracy,
)
from .latency import percentiles_ms
from .multilabel import MultiLabelScores, gap, hit_at_1, mean_average_precision, multilabel_summary, perr
from .summary import classification_summary

__all__ = [
    "Difference",
    "MacroAverage",
    "MultiLabelScores",
    "PerClass",
    "Reliability",
    "accuracy",
    "bootstrap_interval",
    "classification_summary",
    "confusion_matrix",
    "expected_calibration_error",
    "fit_temperature",
    "gap",
    "hit_at_1",
    "macro_average",
    "mean_average_precision",
    "multilabel_summary",
    "negative_log_likelihood",
    "paired_bootstrap",
    "per_class",
    "percentiles_ms",
    "perr",
    "reliability",
    "top_k_accuracy",
]
