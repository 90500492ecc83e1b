"""Every file of a trained run: bytes, milliseconds a frame and a clip, loading, memory, and what the storage costs.

    OMP_NUM_THREADS=1 python benchmarks/speed/models.py ../shared/data/egogestar [--recipe mobilenetv2-grid-gru]
        [--chains int8 half ...] [--rounds 3] [--seconds 2]

Trains the recipe once on the set's own split (a finished run is taken as it stands) with a file of each chain. The
files take turns, each in a process of its own as `vidlet benchmark` starts it, on one thread; medians over the rounds
are told of the least processor time of a frame and of a clip, of the median and 95th percentile of a frame by the
clock, and of how many times faster than float32 of the same round a file is by the first.
Accuracies are those of the files on the test clips, differences to float32 in pairs, intervals resample groups.
``divergence`` is the mean Kullback-Leibler divergence of the float32 file's scores from its own, in nats, over the
test clips.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.compression import file_name, find_chain
from vidlet.datasets import read_table
from vidlet.reports import text_table
from vidlet.runtime import load
from vidlet.runtime.benchmark import benchmark

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Figure, Row, add_option, figure, save
from runs import CHAINS, RECIPE, stored, summary, tested

LEAST = 1e-7  # a score below it counts as it
KEYS = ("bytes", "frame_ms", "faster", "clip_ms", "load_ms", "peak_bytes", "accuracy", "divergence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--chains", nargs="+", default=list(CHAINS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each file and round")
    add_option(parser)
    args = parser.parse_args()
    data = Path(tested(args.data, Path("runs/models")))
    run = stored(data, args.recipe, args.chains)
    scored = summary({0: [run]})["files"]
    chains = {"float32": "model.onnx"} | {chain: file_name(find_chain(chain)) for chain in args.chains}
    files = {chain: run / file for chain, file in chains.items()}
    found = {chain: quality(scored[file], chain) for chain, file in chains.items()}
    for chain, timed in speed(files, args.rounds, args.seconds).items():
        found[chain] |= timed
    for chain, value in divergence(files, data).items():
        found[chain]["divergence"] = figure(value)
    clips = scored["model.onnx"]["clips"]
    rows = [Row(f"{args.data.name}, {args.recipe}, {chain}", row, [0], clips) for chain, row in found.items()]
    save(args, "models", rows, TRAINED)
    shown = [
        [chain, *(f"{row[key]['value']:,.6g}" if key in row else "" for key in KEYS)] for chain, row in found.items()
    ]
    print(text_table(shown, ["file", *KEYS]))


def quality(file: dict[str, Any], chain: str) -> dict[str, Figure]:
    """Bytes and accuracy of a file, and its difference to float32."""
    row = {"bytes": figure(file["bytes"]), "accuracy": figure(file["accuracy"], *file["interval"])}
    less = file["minus_first"]
    return row if chain == "float32" else row | {"- float32": figure(less["mean"], less["low"], less["high"])}


def speed(files: dict[str, Path], rounds: int, seconds: float) -> dict[str, dict[str, Figure]]:
    """Medians over rounds in which each file is measured once."""
    told: dict[str, list[dict[str, Any]]] = {chain: [] for chain in files}
    for _ in range(rounds):
        for chain, path in files.items():
            told[chain].append(benchmark(path, seconds))
    found = {}
    for chain, each in told.items():
        taken = {
            "frame_ms": [one["frame_ms"]["least"] for one in each],
            "frame_p50_ms": [one["frame_ms"]["p50"] for one in each],
            "frame_p95_ms": [one["frame_ms"]["p95"] for one in each],
            "faster": [
                a["frame_ms"]["least"] / b["frame_ms"]["least"] for a, b in zip(told["float32"], each, strict=True)
            ],
            "clip_ms": [one["clip_ms"]["least"] for one in each],
            "load_ms": [one["load_ms"] for one in each],
            "peak_bytes": [one["peak_rss_bytes"] for one in each],
        }
        found[chain] = {key: figure(statistics.median(values)) for key, values in taken.items()}
        found[chain]["clip_frames"] = figure(each[0]["clip_frames"])
    return found


def divergence(files: dict[str, Path], data: Path) -> dict[str, float]:
    """Of each file but float32, from the scores that both give the test clips."""
    clips = read_table(data).of_split("test").clips
    scores = {}
    for chain, path in files.items():
        model = load(path, threads=1)
        scores[chain] = np.array([list(model.classify(clip.path).scores.values()) for clip in clips]).clip(LEAST, 1)
    whole = scores.pop("float32")
    return {chain: float((whole * np.log(whole / own)).sum(1).mean()) for chain, own in scores.items()}


if __name__ == "__main__":
    main()
