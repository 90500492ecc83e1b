"""`vidlet record`."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from . import options

EXAMPLE = "example: vidlet record wave none --from 0 --count 20 --seconds 3"
KEYS = "Without --count a window opens: space begins and ends a clip, 1 and 2 choose a label, u takes one back, q ends."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet record`."""
    parser.description = f"{parser.description} {KEYS}"
    parser.add_argument("labels", metavar="LABEL", nargs="+", help="the class; several, as wave none, in turn")
    parser.add_argument(
        "--from",
        dest="source",
        default="0",
        metavar="SOURCE",
        help="camera (0), rtsp://, or a video file (%(default)s)",
    )
    parser.add_argument(
        "--out", default="clips", metavar="FOLDER", help="a folder per class is made there (%(default)s)"
    )
    parser.add_argument(
        "--group", default="", metavar="NAME", help="the person or scene, for splits that keep it whole"
    )
    parser.add_argument(
        "--count",
        type=options.number(int, 1, 100_000),
        metavar="N",
        help="no window: N clips of each label, countdowns",
    )
    parser.add_argument(
        "--seconds", type=options.number(float, 0.1, 3600), metavar="S", help="of a clip (with --count: 3)"
    )
    parser.add_argument(
        "--every", type=options.number(float, 0.1, 86_400), metavar="S", help="--count: begin a clip every S seconds"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Record by keys in a window, or by a plan."""
    from ..jobs.record import record
    from ..wording import shown
    from .window import Window

    screen = None
    if args.count is None:
        screen = Window(f"vidlet record {shown(args.source)}", "--count N, with a countdown in the terminal", "record")
    found = record(args.labels, args.source, args.out, args.count, args.seconds, args.every, args.group, screen)
    if not args.json:
        print(f"next: vidlet data {shlex.quote(args.out)}")
    return found
