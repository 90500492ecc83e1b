"""Cheap trials: heads trained on stored features for a few epochs, and linear ones solved, on clips they have not seen.

Heads are trained in processes of their own, one thread each: two threads of PyTorch on one head are slower than two
heads. Linear classifiers are solved in seconds, so that a search has them however little time there is.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..features import FeatureStore
from ..metrics import fit_temperature
from ..models import build_head
from ..models.head import flat_size
from ..models.joint_cuts import split_cuts
from ..recipe import Extractor, load_recipe
from ..selection import Decision
from ..selection import Pool as ClipPool
from ..selection.candidates import probe, probes_of_clips, trained_of_clips
from ..selection.choose import choose, order_matters
from ..selection.decide import training_of
from ..selection.measure import Measured, measure_probes, measure_trained
from ..tasks.auto import MOST, TARGETS
from ..tasks.prepare import moments
from ..training import ClipNetwork, FeatureClips, predict_logits, train_network
from .space import AUTO, LINEAR, Candidate, Space, place_of

Job = tuple[Candidate, int]  # and the number of epochs


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


def worth(accuracy: float, loss: float) -> float:
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


def outcome_of(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Accuracy, and the mean cross-entropy at the best temperature, of logits (N, K) for targets (N, K)."""
    labels = targets.argmax(1)
    scaled = logits / fit_temperature(logits, labels)
    scaled = scaled - scaled.max(1, keepdims=True)
    losses = np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]
    return float((logits.argmax(1) == labels).mean()), float(losses.mean())


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


class Solved:
    """Linear classifiers of some cuts of one network: what ``train`` chooses without a recipe, and the plain ones.

    They are measured on the clips held out, as trials are, in one go. Where the order of the frames matters ``train``
    also tries a recurrent head, which takes as long as a trial of all epochs: ``train`` here.
    """

    def __init__(self, space: Space, pool: Pool, cuts: Sequence[Extractor], classes: int) -> None:
        wanted = split_cuts(load_recipe(AUTO).extractor.cut)
        self.cuts = [plan for plan in cuts if plan.cut in wanted] or list(cuts)[-3:]
        hz = min(space.rates_hz)
        self.stores = {p.cut: FeatureStore(pool.root, pool.stores[place_of(p), hz]) for p in self.cuts}
        self.places, begin = dict[str, tuple[int, tuple[int, ...]]](), 0
        for cut, store in self.stores.items():
            self.places[cut] = (begin, tuple(store.shape))
            begin += flat_size(tuple(store.shape))
        most = int(max(200, min(MOST, TARGETS / classes)))
        self.keys = [pool.keys[i] for i in np.linspace(0, len(pool.keys) - 1, min(len(pool.keys), most)).astype(int)]
        rows = np.array([pool.keys.index(key) for key in self.keys])
        self.targets = pool.targets[rows]
        std = np.ones(begin if len(self.places) > 1 else self.places[self.cuts[0].cut][1][0], np.float32)
        clips = FeatureClips(self._read, self.targets, self.keys, std, pool.max_frames)
        self.pool = ClipPool(clips, self.targets, self.places, [fold[rows] for fold in pool.folds])
        self.plain = [probe(cut, what) for cut in self.places for what in ("middle", "mean", "mean+deviation")]
        every = {c.name: c for c in (*probes_of_clips(self.places), *self.plain)}
        self.measured = measure_probes(self.pool, list(every.values()))
        auto = load_recipe(AUTO)
        training = replace(auto.training, seed=space.seed)
        extractor = replace(self.cuts[-1], cut="", grid=0)
        self.auto = replace(auto, sampling=replace(auto.sampling, hz=hz), extractor=extractor, training=training)

    def _read(self, row: int) -> np.ndarray:
        parts = [store.read(self.keys[row]).features for store in self.stores.values()]
        return parts[0] if len(parts) == 1 else np.concatenate([part.reshape(len(part), -1) for part in parts], 1)

    def train(self, device: str) -> None:
        """Try the heads that ``train`` trains where the order of the frames matters."""
        clips = len(self.targets)
        mean, std = moments(self._read(row) for row in range(clips))
        for candidate in trained_of_clips(self.places, clips):
            config = replace(self.auto.training, **training_of([candidate], clips))
            folds = len(self.pool.held)
            self.measured.append(measure_trained(self.pool, candidate, config, (mean, std), folds, device))

    @property
    def ordered(self) -> bool:
        """Whether the order of the frames matters, so that ``train`` tries other heads, too."""
        return order_matters(self.measured) and bool(trained_of_clips(self.places, len(self.targets)))

    def candidates(self, keeps: Callable[[Candidate], bool]) -> list[tuple[Candidate, Outcome]]:
        """The choice of ``train`` and the best plain classifier, of what keeps the budget; none where nothing does."""
        able = [m for m in self.measured if keeps(self._candidate([m], AUTO)[0])]
        if not able:
            return []
        chosen = self._candidate(able, AUTO)
        if not keeps(chosen[0]):  # its members are too large together
            chosen = self._candidate([max(able, key=_worth)], AUTO)
        plain = {candidate.name for candidate in self.plain}
        best = max((m for m in able if m.candidate.name in plain), key=_worth, default=None)
        return [chosen, *([self._candidate([best], LINEAR)] if best else [])]

    def _candidate(self, members: Sequence[Measured], title: str) -> tuple[Candidate, Outcome]:
        choice = choose(members, self.targets)
        decision = Decision(choice, tuple(members), self.places)
        training = training_of([m.candidate for m in choice.members], len(self.targets))
        names = " and ".join(m.candidate.name for m in choice.members)
        plan = replace(decision.recipe(self.auto, False, training), name=f"{title}: {names}")
        deepest = [own for own in self.cuts if own.cut in decision.cuts][-1]
        head = Candidate.listed(place_of(deepest), plan, title)
        return head, Outcome(choice.accuracy, choice.loss, 0.0)


def _worth(measured: Measured) -> float:
    return worth(measured.accuracy, measured.loss)


class AnyWorkers(Protocol):
    """What tries candidates side by side: see ``Workers``, whose methods these are."""

    @property
    def count(self) -> int: ...
    def submit(self, job: Job) -> Future[Outcome]: ...
    def look(self) -> float: ...
    def close(self) -> None: ...


class Workers:
    """Processes that try candidates side by side."""

    def __init__(self, space: Space, pool: Pool, count: int) -> None:
        self.count = count
        self._executor = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_begin, initargs=(space, pool)
        )

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


_given: list[tuple[Space, Pool]] = []  # of this process, filled once by _begin


def _begin(space: Space, pool: Pool) -> None:
    follow_parent()
    _given.append((space, pool))


def follow_parent() -> None:
    """For a process that works for another: leave interrupts to it, and end when it has ended, killed or not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = getattr(parent_process(), "pid", 0)  # getppid would be another if it had ended already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _try(candidate: Candidate, epochs: int) -> Outcome:
    space, pool = _given[-1]
    return try_candidate(space, pool, candidate, epochs)
