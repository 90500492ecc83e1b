"""One table over sets: auto, the old default, other recipes and the best plain classifier, on the files that ship.

Every run is `vidlet train` in a process of its own; finished runs are not repeated. Accuracy is that of the shipped
int8 file, pooled over folds and averaged over seeds, its interval resamples groups; the plain classifier is the best of
each run's `baselines`, chosen on the pooled clips. `--figures` writes each row when it is there.

    python benchmarks/studies/suite.py ../shared/data/weizmann_actions:9 ../shared/data/egogestar:5 --seeds 0
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from real_clips import frame_ms

from vidlet.reports import text_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Figure, Row, add_option, figure, save
from runs import finished, summary, tested

SHIPPED = "model.int8.onnx"
COLUMNS = ("float32", "int8", "int8 - float32", "plain", "which", "bytes", "ms a frame", "minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="DATA[:FOLDS]", help="without FOLDS: the table's own splits")
    parser.add_argument("--recipe", nargs="+", default=["auto", "mobilenetv2-grid-gru"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only-folds", type=int, nargs="*", help="not all of the folds")
    parser.add_argument("--out", type=Path, default=Path("runs/suite"))
    add_option(parser)
    args = parser.parse_args()
    rows = []
    for data in args.data:
        for recipe in args.recipe:
            row = measured(args, data, recipe)
            save(args, "suite", [row], TRAINED)
            rows.append([*row.name.split(", "), str(row.clips), *cells(row.figures)])
    print(text_table(rows, ["set", "split", "recipe", "clips", *COLUMNS], "lllr" + "r" * len(COLUMNS)))


def measured(args: argparse.Namespace, data: str, recipe: str) -> Row:
    """Train a recipe on a set with each seed and fold, unless that is done, and pool what its files say."""
    path, _, folds = data.partition(":")
    only = args.only_folds if args.only_folds and folds else range(int(folds)) if folds else [None]
    table = Path(path) if folds else Path(tested(Path(path), args.out))
    runs = {seed: [run(args.out, table, recipe, seed, fold, folds) for fold in only] for seed in args.seeds}
    split = f"folds {' '.join(map(str, only))} of {folds}" if args.only_folds else f"{folds} folds"
    place = Path(path)
    known = place.name if place.parent.name == "data" else f"{place.parent.name} {place.name}"
    name = [known, split if folds else "own split", recipe]
    words = [data, "--recipe", recipe, "--seeds", *args.seeds]
    words += ["--only-folds", *args.only_folds] if args.only_folds else []
    command = f"python benchmarks/studies/suite.py {shlex.join(map(str, words))}"
    found, clips = pooled(runs)
    return Row(", ".join(name), found, args.seeds, clips, command)


def run(out: Path, data: Path, recipe: str, seed: int, fold: int | None, folds: str) -> Path:
    """One training, unless it is finished; its folder."""
    where = "own" if fold is None else f"{fold}of{folds}"
    folder = out / f"{data.parent.name}-{data.name}-{Path(recipe).stem}-all" / f"seed{seed}-{where}"
    part = ["--fold", f"{fold}/{folds}"] if fold is not None else []
    return finished(folder, "train", data, "--recipe", recipe, "--seed", seed, *part)


def pooled(runs: dict[int, list[Path]]) -> tuple[dict[str, Figure], int]:
    """Figures of a row, each run weighted by its scored clips, and how many clips there are."""
    found = summary(runs)
    whole, int8 = found["files"]["model.onnx"], found["files"][SHIPPED]
    less, seeds = int8["minus_first"], list(int8["per_seed"].values())
    ms = frame_ms([int8["path"]])[int8["path"]]
    row = {
        "float32": figure(whole["accuracy"], *whole["interval"]),
        "int8": figure(int8["accuracy"], *int8["interval"]),
        "int8 - float32": figure(less["mean"], less["low"], less["high"]),
        "bytes": figure(int8["bytes"]),
        "minutes": figure(found["median_seconds_a_run"] / 60),
    }
    row |= {"ms a frame": figure(ms)} if ms is not None else {}
    row |= {"each seed": figure(", ".join(f"{100 * value:.1f}" for value in seeds))} if len(seeds) > 1 else {}
    return row | plainest([folder for folders in runs.values() for folder in folders]), int8["clips"]


def plainest(folders: list[Path]) -> dict[str, Figure]:
    """The best of the plain classifiers that every run has solved, and which it is; {} where there is none."""
    found: list[dict[str, Any]] = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    clips = [metrics["files"][SHIPPED]["clips"] for metrics in found]
    plain: dict[str, list[float]] = defaultdict(list)
    for metrics in found:
        for name, accuracy in metrics.get("baselines", {}).get("accuracy", {}).items():
            plain[name].append(accuracy)
    means = [
        (sum(value * of for value, of in zip(values, clips, strict=True)) / sum(clips), name)
        for name, values in plain.items()
        if len(values) == len(found)
    ]
    if not means:
        return {}
    best, which = max(means)
    return {"plain": figure(best), "which": figure(which)}


def cells(row: dict[str, Figure]) -> list[str]:
    """A row for people."""
    shown = {"float32": "{:.3f}", "int8": "{:.3f}", "int8 - float32": "{:+.3f}", "plain": "{:.3f}", "bytes": "{:,}"}
    values = [(row[name]["value"], shown.get(name, "{:.1f}")) if name in row else ("", "{}") for name in COLUMNS]
    return [value if isinstance(value, str) else form.format(value) for value, form in values]


if __name__ == "__main__":
    main()
