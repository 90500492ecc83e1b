"""Liu and Liu's experiment on records at hand, in small: models of several sizes, each averaged and not, in float16 and
in 8 bits, and the best ensembles of them within a limit; then their claims, one by one.

Video-level records (one vector a video) get the mean with a mixture of experts, frame-level ones gated NetVLAD. Members
of ensembles, and how many checkpoints are averaged, are chosen on validation records, every figure is a file's on test
records; where there are none, half of the validation records' groups test.

By the paper's own protocol its models are trained at their sizes on frame-level records, for its 200,000 steps, and the
rows of its two tables filled in; an ensemble of table 2 is filled in where all of its members were trained.
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
from ..compression.ensemble_search import Candidate, best_weights, weighted_gap
from ..datasets import ClipTable
from ..errors import DataError, RecipeError
from ..metrics import gap
from ..progress import say
from ..recipe import Recipe, load_recipe, recipe_to_dict
from ..runs import MODEL, RunFolder
from ..runtime import load
from ..tasks import TASKS
from ..tasks.cached import cached_scores
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
CLASSES = 3862  # of the paper
STEPS, BATCH, FALL = 200_000, 160, 4_000_000  # of the paper: updates, clips an update, clips between falls of the rate
VAL_SHARDS = 60  # of the 3,844 that validate; the others join those that train
PRINTED = {"averaging": 0.0039, "compression": 0.485, "ensemble": 0.8821 - 0.8744, "members": 4}


def run_records(
    tables: list[dict[str, Any]], data: str | Path, effort: Effort, log: Path, networks: Mapping[str, tuple[int, int]]
) -> int:
    """Train the members, join the best, fill the tables in or add those of the records; how many records were scored.

    ``log`` gets a line a finished run, which is not run again; the files lie in the folder of its name.

    Args:
        networks: clusters and hidden units of the paper's own models by their rows, of the protocol "paper".

    Raises:
        DataError: the data are no records, or each has one label; of the paper's protocol also means of videos.
        RecipeError: folds, which the paper has not; or no row has a word of ``effort.rows`` in its name.
    """
    paper = effort.protocol == "paper"
    if effort.folds:
        raise RecipeError("papers youtube8m: has no folds; of its models, --rows takes some")
    records = split_records(read_records(data, paper), effort.clips)
    found: dict[str, list[dict[str, Any]]] = {}
    known = {row["key"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    folder = log.with_suffix("")
    prepared: Any = None
    joined: list[list[dict[str, Any]]] = []
    printed: list[dict[str, float]] = []
    for seed in range(effort.seeds):
        own = folder / f"seed{seed}"
        changed = {**effort.overrides, "training.seed": seed}
        plans = (
            paper_members(records, networks, effort, changed)
            if paper
            else members(records, effort.epochs or EPOCHS, changed)
        )
        runs: list[Path] = []
        for plan in plans:
            key = json.dumps([records.sha256(), recipe_to_dict(plan)], sort_keys=True)
            key = hashlib.sha256(key.encode()).hexdigest()
            run = RunFolder(own / f"{plan.name}-{key[:8]}")
            if key not in known or not (run / MODEL).exists():
                trained = TASKS["records"].networks()
                if prepared is None:
                    prepared = trained.prepare(plan, records, trained.build(plan, records, None), False)
                known[key] = {"key": key, "name": plan.name, "seed": seed, "code": effort.code} | train_member(
                    run, plan, records, prepared, effort.device
                )
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as sink:
                    sink.write(json.dumps(known[key]) + "\n")
                say(f"{plan.name}, seed {seed}: GAP@20 {known[key]['float32']['gap20']:.4f}")
            found.setdefault(plan.name, []).append(known[key])
            runs.append(run.path)
        largest = max(rows[-1]["float16"]["bytes"] for rows in found.values())
        limit = 2**30 if paper else int(LIMIT * largest)
        joined.append([best_ensemble(own, records, runs, kind, limit) for kind in ("float16", "8 bits")])
        if paper:
            printed.append(printed_ensembles(tables, records, dict(zip((p.name for p in plans), runs, strict=True))))
    if paper:
        _fill_models(tables, found, len(records.labels))
        _fill_rows(tables, {name: [one[name] for one in printed] for name in printed[0]})
    else:
        tables.append(_members_table(found))
    tables += [_ensembles_table(joined), _claims(found, joined)]
    return len(records.of_split("test"))


def read_records(data: str | Path, paper: bool) -> ClipTable:
    """The records; of the paper's protocol 60 shards validate, where more than so many do."""
    records = labelled_clips(data, stored=True)
    shards = getattr(records.records, "shard_of", ())
    own = {shards[clip.row] for clip in records if clip.split == "val" and clip.row is not None} if shards else ()
    return labelled_clips(data, stored=True, val_shards=VAL_SHARDS) if paper and len(own) > VAL_SHARDS else records


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


def paper_members(
    records: ClipTable, networks: Mapping[str, tuple[int, int]], effort: Effort, changed: Mapping[str, Any]
) -> list[Recipe]:
    """The recipes of the paper's models, those of ``effort.rows``: as many updates, and a rate that falls as often.

    Fewer epochs keep the course of the rate.

    Raises:
        DataError: records of one vector a video.
        RecipeError: no row has a word in its name.
    """
    from .protocol import Case, chosen_cases

    assert records.records is not None
    if np.median([records.records.frames[clip.row] for clip in records if clip.row is not None]) <= 1:
        raise DataError(f"{records.root}: means of videos; the paper's networks read a vector a second (frame level)")
    clips = len(records.of_split("train"))
    epochs = max(1, round(STEPS * BATCH / clips))
    fall = FALL / clips
    if effort.epochs is not None and effort.epochs < epochs:
        epochs, fall = effort.epochs, fall * effort.epochs / epochs
    usual = {
        "training.epochs": epochs,
        "training.batch": BATCH,
        "training.schedule.step_epochs": max(1, round(fall)),
        "compress": list(CHAINS.values()),
        **changed,
    }
    plans = []
    for case in chosen_cases([Case(name, "gated-netvlad") for name in networks], effort.rows):
        clusters, hidden = networks[case.name]
        size = {"head.options.clusters": clusters, "head.options.hidden": hidden}
        plans.append(replace(load_recipe("gated-netvlad", {**size, **usual}), name=case.name.replace(" ", "-")))
    return plans


def printed_ensembles(
    tables: Sequence[Mapping[str, Any]], records: ClipTable, runs: Mapping[str, Path]
) -> dict[str, float]:
    """GAP@20 of the ensembles of table 2 whose members were all trained, by their rows.

    Members are weighted on the validation records and scored on the test records, by their float16 files.
    """
    files = {name[0]: run / file_name(find_chain(CHAINS["float16"])) for name, run in runs.items()}
    index = {name: i for i, name in enumerate(records.labels)}
    cached: dict[str, list[Candidate]] = {}
    truth: list[list[list[int]]] = []
    for letter, path in files.items():
        model = load(path, threads=1)
        read = [cached_scores(model, records.of_split(split)) for split in ("val", "test")]
        cached[letter] = [Candidate(letter, path.stat().st_size, top) for top, _ in read]
        truth = [
            [[index[name] for name in list(records.of_split(split))[row].labels] for row in rows]
            for split, (_, rows) in zip(("val", "test"), read, strict=True)
        ]
    found = {}
    for row in (row for one in tables for row in one["rows"]):
        letters = row["name"].removesuffix(", local")
        if row["name"].endswith(", local") and set(letters) <= set(cached):
            weights = best_weights([cached[letter][0] for letter in letters], truth[0]).weights
            found[row["name"]] = weighted_gap([cached[letter][1] for letter in letters], weights, truth[1])
    return found


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


def _fill_models(
    tables: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[Mapping[str, Any]]], classes: int
) -> None:
    """Table 1: GAP@20 of each model, and the bytes of its files where the vocabulary is the paper's."""
    figures: dict[str, list[float]] = {}
    for name, runs in found.items():
        where = name.replace("-", " ", 1)
        figures[f"{where}, averaged checkpoints"] = [run["float32"]["gap20"] for run in runs]
        figures[f"{where}, best checkpoint"] = [run[SINGLE]["gap20"] for run in runs]
        if classes == CLASSES:
            for kind in ("float32", "float16"):
                figures[f"{where}, {kind}"] = [run[kind]["bytes"] / 2**20 for run in runs]
    _fill_rows(tables, figures)


def _fill_rows(tables: Sequence[Mapping[str, Any]], figures: Mapping[str, Sequence[float]]) -> None:
    for row in (row for one in tables for row in one["rows"]):
        if row["name"] in figures:
            row["measured"] = round(statistics.mean(figures[row["name"]]), 2 if row["unit"] == "MiB" else 4)


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
