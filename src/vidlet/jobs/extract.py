"""Extract the features of all clips of a table once, through the runtime; running it again does what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cloud import reaching
from ..errors import DataError
from ..files import Lock
from ..tasks.flow import flow_clips
from ..tasks.prepare import extract_features
from ..tasks.record_files import extract_records

__all__ = ["extract", "extract_records", "flow_clips"]


@reaching
def extract(
    data: str | Path,
    recipe: str | Path = "auto",
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    storage: str = "float16",
    strict: bool = False,
    shard: str | None = None,
    merge: Sequence[str | Path] | None = None,
    engine: str | None = None,
    address: str | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Store the features that a recipe's extractor gives, in ``out`` or the cache that ``train`` reads.

    What is stored already is not computed again; a killed extraction goes on where it was.

    Args:
        shard: "3/64": of the clips only the third of 64 parts; which part a clip is of is decided by its name alone.
        merge: nothing is computed: folders ``out`` of shards, whose features are brought together, each clip once; none
            of them where all shards wrote to one folder. That no clip is missing is checked.
        engine: "ray": by the actors of a Ray cluster (docs/scale.md), at ``address``, or one on this machine that is
            started for it; so many ``workers``, 0: as many as it has processors.
        storage: "float16" (what ``train`` reads), "float32" or "uint8".

    Returns:
        {"out", "files": {name: bytes}, "metrics": {"clips", "computed", "shape", ...}, "skipped", "damaged"}.

    Raises:
        DataError: no such data or shard; no clip can be read; another process writes into ``out``;
            of ``merge`` a folder of another setting, or clips that no shard has.
    """
    if shard is not None and merge is not None:
        raise DataError("--shard makes a part and --merge brings parts together; give one of them")
    if engine not in (None, "ray"):
        raise DataError(f"--engine {engine}: must be ray")
    if engine is None and (address is not None or workers):
        raise DataError("--address and --workers are of --engine ray")
    if engine is not None and merge is not None:
        raise DataError("--merge computes nothing; give no --engine")
    ray = None if engine is None else {"address": address, "workers": workers}
    # The cache may be filled by several at a time, and so may the folder of shards.
    _held = Lock(out).hold() if out and shard is None else None
    table, found, metrics = extract_features(data, recipe, out, overrides, storage, strict, shard, merge, ray)
    if shard is None and not any(found.keys):
        raise DataError(f"{data}: none of {len(table)} clips can be read; first: {found.failures[0][1]}")
    folder = found.store.folder
    return {
        "out": str(folder),
        "files": {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if not p.name.startswith(".")},
        "metrics": metrics,
        "skipped": [{"path": path, "error": error} for path, error in (*table.skipped, *found.failures)],
        "damaged": [{"path": path, "error": error} for path, error in found.damaged],
    }
