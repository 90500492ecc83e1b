"""Features of a folder of clips, as `vidlet train` and `vidlet extract` make them: how many a second, at what cost.

Each round extracts the same clips into a new store; ``cpu_ms`` is processor time a frame of all threads, decoding and
resizing included, which says more than seconds do where the machine has other work; with so many idle cores there are
1000 ``cores`` / ``cpu_ms`` frames a second. ``peak_mb`` is that of the whole process, torch and the network included.

    python benchmarks/speed/extract.py ../shared/data/egogestar [--clips 24] [--rounds 3] [--recipe NAME] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vidlet.artifact import extractor_graph
from vidlet.datasets import ClipTable, read_table
from vidlet.features import extract
from vidlet.models import FrameExtractor, build_extractor
from vidlet.recipe import Recipe, load_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, clips=24, rounds=3)
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    tell(parser.parse_args(), "extract", measure)


def options(about: str | None, clips: int, rounds: int) -> argparse.ArgumentParser:
    """What a benchmark of extraction is asked: the clips, how many of them and how often, by which recipe."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--recipe", default="mobilenetv2-grid-gru")
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    return parser


def tell(args: argparse.Namespace, name: str, measure: Callable[[argparse.Namespace], dict[str, float]]) -> None:
    """Measure, keep the rows, print."""
    found = {f"{args.data.name}, {args.recipe}": measure(args)}
    save(args, name, rows_of(found), ("features", "video", "runtime", "models", "artifact"))
    if args.json:
        print(json.dumps(found))
        return
    for title, row in found.items():
        print(title, ", ".join(f"{key} {value:,.2f}" for key, value in row.items()))


def material(args: argparse.Namespace) -> tuple[ClipTable, bytes, Recipe, FrameExtractor]:
    """So many of the clips, the graph of the recipe's extractor, the recipe, the extractor."""
    plan = load_recipe(args.recipe)
    extractor = build_extractor(plan.extractor).eval()
    table = read_table(args.data)
    table = table.with_clips(list(table)[:: max(1, len(table) // args.clips)][: args.clips])
    return table, extractor_graph(extractor).SerializeToString(), plan, extractor


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Medians over rounds."""
    table, graph, plan, extractor = material(args)
    walls, costs, frames = [], [], 0
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            began, worked = time.perf_counter(), time.process_time()
            done = extract(table, graph, plan.sampling, extractor.input_size, Path(folder), threads=args.threads)
            walls.append(time.perf_counter() - began)
            costs.append(time.process_time() - worked)
            frames = sum(len(done.store.read(key).features) for key in done.keys if key)
    return {
        "clips": len(table),
        "frames": frames,
        "frames_s": frames / statistics.median(walls),
        "cpu_ms": 1e3 * statistics.median(costs) / frames,
        "cores": args.threads or len(os.sched_getaffinity(0)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


if __name__ == "__main__":
    main()
