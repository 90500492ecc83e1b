"""From a trained detector to the files that ship: compress by chains, export, score each file, write its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact.detector import detector_metadata, torch_boxes, write_detector
from ..compression import chain_text, file_name
from ..compression.box_material import BoxMaterial, TrainedBoxes
from ..compression.box_steps import BOX_GRAPH_STEPS, boxes_graph, shrink_detector
from ..compression.chain import Chain
from ..datasets import BoxTable
from ..files import write_text
from ..progress import megabytes, say
from ..recipe import Recipe
from ..reports import rate_text
from ..runtime import graph_sha256, load, read_metadata, write_metadata
from .score_boxes import ScoredImages, boxes_csv, map50_difference, score_images, summarize_boxes


def write_box_file(trained: TrainedBoxes, plan: Recipe, chain: Chain, material: BoxMaterial, folder: Path) -> str:
    """Compress a detector by a chain and write it into the folder of its run; the file's name.

    A file without graph steps is held to its network; every file to the contract.
    """
    small = shrink_detector(chain, trained, material)
    assert small.detector.plan is not None
    pictures = material.pictures()
    metadata = detector_metadata(
        replace(plan, compress=(chain_text(chain),) if chain else ()), small.detector.plan.labels,
        small.detector.provenance, small.detector.anchors.numpy(),
    )  # fmt: skip
    as_trained = not any(step.name in BOX_GRAPH_STEPS for step in chain)
    frames = np.stack(pictures[:3] if len(pictures) > 2 else pictures * 3)
    name = file_name(chain)
    reference = torch_boxes(small.computed) if as_trained else None
    write_detector(boxes_graph(chain, small, pictures), folder / name, metadata, frames, reference)
    return name


def score_detectors(
    folder: Path, names: Sequence[str], images: BoxTable, strict: bool = False, listed: str = "boxes.csv"
) -> tuple[dict[str, Any], dict[str, ScoredImages]]:
    """Score every file on the same images; the others are compared with the first in pairs. Writes ``listed``."""
    metrics: dict[str, Any] = {"files": {}}
    scored: dict[str, ScoredImages] = {}
    for name in names:
        model = load(folder / name, threads=1)
        scored[name] = score_images(model, images, strict)
        metrics["files"][name] = summarize_boxes(scored[name], model)
    write_text(folder / listed, boxes_csv(scored))
    for name in names[1:]:
        difference = map50_difference(scored[name], scored[names[0]])
        metrics["files"][name]["difference"] = {**difference._asdict(), "against": names[0]}
    for key in ("map50", "map50_interval", "map50_11", "map50_95"):
        metrics[key] = metrics["files"][names[0]][key]
    return metrics, scored


def write_box_evidence(
    folder: Path, names: Sequence[str], metrics: dict[str, Any], table: BoxTable, command: str
) -> None:
    """Into each file: what was measured of it, on which data, by which command; then its bytes into ``metrics``."""
    for name in names:
        path, figures = folder / name, metrics["files"][name]
        metadata = read_metadata(path)
        metadata["evidence"] = [
            {
                "what": f"{key}, split {metrics['split']}",
                "value": figures[key],
                "data": table.root.name,
                "images": figures["images"],
                "table_sha256": table.sha256(),
                "command": command,
                "graph_sha256": graph_sha256(path.read_bytes()),
            }
            for key in ("map50", "map50_interval", "map50_95")
        ]
        write_metadata(path, metadata)
    metrics["bytes"] = {name: (folder / name).stat().st_size for name in names}
    for name, size in metrics["bytes"].items():  # with the evidence in them
        metrics["files"][name]["bytes"] = size


def say_box_result(folder: Path, metrics: Mapping[str, Any], names: Sequence[str]) -> None:
    parts = [
        f"{name} {megabytes(metrics['bytes'][name])}, mAP .5 {rate_text(metrics['files'][name]['map50'])}, "
        f".5:.95 {rate_text(metrics['files'][name]['map50_95'])}"
        for name in names
    ]
    say(f"{folder}: {'; '.join(parts)} on {metrics['files'][names[0]]['images']} {metrics['split']} images")
