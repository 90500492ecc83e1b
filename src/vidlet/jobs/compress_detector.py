"""Compress the detector of a finished run by a chain of steps: one more file in the run, scored beside the first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..compression import file_name
from ..compression.box_material import BoxMaterial, TrainedBoxes
from ..compression.box_steps import find_box_chain
from ..datasets import read_boxes, with_box_splits
from ..errors import TrainingError
from ..models.detector import STORED, load_detector
from ..recipe import Recipe
from ..training import keep_memory
from ..training.box_batches import BoxClips
from .box_files import say_box_result, score_detectors, write_box_evidence, write_box_file
from .metrics_file import add_to_metrics
from .score_boxes import scored_images
from .train import run_files


def compress_detector(
    run: str | Path, data: str | Path, steps: str, plan: Recipe, strict: bool = False, command: str = ""
) -> dict[str, Any]:
    """As ``compress``, of a detector's run and the images with boxes that it was trained on.

    Raises:
        RecipeError: an unknown step. TrainingError: not a finished run, or one of other classes. DataError: no images.
    """
    started = time.monotonic()
    folder = Path(run)
    chain = find_box_chain(steps, plan.extractor.name)
    if not (folder / STORED).exists():
        raise TrainingError(f"{folder}: holds no {STORED}; not a finished run of `vidlet train`")
    table = with_box_splits(read_boxes(data, strict))
    detector = load_detector(folder / STORED)
    assert detector.plan is not None
    if detector.plan.labels != table.labels:
        known, found = ", ".join(detector.plan.labels), ", ".join(table.labels)
        raise TrainingError(f"{folder}: was trained on {known}; the data have {found}")
    keep_memory()
    size = detector.input_size
    train, val = BoxClips(table.of_split("train"), size, larger=True), BoxClips(table.of_split("val"), size)
    write_box_file(TrainedBoxes(detector), plan, chain, BoxMaterial(plan.training, train, val), folder)
    split, images = scored_images(table, None)
    name = file_name(chain)
    names = ["model.onnx", name]
    metrics, _ = score_detectors(folder, names, images, strict, listed=f"boxes.{name.split('.', 1)[1]}.csv")
    metrics |= {"split": split, "seconds": round(time.monotonic() - started, 1)}
    write_box_evidence(folder, [name], metrics, table, command or f"vidlet compress {run} {data} {steps}")
    metrics["bytes"]["model.onnx"] = (folder / "model.onnx").stat().st_size
    add_to_metrics(folder, name, metrics)
    say_box_result(folder, metrics, names)
    return {"out": str(folder), "files": run_files(folder), "metrics": metrics}
