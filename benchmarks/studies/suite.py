"""One table over sets: auto, the old default, other recipes and the best plain classifier, on the files that ship.

Every run is `vidlet train` in a process of its own; finished runs are not repeated. Accuracy is that of the shipped
int8 file, pooled over folds and averaged over seeds; the plain classifier is the best of each run's `baselines`, chosen
on the pooled clips. Of `--few N ...` the same with so many training clips a class, drawn with the seed (a curve).

    python benchmarks/studies/suite.py ../shared/data/weizmann_actions:9 ../shared/data/egogestar:5 --seeds 0
    python benchmarks/studies/suite.py ../shared/data/egogestar:5 --only-folds 0 --few 5 10 20 50
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from real_clips import frame_ms

from vidlet.datasets import group_folds, read_table, with_splits
from vidlet.reports import text_table

SHIPPED = "model.int8.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="DATA[:FOLDS]", help="without FOLDS: the table's own splits")
    parser.add_argument("--recipe", nargs="+", default=["auto", "mobilenetv2-grid-gru"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--few", type=int, nargs="*", default=[0], help="training clips a class; 0: all")
    parser.add_argument("--only-folds", type=int, nargs="*", help="not all of the folds")
    parser.add_argument("--out", type=Path, default=Path("runs/suite"))
    args = parser.parse_args()
    rows = []
    for text in args.data:
        data, _, folds = text.partition(":")
        for few in args.few:
            for recipe in args.recipe:
                runs = [
                    run(args.out, Path(data), recipe, seed, fold, int(folds or 0), few)
                    for seed in args.seeds
                    for fold in (range(int(folds)) if folds else [None])
                    if not args.only_folds or fold in args.only_folds
                ]
                rows.append([Path(data).name, str(few or "all"), recipe, *figures(runs)])
    columns = [
        "set",
        "clips a class",
        "recipe",
        "int8",
        "int8 - float32",
        "plain",
        "which",
        "bytes",
        "ms a frame",
        "min",
    ]
    print(text_table(rows, columns, "lrlrrrlrrr"))


def run(out: Path, data: Path, recipe: str, seed: int, fold: int | None, folds: int, few: int) -> Path:
    """One training, unless it is finished; its folder."""
    where = "own" if fold is None else f"{fold}of{folds}"
    folder = out / f"{data.parent.name}-{data.name}-{Path(recipe).stem}-{few or 'all'}" / f"seed{seed}-{where}"
    if (folder / "report.html").exists():
        return folder
    command = [sys.executable, "-m", "vidlet.cli", "train", str(data), "--recipe", recipe, "--seed", str(seed)]
    if few:
        command[4] = str(fewer(folder.parent, data, seed, fold, folds, few))
    elif fold is not None:
        command += ["--fold", f"{fold}/{folds}"]
    subprocess.run([*command, "--out", str(folder), "--resume"], check=True)
    return folder


def fewer(folder: Path, data: Path, seed: int, fold: int | None, folds: int, few: int) -> Path:
    """A table with at most ``few`` training clips of each class, drawn with the seed; val and test as they were."""
    table = with_splits(read_table(data)) if fold is None else group_folds(read_table(data), folds)[fold]
    drawn, kept = random.Random(seed), []
    for label in table.labels:
        own = [clip for clip in table.of_split("train") if clip.label == label]
        kept += drawn.sample(own, min(few, len(own)))
    path = folder / f"few{few}-seed{seed}-fold{fold}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["path", "label", "group", "split"])
        for clip in [*kept, *table.of_split("val"), *table.of_split("test")]:
            writer.writerow([os.path.abspath(clip.path), clip.label, clip.group, clip.split])  # noqa: PTH100
    return path


def figures(runs: list[Path]) -> list[str]:
    """Cells of a row: pooled over runs, each weighted by its scored clips."""
    found: list[dict[str, Any]] = [json.loads((folder / "metrics.json").read_text()) for folder in runs]
    clips = [m["files"][SHIPPED]["clips"] for m in found]

    def pooled(values: list[float]) -> float:
        return 100 * sum(v * n for v, n in zip(values, clips, strict=True)) / sum(clips)

    int8 = pooled([m["files"][SHIPPED]["accuracy"] for m in found])
    whole = pooled([m["files"]["model.onnx"]["accuracy"] for m in found])
    plain: dict[str, list[float]] = defaultdict(list)
    for m in found:
        for name, accuracy in m.get("baselines", {}).get("accuracy", {}).items():
            plain[name].append(accuracy)
    best = max(((pooled(v), name) for name, v in plain.items() if len(v) == len(found)), default=(float("nan"), ""))
    paths = [str(folder / SHIPPED) for folder in runs[:1]]
    ms = frame_ms(paths)[paths[0]]
    minutes = statistics.median(m["seconds"] for m in found) / 60
    size = max(m["bytes"][SHIPPED] for m in found)
    shown = "" if ms is None else f"{ms:.1f}"
    return [f"{int8:.1f}", f"{int8 - whole:+.1f}", f"{best[0]:.1f}", best[1], f"{size:,}", shown, f"{minutes:.1f}"]


if __name__ == "__main__":
    main()
