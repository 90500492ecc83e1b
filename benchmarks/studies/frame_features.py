"""The YouTube-8M system in small, on files: NetVLAD against the mean on the built-in "paired residual" records, and
what averaging, storage and ensembles do to GAP@20.

Trains members of several sizes (batch 32, constant rate, 30 drawn frames, a checkpoint every 50 steps, of the last 16
as many averaged as validate best), writes each as float32, float16, 8-bit, codebook and 4-bit files beside that of
its best single checkpoint, and searches the ensembles that fit 700,000 bytes among the files of one storage and among
all. Checkpoints and members are chosen on the validation records; every figure is a file's on the test records,
through the runtime. Then the gates.

    python benchmarks/studies/frame_features.py --seeds 0 --out frame_features.json
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vidlet.compression import Trained, find_chain
from vidlet.compression.chain import file_name
from vidlet.datasets import ClipTable
from vidlet.datasets.residual import render_residual
from vidlet.errors import DataError
from vidlet.jobs.ensemble import ensemble
from vidlet.metrics import gap
from vidlet.models import build_head
from vidlet.recipe import Head, Recipe, load_recipe
from vidlet.runs import RunFolder
from vidlet.runtime import load
from vidlet.tasks.clip_networks import Workshop
from vidlet.tasks.clips import labelled_clips, score_clips, summarize
from vidlet.tasks.networks import write_files
from vidlet.tasks.prepare import Prepared
from vidlet.tasks.prepare_records import extractor_for, prepare_clips, recipe_for
from vidlet.training import ClipNetwork, predict_logits, train_network
from vidlet.training.snapshots import Snapshots

LIMIT = 700_000
VLAD = {"experts": 2, "sampled": 30, "momentum": 0.02}
MEAN = {"top": 0, "deviation": False, "hidden": 256, "experts": 2, "standardize": False, "momentum": 0.02}
MEMBERS = {
    "mean-H256": Head("pooled", MEAN),
    "netfv-K8-H64": Head("netfv", VLAD | {"clusters": 8, "hidden": 64}),
    "nextvlad-K16-H128": Head("nextvlad", VLAD | {"clusters": 16, "groups": 4, "hidden": 128}),
}
USUAL = ("mean-H256", "K16-H64", "K8-H64", "K16-H32", "K32-H64", "K16-H96", "netfv-K8-H64", "nextvlad-K16-H128")
STEPS, BATCH = 1600, 32
CHAINS = ("half", "int8", "codebook", "head4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--members", nargs="+", default=list(USUAL), help=f"KC-HN, or {', '.join(MEMBERS)}")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--clips", type=int, nargs=3, default=[6000, 1500, 1500], help="train, validation, test")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes of an ensemble (%(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for records and files; else a temporary one")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            place = (args.keep or Path(folder)) / str(seed)
            found[seed] = one_seed(place, seed, args.members, args.steps, args.clips, args.limit)
            found[seed]["gates"] = gates(found[seed])
        print(json.dumps({seed: found[seed]}, indent=1), flush=True)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1))


def one_seed(
    folder: Path,
    seed: int,
    names: list[str],
    steps: int,
    clips: list[int],
    limit: int,
    classes: int = 60,
    chains: tuple[str, ...] = CHAINS,
) -> dict[str, Any]:
    """All figures of one world of the generator; the files stay in ``folder``."""
    records = folder / "records"
    if not records.exists():
        render_residual(records, *clips, seed=seed, classes=classes)
    table = labelled_clips(records, stored=True)
    prepared = None
    found: dict[str, Any] = {"members": {}, "limit": limit}
    for name in names:
        plan = recipe_for(recipe_of(name, seed, steps, clips[0], chains), table)
        if prepared is None:
            prepared = prepare_clips(plan, table, extractor_for(plan, table), strict=True)
        found["members"][name] = train_member(folder / name, plan, table, prepared)
        print(seed, name, json.dumps(found["members"][name]), flush=True)
    runs = [folder / name for name in names]
    for kind, file in (("half", "model.half.onnx"), ("int8", "model.int8.onnx"), ("any", "")):
        found[f"ensemble {kind}"] = best_ensemble(folder / f"ensemble-{kind}", records, runs, file, limit)
    return found


def recipe_of(name: str, seed: int, steps: int, clips: int, chains: tuple[str, ...] = CHAINS) -> Recipe:
    """The recipe of a member, of about so many steps."""
    plan = load_recipe("gated-netvlad-small")
    training = replace(plan.training, epochs=max(1, round(steps * BATCH / clips)), batch=BATCH, seed=seed)
    training = replace(training, averaging=replace(training.averaging, every=max(1, steps // 32)))
    return replace(plan, name=name, head=head_of(name), training=training, compress=chains)


def head_of(name: str) -> Head:
    """A named member, or NetVLAD of other sizes by its name, as in K4-H128."""
    size = re.fullmatch(r"K(\d+)-H(\d+)", name)
    return Head("netvlad", VLAD | {"clusters": int(size[1]), "hidden": int(size[2])}) if size else MEMBERS[name]


def train_member(folder: Path, plan: Recipe, table: ClipTable, prepared: Prepared) -> dict[str, Any]:
    """Train one member, write its files, score each on the test records."""
    started = time.process_time()
    torch.manual_seed(plan.training.seed)
    extractor = extractor_for(plan, table)
    head = build_head(plan.head, extractor.feature_shape, len(table.labels))
    network = ClipNetwork(head)
    clips, config = (prepared.train, prepared.val), plan.training
    train_network(network, *clips, config, folder, multi_label=True, moments=prepared.moments)
    row: dict[str, Any] = {"train_cpu_s": round(time.process_time() - started, 1)}
    workshop = Workshop(plan, table, prepared, extractor)
    chains = [find_chain(text) for text in plan.compress]
    write_files(workshop, Trained(extractor, head), chains, RunFolder(folder))
    best_single_(network, folder, plan, prepared)
    (folder / "single").mkdir(exist_ok=True)
    workshop.write(Trained(extractor, head), (), folder / "single" / "model.onnx")
    test = table.of_split("test")
    files = {"float32": "model.onnx", "single": "single/model.onnx"}
    files |= {text: file_name(find_chain(text)) for text in plan.compress}
    for kind, file in files.items():
        row[kind] = figures(folder / file, test)
    row["cpu_s"] = round(time.process_time() - started, 1)
    return row


def best_single_(network: ClipNetwork, folder: Path, plan: Recipe, prepared: Prepared) -> None:
    """Put the checkpoint that is best on the validation records into the network."""
    snapshots = Snapshots(plan.training.averaging.last, plan.training.averaging.every, folder)
    truth = prepared.val.targets > 0.5
    best = (-1.0, 0)
    for updates in snapshots.updates():
        network.load_state_dict(snapshots.mean([updates]))
        best = max(best, (gap(predict_logits(network, prepared.val, 250), truth), updates))
    network.load_state_dict(snapshots.mean([best[1]]))
    network.eval()


def figures(path: Path, clips: ClipTable) -> dict[str, Any]:
    """What a file says of clips."""
    model = load(path, threads=1)
    found = summarize(score_clips(model, clips, strict=True), model)
    return {key: found[key] for key in ("gap20", "hit1", "perr", "map", "bytes")}


def best_ensemble(out: Path, records: Path, runs: list[Path], file: str, limit: int) -> dict[str, Any]:
    """The ensemble of files of one storage, or of all, that fits; and the best of its members alone."""
    try:
        metrics = ensemble(records, runs, limit, out, file)["metrics"]
    except DataError as error:
        return {"error": str(error)}
    return {
        "members": metrics["ensemble"]["members"],
        "bytes": metrics["bytes"]["model.onnx"],
        "gap20_val": metrics["ensemble"]["gap20_val"],
        "gap20": metrics["gap20"],
        "members_gap20": {name: member["gap20"] for name, member in metrics["members"].items()},
    }


def gates(found: dict[str, Any]) -> dict[str, Any]:
    """Section 7's gates: name -> [value, bound, held]; of the first NetVLAD beside the mean."""
    members, rows = found["members"], {}
    vlad = next((name for name in members if name.startswith("K")), None)
    if vlad is None:
        return rows
    own = {kind: members[vlad][kind]["gap20"] for kind in members[vlad] if isinstance(members[vlad][kind], dict)}
    if "mean-H256" in members:
        _gate(rows, "NetVLAD - mean", own["float32"] - members["mean-H256"]["float32"]["gap20"], 0.25)
    _gate(rows, "averaged - best single", own["float32"] - own["single"], 0.01)
    _gate(rows, "-|float16 - float32|", -abs(own["half"] - own["float32"]), -2e-4)
    _gate(rows, "-|int8 - float32|", -abs(own["int8"] - own["float32"]), -2e-3)
    if "head4" in own:
        _gate(rows, "float32 - 4 bits", own["float32"] - own["head4"], 2e-3)
    for kind in ("half", "int8", "any"):
        chosen = found[f"ensemble {kind}"]
        if "error" not in chosen:
            best = max(chosen["members_gap20"].values())
            _gate(rows, f"ensemble {kind} - its best member", chosen["gap20"] - best, 0.0)
            _gate(rows, f"limit - bytes, {kind}", found["limit"] - chosen["bytes"], 0)
    if not any("error" in found[f"ensemble {kind}"] for kind in ("half", "int8")):
        _gate(rows, "ensemble int8 - half", found["ensemble int8"]["gap20"] - found["ensemble half"]["gap20"], 0.0)
    return rows


def _gate(rows: dict[str, Any], name: str, value: float, bound: float) -> None:
    rows[name] = [value, bound, value >= bound]


if __name__ == "__main__":
    main()
