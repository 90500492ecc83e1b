"""Evidence: what was measured of a model file, on which data and by which command, written into the file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..runtime import graph_sha256, read_metadata, write_metadata
from .folder import RunFolder


class Scorable(Protocol):
    """A table of clips or of images, as far as evidence names it."""

    @property
    def root(self) -> Path:
        """Where the data lie."""
        ...

    def sha256(self) -> str:
        """Hash of what the table says."""
        ...


def add_evidence(
    path: Path,
    keys: Sequence[str],
    figures: Mapping[str, Any],
    what: str,
    table: Scorable,
    command: str,
    counted: str = "clips",
) -> None:
    """Write figures into a file's metadata, each with what it is of, its data, its command and the graph's hash.

    Args:
        counted: "clips" or "images": the figure that says on how many it was measured.
    """
    metadata = read_metadata(path)
    metadata["evidence"] = [
        {
            "what": f"{key}, {what}",
            "value": figures[key],
            "data": table.root.name,
            counted: figures[counted],
            "table_sha256": table.sha256(),
            "command": command,
            "graph_sha256": graph_sha256(path.read_bytes()),
        }
        for key in keys
    ]
    write_metadata(path, metadata)


def write_evidence(
    run: RunFolder,
    names: Sequence[str],
    metrics: dict[str, Any],
    keys: Callable[[Mapping[str, Any]], Sequence[str]],
    table: Scorable,
    command: str,
    counted: str = "clips",
) -> None:
    """Write into each file what ``metrics`` say of it, and then its bytes, evidence included, into ``metrics``.

    Args:
        keys: which of a file's figures are evidence.
    """
    for name in names:
        figures = metrics["files"][name]
        add_evidence(run / name, keys(figures), figures, f"split {metrics['split']}", table, command, counted)
    metrics["bytes"] = {name: (run / name).stat().st_size for name in names}
    for name, size in metrics["bytes"].items():
        metrics["files"][name]["bytes"] = size
