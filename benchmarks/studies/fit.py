"""`vidlet fit` on real clips: what is left of the accuracy at each budget, and whether the search beats random draws.

    python benchmarks/studies/fit.py budgets DATA --sizes 4MB 1MB 256KB 64KB --time 10m --seeds 0 --chart front.svg
    python benchmarks/studies/fit.py random DATA --sizes 256KB --time 10m --seeds 0 1 2
    python benchmarks/studies/fit.py folds DATA --sizes 1MB --time 150s --folds 5
    python benchmarks/studies/fit.py front DATA --sizes 256KB --seeds 0

"random" runs each search twice, with the same time, workers and space: once as `vidlet fit` does it, once with
candidates drawn at random and trained whole. Accuracies are those of the chosen file on test clips; where DATA has
none, its val clips are called test, so that nothing is chosen on them. Runs are left in --out; finished ones are read.
"front" scores every file on the front of finished searches again, from the file alone, and compares with the report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.datasets import read_table
from vidlet.errors import VidletError
from vidlet.jobs.fit import fit
from vidlet.metrics import bootstrap_interval
from vidlet.reports import Dot, bytes_text, front_chart, text_table
from vidlet.search.clips import FEW, MANY
from vidlet.search.data import FEW_CLIPS, judge
from vidlet.search.realize import SCORED, alike, clip_point, measure
from vidlet.search.space import Space, cuts_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Row, add_option, figure, save
from runs import tested

STYLE = (
    "text { font: 11px sans-serif; fill: #444 } .grid { stroke: #ddd } .dot { fill: #2557c7 } "
    ".line { fill: none; stroke: #b26a00; stroke-dasharray: 5 4 }"
)


@dataclass(frozen=True)
class Run:
    """One search."""

    kind: str
    size: str
    seed: int
    fold: str | None

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(
            [self.kind, self.size, f"seed{self.seed}", *([self.fold.replace("/", "of")] if self.fold else [])]
        )


def runs_of(args: argparse.Namespace) -> Iterator[Run]:
    """The searches that were asked for; rivals one after the other, so that both see the same machine."""
    kinds = ("fit", "random") if args.what == "random" else ("fit",)
    folds = [f"{i}/{args.folds}" for i in range(args.folds)] if args.what == "folds" else [None]
    for size in args.sizes:
        for seed in args.seeds:
            for fold in folds:
                for kind in kinds:
                    yield Run(kind, size, seed, fold)


def space_of(run: Run, args: argparse.Namespace) -> Space:
    """What `vidlet fit` searches in so many clips, at one size of the input; drawn at random for the rival."""
    usual = FEW if len(read_table(args.data)) < FEW_CLIPS else MANY
    space = replace(usual, seed=run.seed, extractors=cuts_of(size=args.input))
    return replace(space, sampler="random", rounds=(1.0,)) if run.kind == "random" else space


def search(run: Run, args: argparse.Namespace) -> dict[str, Any] | None:
    """The metrics of a search, made now or read; None where it found nothing."""
    folder = Path(args.out) / run.name
    if not (folder / "metrics.json").exists():
        space = space_of(run, args)
        try:
            fit(
                args.tested, run.size, time=args.time, out=folder, fold=run.fold, workers=args.workers,
                resume=(folder / "trials.jsonl").exists(), space=space,
            )  # fmt: skip
        except VidletError as error:
            print(f"{run.name}: {error}", file=sys.stderr)
            return None
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))
    return found


def main() -> None:
    """Run what was asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["budgets", "random", "folds", "front"])
    parser.add_argument("data")
    parser.add_argument("--sizes", nargs="+", default=["4MB", "1MB", "256KB", "64KB"])
    parser.add_argument("--time", default="10m")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--input", type=int, default=224)
    parser.add_argument("--out", default="runs/fit-benchmark")
    parser.add_argument("--chart", help="an .svg file to draw the chosen files in")
    add_option(parser)
    args = parser.parse_args()
    args.tested = tested(Path(args.data), Path(args.out))
    if args.what == "front":
        headers = ["search", "storage", "bytes", "accuracy", "again", "ms a frame", "again", "same"]
        print(text_table([row for run in runs_of(args) for row in recheck(run, args)], headers))
        return
    rows, right, groups = [], [], []
    dots: list[Dot] = []
    for run in runs_of(args):
        found = search(run, args)
        if found is None:
            rows.append([run.kind, run.size, run.seed, run.fold or "", None, None, None, None, "nothing found"])
            continue
        chosen = found["chosen"]
        rows.append(
            [
                run.kind, run.size, run.seed, run.fold or "", found["bytes"]["model.onnx"],
                chosen["measured"]["frame_ms"]["p50"], chosen["accuracy"], found["accuracy"],
                f"{found['trials']} trials; {chosen['candidate']['place']} {chosen['chain'] or 'float32'}",
            ]
        )  # fmt: skip
        size = found["bytes"]["model.onnx"]
        save(args, "fit", [as_row(run, args, found)], (*TRAINED, "search"))
        dots.append(Dot(size, found["accuracy"], f"{run.size}: {bytes_text(size)}, {found['accuracy']:.3f}", True))
        for line in _predictions(Path(args.out) / run.name):
            right.append(line[0])
            groups.append(line[1])
    if args.chart and dots:
        draw_chart(dots, Path(args.chart))
    headers = ["search", "budget", "seed", "fold", "bytes", "ms a frame", "chosen at", "test", "what"]
    print(text_table(rows, headers))
    if args.what == "folds" and right:
        low, high = bootstrap_interval(np.array(right), groups)
        print(f"pooled over folds: {np.mean(right):.3f} [{low:.3f}, {high:.3f}] on {len(right)} clips")


def as_row(run: Run, args: argparse.Namespace, found: dict[str, Any]) -> Row:
    """What is kept of a search."""
    chosen, data = found["chosen"], Path(args.data)
    split = f"fold {run.fold}" if run.fold else "own split"
    name = [data.name, split, run.size, args.time, run.kind, f"seed {run.seed}"]
    low, high = found.get("accuracy_interval") or (None, None)
    kept = {
        "test": figure(found["accuracy"], low, high),
        "chosen at": figure(chosen["accuracy"]),
        "bytes": figure(found["bytes"]["model.onnx"]),
        "ms a frame": figure(chosen["measured"]["frame_ms"]["p50"]),
        "what": figure(f"{chosen['candidate']['place']} {chosen['chain'] or 'float32'}"),
        "trials": figure(found["trials"]),
        "seconds": figure(found["seconds"]),
    }
    words = [args.what, args.data, "--sizes", run.size, "--time", args.time, "--workers", str(args.workers)]
    words += ["--seeds", str(run.seed), *(["--folds", str(args.folds)] if run.fold else [])]
    clips = len(_predictions(Path(args.out) / run.name))
    return Row(", ".join(name), kept, [run.seed], clips, f"python benchmarks/studies/fit.py {' '.join(words)}")


def recheck(run: Run, args: argparse.Namespace) -> list[list[Any]]:
    """Each file on the front of a finished search: what the report says of it, and what it measures now."""
    folder = Path(args.out) / run.name
    summary = json.loads((folder / "fit.json").read_text("utf-8"))
    judged = judge(args.tested, run.fold)
    val = judged.folds[0].of_split("val")
    if len(judged.folds) == 1:
        val = val.with_clips(val.clips[i] for i in alike(val, SCORED))
    rows = []
    for record in summary["front"]:
        told = clip_point(record)
        [now] = measure([(folder / "files" / told.file, told.chain, 0.0)], told.candidate, val)
        same = (told.bytes, told.accuracy) == (now.bytes, now.accuracy)
        milliseconds = [point.measured["frame_ms"]["p50"] for point in (told, now)]
        rows.append([run.name, told.chain, told.bytes, told.accuracy, now.accuracy, *milliseconds, same])
    return rows


def draw_chart(points: list[Dot], path: Path) -> None:
    """Test accuracy over bytes of the chosen files, as an SVG that stands alone."""
    page = str(front_chart(points, "Accuracy on test clips", "bytes of the file", bytes_text, None))
    drawing = page[page.index("<svg") : page.index("</svg>")]
    opening, _, inside = drawing.partition(">")
    path.write_text(f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{inside}</svg>\n', "utf-8")


def _predictions(folder: Path) -> list[tuple[bool, str]]:
    import csv

    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return [(row["label"] == row["predicted"], row["group"]) for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
