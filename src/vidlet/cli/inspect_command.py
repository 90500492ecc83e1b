"""`vidlet inspect`."""

from __future__ import annotations

import argparse
from typing import Any

from ..wording import as_json

EXAMPLE = "example: vidlet inspect runs/a/model.int8.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet inspect`."""
    parser.add_argument("model", metavar="MODEL|RUN", help="a model file (.onnx), or a run folder: its file to ship")
    parser.add_argument(
        "--measure", action="store_true", help="time each tensor train beside its dense form on this machine"
    )
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Look inside, print tables."""
    from ..jobs.inspect import inspect, inspect_text

    if args.measure:
        from .train_command import need_train_extra

        need_train_extra("inspect --measure")
    found = inspect(args.model, args.measure)
    if args.out:
        from ..files import write_text

        write_text(args.out, as_json(found, indent=1))
    if not args.json:
        print(inspect_text(found))
    return found
