"""Detectors: built, trained, read from a run, compressed by chains and written as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..artifact.detector import detector_metadata, torch_boxes, write_detector
from ..compression import (
    BOX_STEPS,
    BoxMaterial,
    Chain,
    TrainedBoxes,
    boxes_graph,
    chain_text,
    find_box_chain,
    split_chain,
)
from ..compression.chain import apply_training
from ..datasets import BoxTable
from ..errors import DataError, TrainingError
from ..models.detector import build_detector, detector_state, load_detector
from ..models.region import kmeans_anchors
from ..recipe import Recipe
from ..runs import DETECTOR, RunFolder
from ..training import Progress, for_clips, keep_memory, save_tensors
from ..training.advice import warn_of_precision, warn_of_turns
from ..training.box_batches import BoxClips, check_box_amounts
from ..training.detection import fit_detector
from .networks import Networks, Order

MACHINES = {"cpu": (0.5, (224, 224)), "cuda": (1.0, (416, 416))}  # width and input size, unless told


@dataclass(frozen=True)
class PreparedBoxes:
    """Training and validation images as the loop takes them; ``skipped``: (path, error) of those not decoded."""

    train: BoxClips
    val: BoxClips
    skipped: tuple[tuple[str, str], ...]


class BoxWriter:
    """Turns trained detectors of one recipe into files."""

    def __init__(self, plan: Recipe, prepared: PreparedBoxes, device: str = "auto") -> None:
        self.plan = plan
        self.material = BoxMaterial(for_clips(plan.training, len(prepared.train)), prepared.train, prepared.val, device)

    def write(self, trained: TrainedBoxes, chain: Chain, path: Path, temperature: float | None = None) -> TrainedBoxes:
        """Compress a detector by a chain and write it as one artifact; returns the network as the file has it.

        A file without steps on its graph is held to its network; every file to the contract.

        Args:
            temperature: there is none of boxes.
        """
        small: TrainedBoxes = apply_training(chain, BOX_STEPS, trained, self.material)
        assert small.detector.plan is not None
        pictures = self.material.pictures()
        metadata = detector_metadata(
            replace(self.plan, compress=(chain_text(chain),) if chain else ()),
            small.detector.plan.labels,
            small.detector.provenance,
            small.detector.anchors.numpy(),
        )
        storage = split_chain(chain, BOX_STEPS)[1]
        frames = np.stack(pictures[:3] if len(pictures) > 2 else pictures * 3)
        reference = None if storage else torch_boxes(small.computed)
        write_detector(boxes_graph(storage, small, pictures), path, metadata, frames, reference)
        return small


def build_boxes(plan: Recipe, table: BoxTable, start: object = None) -> TrainedBoxes:
    """The untrained detector of a recipe, drawn from its seed, with anchors of the training boxes.

    Raises:
        TrainingError: its weights are those of a detector of other classes.
    """
    torch.manual_seed(plan.training.seed)
    anchors = anchors_of(table, int(plan.head.options.get("anchors", 5)))
    detector = build_detector(plan.extractor, table.labels, anchors)
    _same_labels(TrainedBoxes(detector), table, plan.extractor.weights)
    return TrainedBoxes(detector)


def prepare_boxes(plan: Recipe, table: BoxTable, network: TrainedBoxes, strict: bool) -> PreparedBoxes:
    """Training and validation images of a detector's size.

    Raises:
        DataError: with ``strict``, an image that cannot be used.
    """
    keep_memory()
    size = network.detector.input_size
    train, val = BoxClips(table.of_split("train"), size, larger=True), BoxClips(table.of_split("val"), size)
    failures = (*train.failures, *val.failures)
    if strict and (wrong := (*table.skipped, *failures)):
        raise DataError(wrong[0][1])
    return PreparedBoxes(train, val, failures)


def fit_boxes(network: TrainedBoxes, prepared: PreparedBoxes, order: Order[BoxTable]) -> Progress:
    """Train a detector and leave its weights in the run; see ``training.fit_detector``."""
    progress = fit_detector(
        network.detector,
        prepared.train,
        prepared.val,
        order.training,
        order.folder.path,
        order.identity,
        resume=order.resume,
        device=order.device,
        report=order.report,
        title=order.title,
        team=order.team,
    )
    if order.team.leads:
        save_tensors(detector_state(network.detector), order.folder / DETECTOR)
    return progress


def open_boxes(run: RunFolder, plan: Recipe, table: BoxTable) -> TrainedBoxes:
    """The trained detector of a run folder.

    Raises:
        TrainingError: the run is not finished, or was trained on other classes.
    """
    network = TrainedBoxes(load_detector(run.weights(DETECTOR)))
    _same_labels(network, table, str(run))
    return network


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


def _same_labels(network: TrainedBoxes, table: BoxTable, name: str) -> None:
    plan = network.detector.plan
    if plan is not None and plan.labels != table.labels:
        known, found = ", ".join(plan.labels), ", ".join(table.labels)
        raise TrainingError(f"{name}: was trained on {known}; the data have {found}")


def _check(plan: Recipe) -> None:
    check_box_amounts(plan.training.augment)


def _resolve(plan: Recipe, table: BoxTable, device: str, overrides: Mapping[str, Any]) -> Recipe:
    return for_machine(plan, device, overrides)


def _advise(plan: Recipe, table: BoxTable, network: TrainedBoxes, prepared: PreparedBoxes, device: str) -> list[str]:
    turns = warn_of_turns(plan.training, table.labels, "set training.augment.flip = 0")
    return [*turns, *warn_of_precision(plan, device)]


def _writer(plan: Recipe, table: BoxTable, network: TrainedBoxes, prepared: PreparedBoxes, device: str) -> BoxWriter:
    return BoxWriter(plan, prepared, device)


DETECTORS: Networks[BoxTable, TrainedBoxes] = Networks(
    find_chain=lambda text, plan: find_box_chain(text, plan.extractor.name),
    check=_check,
    choose=lambda plan, table, run, device, resume: (plan, {}),
    baselines=lambda plan, table, network, prepared, chosen, scored: {},
    reject=lambda *given: None,
    doubt=lambda table, prepared: [],
    resolve=_resolve,
    build=build_boxes,
    prepare=prepare_boxes,
    advise=_advise,
    fit=fit_boxes,
    open=open_boxes,
    writer=_writer,
)
