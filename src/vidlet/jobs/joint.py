"""What the metadata of a file say that was joined from others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from ..files import write_text
from ..runtime import Model


def joint_metadata(
    graph: onnx.ModelProto, title: str, members: Mapping[str, Model], weights: Sequence[float]
) -> dict[str, Any]:
    """The metadata of a joint graph: the first member's, with all of them in ``recipe`` and ``provenance``.

    Args:
        members: by their names in the joint file.
    """
    return {
        **next(iter(members.values())).metadata,
        "inputs": [value.name for value in graph.graph.input if not value.name.startswith("state.")],
        "recipe": {
            "name": title,
            "members": [
                {"name": name, "weight": weight, "recipe": model.metadata.get("recipe", {}).get("name", "")}
                for (name, model), weight in zip(members.items(), weights, strict=True)
            ],
        },
        "provenance": {name: json.dumps(model.metadata.get("provenance", {})) for name, model in members.items()},
        "temperature": None,
        "evidence": [],
    }


def write_members(folder: Path, title: str, members: Mapping[str, float]) -> None:
    """Write ``recipe.toml`` of a joint file: the names of its members and the weights of their scores."""
    parts = [f"name = {json.dumps(title)}\n"]
    parts += [f"\n[[members]]\nname = {json.dumps(name)}\nweight = {weight:g}\n" for name, weight in members.items()]
    write_text(folder / "recipe.toml", "".join(parts))
