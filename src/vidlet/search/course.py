"""The course of a search, step by step: costs, features, trials, files, and the conclusion drawn from them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ..compression import CLIP_STEPS, chain_text, find_chain, split_chain
from ..errors import RecipeError, TrainingError
from ..models import FrameExtractor
from ..progress import megabytes, say, working
from ..recipe import Extractor, save_recipe
from ..runs import FIT, RECIPE, RunFolder
from ..runtime import benchmark
from ..tasks import TASKS
from ..tasks.prepare import sample_clips
from .budget import TIERS, Budget, scaled
from .cards import EVIDENCE_BYTES, SMALLEST, Card, Cards, kept_cards, least_bytes
from .data import Judged, build_extractors, extraction_seconds, open_pool, stored
from .finalists import Finalist, finalists
from .halving import Search
from .points import front, what_if, why_none
from .proxy import Workers, follow_parent
from .realize import Point, point_of, point_record, realize, refit
from .report import report_fit
from .space import ALONE, Candidate, Space, known_cost, place_of
from .timing import Timing
from .trials import TrialLog

EXTRACTION_SHARE = 0.35  # of the time: for features
SEARCH_SHARE = 0.3  # of what is left then: for trials
KNOWN_SHARE = 0.5  # of what a storage is known to cost, in the choice: some hundred clips tell half of it at best
ALIKE = 0.004  # of a file's promise: less than some hundred clips can tell
NEARLY = 0.05  # of a trial's score: what is so little worse may be made because it is quicker


class Course:
    """One search: what it has found, and its steps in their order.

    Args:
        log: of finished trials and files; what is in it is not done again.
        folder: where everything is left.
        seconds: for the whole search.
        device: where heads are trained.
    """

    def __init__(
        self,
        log: TrialLog,
        folder: Path,
        judged: Judged,
        budget: Budget,
        seconds: float,
        workers: int,
        device: str = "cpu",
    ) -> None:
        self.log, self.folder, self.judged, self.budget, self.device = log, folder, judged, budget, device
        self.run, self.task = RunFolder(folder), TASKS["clips"]
        self.timing, self.worker_count = Timing(seconds, judged, folder / "files"), workers
        self.points = [point_of(record) for record in log.of("file")]
        self.points = [p for p in self.points if (folder / "files" / p.file).exists()]

    def prepare(self, space: Space, ladder: Sequence[Sequence[Extractor]]) -> None:
        """Measure what extractors cost, refuse what cannot be, and compute the features of those that can.

        Args:
            ladder: networks from the largest; searched is the first whose features time allows and on which something
                keeps the budget, and the next too where a limit on time or memory may favor it. Where at least half of
                a network's cuts have their features stored, those are searched that have them.

        Raises:
            RecipeError: nothing on the ladder keeps the budget; naming what comes nearest.
        """
        tight = self.budget.needs_times
        wide = scaled(self.budget, max(TIERS))
        left = EXTRACTION_SHARE * self.timing.seconds
        chosen: list[Extractor] = []
        self.cards = Cards(len(self.judged.table.labels))
        networks: dict[str, FrameExtractor] = {}
        for number, rung in enumerate(ladder):
            built = build_extractors(replace(space, extractors=tuple(rung)))
            step = [p for p in rung if p is rung[0] or _may_fit(wide, built[place_of(p)])]  # the rest need no measuring
            built = {place_of(plan): built[place_of(plan)] for plan in step}
            part = replace(space, extractors=tuple(step))
            expected = extraction_seconds(part, self.judged, built)
            if expected > left and 2 * len(ready := stored(part, self.judged, built)) >= len(step):
                step, part, expected = ready, replace(space, extractors=tuple(ready)), 0.0
                built = {place_of(plan): built[place_of(plan)] for plan in step}
            if expected > left and (chosen or number < len(ladder) - 1):
                continue
            networks |= built
            self._cost(part, built, wide)
            if not any(self.cards.possible(place_of(plan), self.budget) for plan in step):
                continue
            within = [plan for plan in step if self.cards.possible(place_of(plan), wide)]
            chosen += within
            left -= expected
            if not (tight and within == chosen):
                break
        if not chosen:
            raise RecipeError(
                f"no model of the search fits {self.budget.describe()}: {self.cards.nearest(self.budget)}"
            )
        self.space = replace(space, extractors=tuple(chosen))
        self.timing.epochs = next((record["epochs"] for record in self.log.of("epochs")), space.epochs)
        kept = {place: networks[place] for place in self.space.places}
        say(f"features of {', '.join(self.space.places)}")
        with working("features"):
            self.pool = open_pool(self.space, self.judged, kept, self.device)

    def search(self) -> None:
        """Try heads until the time for trials is over."""
        seconds = self.timing.trainable(self.space, SEARCH_SHARE)
        self.trials = Search(self.space, self.log, self._fits, self._inside, len(self.judged.folds), seconds)
        self.timing.trials = self.trials
        say(f"search: {self.budget.describe()}; trials are judged on {self.judged.rule}")
        workers = Workers(self.space, self.pool, self.worker_count)
        try:
            with working(f"try heads, {self.worker_count} at a time"):
                self.trials.run(workers, time.monotonic() + SEARCH_SHARE * self.timing.left, say)
        finally:
            workers.close()

    def make_files(self) -> None:
        """Train the best candidates whole, and write and measure their files, as long as there is time."""
        done = {(p.candidate.key, p.chain) for p in self.points}
        best = finalists(self.trials, self.cards, self.budget)
        plan = [(c, s) for c, s in best if (c.key, s.chain) not in done]
        self._set_epochs(best)
        files = self.folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        table = self.judged.folds[0]
        with _processes(self.worker_count) as executor, working("train, write and measure files"):
            running: dict[Future[list[Point]], tuple[float, float]] = {}  # when it began, and how long it should take
            while plan or running:
                while len(running) < self.worker_count:
                    chosen = self._next_file(plan, bool(running))
                    if chosen is None:
                        break
                    plan.remove(chosen)
                    candidate, storage = chosen
                    epochs = self.timing.epochs
                    judged = self.trials.whole(candidate) if epochs == self.space.epochs else None
                    job = (self.space, table, candidate, epochs, [storage.chain], files, judged, 1, self.device)
                    expected = self.timing.training(candidate, storage)
                    running[executor.submit(realize, *job)] = (time.monotonic(), expected)
                if not running:
                    break
                finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in finished:
                    began, expected = running.pop(future)
                    for point in future.result():
                        self.timing.saw(point, time.monotonic() - began, expected)
                        self.log.add("file", **point_record(point))
                        self.points.append(point)
                        broken = "; ".join(self.budget.broken(point.bytes, point.measured))
                        say(
                            f"file {point.file}: {point.describe()}: {megabytes(point.bytes)}, "
                            f"{point.measured['frame_ms']['p50']:.2f} ms a frame, accuracy {point.accuracy:.3f}"
                            + (f" (over the budget: {broken})" if broken else "")
                        )

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
        seconds, left = self.timing.file, self.timing.left
        able = [finalist for finalist in plan if seconds(*finalist) <= left]
        if able and seconds(*able[0]) > left / 2:
            return min((f for f in able if f[0] == able[0][0]), key=lambda finalist: seconds(*finalist))
        if able:
            return able[0]
        if others_run or any(not self.budget.broken(point.bytes) for point in self.points):
            return None
        inside = [f for f in plan if not self.budget.broken(self.cards.bytes(*f))] or plan
        worth = {trial.candidate: trial.round + trial.outcome.score for trial in self.trials.best()}
        good = [f for f in inside if worth[f[0]] >= max(worth[g[0]] for g in inside) - NEARLY]
        return min(good, key=lambda finalist: seconds(*finalist), default=None)

    def conclude(self, data: str, fold: str | None, command: str) -> dict[str, Any]:
        """Choose a file, explain it, train it once more on all clips that are not test, score it, report.

        Raises:
            TrainingError: no file keeps the budget with the accuracy asked for; the front is left in ``fit.json``.
        """
        chosen = self._choose()
        steps = self._steps(chosen) if chosen else []
        better = self._choose() if chosen else None  # among the other storages, too
        if better and better != chosen:
            chosen, steps = better, self._steps(better)
        summary: dict[str, Any] = {
            "budget": asdict(self.budget),
            "judged_on": self.judged.rule,
            "trials": len(self.trials.trials),
            "front": [point_record(p) for p in front(self.points)],
            "what_if": what_if(self.points, self.budget),
            "chosen": point_record(chosen) if chosen else None,
        }
        self.run.write_metrics(summary, FIT)
        if chosen is None:
            why = why_none(self.points, self.budget, self.timing.seconds)
            raise TrainingError(f"{why}; what was found is in {self.folder / FIT}")
        summary["steps"] = [point_record(p) for p in steps]
        product = self._product(chosen)
        split = "test" if len(self.judged.test) else "val"
        clips = self.judged.test if split == "test" else self.judged.folds[0].of_split("val")
        metrics, scored = self.task.score_files(self.run, [product], clips)
        metrics |= {
            "split": split,
            "fold": fold,
            "seconds": round(time.monotonic() - self.timing.started, 1),
            "skipped": [{"path": path, "error": error} for path, error in self.judged.table.skipped],
            "clips": {
                "train": len(self.judged.folds[0].of_split("train")),
                "val": len(self.judged.folds[0].of_split("val")),
                "scored": len(scored[product].clips),
            },
        }
        self.task.write_evidence(self.run, [product], metrics, self.judged.table, command)
        summary["refit"] = split == "test"
        metrics |= summary
        self.run.write_metrics(summary, FIT)
        self.run.write_metrics(metrics)
        recipe = self.space.recipe(
            chosen.candidate, f"fit-{chosen.candidate.key}", [chosen.chain] if chosen.chain else [], self.timing.epochs
        )
        save_recipe(recipe, self.folder / RECIPE)
        report_fit(self.run, metrics, scored, self.judged, self.points, chosen, data)
        figures = metrics["files"][product]
        low, high = figures["accuracy_interval"]
        say(
            f"{self.folder / product}: {megabytes(metrics['bytes'][product])}, {chosen.describe()}, accuracy "
            f"{figures['accuracy']:.3f} [{low:.3f}, {high:.3f}] on {figures['clips']} {split} clips "
            f"({chosen.accuracy:.3f} where it was chosen)"
        )
        self.task.say_next(self.run, metrics, [product])
        return self.run.result(metrics)

    def _choose(self) -> Point | None:
        """The best file that keeps the budget, timed again now that nothing else runs.

        Between the files of a candidate a few validation clips decide badly: two heads that were seen to gain two
        points lie below one by chance now and then. So what storages are known to cost counts beside what was measured.
        Of files that are alike in that (``ALIKE``) the smallest is the better product.
        """

        def promise(point: Point) -> float:
            return point.score - KNOWN_SHARE * known_cost(point.chain)

        able = [p for p in self.points if p.accuracy >= self.budget.min_accuracy and not self.budget.broken(p.bytes)]
        ranked = sorted(able, key=lambda p: (-promise(p), p.bytes))
        alike = [p for p in ranked if promise(p) >= promise(ranked[0]) - ALIKE]
        for point in (*sorted(alike, key=lambda p: p.bytes), *ranked[len(alike) :]):
            with working(f"measure {point.file}"):
                measured = benchmark(self.folder / "files" / point.file, seconds=2.0, threads=1)
            if not self.budget.broken(point.bytes, measured):
                return point
        return None

    def _steps(self, chosen: Point) -> list[Point]:
        """The chosen network in float32 and after each step of its chain, as files.

        Stored in the other ways it is a file too, for the front, where there is time: its training is done.
        """
        steps = find_chain(chosen.chain) if chosen.chain else ()
        wanted = [chain_text(steps[:n]) for n in range(len(steps) + 1)]
        taken = chain_text(split_chain(steps, CLIP_STEPS)[0])
        others = ["+".join(filter(None, [taken, storage.chain])) for storage in ALONE if storage.chain]
        known = {p.chain: p for p in self.points if p.candidate == chosen.candidate}
        missing = [c for c in wanted if c not in known and _has_graph_step(c)]
        room = max(0, self.timing.room(chosen) - len(missing))
        missing += [c for c in others if c not in (*known, *missing)][:room]
        for point in realize(
            self.space, self.judged.folds[0], chosen.candidate, self.timing.epochs, missing, self.folder / "files",
            chosen.judged, self.worker_count, self.device,
        ):  # fmt: skip
            self.log.add("file", **point_record(point))
            self.points.append(point)
            known[point.chain] = point
        return [known[chain] for chain in wanted if chain in known]

    def _product(self, chosen: Point) -> str:
        """``model.onnx``: the chosen file, trained on all clips where test clips are left to score it."""
        path = self.run.model
        if len(self.judged.test):
            say("train the chosen once more, on all clips that are not test")
            files, timing = self.folder / "files", self.timing
            with working("train once more"):
                again, heads = refit(
                    self.space, self.judged.folds[0], chosen, timing.epochs, path, files, timing.left, self.device
                )
            if again < heads:
                say(f"{again} of {heads} heads were trained once more; the time was over")
            if not self.budget.broken(path.stat().st_size + EVIDENCE_BYTES):
                return path.name
        shutil.copyfile(self.folder / "files" / chosen.file, path)
        return path.name

    def _cost(self, space: Space, extractors: Mapping[str, FrameExtractor], budget: Budget) -> None:
        """Add the cards of extractors in all storages, from the log where they stand there.

        The cuts of a network come from the shallowest: behind one that cannot keep ``budget``, none is measured.
        """
        cards = [Card(**record["card"]) for record in self.log.of("card")]
        known = {(card.place, card.chain): card for card in cards if card.measured or not budget.needs_times}
        table = self.judged.folds[0]
        samples: list[np.ndarray] = []
        for place, extractor in extractors.items():
            cards = [known[place, s.chain] for s in ALONE if (place, s.chain) in known]
            if len(cards) < len(ALONE):
                plan = space.recipe(replace(SMALLEST, place=place, hz=min(space.rates_hz)), "samples")
                samples = samples or sample_clips(table, plan, 3)
                with working(f"measure {place}"):
                    cards = kept_cards(space, table, extractor, place, budget, samples)
                for card in cards:
                    self.log.add("card", card=asdict(card))
            self.cards.add(place, extractor.feature_shape, cards)
            if not self.cards.possible(place, budget):
                break

    def _fits(self, candidate: Candidate) -> bool:
        """Whether a candidate fits the budget in some storage, or twice its bytes."""
        return bool(self.cards.storages(candidate, scaled(self.budget, max(TIERS))))

    def _inside(self, candidate: Candidate) -> bool:
        """Whether a candidate fits the budget in some storage."""
        return bool(self.cards.storages(candidate, self.budget))


def _has_graph_step(chain: str) -> bool:
    """Whether a chain's file is worth a line of its own: float32, or one that is stored in fewer bits."""
    return not chain or bool(split_chain(find_chain(chain), CLIP_STEPS)[1])


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes for files; on an error or an interrupt those under way are ended."""
    executor = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=follow_parent)
    try:
        yield executor
    except BaseException:
        for process in list((executor._processes or {}).values()):
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _may_fit(budget: Budget, extractor: FrameExtractor) -> bool:
    return budget.max_bytes is None or least_bytes(extractor) <= budget.max_bytes
