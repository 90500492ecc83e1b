"""`vidlet demo`."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "example: vidlet demo --out runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet demo`."""
    parser.add_argument("--out", default="runs/demo", metavar="FOLDER", help="where everything goes (%(default)s)")
    parser.add_argument("--clips", type=int, default=480, metavar="N", help="clips to render (%(default)s)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of the main model (the recipe's)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the clips and of the training")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Render, train, compress, score; print one table."""
    from .train_command import need_train_extra

    need_train_extra()
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
        print(text_table(rows, ["model", "accuracy", "95 %", "within pairs", "bytes", "ms a clip"], "lrrrrr"))
        print(
            "\nWithin a pair the two classes are each other reversed in time: without order, 0.5 is chance."
            f"\nreport: {found['out']}/report.html   annotated video: {found['out']}/annotated.mp4"
        )
    return found
