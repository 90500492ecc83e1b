"""``vidlet fit`` over images with boxes: files are measured, detectors trained shortly, the best of them for longer.

Validation images choose; test images are scored once, by the file that ships. What is finished stands in
``trials.jsonl`` and ``files/``, a run folder for each training: a search that was killed goes on from there.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..compression import file_name
from ..datasets import BoxTable
from ..errors import RecipeError, TrainingError
from ..progress import megabytes, say, working
from ..recipe import Recipe, recipe_to_dict
from ..reports import rate_text
from ..runs import CHECKPOINT, DETECTOR, FIT, LOG, MODEL, RunFolder
from ..runtime import benchmark, load
from ..tasks import TASKS, DataSource
from ..tasks.networks import Order
from .box_costs import Costs, chain_of
from .box_space import STORED, TRAINED, box_recipes
from .budget import Budget
from .points import front, what_if, why_none
from .report import evidence_sections
from .trials import TrialLog

ROUNDS = ((1 / 30, 0.35), (1 / 6, 0.55))  # of a recipe's epochs; of the time behind the costs, until the round ends
KEPT = 1 / 3  # of a round's candidates go on
FINAL = len(ROUNDS)
LEAST = 1 / 2  # of its epochs: less is not begun for a further candidate
WORTH = 1.5  # so many times the epochs of its trial a training must have to be begun
RESERVE = 0.9  # of the time that is left: what a training is planned for
SIMULATED = 1 / 2  # a step that trains in integers, of the training before it: a quarter of its epochs, twice as slow
CONCLUSION_S = 10.0  # the report
SAMPLE = {"train": 32, "val": 8}  # images that costs and paces are measured with


@dataclass(frozen=True)
class BoxPoint:
    """A detector's file that exists, and what was measured of it on the validation images."""

    name: str  # of the candidate
    epochs: int
    chain: str
    file: str  # under the search's folder of files
    bytes: int
    accuracy: float  # mAP at .5
    interval: tuple[float, float]
    map50_95: float
    images: int
    measured: dict[str, Any]  # frame_ms, clip_ms, peak_rss_bytes

    def describe(self) -> str:
        """The candidate, how long it was trained, and how it is stored."""
        return f"{self.name}, {self.epochs} epochs, {self.chain or 'float32'}"


@dataclass
class BoxSearch:
    """One search: what it looks at, what it may cost, and what it has found so far."""

    folder: Path
    data: str
    table: BoxTable
    budget: Budget
    seconds: float
    log: TrialLog
    recipes: Sequence[Recipe]
    strict: bool = False
    command: str = ""
    device: str = "cpu"
    began: float = field(default_factory=time.monotonic)
    file_s: float = 5.0  # to write, score and time a file, at most, as far as was seen

    def __post_init__(self) -> None:
        self.task, self.networks = TASKS["boxes"], TASKS["boxes"].networks()
        self.plans = {plan.name: plan for plan in self.recipes}
        self.val = self.table.of_split("val")
        parts = [(self.table.of_split(split), count) for split, count in SAMPLE.items()]
        self.sample = self.table.with_images(image for part, count in parts for image in part.images[:count])
        known = [{key: value for key, value in record.items() if key != "kind"} for record in self.log.of("file")]
        points = [BoxPoint(**{**values, "interval": tuple(values["interval"])}) for values in known]
        self.points = [point for point in points if (self.folder / "files" / point.file).exists()]
        self.costs = Costs(self.plans, self.table, self.sample, self.budget, self.log, self.device)
        self.paces: dict[str, float] = {}
        self.prepared: tuple[tuple[int, int], Any] | None = None

    def run(self) -> dict[str, Any]:
        """Search, and leave ``model.onnx`` and the evidence; see ``fit``."""
        self.able = self.costs.possible()
        say(f"search: {self.budget.describe()}; {len(self.able)} detectors can keep it; judged on {self._judged}")
        interrupted = False
        try:
            self._finals(self._rounds())
            self._complete()
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted: going on with the best so far")
        result = self._conclude()
        if interrupted:
            raise KeyboardInterrupt
        return result

    @property
    def left(self) -> float:
        """Seconds of the search that are left."""
        return self.seconds - (time.monotonic() - self.began)

    @property
    def _judged(self) -> str:
        return f"{len(self.val)} validation images"

    def _rounds(self) -> list[str]:
        """The candidates that were tried, the best first: those of the last round, then those of the first."""
        order, ranked, whole = self._promising(), list[str](), self.left
        for stage, (share, until) in enumerate(ROUNDS):
            found: dict[str, float] = {}
            for name in order:
                room = self.left - (1 - until) * whole
                planned = self._planned(name, stage)
                if found and room <= 0 and not planned:
                    break
                epochs = planned or max(1, round(share * self.plans[name].training.epochs))
                if not planned and epochs * self._pace(name) + self.file_s > room:
                    if found:
                        continue
                    epochs = max(1, min(epochs, int((room - self.file_s) / self._pace(name))))
                found[name] = self._train(name, stage, epochs, self.able[name][:1])
            order = sorted(found, key=lambda name: -found[name])[: math.ceil(KEPT * len(found))]
            ranked = [*sorted(found, key=lambda name: -found[name]), *(name for name in ranked if name not in found)]
            if len(order) < 2:
                break
        return ranked

    def _promising(self) -> list[str]:
        """The order of the first round: the kinds of network by turns, of each the largest first.

        The larger of two networks is rarely the worse one, and time may end the round at any place.
        """
        sizes = list(dict.fromkeys(plan.extractor.input_size for plan in self.recipes))
        kinds: dict[str, list[str]] = {}
        for name, plan in self.plans.items():
            if name in self.able:
                kinds.setdefault(plan.extractor.name, []).append(name)

        def rank(name: str) -> tuple[int, int]:
            return -self.costs.weights[name], sizes.index(self.plans[name].extractor.input_size)

        turns = [sorted(names, key=rank) for names in kinds.values()]
        return [names[i] for i in range(max(map(len, turns))) for names in turns if i < len(names)]

    def _finals(self, ranked: Sequence[str]) -> None:
        """Train the best as long as its recipe says or time allows, then the next ones for which there is time."""
        made = False
        for name in ranked:
            pace, whole = self._pace(name), self.plans[name].training.epochs
            room = RESERVE * self.left - (len(STORED) + 1) * self.file_s - self._conclusion_s
            planned = self._planned(name, FINAL)
            epochs = planned or min(whole, int(room / pace))
            tried = max((record["epochs"] for record in self.log.of("trained") if record["name"] == name), default=0)
            if not planned and (epochs < WORTH * tried or epochs < 1 or (made and epochs < LEAST * whole)):
                continue
            self._train(name, FINAL, epochs, self.able[name])
            made = True

    def _complete(self) -> None:
        """Store the best training in the other ways, too, and train it for integers, where there is time."""
        inside = [point for point in self.points if not self.costs.broken(point.bytes, point.measured)]
        if not inside:
            return
        best = max(inside, key=lambda point: (point.accuracy, point.epochs))
        for chain in (*STORED, *TRAINED):
            expected = self.file_s
            if chain in TRAINED:
                expected += SIMULATED * best.epochs * self._pace(best.name)
            able = chain in STORED or "int8" in self.able[best.name]
            with suppress(RecipeError):  # a step that this network cannot have
                chain_of(chain, self.plans[best.name])
                if able and expected + self._conclusion_s < self.left:
                    self._train(best.name, -1, best.epochs, [chain])

    def _planned(self, name: str, stage: int) -> int:
        """The epochs of a training that was begun already; 0 if it was not."""
        orders = {(record["name"], record["stage"]): int(record["epochs"]) for record in self.log.of("order")}
        return orders.get((name, stage), 0)

    def _pace(self, name: str) -> float:
        """Seconds of an epoch, as the last training had it; before the first, from an epoch of some images."""
        done = [record for record in self.log.of("trained") if record["name"] == name]
        if done:
            return max(1e-3, done[-1]["seconds"] / done[-1]["epochs"])
        if name not in self.paces:
            plan = self.plans[name]
            plan = replace(plan, training=replace(plan.training, epochs=1))
            network = self.networks.build(plan, self.table, None)
            prepared = self.networks.prepare(plan, self.sample, network, False)
            with TemporaryDirectory() as folder:
                order = Order(plan, plan.training, self.sample, RunFolder(Path(folder)), "", self.device, title="pace")
                began = time.monotonic()
                self.networks.fit(network, prepared, order)
            took = time.monotonic() - began
            images = len(prepared.train) + len(prepared.val) / 3  # an image is judged in a third of the time
            self.paces[name] = took / images * (len(self.table.of_split("train")) + len(self.val) / 3)
        return self.paces[name]

    def _train(self, name: str, stage: int, epochs: int, chains: Sequence[str]) -> float:
        """Train a candidate, make a file for each chain, and return the best of their mAP; nothing is done twice.

        It is 0 where the loss was not finite, so that there is no file.
        """
        plan = self.plans[name]
        plan = replace(plan, training=replace(plan.training, epochs=epochs))
        made = {point.chain for point in self.points if (point.name, point.epochs) == (name, epochs)}
        if wanted := [chain for chain in chains if chain not in made]:
            if stage >= 0 and not self._planned(name, stage):
                self.log.add("order", name=name, stage=stage, epochs=epochs)
            run = RunFolder(self.folder / "files" / f"{name}-{epochs}")
            network = self._trained(plan, run)
            if network is None:
                return 0.0
            prepared = self._prepare(plan, network)
            writer = self.networks.writer(plan, self.table, network, prepared, self.device)
            for chain in wanted:
                self._file(plan, run, chain, partial(writer.write, network))
        return max((p.accuracy for p in self.points if (p.name, p.epochs) == (name, epochs)), default=0.0)

    def _trained(self, plan: Recipe, run: RunFolder) -> Any:
        """The trained network of a run folder, trained now unless it was; None where its loss was not finite."""
        done = [r for r in self.log.of("trained") if (r["name"], r["epochs"]) == (plan.name, plan.training.epochs)]
        if done and done[-1]["failed"]:
            return None
        if done and (run / DETECTOR).exists():
            return self.networks.open(run, plan, self.table)
        network = self.networks.build(plan, self.table, None)
        run.path.mkdir(parents=True, exist_ok=True)
        run.save_recipe(plan)
        identity = json.dumps([self.table.sha256(), recipe_to_dict(plan)])
        order = Order(
            plan, plan.training, self.table, run, identity, self.device, True, self.strict, title=f"train {plan.name}"
        )
        prepared, failed, began = self._prepare(plan, network), False, time.monotonic()
        try:
            self.networks.fit(network, prepared, order)
        except TrainingError as error:
            failed = True
            say(f"{plan.name}: left out, {error}")
        took = time.monotonic() - began
        (run / CHECKPOINT).unlink(missing_ok=True)
        self.log.add("trained", name=plan.name, epochs=plan.training.epochs, seconds=took, failed=failed)
        return None if failed else network

    def _prepare(self, plan: Recipe, network: Any) -> Any:
        """Training and validation images at a candidate's size; those of one size at a time are kept."""
        size = plan.extractor.input_size
        if self.prepared is None or self.prepared[0] != size:
            self.prepared = None
            self.prepared = (size, self.networks.prepare(plan, self.table, network, self.strict))
        return self.prepared[1]

    def _file(self, plan: Recipe, run: RunFolder, text: str, write: Callable[[Any, Path], Any]) -> None:
        """Write a file, score it on the validation images, and time it."""
        began = time.monotonic()
        chain = chain_of(text, plan)
        path = run / file_name(chain)
        with working(f"write and score {path.parent.name}/{path.name}"):
            write(chain, path)
            figures = self.task.figures(load(path, threads=1), self.val, self.strict)
            timed = benchmark(path, seconds=1.0, threads=1)
        measured = {key: timed[key] for key in ("frame_ms", "clip_ms", "peak_rss_bytes", "load_ms")}
        low, high = figures["map50_interval"]
        point = BoxPoint(
            plan.name, plan.training.epochs, text, f"{path.parent.name}/{path.name}", path.stat().st_size,
            figures["map50"] or 0.0, (low, high), figures["map50_95"] or 0.0, figures["images"], measured,
        )  # fmt: skip
        self.log.add("file", **asdict(point))
        self.points.append(point)
        if text not in TRAINED:
            self.file_s = max(self.file_s, time.monotonic() - began)
        broken = "; ".join(self.costs.broken(point.bytes, measured))
        say(
            f"file {point.file}: {megabytes(point.bytes)}, {measured['frame_ms']['p50']:.2f} ms a frame, mAP .5 "
            f"{rate_text(point.accuracy)} [{rate_text(low)}, {rate_text(high)}]"
            + (f" (over the budget: {broken})" if broken else "")
        )

    @property
    def _conclusion_s(self) -> float:
        return CONCLUSION_S + self.file_s * max(1.0, len(self.table.of_split("test")) / max(1, len(self.val)))

    def _choose(self) -> BoxPoint | None:
        """The best file that keeps the budget, timed again now that nothing else runs; of equal ones the smallest."""
        able = [p for p in self.points if p.accuracy >= self.budget.min_accuracy and not self.costs.broken(p.bytes)]
        for point in sorted(able, key=lambda p: (-p.accuracy, p.bytes, -p.epochs)):
            measured = benchmark(self.folder / "files" / point.file, seconds=2.0, threads=1)
            if not self.costs.broken(point.bytes, measured):
                return point
        return None

    def _conclude(self) -> dict[str, Any]:
        """Choose a file, score it on the test images, report."""
        chosen, run = self._choose(), RunFolder(self.folder)
        summary: dict[str, Any] = {
            "budget": asdict(self.budget),
            "judged_on": self._judged,
            "trials": sum(1 for _ in self.log.of("trained")),
            "front": [asdict(point) for point in front(self.points)],
            "what_if": what_if(self.points, self.budget),
            "chosen": asdict(chosen) if chosen else None,
        }
        run.write_metrics(summary, FIT)
        if chosen is None:
            why = why_none(self.points, self.budget, self.seconds)
            raise TrainingError(f"{why}; what was found is in {self.folder / FIT}")
        chain = chain_of(chosen.chain, self.plans[chosen.name])
        before = [file_name(chain[:n]) for n in range(len(chain) + 1)]
        steps = [p for p in self.points if p.file.partition("/")[0] == chosen.file.partition("/")[0]]
        steps = sorted((p for p in steps if Path(p.file).name in before), key=lambda p: before.index(Path(p.file).name))
        summary["steps"] = [asdict(point) for point in steps]
        shutil.copyfile(self.folder / "files" / chosen.file, run.model)
        split, images = self.task.scored_split(self.table)
        metrics, scored = self.task.score_files(run, [MODEL], images, self.strict)
        counts = {part: len(self.table.of_split(part)) for part in ("train", "val")}
        metrics |= {
            "split": split,
            "seconds": round(time.monotonic() - self.began, 1),
            "skipped": [{"path": path, "error": error} for path, error in scored[MODEL].skipped],
            "images": {**counts, "scored": metrics["files"][MODEL]["images"]},
            **self.task.remarks(self.table),
        }
        self.task.write_evidence(run, [MODEL], metrics, self.table, self.command)
        metrics |= summary
        run.write_metrics(summary, FIT)
        run.write_metrics(metrics)
        plan = self.plans[chosen.name]
        plan = replace(plan, training=replace(plan.training, epochs=chosen.epochs))
        run.save_recipe(replace(plan, compress=(chosen.chain,) if chosen.chain else ()))
        with (self.folder / "files" / chosen.file).with_name(LOG).open(newline="") as rows:
            history = list(csv.DictReader(rows))
        extra = evidence_sections(self.points, chosen, metrics, "mAP .5", "images")
        with working("write the report"):
            self.task.report(run, metrics, history, scored, self.table, self.data, extra)
        say(f"chosen  {chosen.describe()}: mAP .5 {rate_text(chosen.accuracy)} on {self._judged}")
        self.task.say(run, metrics, [MODEL])
        return run.result(metrics)


def search_boxes(
    data: str, folder: Path, budget: Budget, seconds: float, fold: str | None, seed: int, strict: bool, command: str,
    threads: int, recipes: Sequence[Recipe] = (), device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """``fit`` where the data are images with boxes; see there.

    Args:
        threads: of training on the processor.
        device: where detectors are trained.
        recipes: the candidates, of each kind of network from the smallest, each in all sizes; none: ``box_recipes``.

    Raises:
        RecipeError, TrainingError, DataError: as ``fit``.
    """
    began = time.monotonic()
    task = TASKS["boxes"]
    with working(f"read {data}"):
        table = task.read(DataSource(data, fold, strict))
    task.check(table)
    tried = list(recipes) or box_recipes(seed)
    known = json.dumps([table.sha256(), [recipe_to_dict(plan) for plan in tried], seed])
    identity = hashlib.sha256(known.encode()).hexdigest()
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        log = TrialLog(folder / "trials.jsonl", identity)
        return BoxSearch(folder, data, table, budget, seconds, log, tried, strict, command, device, began).run()
    finally:
        torch.set_num_threads(threads_before)
