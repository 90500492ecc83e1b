"""The training loop. What differs between clips and pictures with boxes comes as an ``Objective``.

Every random draw of an epoch follows from (seed, epoch), and a checkpoint is written after each epoch: a run that was
killed continues to the same result, losing at most the epoch it was in.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..progress import bar
from ..recipe import Training
from ..runs import CHECKPOINT
from .batches import batch_slices
from .checkpoint import Checkpoints, Progress, Row, restore_
from .diagnosis import Odds, what_failed
from .optimizers import average_, clip_, for_clips, make_optimizer, penalize_, rate_at
from .snapshots import Snapshots
from .statistics import Hurry, estimate_statistics_, is_short, learning_norms
from .team import ALONE, Team, same_weights_, shared_norms


class Part(NamedTuple):
    """Some items of a batch: what they add to its loss, how many of them were answered rightly, and their names."""

    loss: Tensor
    hits: float
    names: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """What a network learns, and from what; the loop asks nothing else about either.

    Args:
        network: is trained in place, on ``device``.
        learners: the part of it that learns at ``training.lr``, and the one that learns at ``training.extractor_lr``.
        count: items that it learns from.
        batches: (their order, seed) -> an epoch's batches, augmented; the seed fixes every draw.
        parts: (batch, updates before it) -> the parts of the batch, computed one at a time, this process's share.
        judge: (network, the processes that share the work) -> the columns of the log that are measured on validation
            items, ``val_loss`` among them; without processes, by this one alone.
        quality: network -> what checkpoints are chosen by; higher is better.
        plain: the items that it learns from, in batches, in order, not augmented.
        see: a batch goes through the network, for its running statistics.
        least: so many items must be in each batch.
        items: what messages call the items.
        odds: of answers; None where parts do not say how many of their items were answered rightly.
    """

    network: nn.Module
    learners: tuple[nn.Module, nn.Module | None]
    count: int
    batches: Callable[[Sequence[int], Sequence[int]], Iterator[Any]]
    parts: Callable[[Any, int], Iterator[Part]]
    judge: Callable[..., Row]
    quality: Callable[[nn.Module], float]
    plain: Callable[[], Iterator[Any]]
    see: Callable[[Any], object]
    least: int = 1
    items: str = "clips"
    odds: Odds | None = None
    device: str = "cpu"

    def steps(self, config: Training) -> int:
        """Updates an epoch."""
        return len(batch_slices(self.count, config.batch, self.least))


def run_epochs(
    objective: Objective,
    config: Training,
    folder: Path | None = None,
    identity: str = "",
    *,
    resume: bool = False,
    report: Callable[[Row, int], None] | None = None,
    hold: Callable[[], None] | None = None,
    title: str = "train",
    team: Team = ALONE,
) -> Progress:
    """Train the objective's network in place and leave its chosen weights in it, on the CPU, in eval mode.

    Chosen are the weights of the lowest validation loss where ``early_stopping`` is on, the mean of the last
    checkpoints where ``averaging.last`` is, else the last (averaged) ones. Running statistics are measured anew for a
    mean of checkpoints, and where there were too few updates for them (statistics.py). After every epoch ``folder``
    gets ``checkpoint.pt`` and ``log.csv``; without a folder nothing is written.

    Args:
        identity: hash of recipe and data; a checkpoint of another identity is refused.
        report: called after each epoch with its row of the log and the number of epochs in all.
        title: what the progress bar says, which moves with every update.
        hold: called after each update, to keep the network's weights where they belong (masks of pruning).
        team: the processes that train together, whose batches the objective shares out. The first one writes and
            chooses; in the others the weights after the last epoch are left.

    Raises:
        TrainingError: a loss that is not finite (says where), or a checkpoint that does not belong to this run.
    """
    objective.network.to(objective.device)
    config = for_clips(config, objective.count)
    same_weights_(team, objective.network)
    folder = folder if team.leads else None
    weights = _Weights.begin(objective, config, folder)
    progress = Progress()
    run = Checkpoints(folder, identity) if folder is not None else None
    saved = team.tell(run.read() if run is not None and resume and run.checkpoint.exists() else None)
    if saved is not None:
        where = Path(CHECKPOINT) if run is None else run.checkpoint
        progress, weights.best = restore_(saved, where, weights.network, weights.optimizer, weights.average)
    if run is not None:
        run.open_board(progress.epoch)
    every = config.epochs * objective.steps(config)
    hurry = Hurry(objective.network, every)
    with bar(title, "batch", objective.steps(config), most=bool(config.early_stopping)) as move:

        def moved(note: str = "") -> None:
            if hold is not None and not note:
                hold()
            move(progress.updates, every, note)

        while progress.epoch < config.epochs and not _stopped(progress, config):
            row = _run_epoch(objective, config, weights, progress, hurry, moved, team)
            weights.keep_best(row["val_loss"], progress, config)
            if run is not None:
                run.save(progress, weights.network, weights.optimizer, weights.average, weights.best)
            moved(f"epoch {progress.epoch} of {config.epochs}, validation loss {row['val_loss']:.3f}")
            if report:
                report(row, config.epochs)
        if run is not None:
            run.close()
        hurry.end()
        if team.leads:
            changed = weights.choose_(objective, config, progress)
            progress.warnings = _warnings(objective, config, progress, changed)
    weights.network.to("cpu").eval()
    return progress


def _warnings(objective: Objective, config: Training, progress: Progress, changed: bool) -> list[str]:
    """What is to be said of the training; ``changed``: its network is none that was judged after an epoch."""
    row = progress.history[(progress.best_epoch if config.early_stopping else progress.epoch) - 1]
    if changed and objective.odds is not None:
        row = objective.judge(objective.network)
    return what_failed(progress.history, config, progress.updates, objective.odds, row.get("val_accuracy", 0.0))


@dataclass
class _Weights:
    """The weights on their way: the network, what moves it, its running average, the best so far, checkpoints."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    snapshots: Snapshots | None
    best: dict[str, Tensor] | None = field(default=None)

    @classmethod
    def begin(cls, objective: Objective, config: Training, folder: Path | None) -> _Weights:
        """As they stand before the first update."""
        network = objective.network
        optimizer = make_optimizer(*objective.learners, config)
        average = copy.deepcopy(network).eval() if config.averaging.decay else None
        last, every = config.averaging.last, config.averaging.every
        snapshots = Snapshots(last, every, folder) if last else None
        return cls(network, optimizer, average, snapshots)

    @property
    def judged(self) -> nn.Module:
        """The network that validation sees."""
        return self.network if self.average is None else self.average

    def moved(self, config: Training, updates: int) -> None:
        """Take note of an update."""
        if self.snapshots is not None:
            self.snapshots.keep(self.network, updates)
        if self.average is not None:
            average_(self.average, self.network, config.averaging.decay, updates)

    def keep_best(self, loss: float, progress: Progress, config: Training) -> None:
        """Take note of the validation loss after an epoch."""
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            if config.early_stopping:
                self.best = {name: value.detach().cpu().clone() for name, value in self.judged.state_dict().items()}

    def choose_(self, objective: Objective, config: Training, progress: Progress) -> bool:
        """Put the weights that the training ends with into the network, and the statistics that they need.

        Returns:
            whether these are other than those that were judged after an epoch.
        """
        network, updates = self.network, progress.updates
        if self.best is not None:
            network.load_state_dict(self.best)
            updates = progress.best_epoch * objective.steps(config)
        elif self.average is not None:
            network.load_state_dict(self.average.state_dict())
        elif self.snapshots is not None:
            self.snapshots.choose_(network, lambda: objective.quality(network))
        made = self.snapshots is not None and self.snapshots.chosen > 1
        made |= any(is_short(norm, updates) for norm in learning_norms(network))
        if made:
            estimate_statistics_(network, objective.plain(), objective.see, config.seed)
        return made


def _run_epoch(
    objective: Objective,
    config: Training,
    weights: _Weights,
    progress: Progress,
    hurry: Hurry,
    moved: Callable[[], None],
    team: Team,
) -> Row:
    """Train for one epoch and validate; the row of the log."""
    seed = [config.seed, progress.epoch]
    torch.manual_seed(config.seed * 100_003 + progress.epoch + team.rank * 1_000_003)  # dropout differs
    order = np.random.default_rng(seed).permutation(objective.count).tolist()
    steps = objective.steps(config)
    weights.network.train()
    total, hits = 0.0, 0.0
    with shared_norms(objective.network, team):
        for index, batch in enumerate(objective.batches(order, seed)):
            rate = rate_at(config, progress.updates, steps)
            for group in weights.optimizer.param_groups:
                group["lr"] = group["base_lr"] * rate
            hurry.before(progress.updates)
            where = f"epoch {progress.epoch + 1}, batch {index + 1}"
            loss, correct = update(objective, config, weights.optimizer, batch, progress.updates, where, team)
            progress.updates += 1
            moved()
            weights.moved(config, progress.updates)
            total += loss * len(batch.names)
            hits += correct
    judged = team.tell(objective.judge(weights.judged, team))  # one opinion of when to stop, whatever their rounding
    progress.epoch += 1
    row = {
        "epoch": progress.epoch,
        "lr": weights.optimizer.param_groups[0]["lr"],
        "train_loss": total / objective.count,
        **({"train_accuracy": hits / objective.count} if objective.odds is not None else {}),
        **judged,
    }
    progress.history.append(row)
    return row


def update(
    objective: Objective,
    config: Training,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    updates: int,
    where: str,
    team: Team = ALONE,
) -> tuple[float, float]:
    """Move the network by one batch; the batch's loss, and how many of its items were answered rightly."""
    optimizer.zero_grad(set_to_none=True)
    total, hits = 0.0, 0.0
    for part in objective.parts(batch, updates):
        loss = part.loss.item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in {where} ({objective.items} {', '.join(part.names[:3])} ...): "
                f"lower training.lr (now {config.lr:g})"
            )
        part.loss.backward()
        total += loss
        hits += part.hits
    total, hits = team.add_gradients_(objective.network, total, hits)
    penalize_(objective.network, config.l2)
    clip_(objective.network, config)
    optimizer.step()
    return total, hits


def _stopped(progress: Progress, config: Training) -> bool:
    return bool(config.early_stopping) and progress.epoch - progress.best_epoch >= config.early_stopping
