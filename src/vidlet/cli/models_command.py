"""`vidlet models`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

EXAMPLE = "example: vidlet models fastestdet && vidlet predict fastestdet street.mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet models`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="fetch this one, so that its name is a model file's")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fetch what is named; print a table."""
    if args.names:
        _need_train_extra(args.names)
    from ..jobs.models import ready_models

    found = ready_models(args.names)
    if not args.json:
        print(table_text(found))
    return {"models": found}


def _need_train_extra(names: Sequence[str]) -> None:
    """A detector's file is written by what trains; whoever only names what is there needs none of it."""
    from ..runs import READY
    from .train_command import need_train_extra

    if any(READY[name].parts and not READY[name].place(name).is_file() for name in names if name in READY):
        need_train_extra("models")


def table_text(found: Sequence[Mapping[str, Any]]) -> str:
    """The models with what their files say of themselves, then the weights that trainings start from."""
    from ..reports import bytes_text, text_table

    models = [row for row in found if row["kind"] == "model"]
    weights = [row for row in found if row["kind"] == "weights"]
    parts = []
    if models:
        rows = [
            [row["name"], row["task"], _labels(row), _frames(row), bytes_text(row["bytes"]), _measured(row["evidence"]),
             row["licence"], _where(row)]
            for row in models
        ]  # fmt: skip
        heads = ["model", "task", "labels", "frames", "size", "measured", "licence", "where"]
        parts.append(text_table(rows, heads, "llllr"))
    if weights:
        rows = [[row["name"], row["about"], bytes_text(row["bytes"]), row["licence"], _where(row)] for row in weights]
        parts.append(text_table(rows, ["weights to train from", "what", "size", "licence", "where"], "llr"))
    parts.append("the name of a model that is here stands for its file: vidlet predict NAME VIDEO")
    return "\n\n".join(parts)


def _labels(row: Mapping[str, Any]) -> str | None:
    labels = row["labels"]
    if labels is None:
        return row["about"]
    return f"{len(labels)}: {', '.join(labels[:3])}{' ...' if len(labels) > 3 else ''}"


def _frames(row: Mapping[str, Any]) -> str | None:
    size = f"{row['input_size'][1]} x {row['input_size'][0]}" if row["input_size"] else ""
    rate = f"{row['hz']:g} a second" if row["hz"] and row["task"] == "clips" else ""
    return ", ".join(part for part in (size, rate) if part) or None


def _measured(evidence: Sequence[Mapping[str, Any]] | None) -> str | None:
    """The first figure that a file has of itself, with its interval and what it was measured on."""
    from ..reports import interval_text, rate_text

    if evidence is None:
        return None
    figures = {str(item["what"]).partition(",")[0]: item for item in evidence}
    first = next((item for item in figures.values() if isinstance(item["value"], float)), None)
    if first is None:
        return "nothing"
    name, _, split = str(first["what"]).partition(", split ")
    interval = figures.get(f"{name}_interval")
    sure = f" ({interval_text(interval['value'])})" if interval else ""
    count = next((f"{first[unit]} {unit}" for unit in ("clips", "images") if unit in first), "")
    return f"{name} {rate_text(first['value'])}{sure}, {count} {split} of {first.get('data', '?')}"


def _where(row: Mapping[str, Any]) -> str:
    from ..runs import READY, how_to_get

    if row["kind"] == "weights":
        return "here" if row["path"] else "comes on first use"
    if row["name"] not in READY or row["path"]:
        return "here" if row["name"] in READY else str(row["source"])
    return how_to_get(row["name"])
