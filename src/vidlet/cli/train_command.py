"""`vidlet train`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from . import options

EXAMPLE = "example: vidlet train clips/ --recipe mobilenetv2-grid-gru --out runs/a"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet train`."""
    options.add_data(parser)
    options.add_recipe(parser)
    parser.add_argument("--out", metavar="FOLDER", help="the run folder to make (runs/RECIPE)")
    parser.add_argument(
        "--seed", type=options.number(int, 0, 2**32 - 1), metavar="N", help="short for --set training.seed=N"
    )
    parser.add_argument("--epochs", type=options.number(int, 1), metavar="N", help="short for --set training.epochs=N")
    parser.add_argument("--resume", action="store_true", help="go on after the last finished epoch of --out")
    options.add_none(parser)
    parser.add_argument("--init", metavar="RUN|MODEL", help="start from what this run learned, of other labels too")
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="MODEL",
        help="learn what this file (an ensemble, a run) says of the training clips too; may be repeated",
    )
    parser.add_argument(
        "--val-shards",
        type=options.number(int, 1),
        metavar="N",
        help="of records: validate on N shards drawn at random, train on the rest",
    )
    parser.add_argument(
        "--refit-all", action="store_true", help="then once more on all clips: model.all.onnx, to deploy"
    )
    options.add_device(parser)


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, and say what was made; of several processes that train together the first one says it."""
    need_train_extra()
    from ..progress import working
    from ..recipe import load_recipe
    from .before_work import check_pictures

    changed = options.overrides(args)
    check_pictures(args.data, load_recipe(args.recipe, changed))  # what is wrong is told before torch is loaded
    with working("load torch"):
        from ..jobs.train import train

    found = train(
        args.data,
        args.recipe,
        args.out,
        changed,
        fold=args.fold,
        resume=args.resume,
        strict=args.strict,
        device=args.device,
        command="vidlet " + shlex.join(sys.argv[1:]),
        init=args.init,
        refit_all=args.refit_all,
        teachers=args.teacher,
        val_shards=args.val_shards,
        epochs=args.epochs,
        seed=args.seed,
        none=args.none,
    )
    return found or None


def need_train_extra(command: str = "train") -> None:
    """Refuse, with the command that helps, where the training extra is not installed."""
    from importlib.util import find_spec

    from ..errors import DependencyError
    from ..wording import how_to_install

    if missing := [name for name in ("torch", "onnx", "onnxscript", "pyarrow") if find_spec(name) is None]:
        raise DependencyError(f"vidlet {command} needs {', '.join(missing)}: {how_to_install('train')}")
