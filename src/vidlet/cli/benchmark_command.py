"""`vidlet benchmark`."""

from __future__ import annotations

import argparse
from typing import Any

from ..wording import as_json
from . import options

EXAMPLE = "example: vidlet benchmark runs/a/model.int8.onnx --threads 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet benchmark`."""
    parser.add_argument(
        "model", metavar="MODEL|RUN", help="a model file (.onnx), or a run: each of its files that are as good"
    )
    parser.add_argument(
        "--seconds",
        type=options.number(float, 0.001, 86_400),
        default=5.0,
        metavar="S",
        help="how long to measure (%(default)s)",
    )
    parser.add_argument(
        "--save",
        "--out",
        dest="save",
        metavar="FILE",
        help="write the figures as JSON, with this machine's speed: for `vidlet fit --device FILE`",
    )
    options.add_threads(parser, least=1)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and print."""
    from ..jobs.benchmark import benchmark

    found = benchmark(args.model, seconds=args.seconds, threads=args.threads)
    if args.save:
        from ..files import write_text
        from ..runtime import reference_ms

        write_text(args.save, as_json({**found, "reference_ms": reference_ms()}, indent=1))
    if not args.json:
        for name, figures in found.get("files", {"": found}).items():
            print((f"{name}\n" if name else "") + _text(figures))
        if "ship_line" in found:
            print(f"ship    {found['ship_line']}")
    return found


def _text(figures: dict[str, Any]) -> str:
    return (
        f"a frame {figures['frame_ms']['p50']:.2f} ms (p95 {figures['frame_ms']['p95']:.2f}), "
        f"{figures['fps']:.0f} frames/s one by one\n"
        f"a clip of {figures['clip_frames']} frames {figures['clip_ms']['p50']:.1f} ms "
        f"(p95 {figures['clip_ms']['p95']:.1f}), decoding not included\n"
        f"{figures['bytes']:,} bytes, peak memory {figures['peak_rss_bytes'] / 1e6:.0f} MB, "
        f"{figures['threads']} thread{'s' * (figures['threads'] != 1)}, {figures['provider']}\n"
        f"{energy_text(figures['energy'])}"
    )


def energy_text(energy: dict[str, Any]) -> str:
    """Joules a frame, or why they are not known."""
    if energy["source"] is None:
        return f"energy: {energy['reason']}"
    return (
        f"energy {energy['frame_j']:.3g} J a frame ({energy['watts']:.1f} W, {energy['idle_w']:.1f} W at rest; "
        f"{energy['source']}, everything that runs here included)"
    )
