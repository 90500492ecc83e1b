"""What ``train`` would choose without a recipe, within a budget: classifiers that are solved, and a recurrent head.

They are measured on the clips held out, as trials are, in one go, so that a search has them however little time it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..features import FeatureStore
from ..models import build_head
from ..models.ensemble import Part, heads_of
from ..models.extractors import split_cuts
from ..models.head import flat_size
from ..recipe import Extractor, Training, load_recipe
from ..selection import Decision
from ..selection import Pool as ClipPool
from ..selection.candidates import Candidate as Member
from ..selection.candidates import light_probes, probe, probes_of_clips, trained_of_clips
from ..selection.choose import Choice, choose_that_fits, order_matters, weights_of
from ..selection.decide import training_of
from ..selection.measure import Measured, measure_probes, measure_trained, network_of
from ..tasks.auto import AUTO as AUTO_RECIPE
from ..tasks.auto import MOST, TARGETS
from ..tasks.prepare import moments
from ..training import ClipNetwork, FeatureClips, save_tensors, train_network
from ..training.classification import Moments
from ..training.probes import solve_probes_
from .proxy import Outcome, Pool, worth
from .space import AUTO, LINEAR, Candidate, Space, place_of

CUTS = 3  # of a network, at least, where it has so many
SMALLER = (  # of the recurrent head, where it is too large
    {"project": 96, "hidden": 128},
    {"channels": 16, "project": 96, "hidden": 128},
    {"channels": 24, "project": 64, "hidden": 96},
    {"channels": 16, "project": 64, "hidden": 64},
    {"channels": 8, "project": 32, "hidden": 48},
)
DROPOUTS = (0.35, 0.3, 0.3, 0.2, 0.2)  # that so many units bear, of many clips
CHEAP = 0.005  # of accuracy: what a storage in 8 bits, or with the head in 4, is known to cost
HARDLY = 0.02  # of worth, that a lighter probe may be behind where a larger recurrent head has room beside it
TIMED = 5  # updates


@dataclass(frozen=True)
class Paced:
    """A head that may be trained, how it would be, and the seconds of an epoch of all clips."""

    member: Member
    training: Training
    epoch_s: float


class Solved:
    """The members of ``train``'s model on some cuts of one network, as they do on the clips held out.

    Args:
        penalty: what the storage that a candidate needs to keep the budget costs in accuracy; None: it cannot.
        enough: whether the time for solving is over; one scaling of one cut is solved in any case.
    """

    def __init__(
        self,
        space: Space,
        pool: Pool,
        cuts: Sequence[Extractor],
        classes: int,
        penalty: Callable[[Candidate], float | None],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._of_file, self._known = penalty, dict[tuple[str, ...], float | None]()
        self._choices: dict[str, Choice] = {}  # a candidate's key -> its members
        self._pools: dict[str, tuple[ClipPool, Moments]] = {}
        wanted = split_cuts(load_recipe(AUTO_RECIPE).extractor.cut)
        self._usual = wanted
        others = [plan for plan in cuts if plan.cut not in wanted]
        taken = [plan for plan in cuts if plan.cut in wanted]
        taken += others[max(0, len(others) - max(0, CUTS - len(taken))) :]
        self.cuts = [plan for plan in cuts if plan in taken]
        hz = min(space.rates_hz)
        self.stores = {p.cut: FeatureStore(pool.root, pool.stores[place_of(p), hz]) for p in self.cuts}
        self.places, begin = dict[str, tuple[int, tuple[int, ...]]](), 0
        for cut, store in self.stores.items():
            self.places[cut] = (begin, tuple(store.shape))
            begin += flat_size(tuple(store.shape))
        most = int(max(200, min(MOST, TARGETS / classes)))
        self.keys = pool.keys
        rows = np.linspace(0, len(pool.keys) - 1, min(len(pool.keys), most)).astype(int)
        targets = pool.targets[rows]
        std = np.ones(begin if len(self.places) > 1 else self.places[self.cuts[0].cut][1][0], np.float32)
        clips = FeatureClips(self._read, pool.targets, pool.keys, std, pool.max_frames)
        self.every = ClipPool(clips, pool.targets, self.places, pool.folds)  # those that a trained head learns from
        self.rows, self.held = rows, [fold[rows] for fold in pool.folds]
        self.pool = ClipPool(clips.some(rows), targets, self.places, self.held)
        self.seen = np.any(self.held, axis=0)  # by which members are chosen: clips that some fold holds out
        auto = load_recipe(AUTO_RECIPE)
        extractor = replace(self.cuts[-1], cut="", grid=0)
        training = replace(auto.training, seed=space.seed)
        self.auto = replace(auto, sampling=replace(auto.sampling, hz=hz), extractor=extractor, training=training)
        self.plain = [probe(cut, what) for cut in self.places for what in ("middle", "mean", "mean+deviation")]
        probes = (*probes_of_clips(self.places, len(rows)), *light_probes(self.places, len(rows)))
        every = {c.name: c for c in (*self.plain, *probes)}  # in this order, should the time be over
        self.wanted = len(every)
        self.measured = measure_probes(self.pool, list(every.values()), enough=enough)
        self.trained: list[tuple[Measured, Training, dict[str, torch.Tensor] | None]] = []

    def _read(self, row: int) -> np.ndarray:
        parts = [store.read(self.keys[row]).features for store in self.stores.values()]
        return parts[0] if len(parts) == 1 else np.concatenate([part.reshape(len(part), -1) for part in parts], 1)

    def _own(self, member: Member) -> tuple[ClipPool, Moments]:
        """All clips with the features of a head's cut alone, as its file's training sees them, and their moments.

        To read the other cuts beside it takes as long as the head's training.
        """
        (cut,) = member.cuts
        if cut not in self._pools:
            store, clips = self.stores[cut], self.every.clips
            assert isinstance(clips, FeatureClips)
            own = clips.reading(lambda row: store.read(self.keys[row]).features)
            found = moments(map(own.read, range(len(self.keys))))
            own.spread = found[1]
            self._pools[cut] = (
                ClipPool(own, self.every.targets, {cut: (0, self.places[cut][1])}, self.every.held),
                found,
            )
        return self._pools[cut]

    @property
    def ordered(self) -> bool:
        """Whether the order of the frames matters, so that ``train`` tries a recurrent head, too."""
        return order_matters(self.measured)

    def recurrent(self) -> Member | None:
        """The recurrent head that ``train`` would try, or the largest smaller one that keeps the budget.

        It is one that does so together with a probe of its cut that is hardly behind the best, if there is any, in a
        storage that costs little.
        """
        able = sorted((m for m in self.measured if self._penalty((m,)) is not None), key=_worth, reverse=True)
        for alone, most in ((False, CHEAP), (False, 1.0), (True, 1.0)):
            for member in self._sizes():
                untried = Measured(member, np.full(self.pool.targets.shape, np.nan), 0.0, 0.0)
                own = [m for m in able if m.candidate.cuts == member.cuts]
                beside = [(untried, m) for m in own if _worth(m) >= _worth(own[0]) - HARDLY]
                penalties = map(self._penalty, [(untried,)] if alone else beside)
                if any(penalty is not None and penalty <= most for penalty in penalties):
                    return member
        return None

    def _sizes(self) -> Iterator[Member]:
        """The recurrent heads that may be tried, the best first: of the cut that ``train`` looks at, or one before."""
        clips, cuts = len(self.keys), list(self.places)
        heads = trained_of_clips(self.places, clips)
        if all(head.copies == 1 for head in heads):  # of many clips
            usual = next((place for place, cut in enumerate(cuts) if cut in self._usual), len(cuts) - 1)
            before = reversed(cuts[: usual + 1])
            heads = [head for cut in before for head in trained_of_clips({cut: self.places[cut]}, clips)]
        for own in heads:
            yield from (own, *([replace(own, copies=1)] if own.copies > 1 else []))
            for smaller, dropout in zip(SMALLER, DROPOUTS, strict=True):
                if any(own.options.get(name, 1e9) > value for name, value in smaller.items()):
                    drop = {"dropout": dropout} if "dropout" in own.options else {}
                    name = f"{own.name} {'-'.join(map(str, smaller.values()))}"
                    yield replace(own, copies=1, options=own.options | smaller | drop, name=name)

    def pace(self, member: Member, device: str) -> Paced:
        """How long an epoch of a head over all clips takes, by a few updates."""
        config = replace(self.auto.training, **training_of([member], len(self.keys)))
        rows = np.linspace(0, len(self.keys) - 1, min(len(self.keys), TIMED * config.batch)).astype(int)
        (pool, _), took = self._own(member), 0.0
        assert isinstance(pool.clips, FeatureClips)
        for seen in (rows[: config.batch], rows):  # the first time modules are loaded
            began, own = time.monotonic(), pool.clips.some(seen)
            network = network_of(pool, member)
            train_network(network, own, own.some(np.arange(1)), replace(config, epochs=1), device=device)
            took = (time.monotonic() - began) / len(seen)
        return Paced(member, config, took * len(self.keys))

    def keeps(self, member: Member) -> bool:
        """Whether a head that is tried here needs no other training for its file: it is the same."""
        return len(self.held) == 1 and member.copies == 1

    def train(self, paced: Paced, epochs: int, device: str) -> None:
        """Try a head on the clips held out, trained for so many epochs on the others of each fold."""
        pool, own = self._own(paced.member)
        config, states = replace(paced.training, epochs=epochs), list[dict[str, torch.Tensor]]()

        def keep(network: ClipNetwork) -> None:
            states.append(_inner(heads_of(network.head)[0]).state_dict())

        found = measure_trained(pool, paced.member, config, own, len(pool.held), device, keep=keep)
        found = replace(found, probabilities=found.probabilities[self.rows])
        kept = states[0] if self.keeps(paced.member) else None
        self.trained.append((found, config, kept))

    def candidates(self) -> list[tuple[Candidate, Outcome]]:
        """The choice of ``train`` and the best plain classifier, of what keeps the budget; none where nothing does.

        The deepest cuts make a file too large for several members; so each number of cuts from the shallowest on is
        looked at.
        """
        able = [m for m in self.measured if self._penalty((m,)) is not None]
        if not able:
            return []
        every, choices = [*able, *(m for m, _, _ in self.trained)], list[Choice]()
        for depth in range(1, len(self.places) + 1):
            cuts = set(list(self.places)[:depth])
            own = [m for m in every if set(m.candidate.cuts) <= cuts]
            if any(m.candidate.head == "probe" for m in own):
                choices += self._chosen(own)
        chosen = max(choices, key=lambda c: worth(c.accuracy, c.loss) - (self._penalty(c.members) or 0.0))
        plain = {candidate.name for candidate in self.plain}
        best = max((m for m in able if m.candidate.name in plain), key=_worth, default=None)
        alone = self._chosen([best]) if best else []
        return [self._listed(chosen, AUTO), *(self._listed(choice, LINEAR) for choice in alone)]

    def _chosen(self, measured: Sequence[Measured]) -> list[Choice]:
        """The best of some within the budget, chosen by the clips held out alone."""
        known = [replace(m, probabilities=m.probabilities[self.seen]) for m in measured]
        found = choose_that_fits(known, self.pool.targets[self.seen], self._penalty)
        return [found] if found else []

    def _penalty(self, members: tuple[Measured, ...]) -> float | None:
        """What the storage costs in which members keep the budget together; None: in none."""
        names = tuple(f"{m.candidate.name} {m.candidate.copies}" for m in members)
        if names not in self._known:
            choice = Choice(members, weights_of(members), 0.0, 0.0, 1.0, members[0].probabilities)
            self._known[names] = self._of_file(self._listed(choice, AUTO)[0])
        return self._known[names]

    def _listed(self, choice: Choice, title: str) -> tuple[Candidate, Outcome]:
        decision, members = Decision(choice, choice.members, self.places), [m.candidate for m in choice.members]
        training = training_of(members, len(self.keys))
        training |= next(({"epochs": c.epochs} for m, c, _ in self.trained if m.candidate in members), {})
        names = " and ".join(member.name for member in members)
        plan = replace(decision.recipe(self.auto, False, training), name=f"{title}: {names}")
        deepest = [own for own in self.cuts if own.cut in decision.cuts][-1]
        head = Candidate.listed(place_of(deepest), plan, title)
        self._choices[head.key] = choice
        return head, Outcome(choice.accuracy, choice.loss, 0.0)

    def write_head(self, candidate: Candidate, path: Path) -> None:
        """Write the head of a candidate as its file's training would leave it, if its recurrent member was kept."""
        choice = self._choices.get(candidate.key)  # none of what was found before an interruption
        if choice is None:
            return
        kept = [state for m, _, state in self.trained if m.candidate in [own.candidate for own in choice.members]]
        if len(kept) != 1 or kept[0] is None:
            return
        decision, clips = Decision(choice, choice.members, self.places), self.every.clips
        columns, shapes = decision.columns(), [shape for _, shape in decision.own_places().values()]
        shape = shapes[0] if len(shapes) == 1 else (len(columns),)

        def read(row: int) -> np.ndarray:
            found = self._read(row)
            return found.reshape(len(found), -1)[:, columns].reshape(-1, *shape)

        assert isinstance(clips, FeatureClips)
        seen = np.flatnonzero(~self.every.held[0])
        head = build_head(candidate.head, shape, self.every.targets.shape[1])
        head.calibrate(*map(torch.from_numpy, moments(read(int(row)) for row in seen)))
        (recurrent,) = solve_probes_(head, clips.reading(read).some(seen), False)
        _inner(recurrent).load_state_dict(kept[0])
        save_tensors(head.state_dict(), path)


def _inner(head: torch.nn.Module) -> torch.nn.Module:
    return head.head if isinstance(head, Part) else head


def _worth(measured: Measured) -> float:
    return worth(measured.accuracy, measured.loss)
