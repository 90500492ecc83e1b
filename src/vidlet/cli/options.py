"""Options that several commands share, parsed alike everywhere."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import Any

from ..recipe import parse_override

MOST_THREADS = 1024


def number(kind: type[int] | type[float], low: float, high: float = math.inf) -> Callable[[str], float]:
    """The type of an option that is a number from ``low`` to ``high``; what is none, or outside, is one line."""

    def parsed(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not {what} {span}")
        return value

    return parsed


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """--recipe and --set."""
    parser.add_argument(
        "--recipe",
        default="auto",
        metavar="NAME|FILE",
        help="a built-in recipe or a .toml file (%(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe, as in training.epochs=30; may be repeated",
    )
    parser.add_argument(
        "--extractor",
        metavar="FILE[:TENSOR]",
        help="an image model of yours, .onnx or .tflite, instead of the recipe's extractor (docs/recipes.md)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="--extractor: run that file without trying it in a process with limits"
    )


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What --extractor and --set asked for."""
    asked = dict(parse_override(text) for text in args.set)
    if getattr(args, "trust", False):
        from ..runtime.trial import TRUST

        os.environ[TRUST] = "1"  # worker processes are told by it
    if getattr(args, "extractor", None):
        from ..tasks.brought import extractor_overrides

        return {**extractor_overrides(args.extractor), **asked}
    return asked


def add_data(parser: argparse.ArgumentParser) -> None:
    """DATA, --fold and --strict."""
    parser.add_argument(
        "data", metavar="DATA", help="a folder per class, a .csv, a tool's export (docs/data.md), .tfrecord shards"
    )
    parser.add_argument(
        "--fold",
        metavar="I/K",
        help="test on part I (from 0) of K, groups kept whole, instead of DATA's splits; as in 0/5",
    )
    add_fps(parser)
    add_strict(parser)


def add_fps(parser: argparse.ArgumentParser) -> None:
    """--fps, which goes with DATA."""
    parser.add_argument(
        "--fps",
        type=number(float, 0.001, 1000),
        metavar="N",
        help="frames a second of folders of frames, where clips.csv says none (25)",
    )


def add_strict(parser: argparse.ArgumentParser) -> None:
    """--strict."""
    parser.add_argument(
        "--strict", action="store_true", help="stop where a clip cannot be read, instead of skipping it"
    )


def add_device(parser: argparse.ArgumentParser, name: str = "--device", default: str = "auto") -> None:
    """Where networks are trained: --device, or another name."""
    parser.add_argument(
        name,
        default=default,
        choices=["auto", "cpu", "cuda"],
        help="where to train; auto: on a GPU where there is one (%(default)s)",
    )


def add_none(parser: argparse.ArgumentParser) -> None:
    """--none: what shows none of the classes."""
    parser.add_argument(
        "--none",
        metavar="FOLDER|CLASS",
        help="videos without any of the classes, or the class of DATA that means so: false events become rare",
    )


def add_threads(parser: argparse.ArgumentParser, least: int = 0) -> None:
    """--threads; 0 lets the runtime choose."""
    parser.add_argument(
        "--threads",
        type=number(int, least, MOST_THREADS),
        default=1,
        metavar="N",
        help="processor threads to use (%(default)s)",
    )
