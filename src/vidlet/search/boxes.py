"""``vidlet fit`` over images with boxes: costs first, then detectors trained shortly, the best of them for longer."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..artifact.detector import suppress, torch_boxes
from ..compression import file_name
from ..datasets import BoxTable
from ..errors import RecipeError
from ..metrics import Truth, detection_summary
from ..progress import say, working
from ..recipe import Recipe, recipe_to_dict
from ..reports import rate_text
from ..runs import DETECTOR, LOG, RunFolder
from ..runtime import benchmark, load
from ..tasks import TASKS, DataSource
from ..tasks.networks import Order
from ..video import resize
from .box_costs import STORED, BoxCosts, box_recipes, chain_of
from .course import FIGURES, Asked, Course, Trainings, Ways, conclude, follow
from .points import Point, point_of
from .trials import Record

TRAINED = ("deepeye", "qat+int8")  # chains that are trained, of about the bytes of int8
ROUNDS = ((1 / 30, 0.5), (1 / 6, 0.65))  # of a recipe's epochs; of the time behind the costs, until the round ends
SEEN = 5  # candidates that the time of the first round must do for: where epochs are long, they see fewer images
LEAST_UPDATES = 24  # of a trial: with fewer, networks that come pretrained look bad (docs/lab-notes.md)
TRIAL_IMAGES = 40  # that a trial is judged on, about
KEPT = 1 / 3  # of a round's candidates go on
FINAL = len(ROUNDS)
LEAST = 1 / 2  # of its epochs: less is not begun for a further candidate
RESERVE = 0.9  # of the time that is left: what a training is planned for
SIMULATED = 1 / 2  # a step that trains in integers, of the training before it: a quarter of its epochs, twice as slow
CONCLUSION_S = 10.0  # the report


@dataclass(frozen=True, kw_only=True)
class BoxPoint(Point):
    """A detector's file that exists, and what was measured of it on the validation images."""

    name: str  # of the candidate
    epochs: int
    map50_95: float
    images: int

    @property
    def what(self) -> str:
        """The candidate, and how long it was trained."""
        return f"{self.name}, {self.epochs} epochs"


class BoxSearch:
    """What of a search is about detectors: their costs, their trials, their files."""

    def __init__(self, asked: Asked, table: BoxTable, course: Course[BoxPoint], recipes: Sequence[Recipe]) -> None:
        self.asked, self.table, self.course = asked, table, course
        self.trainings = Trainings(asked, course.task, table, recipes, course.log, DETECTOR)
        self.plans, self.networks = self.trainings.plans, self.trainings.networks
        self.val = table.of_split("val")
        self.costs = BoxCosts(course, self.trainings, table)
        self.able, self.weights = self.costs.able, self.costs.weights
        self.paces: dict[str, float] = {}
        self.file_s = 5.0  # to write, score and time a file, at most, as far as was seen

    # trials

    def rounds(self) -> None:
        """Train candidates shortly; ``ranked`` are those that were tried, the best of the last round first.

        To the next round go the best of each kind of network, which do not learn at one pace, and a third in any case;
        there is one only where its time at least doubles what all of them have behind them.
        """
        self.ranked: list[str] = []
        whole, among = self.asked.left, list[str]()
        self.slice_s = ROUNDS[0][1] * whole / SEEN
        for stage, (share, until) in enumerate(ROUNDS):
            found: dict[str, float] = {}
            if any(self.slice_s < self._trained(name) * self._pace(name) for name in among) and not self._begun(stage):
                break  # it would tell little that is new
            for name in among or self._order(found):
                room = self.asked.left - (1 - until) * whole
                if found and room <= 0 and not self.trainings.begun(name, stage):
                    break
                order = self._plan_trial(name, stage, share * self.plans[name].training.epochs, room, not found)
                if order:
                    found[name] = self._trial(name, order)
            best = sorted(found, key=lambda name: -found[name])
            self.ranked = [*best, *(name for name in self.ranked if name not in found)]
            kinds = {self.plans[name].extractor.name: name for name in reversed(best)}  # the best of each
            among = sorted({*best[: math.ceil(KEPT * len(found))], *kinds.values()}, key=lambda name: -found[name])
            self.slice_s = (ROUNDS[-1][1] - until) * whole / max(1, len(among))
            if len(among) < 2:
                break

    def _plan_trial(self, name: str, stage: int, epochs: float, room: float, first: bool) -> Record:
        """How long a candidate is trained for a round, on how many images; empty: there is no time for it.

        Each candidate has its slice of the round's time, but a trial has some updates in any case. Where an epoch is
        more than that, it sees fewer images.
        """
        if order := self.trainings.begun(name, stage):
            return order
        images, least = len(self.table.of_split("train")), round(LEAST_UPDATES * self.plans[name].training.batch)
        pace, before = self._pace(name), self._trained(name)
        own = max(0.0, min(room, self.slice_s))
        passes = max(math.ceil(least / images), round(min(epochs - before, own / pace)))
        passes = max(1, min(passes, self.plans[name].training.epochs - before))
        if not stage and own < pace and images > least:
            seen = max(least, round(images * own / pace))
            images, pace = seen, pace * seen / images
        if not first and passes * pace > room:
            return {}
        return self.course.log.add("order", name=name, stage=stage, epochs=before + passes, images=images)

    def _trial(self, name: str, order: Record) -> float:
        """The mAP of a candidate's network, trained as ordered, on some validation images; 0 where it diverged."""
        for record in self.course.log.of("trial"):
            if (record["name"], record["epochs"]) == (name, order["epochs"]):
                return float(record["map50"])
        network, quality = self._network(name, order), 0.0
        if network is not None:
            plan = self.plans[name]
            val = self.trainings.prepare(plan, network, self._part(order["images"])).val
            look = torch_boxes(network.detector)
            rows = range(0, len(val), max(1, len(val) // TRIAL_IMAGES))
            found = [suppress(*look(resize(val.picture(i), plan.extractor.input_size)[None])) for i in rows]
            truths = [Truth(*self.table.truth(val.images[i])) for i in rows]
            quality = detection_summary(found, truths, self.table.labels)["map50"] or 0.0
        self.course.log.add("trial", name=name, epochs=order["epochs"], images=order["images"], map50=quality)
        say(f"{name}: mAP .5 {rate_text(quality)} after {order['epochs']} epochs, {order['images']} images each")
        return quality

    def _begun(self, stage: int) -> bool:
        return any(record["stage"] == stage for record in self.course.log.of("order"))

    def _trained(self, name: str) -> int:
        """The epochs that a candidate has behind it."""
        return max((r["epochs"] for r in self.trainings.done(name) if not r["failed"]), default=0)

    def _order(self, found: Mapping[str, float]) -> Iterator[str]:
        """The order of the first round, which looks at what was ``found`` so far.

        First the kinds of network by turns at the first size, of each the largest, the smallest, and so on: what
        differs most tells most; then the other sizes, those of the best networks first.
        """
        sizes = list(dict.fromkeys(plan.extractor.input_size for plan in self.plans.values()))
        first = [min(sizes.index(self.plans[name].extractor.input_size) for name in self.able)]
        kinds: dict[str, list[str]] = {}
        order = list(dict.fromkeys(plan.extractor.name for plan in self.plans.values()))
        for name in sorted(self.able, key=lambda n: (order.index(self.plans[n].extractor.name), -self.weights[n])):
            if sizes.index(self.plans[name].extractor.input_size) in first:
                kinds.setdefault(self.plans[name].extractor.name, []).append(name)
        turns = [_ends(names) for names in kinds.values()]
        begun = [names[i] for i in range(max(map(len, turns))) for names in turns if i < len(names)]
        yield from begun
        quality = {(self.plans[name].extractor.name, self.weights[name]): found.get(name, 0.0) for name in begun}

        def rank(name: str) -> tuple[float, int, int]:
            own = self.plans[name].extractor
            worth = quality.get((own.name, self.weights[name]), 0.0)
            return -worth, -self.weights[name], sizes.index(own.input_size)

        yield from sorted((name for name in self.able if name not in begun), key=rank)

    def _pace(self, name: str) -> float:
        """Seconds of an epoch, as the last training had it; before the first, from an epoch of some images."""
        images = len(self.table.of_split("train"))
        if done := self.trainings.done(name):
            last = done[-1]
            return max(1e-3, float(last["seconds"] / last["passes"] / last["items"] * images))
        if name not in self.paces:
            plan = self.plans[name]
            plan = replace(plan, training=replace(plan.training, epochs=1, least_updates=0))
            network = self.networks.build(plan, self.table, None)
            prepared = self.networks.prepare(plan, self.costs.sample, network, False)
            with TemporaryDirectory() as folder:
                began, run = time.monotonic(), RunFolder(Path(folder))
                self.networks.fit(
                    network, prepared, Order(plan, plan.training, self.costs.sample, run, "", self.asked.device)
                )
            self.paces[name] = (time.monotonic() - began) / len(prepared.train) * images
        return self.paces[name]

    # files

    def finals(self) -> None:
        """Train the best as long as its recipe says or time allows, then the next ones for which there is time."""
        made = False
        for name in self.ranked:
            pace, whole, before = self._pace(name), self.plans[name].training.epochs, self._trained(name)
            room = RESERVE * self.asked.left - self.file_s - self._conclusion_s
            passes = min(whole - before, int(room / pace))
            order = {"epochs": before} if before >= whole else self.trainings.begun(name, FINAL)
            if not order and (passes < 1 or (made and before + passes < LEAST * whole)):
                continue
            order = order or self.course.log.add(
                "order", name=name, stage=FINAL, epochs=before + passes, images=len(self.table.of_split("train"))
            )
            if order["epochs"] < whole:
                self.course.missed.append(f"{name} was trained for {order['epochs']} epochs of {whole}")
            self._files(name, order, self.able[name][:1])
            made = True
        if not made and self.ranked:
            if epochs := self._trained(self.ranked[0]):
                self._files(self.ranked[0], {"epochs": epochs}, self.able[self.ranked[0]][:1])
            self.course.missed.append("no detector was trained for longer than a trial")
        say(f"{len(self.ranked)} of {len(self.able)} detectors were tried")

    def complete(self) -> None:
        """Store the best training in the other ways, too, and train it for integers, where there is time."""
        inside = [point for point in self.course.points if not self.course.broken(point)]
        if not inside:
            return
        best = max(inside, key=lambda point: (point.accuracy, point.epochs))
        for chain in (*STORED, *TRAINED):
            expected = self.file_s
            if chain in TRAINED:
                expected += SIMULATED * best.epochs * self._pace(best.name)
            able = chain in STORED or "int8" in self.able[best.name]
            with contextlib.suppress(RecipeError):  # a step that this network cannot have
                chain_of(chain, self.plans[best.name])
                if able and expected + self._conclusion_s < self.asked.left:
                    self._files(best.name, {"epochs": best.epochs}, [chain])

    def _network(self, name: str, order: Record) -> Any:
        """A candidate trained as ordered, from the weights that it has; None where its loss was not finite."""
        epochs, start = order["epochs"], None
        if before := max((r["epochs"] for r in self.trainings.done(name) if r["epochs"] < epochs), default=0):
            start = (self._run(name, before), before)
        return self.trainings.train(name, epochs, self._run(name, epochs), start, self._part(order.get("images", 0)))

    def _files(self, name: str, order: Record, chains: Sequence[str]) -> None:
        """Train a candidate and make a file for each chain; nothing is done twice."""
        own = [p.chain for p in self.course.points if (p.name, p.epochs) == (name, order["epochs"])]
        wanted = [chain for chain in chains if chain not in own]
        network = self._network(name, order) if wanted else None
        if network is not None:
            plan = self._plan(name, order["epochs"])
            prepared = self.trainings.prepare(plan, network)
            writer = self.networks.writer(plan, self.table, network, prepared, self.asked.device)
            for chain in wanted:
                self._file(plan, self._run(name, order["epochs"]), chain, network, writer)

    def _run(self, name: str, epochs: int) -> RunFolder:
        return RunFolder(self.course.files / f"{name}-{epochs}")

    def _plan(self, name: str, epochs: int) -> Recipe:
        plan = self.plans[name]
        return replace(plan, training=replace(plan.training, epochs=epochs))

    def _part(self, images: int) -> BoxTable:
        """The table with so many of its training images, spread over it; 0: all."""
        train = self.table.of_split("train").images
        if not 0 < images < len(train):
            return self.table
        kept = [train[i * len(train) // images] for i in range(images)]
        return self.table.with_images([*kept, *self.val.images])

    def _file(self, plan: Recipe, run: RunFolder, text: str, network: Any, writer: Any) -> BoxPoint:
        """Write a file, score it on the validation images, and time it."""
        began = time.monotonic()
        chain = chain_of(text, plan)
        path = run / file_name(chain)
        with working(f"write and score {path.parent.name}/{path.name}"):
            writer.write(network, chain, path)
            figures = self.course.task.figures(load(path, threads=1), self.val, self.asked.strict)
            timed = benchmark(path, seconds=0.5, threads=1)
        low, high = figures["map50_interval"]
        if text not in TRAINED:
            self.file_s = max(self.file_s, time.monotonic() - began)
        return self.course.add(
            BoxPoint(
                name=plan.name, epochs=plan.training.epochs, chain=text, file=f"{path.parent.name}/{path.name}",
                bytes=path.stat().st_size, accuracy=figures["map50"] or 0.0, interval=(low, high),
                map50_95=figures["map50_95"] or 0.0, images=figures["images"],
                measured={key: timed[key] for key in FIGURES},
            )
        )  # fmt: skip

    # conclusion

    @property
    def _conclusion_s(self) -> float:
        return CONCLUSION_S + self.file_s * max(1.0, len(self.table.of_split("test")) / max(1, len(self.val)))

    def ways(self) -> Ways[BoxPoint]:
        """See ``Ways``. Of equal files the smallest is the best one; nothing is trained again on all images."""
        return Ways(
            choose=lambda: self.course.first_that_fits(
                sorted(self.course.points, key=lambda p: (-p.accuracy, p.bytes, -p.epochs))
            ),
            explain=self._steps,
            recipe=lambda p: replace(self._plan(p.name, p.epochs), compress=(p.chain,) if p.chain else ()),
            weights=lambda p: {DETECTOR: self._run(p.name, p.epochs) / DETECTOR},
            history=self._history,
        )

    def _steps(self, chosen: BoxPoint) -> list[BoxPoint]:
        chain = chain_of(chosen.chain, self.plans[chosen.name])
        before = [file_name(chain[:n]) for n in range(len(chain) + 1)]
        steps = [p for p in self.course.points if (p.name, p.epochs) == (chosen.name, chosen.epochs)]
        kept = [p for p in steps if Path(p.file).name in before]
        return sorted(kept, key=lambda p: before.index(Path(p.file).name))

    def _history(self, chosen: BoxPoint) -> list[dict[str, Any]]:
        with (self.course.files / chosen.file).with_name(LOG).open(newline="") as rows:
            return list(csv.DictReader(rows))


def _ends(names: Sequence[str]) -> list[str]:
    """First and last by turns: what differs most comes first."""
    return [names[i // 2] if i % 2 == 0 else names[-1 - i // 2] for i in range(len(names))]


def search_boxes(asked: Asked, recipes: Sequence[Recipe] = ()) -> dict[str, Any]:
    """``fit`` where the data are images with boxes; see there.

    Args:
        recipes: the candidates, of each kind of network from the smallest, each in all sizes; none: ``box_recipes``.

    Raises:
        RecipeError, TrainingError, DataError: as ``fit``.
    """
    task = TASKS["boxes"]
    with working(f"read {asked.data}"):
        table = task.read(DataSource(asked.data, asked.fold, asked.strict))
    task.check(table)
    tried = list(recipes) or box_recipes(asked.seed)
    known = json.dumps([table.sha256(), [recipe_to_dict(plan) for plan in tried], asked.seed])
    log = asked.log(hashlib.sha256(known.encode()).hexdigest())
    counts = {part: len(table.of_split(part)) for part in ("train", "val")}
    course = Course(asked, task, table, log, partial(point_of, BoxPoint), counts, f"{counts['val']} validation images")
    search = BoxSearch(asked, table, course, tried)
    search.costs.measure()
    steps = (search.rounds, search.finals, search.complete)
    return follow(steps, lambda: conclude(course, search.ways(), sum(1 for _ in log.of("trained"))))
