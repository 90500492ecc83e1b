"""`vidlet extract`."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import DataError
from . import options

EXAMPLE = "example: vidlet extract clips/ --recipe mobilenetv2-grid-gru"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet extract`."""
    parser.add_argument("data", metavar="DATA", help="a folder per class, a folder with clips.csv, or a .csv")
    options.add_fps(parser)
    options.add_strict(parser)
    options.add_recipe(parser)
    parser.add_argument(
        "--storage",
        default="float16",
        choices=["float16", "float32", "uint8"],
        help="how numbers are stored; train reads float16 (%(default)s)",
    )
    parser.add_argument(
        "--format",
        default="store",
        choices=["store", "records"],
        help="records: YouTube-8M shards in a new folder --out, which train reads and others' tools too (%(default)s)",
    )
    parser.add_argument("--flow", action="store_true", help="optical flow as clips of pictures, into the folder --out")
    parser.add_argument("--shard", metavar="K/N", help="the K-th of N parts of the clips, one process of many")
    parser.add_argument(
        "--merge",
        nargs="*",
        metavar="FOLDER",
        help="bring --out folders of shards together, check that all is there",
    )
    parser.add_argument("--engine", choices=["ray"], help="by the workers of a cluster: Ray's (vidlet[ray])")
    parser.add_argument("--address", help="of a Ray cluster, as HOST:6379 or auto; without it one is started here")
    parser.add_argument(
        "--workers", type=options.number(int, 1), default=0, metavar="N", help="of --engine (as many as have room)"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where features are kept (the cache that train reads)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Extract, and say where the features are."""
    from .before_work import check_pictures
    from .train_command import need_train_extra

    need_train_extra("extract")
    check_pictures(args.data)
    if (args.flow or args.format == "records") and (args.shard or args.merge is not None or args.engine):
        raise DataError("--shard, --merge and --engine are of stored features, not of --flow or --format records")
    from ..progress import megabytes, say, working

    with working("load torch"):
        from ..jobs.extract import extract, extract_records, flow_clips

    if args.flow:
        recipe = "ucf-flow" if args.recipe == "auto" else args.recipe  # the default is not for flow
        return flow_clips(args.data, args.out, recipe, options.overrides(args), args.strict)
    if args.format == "records":
        if not args.out:
            raise DataError("--format records needs --out FOLDER, a new one")
        found = extract_records(args.data, args.recipe, args.out, options.overrides(args), args.strict)
    else:
        found = extract(
            args.data, args.recipe, args.out, options.overrides(args), args.storage, args.strict, args.shard,
            args.merge, args.engine, args.address, args.workers,
        )  # fmt: skip
    done, skipped = found["metrics"], found["skipped"]
    say(
        f"{found['out']}: {done['clips'] - len(skipped)} clips ({done['computed']} new, {len(skipped)} skipped), "
        f"features {tuple(done['shape'])} a frame, {megabytes(sum(found['files'].values()))}"
    )
    return found
