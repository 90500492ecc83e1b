"""`vidlet demo`."""

from __future__ import annotations

import argparse
from typing import Any

from . import options

EXAMPLE = "example: vidlet demo --out runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet demo`."""
    parser.add_argument("--out", default="runs/demo", metavar="FOLDER", help="where everything goes (%(default)s)")
    parser.add_argument(
        "--clips", type=options.number(int, 1), default=480, metavar="N", help="how many clips to draw (%(default)s)"
    )
    parser.add_argument(
        "--epochs", type=options.number(int, 1), metavar="N", help="epochs of the main model (as its recipe says)"
    )
    parser.add_argument(
        "--seed",
        type=options.number(int, 0, 2**32 - 1),
        default=0,
        metavar="N",
        help="seed of the clips and of the training (%(default)s)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Render, train, compress, score; print one table."""
    from .train_command import need_train_extra

    need_train_extra("demo")
    from ..jobs.demo import demo
    from ..reports import text_table

    found = demo(args.out, clips=args.clips, epochs=args.epochs, seed=args.seed)
    if not args.json:
        rows = [
            [
                row["model"],
                f"{row['accuracy']:.3f}",
                f"[{row['accuracy_interval'][0]:.3f}, {row['accuracy_interval'][1]:.3f}]",
                f"{row['within_pairs']:.3f}",
                f"{row['bytes']:,}",
                f"{row['clip_ms']['p50']:.1f}",
            ]
            for row in found["metrics"]["table"]
        ]
        print(
            text_table(rows, ["model", "accuracy", "95 % interval", "right direction", "bytes", "ms a clip"], "lrrrrr")
        )
        print(
            "\nThe eight classes are four pairs; in a pair, each class is the other played backwards."
            "\nRight direction: of the clips put into the right pair, the fraction with the right one of the two."
            "\nA model that is blind to the order of frames can only guess it: 0.5."
            f"\n\nreport           {found['out']}/report.html"
            f"\nannotated video  {found['out']}/annotated.mp4"
            f"\ntry              vidlet predict {found['out']}/model.int8.onnx {found['out']}/sequence.mp4"
        )
    return found
