"""Clips and records: reading them with their splits, and scoring a model file on them through the runtime.

What is scored is the artifact, never the training object. Nothing here needs torch.
"""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..datasets import Clip, ClipTable, DataReport, given_folds, group_folds, inspect_table, read_table, with_splits
from ..datasets.record_table import hold_out_shards
from ..errors import DataError, VidletError
from ..labels import join_labels
from ..metrics import (
    ManyLabels,
    classification_summary,
    many_labels_summary,
    paired_bootstrap,
    percentiles_ms,
)
from ..progress import bar, say
from ..runtime import Model, Prediction, classify_together
from ..video import read_clip, read_many
from ..wording import cell
from .task import DataSource

SPLIT_SEED = 0  # splits belong to the data, not to the seed of a training
CHUNK = 1000  # clips whose scores are in memory at once, where a clip may have many labels

SEVERAL = ("gap20", "hit1", "perr", "map")  # figures of many labels a clip: those of the YouTube-8M challenge
PART_COLUMNS = ("start_s", "end_s")
MOST_NAMED = 2  # files that a bar names
HEADLINE = ("accuracy", "accuracy_interval", "top5", "macro_f1")

Item = TypeVar("Item")


def labelled_clips(
    data: str | Path,
    fold: str | None = None,
    strict: bool = False,
    stored: bool = False,
    classes: int | None = None,
    val_shards: int | None = None,
) -> ClipTable:
    """Read a table and give every clip a split.

    Args:
        fold: "I/K" for fold I (from 0) of a K-fold by group, or of the parts in the table's column fold;
            None: the table's own splits, or ours where it has none.
        strict: a clip that cannot be found is an error, not a note.
        stored: stored features will do (records, or features.npz).
        classes: size of the vocabulary of records, where no file beside them says it.
        val_shards: so many shards of records, drawn at random, validate, and all others that are not test train.

    Raises:
        DataError: nothing usable is there, or the data are stored features and ``stored`` is False.
    """
    table = read_table(data, strict, classes)
    if table.features is not None and not stored:
        raise DataError(f"{table.features}: stored features, no videos; this command takes clips")
    if val_shards is not None:
        if fold is not None:
            raise DataError("--val-shards: not with --fold")
        return hold_out_shards(table, val_shards, SPLIT_SEED)
    if fold is None:
        return with_splits(table, seed=SPLIT_SEED)
    index, folds = parse_fold(fold)
    dealt = given_folds if any(clip.fold for clip in table) else group_folds
    chosen = dealt(table, folds, seed=SPLIT_SEED)[index]
    for note in chosen.notes[len(table.notes) :]:
        say(f"warning: {note}")
    return chosen


def unsplit_clips(data: str | Path, strict: bool = False) -> ClipTable:
    """Read a table of videos as it is, without a split where it gives none.

    Raises:
        DataError: nothing usable is there, or the data are stored features.
    """
    table = read_table(data, strict)
    if table.features is not None:
        raise DataError(f"{table.features}: stored features, no videos; this command takes clips")
    return table


def read_videos(source: DataSource) -> ClipTable:
    """Videos, or folders of frames, with a split each; see :func:`labelled_clips`."""
    return labelled_clips(source.path, source.fold, source.strict, val_shards=source.val_shards)


def inspect_clips(
    path: str | os.PathLike[str],
    strict: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read labelled clips or records, decode the first frame of each video, and report what there is and what is wrong.

    Raises:
        DataError: nothing usable is there; with ``strict`` also the first clip that cannot be used.
    """
    report = inspect_table(read_table(path, strict=strict), workers, progress)
    if strict and report.broken:
        name, why = report.broken[0]
        raise DataError(f"{report.root / name}: {why} ({len(report.broken)} of {report.clips} clips cannot be read)")
    return report


def sample_video(model: Model, table: ClipTable, inputs: Sequence[str] = ()) -> np.ndarray:
    """Some frames uint8 (T, H, W, 3) of a table's first clip, as a model sees it; at least five."""
    clip = next(iter(table))
    frames = read_clip(
        clip.path, model.sampling, model.input_size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps
    ).frames
    return few_frames(frames)


def few_frames(frames: np.ndarray, most: int = 8) -> np.ndarray:
    """The first frames of a clip: five to ``most``, repeated where it is shorter."""
    return np.resize(frames[:most], (max(5, min(most, len(frames))), *frames.shape[1:]))


def parse_fold(fold: str) -> tuple[int, int]:
    """The part and how many there are: "0/5" -> (0, 5).

    Raises:
        DataError: another form, or no such part.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", fold)
    if found is None or not int(found[1]) < int(found[2]) >= 2:
        raise DataError(f"--fold {fold[:40]}: expected I/K with 0 <= I < K, as in 0/5")
    return int(found[1]), int(found[2])


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
    clips: list[Clip] = []
    times: list[float] = []
    rows: list[list[np.ndarray]] = [[] for _ in models]  # of a prediction, which names every class
    damaged: list[list[tuple[str, str]]] = [[] for _ in models]
    for clip, found, took in _predictions(models, table, strict, skipped, workers):
        clips.append(clip)
        times.append(took)
        for own, model, scores, broken in zip(found, models, rows, damaged, strict=True):
            scores.append(_row(own, model))
            if own.damage:
                broken.append((str(clip.path), own.damage))
    together = []
    for model, scores, broken in zip(models, rows, damaged, strict=True):
        index = {name: i for i, name in enumerate(model.labels)}
        scored = Scored(
            tuple(clips),
            np.stack(scores),
            np.array([index[clip.label] for clip in clips]),
            np.array(times),
            tuple(skipped),
            tuple(broken),
            model.labels,
        )
        together.append(scored)
    return together


def named(models: Sequence[Model]) -> str:
    """Files in a few words, each with the folder that it lies in, which is its run."""
    if len(models) > MOST_NAMED:
        return f"{len(models)} files"
    return " and ".join("/".join(model.path.parts[-2:]) for model in models)


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
    with bar(f"evaluate {named(models)}") as move:
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


def classify_clip(models: Sequence[Model], table: ClipTable, clip: Clip) -> list[Prediction]:
    """What models say of a clip of a table: of its video, decoded once, or of its stored features."""
    if table.records is None or clip.row is None:
        return classify_together(models, clip.path, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps)
    record = table.records.read(clip.row)
    return [model.classify(record) for model in models]


def multi_hot(clips: Sequence[Clip], names: Sequence[str]) -> np.ndarray:
    """Which labels each clip has: bool (N, K)."""
    index = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(clips), len(names)), bool)
    for row, clip in enumerate(clips):
        found[row, [index[name] for name in clip.labels]] = True
    return found


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
        figures.add(np.stack([one.scores for one in part]), multi_hot([one.clip for one in part], model.labels))
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
    """What each file said of each clip, as CSV text: file, path, group, label, predicted, score.

    Where clips are parts of videos, also their start_s and end_s.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = any(any(cut_cells(clip)) for found in scored.values() for clip in found.clips)
    writer.writerow(["file", "path", "group", "label", "predicted", "score", *(PART_COLUMNS if parts else ())])
    for name, found in scored.items():
        for clip, row in zip(found.clips, found.scores, strict=True):
            guess = int(row.argmax())
            truth = join_labels(clip.labels)
            cells = [name, str(clip.path), clip.group, truth, found.names[guess], f"{row[guess]:.4f}"]
            writer.writerow(map(cell, [*cells, *(cut_cells(clip) if parts else ())]))
    return text.getvalue()


def cut_cells(clip: Clip) -> tuple[str, str]:
    """Start and end of a clip that is a part of a video, as a table has them; "" where it has none."""
    start, end = ("" if time_s is None else f"{time_s:.6f}" for time_s in (clip.start_s, clip.end_s))
    return start, end


def differ(scored: Scored, other: Scored) -> dict[str, Any]:
    """The difference of two files' accuracy on the same clips, in pairs, and how often they name the same label."""
    difference = paired_bootstrap(scored.correct, other.correct, other.groups)
    agreement = float((scored.scores.argmax(1) == other.scores.argmax(1)).mean())
    return {"difference": difference._asdict(), "agreement": agreement}


def headline(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures that are told first."""
    return (*(SEVERAL if "gap20" in figures else ()), *HEADLINE)


def quality_line(figures: Mapping[str, Any]) -> str:
    """The quality of a file in a few words."""
    low, high = figures["accuracy_interval"]
    good = f"GAP@20 {figures['gap20']:.4f}, Hit@1" if figures.get("gap20") is not None else "accuracy"
    return f"{good} {figures['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
