"""`vidlet ensemble`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from . import options
from .train_command import need_train_extra

EXAMPLE = "example: vidlet ensemble records/ runs/a runs/b runs/c --max-size 700KB --out runs/best"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet ensemble`."""
    options.add_data(parser)
    parser.add_argument("models", nargs="+", metavar="RUN|MODEL", help="run folders or model files to choose from")
    parser.add_argument("--max-size", required=True, metavar="BYTES", help="of the file: 1MB (10^6), 1GiB, 700000")
    parser.add_argument("--file", default="", metavar="NAME", help="of run folders this file: model.half.onnx (all)")
    parser.add_argument("--out", default="runs/ensemble", metavar="FOLDER", help="the folder to make (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="finish an ensemble in --out that was broken off")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Search, and say what was made."""
    need_train_extra("ensemble")
    from ..progress import working

    with working("load torch"):
        from ..jobs.ensemble import ensemble
    from ..search.budget import parse_bytes

    return ensemble(
        args.data,
        args.models,
        parse_bytes(args.max_size),
        args.out,
        args.file,
        fold=args.fold,
        strict=args.strict,
        resume=args.resume,
        command="vidlet " + shlex.join(sys.argv[1:]),
    )
