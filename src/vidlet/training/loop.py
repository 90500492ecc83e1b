"""The training loop: one for heads on stored features and for whole networks on frames.

An epoch's every random draw follows from (seed, epoch), and a checkpoint is written after each epoch: a run that was
killed continues to the same result, losing at most the epoch it was in.
"""

from __future__ import annotations

import copy
import csv
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import TrainingError
from ..files import write_bytes, write_text
from ..models.extractor import FrameExtractor
from ..models.head import Head
from ..recipe import Training
from .augment import check_amounts
from .batches import Clips

Row = dict[str, float]


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


@dataclass
class Progress:
    """What training has come to; all of it is in the checkpoint."""

    epoch: int = 0  # epochs finished
    updates: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Row] = field(default_factory=list)


def fit(
    network: ClipNetwork,
    train: Clips,
    val: Clips,
    config: Training,
    folder: Path,
    identity: str,
    multi_label: bool = False,
    resume: bool = False,
    device: str = "cpu",
    report: Callable[[Row, int], None] | None = None,
) -> Progress:
    """Train ``network`` in place and leave its chosen weights in it.

    Chosen are the weights of the lowest validation loss where ``early_stopping`` is on, else the last (averaged)
    ones. After every epoch ``folder`` gets ``checkpoint.pt`` and ``log.csv``.

    Args:
        identity: hash of recipe and data; a checkpoint of another identity is refused.
        report: called after each epoch with its row of the log and the number of epochs in all.

    Raises:
        TrainingError: a loss that is not finite (says where), or a checkpoint that does not belong to this run.
    """
    check_amounts(config.augment, config.mode)
    network.to(device)
    if network.extractor is not None:
        network.extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network, config)
    average = copy.deepcopy(network).eval() if config.average else None
    best: dict[str, Tensor] | None = None
    progress = Progress()
    checkpoint = folder / "checkpoint.pt"
    if resume and checkpoint.exists():
        progress, best = _load(checkpoint, identity, network, optimizer, average)
    weights = torch.from_numpy(_class_weights(train.targets)) if config.class_weights and not multi_label else None
    steps = math.ceil(len(train) / config.batch)
    board = _board(folder, progress.epoch)
    while progress.epoch < config.epochs and not _stopped(progress, config):
        epoch = progress.epoch
        torch.manual_seed(config.seed * 100_003 + epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(len(train))
        network.train()
        total, hits = 0.0, 0.0
        for index, batch in enumerate(
            train.batches(config.batch, order.tolist(), config.augment, [config.seed, epoch])
        ):
            rate = _rate(config, progress.updates, steps)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            y = batch.y.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = network(batch.x.to(device), batch.mask.to(device)).float()
            loss = _loss(logits, y, config, weights, multi_label)
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"the loss became {loss.item()} in epoch {epoch + 1}, batch {index + 1} "
                    f"(clips {', '.join(batch.names[:3])} ...): lower training.lr (now {config.lr:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
            progress.updates += 1
            if average is not None:
                _average_(average, network, config.average, progress.updates)
            total += loss.item() * len(y)
            hits += (logits.argmax(1) == y.argmax(1)).sum().item()
        chosen = average if average is not None else network
        val_logits = predict_logits(chosen, val, config.batch, device)
        val_y = torch.from_numpy(val.targets)
        val_loss = _loss(torch.from_numpy(val_logits), val_y, config, None, multi_label).item()
        row = {
            "epoch": epoch + 1,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": total / len(train),
            "train_accuracy": hits / len(train),
            "val_loss": val_loss,
            "val_accuracy": float((val_logits.argmax(1) == val.targets.argmax(1)).mean()),
        }
        progress.epoch += 1
        progress.history.append(row)
        if val_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = val_loss, progress.epoch
            if config.early_stopping:
                best = {k: v.detach().cpu().clone() for k, v in chosen.state_dict().items()}
        _save(checkpoint, identity, progress, network, optimizer, average, best)
        write_text(folder / "log.csv", log_csv(progress.history))
        if board is not None:
            for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
                board.add_scalar(key, row[key], progress.epoch)
            board.flush()
        if report:
            report(row, config.epochs)
    if board is not None:
        board.close()
    if best is not None:
        network.load_state_dict(best)
    elif average is not None:
        network.load_state_dict(average.state_dict())
    network.eval()
    return progress


@torch.no_grad()
def predict_logits(network: nn.Module, clips: Clips, batch: int, device: str = "cpu") -> np.ndarray:
    """Logits (N, K) of clips as they are, in their order."""
    was_training = network.training
    network.eval()
    parts = [
        network(b.x.to(device), b.mask.to(device)).float().cpu().numpy()
        for b in clips.batches(batch, range(len(clips)), None, [0])
    ]
    network.train(was_training)
    return np.concatenate(parts)


def log_csv(history: list[Row]) -> str:
    """The log as CSV text, one row an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in history)
    return text.getvalue()


def _loss(logits: Tensor, y: Tensor, config: Training, weights: Tensor | None, multi_label: bool) -> Tensor:
    if multi_label:
        return functional.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1).mean()
    smoothed = y * (1 - config.label_smoothing) + config.label_smoothing / y.shape[1]
    losses = -(smoothed * logits.log_softmax(1)).sum(1)
    if weights is None:
        return losses.mean()
    of_clip = y @ weights.to(y)
    return (losses * of_clip).sum() / of_clip.sum()


def _class_weights(targets: np.ndarray) -> np.ndarray:
    """Weight of each class: inverse of its frequency, square-rooted so that a rare class does not rule; mean 1."""
    count = targets.sum(0)
    weights = np.where(count > 0, 1 / np.sqrt(np.maximum(count, 1)), 0.0)
    return (weights / weights[count > 0].mean()).astype(np.float32)


def _optimizer(network: ClipNetwork, config: Training) -> torch.optim.Optimizer:
    groups = []
    for module, rate in ((network.head, config.lr), (network.extractor, config.extractor_lr)):
        if module is None:
            continue
        parameters = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups += [
            {"params": decayed, "base_lr": rate, "weight_decay": config.weight_decay},
            {"params": plain, "base_lr": rate, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(groups, lr=config.lr)


def _rate(config: Training, updates: int, steps: int) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "keras-decay":
        return 1 / (1 + 1e-6 * updates)
    total, warm = config.epochs * steps, min(100, config.epochs * steps // 10)
    if updates < warm:
        return (updates + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (updates - warm) / max(1, total - warm)))


def _stopped(progress: Progress, config: Training) -> bool:
    return bool(config.early_stopping) and progress.epoch - progress.best_epoch >= config.early_stopping


@torch.no_grad()
def _average_(average: nn.Module, network: nn.Module, decay: float, updates: int) -> None:
    """Move the average towards the network; early on faster, so that the random start is forgotten."""
    decay = min(decay, (1 + updates) / (10 + updates))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _save(
    path: Path,
    identity: str,
    progress: Progress,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None,
    best: dict[str, Tensor] | None,
) -> None:
    saved = {
        "identity": identity,
        "progress": vars(progress),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "best": best,
    }
    save_tensors(saved, path)


def save_tensors(tensors: Any, path: Path) -> None:
    """``torch.save`` as a whole file or none; a full disk is an OSError, which torch itself does not tell."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_bytes(path, buffer.getvalue())


def _load(
    path: Path, identity: str, network: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
) -> tuple[Progress, dict[str, Tensor] | None]:
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(f"{path}: not a whole checkpoint ({reason}); train again without --resume") from error
    if not isinstance(saved, dict) or saved.get("identity") != identity:
        raise TrainingError(f"{path}: was made with another recipe or other data; train into another --out folder")
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    if average is not None:
        average.load_state_dict(saved["average"])
    return Progress(**saved["progress"]), saved["best"]


def _board(folder: Path, finished: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=finished + 1)
