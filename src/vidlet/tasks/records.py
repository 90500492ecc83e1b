"""Records of stored features: reading them, and predicting each. Nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Checks, ClipTable, Record, read_records, read_table
from ..datasets.frame_record import frame_codes
from ..datasets.read import is_records, table_of_features
from ..datasets.record_table import every_array_record
from ..errors import DataError
from ..files import atomic_path
from ..progress import say
from ..runtime import Model, load
from .clips import few_frames, labelled_clips
from .predictions import Wanted
from .task import DataSource

TOP = 20  # pairs of label and score that a submission has of each video
HEADER = "VideoId,LabelConfidencePairs"


def read_record_clips(source: DataSource) -> ClipTable:
    """Stored features with a split each, their classes in the names of a model that is to be scored on them.

    Raises:
        DataError: the data are videos, or have more classes than the model.
    """
    names = source.names
    table = labelled_clips(
        source.path, source.fold, source.strict, stored=True, classes=len(names) or None, val_shards=source.val_shards
    )
    return in_model_names(table, names) if names else table


def in_model_names(table: ClipTable, names: tuple[str, ...]) -> ClipTable:
    """A table of records whose classes have only numbers, in the names of a model's classes.

    Raises:
        DataError: a number beyond the model's classes.
    """
    numbered = table.labels == tuple(map(str, range(len(table.labels))))
    if table.records is None or not numbered or set(table.labels) <= set(names):
        return table
    if len(table.labels) > len(names):
        raise DataError(f"{table.root}: {len(table.labels)} classes; the model has {len(names)}: another vocabulary")
    clips = [replace(clip, labels=tuple(names[int(label)] for label in clip.labels)) for clip in table]
    return replace(table, clips=tuple(clips), labels=names)


def sample_record(model: Model, table: ClipTable, inputs: Sequence[str] = ()) -> np.ndarray:
    """Some codes (T, D) of the first record, those of the inputs (the model's) side by side; at least five frames."""
    clip = next(iter(table))
    assert table.records is not None and clip.row is not None
    return few_frames(frame_codes(table.records.read(clip.row), tuple(inputs or model.inputs)))


def predict_wanted(model: Model, source: str | Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """See :func:`predict_records`."""
    return predict_records(model, source, wanted.strict, csv=wanted.csv, threshold=wanted.threshold)


def predict_records(
    model: str | Path | Model,
    source: str | Path,
    strict: bool = False,
    threads: int = 1,
    csv: str | Path | None = None,
    threshold: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield {"source", "label", "score", "named", "scores", "segments"} for each record of shards (or of features.npz).

    ``source`` is the record's id, ``scores`` the 20 highest by name, ``segments`` empty: a record has no times.
    Labels of the records are not looked at.

    Args:
        strict: the first damaged record is an error; else each is named, skipped and yields {"source", "error"}.
        threshold: from which score on the label counts as ``named``; None: the model's own.
        csv: a submission in the form of the YouTube-8M challenge: the header, and a line a record of its id and 20
            pairs of class number and score, descending.

    Raises:
        DataError: no records, or none that can be read.
    """
    loaded = model if isinstance(model, Model) else load(model, threads=threads)
    checks = Checks(strict=strict)
    told = answered = 0
    with _Submission(csv) as submission:
        for record in _records_of(source, checks):
            for problem in checks.problems[told:]:
                yield {"source": problem.id or f"{problem.shard} at byte {problem.offset}", "error": str(problem)}
            told = len(checks.problems)
            found = loaded.classify(record)
            answered += 1
            scores = np.array([found.scores[name] for name in loaded.labels])
            best = np.argsort(-scores, kind="stable")[:TOP]
            submission.add(record.id, best, scores[best])
            named = {loaded.labels[i]: float(scores[i]) for i in best}
            about = {
                "label": found.label,
                "score": found.score,
                "named": loaded.names(found.label, found.score, threshold),
            }
            yield {"source": record.id, **about, "scores": named, "segments": []}
        for problem in checks.problems[told:]:
            yield {"source": problem.id or f"{problem.shard} at byte {problem.offset}", "error": str(problem)}
        if checks.problems and not answered:
            raise DataError(f"{source}: of its {len(checks.problems)} records none has an answer")
    if checks.problems:
        say(f"skipped {len(checks.problems)} records; first: {checks.problems[0]}")


def submission_line(name: str, classes: Any, scores: Any) -> str:
    """A line of a submission: id, then class number and score of each pair, best first."""
    return f"{name}," + " ".join(f"{int(i)} {float(s):g}" for i, s in zip(classes, scores, strict=True))


def _records_of(source: str | Path, checks: Checks) -> Iterator[Record]:
    if is_records(Path(source)):
        yield from read_records(source, checks)
        return
    if (beside := table_of_features(source)) is not None:
        records = every_array_record(beside)
        yield from map(records.read, range(len(records.ids)))
        return
    table = read_table(source, strict=checks.strict)
    if table.records is None:
        raise DataError(f"{source}: no records; the model takes stored features, .tfrecord shards or features.npz")
    for clip in table:
        assert clip.row is not None
        yield table.records.read(clip.row)


class _Submission:
    """A CSV that is whole or not there; None: nothing is written."""

    def __init__(self, path: str | Path | None) -> None:
        self._draft = atomic_path(os.fspath(path)) if path is not None else None
        self._handle: Any = None

    def __enter__(self) -> _Submission:
        if self._draft is not None:
            self._handle = self._draft.__enter__().open("w", encoding="utf-8", newline="")
            self._handle.write(HEADER + "\n")
        return self

    def add(self, name: str, classes: np.ndarray, scores: np.ndarray) -> None:
        """A line, where there is a file."""
        if self._handle is not None:
            self._handle.write(submission_line(name, classes, scores) + "\n")

    def __exit__(self, *failure: Any) -> None:
        if self._draft is not None:
            self._handle.close()
            self._draft.__exit__(*failure)
