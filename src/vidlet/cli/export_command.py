"""`vidlet export`."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLE = "example: vidlet export mobilenet_v2_1.0_224_quant.tflite --format onnx --out extractor.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet export`."""
    parser.add_argument(
        "source",
        metavar="RUN|MODEL|FILE",
        help="a run folder, a model file, a quantized TFLite extractor, or a detector that others trained (.onnx of "
        "YOLOX, YOLOv5, YOLOv8, NanoDet, FastestDet; darknet's .weights with its .cfg)",
    )
    parser.add_argument(
        "--format",
        default="onnx",
        choices=["onnx", "web", "litert", "darknet"],
        help="web: a folder with a page that runs it; litert: a .tflite file of a classifier on frames, for phones; "
        "darknet: .cfg and .weights of a tiny-yolov2 (%(default)s)",
    )
    parser.add_argument("--out", required=True, metavar="PATH", help="the file, or the folder, to write")
    parser.add_argument(
        "--labels", metavar="FILE|coco", help="of a detector that others trained: its classes, one a line, or coco"
    )
    parser.add_argument(
        "--runtime", metavar="FOLDER", help="of --format web: where onnxruntime-web of npm lies (npm pack fetches it)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export, and say what was made."""
    if args.format != "web":
        from .train_command import need_train_extra

        need_train_extra("export")
    from ..jobs.export import export
    from ..progress import megabytes, say

    found = export(args.source, args.out, args.format, args.runtime, args.labels)
    if args.format == "web":
        slow = (
            " (computes in 8 bits, which browsers do slower than float32; the step weights8 of `vidlet compress` makes "
            "a file as small that computes in float32)"
        )
        say(
            f"{found['out']}: {len(found['files'])} files, {megabytes(found['metrics']['bytes'])}"
            f"{slow if found['metrics']['integers'] else ''}; try it: python3 -m http.server -d {found['out']}"
        )
        return found
    say(f"{found['out']}: {', '.join(f'{name} {megabytes(size)}' for name, size in found['files'].items())}")
    if args.format == "litert":
        told = found["metrics"]
        say(
            f"{told['frames']:,} frames: scores differ by {told['score_difference']:.1g}, states by "
            f"{told['state_difference']:.1g}; by the clock {told['litert_ms']:.2g} ms a frame, the .onnx "
            f"{told['onnx_ms']:.2g}"
        )
    return found
