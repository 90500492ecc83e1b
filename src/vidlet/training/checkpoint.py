"""What a run leaves behind after each epoch: its checkpoint, its log, its curves."""

from __future__ import annotations

import csv
import io
import math
import pickle
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


class RunFolder:
    """The folder of a run: ``checkpoint.pt``, ``log.csv`` and ``tensorboard/``.

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
        path = self.checkpoint
        try:
            saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise TrainingError(f"{path}: not a whole checkpoint ({reason}); train again without --resume") from error
        if not isinstance(saved, dict) or saved.get("identity") != self.identity:
            raise TrainingError(f"{path}: was made with another recipe or other data; train into another --out folder")
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        if average is not None:
            average.load_state_dict(saved["average"])
        return Progress(**saved["progress"]), saved["best"]

    def save(
        self,
        progress: Progress,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: nn.Module | None,
        best: dict[str, Tensor] | None,
    ) -> None:
        """Write checkpoint, log and curves of the epoch that ended."""
        saved = {
            "identity": self.identity,
            "progress": vars(progress),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "best": best,
        }
        save_tensors(saved, self.checkpoint)
        write_text(self.folder / LOG, log_csv(progress.history))
        if self.board is not None:
            row = progress.history[-1]
            for key, value in row.items():
                if key != "epoch":
                    self.board.add_scalar(key, value, progress.epoch)
            self.board.flush()

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
