"""The training loop: one for heads on stored features and for whole networks on frames.

An epoch's every random draw follows from (seed, epoch), and a checkpoint is written after each epoch: a run that was
killed continues to the same result, losing at most the epoch it was in.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
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
from .batches import Batch, Clips
from .checkpoint import Progress, Row, RunFolder
from .losses import Teacher, batch_loss, class_weights, clip_weights, label_losses, teacher_losses
from .optimizers import average_, clip_, make_optimizer, penalize_, rate_at
from .precision import autocast
from .snapshots import Snapshots
from .statistics import estimate_statistics_


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


def fit(
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
) -> Progress:
    """Train ``network`` in place and leave its chosen weights in it.

    Chosen are the weights of the lowest validation loss where ``early_stopping`` is on, the mean of the last
    checkpoints where ``average_last`` is (running statistics measured anew), else the last (averaged) ones. After every
    epoch ``folder`` gets ``checkpoint.pt`` and ``log.csv``; without a folder nothing is written.

    Args:
        identity: hash of recipe and data; a checkpoint of another identity is refused.
        report: called after each epoch with its row of the log and the number of epochs in all.
        teacher: whose answers are learned beside the labels; training clips whose targets are NaN have no label.
        hold: called after each update, to keep the network's weights where they belong (masks of pruning).

    Raises:
        TrainingError: a loss that is not finite (says where), or a checkpoint that does not belong to this run.
    """
    check_amounts(config.augment, config.mode)
    network.to(device)
    if network.extractor is not None:
        network.extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network.head, network.extractor, config)
    average = copy.deepcopy(network).eval() if config.average else None
    best: dict[str, Tensor] | None = None
    progress = Progress()
    run = RunFolder(folder, identity) if folder is not None else None
    if run is not None:
        if resume and run.checkpoint.exists():
            progress, best = run.load(network, optimizer, average)
        run.open_board(progress.epoch)
    of_class = torch.from_numpy(class_weights(train.targets)) if config.class_weights and not multi_label else None
    step = _Step(network, optimizer, config, of_class, multi_label, device, teacher)
    steps = math.ceil(len(train) / config.batch)
    snapshots = Snapshots(config.average_last, config.average_every, folder) if config.average_last else None
    while progress.epoch < config.epochs and not _stopped(progress, config):
        epoch = progress.epoch
        torch.manual_seed(config.seed * 100_003 + epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(len(train))
        network.train()
        total, hits = 0.0, 0.0
        for index, batch in enumerate(
            train.batches(config.batch, order.tolist(), config.augment, [config.seed, epoch])
        ):
            rate = rate_at(config, progress.updates, steps)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            loss, correct = step(batch, f"epoch {epoch + 1}, batch {index + 1}")
            progress.updates += 1
            if hold is not None:
                hold()
            if snapshots is not None:
                snapshots.keep(network, progress.updates)
            if average is not None:
                average_(average, network, config.average, progress.updates)
            total += loss * len(batch.y)
            hits += correct
        chosen = average if average is not None else network
        val_loss, val_accuracy = _validate(chosen, val, config, multi_label, device)
        progress.epoch += 1
        row = {
            "epoch": progress.epoch,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": total / len(train),
            "train_accuracy": hits / len(train),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
        }
        progress.history.append(row)
        if val_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = val_loss, progress.epoch
            if config.early_stopping:
                best = {k: v.detach().cpu().clone() for k, v in chosen.state_dict().items()}
        if run is not None:
            run.save(progress, network, optimizer, average, best)
        if report:
            report(row, config.epochs)
    if run is not None:
        run.close()
    if best is not None:
        network.load_state_dict(best)
    elif average is not None:
        network.load_state_dict(average.state_dict())
    elif snapshots is not None:
        snapshots.choose_(network, lambda: _quality(network, val, config, multi_label, device))
        if snapshots.chosen > 1:
            estimate_statistics_(network, train, config.micro_batch or config.batch, config.seed, device)
    network.eval()
    return progress


class _Step:
    """One update of the network by a batch, computed in parts of ``config.micro_batch`` clips.

    The parts' gradients add up to the batch's (up to batch normalization and dropout, which see the parts), while
    activations are those of one part at a time.
    """

    def __init__(
        self,
        network: ClipNetwork,
        optimizer: torch.optim.Optimizer,
        config: Training,
        of_class: Tensor | None,
        multi_label: bool,
        device: str,
        teacher: Teacher | None,
    ) -> None:
        self.network, self.optimizer, self.config, self.teacher = network, optimizer, config, teacher
        self.of_class, self.multi_label, self.device = of_class, multi_label, device

    def __call__(self, batch: Batch, where: str) -> tuple[float, float]:
        """The batch's loss, and how many of its clips were answered rightly; the network has moved."""
        self.optimizer.zero_grad(set_to_none=True)
        weights = clip_weights(batch.y, self.of_class)
        counted = weights.sum().clamp(min=1e-12)
        total, hits = 0.0, 0.0
        for rows in _parts(len(batch.y), self.config.micro_batch):
            loss, logits = self._loss(batch, rows, weights[rows] / counted)
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"the loss became {loss.item()} in {where} "
                    f"(clips {', '.join(batch.names[rows][:3])} ...): lower training.lr (now {self.config.lr:g})"
                )
            loss.backward()
            total += loss.item()
            right = logits.argmax(1).cpu() == batch.y[rows].argmax(1)
            hits += (right & (weights[rows] > 0)).sum().item()
        penalize_(self.network, self.config.l2)
        clip_(self.network, self.config)
        self.optimizer.step()
        return total, hits

    def _loss(self, batch: Batch, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What these clips add to the batch's loss, and their logits."""
        frames = int(batch.mask[rows].sum(1).max())
        x, mask = batch.x[rows, :frames].to(self.device), batch.mask[rows, :frames].to(self.device)
        y = batch.y[rows].to(self.device)
        with autocast(self.config, self.device):
            logits = self.network(x, mask).float()
        config = self.config
        loss = (label_losses(logits, y, config.label_smoothing, self.multi_label) * weights.to(self.device)).sum()
        if self.teacher is None:
            return loss, logits
        brought = None if batch.answers is None else batch.answers[rows]
        answer = self.teacher.logits(x, mask, brought, self.multi_label)
        distance = teacher_losses(logits, answer, self.teacher.temperature, self.multi_label).sum() / len(batch.y)
        return (1 - self.teacher.share) * loss + self.teacher.share * distance, logits


def _parts(clips: int, most: int) -> Iterator[slice]:
    """Slices of at most ``most`` clips, about equally long; 0: all at once."""
    count = math.ceil(clips / most) if most else 1
    edges = [clips * part // count for part in range(count + 1)]
    return (slice(a, b) for a, b in itertools.pairwise(edges))


def _validate(network: nn.Module, val: Clips, config: Training, multi_label: bool, device: str) -> tuple[float, float]:
    """Loss and accuracy on the validation clips."""
    logits = predict_logits(network, val, config.micro_batch or config.batch, device)
    y = torch.from_numpy(val.targets)
    loss = batch_loss(torch.from_numpy(logits), y, config.label_smoothing, None, multi_label).item()
    return loss, float((logits.argmax(1) == val.targets.argmax(1)).mean())


def _quality(network: nn.Module, val: Clips, config: Training, multi_label: bool, device: str) -> float:
    """What checkpoints are chosen by: GAP@20 where a clip may have many labels, else the negative loss."""
    if multi_label:
        logits = predict_logits(network, val, config.micro_batch or config.batch, device)
        return gap(logits, val.targets > 0.5)
    return -_validate(network, val, config, multi_label, device)[0]


def _stopped(progress: Progress, config: Training) -> bool:
    return bool(config.early_stopping) and progress.epoch - progress.best_epoch >= config.early_stopping


@torch.no_grad()
def predict_logits(network: nn.Module, clips: Clips, batch: int, device: str = "cpu") -> np.ndarray:
    """Logits (N, K) of clips as they are, in their order; every module is left in the mode it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    parts = [
        network(b.x.to(device), b.mask.to(device)).float().cpu().numpy()
        for b in clips.batches(batch, range(len(clips)), None, [0])
    ]
    for module, mode in modes.items():
        module.training = mode
    return np.concatenate(parts)
