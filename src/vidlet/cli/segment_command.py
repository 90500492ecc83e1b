"""`vidlet segment`."""

from __future__ import annotations

import argparse
from typing import Any

from ..wording import as_json
from . import options

EXAMPLE = "example: vidlet segment day.mp4 --hz 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet segment`."""
    parser.add_argument("source", metavar="SOURCE", help="a video file or a folder of frames")
    options.add_recipe(parser)
    parser.set_defaults(recipe="mobilenetv2-single")
    parser.add_argument(
        "--hz", type=options.number(float, 0.001, 1000), default=2.0, metavar="N", help="frames a second (%(default)s)"
    )
    parser.add_argument(
        "--strength", type=options.number(float, 0), default=3.0, metavar="N", help="higher: fewer cuts (%(default)s)"
    )
    parser.add_argument(
        "--shortest", type=options.number(float, 0), default=1.0, metavar="S", help="seconds at least (%(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Cut, and print a line a segment."""
    from .train_command import need_train_extra

    need_train_extra("segment")
    from ..jobs.segment import segment

    found = segment(args.source, args.recipe, options.overrides(args), args.hz, args.strength, args.shortest)
    if args.out:
        from ..files import write_text

        write_text(args.out, as_json(found, indent=1))
    if not args.json:
        for piece in found["segments"]:
            print(f"{piece['start_s']:9.3f} to {piece['end_s']:9.3f} s")
    return found
