"""Once more on all clips, for as many epochs as validation found, as one does before a model is deployed.

Nothing is left to measure such a file on: its evidence is that of the same recipe trained on the training clips alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..compression import Chain, Trained, file_name
from ..datasets import ClipTable
from ..models import FrameExtractor
from ..models.head import Head
from ..progress import bar
from ..recipe import Recipe
from ..training import ClipNetwork, Progress, save_tensors, train_network
from .prepare import Prepared
from .product import Workshop, add_evidence

FIGURES = ("gap20", "hit1", "perr", "map", "accuracy", "accuracy_interval", "top5", "macro_f1")  # told of the twin
FOLDER = "refit-all"  # in the run folder: checkpoint, log and weights of the second training


def refit_all(
    plan: Recipe,
    table: ClipTable,
    begin: Callable[[], tuple[FrameExtractor, Head]],
    prepare: Callable[[ClipTable, FrameExtractor, Head], Prepared],
    progress: Progress,
    temperature: float | None,
    chains: Sequence[Chain],
    folder: Path,
    identity: str,
    resume: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train a new network on the clips of all splits and write ``model.all.onnx`` and a file for each chain.

    The schedule of the learning rate spans the epochs that are trained: those of the best validation loss where the
    recipe stops early, else all. Augmentation, seed and order of the draws are the recipe's.

    Args:
        begin: makes the untrained extractor and head; the seed is set.
        prepare: makes the clips of a table ready and tells the head what was learned of them.
        progress: of the training that validation judged.
        temperature: of the network that validation judged.

    Returns:
        {"epochs", "clips", "files": [names]}.
    """
    epochs = progress.best_epoch if plan.training.early_stopping else progress.epoch
    config = replace(plan.training, epochs=max(1, epochs), early_stopping=0)
    everything = [replace(clip, split="train") for clip in table if clip.split]
    table = table.with_clips([*everything, *(clip for clip in table if clip.split == "val")])  # val: only for the log
    torch.manual_seed(config.seed)
    extractor, head = begin()
    prepared = prepare(table, extractor, head)
    frozen = config.mode == "frozen"
    network = ClipNetwork(head, None if frozen else extractor)
    with bar("train on all clips", "epoch") as move:
        train_network(
            network, prepared.train, prepared.val, config, folder / FOLDER, f"{identity} all {config.epochs}",
            multi_label=table.multi_label, resume=resume, device=device,
            report=lambda row, count: move(int(row["epoch"]), count),
        )  # fmt: skip
    network.to("cpu")
    save_tensors(head.state_dict(), folder / FOLDER / "head.pt")
    if not frozen:
        save_tensors(extractor.backbone.state_dict(), folder / FOLDER / "extractor.pt")
    workshop = Workshop(plan, table, prepared, extractor)
    names = []
    for chain in ((), *(chain for chain in chains if chain)):
        names.append(file_name(chain).replace("model.", "model.all.", 1))
        workshop.write(Trained(extractor, head), chain, folder / names[-1], temperature)
    return {"epochs": config.epochs, "clips": len(prepared.train), "files": names}


def write_refit_evidence(
    folder: Path, found: Mapping[str, Any], metrics: Mapping[str, Any], table: ClipTable, command: str
) -> None:
    """Into each file of a refit: the figures of its twin that has not seen the scored clips, called so."""
    for name in found["files"]:
        twin = name.replace("model.all.", "model.", 1)
        figures = metrics["files"][twin]
        what = (
            f"split {metrics['split']}, of {twin}: the same recipe without these clips; this file was trained on all "
            f"{found['clips']} clips for {found['epochs']} epochs; they cannot measure it"
        )
        keys = [key for key in FIGURES if figures.get(key) is not None]
        add_evidence(folder / name, keys, figures, what, table, command)
