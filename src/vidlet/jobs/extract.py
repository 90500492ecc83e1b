"""Extract the features of all clips of a table once, through the runtime; running it again does what is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import extractor_graph
from ..datasets import ClipTable
from ..errors import DataError
from ..features import Extracted
from ..features import extract as compute
from ..files import cache_folder
from ..models import build_extractor
from ..progress import bar
from ..recipe import load_recipe
from .clips import labelled_clips


def extract(
    data: str | Path,
    recipe: str | Path = "mobilenetv2-grid-gru",
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


def extract_features(
    data: str | Path,
    recipe: str | Path,
    out: str | Path | None,
    overrides: Mapping[str, Any] | None,
    storage: str,
    strict: bool,
) -> tuple[ClipTable, Extracted, dict[str, Any]]:
    """The table, its stored features, and the figures that :func:`extract` returns; arguments as there."""
    plan = load_recipe(recipe, overrides)
    table = labelled_clips(data, strict=strict)
    extractor = build_extractor(plan.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    root = Path(out) if out else cache_folder("features")
    with bar("features") as move:
        found = compute(table, graph, plan.sampling, extractor.input_size, root, storage=storage, progress=move)
    if strict and found.failures:
        raise DataError(found.failures[0][1])
    metrics = {
        "clips": len(table),
        "computed": found.computed,
        "shape": list(found.store.shape),
        "extractor_sha256": hashlib.sha256(graph).hexdigest(),
    }
    return table, found, metrics
