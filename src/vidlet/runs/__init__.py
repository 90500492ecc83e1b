"""A run folder: the names of its files, opening and checking it, its metrics and the evidence in its model files."""

from .folder import (
    ALL,
    BOXES,
    CHECKPOINT,
    DETECTOR,
    EXTRACTOR,
    FIT,
    HEAD,
    LOG,
    METRICS,
    MODEL,
    PREDICTIONS,
    RECIPE,
    REFIT,
    REPORT,
    SELECTION,
    RunFolder,
    add_evidence,
    model_file,
    product_of,
    verify_evidence,
    write_evidence,
)
from .ready import READY, how_to_get, keep_ready, local_models, ready_names
from .shipped import alike, choose, shipped

__all__ = [
    "ALL", "BOXES", "CHECKPOINT", "DETECTOR", "EXTRACTOR", "FIT", "HEAD", "LOG", "METRICS", "MODEL", "PREDICTIONS",
    "READY", "RECIPE", "REFIT", "REPORT", "SELECTION", "RunFolder", "add_evidence", "alike", "choose", "how_to_get",
    "keep_ready", "local_models", "model_file", "product_of", "ready_names", "shipped", "verify_evidence",
    "write_evidence",
]  # fmt: skip
