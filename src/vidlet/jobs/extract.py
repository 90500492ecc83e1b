"""Extract the features of all clips of a table once, through the runtime; running it again does what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..tasks.flow import flow_clips
from ..tasks.prepare import extract_features
from ..tasks.record_files import extract_records

__all__ = ["extract", "extract_records", "flow_clips"]


def extract(
    data: str | Path,
    recipe: str | Path = "auto",
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    storage: str = "float16",
    strict: bool = False,
) -> dict[str, Any]:
    """Store the features that a recipe's extractor gives, in ``out`` or the cache that ``train`` reads.

    What is stored already is not computed again; a killed extraction goes on where it was.

    Args:
        storage: "float16" (what ``train`` reads), "float32" or "uint8".

    Returns:
        {"out", "files": {name: bytes}, "metrics": {"clips", "computed", "shape", ...}, "skipped", "damaged"}.
    """
    table, found, metrics = extract_features(data, recipe, out, overrides, storage, strict)
    folder = found.store.folder
    return {
        "out": str(folder),
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if not p.name.startswith(".")},
        "metrics": metrics,
        "skipped": [{"path": path, "error": error} for path, error in (*table.skipped, *found.failures)],
        "damaged": [{"path": path, "error": error} for path, error in found.damaged],
    }
