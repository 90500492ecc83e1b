"""`vidlet label`."""

from __future__ import annotations

import argparse
from typing import Any

from . import options

EXAMPLE = "example: vidlet label things.onnx street/ --classes person bicycle --out boxes/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet label`."""
    parser.add_argument("model", metavar="MODEL", help="a file that detects, as `vidlet export` makes of known ones")
    parser.add_argument("source", metavar="SOURCE", help="a video, a folder of videos, or a folder of frames")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where pictures and boxes go (YOLO's files)")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="those that are wanted (all)")
    parser.add_argument(
        "--hz",
        type=options.number(float, 0.001, 1000),
        default=1.0,
        metavar="N",
        help="pictures a second (1)",
    )
    parser.add_argument(
        "--threshold", type=options.number(float, 0.001, 1), default=0.5, metavar="P",
        help="a box needs this score; pictures with boxes from half of it on are left out (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=options.number(int, 1), default=5000, metavar="N", help="pictures at most (%(default)s)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Label, and say what to do next."""
    from ..jobs.label import label
    from ..progress import say

    found = label(args.model, args.source, args.out, args.classes, args.hz, args.threshold, args.most)
    for item in found["skipped"]:
        say(f"skipped: {item['error']}")
    say(f"next    vidlet data {args.out}, then vidlet train {args.out} --recipe tiny-yolov2")
    return found
