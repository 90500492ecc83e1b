"""Teachers from the command line: model files whose answers on the training clips are learned beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets import Clip, ClipTable
from ..errors import TrainingError
from ..files import sha256_of
from ..progress import megabytes, say
from ..runs import MODEL, model_file
from ..runtime import Model, load
from ..training import Clips, FeatureClips, FrameClips, RecordClips, StoredAnswers, TaughtClips
from .cached import cached_scores
from .records import in_model_names


def open_teachers(sources: Sequence[str | Path], table: ClipTable) -> list[Model]:
    """Load teachers: model files as they ship, ensembles among them, or run folders (their ``model.onnx``).

    Raises:
        TrainingError: a teacher of other labels than the data, or one that cannot take its clips.
        ModelError: not a model file.
    """
    return [_fitting(Path(source), table) for source in sources]


def _fitting(source: Path, table: ClipTable) -> Model:
    path = model_file(source)
    if not path.is_file():
        raise TrainingError(f"--teacher {source}: neither a model file nor a run folder with {MODEL}")
    model = load(path, threads=1)
    wanted, held = ("frames", "videos") if table.records is None else ("rgb", "stored features")
    if wanted not in model.inputs:
        raise TrainingError(f"--teacher {source}: takes {' and '.join(model.inputs)}; {table.root} holds {held}")
    names = in_model_names(table, model.labels).labels
    if set(model.labels) != set(names):
        other = sorted(set(names) ^ set(model.labels))
        raise TrainingError(
            f"--teacher {source}: must have the {len(names)} labels of the data; it has {len(model.labels)}, and only "
            f"one of the two has {', '.join(other[:3])}{' ...' if other[3:] else ''}"
        )
    if model.multi_label != table.multi_label:
        kinds = {True: "many labels a clip", False: "one label a clip"}
        raise TrainingError(
            f"--teacher {source}: was trained on {kinds[model.multi_label]}; the data have {kinds[table.multi_label]}"
        )
    return model


def taught(
    prepared: Clips, clips: Sequence[Clip], table: ClipTable, teachers: Sequence[Model], strict: bool
) -> TaughtClips:
    """Training clips with the teachers' answers; each file scores each clip once, as it is, and the cache keeps that.

    A clip that a teacher cannot read has its labels for an answer.

    Args:
        prepared: the training clips as the loop takes them; ``clips``: the same in the table, in the same order.
    """
    assert isinstance(prepared, (FeatureClips, FrameClips, RecordClips))
    parts = tuple(_answers(model, clips, table, strict) for model in teachers)
    for model in teachers:
        say(f"teacher {model.path} ({megabytes(model.bytes)})")
    return TaughtClips(prepared, StoredAnswers(parts, len(table.labels), table.multi_label))


def provenance_of(teachers: Sequence[Model]) -> str:
    """The names and hashes of teachers, as the file of what they taught names them."""
    return ", ".join(f"{model.path.name} of sha256 {sha256_of(model.path)}" for model in teachers)


def _answers(model: Model, clips: Sequence[Clip], table: ClipTable, strict: bool) -> tuple[np.ndarray, np.ndarray]:
    """Classes, in the order of the table, and scores (N, depth) of clips of the split train."""
    train = table.of_split("train")
    place = {id(clip): row for row, clip in enumerate(train)}
    named = in_model_names(train, model.labels)
    top, rows = cached_scores(model, named, strict)
    line = {row: number for number, row in enumerate(rows)}
    lines = [line.get(place[id(clip)], -1) for clip in clips]
    ours = np.array([named.labels.index(name) for name in model.labels], np.int32)
    classes, scores = ours[top.classes[lines]], top.scores[lines].copy()
    index = {name: number for number, name in enumerate(table.labels)}
    for number in [number for number, found in enumerate(lines) if found < 0]:
        own = [index[name] for name in clips[number].labels][: classes.shape[1]]
        others = [name for name in range(len(ours)) if name not in own]
        classes[number] = [*own, *others][: classes.shape[1]]
        scores[number] = np.arange(classes.shape[1]) < len(own)
    return classes, scores
