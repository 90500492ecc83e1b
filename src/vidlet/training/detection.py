"""Train a detector: the region loss on augmented pictures, cosine or stepped rates, averaged weights, checkpoints.

Every random draw follows from (seed, epoch); a run that was killed goes on behind its last whole epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import TrainingError
from ..models.detector import Detector, MobileDetector
from ..recipe import Training
from .box_batches import BoxBatch, BoxClips, check_box_amounts
from .checkpoint import Progress, Row, RunFolder
from .optimizers import average_, clip_, make_optimizer, penalize_, rate_at
from .precision import autocast
from .region_loss import WARM_IMAGES, BoxTargets, RegionWeights, region_loss

EXACT = Training(precision="float32")


def fit_detector(
    detector: Detector,
    train: BoxClips,
    val: BoxClips,
    config: Training,
    folder: Path | None = None,
    identity: str = "",
    *,
    resume: bool = False,
    device: str = "cpu",
    weights: RegionWeights | None = None,
    report: Callable[[Row, int], None] | None = None,
    hold: Callable[[], None] | None = None,
) -> Progress:
    """Train ``detector`` in place and leave its chosen weights in it, in eval mode.

    Chosen are the last (averaged) weights, or those of the lowest validation loss where ``early_stopping`` is on.

    Args:
        folder: gets ``checkpoint.pt`` and ``log.csv`` after every epoch; None: nothing is written.
        identity: hash of recipe and data; a checkpoint of another identity is refused.
        report: called after each epoch with its row of the log and the number of epochs in all.
        hold: called after each update.

    Raises:
        TrainingError: a loss that is not finite (says where), or a checkpoint that does not belong to this run.
        RecipeError: an augmentation that boxes do not know.
    """
    check_box_amounts(config.augment)
    detector.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(*_parts(detector), config)
    average = copy.deepcopy(detector).eval() if config.average else None
    progress, best = Progress(), None
    run = RunFolder(folder, identity) if folder is not None else None
    if run is not None and resume and run.checkpoint.exists():
        progress, best = run.load(detector, optimizer, average)
    steps = math.ceil(len(train) / config.batch)
    cell = max(1, detector.input_size[0] // detector.network.map_size(*detector.input_size)[0])
    while progress.epoch < config.epochs and not _stopped(progress, config):
        seed = [config.seed, progress.epoch]
        torch.manual_seed(config.seed * 100_003 + progress.epoch)
        order = np.random.default_rng(seed).permutation(len(train)).tolist()
        detector.train()
        total = 0.0
        for index, batch in enumerate(train.batches(config.batch, order, config.augment, seed, cell)):
            rate = rate_at(config, progress.updates, steps)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            where = f"epoch {progress.epoch + 1}, batch {index + 1}"
            seen = progress.updates * config.batch
            total += _update(detector, optimizer, batch, config, weights, device, where, seen) * len(batch.names)
            progress.updates += 1
            if hold is not None:
                hold()
            if average is not None:
                average_(average, detector, config.average, progress.updates)
        chosen = average if average is not None else detector
        val_loss = validation_loss(chosen, val, config.batch, weights, device)
        progress.epoch += 1
        row = {
            "epoch": progress.epoch,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": total / len(train),
            "val_loss": val_loss,
        }
        progress.history.append(row)
        if val_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = val_loss, progress.epoch
            if config.early_stopping:
                best = {k: v.detach().cpu().clone() for k, v in chosen.state_dict().items()}
        if run is not None:
            run.save(progress, detector, optimizer, average, best)
        if report:
            report(row, config.epochs)
    if best is not None:
        detector.load_state_dict(best)
    elif average is not None:
        detector.load_state_dict(average.state_dict())
    detector.to("cpu").eval()
    return progress


@torch.no_grad()
def validation_loss(
    detector: Detector,
    val: BoxClips,
    batch: int,
    weights: RegionWeights | None = None,
    device: str = "cpu",
) -> float:
    """The region loss, without its pull to the anchors, on pictures as they are; the detector keeps its mode."""
    was_training = detector.training
    detector.eval()
    total = 0.0
    for found in val.batches(batch, range(len(val)), None, [0]):
        total += _loss(detector, found, weights, device, WARM_IMAGES).item() * len(found.names)
    detector.train(was_training)
    return total / len(val)


def _parts(detector: Detector) -> tuple[nn.Module, nn.Module | None]:
    """What learns at ``training.lr`` and, where it was trained before, the backbone that learns at ``extractor_lr``."""
    network = detector.network
    if isinstance(network, MobileDetector):
        return nn.ModuleList([network.neck, network.predict]), network.backbone
    return network, None


def _update(
    detector: Detector, optimizer: torch.optim.Optimizer, batch: BoxBatch, config: Training,
    weights: RegionWeights | None, device: str, where: str, seen: int,
) -> float:  # fmt: skip
    """One step; the loss before it."""
    optimizer.zero_grad(set_to_none=True)
    loss = _loss(detector, batch, weights, device, seen, config)
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"the loss became {loss.item()} in {where} (images {', '.join(batch.names[:3])} ...): "
            f"lower training.lr (now {config.lr:g})"
        )
    loss.backward()
    penalize_(detector, config.l2)
    clip_(detector, config)
    optimizer.step()
    return loss.item()


def _loss(
    detector: Detector, batch: BoxBatch, weights: RegionWeights | None, device: str, seen: int, config: Training = EXACT
) -> torch.Tensor:
    pictures = batch.pictures.to(device).contiguous(memory_format=torch.channels_last)
    targets = BoxTargets(*(part.to(device) for part in batch.targets))
    with autocast(config, device):
        maps = detector.network(detector.normalize(pictures)).float()
    return region_loss(maps, targets, detector.anchors, seen, weights)


def _stopped(progress: Progress, config: Training) -> bool:
    return bool(config.early_stopping) and progress.epoch - progress.best_epoch >= config.early_stopping
