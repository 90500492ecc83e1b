"""``vidlet fit`` over clips: extractors and their cuts, heads on them, and ways of storing both.

What each cut of the extractor costs is measured first (an impossible budget ends here); features are computed once;
linear classifiers are solved and heads searched on them; the best are trained whole, written and measured as files; the
most accurate file that keeps the budget is trained once more on all clips that are not test.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..compression import CLIP_STEPS, chain_text, find_chain, split_chain
from ..datasets import between_segments
from ..errors import RecipeError
from ..models import FrameExtractor
from ..processes import processes
from ..progress import duration, say, working
from ..recipe import Extractor, Recipe, Sampling
from ..runs import HEAD, MODEL
from ..runtime import load
from ..tasks import TASKS
from ..tasks.clips import Scored
from ..tasks.prepare import CALIBRATION_CLIPS, graph_bytes
from ..tasks.rejection import reject_by_file, ship_rejection
from .budget import TIERS, scaled
from .cards import CLEAR
from .choice import best_first, deliverable
from .clip_costs import ClipCosts
from .cluster import ClusterWorkers
from .course import EVIDENCE_BYTES, Asked, Course, Ways, conclude, follow
from .data import (
    FEW_CLIPS,
    NO_LIMIT_S,
    VAL_SHARE,
    Built,
    Judged,
    Pace,
    cells_of,
    extraction_seconds,
    judge,
    networks_of,
    open_pool,
    some_of,
    store_joint,
    stored,
)
from .halving import Finalist, Search, finalists
from .joined import SharedWorkers
from .needs import Needs, enough
from .proxy import AnyWorkers, ClipTrials, Outcome, Workers, follow_parent
from .realize import LEAST_EPOCHS, RESERVE, ClipPoint, Timing, clip_point, kept_files, realize, refit
from .solved import Paced, Solved
from .space import ALONE, LINEAR, STORAGES, TUNED, Candidate, Space, Storage, cuts_of, place_of
from .trials import TrialLog
from .tuned import AUTO as TUNE
from .tuned import NO, Tuner

SIZES = (224, 160, 128, 96)  # of the extractor's square input, from the best
LEAST = ("block2", "block4", "block6", "block10")  # cuts of the smallest pretrained network, a quarter as wide
MANY = Space(epochs=60, rounds=(1 / 12, 1 / 4), mixups=(0.3,), noises=(0.5,))
FEW = Space(  # of fewer than FEW_CLIPS, trials are judged on all folds to the end
    epochs=60,
    rounds=(1 / 6, 1 / 2, 1.0),
    begin=("default", "pooled", "small", "large", "medium", "tiny", "fast", "trains", "least"),
    center=2 / 3,
)
EXTRACTION_SHARE = 0.35  # of the time: what features are expected to take at most
FEATURES_UNTIL = 0.6  # of the time, on a machine that is slower than expected: then some clips are left out
SEARCH_SHARE = 0.3  # of what is left then: for trials
TRIAL_S = 4.0  # without so many seconds none is begun: its process alone takes that
SOLVED_SHARE, SOLVED_S = 0.25, 5.0  # of what is left behind the features, and seconds: for linear classifiers
LEAST_ORDERED = 0.15  # of the epochs of the recurrent head that ``train`` would try: below, it is not
AMPLE = 20.0  # files that there is time for: then more is made than is needed to choose
NEARLY = 0.05  # of a trial's score: what is so little worse may be made because it is quicker


def usual_ladder() -> list[tuple[Extractor, ...]]:
    """The networks of a search, from the largest: MobileNetV2 at falling sizes of its input, then MobileNetV1 x .25.

    The largest has the vector behind its last layer, too, which ``train`` looks at.
    """
    ladder = [*(cuts_of(size=size) for size in SIZES), cuts_of("mobilenetv1", 0.25, size=128, cuts=LEAST)]
    vector = Extractor("mobilenetv2", 1.0, (SIZES[0], SIZES[0]), "head", 0, "imagenet")
    return [(*ladder[0], vector), *ladder[1:]]


class ClipSearch:
    """What of a search is about clips: costs, features, trials, files; each step once, in their order.

    Args:
        ladder: networks from the largest; searched is the first whose features time allows and on which something
            keeps the budget, and the next too where a limit on time or memory may favor it. Where at least half of a
            network's cuts have their features stored, those are searched that have them.
    """

    def __init__(
        self, course: Course[ClipPoint], judged: Judged, space: Space, ladder: Sequence[Sequence[Extractor]]
    ) -> None:
        self.course, self.asked, self.log, self.judged = course, course.asked, course.log, judged
        self.budget, self.files, self.asked_space, self.ladder = self.asked.budget, course.files, space, ladder
        self.solved: list[tuple[Candidate, Outcome]] = []

    def prepare(self) -> None:
        """Measure what extractors cost, refuse what cannot be, and compute the features of those that can.

        Raises:
            RecipeError: nothing on the ladder keeps the budget; naming what comes nearest.
        """
        space, tight = self.asked_space, self.budget.needs_times
        wide = scaled(self.budget, max(TIERS))
        left = EXTRACTION_SHARE * self.asked.seconds
        chosen: list[Extractor] = []
        self.costs = ClipCosts(self.course, self.judged)
        self.cards = self.costs.cards
        networks: dict[str, FrameExtractor] = {}
        pace, features_s = Pace(self.judged, lambda: self.asked.stretch), 0.0
        for number, rung in enumerate(self.ladder):
            if self.asked.costs_over and (chosen or number < len(self.ladder) - 1):
                continue  # the last is the smallest and the fastest
            small = {plan: int((1 - CLEAR) * min(card.bytes for card in self.costs.counted(plan))) for plan in rung}
            able = {p for p in rung if not (wide if p.grid else self.budget).broken(small[p])}
            step = [p for p in rung if p is rung[0] or p in able]
            part, built = replace(space, extractors=tuple(step)), Built(step)
            if not tight or not able:
                self.costs.count(part, built)
                if not any(self.cards.possible(place_of(plan), self.budget) for plan in step):
                    continue
            with working("look which network there is time for"):
                expected = extraction_seconds(part, self.judged, built, pace)
                if expected > left and 2 * len(ready := stored(part, self.judged, built)) >= len(step):
                    step, part, expected = ready, replace(space, extractors=tuple(ready)), 0.0
                    built = built.only(ready)
                elif expected > left and not chosen:
                    slow = replace(part, rates_hz=(min(space.rates_hz),))
                    seconds = extraction_seconds(slow, self.judged, built, pace)
                    if seconds <= left or number == len(self.ladder) - 1:
                        part, expected = slow, seconds
                        self.course.missed.append(f"frames at {max(space.rates_hz):g} Hz were not looked at")
                        space = self.asked_space = replace(space, rates_hz=slow.rates_hz)
            if expected > left and (chosen or number < len(self.ladder) - 1):
                continue
            if tight:
                self.costs.measure(part, built)
            if not any(self.cards.possible(place_of(plan), self.budget) for plan in step):
                continue
            within = [plan for plan in step if self.cards.possible(place_of(plan), wide)]
            chosen += within
            networks |= {place_of(plan): built[place_of(plan)] for plan in within}
            left, features_s = left - expected, features_s + expected
            if not (tight and within == chosen):
                break
        if not chosen:
            raise RecipeError(
                f"no model of the search fits {self.budget.describe()}: {self.cards.nearest(self.budget)}"
            )
        needs = self._needs(chosen, pace)
        if not any(self.log.of("solved")):
            needs.check(features_s * needs.clips / len(self.judged.folds[0]), graphs=True)
        chosen = self._written(chosen, networks)
        self.space = replace(space, extractors=tuple(chosen))
        names = [place_of(plan) for plan in chosen]
        say(f"features of {', '.join(names)}")
        with working("features"):
            kept = {place: networks[place] for place in names}
            begun = [some_of(self.judged, record["rows"]) for record in self.log.of("clips")]
            rest = max((1 - FEATURES_UNTIL) * self.asked.seconds, needs.behind_s)
            self.pool, looked_at = open_pool(
                self.space, begun[0] if begun else self.judged, kept, self.asked.device,
                lambda: NO_LIMIT_S if begun else self.asked.left - rest, needs.check,
            )  # fmt: skip
        self._look_at(looked_at)

    def _needs(self, chosen: Sequence[Extractor], pace: Pace) -> Needs:
        """What the search takes at least with some cuts."""
        sampling, clips = Sampling("rate", hz=max(self.asked_space.rates_hz)), enough(cells_of(self.judged))
        scored = min(clips, CALIBRATION_CLIPS) + clips // 2 + (len(self.judged.test) or clips // 2)
        return Needs(self.asked, clips, scored, pace.one_s(chosen, sampling))

    def _written(self, chosen: Sequence[Extractor], networks: Mapping[str, FrameExtractor]) -> list[Extractor]:
        """The extractors whose graphs, which compute features, are written in the time for costs; one in any case.

        First come the deepest that leave half of the budget to a head.
        """

        def rank(plan: Extractor) -> tuple[int, ...]:
            budgets = (scaled(self.budget, share) for share in (0.5, 1.0))
            return *(not self.cards.possible(place_of(plan), budget) for budget in budgets), -chosen.index(plan)

        done: list[Extractor] = []
        for plan in sorted(chosen, key=rank):
            if done and self.asked.costs_over:
                break
            graph_bytes(networks[place_of(plan)])
            done.append(plan)
        if left := len(chosen) - len(done):
            self.course.missed.append(f"{left} of {len(chosen)} cuts of {chosen[0].name} were not looked at")
        return [plan for plan in chosen if plan in done]

    def _look_at(self, judged: Judged) -> None:
        """Look at these clips alone from now on, wherever this search goes on, too."""
        seen, all_of = judged.folds[0], len(self.judged.folds[0])
        if len(seen) < all_of:
            self.course.missed.append(f"{len(seen)} of {all_of} clips were looked at")
            if not any(self.log.of("clips")):
                kept = set(seen)
                self.log.add("clips", rows=[i for i, clip in enumerate(self.judged.folds[0]) if clip in kept])
        self.judged, self.timing = judged, Timing(self.asked, judged, self.files)
        self.timing.epochs = next((record["epochs"] for record in self.log.of("epochs")), self.space.epochs)
        self.course.counts = {split: len(seen.of_split(split)) for split in ("train", "val")}

    def solve(self) -> None:
        """Measure linear classifiers: what ``train`` would choose, and the plain ones that nothing may be behind."""
        known = [(Candidate(**r["candidate"]), Outcome(**r["outcome"])) for r in self.log.of("solved")]
        self.solved, self.linear = [found for found in known if self.costs.inside(found[0])], list[Solved]()
        if self.solved and any(self.log.of("ordered")):
            return
        classes = len(self.judged.table.labels)
        rest = self.asked.left - max(SOLVED_S, SOLVED_SHARE * self.asked.left)
        with working("solve linear classifiers"):
            for network in networks_of(self.space):
                able = [plan for plan in network if self.cards.possible(place_of(plan), self.budget)]
                cuts = able if able and len(self.judged.folds) == 1 else network  # others are for "what if" alone
                if not self.linear or self.asked.left > rest:
                    found = Solved(
                        self.space, self.pool, cuts, classes, self.costs.penalty, lambda: self.asked.left < rest
                    )
                    self.linear.append(found)
                    if left_out := found.wanted - len(found.measured):
                        self.course.missed.append(f"{left_out} of {found.wanted} linear classifiers were not solved")
        self._take_solved()

    def _take_solved(self) -> None:
        known = {candidate.key for candidate, _ in self.solved}
        for found in self.linear:
            for candidate, outcome in found.candidates():
                if candidate.key not in known:
                    self.solved.append((candidate, outcome))
                    self.log.add("solved", candidate=asdict(candidate), outcome=asdict(outcome))
                    say(f"{candidate.describe()}: {outcome.accuracy:.3f} on clips held out")
        self._rank([])

    def order(self) -> None:
        """Train the recurrent head that ``train`` trains where the order of frames matters, as long as there is time.

        It comes before trials: together with what was solved it is ahead of what they find (docs/lab-notes.md). Of its
        epochs there are as many as leave the time to train it once more for the file that is chosen.
        """
        if not any(self.log.of("ordered")):
            for found in [found for found in self.linear if found.ordered][:1]:
                self._train_recurrent(found)
            self.log.add("ordered")
        self._reserve("made_s", "again_s")

    def _train_recurrent(self, found: Solved) -> None:
        member = found.recurrent()
        if member is None:
            return
        if self.timing.left < self.timing.delivering:
            self.course.missed.append("the recurrent head that train would try was not trained")
            return
        with working("try what train would"):
            paced = found.pace(member, self.asked.device)
            epochs, whole = self._epochs_of(paced, found.keeps(member)), paced.training.epochs
            if not epochs:
                self.course.missed.append("the recurrent head that train would try was not trained")
                return
            if epochs < whole:
                say(f"{member.name} is trained for {epochs} epochs of {whole}: the time allows no more")
            found.train(paced, epochs, self.asked.device)
        self._take_solved()
        self.files.mkdir(parents=True, exist_ok=True)
        for candidate, _ in self.solved:
            found.write_head(candidate, kept_files(self.files, candidate)[HEAD])

    def _epochs_of(self, paced: Paced, kept: bool) -> int:
        """How long the recurrent head is trained: as long as a search that is resumed began to; 0: there is no time.

        Args:
            kept: the file takes the head that is tried; else it is trained once more for that.
        """
        for begun in self.log.of("order"):
            return int(begun["epochs"])
        folds, copies, whole = len(self.judged.folds), paced.member.copies, paced.training.epochs
        tried = folds - 1 if folds > 1 else 1 - VAL_SHARE  # trainings, in those on all clips
        made = 0.0 if kept else copies * (1 - VAL_SHARE)
        again = copies if len(self.judged.test) else 0
        epoch_s = max(1e-9, paced.epoch_s * (tried + made + again))
        usual, at_most = (
            min(whole, int(RESERVE * (self.timing.left - kept_s) / epoch_s))
            for kept_s in (self.timing.least, self.timing.delivering)
        )
        epochs = max(usual, min(at_most, round(LEAST_EPOCHS * whole)))  # before files that explain the chosen one
        epochs = epochs if epochs >= LEAST_ORDERED * whole else 0
        took = epochs * paced.epoch_s
        self.log.add(
            "order", epochs=epochs, epoch_s=paced.epoch_s, made_s=made * took, again_s=again * took, whole=whole
        )
        return epochs

    def tune(self) -> None:
        """Train a network end to end, extractor and head, where the time that is left is known to suffice.

        It comes before trials of heads: what these find in hours is little more than what they find in minutes.
        """
        if self.asked.fine_tune != NO:
            tuner = Tuner(self.asked, self.judged, self.log, self.files, self._affordable)
            best = max((outcome.accuracy for _, outcome in self.solved), default=0.0)
            found = tuner.tune(lambda: self.timing.left - self.timing.least, best)
            if isinstance(found, str):
                self.course.missed += [found] if self.asked.fine_tune != TUNE else []  # it was asked for
            elif found:
                self._rank([found])
        self._reserve("made_s", "again_s")

    def _affordable(self, candidate: Candidate) -> bool:
        """Whether a network to fine-tune is expected to keep the budget."""
        self.costs.price(self.space, candidate)
        return self.costs.inside(candidate)

    def _rank(self, found: Sequence[tuple[Candidate, Outcome]]) -> None:
        """Add what needs no trial to what is solved, the most promising first."""
        self.solved += found
        self.solved.sort(key=lambda solved: (self.costs.penalty(solved[0]) or 0.0) - solved[1].score)

    def _reserve(self, *parts: str) -> None:
        """Keep the seconds that the training of the best of what is solved still takes, of its file or on all clips."""
        first = self.solved[0][0] if self.solved else None
        self.timing.reserved = sum(self._seconds(first, part) for part in parts) if first else 0.0

    def _seconds(self, candidate: Candidate, part: str) -> float:
        """Seconds of a training that is still to come; 0 where nothing is trained."""
        records = list(self.log.of("tuning" if candidate.kind == TUNED else "order"))  # none where an older version
        return float(records[0][part]) if records and candidate.is_trained else 0.0

    def search(self) -> None:
        """Try heads until the time for trials is over."""
        seconds = self.timing.trainable(self.space, SEARCH_SHARE)
        folds = len(self.judged.folds)
        self.trials = Search(self.space, self.log, self.costs.fits, self.costs.inside, folds, seconds)
        self.timing.trials = self.trials
        say(f"search: {self.budget.describe()}; trials are judged on {self.judged.rule}")
        workers = self._workers()
        try:
            allowed = SEARCH_SHARE * self.timing.left if seconds > self._least_training else 0.0
            if allowed > TRIAL_S * self.asked.stretch or not self.solved or not isinstance(workers, Workers):
                with working(f"try heads, {workers.count} at a time"):
                    self.trials.run(workers, time.monotonic() + allowed, say, in_any_case=not self.solved)
        finally:
            workers.close()
        if not self.trials.trials:
            self.course.missed.append("no head was tried but linear ones")

    @property
    def _least_training(self) -> float:
        """Seconds below which no trial comes to a file: half of the training of a head whose pace is known."""
        return max((r["epoch_s"] * self.space.epochs * LEAST_EPOCHS for r in self.log.of("order")), default=0.0)

    def _workers(self) -> AnyWorkers:
        """What tries: processes of this machine, with those that joined it, or the actors of a cluster."""
        if self.asked.ray is not None:
            pool = replace(self.pool, root=self.pool.root.absolute())
            return ClusterWorkers(ClipTrials(self.space, pool), self.asked.ray)
        trials, count = ClipTrials(self.space, self.pool), self.asked.workers
        return Workers(trials, count) if self.asked.board is None else SharedWorkers(trials, count, self.asked.board)

    def make_files(self) -> None:
        """Train the best candidates whole, and write and measure their files, as long as there is time."""
        done = {(p.candidate.key, p.chain) for p in self.course.points}
        best = [*self._solved_ways(), *finalists(self.trials, self.cards, self.budget)]
        plan = [(c, s) for c, s in best if (c.key, s.chain) not in done]
        self._set_epochs([finalist for finalist in best if not finalist[0].recipe])
        self.files.mkdir(parents=True, exist_ok=True)
        plan = self._make_solved(plan)
        with _processes(self.asked.workers) as executor, working("train, write and measure files"):
            running: dict[Future[list[ClipPoint]], tuple[float, float]] = {}  # when it began, how long it should take
            while plan or running:
                while len(running) < self.asked.workers:
                    chosen = self._next_file(plan, bool(running))
                    if chosen is None:
                        break
                    plan.remove(chosen)
                    expected = self.timing.training(*chosen)
                    running[executor.submit(realize, *self._to_realize(*chosen))] = (time.monotonic(), expected)
                if not running:
                    break
                finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in finished:
                    began, expected = running.pop(future)
                    for point in future.result():
                        self.timing.saw(point, time.monotonic() - began, expected)
                        self.course.add(point)
                if running and self.asked.left < 0 and any(not self.course.broken(p) for p in self.course.points):
                    _end(executor)
                    self.course.missed.append("what was being made for a file was given up")
                    break
        heads = [c for c, _ in best if not c.recipe]
        if heads and not any(point.candidate in heads for point in self.course.points):
            self.course.missed.append("no file was made but of linear classifiers")

    def _make_solved(self, plan: Sequence[Finalist]) -> list[Finalist]:
        """Write and measure the files of what is solved, and return what else is planned.

        The best is made in any case, for it takes seconds and is what nothing may be behind; others where it does not
        keep the budget as it was measured, or where there is time for many files.
        """
        with working("write and measure files of linear classifiers"):
            for candidate, storage in [finalist for finalist in plan if finalist[0].recipe]:
                ample = self.timing.left > AMPLE * self.timing.measuring
                if ample or all(self.course.broken(point) for point in self.course.points):
                    began = time.monotonic()
                    for point in realize(*self._to_realize(candidate, storage)):
                        expected = self._seconds(candidate, "made_s")
                        if candidate.kind != TUNED:  # it decodes all clips: no other file takes so long
                            self.timing.saw(point, time.monotonic() - began, expected)
                        self.course.add(point)
        self._reserve("again_s")
        return [finalist for finalist in plan if not finalist[0].recipe]

    def _to_realize(self, candidate: Candidate, storage: Storage) -> tuple[Any, ...]:
        """What ``realize`` takes of a planned file."""
        judged = self._judged(candidate)
        return *self._job(candidate), [storage.chain], self.files, judged, 1, self.asked.device, self.timing.most

    def _job(self, candidate: Candidate) -> tuple[Recipe, Any, Candidate]:
        """The recipe of a candidate's file, the clips that it learns from and is judged by."""
        plan = self._recipe(candidate)
        if "+" in plan.extractor.cut:
            store_joint(plan, self.pool, self.space)
        return plan, self.judged.folds[0], candidate

    def _recipe(self, candidate: Candidate, chain: str = "") -> Recipe:
        return self.space.recipe(candidate, f"fit-{candidate.key}", [chain] if chain else [], self.timing.epochs)

    def _judged(self, candidate: Candidate) -> Outcome | None:
        """How good a candidate is on all folds, trained as long as for its file; None where that is not known."""
        if candidate.recipe:
            own = next(outcome for known, outcome in self.solved if known == candidate)
            return own if len(self.judged.folds) > 1 else None
        return self.trials.whole(candidate) if self.timing.epochs == self.space.epochs else None

    def _solved_ways(self) -> list[Finalist]:
        """The solved candidates, each in the storage that loses least within the budget."""
        return [(candidate, self.cards.storages(candidate, self.budget)[0]) for candidate, _ in self.solved]

    def _set_epochs(self, best: Sequence[Finalist]) -> None:
        """How long heads train for files: as the recipe says, or shorter, so that a file of several heads comes to be.

        A search that goes on trains as long as it began to: heads of one file are alike in that.
        """
        if not best or any(self.log.of("epochs")):
            return
        ways = [finalist for finalist in best if finalist[0] == best[0][0]]
        self.timing.epochs = self.timing.epochs_for(ways, self.space)
        self.log.add("epochs", epochs=self.timing.epochs)
        if self.timing.epochs < self.space.epochs:
            say(f"files are trained for {self.timing.epochs} epochs of {self.space.epochs}: the time allows no more")

    def _next_file(self, plan: Sequence[Finalist], others_run: bool) -> Finalist | None:
        """The first of a plan for which there is time; where no file was made, the quickest of the best for the budget.

        Before what takes more than half of the time that is left comes the quickest file of the same candidate: its
        head is part of the other, and it shows how fast this machine is.
        """
        fits = any(not self.budget.broken(point.bytes) for point in self.course.points)
        seconds, left = self.timing.file, self.timing.left
        able = [finalist for finalist in plan if seconds(*finalist) <= left]
        if able and seconds(*able[0]) > left / 2:
            return min((f for f in able if f[0] == able[0][0]), key=lambda finalist: seconds(*finalist))
        if able:
            return able[0]
        if others_run or fits:
            return None
        inside = [f for f in plan if not self.budget.broken(self.cards.bytes(*f))] or plan
        worth = {trial.candidate: trial.round + trial.outcome.score for trial in self.trials.best()}
        good = [f for f in inside if worth[f[0]] >= max(worth[g[0]] for g in inside) - NEARLY]
        return min(good, key=lambda finalist: seconds(*finalist), default=None)

    def ways(self) -> Ways[ClipPoint]:
        """See ``Ways``."""
        return Ways(
            choose=self._choose,
            explain=self._steps,
            recipe=lambda point: self._recipe(point.candidate, point.chain),
            weights=lambda point: kept_files(self.files, point.candidate),
            refit=self._refit,
            reject=self._reject,
            rank=lambda points: best_first(deliverable(points, self._guessing, self._plain)),
            remarks=lambda: {
                "guessing": self._guessing,
                "solved": {candidate.describe(): outcome.accuracy for candidate, outcome in self.solved},
            },
        )

    def _choose(self) -> ClipPoint | None:
        """The best file that keeps the budget and is not behind a plain linear classifier, or behind guessing."""
        able = self.course.able()
        told = deliverable(able, self._guessing, self._plain)
        if able and not told:
            self.course.why = f"nothing found is better than naming the commonest class ({self._guessing:.3f})"
        return self.course.first_that_fits(best_first(told))

    @property
    def _guessing(self) -> float:
        """The share of the commonest class."""
        return float(self.pool.targets.mean(0).max())

    @property
    def _plain(self) -> Outcome | None:
        """The best plain linear classifier within the budget."""
        return next((outcome for candidate, outcome in self.solved if candidate.kind == LINEAR), None)

    def _steps(self, chosen: ClipPoint) -> list[ClipPoint]:
        """The chosen network in float32 and after each step of its chain, as files.

        Stored in the other ways it is a file too, for the front, where there is time: its training is done.
        """
        steps = find_chain(chosen.chain) if chosen.chain else ()
        wanted = [chain_text(steps[:n]) for n in range(len(steps) + 1)]
        taken = chain_text(split_chain(steps, CLIP_STEPS)[0])
        others = ["+".join(filter(None, [taken, storage.chain])) for storage in ALONE if storage.chain]
        known = {p.chain: p for p in self.course.points if p.candidate == chosen.candidate}
        missing = [c for c in wanted if c not in known and _has_graph_step(c)]
        room = max(0, self.timing.room(chosen) - len(missing))
        missing += [c for c in others if c not in (*known, *missing)][:room]
        able = max(0, int(self.timing.left / self.timing.measuring))
        if len(missing) > able:
            self.course.missed.append(f"{len(missing) - able} files that explain the chosen one were not made")
        missing = missing[:able]
        judged = self._judged(chosen.candidate)
        for point in realize(
            *self._job(chosen.candidate), missing, self.files, judged, self.asked.workers, self.asked.device,
            self.timing.most,
        ):  # fmt: skip
            known[point.chain] = self.course.add(point)
        return [known[chain] for chain in wanted if chain in known]

    def _refit(self, chosen: ClipPoint, path: Path) -> bool:
        """``model.onnx`` trained on all clips, where test clips are left to score it and time is left to train."""
        if not len(self.judged.test):
            return False
        storage = next((s for s in STORAGES if s.chain == chosen.chain), ALONE[0])
        plan, share = self._recipe(chosen.candidate), 1.0
        if chosen.candidate.is_trained:  # for fewer epochs on more clips, if there is no time for all
            share = min(1.0, self.asked.left / max(1e-9, self._seconds(chosen.candidate, "again_s")))
            share = max(share, self._longer(chosen.candidate))
            plan = replace(plan, training=replace(plan.training, epochs=max(1, int(share * plan.training.epochs))))
        trained = chosen.seconds * self.timing.again if chosen.candidate.recipe and share == 1.0 else 0.0
        if share < LEAST_EPOCHS or max(trained, self.timing.last(chosen.candidate, storage)) > self.asked.left:
            self.course.missed.append("the chosen file was not trained once more on all clips")
            return False
        if share < 1:
            self.course.missed.append(f"the last training had {plan.training.epochs} epochs of the recipe's")
        say("train the chosen once more, on all clips that are not test")
        with working("train once more"):
            again, heads = refit(
                plan, self.judged.folds[0], chosen, path, self.files, self.asked.left, self.asked.device
            )  # fmt: skip
        if again < heads:
            say(f"{again} of {heads} heads were trained once more; the time was over")
        return not self.budget.broken(path.stat().st_size + EVIDENCE_BYTES)

    def _longer(self, chosen: Candidate) -> float:
        """How many times as long as it was tried a recurrent head is trained in the end, as far as its recipe says.

        When it was tried it was not known how fast files are made here; what was kept for them is time for it now.
        """
        order = () if chosen.kind == TUNED else self.log.of("order")
        shorter = [r for r in order if 0 < r.get("epochs", 0) < r.get("whole", 0)]
        if not shorter:
            return 0.0
        left = RESERVE * (self.asked.left - self.timing.measuring * self.timing.test_share)
        return float(min(shorter[0]["whole"] / shorter[0]["epochs"], left / max(1e-9, shorter[0]["again_s"])))

    def _reject(self, chosen: ClipPoint, metrics: dict[str, Any], scored: Mapping[str, Scored]) -> None:
        """Ship a threshold by what the chosen file said of its validation clips, which it was not trained on."""
        if background := self.judged.background or between_segments(self.judged.table):
            with working("choose a threshold"):
                model = load(self.files / chosen.file, threads=1)
                rejection = reject_by_file(model, self.judged.folds[0].of_split("val"), background)
            ship_rejection(
                self.course.run, [MODEL], rejection, background, self.asked.none, scored, metrics, self.asked.left
            )


def _has_graph_step(chain: str) -> bool:
    """Whether a chain's file is worth a line of its own: float32, or one that is stored in fewer bits."""
    return not chain or bool(split_chain(find_chain(chain), CLIP_STEPS)[1])


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes for files; on an error or an interrupt those under way are ended."""
    executor = processes(count, follow_parent)
    try:
        yield executor
    except BaseException:
        _end(executor)
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _end(executor: ProcessPoolExecutor) -> None:
    for process in list((executor._processes or {}).values()):
        process.terminate()


def search_clips(asked: Asked, space: Space | None = None) -> dict[str, Any]:
    """``fit`` where the data are videos; see there.

    Args:
        space: what is searched; None: the cuts of the built-in extractor, as large an input as time allows.

    Raises:
        RecipeError, TrainingError, DataError: as ``fit``.
    """
    with working(f"read {asked.data}"):
        judged = judge(asked.data, asked.fold, asked.strict, asked.none)
    if judged.background:
        say(judged.background.told)
    say(
        f"fit: {len(judged.table)} clips of {len(judged.table.labels)} classes, {len(judged.test)} of them test; "
        f"{asked.budget.describe()}; about {duration(asked.seconds)}, {asked.workers} trials at a time on "
        f"{asked.device}; writes {asked.folder}"
    )
    chosen, log = _begun(asked, judged, space)
    search = clip_search(asked, judged, log, chosen, [chosen.extractors] if space else usual_ladder())
    search.prepare()
    search.solve()
    steps = (search.order, search.tune, search.search, search.make_files)
    return follow(steps, lambda: conclude(search.course, search.ways(), len(search.trials.trials)))


def check_same(asked: Asked, space: Space | None = None) -> None:
    """Refuse what another search has left in the folder.

    Raises:
        TrainingError: it is of other data, other settings or another budget.
    """
    _begun(asked, judge(asked.data, asked.fold, asked.strict, asked.none), space)
    asked.check_budget(asdict(asked.budget))


def _begun(asked: Asked, judged: Judged, space: Space | None) -> tuple[Space, TrialLog]:
    """What is searched, and the log of it, which says if it is of another search."""
    few = len(judged.folds[0]) < FEW_CLIPS
    chosen = space or replace(FEW if few else MANY, seed=asked.seed)
    determined = json.dumps([judged.table.sha256(), asdict(chosen), asked.fold], sort_keys=True)
    return chosen, asked.log(hashlib.sha256(determined.encode()).hexdigest())


def clip_search(
    asked: Asked, judged: Judged, log: TrialLog, space: Space, ladder: Sequence[Sequence[Extractor]]
) -> ClipSearch:
    """A search of which no step is taken."""
    counts = {split: len(judged.folds[0].of_split(split)) for split in ("train", "val")}
    split, table = ("test", judged.test) if len(judged.test) else ("val", judged.folds[0].of_split("val"))
    scored = (split, judged.background.without(table) if judged.background else table)
    course = Course(asked, TASKS["clips"], judged.table, log, clip_point, counts, judged.rule, scored)
    return ClipSearch(course, judged, space, ladder)
