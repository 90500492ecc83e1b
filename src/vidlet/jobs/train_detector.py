"""Train a detector from images with boxes: anchors, fit, export, compress, score the files, report."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compression.box_material import BoxMaterial, TrainedBoxes
from ..compression.box_steps import find_box_chain
from ..datasets import BoxTable, read_boxes, with_box_splits
from ..errors import DataError, TrainingError
from ..files import write_text
from ..metrics import precision_recall
from ..models.detector import STORED, build_detector, detector_state
from ..models.region import kmeans_anchors
from ..progress import bar
from ..recipe import Recipe, load_recipe, recipe_to_dict, save_recipe
from ..reports.detection import DetectionReport, write_detection_report
from ..runtime import read_metadata
from ..training import keep_memory, save_tensors
from ..training.box_batches import BoxClips, check_box_amounts
from ..training.checkpoint import Row
from ..training.detection import fit_detector
from ..video import annotate, enlarge
from ..video.folder import load_image
from .advice import warn_of_precision
from .box_files import say_box_result, score_detectors, write_box_evidence, write_box_file
from .score_boxes import (
    ScoredImages,
    scored_images,
)

SHOWN, SHOWN_SCORE = 12, 0.5  # pictures of the report, and the boxes drawn on them
MACHINES = {"cpu": (0.5, (224, 224)), "cuda": (1.0, (416, 416))}  # width and input size, unless told


def train_detector(
    data: str | Path,
    recipe: str | Path | Recipe = "tiny-yolov2",
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    strict: bool = False,
    device: str = "auto",
    command: str = "",
) -> dict[str, Any]:
    """Train a detector by a recipe and leave the files of a run in ``out``.

    The run folder holds ``model.onnx`` (float32), a file for each step of ``recipe.compress`` (``model.int8.onnx``),
    ``detector.pt`` (the weights, for another recipe's ``extractor.weights``), ``boxes.csv``, ``report.html``,
    ``metrics.json``, ``recipe.toml``, ``log.csv`` and ``checkpoint.pt``.

    Args:
        data: PASCAL VOC, COCO or YOLO (docs/data.md).
        recipe: whose ``extractor`` names a detector; ``head.options``: ``anchors``, how many, and ``by_machine``, to
            choose width and input size by the device where ``overrides`` do not give them.
        strict: an image or a box that cannot be used is an error; else it is left out, counted and listed.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics are those of the files, on test (val where there is none).

    Raises:
        VidletError: whatever is wrong with data, recipe, weights or a resumed run, in one line.
    """
    started = time.monotonic()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    plan = for_machine(plan, device, overrides or {})
    warn_of_precision(plan, device)
    chains = [find_box_chain(text, plan.extractor.name) for text in plan.compress]
    check_box_amounts(plan.training.augment)
    table = with_box_splits(read_boxes(data, strict))
    _check_table(table)
    folder = Path(out or Path("runs") / plan.name)
    _check_folder(folder, resume)
    identity = hashlib.sha256(json.dumps([recipe_to_dict(plan), table.sha256()]).encode()).hexdigest()
    if device == "cpu":
        keep_memory()
    torch.manual_seed(plan.training.seed)
    detector = build_detector(plan.extractor, table.labels, anchors_of(table, int(plan.head.options.get("anchors", 5))))
    if detector.plan is not None and detector.plan.labels != table.labels:
        known, found = ", ".join(detector.plan.labels), ", ".join(table.labels)
        raise TrainingError(f"{plan.extractor.weights}: was trained on {known}; the data have {found}")
    if not (resume and (folder / "checkpoint.pt").exists()):
        save_recipe(plan, folder / "recipe.toml")
    train = BoxClips(table.of_split("train"), plan.extractor.input_size, larger=True)
    val = BoxClips(table.of_split("val"), plan.extractor.input_size)
    skipped = [*table.skipped, *train.failures, *val.failures]
    if strict and skipped:
        raise DataError(skipped[0][1])
    with bar("train", "epoch") as move:
        progress = fit_detector(
            detector, train, val, plan.training, folder, identity, resume=resume, device=device,
            report=lambda row, epochs: move(int(row["epoch"]), epochs),
        )  # fmt: skip
    save_tensors(detector_state(detector), folder / STORED)
    material = BoxMaterial(plan.training, train, val)
    names = [write_box_file(TrainedBoxes(detector), plan, chain, material, folder) for chain in ((), *chains)]
    split, images = scored_images(table, None)
    metrics, scored = score_detectors(folder, names, images, strict)
    metrics |= {
        "split": split,
        "seconds": round(time.monotonic() - started, 1),
        "epochs": progress.epoch,
        "images": {"train": len(train), "val": len(val), "scored": len(scored[names[0]].images)},
        "skipped": [{"path": path, "error": error} for path, error in (*skipped, *scored[names[0]].skipped)],
        "dropped": [{"path": path, "error": error} for path, error in table.dropped],
        "clipped": table.clipped,
    }
    write_box_evidence(folder, names, metrics, table, command or f"vidlet train {data}")
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1))
    _report(folder, plan, metrics, scored, table, progress.history, str(data))
    say_box_result(folder, metrics, names)
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "checkpoint.pt")
    return {"out": str(folder), "files": {p.name: p.stat().st_size for p in files}, "metrics": metrics}


def for_machine(plan: Recipe, device: str, told: Mapping[str, Any]) -> Recipe:
    """The recipe with width and input size of the machine, where it leaves them open and nobody told."""
    options = dict(plan.head.options)
    if not options.pop("by_machine", False):
        return plan
    width, size = MACHINES["cpu" if device == "cpu" else "cuda"]
    extractor = replace(
        plan.extractor,
        width=plan.extractor.width if "extractor.width" in told else width,
        input_size=plan.extractor.input_size if "extractor.input_size" in told else size,
    )
    return replace(plan, extractor=extractor, head=replace(plan.head, options=options))


def anchors_of(table: BoxTable, count: int) -> np.ndarray:
    """Anchors (A, 2) relative to the picture, by k-means on the boxes of the training images."""
    corners = [table.truth(image)[0] for image in table.of_split("train")]
    sizes = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in corners])
    return kmeans_anchors(sizes, count)


def _check_table(table: BoxTable) -> None:
    """Refuse data of which no detector can be trained."""
    train = table.of_split("train")
    if not len(train):
        raise DataError(f"{table.root}: no image is in train")
    found = {box.label for image in train for box in image.boxes}
    if absent := [name for name in table.labels if name not in found]:
        raise DataError(f"{table.root}: class {absent[0]!r} has no box in train")


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file, not a folder for a run")
    if not resume and (folder / "model.onnx").exists():
        raise TrainingError(f"{folder}: holds a finished run; choose another --out, or --resume to finish this one")


def _report(
    folder: Path, plan: Recipe, metrics: Mapping[str, Any], scored: Mapping[str, ScoredImages], table: BoxTable,
    log: Sequence[Row], data: str,
) -> None:  # fmt: skip
    first = next(iter(scored.values()))
    metadata = read_metadata(folder / "model.onnx")
    evidence = metadata["evidence"][0]
    write_detection_report(
        folder / "report.html",
        DetectionReport(
            title=f"{table.root.name}: {plan.name}",
            summary=f"Finds {len(table.labels)} classes of objects: {', '.join(table.labels[:12])}"
            + (" ..." if len(table.labels) > 12 else "."),
            split=str(metrics["split"]),
            labels=table.labels,
            files=metrics["files"],
            curves={name: precision_recall(s.detections, s.truths, len(s.labels)) for name, s in scored.items()},
            log=log,
            pictures=_pictures(first),
            notes=table.notes,
            skipped=[*metrics["skipped"], *metrics["dropped"]],
            commands=[("Score the file again", f"vidlet evaluate {folder / 'model.onnx'} {data}")],
            provenance={
                "command": evidence["command"],
                "data": f"sha256 {evidence['table_sha256']}",
                "graph": f"sha256 {evidence['graph_sha256']}",
                **{f"weights, {key}": str(value) for key, value in metadata["provenance"].items()},
                "Python": sys.version.split()[0],
            },
        ),
    )


def _pictures(scored: ScoredImages) -> list[tuple[np.ndarray, str]]:
    """Some of the scored images with what was found in them."""
    rows = np.unique(np.linspace(0, len(scored.images) - 1, SHOWN).astype(int))
    found = []
    for row in rows:
        boxes = [
            (float(x1), float(y1), float(x2), float(y2), f"{scored.labels[int(label)]} {score:.0%}")
            for x1, y1, x2, y2, score, label in scored.detections[row]
            if score >= SHOWN_SCORE
        ]
        rgb = enlarge(load_image(scored.images[row].path))
        found.append((annotate(rgb, "", boxes=boxes), scored.images[row].path.name))
    return found
