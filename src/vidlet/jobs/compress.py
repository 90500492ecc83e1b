"""Compress the network of a finished run by a chain of steps: one more file in the run, scored beside the others."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import torch

from ..compression import Trained, find_chain
from ..compression.chain import file_name
from ..datasets import ClipTable, check_trainable
from ..errors import TrainingError
from ..models import build_head
from ..recipe import Recipe, load_recipe
from .clips import labelled_clips, scored_split
from .metrics_file import add_to_metrics
from .prepare_records import extractor_for, prepare_clips
from .product import Workshop, say_result, score_files, write_evidence
from .train import DETECTOR_HEAD, run_files


def compress(
    run: str | Path,
    data: str | Path,
    steps: str,
    fold: str | None = None,
    strict: bool = False,
    command: str = "",
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

    Returns:
        {"out", "files": {name: bytes}, "metrics"} with ``metrics["files"]`` of model.onnx and of the new file.

    Raises:
        RecipeError: an unknown step. TrainingError: not a finished run, or one of other classes. DataError: no clips.
    """
    started = time.monotonic()
    folder = Path(run)
    plan = _recipe_of(folder)
    if plan.head.name == DETECTOR_HEAD:
        from .compress_detector import compress_detector

        return compress_detector(run, data, steps, plan, strict, command)
    chain = find_chain(steps)
    table = labelled_clips(data, fold, strict, stored=True)
    check_trainable(table)
    trained = open_run(folder, plan, table)
    workshop = Workshop(plan, table, prepare_clips(plan, table, trained.extractor, strict), trained.extractor)
    name = file_name(chain)
    workshop.write(trained, chain, folder / name)
    split, clips = scored_split(table, None)
    names = ["model.onnx", name]
    metrics, _ = score_files(folder, names, clips, strict, predictions=f"predictions.{name.split('.', 1)[1]}.csv")
    metrics |= {"split": split, "fold": fold, "seconds": round(time.monotonic() - started, 1)}
    write_evidence(folder, [name], metrics, table, command or f"vidlet compress {run} {data} {steps}")
    metrics["bytes"]["model.onnx"] = (folder / "model.onnx").stat().st_size
    add_to_metrics(folder, name, metrics)
    say_result(folder, metrics, names)
    return {"out": str(folder), "files": run_files(folder), "metrics": metrics}


def open_run(folder: Path, plan: Recipe, table: ClipTable) -> Trained:
    """The trained network of a run folder.

    Raises:
        TrainingError: the run is not finished, or was trained on other classes.
    """
    head_file = folder / "head.pt"
    if not head_file.exists():
        raise TrainingError(f"{folder}: holds no head.pt; not a finished run of `vidlet train`")
    extractor = extractor_for(plan, table)
    head = build_head(plan.head, extractor.feature_shape, len(table.labels))
    try:
        head.load_state_dict(torch.load(head_file, weights_only=True))
        if (folder / "extractor.pt").exists():
            extractor.backbone.load_state_dict(torch.load(folder / "extractor.pt", weights_only=True))
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{folder}: its weights do not fit its recipe and these clips ({reason})") from error
    return Trained(extractor.eval(), head.eval())


def _recipe_of(folder: Path) -> Recipe:
    path = folder / "recipe.toml"
    if not path.exists():
        raise TrainingError(f"{folder}: holds no recipe.toml; not a run folder of `vidlet train`")
    return load_recipe(path)
