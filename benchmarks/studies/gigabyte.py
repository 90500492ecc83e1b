"""The YouTube-8M system at its real size: does the path of a gigabyte hold, in bytes, seconds and memory?

Draws records of frame features in YouTube-8M's shape (1024 + 128 bytes a second, 3862 classes), trains the full-width
network (K32-H1024, 5 experts) and a smaller one by the recipe `gated-netvlad` for a number of updates, writes their
float32 and float16 files, joins those in one file under 1 GiB by `vidlet ensemble`, and loads and scores it. Each step
is the command as a user calls it, in a process of its own, whose seconds and peak memory are measured. The records are
drawn, and the training is short: GAP@20 only says that something was learned. With --keep, what was interrupted goes
on: a step that was finished is not run again, a training goes on after its last epoch (its row is of the last part).

    python benchmarks/studies/gigabyte.py --updates 10 --clips 800 40 60    # seven minutes of a core, 7 GB of memory
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidlet.datasets import Record, write_records
from vidlet.datasets.frame_record import quantize

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Row, add_option, figure, save

RGB, AUDIO = 1024, 128
FRAMES = (60, 120)  # of a record
NOISE = 0.6
BATCH = 160  # of the recipe
MEMBERS = {"K32-H1024": (32, 1024), "K16-H512": (16, 512)}
LIMIT = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=60, help="of each member (%(default)s)")
    parser.add_argument("--clips", type=int, nargs=3, default=[2400, 200, 200], help="train, validation, test")
    parser.add_argument("--classes", type=int, default=3862)
    parser.add_argument("--members", nargs="+", default=list(MEMBERS), help=f"of {', '.join(MEMBERS)}, or KC-HN")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes of the joint file (%(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for records and files; else a temporary one")
    parser.add_argument("--out", type=Path)
    add_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = study(args.keep or Path(folder), args.members, args.updates, args.clips, args.classes, args.limit)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))
    command = f"python benchmarks/studies/gigabyte.py --updates {args.updates} --clips {' '.join(map(str, args.clips))}"
    save(args, "gigabyte", [as_row(row, args.clips[2], command) for row in found], TRAINED)


def as_row(found: dict[str, Any], scored: int, command: str) -> Row:
    """A step as a row of benchmarks/figures/gigabyte.jsonl."""
    kept = {key: figure(found[key]) for key in ("seconds", "cpu_seconds", "peak_bytes", "gap20")}
    kept |= {name.removesuffix(".onnx"): figure(size) for name, size in found["files"].items()}
    if found["members"]:
        kept["members"] = figure(", ".join(f"{name} {weight:.2f}" for name, weight in found["members"].items()))
    return Row(found["step"], kept, (0,), scored, command)


def study(
    folder: Path, members: Sequence[str], updates: int, clips: Sequence[int], classes: int, limit: int = LIMIT
) -> list[dict[str, Any]]:
    """A row for each step: its command, seconds, peak memory, the bytes of what it wrote, and GAP@20."""
    data, log = folder / "records", folder / "steps.jsonl"
    if not data.exists():
        shutil.rmtree(folder / "drawn", ignore_errors=True)
        draw(folder / "drawn", clips, classes).rename(data)
    known = {row["step"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}

    def step(name: str, *words: object) -> None:
        if name not in known:
            known[name] = measured(name, *words)
            with log.open("a") as sink:
                sink.write(json.dumps(known[name]) + "\n")

    for name in members:
        clusters, hidden = sizes_of(name)
        epochs = max(1, round(updates * BATCH / clips[0]))
        changed = {
            "head.options.clusters": clusters, "head.options.hidden": hidden, "training.least_updates": 0,
            "training.epochs": epochs, "training.lr": 1e-3,
        }  # fmt: skip
        options = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
        own = ("--recipe", "gated-netvlad", *options, "--resume", "--out", folder / name)
        step(f"train {name}", "train", data, *own)
    runs = [folder / name for name in members]
    joint = folder / "joint"
    step("ensemble", "ensemble", data, *runs, "--file", "model.half.onnx", "--max-size", limit, "--out", joint)
    step("evaluate", "evaluate", joint / "model.onnx", data)
    return list(known.values())


def sizes_of(name: str) -> tuple[int, int]:
    """Clusters and hidden units of KC-HN."""
    clusters, hidden = name.removeprefix("K").split("-H")
    return int(clusters), int(hidden)


def draw(folder: Path, clips: Sequence[int], classes: int) -> Path:
    """Shards of records: each frame is the center of one of the record's classes, and noise; frequent classes first."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((classes, RGB + AUDIO)).astype(np.float32)
    share = np.arange(1, classes + 1) ** -0.8
    share /= share.sum()

    def record(name: str) -> Record:
        own = np.unique(rng.choice(classes, int(rng.integers(1, 6)), p=share))
        shown = rng.choice(own, int(rng.integers(*FRAMES)))
        frames = 0.5 * centers[shown] + NOISE * rng.standard_normal((len(shown), RGB + AUDIO), np.float32)
        codes = quantize(frames)
        return Record(name, tuple(own.tolist()), {"rgb": codes[:, :RGB], "audio": codes[:, RGB:]})

    for split, count in zip(("train", "validate", "test"), clips, strict=True):
        for shard, begin in enumerate(range(0, count, 400)):
            some = (record(f"{split}{i}") for i in range(begin, min(begin + 400, count)))
            write_records(folder / f"{split}{shard:04}.tfrecord", some)
    (folder / "classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
    return folder


def measured(step: str, *words: object) -> dict[str, Any]:
    """Run `vidlet WORDS --json` in a process of its own; what it took and what it made.

    Raises:
        RuntimeError: it failed.
    """
    began = time.monotonic()
    called = [sys.executable, "-m", "vidlet", *map(str, words), "--json"]
    with subprocess.Popen(called, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{step}: exit status {process.returncode}")
    result = json.loads(told)
    figures = result.get("metrics", result)
    row = {
        "step": step,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
        "files": {name: size for name, size in result.get("files", {}).items() if name.endswith(".onnx")},
        "gap20": figures.get("gap20"),
        "members": figures.get("ensemble", {}).get("members"),
    }
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
