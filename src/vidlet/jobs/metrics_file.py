"""The metrics.json of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import write_text
from ..wording import as_json


def add_to_metrics(folder: Path, name: str, metrics: dict[str, Any]) -> None:
    """The new file's section into the run's metrics.json."""
    path = folder / "metrics.json"
    known = read_metrics(path)
    known["files"][name] = metrics["files"][name]
    known["bytes"][name] = metrics["bytes"][name]
    write_text(path, as_json(known, indent=1))


def read_metrics(path: Path) -> dict[str, Any]:
    """What a metrics.json holds; sections that are not there yet are empty.

    Raises:
        TrainingError: it cannot be read, or is none.
    """
    try:
        known = json.loads(path.read_bytes().decode()) if path.exists() else {}
        sections = {"files": known.get("files", {}), "bytes": known.get("bytes", {})}
        if not all(isinstance(section, dict) for section in sections.values()):
            raise ValueError("files and bytes must be objects")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"{path}: not the metrics of a run ({' '.join(str(reason).split())[:200]})") from error
    return {**known, **sections}
