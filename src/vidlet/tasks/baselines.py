"""How a training stands to the plainest classifiers: of every training of clips and of records, whatever its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets import Clip, ClipTable
from ..datasets.frame_record import dequantize, frame_codes
from ..errors import VidletError
from ..features import extract
from ..files import cache_folder
from ..metrics import paired_bootstrap
from ..models import FrameExtractor
from ..progress import bar
from ..recipe import Recipe
from ..selection.baselines import Baseline, measure_baselines, measure_squares, pixel_features
from ..training import FeatureClips, FrameClips, RecordClips
from ..video import read_clip, read_many
from .auto import held_out
from .clips import Scored
from .prepare import Prepared, graph_bytes, targets_of
from .prepare_records import widths_of

MOST, TARGETS = 1500, 3e5  # training clips that are looked at; and times classes
MOST_CLASSES, LARGEST = 1000, 1e8  # beyond either, records are compared by least squares; of so many targets at most


def compare_with_baselines(
    plan: Recipe,
    table: ClipTable,
    extractor: FrameExtractor,
    prepared: Prepared,
    chosen: ClipTable,
    scored: Mapping[str, Scored],
) -> dict[str, Any]:
    """Figures of the baselines on the scored clips, and how each file stands to the best of them (metrics.json).

    They see what the head sees: the stored features of the recipe's extractor, or the records; where a whole network
    was trained on frames, the colors of an 8 x 8 grid.

    Returns:
        {name: accuracy} in ``accuracy``, and ``gap20`` of what was solved by least squares; ``best``; file ->
        ``difference`` to the best, with its interval; ``features``.
        ``skipped`` with the reason where there are too many classes to solve for in seconds.
    """
    many = len(table.labels) > MOST_CLASSES
    if many and table.records is None:
        return {"skipped": f"{len(table.labels)} classes are too many for a classifier of seconds"}
    first = next(iter(scored.values()))
    count = len(prepared.train)
    most = max(200, min(MOST, TARGETS / len(table.labels)))
    many = many or (table.records is not None and count > most)
    rows = np.linspace(0, count - 1, min(count, int(LARGEST / len(table.labels) if many else most))).astype(int)
    train = _train_features(prepared, rows)
    tested, known = _scored_features(plan, table, extractor, chosen, first, train)
    if not known.any():
        return {"skipped": "no scored clip could be read again"}
    if many:
        found = measure_squares(train, tested, table.multi_label)
    else:
        held = held_out(table, [prepared.clips[i] for i in rows])
        found = measure_baselines(train, held, tested, table.multi_label)
    best = max(found, key=lambda b: b.accuracy)
    return {
        "accuracy": {b.name: b.accuracy for b in found},
        "gap20": {b.name: b.gap20 for b in found if b.gap20 is not None},
        "best": best.name,
        "clips": int(known.sum()),
        "features": "colors of an 8 x 8 grid" if plan.training.mode == "finetune" else "the extractor's",
        "difference": {name: _difference(s, best, known) for name, s in scored.items()},
    }


def _difference(scored: Scored, best: Baseline, known: np.ndarray) -> dict[str, float | None]:
    groups = [group for group, own in zip(scored.groups, known, strict=True) if own]
    return paired_bootstrap(scored.correct[known], best.correct, groups)._asdict()


def _train_features(prepared: Prepared, rows: np.ndarray) -> FeatureClips:
    clips = prepared.train
    if isinstance(clips, RecordClips):
        names = [str(clips.records.ids[clips.rows[i]]) for i in rows]
        targets = np.zeros((len(rows), clips.classes), np.float32)
        for place, row in enumerate(rows):
            targets[place, list(clips.records.labels[clips.rows[row]])] = 1
        return FeatureClips(lambda i: clips.frames_of(int(rows[i])), targets, names, np.ones(1, np.float32))
    if isinstance(clips, FrameClips):
        names, targets = [clips.names[i] for i in rows], clips.targets[rows]
        look = pixel_features(lambda i: clips.read(int(rows[i])))
        with bar("baselines") as move:
            kept = []
            for i in range(len(rows)):
                kept.append(look(i))
                move(i + 1, len(rows))
        return FeatureClips(kept.__getitem__, targets, names, np.ones(kept[0].shape[1], np.float32), clips.max_frames)
    assert isinstance(clips, FeatureClips)
    return clips.some(rows)


def _scored_features(
    plan: Recipe, table: ClipTable, extractor: FrameExtractor, chosen: ClipTable, scored: Scored, train: FeatureClips
) -> tuple[FeatureClips, np.ndarray]:
    """Features of the clips that were scored, and which of those (N,) they are of."""
    wanted = chosen.with_clips(scored.clips)
    found: list[np.ndarray | None]
    if table.records is not None:
        keys = tuple(widths_of(plan, table))
        every = -int(-len(wanted) * len(table.labels) // LARGEST)  # of very many, as many as bounded memory holds
        found = [
            _record(table, clip, keys, plan.sampling.max_frames) if place % every == 0 else None
            for place, clip in enumerate(wanted)
        ]
    elif plan.training.mode == "frozen":
        with bar("features") as move:
            stored = extract(
                wanted, graph_bytes(extractor), plan.sampling, extractor.input_size, cache_folder("features"),
                progress=move,
            )  # fmt: skip
        found = [stored.store.read(key).features if key else None for key in stored.keys]
    else:

        def read(clip: Clip) -> np.ndarray:
            size = extractor.input_size
            seen = read_clip(clip.path, plan.sampling, size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps)
            return pixel_features(lambda _: seen.frames)(0)

        found = [None if isinstance(got, VidletError) else got for _, got in read_many(list(wanted), read)]
    known = np.array([item is not None for item in found])
    items = [item for item in found if item is not None]
    clips = [clip for clip, own in zip(wanted, known, strict=True) if own]
    targets = targets_of(clips, table.labels)
    return FeatureClips(
        items.__getitem__, targets, [str(clip.path) for clip in clips], train.spread, train.max_frames
    ), known


def _record(table: ClipTable, clip: Clip, keys: tuple[str, ...], most: int) -> np.ndarray | None:
    assert table.records is not None
    if clip.row is None:
        return None
    return dequantize(frame_codes(table.records.read(clip.row), keys))[:most]
