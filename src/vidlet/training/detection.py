"""Train a detector: the region loss on augmented pictures, as what the training loop (loop.py) learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from ..models.detector import Detector, MobileDetector
from ..recipe import Training
from .batches import Draw
from .box_batches import BoxBatch, BoxClips, check_box_amounts
from .checkpoint import Progress, Row
from .device import autocast, find_device
from .loop import Objective, Part, run_epochs
from .region_loss import WARM_IMAGES, BoxTargets, RegionWeights, region_loss
from .statistics import least_items
from .team import ALONE, Team, own_rows

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
    title: str = "train",
    team: Team = ALONE,
) -> Progress:
    """Train ``detector`` in place; its chosen weights (loop.py) are left in it, on the CPU, in eval mode.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        folder, identity, resume, report, hold, title, team: see ``run_epochs``.

    Raises:
        TrainingError: as ``run_epochs``; "cuda" where there is none.
        RecipeError: an augmentation that boxes do not know.
    """
    objective = box_objective(detector, train, val, config, find_device(device), weights, team)
    return run_epochs(
        objective, config, folder, identity, resume=resume, report=report, hold=hold, title=title, team=team
    )


def box_objective(
    detector: Detector,
    train: BoxClips,
    val: BoxClips,
    config: Training,
    device: str = "cpu",
    weights: RegionWeights | None = None,
    team: Team = ALONE,
) -> Objective:
    """The boxes of pictures as what ``run_epochs`` learns; a batch is computed in one part."""
    check_box_amounts(config.augment)
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cell = max(1, detector.input_size[0] // detector.network.map_size(*detector.input_size)[0])

    least = least_items(detector)

    def batches(order: Sequence[int], seed: Sequence[int]) -> Iterator[BoxBatch]:
        return train.batches(Draw(config.batch, order, config.augment, seed, least, team), cell)

    def parts(batch: BoxBatch, updates: int) -> Iterator[Part]:
        there = range(len(batch.names)) if batch.there is None else batch.there
        team.deal(slice(0, len(batch.names)), there)
        loss = _loss(detector, batch, weights, device, updates * config.batch, config)
        if team.size > 1:
            loss = loss * (0 if team.idle else len(there) / len(batch.names))
        yield Part(loss, 0.0, batch.names)

    def judge(judged: nn.Module, by: Team = ALONE) -> Row:
        assert isinstance(judged, Detector)
        return {"val_loss": validation_loss(judged, val, config.batch, weights, device, by)}

    def plain() -> Iterator[BoxBatch]:
        return train.batches(Draw(max(2, config.batch), range(len(train)), None, (config.seed, 0), least=least))

    def see(batch: BoxBatch) -> object:
        return _maps(detector, batch, device, EXACT)

    return Objective(
        detector, _parts(detector), len(train), batches, parts, judge, lambda judged: -judge(judged)["val_loss"],
        plain, see, least, "images", device=device,
    )  # fmt: skip


@torch.no_grad()
def validation_loss(
    detector: Detector,
    val: BoxClips,
    batch: int,
    weights: RegionWeights | None = None,
    device: str = "cpu",
    team: Team = ALONE,
) -> float:
    """The region loss, without its pull to the anchors, on pictures as they are; the detector keeps its mode."""
    was_training = detector.training
    detector.eval()
    total = 0.0
    for found in val.batches(Draw(batch, own_rows(team, len(val)))):
        total += _loss(detector, found, weights, device, WARM_IMAGES).item() * len(found.names)
    detector.train(was_training)
    return sum(team.gather(total)) / len(val)


def _parts(detector: Detector) -> tuple[nn.Module, nn.Module | None]:
    """What learns at ``training.lr`` and, where it was trained before, the backbone that learns at ``extractor_lr``."""
    network = detector.network
    if isinstance(network, MobileDetector):
        return nn.ModuleList([network.neck, network.predict]), network.backbone
    return network, None


def _loss(
    detector: Detector, batch: BoxBatch, weights: RegionWeights | None, device: str, seen: int, config: Training = EXACT
) -> torch.Tensor:
    targets = BoxTargets(*(part.to(device) for part in batch.targets))
    return region_loss(_maps(detector, batch, device, config), targets, detector.anchors, seen, weights)


def _maps(detector: Detector, batch: BoxBatch, device: str, config: Training) -> torch.Tensor:
    """Maps (B, A (5 + K), h, w) of the pictures of a batch."""
    pictures = batch.pictures.to(device).contiguous(memory_format=torch.channels_last)
    with autocast(config, device):
        maps: torch.Tensor = detector.network(detector.normalize(pictures)).float()
    return maps
