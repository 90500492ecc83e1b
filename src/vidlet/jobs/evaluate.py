"""Score a model file on labelled clips: the artifact, through the runtime, never the training object."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..datasets import Clip, ClipTable
from ..errors import DataError, VidletError
from ..metrics import ManyLabels, classification_summary, many_labels_summary, percentiles_ms
from ..progress import bar
from ..runtime import Model, Prediction, load
from ..video import read_many
from ..wording import cell
from .clips import labelled_clips, scored_split
from .records import classify_clip, in_model_names, multi_hot

CHUNK = 1000  # clips whose scores are in memory at once, where a clip may have many labels

Item = TypeVar("Item")


@dataclass(frozen=True)
class Scored:
    """Scores (N, K) of the clips that could be read, their labels (N,) as indices, and what was skipped."""

    clips: tuple[Clip, ...]
    scores: np.ndarray
    labels: np.ndarray
    clip_s: np.ndarray
    skipped: tuple[tuple[str, str], ...]
    damaged: tuple[tuple[str, str], ...]
    names: tuple[str, ...]  # of the K classes

    @property
    def truth(self) -> np.ndarray:
        """Which labels each clip has: bool (N, K)."""
        return multi_hot(self.clips, self.names)

    @property
    def correct(self) -> np.ndarray:
        """(N,) booleans: the highest score is that of a label of the clip."""
        result: np.ndarray = self.truth[np.arange(len(self.scores)), self.scores.argmax(1)]
        return result

    @property
    def groups(self) -> list[str]:
        """Group of each clip."""
        return [clip.group for clip in self.clips]


@dataclass(frozen=True)
class Answer:
    """What a model said of one clip: its scores (K,) float32, the seconds it took, and damage of the file."""

    clip: Clip
    scores: np.ndarray
    took_s: float
    damage: str


def answers(
    model: Model, table: ClipTable, strict: bool, skipped: list[tuple[str, str]], workers: int = 2
) -> Iterator[Answer]:
    """Classify every clip of a table with a loaded model, in their order; who asks keeps what is needed.

    Args:
        skipped: gets the clips of the table that could not be used or read, (path, error).

    Raises:
        DataError: a clip has a label that the model does not know; with ``strict``, a clip cannot be read; none could
            be read.
    """
    for clip, found, took in _predictions([model], table, strict, skipped, workers):
        yield Answer(clip, _row(found[0], model), took, found[0].damage)


def score_clips(model: Model, table: ClipTable, strict: bool = False, workers: int = 2) -> Scored:
    """Classify every clip of a table with a loaded model and keep all scores.

    Raises:
        DataError: see ``answers``.
    """
    return score_together([model], table, strict, workers)[0]


def score_together(models: Sequence[Model], table: ClipTable, strict: bool = False, workers: int = 2) -> list[Scored]:
    """``score_clips`` of models that see clips alike, each clip decoded once; ``clip_s`` is that of all together.

    Raises:
        DataError: see ``answers``.
        ModelError: they see clips in different ways.
    """
    skipped: list[tuple[str, str]] = []
    found = list(_predictions(models, table, strict, skipped, workers))
    together = []
    for number, model in enumerate(models):
        index = {name: i for i, name in enumerate(model.labels)}
        scored = Scored(
            tuple(clip for clip, _, _ in found),
            np.stack([_row(own[number], model) for _, own, _ in found]),
            np.array([index[clip.label] for clip, _, _ in found]),
            np.array([took for _, _, took in found]),
            tuple(skipped),
            tuple((str(clip.path), own[number].damage) for clip, own, _ in found if own[number].damage),
            model.labels,
        )
        together.append(scored)
    return together


def _row(found: Prediction, model: Model) -> np.ndarray:
    return np.array([found.scores[name] for name in model.labels], np.float32)


def _predictions(
    models: Sequence[Model], table: ClipTable, strict: bool, skipped: list[tuple[str, str]], workers: int
) -> Iterator[tuple[Clip, list[Prediction], float]]:
    """Clips in their order, what each model says of them, and the seconds that it took."""
    for model in models:
        known = set(model.labels)
        for clip in table:
            if unknown := [name for name in clip.labels if name not in known]:
                raise DataError(
                    f"{clip.path}: label {unknown[0]!r} is not one of the model's ({', '.join(model.labels[:8])} ...)"
                )

    def classify(clip: Clip) -> tuple[list[Prediction], float]:
        started = time.perf_counter()
        return classify_clip(models, table, clip), time.perf_counter() - started

    skipped += table.skipped
    read = 0
    with bar("evaluate") as move:
        for done, (clip, result) in enumerate(read_many(list(table), classify, workers=workers), 1):
            move(done, len(table))
            if not isinstance(result, VidletError):
                read += 1
                yield clip, *result
            elif strict:
                raise result
            else:
                skipped.append((str(clip.path), str(result)))
    if not read:
        raise DataError(f"{table.root}: none of {len(table)} clips could be read; first: {skipped[0][1]}")


def figures_of(model: Model, table: ClipTable, strict: bool = False, workers: int = 2) -> dict[str, Any]:
    """What ``summarize`` says of ``score_clips``; of many labels, without the scores of all clips at once.

    Raises:
        DataError: see ``answers``.
    """
    if not model.multi_label:
        return summarize(score_clips(model, table, strict, workers), model)
    skipped: list[tuple[str, str]] = []
    figures, groups, times, damaged = ManyLabels(model.labels), [], [], []
    for part in batched(answers(model, table, strict, skipped, workers), CHUNK):
        figures.add(np.stack([one.scores for one in part]), multi_hot(tuple(one.clip for one in part), model.labels))
        groups += [one.clip.group for one in part]
        times += [one.took_s for one in part]
        damaged += [(str(one.clip.path), one.damage) for one in part if one.damage]
    return _with_file(figures.summary(groups), model, np.array(times), skipped, damaged)


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last perhaps shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def summarize(scored: Scored, model: Model) -> dict[str, Any]:
    """The figures of a scored file, as ``evaluate`` returns them."""
    if model.multi_label:
        figures = many_labels_summary(scored.scores, scored.truth, scored.groups, model.labels)
    else:
        figures = classification_summary(scored.scores, scored.labels, scored.groups, model.labels)
    return _with_file(figures, model, scored.clip_s, scored.skipped, scored.damaged)


def _with_file(
    figures: Mapping[str, Any],
    model: Model,
    clip_s: np.ndarray,
    skipped: Sequence[tuple[str, str]],
    damaged: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    return {
        **figures,
        "clip_ms": percentiles_ms(clip_s),
        "bytes": model.bytes,
        "skipped": [{"path": path, "error": error} for path, error in skipped],
        "damaged": [{"path": path, "error": error} for path, error in damaged],
    }


def predictions_csv(scored: Mapping[str, Scored]) -> str:
    """What each file said of each clip, as CSV text: file, path, group, label, predicted, score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "path", "group", "label", "predicted", "score"])
    for name, found in scored.items():
        for clip, row in zip(found.clips, found.scores, strict=True):
            guess = int(row.argmax())
            truth = "|".join(clip.labels)
            cells = [name, str(clip.path), clip.group, truth, found.names[guess], f"{row[guess]:.4f}"]
            writer.writerow(map(cell, cells))
    return text.getvalue()


def evaluate(
    model: str | Path,
    data: str | Path,
    split: str | None = None,
    fold: str | None = None,
    strict: bool = False,
    threads: int = 1,
    against: str | Path | None = None,
    report: str | Path | None = None,
) -> dict[str, Any]:
    """Score a model file on labelled clips, through the runtime.

    Args:
        split: "train", "val", "test" or "all"; None: test, or val where there is no test.
        fold: "0/5" scores part 0 of 5, as ``train`` with the same fold left it out.
        against: another model file of the same labels, scored on the same clips (see ``compare_models``).
        report: an HTML file that sets the two beside each other.

    Returns:
        ``accuracy``, ``accuracy_interval`` [low, high] (95 %, bootstrap over groups), ``top5``, ``macro_f1``,
        ``per_class`` {label: precision, recall, f1, support}, ``confusion``, ``ece``, ``bytes``, ``clips``, ``clip_ms``
        {"p50", "p95"}, ``split``, ``skipped`` and ``damaged`` (lists of {"path", "error"}); with another file
        ``against``: its figures, the differences and where the two disagree. Rates are fractions. For a
        file that detects, ``map50``, ``map50_95`` and what ``evaluate_detector`` lists. Where a clip may have many
        labels, ``gap20``, ``hit1``, ``perr`` and ``map``; ``accuracy`` is Hit@1 then, ``top5`` the share of clips with
        a label among the five highest, ``macro_f1`` that at the threshold 0.5, and there is no confusion matrix.

    Raises:
        DataError: no clips, none that can be read, or a label that the model does not know.
        ModelError: not a model file.
    """
    loaded = load(model, threads=threads)
    if report and not against:
        raise DataError("--report sets two files beside each other: name the other with --against")
    if loaded.box_labels and not loaded.labels:
        if against:
            raise DataError(f"{model}: a detector; --against compares files of one label a clip")
        from .score_boxes import evaluate_detector

        return evaluate_detector(model, data, split, strict, threads)
    classes = len(loaded.labels)
    table = in_model_names(labelled_clips(data, fold, strict, stored=True, classes=classes), loaded.labels)
    name, clips = scored_split(table, split)
    if against:
        from .compare import compare_models

        other = load(against, threads=threads)
        return {"split": name, **compare_models(loaded, other, clips, (str(model), str(against)), strict, report)}
    return {"split": name, **figures_of(loaded, clips, strict)}
