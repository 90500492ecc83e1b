"""Compress the network of a finished run by chains of steps: a further file each, scored beside the first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compression import file_name
from ..datasets import with_background
from ..errors import RecipeError, TrainingError
from ..files import write_text
from ..progress import say, working
from ..runs import MODEL, RunFolder
from ..tasks import DataSource, task_of_recipe
from ..tasks.rejection import measure_rejection, ship_threshold
from ..training import find_device


def compress(
    run: str | Path,
    data: str | Path,
    steps: str | Sequence[str],
    fold: str | None = None,
    strict: bool = False,
    command: str = "",
    device: str = "auto",
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Compress the network that ``train`` or ``fit`` left in a run folder by a chain of steps.

        vidlet.compress("runs/a", "clips/", "units:0.5+int8")

    Leaves ``model.units0.5-int8.onnx`` beside ``model.onnx``, both scored on the same clips and compared in pairs;
    ``metrics.json`` gets a section for the new file.

    Args:
        data: the clips (of a detector: the images with boxes) that the run was trained on: steps train on and calibrate
            with its training clips.
        steps: a chain of steps as recipes write it (docs/recipes.md), or several of them, a file each.
        fold: that of the run, where it was trained on one.
        device: where the steps that train do so: "auto", "cpu" or "cuda".
        out: a further run folder: it gets a copy of the run and the new files, and ``run`` stays as it is;
            None: ``run`` gets them.

    Returns:
        {"out", "files": {name: bytes}, "metrics"} with ``metrics["files"]`` of model.onnx and of each new file.

    Raises:
        RecipeError: an unknown step. TrainingError: not a finished run, one of other classes, or ``out`` holds a
            run already. DataError: no clips.
    """
    started = time.monotonic()
    device = find_device(device)
    folder = RunFolder.of(run)
    _held = folder.hold() if folder.path.is_dir() else None
    plan = folder.recipe()
    target = folder if out is None else RunFolder.of(out)
    if target is not folder:
        target.check_free()
    task = task_of_recipe(plan, data)
    task.check_options(TrainingError, fold=fold)
    networks = task.networks()
    asked = [steps] if isinstance(steps, str) else list(steps)
    chains = {file_name(chain): chain for chain in (networks.find_chain(text, plan) for text in asked)}
    if not chains:
        raise RecipeError("compress: name at least one chain of steps, as int8")
    with working(f"read {data}"):
        table = task.read(DataSource(data, fold, strict))
        metrics = folder.metrics()
        known = metrics.get("none") or {}
        source = known.get("source")
        table, background = with_background(table, source) if source is not None else (table, None)
    task.check(table)
    say(f"compress {plan.name} of {folder} by {', '.join(asked)}: {task.counts(table)}, on {device}; writes {target}")
    trained = networks.open(folder, plan, table)
    with working("prepare"):
        prepared = networks.prepare(plan, table, trained, strict)
        writer = networks.writer(plan, table, trained, prepared, device)
    if target is not folder:
        _held_too = target.hold()
        folder.copy_to(target)
        folder = target
    learned = metrics.get("refit") is True  # by ``fit``, from validation clips too: they tell no temperature
    temperature = metrics["chosen"]["temperature"] if learned else None
    for name, chain in chains.items():
        with working(f"write {name}"):
            writer.write(trained, chain, folder / name, temperature)
    split, chosen = task.scored_split(background.without(table) if background else table)
    names = [MODEL, *chains]
    stem, _, ending = task.listing.rpartition(".")
    listings = {name: f"{stem}.{name.split('.', 1)[1]}.{ending}" for name in chains}  # predictions.int8.onnx.csv
    metrics, scored = task.score_files(folder, names, chosen, strict, listings[names[-1]])
    for name, listing in listings.items():
        write_text(folder / listing, task.to_csv({MODEL: scored[MODEL], name: scored[name]}))
    if known:
        ship_threshold(folder, list(chains), known["threshold"], known["label"])
    if background:
        for name, measured in measure_rejection(folder, list(chains), background, known["threshold"], scored).items():
            metrics["files"][name] |= measured
    metrics |= {"split": split, "fold": fold, "seconds": round(time.monotonic() - started, 1)}
    said = command or f"vidlet compress {run} {data} {' '.join(asked)}{f' --out {out}' if out is not None else ''}"
    task.write_evidence(folder, list(chains), metrics, table, said)
    metrics["bytes"][MODEL] = folder.model.stat().st_size
    for name in chains:
        folder.add_metrics(name, metrics)
    task.say(folder, metrics, names)
    return folder.result(metrics)
