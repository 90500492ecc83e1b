"""Train and score a recipe on a set of real clips over folds and seeds: the rows of docs/results.md.

Every run is `vidlet train` in a process of its own; what is scored is the files that it shipped. Accuracies are pooled
over the folds of a seed; the interval resamples groups (of the clips' mean correctness over seeds); int8 is compared
with float32 on the same clips. Finished runs are not repeated.

    python benchmarks/real_clips.py ../shared/data/egogestar --recipe mobilenetv2-grid-gru --folds 5 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from vidlet.metrics import bootstrap_interval, paired_bootstrap
from vidlet.reports import text_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="mobilenetv2-grid-gru")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folds", type=int, default=0, help="0: the table's own splits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    name = f"{args.data.name}-{Path(args.recipe).stem}" + "".join(f"-{s}" for s in args.set)
    runs = defaultdict(list)
    for seed in args.seeds:
        for fold in range(args.folds) or [None]:
            folder = args.out / folder_name(name) / f"seed{seed}-fold{fold}"
            train(args, seed, fold, folder)
            runs[seed].append(folder)
    found = summary(runs)
    print(json.dumps(found, indent=1) if args.json else as_text(args, found))


def folder_name(name: str) -> str:
    """A name that a file system takes: of a long one the beginning, and its hash."""
    plain = name.replace("/", "_").replace(" ", "")
    return plain if len(plain) <= 120 else f"{plain[:100]}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"


def train(args: argparse.Namespace, seed: int, fold: int | None, folder: Path) -> None:
    """One run, unless it is finished."""
    if (folder / "metrics.json").exists():
        return
    command = [sys.executable, "-m", "vidlet.cli", "train", str(args.data), "--recipe", args.recipe]
    command += ["--seed", str(seed), "--out", str(folder), "--resume"]
    command += [word for item in args.set for word in ("--set", item)]
    command += ["--fold", f"{fold}/{args.folds}"] if fold is not None else []
    subprocess.run(command, check=True)


def summary(runs: dict[int, list[Path]]) -> dict[str, object]:
    """Pooled figures of every file name."""
    correct: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    groups: dict[str, str] = {}
    per_seed: dict[str, dict[int, float]] = defaultdict(dict)
    sizes, seconds = defaultdict(list), []
    for seed, folders in runs.items():
        hits = defaultdict(list)
        for folder in folders:
            metrics = json.loads((folder / "metrics.json").read_text())
            seconds.append(metrics["seconds"])
            for file, size in metrics["bytes"].items():
                sizes[file].append(size)
            with (folder / "predictions.csv").open(newline="") as handle:
                for row in csv.DictReader(handle):
                    hits[row["file"]].append(row["label"] == row["predicted"])
                    correct[row["file"]][row["path"]].append(row["label"] == row["predicted"])
                    groups[row["path"]] = row["group"]
        for file, values in hits.items():
            per_seed[file][seed] = float(np.mean(values))
    files = {}
    first = next(iter(correct))
    for file, by_clip in correct.items():
        paths = sorted(by_clip)
        mean = np.array([np.mean(by_clip[p]) for p in paths])
        base = np.array([np.mean(correct[first][p]) for p in paths])
        members = [groups[p] for p in paths]
        low, high = bootstrap_interval(mean, members)
        accuracies = list(per_seed[file].values())
        files[file] = {
            "accuracy": float(np.mean(accuracies)),
            "deviation_over_seeds": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
            "per_seed": per_seed[file],
            "interval": [low, high],
            "minus_first": paired_bootstrap(mean, base, members)._asdict(),
            "bytes": max(sizes[file]),
            "clips": len(paths),
        }
    return {"files": files, "median_seconds_a_run": statistics.median(seconds), "runs": len(seconds)}


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
    head = f"{args.data.name}, {args.recipe} {' '.join(args.set)}, {args.folds or 'own'} folds, seeds {args.seeds}"
    table = text_table(rows, ["file", "accuracy", "sd seeds", "95 % groups", "minus first", "bytes"], "lrrrrr")
    return f"{head}\n{table}\n{found['runs']} runs, median {found['median_seconds_a_run']:.0f} s a run"


if __name__ == "__main__":
    main()
