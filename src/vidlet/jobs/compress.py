"""Compress the network of a finished run by a chain of steps: one more file in the run, scored beside the first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..compression import file_name
from ..datasets import with_background
from ..errors import TrainingError
from ..progress import working
from ..runs import MODEL, RunFolder
from ..tasks import DataSource, task_of_recipe
from ..tasks.rejection import measure_rejection, ship_threshold
from ..training import find_device


def compress(
    run: str | Path,
    data: str | Path,
    steps: str,
    fold: str | None = None,
    strict: bool = False,
    command: str = "",
    device: str = "auto",
) -> dict[str, Any]:
    """Compress the network that ``train`` left in a run folder by a chain of steps.

        vidlet.compress("runs/a", "clips/", "units:0.5+int8")

    Leaves ``model.units0.5-int8.onnx`` beside ``model.onnx``, both scored on the same clips and compared in pairs;
    ``metrics.json`` gets a section for the new file.

    Args:
        data: the clips (of a detector: the images with boxes) that the run was trained on: steps train on and calibrate
            with its training clips.
        steps: a chain of steps as recipes write it (docs/recipes.md).
        fold: that of the run, where it was trained on one.
        device: where the steps that train do so: "auto", "cpu" or "cuda".

    Returns:
        {"out", "files": {name: bytes}, "metrics"} with ``metrics["files"]`` of model.onnx and of the new file.

    Raises:
        RecipeError: an unknown step. TrainingError: not a finished run, or one of other classes. DataError: no clips.
    """
    started = time.monotonic()
    device = find_device(device)
    folder = RunFolder.of(run)
    _held = folder.hold() if folder.path.is_dir() else None
    plan = folder.recipe()
    task = task_of_recipe(plan, data)
    task.check_options(TrainingError, fold=fold)
    networks = task.networks()
    chain = networks.find_chain(steps, plan)
    with working(f"read {data}"):
        table = task.read(DataSource(data, fold, strict))
        known = folder.metrics().get("none") or {}
        source = known.get("source")
        table, background = with_background(table, source) if source is not None else (table, None)
    task.check(table)
    trained = networks.open(folder, plan, table)
    with working("prepare"):
        prepared = networks.prepare(plan, table, trained, strict)
    name = file_name(chain)
    with working(f"write {name}"):
        networks.writer(plan, table, trained, prepared, device).write(trained, chain, folder / name)
    split, chosen = task.scored_split(background.without(table) if background else table)
    names = [MODEL, name]
    stem, _, ending = task.listing.rpartition(".")
    listing = f"{stem}.{name.split('.', 1)[1]}.{ending}"  # predictions.int8.onnx.csv
    metrics, scored = task.score_files(folder, names, chosen, strict, listing)
    if known:
        ship_threshold(folder, [name], known["threshold"], known["label"])
    if background:
        metrics["files"][name] |= measure_rejection(folder, [name], background, known["threshold"], scored)[name]
    metrics |= {"split": split, "fold": fold, "seconds": round(time.monotonic() - started, 1)}
    task.write_evidence(folder, [name], metrics, table, command or f"vidlet compress {run} {data} {steps}")
    metrics["bytes"][MODEL] = folder.model.stat().st_size
    folder.add_metrics(name, metrics)
    task.say(folder, metrics, names)
    return folder.result(metrics)
