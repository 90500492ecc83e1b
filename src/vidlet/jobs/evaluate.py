"""Score a model file on labelled clips: the artifact, through the runtime, never the training object."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Clip, ClipTable
from ..errors import DataError, VidletError
from ..metrics import classification_summary, many_labels_summary, percentiles_ms
from ..runtime import Model, load
from ..video import read_many
from .clips import labelled_clips, scored_split
from .progress import bar
from .records import classify_clip, in_model_names, multi_hot


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


def score_clips(model: Model, table: ClipTable, strict: bool = False, workers: int = 2) -> Scored:
    """Classify every clip of a table with a loaded model.

    Raises:
        DataError: a clip has a label that the model does not know; with ``strict``, a clip cannot be read.
    """
    index = {name: i for i, name in enumerate(model.labels)}
    for clip in table:
        if unknown := [name for name in clip.labels if name not in index]:
            raise DataError(
                f"{clip.path}: label {unknown[0]!r} is not one of the model's ({', '.join(list(index)[:8])} ...)"
            )

    def classify(clip: Clip) -> tuple[np.ndarray, float, str]:
        started = time.perf_counter()
        found = classify_clip(model, table, clip)
        took = time.perf_counter() - started
        return np.array([found.scores[name] for name in model.labels], np.float32), took, found.damage

    kept, scores, labels, times, skipped, damaged = [], [], [], [], list(table.skipped), []
    with bar("evaluate") as move:
        for done, (clip, result) in enumerate(read_many(list(table), classify, workers=workers), 1):
            move(done, len(table))
            if isinstance(result, VidletError):
                if strict:
                    raise result
                skipped.append((str(clip.path), str(result)))
                continue
            row, took, damage = result
            kept.append(clip)
            scores.append(row)
            labels.append(index[clip.label])
            times.append(took)
            if damage:
                damaged.append((str(clip.path), damage))
    if not kept:
        raise DataError(f"{table.root}: none of {len(table)} clips could be read; first: {skipped[0][1]}")
    return Scored(
        tuple(kept), np.stack(scores), np.array(labels), np.array(times), tuple(skipped), tuple(damaged), model.labels
    )


def summarize(scored: Scored, model: Model) -> dict[str, Any]:
    """The figures of a scored file, as ``evaluate`` returns them."""
    if model.multi_label:
        figures = many_labels_summary(scored.scores, scored.truth, scored.groups, model.labels)
    else:
        figures = classification_summary(scored.scores, scored.labels, scored.groups, model.labels)
    return {
        **figures,
        "clip_ms": percentiles_ms(scored.clip_s),
        "bytes": model.bytes,
        "skipped": [{"path": path, "error": error} for path, error in scored.skipped],
        "damaged": [{"path": path, "error": error} for path, error in scored.damaged],
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
            writer.writerow([name, clip.path, clip.group, truth, found.names[guess], f"{row[guess]:.4f}"])
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
    return {"split": name, **summarize(score_clips(loaded, clips, strict), loaded)}
