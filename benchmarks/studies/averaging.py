"""Ways of averaging weights, on the built-in records: GAP@20 of files, each from one and the same training.

    last        the weights after the last update
    best        the checkpoint that is best on the validation records
    mean        of as many of the last 16 checkpoints as validate best, running statistics averaged with the rest
    estimated   the same mean, its running statistics measured anew in one pass over the training records
    ema         a moving average over all updates, statistics included, of each decay

    python benchmarks/studies/averaging.py --seeds 0 1 2 --members K16-H64 nextvlad-K16-H128

Chosen on the validation records, told of the test records, of float32 files through the runtime. The rate is constant,
as the paper's is between its steps. Each line ends with the difference to the best single checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from frame_features import STEPS, best_single_, figures, recipe_of

from vidlet.compression import Trained
from vidlet.datasets import ClipTable
from vidlet.datasets.residual import render_residual
from vidlet.metrics import gap
from vidlet.models import build_head
from vidlet.recipe import Averaging, Recipe
from vidlet.reports import text_table
from vidlet.tasks.clip_networks import Workshop
from vidlet.tasks.clips import labelled_clips
from vidlet.tasks.prepare import Prepared
from vidlet.tasks.prepare_records import extractor_for, prepare_clips, recipe_for
from vidlet.training import ClipNetwork, predict_logits, train_network
from vidlet.training.snapshots import Snapshots


def main() -> None:
    """Train, average, print a row a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--members", nargs="+", default=["K16-H64", "nextvlad-K16-H128"])
    parser.add_argument("--decays", type=float, nargs="+", default=[0.98, 0.995, 0.999])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--clips", type=int, nargs=3, default=[6000, 1500, 1500], help="train, validation, test")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in args.members}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            render_residual(folder / "records", *args.clips, seed=seed, classes=60)
            table = labelled_clips(folder / "records", stored=True)
            for name in args.members:
                plan = recipe_for(recipe_of(name, seed, args.steps, args.clips[0], ()), table)
                for way, value in ways(plan, table, folder / name, args.decays).items():
                    found[name].setdefault(way, []).append(value)
    if args.json:
        print(json.dumps(found))
        return
    rows = [
        [name, way, *(f"{value:.4f}" for value in values), f"{statistics.mean(values):.4f}", f"{_gain(of, way):+.4f}"]
        for name, of in found.items()
        for way, values in of.items()
    ]
    head = ["member", "weights", *(f"seed {seed}" for seed in args.seeds), "mean", "- best"]
    print(text_table(rows, head))


def _gain(of: dict[str, list[float]], way: str) -> float:
    return statistics.mean(a - b for a, b in zip(of[way], of["best"], strict=True))


def ways(plan: Recipe, table: ClipTable, folder: Path, decays: list[float]) -> dict[str, float]:
    """GAP@20 of the file of each way, on the test records."""
    extractor = extractor_for(plan, table)
    prepared = prepare_clips(plan, table, extractor, strict=True)
    workshop = Workshop(plan, table, prepared, extractor)
    test = table.of_split("test")
    network = trained(plan, table, prepared, folder)

    def scored(of: ClipNetwork) -> float:
        folder.mkdir(parents=True, exist_ok=True)
        workshop.write(Trained(extractor, of.head.eval()), (), folder / "model.onnx")
        return float(figures(folder / "model.onnx", test)["gap20"])

    estimated = copy.deepcopy(network)  # what training leaves
    snapshots = Snapshots(plan.training.averaging.last, plan.training.averaging.every, folder)
    network.load_state_dict(snapshots.mean(snapshots.updates()[-1:]))
    found = {"last": scored(network)}
    best_single_(network, folder, plan, prepared)
    found["best"] = scored(network)
    truth = prepared.val.targets > 0.5
    snapshots.choose_(network, lambda: gap(predict_logits(network, prepared.val, plan.training.batch), truth))
    found |= {"mean": scored(network), "estimated": scored(estimated)}
    for decay in decays:
        config = replace(plan.training, averaging=Averaging(decay))
        found[f"ema {decay:g}"] = scored(trained(replace(plan, training=config), table, prepared, None))
    return found


def trained(plan: Recipe, table: ClipTable, prepared: Prepared, folder: Path | None) -> ClipNetwork:
    """The network after a training; the same draws every time, whatever is averaged."""
    torch.manual_seed(plan.training.seed)
    head = build_head(plan.head, extractor_for(plan, table).feature_shape, len(table.labels))
    network = ClipNetwork(head)
    clips, config = (prepared.train, prepared.val), plan.training
    train_network(network, *clips, config, folder, multi_label=True, moments=prepared.moments)
    return network


if __name__ == "__main__":
    main()
