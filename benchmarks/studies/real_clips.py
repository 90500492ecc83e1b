"""Train and score recipes on sets of real clips over folds and seeds: the rows of docs/results.md.

Every run is `vidlet train` in a process of its own; what is scored is the files that it shipped. Accuracies are pooled
over the folds of a seed; the interval resamples groups (of the clips' mean correctness over seeds); int8 is compared
with float32 on the same clips. Finished runs are not repeated. Of several sets or recipes one table is printed, with
milliseconds a frame of each file: one thread, all files in turn, medians.

    python benchmarks/studies/real_clips.py ../shared/data/egogestar --recipe mobilenetv2-grid-gru --folds 5
    python benchmarks/studies/real_clips.py DATA ... --recipe mobilenetv2-grid-gru mobilenetv2-gru mean --seeds 0

`--figures` writes a row a set, recipe and options.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.reports import text_table
from vidlet.runtime import Model, load

sys.path.insert(0, str(Path(__file__).parents[1]))

from figures import TRAINED, Figure, Row, add_option, figure, save
from runs import chain_of, finished, folder_name, summary, tested

ROUNDS, FRAMES = 15, 4  # of timing: each file in turn, so many frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--recipe", nargs="+", default=["mobilenetv2-grid-gru"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--init", type=Path, metavar="RUN", help="start from what this run learned")
    parser.add_argument("--folds", type=int, default=0, help="0: the table's own splits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    found = {(data, recipe): trained(args, data, recipe) for data in args.data for recipe in args.recipe}
    save(args, "real_clips", [as_row(args, *key, row) for key, row in found.items()], TRAINED)
    if args.json:
        several = [{"data": str(data), "recipe": recipe, **row} for (data, recipe), row in found.items()]
        print(json.dumps(several if len(several) > 1 else several[0], indent=1))
    elif len(found) == 1:
        print(as_text(args, next(iter(found.values()))))
    else:
        print(several_text(args, found))


def as_row(args: argparse.Namespace, data: Path, recipe: str, found: dict[str, Any]) -> Row:
    """What is kept: of each file accuracy, difference to float32 and bytes, under the name of its chain."""
    row: dict[str, Figure] = {}
    for file, of in found["files"].items():
        chain, less = chain_of(file), of["minus_first"]
        row[chain] = figure(of["accuracy"], *of["interval"])
        row[f"{chain}, bytes"] = figure(of["bytes"])
        row[f"{chain}, sd"] = figure(of["deviation_over_seeds"])
        if len(row) > 3:
            row[f"{chain} - float32"] = figure(less["mean"], less["low"], less["high"])
    split = f"{args.folds} folds" if args.folds else "own split"
    name = ", ".join([data.name, split, recipe, *args.set, *([f"from {args.init.name}"] if args.init else [])])
    words = [str(data), "--recipe", recipe, *(word for item in args.set for word in ("--set", item))]
    words += ["--init", str(args.init)] if args.init else []
    words += ["--folds", str(args.folds)] if args.folds else []
    words += ["--seeds", *map(str, args.seeds)]
    clips = next(iter(found["files"].values()))["clips"]
    return Row(name, row, args.seeds, clips, f"python benchmarks/studies/real_clips.py {shlex.join(words)}")


def trained(args: argparse.Namespace, data: Path, recipe: str) -> dict[str, Any]:
    """Train a recipe on a set with each seed and fold, unless that is done; pooled figures of its files."""
    name = f"{data.name}-{Path(recipe).stem}" + "".join(f"-{s}" for s in args.set)
    name += f"-from-{args.init.parent.name}-{args.init.name}" if args.init else ""
    runs = defaultdict(list)
    for seed in args.seeds:
        for fold in range(args.folds) or [None]:
            folder = args.out / folder_name(name) / f"seed{seed}-fold{fold}"
            train(args, data, recipe, seed, fold, folder)
            runs[seed].append(folder)
    return summary(runs)


def train(args: argparse.Namespace, data: Path, recipe: str, seed: int, fold: int | None, folder: Path) -> None:
    """One run, unless it is finished."""
    options = [word for item in args.set for word in ("--set", item)]
    options += ["--init", str(args.init)] if args.init else []
    options += ["--fold", f"{fold}/{args.folds}"] if fold is not None else []
    source = data if fold is not None else tested(data, args.out)
    finished(folder, "train", source, "--recipe", recipe, "--seed", seed, *options)


def as_text(args: argparse.Namespace, found: dict) -> str:
    """A table for people."""
    rows = []
    for file, f in found["files"].items():
        d = f["minus_first"]
        rows.append(
            [
                file,
                f"{f['accuracy']:.3f}",
                f"{f['deviation_over_seeds']:.3f}",
                f"[{f['interval'][0]:.3f}, {f['interval'][1]:.3f}]",
                f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]",
                f"{f['bytes']:,}",
            ]
        )
    what = f"{args.data[0].name}, {args.recipe[0]} {' '.join(args.set)}"
    head = f"{what}, {args.folds or 'own'} folds, seeds {args.seeds}"
    table = text_table(rows, ["file", "accuracy", "sd seeds", "95 % groups", "minus first", "bytes"], "lrrrrr")
    return f"{head}\n{table}\n{found['runs']} runs, median {found['median_seconds_a_run']:.0f} s a run"


def several_text(args: argparse.Namespace, found: dict[tuple[Path, str], dict[str, Any]]) -> str:
    """One table of several sets and recipes, a row a file."""
    paths = [file["path"] for row in found.values() for file in row["files"].values()]
    ms = frame_ms(paths)
    rows = []
    for (data, recipe), row in found.items():
        for name, f in row["files"].items():
            low, high = (100 * bound for bound in f["interval"])
            took = "" if ms[f["path"]] is None else f"{ms[f['path']]:.2f}"
            spread = f"{100 * f['deviation_over_seeds']:.1f}" if len(args.seeds) > 1 else ""
            rows.append([data.name, recipe, chain_of(name),
                         f"{100 * f['accuracy']:.1f}", spread, f"{low:.1f} to {high:.1f}", str(f["clips"]),
                         f"{f['bytes']:,}", took])  # fmt: skip
    columns = ["set", "recipe", "file", "accuracy", "sd", "95 % groups", "clips", "bytes", "ms a frame"]
    head = f"{args.folds or 'own'} folds, seeds {args.seeds} {' '.join(args.set)}"
    return f"{head}\n{text_table(rows, columns, 'lllrrrrrr')}"


def frame_ms(paths: list[str]) -> dict[str, float | None]:
    """Median milliseconds a frame on one thread, files in turn; None of models that take no frames."""
    models = {path: load(path, threads=1) for path in paths}
    times: dict[str, list[float]] = {path: [] for path, model in models.items() if "frames" in model.inputs}
    for _ in range(ROUNDS):
        for path, taken in times.items():
            taken.append(_frames_ms(models[path]))
    return {path: statistics.median(times[path]) if path in times else None for path in paths}


def _frames_ms(model: Model) -> float:
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES + 1, 1, *model.input_size, 3), np.uint8)
    _, state = model(frames[0])  # warm
    began = time.perf_counter()
    for frame in frames[1:]:
        _, state = model(frame, state)
    return 1e3 * (time.perf_counter() - began) / FRAMES


if __name__ == "__main__":
    main()
