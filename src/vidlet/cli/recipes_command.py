"""`vidlet recipes`."""

from __future__ import annotations

import argparse
import itertools
import shutil
import textwrap
from typing import Any

EXAMPLE = "example: vidlet recipes gru --task clips"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet recipes`."""
    parser.add_argument("word", nargs="?", default="", metavar="WORD", help="only those that this word is in")
    parser.add_argument(
        "--task", choices=["clips", "boxes", "records"], help="only those for clips, images with boxes, or records"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print the recipes, a paragraph each."""
    from ..jobs.recipes import recipes

    found = recipes(args.task, args.word)
    if not args.json:
        for task, rows in itertools.groupby(found, key=lambda row: row["task"]):
            print(f"for {task}: vidlet train {task}/ --recipe NAME")
            for row in rows:
                print(f"  {row['name']}")
                width = min(110, shutil.get_terminal_size().columns)
                print(textwrap.fill(row["description"], width, initial_indent=" " * 6, subsequent_indent=" " * 6))
        if not found:
            print(f"no recipe has {args.word!r} in its name or description")
    return {"recipes": found}
