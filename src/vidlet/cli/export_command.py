"""`vidlet export`."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "example: vidlet export mobilenet_v2_1.0_224_quant.tflite --format onnx --out extractor.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet export`."""
    parser.add_argument("source", metavar="RUN|FILE.tflite", help="a run folder, or a quantized TFLite extractor")
    parser.add_argument("--format", default="onnx", choices=["onnx"], help="(%(default)s)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export, and say what was made."""
    from .train_command import need_train_extra

    need_train_extra("export")
    from ..jobs.export import export
    from ..jobs.progress import megabytes, say

    found = export(args.source, args.out, args.format)
    say(f"{found['out']}: {', '.join(f'{name} {megabytes(size)}' for name, size in found['files'].items())}")
    return found
