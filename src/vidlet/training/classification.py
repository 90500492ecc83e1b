"""Clips that are named: the network that is trained, what it learns, and the one function that trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..metrics import gap
from ..models.extractor import FrameExtractor
from ..models.head import Head
from ..recipe import Training
from .augment import check_amounts
from .batches import Batch, Clips, Draw
from .checkpoint import Checkpoints, Progress, Row
from .device import autocast, find_device
from .diagnosis import Odds
from .loop import Objective, Part, run_epochs
from .losses import Teacher, batch_loss, class_weights, clip_weights, label_losses, teacher_losses
from .parts import clips_at_once, parts_of
from .probes import solvable, solve_probes_
from .statistics import least_items
from .team import ALONE, Team, own_rows

Moments = tuple[np.ndarray, np.ndarray]  # mean and deviation of features, (C,) each


class ClipNetwork(nn.Module):
    """A head, on features as they come or behind an extractor that is trained with it."""

    def __init__(self, head: Head, extractor: FrameExtractor | None = None) -> None:
        super().__init__()
        self.head, self.extractor = head, extractor

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K) of padded clips: x (B, T, *feature_shape), or frames float (B, T, 3, H, W) 0..255."""
        if self.extractor is not None:
            pictures = x[mask].contiguous(memory_format=torch.channels_last)
            real = self.extractor.features((pictures - self.extractor.zero_point) * self.extractor.scale)
            features = real.new_zeros(*mask.shape, *real.shape[1:])
            features[mask] = real
            x = features
        return self.head(x, self.head.zero_state(len(x), x), mask)[0]


def train_network(
    network: ClipNetwork,
    train: Clips,
    val: Clips,
    config: Training,
    folder: Path | None = None,
    identity: str = "",
    multi_label: bool = False,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Row, int], None] | None = None,
    teacher: Teacher | None = None,
    hold: Callable[[], None] | None = None,
    moments: Moments | None = None,
    title: str = "train",
    team: Team = ALONE,
) -> Progress:
    """Train ``network`` in place; its chosen weights (loop.py) are left in it, on the CPU, in eval mode.

    Heads on features of clips and of records, and whole networks on frames, are trained so, wherever that is done.
    Probes on stored features are solved (probes.py): of a blend the other members are trained, each by itself.

    Args:
        train, val: as the network takes them: features for a head alone, frames for a head behind an extractor.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        teacher: whose answers are learned beside the labels; training clips whose targets are NaN have no label.
        moments: of the training features; the head is calibrated with them first.
        folder, identity, resume, report, hold, title, team: see ``run_epochs``.

    Raises:
        TrainingError: as ``run_epochs``; "cuda" where there is none.
        RecipeError: an augmentation that the clips cannot have.
    """
    if moments is not None:
        network.head.calibrate(*(torch.from_numpy(values) for values in moments))
    if network.extractor is None and solvable(network.head) and teacher is None and hold is None:
        left = solve_probes_(network.head, train, multi_label)
        progress = Progress()
        for number, member in enumerate(left):
            progress = train_network(
                ClipNetwork(member), train, val, config, folder / f"member{number}" if folder and number else folder,
                f"{identity} member {number}" if number else identity, multi_label, resume, device, report, team=team,
            )  # fmt: skip
        network.eval()
        if left:
            return progress
        own = folder if team.leads else None
        return _solved(network, train, val, config, multi_label, own, identity, report)
    objective = clip_objective(network, train, val, config, multi_label, find_device(device), teacher, team)
    return run_epochs(
        objective, config, folder, identity, resume=resume, report=report, hold=hold, title=title, team=team
    )


def _solved(
    network: ClipNetwork, train: Clips, val: Clips, config: Training, multi_label: bool, folder: Path | None,
    identity: str, report: Callable[[Row, int], None] | None,
) -> Progress:  # fmt: skip
    """The progress of a network of which nothing was left to train: one row of the log."""
    rows = {}
    for name, clips in (("train", train), ("val", val)):
        logits = predict_logits(network, clips, config.batch)
        y = torch.from_numpy(clips.targets)
        rows[f"{name}_loss"] = batch_loss(torch.from_numpy(logits), y, 0.0, None, multi_label).item()
        rows[f"{name}_accuracy"] = float((logits.argmax(1) == clips.targets.argmax(1)).mean())
    row: Row = {"epoch": 1, "lr": 0.0, **rows}
    progress = Progress(epoch=1, history=[row], best_loss=row["val_loss"], best_epoch=1)
    if folder is not None:
        run = Checkpoints(folder, identity)
        run.open_board(0)
        run.save(progress, network, None, None, None)
        run.close()
    if report:
        report(row, 1)
    return progress


def clip_objective(
    network: ClipNetwork,
    train: Clips,
    val: Clips,
    config: Training,
    multi_label: bool = False,
    device: str = "cpu",
    teacher: Teacher | None = None,
    team: Team = ALONE,
) -> Objective:
    """The labels of clips, and what a teacher says of them, as what ``run_epochs`` learns.

    A batch is computed in parts of ``config.micro_batch`` clips; of 0, for a network on frames, in parts that find room
    (parts.py). The parts' gradients add up to the batch's (up to batch normalization and dropout, which see the parts),
    while activations are those of one part at a time.

    Raises:
        RecipeError: an augmentation that the clips cannot have.
        TrainingError: a single clip, for a network that normalizes over several.
    """
    check_amounts(config.augment, config.mode)
    if network.extractor is not None:
        network.extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    of_class = torch.from_numpy(class_weights(train.targets)) if config.class_weights and not multi_label else None
    size, least = config.micro_batch or config.batch, least_items(network)
    if len(train) < least:
        raise TrainingError(
            f"{len(train)} training clip: the network normalizes over the clips of a batch and needs two at least; "
            "add clips, or take a recipe whose head does not (mobilenetv2-grid-gru; records-window for records)"
        )

    def batches(order: Sequence[int], seed: Sequence[int]) -> Iterator[Batch]:
        return train.batches(Draw(config.batch, order, config.augment, seed, least, team))

    room: list[int] = [config.micro_batch] if config.micro_batch or network.extractor is None else []

    def at_once() -> int:
        return min(size, room[0]) if room and room[0] else size

    def parts(batch: Batch, updates: int) -> Iterator[Part]:
        there = range(len(batch.y)) if batch.there is None else batch.there
        if not room:
            some = list(there[:least])
            see = partial(_answer, batch=batch, rows=some, config=config, device=device)
            room.append(team.size * team.tell(clips_at_once(network, see, len(some), config.batch, device)))
        weights = clip_weights(batch.y, of_class)
        counted = weights.sum().clamp(min=1e-12)
        for rows in parts_of(len(batch.y), room[0], least):
            own = team.deal(rows, there)
            loss, logits = _loss(network, batch, own, weights[own] / counted, config, multi_label, device, teacher)
            right = logits.argmax(1).cpu() == batch.y[own].argmax(1)
            hits = (right & (weights[own] > 0)).sum().item()
            yield Part(loss * 0, 0.0, batch.names[rows]) if team.idle else Part(loss, hits, batch.names[rows])

    def judge(judged: nn.Module, by: Team = ALONE) -> Row:
        logits = predict_logits(judged, val, at_once(), device, by)
        y = torch.from_numpy(val.targets)
        loss = batch_loss(torch.from_numpy(logits), y, config.label_smoothing, None, multi_label).item()
        return {"val_loss": loss, "val_accuracy": float((logits.argmax(1) == val.targets.argmax(1)).mean())}

    def quality(judged: nn.Module) -> float:
        if multi_label:
            return gap(predict_logits(judged, val, at_once(), device), val.targets > 0.5)
        return -judge(judged)["val_loss"]

    def plain() -> Iterator[Batch]:
        return train.batches(Draw(max(2, size), range(len(train)), {}, (config.seed, 0), least))

    def see(batch: Batch) -> object:
        return network(batch.x.to(device), batch.mask.to(device))

    shares = val.targets.argmax(1)
    odds = Odds(np.bincount(shares).max() / len(val), len(val), len(train) / val.targets.shape[1])
    learners = (network.head, network.extractor)
    return Objective(
        network, learners, len(train), batches, parts, judge, quality, plain, see, least, odds=odds, device=device
    )


def _answer(network: nn.Module, batch: Batch, rows: slice | list[int], config: Training, device: str) -> Tensor:
    """Logits (B, K), float32, of some clips of a batch."""
    x, mask = (part.to(device) for part in batch.clips(rows))
    with autocast(config, device):
        logits: Tensor = network(x, mask).float()
    return logits


def _loss(
    network: nn.Module, batch: Batch, rows: slice | list[int], weights: Tensor, config: Training, multi_label: bool,
    device: str, teacher: Teacher | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What some clips, with these weights (B,), add to the batch's loss, and their logits (B, K)."""
    logits, y = _answer(network, batch, rows, config, device), batch.y[rows].to(device)
    loss = (label_losses(logits, y, config.label_smoothing, multi_label) * weights.to(device)).sum()
    if teacher is None:
        return loss, logits
    brought = None if batch.answers is None else batch.answers[rows]
    x, mask = (part.to(device) for part in batch.clips(rows))
    answer = teacher.logits(x, mask, brought, multi_label)
    distance = teacher_losses(logits, answer, teacher.temperature, multi_label).sum() / len(batch.y)
    return (1 - teacher.share) * loss + teacher.share * distance, logits


@torch.no_grad()
def predict_logits(network: nn.Module, clips: Clips, batch: int, device: str = "cpu", team: Team = ALONE) -> np.ndarray:
    """Logits (N, K) of clips as they are, in their order; every module is left in the mode it was in.

    Each process of ``team`` computes those of its own stretch, and all get all.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    parts = [
        network(b.x.to(device), b.mask.to(device)).float().cpu().numpy()
        for b in clips.batches(Draw(batch, own_rows(team, len(clips))))
    ]
    for module, mode in modes.items():
        module.training = mode
    return np.concatenate([part for parts in team.gather(parts) for part in parts])
