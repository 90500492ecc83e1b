"""A run folder: the names of its files, opening and checking it, its metrics and the evidence in its model files."""

from .evidence import add_evidence, verify_evidence, write_evidence
from .folder import (
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
    model_file,
    product_of,
)
from .quickest import alike, choose, quickest
from .ready import READY, how_to_get, keep_ready, local_models, ready_names

__all__ = [
    "BOXES", "CHECKPOINT", "DETECTOR", "EXTRACTOR", "FIT", "HEAD", "LOG", "METRICS", "MODEL", "PREDICTIONS", "READY",
    "RECIPE",
    "REFIT", "REPORT", "SELECTION", "RunFolder", "add_evidence", "alike", "choose", "how_to_get", "keep_ready",
    "local_models", "model_file",
    "product_of", "quickest", "ready_names",
    "verify_evidence", "write_evidence",
]  # fmt: skip
