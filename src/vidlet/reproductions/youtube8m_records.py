"""Liu and Liu's experiment on records at hand, in small: models of several sizes, each averaged and not, in float16 and
in 8 bits, and the best ensembles of them within a limit; then their claims, one by one.

Video-level records (one vector a video) get the mean with a mixture of experts, frame-level ones gated NetVLAD. Members
of ensembles, and how many checkpoints are averaged, are chosen on validation records, every figure is a file's on test
records; where there are none, half of the validation records' groups test.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compression import find_chain
from ..compression.chain import file_name
from ..datasets import ClipTable
from ..errors import DataError
from ..metrics import gap
from ..progress import say
from ..recipe import Recipe, load_recipe, recipe_to_dict
from ..runs import MODEL, RunFolder
from ..runtime import load
from ..tasks import TASKS
from ..tasks.clips import figures_of, labelled_clips
from ..tasks.ensemble import join_best, open_members
from ..tasks.networks import Order, write_files
from ..training import ClipNetwork, predict_logits
from ..training.snapshots import Snapshots
from .rows import Row, table

if TYPE_CHECKING:
    from .experiment import Effort

EPOCHS = 10
HIDDEN = (64, 128, 256, 512)  # of the mean with experts
SIZES = ((8, 64), (16, 32), (16, 64), (32, 64))  # clusters and hidden units of NetVLAD
CHAINS = {"float16": "half", "8 bits": "int8", "half of the weights, float16": "prune:0.5+half+sparse"}
SINGLE = "best checkpoint"
LIMIT = 2**30 / (381.40 * 2**20)  # of an ensemble, in files of the largest model in float16
PRINTED = {"averaging": 0.0039, "compression": 0.485, "ensemble": 0.8821 - 0.8744, "members": 4}


def run_records(tables: list[dict[str, Any]], data: str | Path, effort: Effort, log: Path) -> int:
    """Train the members, join the best, and add their tables; how many records were scored.

    ``log`` gets a line a finished run, which is not run again; the files lie in the folder of its name.

    Raises:
        DataError: the data are no records, or each has one label.
    """
    records = split_records(labelled_clips(data, stored=True), effort.clips)
    found: dict[str, list[dict[str, Any]]] = {}
    known = {row["key"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    folder = log.with_suffix("")
    prepared: Any = None
    joined: list[list[dict[str, Any]]] = []
    for seed in range(effort.seeds):
        own = folder / f"seed{seed}"
        runs: list[Path] = []
        for plan in members(records, effort.epochs or EPOCHS, {**effort.overrides, "training.seed": seed}):
            key = json.dumps([records.sha256(), recipe_to_dict(plan)], sort_keys=True)
            key = hashlib.sha256(key.encode()).hexdigest()
            run = RunFolder(own / f"{plan.name}-{key[:8]}")
            if key not in known or not (run / MODEL).exists():
                networks = TASKS["records"].networks()
                if prepared is None:
                    prepared = networks.prepare(plan, records, networks.build(plan, records, None), False)
                known[key] = {"key": key, "name": plan.name, "seed": seed} | train_member(
                    run, plan, records, prepared, effort.device
                )
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as sink:
                    sink.write(json.dumps(known[key]) + "\n")
                say(f"{plan.name}, seed {seed}: GAP@20 {known[key]['float32']['gap20']:.4f}")
            found.setdefault(plan.name, []).append(known[key])
            runs.append(run.path)
        largest = max(rows[-1]["float16"]["bytes"] for rows in found.values())
        joined.append([best_ensemble(own, records, runs, kind, int(LIMIT * largest)) for kind in ("float16", "8 bits")])
    tables += [_members_table(found), _ensembles_table(joined), _claims(found, joined)]
    return len(records.of_split("test"))


def split_records(records: ClipTable, share: float) -> ClipTable:
    """A share of the records of each split; where none test, half of the validation groups do.

    Raises:
        DataError: no records of several labels.
    """
    if records.records is None or not records.multi_label:
        raise DataError(f"{records.root}: youtube8m takes records of stored features that have several labels")
    rng = np.random.default_rng(0)
    chosen: list[int] = []
    for split in ("train", "val", "test"):
        rows = [i for i, clip in enumerate(records) if clip.split == split]
        chosen += rng.permutation(rows)[: max(1, round(share * len(rows)))].astype(int).tolist()
    clips = [records.clips[i] for i in sorted(chosen)]
    if not any(clip.split == "test" for clip in clips):
        groups = sorted({clip.group or f"{clip.path}" for clip in clips if clip.split == "val"})
        tested = set(groups[1::2])
        own = [clip.split == "val" and (clip.group or f"{clip.path}") in tested for clip in clips]
        clips = [replace(clip, split="test") if test else clip for clip, test in zip(clips, own, strict=True)]
    return records.with_clips(clips)


def members(records: ClipTable, epochs: int, changed: Mapping[str, Any]) -> list[Recipe]:
    """The recipes of the models: sizes by how many hidden units (and clusters) they have."""
    assert records.records is not None
    frames = np.median([records.records.frames[clip.row] for clip in records if clip.row is not None])
    usual = {"training.epochs": epochs, "compress": list(CHAINS.values()), **changed}
    if frames > 1:
        sizes = {f"K{k}-H{h}": {"head.options.clusters": k, "head.options.hidden": h} for k, h in SIZES}
        plans = {name: load_recipe("gated-netvlad-small", size | usual) for name, size in sizes.items()}
    else:
        heads = {f"mean-H{h}": {"head.options.hidden": h} for h in HIDDEN}
        mean = {
            "head.options.hidden_dropout": 0.3,
            "head.options.standardize": True,
            "training.batch": 128,
            "training.averaging.every": 40,
        }
        plans = {name: load_recipe("records-mean", size | mean | usual) for name, size in heads.items()}
    return [replace(plan, name=name) for name, plan in plans.items()]


def train_member(run: RunFolder, plan: Recipe, records: ClipTable, prepared: Any, device: str) -> dict[str, Any]:
    """Train a model and write its files; GAP@20 and bytes of each on the test records.

    A training that was interrupted goes on after its last epoch. The best single checkpoint is the one that is best on
    the validation records, as its own file.
    """
    networks = TASKS["records"].networks()
    plan = networks.resolve(plan, records, device, {})
    network = networks.build(plan, records, None)
    order = Order(plan, plan.training, records, run, run.path.name, device, resume=True, title=plan.name)
    progress = networks.fit(network, prepared, order)
    writer = networks.writer(plan, records, network, prepared, device)
    chains = [find_chain(text) for text in plan.compress]
    write_files(writer, network, chains, run)
    files = {"float32": MODEL, **{kind: file_name(find_chain(text)) for kind, text in CHAINS.items()}}
    snapshots = Snapshots(plan.training.averaging.last, plan.training.averaging.every, run.path)
    if snapshots.updates():
        best_single_(ClipNetwork(network.head), snapshots, prepared)
        files[SINGLE] = "single.onnx"
        writer.write(network, (), run / files[SINGLE])
    test = records.of_split("test")
    found = {kind: _figures(run / name, test) for kind, name in files.items()}
    found.setdefault(SINGLE, found["float32"])
    return {**found, "scored": len(test), "warnings": progress.warnings}


def best_single_(network: ClipNetwork, snapshots: Snapshots, prepared: Any) -> None:
    """Put the checkpoint that is best on the validation records into the network."""
    truth, best = prepared.val.targets > 0.5, (-1.0, 0)
    for updates in snapshots.updates():
        network.load_state_dict(snapshots.mean([updates]))
        best = max(best, (gap(predict_logits(network, prepared.val, 250), truth), updates))
    network.load_state_dict(snapshots.mean([best[1]]))
    network.eval()


def best_ensemble(folder: Path, records: ClipTable, runs: Sequence[Path], kind: str, limit: int) -> dict[str, Any]:
    """The best joint file of one storage within a limit, and the best file of it that fits alone.

    Returns:
        ``gap20``, ``bytes``, ``members`` (how many), ``alone`` (GAP@20 of the member that validates best), ``limit``.
    """
    run = RunFolder(folder / f"ensemble {kind}")
    run.model.unlink(missing_ok=True)
    opened = open_members(runs, file_name(find_chain(CHAINS[kind])))
    metrics = join_best(run, records, opened, limit, data=str(records.root))["metrics"]
    candidates = metrics["ensemble"]["candidates"]
    best = max(candidates, key=lambda name: candidates[name]["gap20_val"])
    alone = next(member.model for member in opened if member.name == best)
    return {
        "gap20": metrics["gap20"],
        "bytes": metrics["bytes"][MODEL],
        "members": len(metrics["ensemble"]["members"]),
        "alone": figures_of(alone, records.of_split("test"))["gap20"],
        "limit": limit,
    }


def _figures(path: Path, clips: ClipTable) -> dict[str, Any]:
    found = figures_of(load(path, threads=1), clips)
    return {"gap20": found["gap20"], "bytes": path.stat().st_size}


def _measured(name: str, unit: str, values: Sequence[float], printed: float | None = None) -> Row:
    digits = 0 if unit in ("bytes", "count") else 4
    value = round(statistics.mean(values), digits)
    return {
        "name": name, "unit": unit, "printed": printed, "recomputed": None, "measured": value if digits else int(value),
    }  # fmt: skip


def _members_table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    rows = []
    for name, runs in found.items():
        for kind in ("float32", SINGLE, *CHAINS):
            what = "averaged checkpoints" if kind == "float32" else kind
            rows.append(_measured(f"{name}, {what}", "GAP@20", [run[kind]["gap20"] for run in runs]))
        for kind in ("float32", *CHAINS):
            rows.append(_measured(f"{name}, {kind}: bytes", "bytes", [run[kind]["bytes"] for run in runs]))
    return table("On these records: single models", rows)


def _ensembles_table(joined: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    rows = []
    for place, kind in enumerate(("float16", "8 bits")):
        own = [pair[place] for pair in joined]
        rows += [
            _measured(f"limit, {kind}", "bytes", [one["limit"] for one in own]),
            _measured(f"best ensemble, {kind}", "GAP@20", [one["gap20"] for one in own]),
            _measured(f"its members, {kind}", "count", [one["members"] for one in own]),
            _measured(f"its file, {kind}", "bytes", [one["bytes"] for one in own]),
            _measured(f"best of its members alone, {kind}", "GAP@20", [one["alone"] for one in own]),
        ]
    return table("On these records: ensembles within a limit", rows)


def _claims(
    found: Mapping[str, Sequence[Mapping[str, Any]]], joined: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What the paper says of averaging, float16 and ensembles, as differences, printed beside measured."""
    runs = [run for own in found.values() for run in own]

    def change(kind: str, base: str) -> list[float]:
        return [run[kind]["gap20"] - run[base]["gap20"] for run in runs]

    half = [1 - run["float16"]["bytes"] / run["float32"]["bytes"] for run in runs]
    both, eight = ([pair[place] for pair in joined] for place in (0, 1))
    rows = [
        _measured("averaged - best checkpoint, mean", "GAP@20", change("float32", SINGLE), PRINTED["averaging"]),
        _measured("float16 - float32, largest", "GAP@20", [max(map(abs, change("float16", "float32")))], 0.0),
        _measured("8 bits - float32, mean", "GAP@20", change("8 bits", "float32")),
        _measured("bytes saved by float16, mean", "fraction", half, PRINTED["compression"]),
        _measured(
            "ensemble - best member, float16", "GAP@20", [one["gap20"] - one["alone"] for one in both],
            round(PRINTED["ensemble"], 4),
        ),
        _measured("members of the best ensemble, float16", "count", [one["members"] for one in both], 4),
        _measured(
            "ensemble in 8 bits - in float16, one limit", "GAP@20",
            [b["gap20"] - a["gap20"] for a, b in zip(both, eight, strict=True)],
        ),
    ]  # fmt: skip
    return table("On these records: what the paper claims", rows)
