"""`vidlet push`."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "example: vidlet push runs/a me/gestures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet push`."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder: its model files, recipe and a card are sent")
    parser.add_argument("repository", metavar="USER/NAME", help="a repository of the hub, made where there is none")
    parser.add_argument("--public", action="store_true", help="one that everybody sees (else it is made private)")
    parser.add_argument("--message", default="", metavar="TEXT", help="of the commit")
    parser.add_argument("--out", metavar="FOLDER", help="leave what would be sent in this folder, and send nothing")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Push, and say what was sent."""
    from ..jobs.push import push

    return push(args.run_folder, args.repository, args.public, args.out, args.message)
