"""`vidlet evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from . import options

EXAMPLE = "example: vidlet evaluate runs/a/model.int8.onnx clips/ --split test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet evaluate`."""
    parser.add_argument("model", metavar="MODEL", help="a model file (.onnx)")
    options.add_data(parser)
    parser.add_argument(
        "--split", choices=["train", "val", "test", "all"], help="clips to score (test, or val where there is no test)"
    )
    options.add_threads(parser)
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score the file, print a table of classes."""
    from ..jobs.evaluate import evaluate
    from ..reports import text_table

    found = evaluate(args.model, args.data, args.split, args.fold, args.strict, args.threads)
    if args.out:
        import json

        from ..files import write_text

        write_text(args.out, json.dumps(found, indent=1))
    if not args.json:
        low, high = found["accuracy_interval"]
        print(
            f"accuracy {found['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}   "
            f"top-5 {found['top5']:.3f}   macro F1 {found['macro_f1']:.3f}   calibration error {found['ece']:.3f}\n"
            f"{found['clips']} {found['split']} clips, {len(found['skipped'])} skipped   "
            f"{found['bytes']:,} bytes   {found['clip_ms']['p50']:.0f} ms a clip, decoding included (median)\n"
        )
        rows = [
            [name, f"{c['precision']:.2f}", f"{c['recall']:.2f}", f"{c['f1']:.2f}", str(c["support"])]
            for name, c in found["per_class"].items()
        ]
        print(text_table(rows, ["class", "precision", "recall", "F1", "clips"], "lrrrr"))
        for item in found["skipped"]:
            print(f"skipped {item['error']}")
    return found
