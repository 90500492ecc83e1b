"""Runs that benchmarks measure: a command of vidlet in a process of its own, unless its folder is finished."""

from __future__ import annotations

import csv
import hashlib
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.metrics import bootstrap_interval, paired_bootstrap

DONE = "report.html"  # what `train` and `fit` write last
RECIPE = "mobilenetv2-grid-gru"  # where one model stands for all
CHAINS = ("int8", "int8+compact", "head4+int8+compact", "int4+compact", "half", "weights8+compact", "codebook")


def finished(folder: Path, *words: object) -> Path:
    """The folder of ``vidlet WORDS --out FOLDER``: run now, gone on with, or as it stands where it is finished."""
    if not (folder / DONE).exists():
        command = [sys.executable, "-m", "vidlet.cli", *map(str, words), "--out", str(folder)]
        subprocess.run([*command, *(["--resume"] if folder.exists() else [])], check=True)
    return folder


def tested(data: Path, out: Path) -> str:
    """DATA; where its clips.csv has no test clips, a table in ``out`` in which its val clips are called test.

    Records stay as they are.
    """
    table = data / "clips.csv"
    if not table.is_file():
        return str(data)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    splits = {row.get("split") for row in rows}
    if "test" in splits or "val" not in splits or "path" not in rows[0]:
        return str(data)
    made = out / "tested" / data.name / "clips.csv"
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            split = "test" if row.get("split") == "val" else row.get("split", "")
            writer.writerow({**row, "path": (data / row["path"]).resolve(), "split": split})
    return str(made.parent)


def stored(data: Path, recipe: str, chains: Sequence[str] = CHAINS, out: Path = Path("runs/models")) -> Path:
    """The run of a recipe on a set's own split, seed 0, with a file of each chain: what benchmarks of files share."""
    written = ["--set", f"compress={json.dumps(list(chains))}"]
    name = "-".join([data.name, recipe, *(chains if tuple(chains) != CHAINS else ())])
    return finished(out / folder_name(name), "train", data, "--recipe", recipe, "--seed", 0, *written)


def folder_name(name: str) -> str:
    """A name that a file system takes: of a long one the beginning, and its hash."""
    plain = name.replace("/", "_").replace(" ", "")
    return plain if len(plain) <= 120 else f"{plain[:100]}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"


def chain_of(file: str) -> str:
    """The chain that a file of a run is named for."""
    return file.removesuffix(".onnx").removeprefix("model").lstrip(".") or "float32"


def summary(runs: dict[int, list[Path]]) -> dict[str, Any]:
    """Pooled figures of every file name; ``path`` is that of the first run."""
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
            "path": str(runs[min(runs)][0] / file),
        }
    return {"files": files, "median_seconds_a_run": statistics.median(seconds), "runs": len(seconds)}
