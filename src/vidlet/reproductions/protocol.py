"""Each paper's own protocol on given clips: its splits, its rates and epochs, its early stopping; a line a run.

A case is a row of a paper's table: a recipe, what the paper does otherwise, and which clips test it. Every fold and
seed of a case is a run; the log gets a line a finished run, which is not run again, and a run that was killed goes on
at its last epoch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..datasets import ClipTable, group_folds, leave_one_group_out, read_table, with_splits
from ..datasets.known import ucf101_lists
from ..errors import DataError, RecipeError
from ..models import FrameExtractor
from ..progress import say
from ..recipe import Recipe, load_recipe, nearest, recipe_to_dict
from ..tasks import TASKS
from ..tasks.clips import SPLIT_SEED, unsplit_clips
from ..tasks.flow import flow_clips, stream_name
from ..tasks.joint_depth import small_clips
from ..tasks.prepare import Prepared, moments, sample_clips
from ..training import FeatureClips, FrameClips
from ..training.advice import MIRRORED, REVERSED, opposite_labels
from .experiment import Effort, Setup, check_effort, figures_of, fit_head, probabilities, taken_values, written_bytes

K = 5  # folds, where a paper says k-fold
Copy = tuple[int, bool, bool]  # number of a clip, whether it is mirrored, whether it is reversed


@dataclass(frozen=True)
class Case:
    """A row of a paper's table and how the paper trained it.

    Args:
        name: the row.
        recipe: built-in; ``changes`` are what the paper does otherwise than the recipe, by dotted key.
        folds: which clips test: a name of ``FOLDS``.
        flow: recipe of a second stream, on optical flow; the mean of both streams' probabilities counts.
        small: clips are read as VIVA's are (tasks/joint_depth.py).
    """

    name: str
    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    folds: str = "given"
    flow: str = ""
    small: bool = False


@dataclass(frozen=True)
class Fold:
    """Numbers of clips, or of their copies, that are trained on, that early stopping watches, and that are scored."""

    train: Sequence[Copy]
    watched: Sequence[Copy]
    scored: Sequence[Copy]


def run_cases(cases: Sequence[Case], data: str | Path, effort: Effort, log: Path) -> dict[str, list[dict[str, Any]]]:
    """Train the cases by their papers' protocol, all folds and seeds; the runs of each case by its name.

    Raises:
        RecipeError: no case has one of ``effort.rows`` in its name, or an override that no recipe takes.
        DataError: what is wrong with the data, or they have no such folds.
    """
    check_effort(effort)
    chosen = chosen_cases(cases, effort.rows)
    known = {row["key"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    log.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {case.name: [] for case in chosen}
    reader = _Reader(data, effort.clips, log)
    for case in chosen:
        tables = [reader.small() if case.small else reader.pictures, *([reader.flow(case.flow)] if case.flow else [])]
        folds = _folds(case, Asked(tables[0], Path(data), one_way(case, effort)))
        for number, fold in list(enumerate(folds))[: effort.folds or None]:
            for seed in range(effort.seeds):
                plans = [plan_of(recipe, case, effort, seed) for recipe in (case.recipe, case.flow) if recipe]
                told = [recipe_to_dict(plan) for plan in plans]
                key = json.dumps([Path(data).name, tables[0].sha256(), case.folds, number, told], sort_keys=True)
                if key not in known:
                    kept = log.parent / f"{log.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
                    figures = _run(plans, reader.streams(plans, tables), fold, effort.device, kept, key)
                    run = {"name": case.name, "fold": number, "folds": len(folds), "seed": seed}
                    known[key] = {**run, **figures, "key": key, "code": effort.code}
                    with log.open("a") as sink:
                        sink.write(json.dumps(known[key]) + "\n")
                    shutil.rmtree(kept, ignore_errors=True)
                    where = f"{case.name}, fold {number + 1} of {len(folds)}, seed {seed}"
                    say(f"{where}: accuracy {figures['accuracy']:.3f} after {figures['epochs']} epochs")
                found[case.name].append(known[key])
    return found


def chosen_cases(cases: Sequence[Case], rows: Sequence[str]) -> list[Case]:
    """The cases that are called so, or have one of these words in their names; all where none are given.

    Raises:
        RecipeError: no case has a word, with the nearest.
    """
    if not rows:
        return list(cases)
    chosen: set[str] = set()
    for word in rows:
        names = [case.name for case in cases]
        exactly = [name for name in names if name.casefold() == word.casefold()]
        having = exactly or [name for name in names if word.casefold() in name.casefold()]
        if not having:
            raise RecipeError(
                f"papers: no row has {word!r} in its name{nearest(word, names)}; known: {'; '.join(names)}"
            )
        chosen.update(having)
    return [case for case in cases if case.name in chosen]


def plan_of(recipe: str, case: Case, effort: Effort, seed: int) -> Recipe:
    """The recipe as the paper trains it, with what was asked for; fewer epochs keep the course of the rate."""
    head = {key: value for key, value in case.changes.items() if key == "head"}
    changes = taken_values({**case.changes, **effort.overrides}, recipe, head)
    plan = load_recipe(recipe, {**changes, "training.seed": seed})
    if effort.epochs is None or effort.epochs >= plan.training.epochs:
        return plan
    share = effort.epochs / plan.training.epochs
    schedule = dataclasses.replace(
        plan.training.schedule, step_epochs=max(1, round(share * plan.training.schedule.step_epochs))
    )
    training = dataclasses.replace(plan.training, epochs=effort.epochs, schedule=schedule)
    return dataclasses.replace(plan, training=training)


def reductions(effort: Effort) -> list[str]:
    """What was asked for beside the paper's protocol, in words; nothing of a whole one."""
    said = [
        f"{effort.epochs} epochs at most" if effort.epochs else "",
        f"{effort.clips:g} of the clips" if effort.clips < 1 else "",
        f"the first {effort.folds} folds" if effort.folds else "",
        ", ".join(f"{key}={value}" for key, value in effort.overrides.items()),
    ]
    return [text for text in said if text]


def over_folds(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over folds and seeds of accuracy, top-5, precision, recall and F1; the spread of the accuracy."""
    means = {
        key: round(statistics.mean(run[key] for run in runs), 4)
        for key in ("accuracy", "top5", "macro_precision", "macro_recall", "macro_f1")
        if all(key in run for run in runs)
    }
    values = [run["accuracy"] for run in runs]
    spread = {"spread": round(statistics.stdev(values), 4)} if len(values) > 1 else {}
    return {
        **means,
        **spread,
        "bytes": max(run["bytes"] for run in runs),
        "epoch_s": round(statistics.median(run["epoch_s"] for run in runs), 2),
    }


# Which clips test.


class Asked(NamedTuple):
    """The clips that folds are made of, where they came from, and classes that are never mirrored or reversed."""

    table: ClipTable
    data: Path
    one_way: tuple[str, ...] = ()


def one_way(case: Case, effort: Effort) -> tuple[str, ...]:
    """Classes that the case or who asked for it has said to have a direction."""
    return tuple({**case.changes, **effort.overrides}.get("training.one_way", ()))


def _given(asked: Asked) -> list[Fold]:
    """The splits of the data: val is watched, test scored. Where there is no val, a tenth of all is taken of train."""
    trained = sum(clip.split == "train" for clip in asked.table) or len(asked.table)
    table = with_splits(asked.table, seed=SPLIT_SEED, val=min(0.1 * len(asked.table) / trained, 0.5))
    of = {split: [i for i, clip in enumerate(table) if clip.split == split] for split in ("train", "val", "test")}
    scored = of["test"] or of["val"]
    if not of["test"]:
        say("warning: these clips have no test split: what early stopping watches is what is scored")
    return [Fold(_plain(of["train"]), _plain(of["val"]), _plain(scored))]


def _given_whole(asked: Asked) -> list[Fold]:
    """The splits of the data: test is scored, val where there is none, and all else is trained on."""
    return [_fold(range(len(asked.table)), [number for number, *_ in _given(asked)[0].scored])]


def _three_splits(asked: Asked) -> list[Fold]:
    """The three official splits of UCF101."""
    lists = ucf101_lists(asked.data)
    if lists is None:
        raise DataError(f"{asked.data}: the three splits of UCF101 need its lists (classInd.txt, testlist01.txt ...)")
    tested = [
        {clip.path for clip in read_table(lists[0] / f"testlist0{number}.txt") if clip.split == "test"}
        for number in (1, 2, 3)
    ]
    every = range(len(asked.table))
    return [_fold(every, [i for i, clip in enumerate(asked.table) if clip.path in out]) for out in tested]


def _of_tables(table: ClipTable, folds: Sequence[ClipTable]) -> list[Fold]:
    for note in sorted({note for fold in folds for note in fold.notes if note not in table.notes}):
        say(f"warning: {note}")
    split = [[i for i, clip in enumerate(fold) if clip.split == "test"] for fold in folds]
    return [_fold(range(len(table)), test) for test in split]


def _by_group(asked: Asked) -> list[Fold]:
    return _of_tables(asked.table, group_folds(asked.table, K, val=0))


def _one_group(asked: Asked) -> list[Fold]:
    return _of_tables(asked.table, leave_one_group_out(asked.table, val=0))


def _by_clip(asked: Asked) -> list[Fold]:
    """K folds of clips, whoever is in them, each class spread evenly."""
    parts = _dealt([clip.label for clip in asked.table])
    return [_fold(range(len(asked.table)), part) for part in parts]


def _of_copies(asked: Asked) -> list[Fold]:
    """K folds of all clips and their mirrored and reversed copies, as Wang et al.: copies of a clip part ways."""
    every = list(copies(asked.table, asked.one_way))
    labels = [asked.table.clips[number].label for number, *_ in every]
    parts = [[every[i] for i in part] for part in _dealt(labels)]
    tested = [set(part) for part in parts]
    return [
        Fold([copy for copy in every if copy not in out], part, part) for out, part in zip(tested, parts, strict=True)
    ]


def _copies_by_group(asked: Asked) -> list[Fold]:
    """K folds of groups (subjects): their own clips are scored, the others are trained on with their copies."""
    every = list(copies(asked.table, asked.one_way))
    tested = [{number for number, *_ in fold.scored} for fold in _by_group(asked)]
    return [
        Fold([copy for copy in every if copy[0] not in out], _plain(sorted(out)), _plain(sorted(out))) for out in tested
    ]


FOLDS: dict[str, Callable[[Asked], list[Fold]]] = {
    "given": _given,
    "given whole": _given_whole,
    "three splits": _three_splits,
    "by clip": _by_clip,
    "by group": _by_group,
    "one group": _one_group,
    "copies": _of_copies,
    "copies by group": _copies_by_group,
}


UNNAMED = re.compile(r"gesture \d+")  # a class of which nobody knows whether it has a direction


def copies(table: ClipTable, one_way: Sequence[str] = ()) -> Iterator[Copy]:
    """Every clip, and mirrored, reversed, and both, where its class is still itself then.

    Classes that are another's mirror image or reversal by their names, those of ``one_way`` and those that have numbers
    for names have no such copies.
    """
    kept = {*one_way, *filter(UNNAMED.fullmatch, table.labels)}
    mirrored, reversed_ = (
        set(table.labels) - {*opposite_labels(table.labels, pairs), *kept} for pairs in (MIRRORED, REVERSED)
    )
    for number, clip in enumerate(table):
        for mirror in (False, True)[: 1 + (clip.label in mirrored)]:
            for back in (False, True)[: 1 + (clip.label in reversed_)]:
                yield number, mirror, back


def _plain(numbers: Sequence[int]) -> list[Copy]:
    return [(number, False, False) for number in numbers]


def _fold(numbers: Sequence[int], test: Sequence[int]) -> Fold:
    out = set(test)
    return Fold(_plain([number for number in numbers if number not in out]), _plain(test), _plain(test))


def _dealt(labels: Sequence[str]) -> list[list[int]]:
    """Numbers of items in K parts, drawn from seed 0; those of a label are dealt out one by one."""
    rng = np.random.default_rng(0)
    parts: list[list[int]] = [[] for _ in range(K)]
    start = 0
    for label in dict.fromkeys(labels):
        own = rng.permutation([i for i, name in enumerate(labels) if name == label]).tolist()
        for place, number in enumerate(own, start):
            parts[place % K].append(number)
        start += len(own)
    if not all(parts):
        raise DataError(f"{len(labels)} clips cannot make {K} folds")
    return [sorted(part) for part in parts]


def _folds(case: Case, asked: Asked) -> list[Fold]:
    folds = FOLDS[case.folds](asked)
    if len(asked.table.labels) > 1:
        for fold in folds:
            if len({asked.table.clips[number].label for number, *_ in fold.scored}) < 2:
                say(f"warning: {case.name}: a fold tests clips of one class only, which says nothing of telling apart")
                break
    return folds


# What is trained on them.


class _Stream:
    """All clips of a table as a recipe reads them, once for all folds."""

    def __init__(self, plan: Recipe, table: ClipTable) -> None:
        networks = TASKS["clips"].networks()
        network = networks.build(plan, table, None)
        self.extractor: FrameExtractor = network.extractor
        every = [dataclasses.replace(clip, split="train") for clip in table]
        dense = "redraw" in plan.training.augment  # training clips are read more densely than those that are scored
        again = [dataclasses.replace(clip, split="val") for clip in (every if dense else every[:1])]
        both = table.with_clips([*every, *again])
        prepared: Prepared = networks.prepare(plan, both, network, False)
        read = {id(clip): row for row, clip in enumerate(prepared.clips)}
        self.table, self.median_s, self.on_features = table, prepared.median_s, prepared.mean is not None
        self.rows = [read.get(id(clip)) for clip in every]  # None: it cannot be read
        self.learned: Any = prepared.train
        self.seen: Any = prepared.val if dense else prepared.train
        self.sample = sample_clips(both, plan, 1)[0]

    def setup(self, fold: Fold) -> Setup:
        """What a fold trains on, watches and scores."""
        train, watched = self._some(self.learned, fold.train), self._some(self.seen, fold.watched)
        scored = self._some(self.seen, fold.scored)
        mean = std = None
        if self.on_features:
            mean, std = moments(train.read(i) for i in range(len(train)))
        prepared = Prepared(train, scored, (), self.median_s, mean, std)
        return Setup(self.table, self.extractor, prepared, self.sample, watched)

    def _some(self, clips: Any, chosen: Sequence[Copy]) -> Any:
        kept = [(row, mirror, back) for number, mirror, back in chosen if (row := self.rows[number]) is not None]
        if not kept:
            raise DataError(f"{self.table.root}: no clip of a fold could be read")
        rows = np.array([row for row, *_ in kept])
        if isinstance(clips, FeatureClips):
            return clips.some(rows)
        assert isinstance(clips, FrameClips)
        return clips.some(rows).turned([(mirror, back) for _, mirror, back in kept])


def _run(
    plans: Sequence[Recipe], streams: Sequence[_Stream], fold: Fold, device: str, folder: Path, key: str
) -> dict[str, Any]:
    """Train the streams on a fold; the figures of the mean of their probabilities."""
    answers, sizes, counts, times, epochs = [], [], [], [], []
    for number, (plan, stream) in enumerate(zip(plans, streams, strict=True)):
        setup = stream.setup(fold)
        network = TASKS["clips"].networks().build(plan, stream.table, None)
        setup = dataclasses.replace(setup, extractor=network.extractor)
        fitted = fit_head(setup, plan, network.head, device, folder / str(number), key)
        answers.append(probabilities(setup, plan, network.head))
        sizes.append(written_bytes(setup, plan, network.head))
        counts.append(sum(p.numel() for p in network.head.parameters()))
        times.append(fitted.epoch_s)
        epochs.append(fitted.epochs)
        truth = setup.prepared.val.targets.argmax(1)
    return {
        **figures_of(np.mean(answers, axis=0), truth, streams[0].table.labels),
        "bytes": sum(sizes),
        "parameters": sum(counts),
        "epoch_s": sum(times),
        "epochs": max(epochs),
    }


class _Reader:
    """The clips of the data, and those of one way of seeing them in memory."""

    def __init__(self, data: str | Path, share: float, log: Path) -> None:
        self.data, self.log = data, log
        self.pictures = _share(unsplit_clips(data), share)
        self._made: dict[str, ClipTable] = {}
        self._ready: tuple[str, list[_Stream]] = ("", [])

    def flow(self, recipe: str) -> ClipTable:
        """The clips as their optical flow, computed where it is first asked for."""
        return self._written("flow", lambda out: flow_clips(self.data, out, load_recipe(recipe)))

    def small(self) -> ClipTable:
        """The clips as Wang et al. read VIVA's, written where they are first asked for."""
        return self._written("clips", lambda out: small_clips(self.data, out))

    def _written(self, kind: str, write: Callable[[Path], object]) -> ClipTable:
        if kind not in self._made:
            out = self.log.parent / f"{self.log.stem}-{kind}"
            write(out)
            self._made[kind] = _as_written(self.pictures, read_table(out), out)
        return self._made[kind]

    def streams(self, plans: Sequence[Recipe], tables: Sequence[ClipTable]) -> list[_Stream]:
        """The clips as these plans see them, read once while plans that see them alike follow each other."""
        seen = json.dumps([
            [recipe_to_dict(plan)[part] for part in ("sampling", "extractor")]
            + [plan.training.mode, plan.training.augment.get("redraw"), plan.training.one_way]
            for plan in plans
        ])  # fmt: skip
        if self._ready[0] != seen:
            self._ready = ("", [])  # free the memory first
            made = [_Stream(plan, table) for plan, table in zip(plans, tables, strict=True)]
            self._ready = (seen, made)
        return self._ready[1]


def _as_written(table: ClipTable, written: ClipTable, root: Path) -> ClipTable:
    """The same clips in the same order, each as the pictures that were written of it.

    Raises:
        DataError: some have none.
    """
    of = {clip.path.relative_to(root).as_posix(): clip for clip in written}
    found = [of.get(stream_name(clip, table)) for clip in table]
    if missing := sum(clip is None for clip in found):
        raise DataError(f"{table.root}: {missing} clips are not in {root}")
    return table.with_clips(
        dataclasses.replace(clip, path=other.path, start_s=None, end_s=None, fps=other.fps)
        for clip, other in zip(table, found, strict=True)
        if other is not None
    )


def _share(table: ClipTable, share: float) -> ClipTable:
    """A share of each class of each split, drawn from seed 0; at least two clips of each."""
    if share >= 1:
        return table
    rng = np.random.default_rng(0)
    kept: list[int] = []
    for split in ("", "train", "val", "test"):
        for label in table.labels:
            own = [i for i, clip in enumerate(table) if clip.split == split and clip.label == label]
            kept += rng.permutation(own)[: max(2, round(share * len(own)))].tolist()
    return table.with_clips(table.clips[i] for i in sorted(kept))
