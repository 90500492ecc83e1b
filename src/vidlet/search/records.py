"""``vidlet fit`` over stored features: heads are tried, the best trained whole and written, and of all their files
those joined that reach most together within the budget.

Validation records choose; test records are scored once, by the file that ships. What is finished stands in
``trials.jsonl`` and ``files/``: a search that was killed goes on from there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ..compression import Trained, find_chain
from ..datasets import ClipTable, check_records_trainable
from ..errors import DataError, RecipeError, TrainingError
from ..metrics import gap
from ..models import FrameExtractor, build_head
from ..models.head import Head
from ..progress import megabytes, say
from ..recipe import Recipe
from ..runs import FIT, MODEL, RunFolder
from ..runtime import benchmark, load
from ..tasks.cached import cached_scores
from ..tasks.clip_networks import Workshop
from ..tasks.clips import figures_of, labelled_clips
from ..tasks.networks import write_files
from ..tasks.prepare import Prepared
from ..tasks.prepare_records import extractor_for, prepare_clips, recipe_for
from ..training import ClipNetwork, for_clips, predict_logits, train_network
from .budget import Budget
from .ensemble import find_ensemble
from .record_space import BITS, EVIDENCE_BYTES, family_of, record_recipes
from .space import Storage
from .trials import TrialLog

TRIAL_SHARE = 1 / 4  # of a training, for a trial
TRIALS_SHARE = 0.35  # of the time, for all of them
CONCLUSION_S = 20.0  # the search of an ensemble, its report
NO_LIMIT = 2**31 - 1
NEAR = 0.1  # GAP@20 of a trial: what is so much behind the best is not trained for being unlike


@dataclass
class RecordSearch:
    """One search: what it looks at, what it may cost, and what it has found so far."""

    folder: Path
    data: str
    table: ClipTable
    budget: Budget
    seconds: float
    log: TrialLog
    fold: str | None = None
    strict: bool = False
    command: str = ""
    device: str = "cpu"
    began: float = field(default_factory=time.monotonic)
    written_s: float = 0.0  # what writing and scoring the files of a member took, at most

    def run(self, recipes: Sequence[Recipe]) -> dict[str, Any]:
        """Search among recipes and leave ``model.onnx`` and the evidence; see ``fit``."""
        self.recipes = {plan.name: self._for_data(plan) for plan in recipes}
        self.extractor: FrameExtractor = extractor_for(recipes[0], self.table)
        able = self._possible()
        self.prepared: Prepared = prepare_clips(self.recipes[able[0]], self.table, self.extractor, self.strict)
        interrupted = False
        try:
            self._members(self._trials(able))
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted: going on with the best so far")
        result = self._conclude()
        if interrupted:
            raise KeyboardInterrupt
        return result

    def _for_data(self, plan: Recipe) -> Recipe:
        """A recipe as it is for these records, the length of its training too."""
        plan = recipe_for(plan, self.table)
        return replace(plan, training=for_clips(plan.training, len(self.table.of_split("train"))))

    @property
    def left(self) -> float:
        """Seconds of the search that are left."""
        return self.seconds - (time.monotonic() - self.began)

    def _possible(self) -> list[str]:
        """The members of which some file is expected to fit, in their order."""
        sizes = {name: self._least_bytes(plan) for name, plan in self.recipes.items()}
        able = [name for name, size in sizes.items() if self.budget.max_bytes is None or size <= self.budget.max_bytes]
        if not able:
            smallest = min(sizes, key=sizes.__getitem__)
            raise RecipeError(
                f"nothing fits {self.budget.describe()}: the smallest, {smallest} in 4 bits, has about "
                f"{sizes[smallest]:,} bytes"
            )
        return able

    def _least_bytes(self, plan: Recipe) -> int:
        with torch.device("meta"):
            head = build_head(plan.head, self.extractor.feature_shape, len(self.table.labels))
        return round(Storage("", BITS, 0.0).head_bytes(head)) + EVIDENCE_BYTES

    def _trials(self, able: Sequence[str]) -> list[str]:
        """The members that were tried, in the order in which they are worth training: see ``worth_training``."""
        for name in able:
            known = {record["name"] for record in self.log.of("trial")}
            if name in known:
                continue
            if known and self.left < (1 - TRIALS_SHARE) * self.seconds:
                break
            epochs = max(1, round(self.recipes[name].training.epochs * TRIAL_SHARE))
            began = time.monotonic()
            head = self._trained(name, epochs)
            quality = self._quality(head) if head else 0.0
            took = time.monotonic() - began
            self.log.add("trial", name=name, epochs=epochs, gap20=quality, seconds=took)
            say(f"{name}: GAP@20 {quality:.4f} after {epochs} epochs, {took:.0f} s")
        tried = {record["name"]: record["gap20"] for record in self.log.of("trial") if record["name"] in able}
        return worth_training(tried)

    def _members(self, ranked: Sequence[str]) -> None:
        """Train the best whole and write their files, as many as there is time for, one in any case."""
        tried = {record["name"]: record for record in self.log.of("trial")}
        for name in ranked:
            done = {record["name"] for record in self.log.of("member")}
            if name in done:
                continue
            epochs = self.recipes[name].training.epochs
            expected = tried[name]["seconds"] * epochs / tried[name]["epochs"]
            room = self.left - self._conclusion_s() - self.written_s
            if done and expected > room:
                continue
            if expected > room:  # the first, of data that are many for the time
                epochs = max(tried[name]["epochs"], int(epochs * room / expected))
            began = time.monotonic()
            head = self._trained(name, epochs)
            if head is None:
                continue
            trained = time.monotonic()
            sizes = self._write(name, head)
            self.written_s = max(self.written_s, time.monotonic() - trained)
            self.log.add("member", name=name, files=sizes, seconds=time.monotonic() - began)
            say(f"{name}: {len(sizes)} files, {megabytes(min(sizes.values()))} to {megabytes(max(sizes.values()))}")

    def _trained(self, name: str, epochs: int) -> Head | None:
        """A head of a recipe, trained on the training records; None where its loss was not finite."""
        plan = self.recipes[name]
        training = replace(plan.training, epochs=epochs, least_updates=0)
        torch.manual_seed(training.seed)
        head = build_head(plan.head, self.extractor.feature_shape, len(self.table.labels))
        many = self.table.multi_label
        with TemporaryDirectory() as folder:  # for checkpoints that are averaged
            place = Path(folder) if training.averaging.last else None
            try:
                train_network(
                    ClipNetwork(head), self.prepared.train, self.prepared.val, training, place, multi_label=many,
                    device=self.device, moments=self.prepared.moments, title=f"train {name}",
                )  # fmt: skip
            except TrainingError as error:
                say(f"{name}: left out, {error}")
                return None
        return head

    def _quality(self, head: Head) -> float:
        """GAP@20 on the validation records."""
        logits = predict_logits(ClipNetwork(head), self.prepared.val, 32)
        if not self.table.multi_label:  # the ranking over clips is of probabilities
            logits = np.asarray(torch.from_numpy(logits).softmax(1))
        return gap(logits, self.prepared.val.targets > 0.5)

    def _write(self, name: str, head: Head) -> dict[str, int]:
        """The files of a member, and what they say of the validation records; {name: bytes}."""
        run = RunFolder(self.folder / "files" / name)
        shutil.rmtree(run.path, ignore_errors=True)
        run.path.mkdir(parents=True)
        plan = self.recipes[name]
        workshop = Workshop(plan, self.table, self.prepared, self.extractor, self.device)
        names = write_files(workshop, Trained(self.extractor, head), [find_chain(text) for text in plan.compress], run)
        val = self.table.of_split("val")
        for path in (run / name for name in names):
            if self.budget.max_bytes is None or path.stat().st_size <= self.budget.max_bytes:
                cached_scores(load(path, threads=1), val, self.strict)
        return {name: (run / name).stat().st_size for name in names}

    def _conclusion_s(self) -> float:
        """Seconds that the ensemble is expected to take, with scoring it and its members on test."""
        clips = {split: len(self.table.of_split(split)) for split in ("val", "test")}
        return CONCLUSION_S + self.written_s * max(1.0, clips["test"] / max(1, clips["val"]))

    def _conclude(self) -> dict[str, Any]:
        """The ensemble that fits, joined, measured, scored on test."""
        root = self.folder / "files"
        made = [root / record["name"] / name for record in self.log.of("member") for name in record["files"]]
        files = [path for path in made if path.exists()]
        if not files:
            raise TrainingError(f"no file was made in {self.seconds:.0f} s: give the search more --time")
        product = self.folder / MODEL
        while files:
            product.unlink(missing_ok=True)
            try:
                found = find_ensemble(
                    RunFolder(self.folder), self.data, files, self.budget.max_bytes or NO_LIMIT, fold=self.fold,
                    strict=self.strict, command=self.command,
                )  # fmt: skip
            except DataError as error:
                raise TrainingError(f"nothing found keeps {self.budget.describe()}: {error}") from error
            measured = benchmark(product, seconds=2.0, threads=1)
            broken = self.budget.broken(found["files"][product.name], measured)
            if not broken:
                return self._product(product, found["metrics"], measured)
            slowest = self._slowest(found["metrics"]["ensemble"]["members"])
            files = [path for path in files if path.parent.name != slowest]
            say(f"the file has {', '.join(broken)}: on without {slowest}")
        product.unlink()
        raise TrainingError(f"nothing found keeps {self.budget.describe()}: the last had {', '.join(broken)}")

    def _slowest(self, members: dict[str, float]) -> str:
        """Of the members of a file the one whose own file takes the most time."""
        runs = sorted({name.split("/")[0] for name in members})

        def frame_ms(run: str) -> float:
            path = next(self.folder / "files" / name for name in members if name.startswith(f"{run}/"))
            return float(benchmark(path, seconds=0.5, threads=1)["frame_ms"]["p50"])

        return runs[0] if len(runs) == 1 else max(runs, key=frame_ms)

    def _product(self, product: Path, metrics: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """Add to the figures of the file what the search says."""
        val = figures_of(load(product, threads=1), self.table.of_split("val"), self.strict)
        if val["accuracy"] < self.budget.min_accuracy:
            product.unlink()
            raise TrainingError(
                f"nothing found keeps {self.budget.describe()}: the best file reached {val['accuracy']:.3f} on "
                "validation clips"
            )
        chosen = metrics["ensemble"] | {
            "bytes": metrics["bytes"][MODEL], "accuracy": val["accuracy"], "measured": measured,
        }  # fmt: skip
        metrics |= {
            "budget": {"max_bytes": self.budget.max_bytes, "text": self.budget.describe()},
            "chosen": chosen,
            "trials": [{k: v for k, v in record.items() if k != "kind"} for record in self.log.of("trial")],
            "seconds": round(time.monotonic() - self.began, 1),
        }
        run = RunFolder(self.folder)
        run.write_metrics(metrics)
        run.write_metrics(metrics, FIT)
        return run.result(metrics)


def worth_training(tried: Mapping[str, float]) -> list[str]:
    """Names of members by what they reached in their trials, the best of each family that is near the best first.

    Unlike members gain more together than alike ones, and families do not learn at one pace. What has not half of what
    the best has is left out.
    """
    best = max(tried.values())
    ranked = sorted((name for name in tried if tried[name] >= best / 2), key=lambda name: -tried[name])
    families: dict[str, str] = {}
    for name in ranked:
        families.setdefault(family_of(name), name)
    first = [name for name in families.values() if tried[name] >= best - NEAR]
    return [*first, *(name for name in ranked if name not in first)]


def search_records(
    data: str, folder: Path, budget: Budget, seconds: float, fold: str | None, seed: int, strict: bool, command: str,
    threads: int, recipes: Sequence[Recipe] = (), device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """``fit`` where the data are stored features; see there.

    Args:
        threads: of training on the processor.
        device: where heads are trained.
        recipes: what is tried; none: ``record_recipes``.

    Raises:
        RecipeError, TrainingError, DataError: as ``fit``.
    """
    table = labelled_clips(data, fold, strict, stored=True)
    check_records_trainable(table)
    train = [clip for clip in table.of_split("train") if clip.row is not None]
    assert table.records is not None
    frames = int(np.median([table.records.frames[clip.row] for clip in train if clip.row is not None]))
    tried = list(recipes) or record_recipes(len(train), frames, seed)
    known = json.dumps([table.sha256(), [plan.name for plan in tried], seed, fold])
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        log = TrialLog(folder / "trials.jsonl", known)
        return RecordSearch(folder, data, table, budget, seconds, log, fold, strict, command, device).run(tried)
    finally:
        torch.set_num_threads(threads_before)
