"""Metrics are NumPy functions: training, evaluation and the device print the same number."""

from .bootstrap import Difference, Interval, bootstrap_interval, paired_bootstrap, rate_interval, wilson_interval
from .calibration import (
    Reliability,
    careful_temperature,
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
    doubts,
    macro_average,
    per_class,
    top_k_accuracy,
)
from .compare import ClassDifference, compare_classes, comparison_summary
from .detection import (
    Curve,
    Truth,
    average_precision,
    coco_precisions,
    detection_summary,
    map50_samples,
    mean_over_classes,
    overlaps,
    precision_recall,
)
from .multilabel import MultiLabelScores, gap, hit_at_1, mean_average_precision, multilabel_summary, perr
from .rejection import Rejection, choose_threshold, named_scores
from .summary import ManyLabels, classification_summary, many_labels_summary, percentiles_ms

__all__ = [
    "ClassDifference",
    "Curve",
    "Difference",
    "Interval",
    "MacroAverage",
    "ManyLabels",
    "MultiLabelScores",
    "PerClass",
    "Rejection",
    "Reliability",
    "Truth",
    "accuracy",
    "average_precision",
    "bootstrap_interval",
    "careful_temperature",
    "choose_threshold",
    "classification_summary",
    "coco_precisions",
    "compare_classes",
    "comparison_summary",
    "confusion_matrix",
    "detection_summary",
    "doubts",
    "expected_calibration_error",
    "fit_temperature",
    "gap",
    "hit_at_1",
    "macro_average",
    "many_labels_summary",
    "map50_samples",
    "mean_average_precision",
    "mean_over_classes",
    "multilabel_summary",
    "named_scores",
    "negative_log_likelihood",
    "overlaps",
    "paired_bootstrap",
    "per_class",
    "percentiles_ms",
    "perr",
    "precision_recall",
    "rate_interval",
    "reliability",
    "top_k_accuracy",
    "wilson_interval",
]
