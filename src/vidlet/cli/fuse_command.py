"""`vidlet fuse`."""

from __future__ import annotations

import argparse
from typing import Any

from . import options

EXAMPLE = "example: vidlet fuse --stream runs/rgb/model.onnx clips/ --stream runs/flow/model.onnx flow/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet fuse`."""
    parser.add_argument(
        "--stream",
        nargs=2,
        action="append",
        required=True,
        metavar=("MODEL", "DATA"),
        help="a file and its clips; repeat",
    )
    parser.add_argument(
        "--weight", type=float, action="append", metavar="W", help="of each stream, in order (all alike)"
    )
    parser.add_argument("--split", choices=["train", "val", "test", "all"], help="clips to score (test, else val)")
    parser.add_argument("--fold", metavar="I/K", help="test on part I (from 0) of K, as train did")
    options.add_strict(parser)
    options.add_threads(parser)
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score and average, print a line a stream and one for all."""
    from ..jobs.fuse import fuse

    found = fuse([tuple(pair) for pair in args.stream], args.weight, args.split, args.fold, args.strict, args.threads)
    if args.out:
        import json

        from ..files import write_text

        write_text(args.out, json.dumps(found, indent=1))
    if not args.json:
        for stream in found["streams"]:
            print(
                f"{stream['model']} on {stream['data']}: accuracy {stream['accuracy']:.3f}, {stream['bytes']:,} bytes"
            )
        low, high = found["accuracy_interval"]
        print(
            f"fused: accuracy {found['accuracy']:.3f} [{low:.3f}, {high:.3f}], top 5 {found['top5']:.3f}, "
            f"{found['clips']} clips, {found['bytes']:,} bytes"
        )
    return found
