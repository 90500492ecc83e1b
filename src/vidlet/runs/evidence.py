"""Evidence: what was measured of a model file, on which data and by which command, written into the file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..runtime import graph_sha256, read_metadata, write_metadata
from .folder import RunFolder

SAME = 1e-6  # figures that differ by no more are the same; on other processors a clip may tip over


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


def verify_evidence(path: Path, figures: Mapping[str, Any], split: str, table: Scorable) -> dict[str, Any]:
    """Hold what a file says of itself against what was measured just now.

    Args:
        figures: of the file, on ``split`` of ``table``.

    Returns:
        {"holds", "same_file", "same_data", "checked": [{"what", "said", "measured", "holds"}], "other": [what]}.
        Figures hold within ``SAME``; ``other`` are those of other splits or kinds, which were not measured.
    """
    said = read_metadata(path).get("evidence", [])
    checked, other = [], []
    for item in said:
        key, _, where = item["what"].partition(", ")
        measured = figures.get(key)
        if where != f"split {split}" or measured is None or item["value"] is None:
            other.append(item["what"])
            continue
        pairs = zip(_numbers(item["value"]), _numbers(measured), strict=True)
        holds = all(abs(before - now) <= SAME for before, now in pairs)
        checked.append({"what": item["what"], "said": item["value"], "measured": measured, "holds": holds})
    graph = graph_sha256(path.read_bytes())
    same_file = all(item.get("graph_sha256") == graph for item in said)
    same_data = all(item.get("table_sha256") == table.sha256() for item in said)
    holds = bool(checked) and same_file and all(item["holds"] for item in checked)
    return {"holds": holds, "same_file": same_file, "same_data": same_data, "checked": checked, "other": other}


def _numbers(value: Any) -> list[float]:
    return [float(part) for part in value] if isinstance(value, (list, tuple)) else [float(value)]
