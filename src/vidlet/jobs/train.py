"""Train by a recipe: read the data, build, fit, write the files, score them, report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cloud import reaching
from ..datasets import with_background
from ..errors import RecipeError, TrainingError
from ..files import sha256_of
from ..progress import say, working
from ..recipe import Recipe, flat_keys, full_keys, load_recipe, recipe_to_dict
from ..runs import ALL, CHECKPOINT, RECIPE, REFIT, RunFolder, add_evidence, choose
from ..tasks import DataSource, task_of_recipe
from ..tasks.networks import Networks, Order, write_files
from ..tasks.rejection import ship_rejection, ship_threshold
from ..tasks.standing import say_standing
from ..tasks.teachers import open_teachers
from ..tasks.transfer import open_start
from ..training import Progress, check_alike, check_device, find_device, for_clips, the_team, together
from ..training.checkpoint import Checkpoints
from ..training.team import Team

if TYPE_CHECKING:
    from ..compression import Chain

Callback = Callable[[str, dict[str, Any]], None]  # what happened, and its figures
AUTO = "auto"  # the recipe that is chosen by measuring
REFIT_FIGURES = ("gap20", "hit1", "perr", "map", "accuracy", "accuracy_interval", "top5", "macro_f1")


@reaching
@together
def train(
    data: str | Path,
    recipe: str | Path | Recipe = AUTO,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    fold: str | None = None,
    resume: bool = False,
    strict: bool = False,
    device: str = "auto",
    command: str = "",
    init: str | Path | None = None,
    refit_all: bool = False,
    teachers: Sequence[str | Path] = (),
    val_shards: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    none: str | Path | None = None,
    callback: Callback | None = None,
) -> dict[str, Any]:
    """Train a classifier of clips, or a detector of boxes, by a recipe and leave the files of a run in ``out``.

        vidlet.train("clips/", out="runs/a", epochs=30)

    The run folder holds ``model.onnx`` (float32), a file for each step of ``recipe.compress`` (``model.int8.onnx``),
    ``report.html``, ``metrics.json`` and what docs/architecture.md lists. Of several processes
    that torchrun started the first one writes and returns this; the others return {} (docs/scale.md).

    Args:
        data: a folder per class, a folder with clips.csv, a .csv file, or stored features (records, or features.npz);
            images with boxes (PASCAL VOC, COCO or YOLO) for a detector's recipe (docs/data.md).
        recipe: a built-in name, a .toml file or a ``Recipe`` (docs/recipes.md); "auto" measures on the training clips
            what is best for them, and the run's recipe.toml holds what that came to.
        out: the run folder; None: runs/ and the recipe's name.
        overrides: values of the recipe by dotted key, or by its last part where one key alone ends so ("epochs").
        epochs: short for an override of ``training.epochs``.
        seed: short for an override of ``training.seed``.
        fold: "0/5" tests on part 0 of 5, made by group; None: the splits of the data, made by group where absent.
        resume: go on after the last finished epoch of ``out``.
        strict: a clip, image or box that cannot be used is an error; else it is skipped, counted and listed.
        device: where networks are trained, also in the recipe's compression steps: "auto", "cpu" or "cuda".
        command: what the evidence in the files says they were made with.
        init: a run folder or model file, with the same or other labels, whose weights this one starts from.
        refit_all: train once more on all clips, for the epochs that validation found: ``model.all.onnx``.
        teachers: model files or run folders of the same labels, ensembles among them; their mean answer on each
            training clip as it is, computed once, is learned beside its labels (``training.teacher_share``).
        val_shards: of records: so many shards, drawn at random, validate; all others that are not test train.
        none: a folder of videos without any of the classes, or the class of ``data`` that means so: the files know
            "none of these", ship a threshold, and false events an hour are measured (docs/data.md).
        callback: your own logger, called with what happened and its figures: ("start", {"recipe": as a dict, "data",
            "out", "labels", "train", "val", "test"}), after each epoch ("epoch", {"epoch", "epochs", "train_loss", ...:
            the row of log.csv}), and ("end", what is returned). What it raises ends the training.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics are those of the files, on test (val where there is none).

    Raises:
        VidletError: whatever is wrong with data, recipe, weights or a resumed run, in one line.
    """
    started = time.monotonic()
    device, team = find_device(device), the_team()
    check_device(team, device)
    overrides = full_keys(overrides or {})
    short = {"training.epochs": epochs, "training.seed": seed}
    overrides |= {key: value for key, value in short.items() if value is not None}
    if overrides and isinstance(recipe, Recipe):
        raise RecipeError(f"{', '.join(overrides)}: a Recipe has its own values; change it by dataclasses.replace")
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    task = task_of_recipe(plan, data)
    task.check_options(
        TrainingError, fold=fold, init=init, refit_all=refit_all, teachers=teachers, val_shards=val_shards, none=none
    )
    if refit_all and teachers:
        raise TrainingError("--refit-all: not with --teacher, whose answers are those on the training clips")
    networks = task.networks()
    chains = [networks.find_chain(text, plan) for text in plan.compress]
    networks.check(plan)
    with working(f"read {data}"):
        table = task.read(DataSource(data, fold, strict, val_shards=val_shards))
        table, background = with_background(table, none) if none is not None else (table, None)
    task.check(table)
    run = RunFolder.of(out or Path("runs") / plan.name)
    if team.leads:
        run.check_free(resume=resume)
    if background:
        say(background.told)
    if team.leads and plan.head.name == AUTO:
        say(f"{data}: {task.counts(table)}; measures what suits them, then trains, on {device}; writes {run}")
    selection: dict[str, Any] = {}
    if team.leads:
        plan, selection = networks.choose(plan, table, run, device, resume)
    held_out, doubts = selection.pop("held_out", None), selection.pop("doubts", None)
    if background and held_out is None:  # the threshold is chosen by validation clips: they must not train
        plan = replace(plan, training=replace(plan.training, val_too=False))
    plan = team.tell(plan)
    if selection:
        chains = [networks.find_chain(text, plan) for text in plan.compress]
    plan = networks.resolve(plan, table, device, overrides)
    start = open_start(init) if init else None
    models = open_teachers(teachers, table) if teachers else []
    taught_by = {str(model.path): sha256_of(model.path) for model in models}
    known = [recipe_to_dict(plan), table.sha256(), *([start.sha256] if start else []), *taught_by.values()]
    identity = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    check_alike(team, identity, "reads other data, or has another recipe")
    if resume and team.leads:
        _check_resumed(run, plan, identity)
    _held = run.hold() if team.leads else None
    order = Order(
        plan,
        plan.training,
        table,
        run,
        identity,
        device,
        resume,
        strict,
        start,
        tuple(models),
        report=_each_epoch(callback if team.leads else None),
        team=team,
    )
    with working(f"build {plan.extractor.name} and {plan.head.name}"):
        network = networks.build(plan, table, start)
    if team.leads:
        run.save_recipe(plan, resume)
        say(_understood(plan, table, task.counts(table), device, run) + _by(team))
        if callback is not None:
            callback("start", _beginning(plan, table, data, run))
    with working("prepare"), team.in_turn():
        prepared = networks.prepare(plan, table, network, strict)
    warnings = networks.advise(plan, table, network, prepared, device) if team.leads else []
    progress = networks.fit(network, prepared, order)
    if not team.leads:
        if refit_all:
            _fit_all(networks, order, progress)
        return {}
    writer = networks.writer(plan, table, network, prepared, device)
    names = write_files(writer, network, chains, run)
    split, chosen = task.scored_split(background.without(table) if background else table)
    metrics, scored = task.score_files(run, names, chosen, strict)
    skipped = dict.fromkeys([*table.skipped, *prepared.skipped, *scored[names[0]].skipped])
    count = metrics["files"][names[0]][task.counted]
    metrics |= {
        "split": split,
        "fold": fold,
        "seconds": round(time.monotonic() - started, 1),
        "epochs": progress.epoch,
        "warnings": [*warnings, *progress.warnings],
        task.counted: {"train": len(prepared.train), "val": len(prepared.val), "scored": count},
        "skipped": [{"path": path, "error": error} for path, error in skipped],
        **task.remarks(table),
        **({"selection": selection} if selection else {}),
    }
    with working("compare with plain classifiers"):
        if baselines := networks.baselines(plan, table, network, prepared, chosen, scored):
            metrics["baselines"] = baselines
    with working("look for labels to look at again"):
        metrics["doubts"] = networks.doubt(table, prepared) if doubts is None else doubts
    rejection = networks.reject(plan, table, network, prepared, background, run / names[0], held_out)
    if rejection:
        ship_rejection(run, names, *rejection, None if none is None else str(none), scored, metrics)
    if models:
        metrics["teachers"] = [{"path": path, "sha256": key} for path, key in taught_by.items()]
    command = command or f"vidlet train {data}"
    with working("write the evidence into the files"):
        task.write_evidence(run, names, metrics, table, command)
    if refit_all:
        metrics["refit"] = _refit_all(networks, order, progress, chains, writer.temperature(network))
        if rejection:
            ship_threshold(run, metrics["refit"]["files"], rejection[0].threshold, rejection[1].label)
        _write_refit_evidence(run, metrics, table, command)
    run.write_metrics(metrics)
    with working("write the report"):
        task.report(run, metrics, progress.history, scored, table, str(data))
    for line in progress.warnings:
        say(f"warning: {line}")
    task.say(run, metrics, names)
    say_standing(metrics, choose(run).path.name)
    task.say_next(run)
    result = run.result(metrics)
    if callback is not None:
        callback("end", result)
    return result


def _check_resumed(run: RunFolder, plan: Recipe, identity: str) -> None:
    """TrainingError, before anything is computed: the run that is to go on is of another recipe, or of other data."""
    if not (run / CHECKPOINT).exists() or not (run / RECIPE).exists():
        return
    there, here = (flat_keys(recipe_to_dict(one)) for one in (run.recipe(), plan))
    other = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
    if other:
        told = "; ".join(f"{key} {there.get(key)} there, {here.get(key)} here" for key in other[:3])
        told += f"; and {len(other) - 3} more" if len(other) > 3 else ""
        otherwise = "--resume goes on with the same, else train into another --out folder"
        raise TrainingError(f"{run / CHECKPOINT}: was made with another recipe ({told}); {otherwise}")
    Checkpoints(run.path, identity).read()


def _each_epoch(callback: Callback | None) -> Callable[[dict[str, float], int], None] | None:
    """What the loop calls after an epoch: the callback with the row of the log."""
    if callback is None:
        return None
    return lambda row, epochs: callback("epoch", {**row, "epochs": epochs})


def _beginning(plan: Recipe, table: Any, data: str | Path, run: RunFolder) -> dict[str, Any]:
    """What a logger is told before the first epoch."""
    splits = {split: len(table.of_split(split)) for split in ("train", "val", "test")}
    return {"recipe": recipe_to_dict(plan), "data": str(data), "out": str(run), "labels": list(table.labels), **splits}


def _understood(plan: Recipe, table: Any, counts: str, device: str, run: RunFolder) -> str:
    """What is about to be done, in one line."""
    epochs = for_clips(plan.training, len(table.of_split("train"))).epochs
    return f"train {plan.name}: {counts}, {epochs} epochs on {device}; writes {run}"


def _by(team: Team) -> str:
    return f", by {team.size} processes" if team.size > 1 else ""


def _refit_all(
    networks: Networks, order: Order, progress: Progress, chains: Sequence[Chain], temperature: float | None
) -> dict[str, Any]:
    """Train a new network on the clips of all splits and write ``model.all.onnx`` and a file for each chain.

    Args:
        order: the training that validation judged, and ``progress`` and ``temperature`` what came of it.

    Returns:
        {"epochs", "clips", "files": [names]}.
    """
    again, network, prepared = _fit_all(networks, order, progress)
    writer = networks.writer(again.plan, again.table, network, prepared, again.device)
    names = write_files(writer, network, chains, order.folder, ALL, temperature)
    return {"epochs": again.training.epochs, "clips": len(prepared.train), "files": names}


def _fit_all(networks: Networks, order: Order, progress: Progress) -> tuple[Order, Any, Any]:
    """Train a new network on the clips of all splits: the order for that, the network, its clips.

    The schedule of the learning rate spans the epochs that are trained: those of the best validation loss where the
    recipe stops early, else all. Augmentation, seed and order of the draws are the recipe's.
    """
    epochs = progress.best_epoch if order.training.early_stopping else progress.epoch
    training = replace(order.training, epochs=max(1, epochs), least_updates=0, early_stopping=0)
    everything = [replace(clip, split="train") for clip in order.table if clip.split]
    watched = [clip for clip in order.table if clip.split == "val"]  # only for the log
    again = replace(
        order,
        training=training,
        table=order.table.with_clips([*everything, *watched]),
        folder=RunFolder(order.folder / REFIT),
        identity=f"{order.identity} all {training.epochs}",
        title="train on all clips",
        report=None,
    )
    network = networks.build(again.plan, again.table, again.start)
    with again.team.in_turn():
        prepared = networks.prepare(again.plan, again.table, network, again.strict)
    networks.fit(network, prepared, again)
    return again, network, prepared


def _write_refit_evidence(run: RunFolder, metrics: Mapping[str, Any], table: Any, command: str) -> None:
    """Write into each file of a refit the figures of its twin that has not seen the scored clips, called so.

    Nothing is left to measure such a file on.
    """
    found = metrics["refit"]
    for name in found["files"]:
        twin = name.replace(f"{ALL}.", "model.", 1)
        figures = metrics["files"][twin]
        what = (
            f"split {metrics['split']}, of {twin}: the same recipe without these clips; this file was trained on all "
            f"{found['clips']} clips for {found['epochs']} epochs; they cannot measure it"
        )
        keys = [key for key in REFIT_FIGURES if figures.get(key) is not None]
        add_evidence(run / name, keys, figures, what, table, command)
