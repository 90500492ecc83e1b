"""Detectors of boxes, trained and found within a budget, by the files that ship: the rows of docs/results.md.

    python benchmarks/studies/boxes.py ../shared/data/detection/bccd --only tiny-yolov2-0.25 --seeds 0
    python benchmarks/studies/boxes.py ../shared/data/detection/bccd --epochs 2 --out runs/boxes-quick

Every run is `vidlet train` or `vidlet fit` in a process of its own; finished runs are not repeated. Files are scored
through the runtime on the test images: mAP at .5 (VOC, area), and .5:.95 (COCO), the means over seeds. Intervals (95 %)
resample images, the same ones for every file and seed, of the mean over seeds; int8 is compared with float32 in pairs.
`--figures` writes a row a network when it is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidlet.datasets import BoxTable
from vidlet.metrics import detection_summary, map50_samples
from vidlet.reports import text_table
from vidlet.runtime import load
from vidlet.tasks.boxes import ScoredImages, read_box_images, score_images
from vidlet.tasks.task import DataSource

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Figure, Row, add_option, figure, save
from runs import chain_of, finished

SMALL = "--set extractor.input_size=[224,224] --set training.averaging.decay=0.98"  # for so few epochs
NETWORKS = {
    "tiny-yolov2-0.25": (f"train --recipe tiny-yolov2 --set extractor.width=0.25 {SMALL} --set training.lr=3e-3", 40),
    "tiny-yolov2-0.5": (f"train --recipe tiny-yolov2 --set extractor.width=0.5 {SMALL}", 60),
    "mobilenetv2-boxes": ("train --recipe mobilenetv2-boxes", 20),
    "fit-1MB": ("fit --max-size 1MB --time 12m --workers 1", 0),
}
"""What is run of each, and for how many epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--epochs", type=int, default=0, help="of the trainings; 0: each its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/boxes"))
    add_option(parser)
    args = parser.parse_args()
    table = read_box_images(DataSource(args.data)).of_split("test")
    rows = []
    for network in args.only:
        row = measured(args, network, table)
        searched = NETWORKS[network][0].startswith("fit")
        save(args, "boxes", [row], (*TRAINED, "search") if searched else TRAINED)
        rows.append([row.name, *(cell(row.figures[key]) if key in row.figures else "" for key in KEYS)])
    print(text_table(rows, ["network", *KEYS]))


def measured(args: argparse.Namespace, network: str, table: BoxTable) -> Row:
    """Run it with each seed, unless that is done, and score its files."""
    words, epochs = NETWORKS[network]
    epochs = epochs and (args.epochs or epochs)
    words += f" --epochs {epochs}" if epochs else ""
    kind, *options = shlex.split(words)
    folders = []
    for seed in args.seeds:
        folder = args.out / args.data.name / f"{network}-{epochs}" / f"seed{seed}"
        folders.append(finished(folder, kind, args.data, *options, "--seed", seed))
    command = f"python benchmarks/studies/boxes.py {shlex.quote(str(args.data))} --only {network}"
    command += f" --epochs {args.epochs}" if args.epochs else ""
    command += f" --seeds {' '.join(map(str, args.seeds))}"
    name = f"{args.data.name}, {network.replace('-', ', ', 1) if kind == 'fit' else network}"
    name += f", {epochs} epochs" if epochs else ""
    return Row(name, figures_of(folders, table), args.seeds, len(table), command)


def figures_of(folders: Sequence[Path], table: BoxTable) -> dict[str, Figure]:
    """Figures of each file of the runs, named by its chain; of a search those of the one file that it found."""
    found: dict[str, Figure] = {}
    draws: dict[str, NDArray[np.float64]] = {}
    told = [json.loads((folder / "metrics.json").read_text("utf-8")) for folder in folders]
    for file in told[0]["bytes"]:
        chain = (told[0].get("chosen") or {}).get("chain") or chain_of(file)
        models = [load(folder / file, threads=1) for folder in folders]
        scored = [score_images(model, table) for model in models]
        summaries = [detection_summary(each.detections, each.truths, each.labels) for each in scored]
        draws[chain] = np.mean([resampled(each) for each in scored], axis=0)
        map50, low, high = float(np.mean([s["map50"] for s in summaries])), *bounds(draws[chain])
        found[f"{chain}, mAP .5"] = figure(map50, low, high)
        found[f"{chain}, mAP .5:.95"] = figure(float(np.mean([s["map50_95"] for s in summaries])))
        found[f"{chain}, bytes"] = figure(max(model.bytes for model in models))
        found[f"{chain}, ms"] = figure(1e3 * statistics.median(s for each in scored for s in each.image_s))
        if len(draws) > 1:
            less = map50 - float(found["float32, mAP .5"]["value"])
            found[f"{chain} - float32"] = figure(less, *bounds(draws[chain] - draws["float32"]))
    if "chosen" in told[0]:
        found["what"] = figure(f"{told[0]['chosen']['name']}, {told[0]['chosen']['epochs']} epochs")
    return found | {"minutes": figure(statistics.median(metrics["seconds"] for metrics in told) / 60)}


def resampled(scored: ScoredImages) -> NDArray[np.float64]:
    """mAP at .5 of draws of the images, the same draws whatever the file."""
    return map50_samples(scored.detections, scored.truths, len(scored.labels))


def bounds(samples: NDArray[np.float64]) -> tuple[float, float]:
    """Of 95 %."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


KEYS = ("float32, mAP .5", "float32, mAP .5:.95", "int8, mAP .5", "int8, mAP .5:.95", "int8 - float32", "int8, bytes")


def cell(found: Figure) -> str:
    """A figure for people."""
    value = found["value"]
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
