"""`vidlet fit`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from . import options
from .train_command import need_train_extra

EXAMPLE = "example: vidlet fit clips/ --max-size 1MB --max-latency 10ms --time 30m --out runs/fit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet fit`."""
    options.add_data(parser)
    parser.add_argument("--max-size", metavar="BYTES", help="of the file: 1MB (10^6), 256KiB, 800000")
    parser.add_argument("--max-latency", metavar="TIME", help="of a frame on one thread of this machine: 8ms")
    parser.add_argument(
        "--latency", default="frame-p95", choices=["frame-p50", "frame-p95", "clip-p50", "clip-p95"],
        help="what --max-latency limits (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-memory", metavar="BYTES", help="peak memory of a process that runs the file: 150MB")
    parser.add_argument(
        "--min-accuracy",
        type=options.number(float, 0, 1),
        default=0.0,
        metavar="RATE",
        help="0 to 1, on validation clips; of a detector mAP .5",
    )
    options.add_none(parser)
    parser.add_argument(
        "--fine-tune", default="auto", metavar="auto|no|RECIPE",
        help="train extractor and head end to end, too, where the time allows (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", metavar="FILE", help="a target: what `vidlet benchmark --save` wrote there")
    options.add_device(parser, "--train-on", "cpu")
    parser.add_argument("--time", default="30m", metavar="TIME", help="for the search: 30m, 2h (%(default)s)")
    parser.add_argument(
        "--workers",
        type=options.number(int, 1, options.MOST_THREADS),
        default=2,
        metavar="N",
        help="trials side by side; of records and boxes threads (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=options.number(int, 0, 2**32 - 1), default=0, metavar="N", help="of the search (%(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search in --out")
    parser.add_argument(
        "--join", action="store_true",
        help="share the trials with all processes that are started so on the same --out (docs/scale.md)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=["ray"], help="share the trials with the workers of a cluster: Ray's (vidlet[ray])"
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="of --engine: a cluster that runs (one here)")
    parser.add_argument("--out", default="runs/fit", metavar="FOLDER", help="the folder to make (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Search, and say what was found."""
    need_train_extra("fit")
    from ..progress import working
    from ..search.budget import check_quantities
    from .before_work import check_pictures

    check_quantities([args.max_size], args.max_latency, args.max_memory, args.time)
    check_pictures(args.data)
    with working("load torch"):
        from ..jobs.fit import fit

    return fit(
        args.data,
        args.max_size,
        args.max_latency,
        args.latency,
        args.max_memory,
        args.min_accuracy,
        args.time,
        args.out,
        fold=args.fold,
        device=args.device,
        seed=args.seed,
        workers=args.workers,
        resume=args.resume,
        strict=args.strict,
        command="vidlet " + shlex.join(sys.argv[1:]),
        train_on=args.train_on,
        join=args.join,
        none=args.none,
        engine=args.engine,
        address=args.address,
        fine_tune=args.fine_tune,
    )
