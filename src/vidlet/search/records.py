"""``vidlet fit`` over stored features: heads are tried, the best trained whole and written, and of all their files
those joined that reach most together within the budget.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compression import find_chain
from ..datasets import ClipTable, check_records_trainable
from ..errors import DataError, RecipeError, TrainingError
from ..metrics import gap
from ..models import build_head
from ..models.head import Head as HeadNetwork
from ..progress import megabytes, say
from ..recipe import Head, Recipe, Training, load_recipe
from ..runs import FIT, HEAD, MODEL, RunFolder
from ..runtime import benchmark, load
from ..tasks import TASKS
from ..tasks.cached import cached_scores
from ..tasks.clips import figures_of, labelled_clips
from ..tasks.ensemble import find_ensemble
from ..tasks.networks import write_files
from ..tasks.prepare_records import extractor_for, recipe_for
from ..training import ClipNetwork, predict_logits
from .cluster import ClusterWorkers
from .course import Asked, Trainings, follow, time_told
from .joined import SharedWorkers
from .proxy import AnyWorkers, Job, Outcome
from .space import Storage
from .trials import NoLog, TrialLog

LONGEST = 64  # frames of an ordered window
BAG_STEPS, ORDER_STEPS = 1600, 850  # updates that training takes (docs/results.md: residual set, thetis)
HIDDEN = (1024, 512, 256, 128, 64, 32)  # units between a vector and the classes
RIDGE = 0.2  # penalty of least squares times records: what held out records chose, of 1,500 and of 16,000
STORAGES = ("half", "int8", "codebook", "head4+int8")  # beside float32
BITS = 4.5  # a weight in the smallest of them
EVIDENCE_BYTES = 12_000  # metadata and graph of a small file, at most

TRIAL_SHARE = 1 / 4  # of a training, for a trial
TRIALS_SHARE = 0.35  # of the time, for all of them
CONCLUSION_S = 20.0  # the search of an ensemble, its report
NO_LIMIT = 2**31 - 1
NEAR = 0.1  # GAP@20 of a trial: what is so much behind the best is not trained for being unlike


def bag(name: str, clusters: int, hidden: int) -> Head:
    """Gated NetVLAD or NeXtVLAD of a size."""
    groups = {"groups": 4} if name == "nextvlad" else {}
    options = {"clusters": clusters, **groups, "hidden": hidden, "experts": 2, "sampled": 30, "momentum": 0.02}
    return Head(name, options)


def record_recipes(clips: int, frames: int, seed: int = 0) -> list[Recipe]:
    """What is tried on ``clips`` training records of about ``frames`` frames; names are unique.

    Families: bags of frames (NetVLAD, NeXtVLAD, the mean), which know no order, and a window and recurrent layers,
    which do. All see the same frames, so that their files go together. Those that promise most come first. Of one
    vector a record there are hidden layers of several sizes, and least squares.
    """
    if frames <= 1:
        return vector_recipes(clips, seed)
    plain = load_recipe("gated-netvlad-small")
    bags = replace(plain.training, epochs=_epochs(BAG_STEPS, plain.training.batch, clips), seed=seed)
    window = load_recipe("records-window").training
    ordered = replace(window, epochs=_epochs(ORDER_STEPS, window.batch, clips), seed=seed)
    augment = {"mixup": 0.3, "speed": 0.2, "noise": 0.3}
    recurrent = replace(ordered, optimizer="adamw", lr=1e-3, weight_decay=1e-2, augment=augment)
    length = max(2, min(LONGEST, frames))
    mean = load_recipe("records-mean").head.options

    def ordered_window(project: int, hidden: int) -> Head:
        return Head("window", {"frames": length, "project": project, "hidden": hidden})

    found: list[tuple[str, Head, Training]] = [
        ("nextvlad-K16-H128", bag("nextvlad", 16, 128), bags),
        ("window-128-256", ordered_window(128, 256), ordered),
        ("nextvlad-K32-H256", bag("nextvlad", 32, 256), bags),
        ("netvlad-K32-H64", bag("netvlad", 32, 64), bags),
        ("netvlad-K16-H96", bag("netvlad", 16, 96), bags),
        ("gru-256", Head("gru-moe", {"hidden": 256, "experts": 0, "dropout": 0.5}), recurrent),
        ("netvlad-K16-H64", bag("netvlad", 16, 64), bags),
        ("window-64-128", ordered_window(64, 128), ordered),
        ("nextvlad-K8-H64", bag("nextvlad", 8, 64), bags),
        ("netvlad-K8-H64", bag("netvlad", 8, 64), bags),
        ("mean-H256", Head("pooled", mean), bags),
        ("netvlad-K16-H32", bag("netvlad", 16, 32), bags),
        ("netvlad-K64-H256", bag("netvlad", 64, 256), bags),
        ("window-32-64", ordered_window(32, 64), ordered),
        ("netvlad-K8-H32", bag("netvlad", 8, 32), bags),
        ("mean-H64", Head("pooled", mean | {"hidden": 64}), bags),
    ]
    return [
        replace(plain, name=name, head=head, training=_every(training, clips), compress=STORAGES)
        for name, head, training in found
    ]


def vector_recipes(clips: int, seed: int = 0) -> list[Recipe]:
    """What is tried on ``clips`` training records of one vector each."""
    plain = load_recipe("records-video")
    training = replace(plain.training, seed=seed)
    heads = {f"hidden-{size}": replace(plain.head, options=plain.head.options | {"hidden": size}) for size in HIDDEN}
    squares = {"statistics": "mean", "whiten": 0.0, "unit": True, "strength": RIDGE / clips, "squares": 16.0}
    heads["squares"] = Head("probe", squares | {"alike": False})
    return [replace(plain, name=name, head=head, training=training, compress=STORAGES) for name, head in heads.items()]


def _epochs(steps: int, batch: int, clips: int) -> int:
    """Epochs of about so many updates, at least three."""
    return max(3, math.ceil(steps * batch / clips))


def _every(training: Training, clips: int) -> Training:
    """Checkpoints, where they are averaged, a thirty-second of the training apart."""
    if not training.averaging.last:
        return training
    steps = training.epochs * math.ceil(clips / training.batch)
    return replace(training, averaging=replace(training.averaging, every=max(1, steps // 32)))


def worth_training(tried: Mapping[str, float]) -> list[str]:
    """Names of members by what they reached in their trials, the best of each family that is near the best first.

    Unlike members gain more together than alike ones, and families do not learn at one pace. What has not half of what
    the best has is left out. The family is what stands before a name's first hyphen.
    """
    best = max(tried.values())
    ranked = sorted((name for name in tried if tried[name] >= best / 2), key=lambda name: -tried[name])
    families: dict[str, str] = {}
    for name in ranked:
        families.setdefault(name.partition("-")[0], name)
    first = [name for name in families.values() if tried[name] >= best - NEAR]
    return [*first, *(name for name in ranked if name not in first)]


class RecordSearch:
    """What of a search is about stored features: heads that are tried, trained, and joined."""

    def __init__(self, asked: Asked, table: ClipTable, log: TrialLog, recipes: Sequence[Recipe]) -> None:
        self.asked, self.table, self.log, self.recipes = asked, table, log, recipes
        self.task = TASKS["records"]
        plans = [recipe_for(plan, table) for plan in recipes]
        self.trainings = Trainings(asked, self.task, table, plans, log, HEAD)
        self.plans = self.trainings.plans
        self.shape = extractor_for(plans[0], table).feature_shape
        self.files = asked.folder / "files"
        self.written_s = 0.0  # what writing and scoring the files of a member took, at most
        self.missed: list[str] = []

    def possible(self) -> None:
        """Find the members of which some file is expected to fit, in their order.

        Raises:
            RecipeError: there are none; it names the smallest.
        """
        budget = self.asked.budget
        sizes = {name: self._least_bytes(plan) for name, plan in self.plans.items()}
        self.able = [name for name, size in sizes.items() if not budget.broken(size)]
        if not self.able:
            smallest = min(sizes, key=sizes.__getitem__)
            raise RecipeError(
                f"nothing fits {budget.describe()}: the smallest, {smallest} in 4 bits, has about "
                f"{sizes[smallest]:,} bytes"
            )

    def _least_bytes(self, plan: Recipe) -> int:
        with torch.device("meta"):
            head = build_head(plan.head, self.shape, len(self.table.labels))
        return round(Storage("", BITS, 0.0).head_bytes(head)) + EVIDENCE_BYTES

    def trials(self) -> None:
        """Try the members while a third of the time lasts, at least one; each for a quarter of its epochs."""
        known = {record["name"] for record in self.log.of("trial")}
        todo, running = deque(name for name in self.able if name not in known), dict[Future[Outcome], Job]()
        workers = self._workers() if todo else None
        try:
            while workers and (todo or running):
                while todo and len(running) < workers.count:
                    if (known or running) and self.asked.left < (1 - TRIALS_SHARE) * self.asked.seconds:
                        todo.clear()
                        break
                    name = todo.popleft()
                    job = name, max(1, round(self.plans[name].training.epochs * TRIAL_SHARE))
                    running[workers.submit(job)] = job
                for future in wait(running, timeout=workers.look(), return_when=FIRST_COMPLETED).done:
                    (name, epochs), found = running.pop(future), future.result()
                    known.add(name)
                    self.log.add("trial", name=name, epochs=epochs, gap20=found.accuracy, seconds=found.seconds)
                    say(f"{name}: GAP@20 {found.accuracy:.4f} after {epochs} epochs, {found.seconds:.0f} s")
        finally:
            if workers:
                workers.close()
        if not known.issuperset(self.able):
            say(f"{len(known)} of {len(self.able)} heads were tried")

    def _workers(self) -> AnyWorkers:
        """What tries: this process, or another one and those that joined it, or the actors of a cluster."""
        trials = RecordTrials(self.asked, self.recipes, _identity(self.asked, self.table, self.recipes))
        if self.asked.ray is not None:
            return ClusterWorkers(trials, self.asked.ray)
        return Here(self.attempt) if self.asked.board is None else SharedWorkers(trials, 1, self.asked.board)

    def attempt(self, name: str, epochs: int) -> Outcome:
        """Train a member; the accuracy of the outcome is GAP@20 on the validation records, 0 where it diverged."""
        began = time.monotonic()
        network = self.trainings.train(name, epochs, None)
        return Outcome(self._quality(network.head) if network else 0.0, 0.0, time.monotonic() - began)

    def _quality(self, head: HeadNetwork) -> float:
        """GAP@20 on the validation records."""
        val = self.trainings.kept.val
        logits = predict_logits(ClipNetwork(head), val, 32)
        if not self.table.multi_label:  # the ranking over clips is of probabilities
            logits = np.asarray(torch.from_numpy(logits).softmax(1))
        return gap(logits, val.targets > 0.5)

    def members(self) -> None:
        """Train the best whole and write their files, as many as there is time for, one in any case."""
        tried = {record["name"]: record for record in self.log.of("trial") if record["name"] in self.able}
        ranked = worth_training({name: record["gap20"] for name, record in tried.items()})
        for name in ranked:
            done = {record["name"] for record in self.log.of("member")}
            if name in done:
                continue
            epochs = self.plans[name].training.epochs
            expected = tried[name]["seconds"] * epochs / tried[name]["epochs"]
            room = self.asked.left - self._conclusion_s() - self.written_s
            if done and expected > room:
                continue
            if expected > room:  # the first, of data that are many for the time
                epochs = max(tried[name]["epochs"], int(epochs * room / expected))
            self._member(name, epochs)
        made = {record["name"] for record in self.log.of("member")}
        if len(made) < min(2, len(ranked)):
            self.missed.append(f"of {len(ranked)} heads one was trained for files")

    def _member(self, name: str, epochs: int) -> None:
        """Train a head and write its files, and have the validation records scored by each."""
        began = time.monotonic()
        run = RunFolder(self.files / name)
        shutil.rmtree(run.path, ignore_errors=True)
        network = self.trainings.train(name, epochs, run)
        if network is None:
            return
        trained = time.monotonic()
        plan, networks = self.plans[name], self.trainings.networks
        writer = networks.writer(plan, self.table, network, self.trainings.kept, self.asked.device)
        names = write_files(writer, network, [find_chain(text) for text in plan.compress], run)
        for path in (run / name for name in names):
            if not self.asked.budget.broken(path.stat().st_size):
                cached_scores(load(path, threads=1), self.table.of_split("val"), self.asked.strict)
        sizes = {name: (run / name).stat().st_size for name in names}
        self.written_s = max(self.written_s, time.monotonic() - trained)
        self.log.add("member", name=name, files=sizes, seconds=time.monotonic() - began)
        say(f"{name}: {len(sizes)} files, {megabytes(min(sizes.values()))} to {megabytes(max(sizes.values()))}")

    def _conclusion_s(self) -> float:
        """Seconds that the ensemble is expected to take, with scoring it and its members on test."""
        clips = {split: len(self.table.of_split(split)) for split in ("val", "test")}
        return CONCLUSION_S + self.written_s * max(1.0, clips["test"] / max(1, clips["val"]))

    def conclude(self) -> dict[str, Any]:
        """The ensemble that fits, joined, measured, scored on test."""
        asked, budget = self.asked, self.asked.budget
        made = [self.files / record["name"] / name for record in self.log.of("member") for name in record["files"]]
        files = [path for path in made if path.exists()]
        if not files:
            raise TrainingError(f"no file was made in {asked.seconds:.0f} s: give the search more --time")
        product = asked.folder / MODEL
        while files:
            product.unlink(missing_ok=True)
            try:
                found = find_ensemble(
                    RunFolder(asked.folder), asked.data, files, budget.max_bytes or NO_LIMIT, fold=asked.fold,
                    strict=asked.strict, command=asked.command,
                )  # fmt: skip
            except DataError as error:
                raise TrainingError(f"nothing found keeps {budget.describe()}: {error}") from error
            measured = benchmark(product, seconds=2.0, threads=1)
            broken = budget.broken(found["files"][product.name], measured)
            if not broken:
                return self._product(product, found["metrics"], measured)
            slowest = self._slowest(found["metrics"]["ensemble"]["members"])
            files = [path for path in files if path.parent.name != slowest]
            say(f"the file has {', '.join(broken)}: on without {slowest}")
        product.unlink()
        raise TrainingError(f"nothing found keeps {budget.describe()}: the last had {', '.join(broken)}")

    def _slowest(self, members: dict[str, float]) -> str:
        """Of the members of a file the one whose own file takes the most time."""
        runs = sorted({name.split("/")[0] for name in members})

        def frame_ms(run: str) -> float:
            path = next(self.files / name for name in members if name.startswith(f"{run}/"))
            return float(benchmark(path, seconds=0.5, threads=1)["frame_ms"]["p50"])

        return runs[0] if len(runs) == 1 else max(runs, key=frame_ms)

    def _product(self, product: Path, metrics: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """Add to the figures of the file what the search says."""
        budget = self.asked.budget
        val = figures_of(load(product, threads=1), self.table.of_split("val"), self.asked.strict)
        if val["accuracy"] < budget.min_accuracy:
            product.unlink()
            raise TrainingError(
                f"nothing found keeps {budget.describe()}: the best file reached {val['accuracy']:.3f} on "
                "validation clips"
            )
        chosen = metrics["ensemble"] | {
            "bytes": metrics["bytes"][MODEL], "accuracy": val["accuracy"], "measured": measured,
        }  # fmt: skip
        metrics |= {
            "budget": {"max_bytes": budget.max_bytes, "text": budget.describe()},
            "chosen": chosen,
            "trials": [{k: v for k, v in record.items() if k != "kind"} for record in self.log.of("trial")],
            "seconds": round(time.monotonic() - self.asked.began, 1),
            **time_told(self.asked, self.missed),
        }
        run = RunFolder(self.asked.folder)
        run.write_metrics(metrics)
        run.write_metrics(metrics, FIT)
        return run.result(metrics)


class Here:
    """What ``Workers`` is, in this process: a trial is done when ``submit`` returns."""

    count = 1

    def __init__(self, work: Callable[[str, int], Outcome]) -> None:
        self.work = work

    def submit(self, job: Job) -> Future[Outcome]:
        """Try it now."""
        future: Future[Outcome] = Future()
        future.set_result(self.work(*job))
        return future

    def look(self) -> float:
        """See ``Workers``: there is nothing to see to."""
        return 0.0

    def close(self) -> None:
        """Nothing runs."""


class RecordTrials:
    """Trials of a search over stored features, in a process that reads them itself, when the first trial comes.

    Args:
        identity: of the search, which the data that are read here must have.
    """

    def __init__(self, asked: Asked, recipes: Sequence[Recipe], identity: str) -> None:
        threads = 1 if asked.ray is not None else asked.workers
        data = str(Path(asked.data).absolute())
        self.asked = replace(asked, data=data, workers=threads, board=None, ray=None)
        self.recipes, self.identity = recipes, identity
        self._search: RecordSearch | None = None

    def lay_out(self, folder: Path) -> dict[str, Any]:
        """See ``Trials``."""
        return {"identity": self.identity}

    def check(self) -> None:
        """DataError: the data are not seen here, or are others."""
        if self._search is None:
            table, recipes = _read(self.asked, self.recipes)
            if _identity(self.asked, table, recipes) != self.identity:
                raise DataError(f"{self.asked.data}: other records or settings than those of the search that is led")
            self._search = RecordSearch(self.asked, table, NoLog(), recipes)

    def work(self, tried: str, epochs: int) -> Outcome:
        """See ``RecordSearch.attempt``."""
        torch.set_num_threads(self.asked.workers)
        self.check()
        assert self._search is not None
        return self._search.attempt(tried, epochs)


def search_records(asked: Asked, recipes: Sequence[Recipe] = ()) -> dict[str, Any]:
    """``fit`` where the data are stored features; see there.

    Args:
        recipes: what is tried; none: ``record_recipes``.

    Raises:
        RecipeError, TrainingError, DataError: as ``fit``.
    """
    table, tried = _read(asked, recipes)
    search = RecordSearch(asked, table, asked.log(_identity(asked, table, tried)), tried)
    search.possible()
    return follow((search.trials, search.members), search.conclude)


def check_same_records(asked: Asked) -> None:
    """Refuse what another search has left in the folder. TrainingError: of other data, or another budget."""
    asked.log(_identity(asked, *_read(asked, ())))
    asked.check_budget({"max_bytes": asked.budget.max_bytes, "text": asked.budget.describe()})


def _read(asked: Asked, recipes: Sequence[Recipe]) -> tuple[ClipTable, list[Recipe]]:
    """The records of a search, and what is tried on them."""
    table = labelled_clips(asked.data, asked.fold, asked.strict, stored=True)
    check_records_trainable(table)
    train = [clip.row for clip in table.of_split("train") if clip.row is not None]
    assert table.records is not None
    frames = int(np.median([table.records.frames[row] for row in train]))
    return table, list(recipes) or record_recipes(len(train), frames, asked.seed)


def _identity(asked: Asked, table: ClipTable, recipes: Sequence[Recipe]) -> str:
    return json.dumps([table.sha256(), [plan.name for plan in recipes], asked.seed, asked.fold])
