"""What a run leaves behind after each epoch: its checkpoint, its log, its curves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..files import write_bytes, write_text
from ..runs import CHECKPOINT, LOG

Row = dict[str, float]


@dataclass
class Progress:
    """What training has come to; all of it is in the checkpoint."""

    epoch: int = 0  # epochs finished
    updates: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # sentences about a training that failed


class Checkpoints:
    """What a training leaves in a folder: ``checkpoint.pt``, ``log.csv`` and ``tensorboard/``.

    Args:
        identity: hash of recipe and data; a checkpoint of another identity is refused.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.checkpoint = folder / CHECKPOINT
        self.board: Any = None

    def load(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
    ) -> tuple[Progress, dict[str, Tensor] | None]:
        """Put the checkpoint into network, optimizer and average; return the progress and the best weights.

        Raises:
            TrainingError: damaged, or of another recipe or other data.
        """
        return restore_(self.read(), self.checkpoint, network, optimizer, average)

    def read(self) -> dict[str, Any]:
        """What the checkpoint holds.

        Raises:
            TrainingError: damaged, or of another recipe or other data.
        """
        path = self.checkpoint
        try:
            saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # a damaged file makes the reader raise whatever it likes
            raise _not_whole(path, error) from error
        if not isinstance(saved, dict) or saved.get("identity") != self.identity:
            raise TrainingError(f"{path}: was made with another recipe or other data; train into another --out folder")
        return saved

    def save(
        self,
        progress: Progress,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        average: nn.Module | None,
        best: dict[str, Tensor] | None,
    ) -> None:
        """Write checkpoint, log and curves of the epoch that ended; what is solved has no optimizer."""
        saved = {
            "identity": self.identity,
            "progress": vars(progress),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict() if optimizer is not None else None,
            "average": average.state_dict() if average is not None else None,
            "best": best,
        }
        write_text(self.folder / LOG, log_csv(progress.history))  # first: behind the checkpoint it would not come again
        if self.board is not None:
            row = progress.history[-1]
            for key, value in row.items():
                if key != "epoch":
                    self.board.add_scalar(key, value, progress.epoch)
            self.board.flush()
        save_tensors(saved, self.checkpoint)

    def open_board(self, finished: int) -> None:
        """Draw curves for TensorBoard from now on, where it is installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=finished + 1)

    def close(self) -> None:
        """Finish the curves."""
        if self.board is not None:
            self.board.close()


def restore_(
    saved: dict[str, Any], path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
) -> tuple[Progress, dict[str, Tensor] | None]:
    """Put what a checkpoint holds into network, optimizer and average; return the progress and the best weights.

    Raises:
        TrainingError: it is not whole; names ``path``.
    """
    try:
        network.load_state_dict(saved["network"])
        own = [dict(group) for group in optimizer.param_groups]
        optimizer.load_state_dict(saved["optimizer"])
        _check_optimizer(optimizer, own)
        if average is not None:
            average.load_state_dict(saved["average"])
        return _progress(saved["progress"]), _weights(saved["best"], network)
    except Exception as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> TrainingError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return TrainingError(f"{path}: not a whole checkpoint ({reason}); train again without --resume")


def _check_optimizer(optimizer: torch.optim.Optimizer, own: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ValueError if groups or states are not those of this optimizer: a step would fail, or go another way.

    Args:
        own: its groups before anything was loaded; the rate alone may have changed since.
    """
    named = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "SGD": {"momentum_buffer"}}.get(type(optimizer).__name__)
    for group in optimizer.param_groups:
        if missing := optimizer.defaults.keys() - group.keys():
            raise ValueError(f"its optimizer lacks {', '.join(sorted(missing))}")
    for group, given in zip(optimizer.param_groups, own, strict=True):
        if not isinstance(group["lr"], (int, float)) or not 0 <= group["lr"] < math.inf:
            raise ValueError(f"its rate is {group['lr']!r}")
        for name in optimizer.defaults.keys() - {"lr"}:
            if group[name] != given[name]:
                raise ValueError(f"{name} of its optimizer is {group[name]!r}, of this training {given[name]!r}")
    for parameter, state in optimizer.state.items():
        if named is not None and state and set(state) != named:
            raise ValueError(f"a parameter's state has {', '.join(map(str, state))}")
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} of a parameter {tuple(parameter.shape)} is {tuple(value.shape)}")
            if not isinstance(value, (Tensor, int, float)) and value is not None:
                raise ValueError(f"{name} is {type(value).__name__}")


def _progress(saved: Any) -> Progress:
    progress = Progress(**saved)
    if saved.keys() != vars(progress).keys():
        raise ValueError(f"its progress lacks {', '.join(vars(progress).keys() - saved.keys())}")
    for name, kind in (("epoch", int), ("updates", int), ("best_epoch", int), ("best_loss", (int, float))):
        value = getattr(progress, name)
        if not isinstance(value, kind) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} is {value!r}")
    rows = progress.history
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise ValueError("its history is no table")
    if not all(isinstance(value, (int, float)) for row in rows for value in row.values()):
        raise ValueError("its history has what is no number")
    return progress


def _weights(saved: Any, network: nn.Module) -> dict[str, Tensor] | None:
    """The best weights, which must be of the network's shapes."""
    if saved is None:
        return None
    own = network.state_dict()
    if saved.keys() != own.keys() or any(saved[name].shape != own[name].shape for name in own):
        raise ValueError("its best weights are of another network")
    return dict(saved)


def save_tensors(tensors: Any, path: Path) -> None:
    """``torch.save`` as a whole file or none; a full disk is an OSError, which torch itself does not tell."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_bytes(path, buffer.getvalue())


def log_csv(history: list[Row]) -> str:
    """The log as CSV text, one row an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in history)
    return text.getvalue()
