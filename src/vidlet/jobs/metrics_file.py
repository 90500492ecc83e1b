"""The metrics.json of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_text


def add_to_metrics(folder: Path, name: str, metrics: dict[str, Any]) -> None:
    """The new file's section into the run's metrics.json."""
    path = folder / "metrics.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {"files": {}, "bytes": {}}
    known["files"][name] = metrics["files"][name]
    known["bytes"][name] = metrics["bytes"][name]
    write_text(path, json.dumps(known, indent=1, default=float))
