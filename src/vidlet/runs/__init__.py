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

__all__ = [
    "BOXES", "CHECKPOINT", "DETECTOR", "EXTRACTOR", "FIT", "HEAD", "LOG", "METRICS", "MODEL", "PREDICTIONS", "RECIPE",
    "REFIT", "REPORT", "SELECTION", "RunFolder", "add_evidence", "model_file", "product_of",
    "verify_evidence", "write_evidence",
]  # fmt: skip
