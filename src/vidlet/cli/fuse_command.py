"""`vidlet fuse`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from ..wording import as_json
from . import options
from .train_command import need_train_extra

EXAMPLE = "example: vidlet fuse --stream runs/rgb clips/ --stream runs/flow flow/ --join runs/two"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet fuse`."""
    parser.add_argument(
        "--stream",
        nargs=2,
        action="append",
        required=True,
        metavar=("MODEL|RUN", "DATA"),
        help="a file, or a run folder, and its clips; repeat",
    )
    parser.add_argument(
        "--weight",
        type=options.number(float, 0),
        action="append",
        metavar="W",
        help="of each stream, in order (all alike)",
    )
    parser.add_argument("--split", choices=["train", "val", "test", "all"], help="clips to score (test, else val)")
    parser.add_argument("--fold", metavar="I/K", help="test on part I (from 0) of K, as train did")
    options.add_strict(parser)
    options.add_threads(parser)
    parser.add_argument(
        "--join",
        metavar="FOLDER",
        help="make one file of a stream on clips and one on their flow (`vidlet extract --flow`), and score it",
    )
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score and average, print a line a stream and one for all; with --join also what was made."""
    from ..jobs.fuse import fuse
    from ..runs import MODEL

    if args.join:
        need_train_extra("fuse --join")
    found = fuse(
        [tuple(pair) for pair in args.stream],
        args.weight,
        args.split,
        args.fold,
        args.strict,
        args.threads,
        args.join,
        command="vidlet " + shlex.join(sys.argv[1:]),
    )
    if args.out:
        from ..files import write_text

        write_text(args.out, as_json(found, indent=1))
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
        if made := found.get("joined"):
            one = made["metrics"]["files"][MODEL]
            print(f"one file, {made['out']}/{MODEL}: accuracy {one['accuracy']:.3f}, {one['bytes']:,} bytes")
    return found
