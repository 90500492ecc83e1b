"""Cheap trials: heads trained on stored features for a few epochs, judged on clips they have not seen.

They are trained in processes of their own, one thread each: two threads of PyTorch on one head are slower than two
heads.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ..errors import DataError
from ..features import FeatureStore
from ..files import atomic_path
from ..metrics import fit_temperature
from ..models import build_head
from ..processes import processes
from ..tasks.prepare import moments
from ..training import ClipNetwork, FeatureClips, predict_logits, train_network
from .space import Candidate, Space

CLIPS = "clips.npz"
V = TypeVar("V", float, np.ndarray)
Job = tuple[Any, int]  # what is tried, a Candidate or the name of a recipe, and the number of epochs


@dataclass(frozen=True)
class Pool:
    """The clips that a search may see, as stored features, and the folds by which they are judged.

    Args:
        stores: (place, hz) -> the setting of its store.
        keys: of the clips, in one order.
        targets: (N, K) float32.
        folds: for each fold, True where a clip is held out, (N,); whole groups.
    """

    root: Path
    stores: Mapping[tuple[str, float], Mapping[str, Any]]
    keys: tuple[str, ...]
    targets: np.ndarray
    folds: tuple[np.ndarray, ...]
    max_frames: int = 256
    device: str = "cpu"  # where heads are trained

    def store(self, candidate: Candidate) -> FeatureStore:
        """The features that a candidate's head sees."""
        return self.store_at((candidate.place, candidate.hz))

    def store_at(self, place: tuple[str, float]) -> FeatureStore:
        """The features of a place and a rate."""
        return FeatureStore(self.root, self.stores[place])


@dataclass(frozen=True)
class Outcome:
    """What a trial found on the clips held out, all folds together."""

    accuracy: float
    loss: float  # mean cross-entropy at the best temperature
    seconds: float

    @property
    def score(self) -> float:
        """What the search maximizes."""
        return worth(self.accuracy, self.loss)


def worth(accuracy: V, loss: V) -> V:
    """One figure to choose by: accuracy, and the loss (nats) where accuracies are equal or rest on a few clips."""
    return accuracy - 0.05 * loss


def try_candidate(space: Space, pool: Pool, candidate: Candidate, epochs: int) -> Outcome:
    """Train a head on each fold's training clips and score it on those held out."""
    started = time.monotonic()
    torch.set_num_threads(1)
    logits = np.zeros_like(pool.targets)
    seen = np.zeros(len(pool.keys), bool)
    for held_out in pool.folds:
        network, val = train_head(space, pool, candidate, epochs, held_out)
        logits[held_out] = predict_logits(network, val, space.batch)
        seen |= held_out
    accuracy, loss = outcome_of(logits[seen], pool.targets[seen])
    return Outcome(accuracy, loss, round(time.monotonic() - started, 2))


class Trials(Protocol):
    """What every trial of a search needs; it is sent to the processes that try."""

    def lay_out(self, folder: Path) -> dict[str, Any]:
        """What a process that joins is told, as JSON-able values; more lies in the folder then.

        Trials of clips are told whole; of others the ``identity``, for who joins finds data and recipes itself.
        """
        ...

    def check(self) -> None:
        """DataError: it is not seen here."""
        ...

    def work(self, tried: Any, epochs: int) -> Outcome:
        """Try something."""
        ...


@dataclass(frozen=True)
class ClipTrials:
    """Trials of heads on stored features of clips."""

    space: Space
    pool: Pool

    def lay_out(self, folder: Path) -> dict[str, Any]:
        """See ``Trials``."""
        pool = self.pool
        with atomic_path(folder / CLIPS) as draft:
            np.savez(draft, targets=pool.targets, folds=np.array(pool.folds))
        stores = [[place, hz, dict(setting)] for (place, hz), setting in pool.stores.items()]
        return {
            "space": asdict(self.space), "stores": stores, "root": str(pool.root.absolute()), "keys": pool.keys,
            "max_frames": pool.max_frames, "device": pool.device,
        }  # fmt: skip

    def check(self) -> None:
        """DataError: the features do not lie where this process finds them."""
        stores = map(self.pool.store_at, self.pool.stores)
        if not self.pool.root.is_dir() or not all(key in store for store in stores for key in self.pool.keys):
            raise DataError(
                f"{self.pool.root}: the features of the search are not seen here; set VIDLET_CACHE to a folder that "
                "all machines share"
            )

    def work(self, tried: Candidate, epochs: int) -> Outcome:
        """See ``try_candidate``."""
        return try_candidate(self.space, self.pool, tried, epochs)


def outcome_of(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Accuracy, and the mean cross-entropy at the best temperature, of logits (N, K) for targets (N, K)."""
    right, losses = each_of(logits, targets)
    return float(right.mean()), float(losses.mean())


def each_of(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each clip whether its label is named, bool (N,), and the cross-entropy (N,); see ``outcome_of``."""
    labels = targets.argmax(1)
    scaled = logits / fit_temperature(logits, labels)
    scaled = scaled - scaled.max(1, keepdims=True)
    return logits.argmax(1) == labels, np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]


def train_head(space: Space, pool: Pool, candidate: Candidate, epochs: int, held_out: np.ndarray) -> tuple[Any, Any]:
    """A head trained on the clips that are not held out: (network, the held-out clips)."""
    store = pool.store(candidate)
    recipe = space.recipe(candidate, "trial", epochs=epochs)
    kept, out = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    mean, std = moments(store.read(pool.keys[i]).features for i in kept)

    def clips(rows: np.ndarray) -> FeatureClips:
        names = [pool.keys[i] for i in rows]
        return FeatureClips(lambda i: store.read(names[i]).features, pool.targets[rows], names, std, pool.max_frames)

    torch.manual_seed(space.seed)
    head = build_head(recipe.head, store.shape, pool.targets.shape[1])
    network = ClipNetwork(head)
    watched = clips(kept[:1])  # nothing stops early: one clip for the loop's log
    train_network(network, clips(kept), watched, recipe.training, device=pool.device, moments=(mean, std))
    return network, clips(out)


class AnyWorkers(Protocol):
    """What tries candidates side by side: see ``Workers``, whose methods these are."""

    @property
    def count(self) -> int: ...
    def submit(self, job: Job) -> Future[Outcome]: ...
    def look(self) -> float: ...
    def close(self) -> None: ...


class Workers:
    """Processes that try candidates side by side."""

    def __init__(self, trials: Trials, count: int) -> None:
        self.count = count
        self._executor = processes(count, _begin, trials)

    def submit(self, job: Job) -> Future[Outcome]:
        """Try a candidate as soon as a process is free."""
        return self._executor.submit(_try, *job)

    def look(self) -> float:
        """What is to be seen to between trials; seconds until the next look."""
        return 1.0

    def close(self) -> None:
        """Drop what waits and what runs."""
        for process in list((self._executor._processes or {}).values()):
            process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)


_given: list[Trials] = []  # of this process, filled once by _begin


def _begin(trials: Trials) -> None:
    follow_parent()
    _given.append(trials)


def follow_parent() -> None:
    """For a process that works for another: leave interrupts to it, and end when it has ended, killed or not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = getattr(parent_process(), "pid", 0)  # getppid would be another if it had ended already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _try(tried: Any, epochs: int) -> Outcome:
    return _given[-1].work(tried, epochs)
