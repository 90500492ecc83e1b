"""`vidlet compress`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from . import options
from .train_command import need_train_extra

EXAMPLE = "example: vidlet compress runs/a clips/ units:0.5+distill+int8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet compress`."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder of `vidlet train`")
    options.add_data(parser)
    options.add_device(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="a further run: a copy of RUN with the new files (RUN itself gets them)"
    )
    parser.add_argument(
        "steps",
        metavar="STEPS",
        nargs="+",
        help="a chain, or several: int8, half, units:0.5+int8 ... (docs/recipes.md)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compress, score, and say what was made."""
    need_train_extra("compress")
    from ..progress import say, working
    from ..runs import RunFolder, choose

    with working("load torch"):
        from ..jobs.compress import compress

    found = compress(
        args.run_folder,
        args.data,
        args.steps,
        fold=args.fold,
        strict=args.strict,
        device=args.device,
        out=args.out,
        command="vidlet " + shlex.join(sys.argv[1:]),
    )
    say(f"ship    {choose(RunFolder.of(found['out'])).line()}")
    say(f"next    vidlet compare {shlex.quote(found['out'])}")
    return found
