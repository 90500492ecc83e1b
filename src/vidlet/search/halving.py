"""The search: candidates are drawn, tried for a few epochs, and the better third of each round goes on for longer.

Successive halving without waiting (Li et al. 2020, arXiv:1810.05934, ASHA): whenever a process is free, the best trial
of a round that has not been continued is, if it is among the best third of that round; else a new candidate is drawn
(Optuna's TPE, which learns from the first round). Only what fits the budget is tried, or one of the sizes around it
that the report answers "what if" for.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from typing import Any

import optuna

from .budget import TIERS, Budget, scaled
from .cards import Cards
from .proxy import AnyWorkers, Outcome
from .space import ALONE, GRID, Candidate, Space, Storage, draw, first_candidates
from .trials import TrialLog

REDUCTION = 3
EACH = 8  # candidates of a tier that are worth a file
DRAWS = 300  # tries to draw a candidate that fits, before the space counts as exhausted


@dataclass(frozen=True)
class Trial:
    """A finished trial: a candidate after so many epochs."""

    candidate: Candidate
    round: int
    outcome: Outcome


class Search:
    """What has been tried, and what to try next.

    Args:
        fits: whether a candidate may be tried.
        inside: whether it fits the budget itself, not only what "what if" asks for.
        folds: how many a trial is judged on.
        seconds: how long training a file may take: a candidate that would take longer is not continued.
    """

    def __init__(
        self,
        space: Space,
        log: TrialLog,
        fits: Callable[[Candidate], bool],
        inside: Callable[[Candidate], bool],
        folds: int = 1,
        seconds: float = math.inf,
    ) -> None:
        self.space, self.log, self.fits, self.inside, self.folds = space, log, fits, inside, folds
        self.seconds = seconds
        self.rounds = tuple(max(1, round(share * space.epochs)) for share in space.rounds)
        logged = [Trial(Candidate(**r["candidate"]), r["round"], Outcome(**r["outcome"])) for r in log.of("trial")]
        self.trials = [t for t in logged if t.candidate.place in space.places and t.candidate.hz in space.rates_hz]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = _sampler(space, space.seed + len(self.trials))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._begun: dict[str, Any] = {}  # candidate's key -> Optuna's trial, not yet told
        self._taken = {(trial.candidate.key, trial.round) for trial in self.trials}
        begin = first_candidates(space) if space.sampler == "tpe" else []
        first = [c for c in begin if (c.key, 0) not in self._taken and fits(c)]
        self._first = sorted(first, key=lambda candidate: not inside(candidate))
        for trial in self.trials:
            if trial.round == 0:
                self._study.add_trial(_told(space, trial))

    def next(self) -> tuple[Candidate, int] | None:
        """A candidate and its round; None where nothing is left to try."""
        for number in reversed(range(len(self.rounds) - 1)):
            done = [t for t in self.trials if t.round == number and self._in_time(t.candidate)]
            done.sort(key=lambda t: t.outcome.score, reverse=True)
            for trial in done[: max(1, len(done) // REDUCTION) if len(done) >= REDUCTION else 0]:
                if (trial.candidate.key, number + 1) not in self._taken:
                    self._taken.add((trial.candidate.key, number + 1))
                    return trial.candidate, number + 1
        if self._first:
            candidate = self._first.pop(0)
            self._taken.add((candidate.key, 0))
            return candidate, 0
        for number in range(DRAWS):
            asked = self._study.ask()
            candidate = draw(self.space, asked)
            allowed = self.inside if number < DRAWS / 2 else self.fits  # what "what if" asks for comes second
            if (candidate.key, 0) in self._taken or not allowed(candidate):
                self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            self._taken.add((candidate.key, 0))
            self._begun[candidate.key] = asked
            return candidate, 0
        return None

    def finish(self, candidate: Candidate, number: int, outcome: Outcome) -> Trial:
        """Take the outcome of a trial; it is on the disk when this returns."""
        trial = Trial(candidate, number, outcome)
        self.log.add("trial", candidate=asdict(candidate), round=number, outcome=asdict(outcome))
        self.trials.append(trial)
        if number == 0:
            if (asked := self._begun.pop(candidate.key, None)) is not None:
                self._study.tell(asked, outcome.score)
            else:
                self._study.add_trial(_told(self.space, trial))
        return trial

    def best(self, among: Callable[[Candidate], bool] = lambda candidate: True) -> list[Trial]:
        """Trials of the longest round that any reached, best first: one a candidate, at its longest."""
        longest: dict[str, Trial] = {}
        for trial in self.trials:
            if among(trial.candidate):
                known = longest.get(trial.candidate.key)
                if known is None or trial.round > known.round:
                    longest[trial.candidate.key] = trial
        return sorted(longest.values(), key=lambda t: (t.round, t.outcome.score), reverse=True)

    def whole(self, candidate: Candidate) -> Outcome | None:
        """How good a candidate is on all folds after all epochs; None where there is one fold, or no such trial."""
        found = [t.outcome for t in self.trials if t.candidate == candidate and self._is_whole(t)]
        return found[-1] if found else None

    def expected_seconds(self, candidate: Candidate, epochs: int = 0) -> float:
        """How long training a candidate for a file will take (0: all epochs), by its longest trial; 0 without one."""
        longest = max((t for t in self.trials if t.candidate == candidate), key=lambda t: t.round, default=None)
        if longest is None:
            return 0.0
        return longest.outcome.seconds * (epochs or self.space.epochs) / (self.rounds[longest.round] * self.folds)

    def _in_time(self, candidate: Candidate) -> bool:
        return self.expected_seconds(candidate) <= self.seconds

    def _is_whole(self, trial: Trial) -> bool:
        return self.folds > 1 and self.rounds[trial.round] >= self.space.epochs

    def run(self, workers: AnyWorkers, until: float, say: Callable[[str], None], in_any_case: bool = True) -> None:
        """Try candidates until ``until`` (of ``time.monotonic()``); trials that then run are dropped.

        Args:
            in_any_case: one trial of a candidate inside the budget is finished.
        """
        running: dict[Future[Outcome], tuple[Candidate, int]] = {}
        exhausted = False
        while not (exhausted and not running):
            enough = not in_any_case or any(self.inside(trial.candidate) for trial in self.trials)
            if enough and time.monotonic() >= until:
                break
            while not exhausted and len(running) < workers.count:
                job = self.next()
                if job is None:
                    exhausted = True
                    break
                running[workers.submit((job[0], self.rounds[job[1]]))] = job
            done, _ = wait(running, timeout=workers.look(), return_when=FIRST_COMPLETED)
            for future in done:
                candidate, number = running.pop(future)
                trial = self.finish(candidate, number, future.result())
                exhausted = False
                say(self._line(trial))

    def _line(self, trial: Trial) -> str:
        best = max(self.trials, key=lambda t: t.outcome.score)
        return (
            f"trial {len(self.trials)}: {trial.candidate.describe()}, {self.rounds[trial.round]} epochs: "
            f"{trial.outcome.accuracy:.3f} (best {best.outcome.accuracy:.3f}, {best.candidate.describe()})"
        )


def _sampler(space: Space, seed: int) -> optuna.samplers.BaseSampler:
    if space.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    with warnings.catch_warnings():  # kinds of heads have parameters of their own: each kind is a group
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def _told(space: Space, trial: Trial) -> optuna.trial.FrozenTrial:
    """A finished trial as Optuna keeps it."""
    values = asdict(trial.candidate)
    recorder = _Recorder(values)
    draw(space, recorder)
    asked = recorder.distributions
    return optuna.trial.create_trial(
        params={name: values[name] for name in asked}, distributions=asked, value=trial.outcome.score
    )


class _Recorder:
    """Answers what it was given and notes the distributions that were asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.distributions[name] = optuna.distributions.CategoricalDistribution(tuple(choices))
        return self.values[name]


Finalist = tuple[Candidate, Storage]


def finalists(trials: Search, cards: Cards, budget: Budget) -> list[Finalist]:
    """What is worth a file: of each tier the best candidates in the storage that promises most; the budget first.

    The best of a tier is also made as one head alone, where several fit, and tuned on its own answers. What is too
    large for a tier is looked at with half of its units.
    """
    inside, half, twice = (_of_tier(trials, cards, scaled(budget, tier)) for tier in TIERS)
    order: list[Finalist] = []
    for i in range(EACH + 2):  # three inside the budget for each one around it
        for chosen in (*inside[3 * i : 3 * i + 3], *half[i : i + 1], *twice[i : i + 1]):
            if chosen not in order:
                order.append(chosen)
    return order


def _of_tier(trials: Search, cards: Cards, budget: Budget) -> list[Finalist]:
    ranked: list[tuple[float, Candidate, Storage]] = []
    for trial in trials.best():
        candidate = trial.candidate
        for storage in (cards.storages(candidate, budget) or _pruned(cards, candidate, budget))[:1]:
            ranked.append((trial.round + trial.outcome.score - storage.penalty, candidate, storage))
    ranked.sort(key=lambda item: -item[0])
    plan = [(candidate, storage) for _, candidate, storage in ranked[:EACH]]
    if plan:
        best, first = plan[0]
        alone = next((s for s in cards.storages(best, budget) if s.members == 1), first)
        variants = (alone, alone.distilled()) if alone.kept == 1 else (alone,)
        plan[1:1] = [(best, s) for s in variants if (best, s) != plan[0]]
    return plan


def _pruned(cards: Cards, candidate: Candidate, budget: Budget) -> list[Storage]:
    """The storages in which a candidate is expected to keep a budget when half of its head's units are gone."""
    if candidate.kind != GRID:
        return []
    ways = [storage.pruned() for storage in ALONE]
    return [way for way in ways if cards.keeps(candidate, way, budget)]
