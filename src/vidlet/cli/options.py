"""Options that several commands share, parsed alike everywhere."""

from __future__ import annotations

import argparse
from typing import Any

from ..recipe import parse_override


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """--recipe and --set."""
    parser.add_argument(
        "--recipe", default="mobilenetv2-grid-gru", metavar="NAME|FILE", help="built-in name or .toml (%(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe, as in training.epochs=30; may be repeated",
    )


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """What --set asked for."""
    return dict(parse_override(text) for text in args.set)


def add_data(parser: argparse.ArgumentParser) -> None:
    """DATA, --fold and --strict."""
    parser.add_argument("data", metavar="DATA", help="folder with clips.csv, folder per class, or a .csv file")
    parser.add_argument("--fold", metavar="I/K", help="fold I (from 0) of a K-fold by group, as in 0/5")
    add_strict(parser)


def add_strict(parser: argparse.ArgumentParser) -> None:
    """--strict."""
    parser.add_argument("--strict", action="store_true", help="stop at the first clip that cannot be read")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the runtime (%(default)s)")
