"""The course of every search: its steps, the time, what it trains, the files that it made, the conclusion from them.

Validation clips choose; test clips are scored once, by the file that ships. What is finished stands in
``trials.jsonl`` and ``files/``: a search that was killed goes on from there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, cast

from ..datasets import BoxTable, ClipTable
from ..errors import TrainingError
from ..progress import duration, megabytes, say, working
from ..recipe import Recipe, recipe_to_dict
from ..reports import rate_text
from ..runs import CHECKPOINT, FIT, MODEL, RunFolder
from ..runtime import benchmark
from ..tasks import Task
from ..tasks.networks import Order
from ..training import for_clips
from .budget import Budget, quiet
from .joined import Board
from .points import P, by_quality, evidence_sections, front, what_if, why_none
from .trials import Record, TrialLog

EVIDENCE_BYTES = 1200  # what the measured figures add to a file's metadata
COSTS_SHARE = 0.2  # of the time: for measuring what candidates cost
TRIES = 3  # to measure a file that would keep its limit on time if nothing else ran
RECONSIDERED = 4  # times at most: where times are measured badly two files may be the better one in turn
KNOWN_S = 0.5  # processor seconds behind which it is known how much of a processor others leave
OVER = 1.1  # of the time: what took longer is said
NEARLY = 0.9  # of the time: a search that took less ended because nothing else had room in what was left
FIGURES = ("frame_ms", "clip_ms", "peak_rss_bytes", "load_ms")  # of what ``benchmark`` measures


def now() -> float:
    """Seconds of the clock that a search goes by."""
    return time.monotonic()


def processor_s() -> float:
    """Processor seconds of this process, and of those that it waited for."""
    took = os.times()
    return took.user + took.system + took.children_user + took.children_system


@dataclass(frozen=True)
class Asked:
    """What a search was asked for; see ``fit``."""

    data: str
    folder: Path
    budget: Budget
    seconds: float
    fold: str | None = None
    seed: int = 0
    strict: bool = False
    command: str = ""
    workers: int = 1
    device: str = "cpu"
    board: Board | None = None  # where others find trials
    ray: Any = None  # whose actors try, where a cluster was joined
    none: str | None = None
    fine_tune: str = "auto"  # "no", or the recipe of a network that is trained end to end
    began: float = field(default_factory=now)
    processor_began: float = field(default_factory=processor_s)

    @property
    def stretch(self) -> float:
        """Seconds in which this process got one of a processor until now, 1 at least: more where others work, too."""
        got = processor_s() - self.processor_began
        return max(1.0, (now() - self.began) / got) if got > KNOWN_S else 1.0

    @property
    def left(self) -> float:
        """Seconds until the time is over; below 0: it is."""
        return self.began + self.seconds - now()

    @property
    def costs_over(self) -> bool:
        """Whether the time for measuring what candidates cost is over."""
        return self.left < (1 - COSTS_SHARE) * self.seconds

    def check_budget(self, told: Mapping[str, Any]) -> None:
        """TrainingError: the search in the folder was within another budget than is ``told`` so."""
        if RunFolder(self.folder).metrics().get("budget") != json.loads(json.dumps(told)):
            raise TrainingError(f"{self.folder}: holds a search within another budget; choose another --out")

    def log(self, identity: str) -> TrialLog:
        """The log of the search; see there."""
        return TrialLog(self.folder / "trials.jsonl", identity)


@dataclass
class Course(Generic[P]):
    """One search: what it was asked for, what it looks at, and the files that it has made.

    Attributes:
        load: a record of the log -> the file's point.
        counts: clips or images of the splits that train and choose.
        judged_on: what chooses, in words.
        scored: the split that the product is scored on, and its clips or images; None: the table's own.
        missed: what was left out because the time was over, in words.
        why: there is no file to choose, in words, where it is not for the budget.
        doubts: why the chosen file may not keep the budget, in words.
    """

    asked: Asked
    task: Task[Any, Any]
    table: ClipTable | BoxTable
    log: TrialLog
    load: Callable[[Record], P]
    counts: Mapping[str, int]
    judged_on: str
    scored: tuple[str, Any] | None = None
    missed: list[str] = field(default_factory=list)
    why: str = ""
    doubts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = RunFolder(self.asked.folder)
        self.files = self.asked.folder / "files"
        points = map(self.load, self.log.of("file"))
        self.points = [point for point in points if (self.files / point.file).exists()]

    def add(self, point: P) -> P:
        """Take a file, and say what it is."""
        self.log.add("file", **asdict(point))
        self.points.append(point)
        low, high = point.interval
        broken = "; ".join(self.broken(point))
        say(
            f"file {point.file}: {point.describe()}: {megabytes(point.bytes)}, "
            f"{point.measured['frame_ms']['p50']:.2f} ms a frame, {self.quality} {rate_text(point.accuracy)} "
            f"[{rate_text(low)}, {rate_text(high)}]" + (f" (over the budget: {broken})" if broken else "")
        )
        return point

    def broken(self, point: P, measured: Mapping[str, Any] | None = None) -> list[str]:
        """The limits that a file does not keep, with the figures that are to be written into it; see ``Budget``."""
        return self.asked.budget.broken(point.bytes + EVIDENCE_BYTES, measured or point.measured)

    def able(self) -> list[P]:
        """The files that keep the budget, or would if nothing else ran here; where none does, all.

        What is chosen of them is timed again (``first_that_fits``).
        """
        return [point for point in self.points if not self.broken(point, quiet(point.measured))] or list(self.points)

    @property
    def quality(self) -> str:
        """What files are compared by, in words."""
        return "mAP .5" if self.task.unit == "image" else "accuracy"

    def first_that_fits(self, ranked: Iterable[P]) -> P | None:
        """The first of some files that is accurate enough and keeps the budget.

        Where time or memory is limited it is measured again, now that no trial runs, and again if what else the machine
        does stands between. Where no file keeps the limit so, the first is taken that would without; it is said.
        """
        doubted: tuple[P, list[str], float] | None = None
        self.doubts = []
        for point in ranked:
            if point.accuracy < self.asked.budget.min_accuracy or self.asked.budget.broken(
                point.bytes + EVIDENCE_BYTES
            ):
                continue
            if not self.asked.budget.needs_times:
                return point
            for _ in range(1 if doubted else TRIES):
                with working(f"measure {point.file}"):
                    measured = benchmark(self.files / point.file, seconds=2.0, threads=1)
                if not (broken := self.broken(point, measured)):
                    return point
                if self.broken(point, quiet(measured)):
                    break
            else:
                least = measured[f"{self.asked.budget.latency[0]}_ms"]["least"]
                doubted = doubted or (point, broken, least)
        if doubted is None:
            return None
        point, broken, least = doubted
        self.doubts = [
            f"{point.file} was measured beside other work: {'; '.join(broken)}; the quickest call took "
            f"{least:.2f} ms: measure it again with `vidlet benchmark`"
        ]
        return point


@dataclass(frozen=True)
class Ways(Generic[P]):
    """What the conclusion of a search does differently for clips and for images with boxes.

    Attributes:
        choose: the best file that keeps the budget; None: there is none.
        explain: the chosen one's network in float32 and after each step of its chain, as files.
        recipe: (point) -> what makes it again.
        weights: (point) -> the files of its trained network, by the names that they have in a run.
        refit: (point, path) trains the chosen one on all that is not test and writes it and its weights; False: it was
            not done.
        rank: files -> those that may be delivered, in the order in which they would be chosen.
        reject: (point, metrics, what the product said of the scored clips) puts a threshold for "none of these" into
            the product, and its figures into the metrics, where something says how that looks.
        history: (point) -> the rows of its training's log.
        remarks: what metrics.json tells beside.
    """

    choose: Callable[[], P | None]
    explain: Callable[[P], list[P]]
    recipe: Callable[[P], Recipe]
    weights: Callable[[P], Mapping[str, Path]]
    refit: Callable[[P, Path], bool] = lambda point, path: False
    reject: Callable[[P, dict[str, Any], Mapping[str, Any]], None] = lambda point, metrics, scored: None
    rank: Callable[[Sequence[P]], Sequence[P]] = by_quality
    history: Callable[[P], Sequence[Mapping[str, Any]]] = lambda point: ()
    remarks: Callable[[], Mapping[str, Any]] = dict


def follow(steps: Iterable[Callable[[], None]], conclude: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Take the steps of a search and conclude; an interrupt ends the steps, and is raised again at the end."""
    interrupted = False
    try:
        for step in steps:
            step()
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted: going on with the best so far")
    result = conclude()
    if interrupted:
        raise KeyboardInterrupt
    return result


def conclude(course: Course[P], ways: Ways[P], trials: int) -> dict[str, Any]:
    """Choose a file, explain it, train it once more where that is done, score it, report.

    Raises:
        TrainingError: no file keeps the budget with the accuracy asked for; the front is left in ``fit.json``.
    """
    asked, run, task, points = course.asked, course.run, course.task, course.points
    chosen = ways.choose()
    steps = ways.explain(chosen) if chosen else []
    for _ in range(RECONSIDERED):  # explaining makes files, too
        better = ways.choose() if chosen else None
        if better is None or better == chosen:
            break
        chosen, steps = better, ways.explain(better)
    summary: dict[str, Any] = {
        "budget": asdict(asked.budget),
        "judged_on": course.judged_on,
        "trials": trials,
        "front": [asdict(p) for p in front(points)],
        "what_if": what_if(points, asked.budget, ways.rank, chosen),
        "chosen": asdict(chosen) if chosen else None,
    }
    run.write_metrics(summary, FIT)
    if chosen is None:
        why = course.why or why_none(points, asked.budget, asked.seconds)
        raise TrainingError(f"{why}; what was found is in {asked.folder / FIT}")
    summary["steps"] = [asdict(p) for p in steps]
    summary["refit"] = ways.refit(chosen, run.model)
    if not summary["refit"]:
        shutil.copyfile(course.files / chosen.file, run.model)
        for name, weights in ways.weights(chosen).items():
            if weights.exists():  # else of an older search
                shutil.copyfile(weights, run / name)
    split, table = course.scored or task.scored_split(course.table)
    metrics, scored = task.score_files(run, [MODEL], table, asked.strict)
    skipped = dict.fromkeys([*course.table.skipped, *getattr(scored[MODEL], "skipped", ())])
    counted = task.counted
    metrics |= {
        "split": split,
        "fold": asked.fold,
        "seconds": round(now() - asked.began, 1),
        "skipped": [{"path": path, "error": error} for path, error in skipped],
        counted: {**course.counts, "scored": metrics["files"][MODEL][counted]},
        **task.remarks(table),
        **ways.remarks(),
    }
    ways.reject(chosen, metrics, scored)
    metrics |= time_told(asked, course.missed)
    metrics["warnings"] += course.doubts
    for text in course.doubts:
        say(f"warning: {text}")
    task.write_evidence(run, [MODEL], metrics, course.table, asked.command)
    metrics |= summary
    run.write_metrics(summary, FIT)
    run.write_metrics(metrics)
    run.save_recipe(ways.recipe(chosen))
    name = "mAP .5" if counted == "images" else "Accuracy"
    extra = evidence_sections(points, chosen, metrics, name, counted)
    with working("write the report"):
        task.report(run, metrics, ways.history(chosen), scored, course.table, asked.data, extra)
    say(f"chosen  {chosen.describe()}: {course.quality} {rate_text(chosen.accuracy)} where it was chosen")
    task.say(run, metrics, [MODEL])
    task.say_next(run)
    return run.result(metrics)


def time_told(asked: Asked, missed: Sequence[str]) -> dict[str, Any]:
    """What metrics.json tells of the time: "time", and "warnings" of a search that had too little; those are said, too.

    Args:
        missed: what was left out because the time was over, in words.
    """
    took = now() - asked.began
    over = bool(missed) or took > OVER * asked.seconds
    spent = f"{duration(took)} of {duration(asked.seconds)}: more --time looks further"
    why = "the time was over" if took > NEARLY * asked.seconds else "what was left of the time did not do for the rest"
    warnings = ["; ".join([why, *missed, spent])] if over else []
    for text in warnings:
        say(f"warning: {text}")
    return {
        "warnings": warnings,
        "time": {"asked_s": asked.seconds, "took_s": round(took, 1), "over": over, "left_out": list(missed)},
    }


class Trainings:
    """What a search over recipes trains, one after the other.

    Args:
        table: with splits train and val.
        recipes: names are unique.
        weights: the file of a finished run that holds its network.
    """

    def __init__(
        self,
        asked: Asked,
        task: Task[Any, Any],
        table: ClipTable | BoxTable,
        recipes: Iterable[Recipe],
        log: TrialLog,
        weights: str,
    ) -> None:
        self.asked, self.table, self.log, self.weights = asked, table, log, weights
        self.networks = task.networks()
        count = len(table.of_split("train"))
        recipes = [replace(plan, training=for_clips(plan.training, count)) for plan in recipes]
        self.plans: Mapping[str, Recipe] = {plan.name: plan for plan in recipes}
        self._prepared: tuple[Any, Any] | None = None

    def begun(self, name: str, stage: int) -> Record:
        """The order of a training that was begun already, by an earlier process too; empty if there is none."""
        orders = [r for r in self.log.of("order") if (r["name"], r["stage"]) == (name, stage)]
        return orders[-1] if orders else {}

    def done(self, name: str) -> list[Record]:
        """The finished trainings of a recipe, as the log has them."""
        return [record for record in self.log.of("trained") if record["name"] == name]

    def prepare(self, plan: Recipe, network: Any, table: ClipTable | BoxTable | None = None) -> Any:
        """What the loop takes, of recipes that see the data alike; the last are kept."""
        table = self.table if table is None else table
        key = (plan.sampling, plan.extractor.input_size, len(table))
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = None  # free the memory first
            self._prepared = (key, self.networks.prepare(plan, table, network, self.asked.strict))
        return self._prepared[1]

    @property
    def kept(self) -> Any:
        """What was prepared last."""
        assert self._prepared is not None
        return self._prepared[1]

    def train(
        self,
        name: str,
        epochs: int,
        run: RunFolder | None,
        start: tuple[RunFolder, int] | None = None,
        table: ClipTable | BoxTable | None = None,
    ) -> Any:
        """The network of a recipe after so many epochs, from the run where it was trained already; None: it diverged.

        Args:
            run: gets its weights; None: nothing is kept.
            start: a finished run whose weights this training goes on from, and the epochs behind them.
            table: to train on, if not all of it.
        """
        done = [record for record in self.done(name) if record["epochs"] == epochs]
        if done and done[-1]["failed"]:
            return None
        passes = epochs - (start[1] if start else 0)
        plan = self.plans[name]
        plan = replace(plan, training=replace(plan.training, epochs=passes, least_updates=0))
        if done and run is not None and (run / self.weights).exists():
            return self.networks.open(run, plan, self.table)
        build = self.networks.build
        network = self.networks.open(start[0], plan, self.table) if start else build(plan, self.table, None)
        with TemporaryDirectory() as scratch:
            folder = run or RunFolder(Path(scratch))
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.save_recipe(plan)
            return self._fit(network, plan, epochs, folder, self.prepare(plan, network, table))

    def _fit(self, network: Any, plan: Recipe, epochs: int, folder: RunFolder, prepared: Any) -> Any:
        identity = json.dumps([self.table.sha256(), recipe_to_dict(plan), epochs, len(prepared.train)])
        order: Order[Any] = Order(
            plan, plan.training, cast(Any, self.table), folder, identity, self.asked.device, True, self.asked.strict,
            title=f"train {plan.name}",
        )  # fmt: skip
        failed, began = False, time.monotonic()
        try:
            self.networks.fit(network, prepared, order)
        except TrainingError as error:
            failed = True
            say(f"{plan.name}: left out, {error}")
        told = {"seconds": time.monotonic() - began, "items": len(prepared.train), "failed": failed}
        (folder / CHECKPOINT).unlink(missing_ok=True)
        self.log.add("trained", name=plan.name, epochs=epochs, passes=plan.training.epochs, **told)
        return None if failed else network
