"""Labels to look at again: those that models doubt which have not seen the clip, solved on folds in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import extractor_graph
from ..datasets import Clip, ClipTable
from ..errors import DataError
from ..features import extract
from ..files import cache_folder
from ..models import build_extractor
from ..models.extractors import JointCuts
from ..progress import bar, say
from ..recipe import load_recipe
from ..selection import Pool
from ..selection.candidates import Places, probes_of_clips, probes_of_records
from ..selection.choose import choose
from ..selection.measure import measure_probes
from ..training import FeatureClips
from .auto import MOST, TARGETS, held_out
from .clips import labelled_clips
from .doubts import held_out_findings
from .prepare import Prepared, moments, targets_of

RECIPE = "auto"  # whose extractor's features are looked at
FEW_GROUPS = 3


def doubts_in_training(table: ClipTable, prepared: Prepared) -> list[dict[str, Any]]:
    """The training clips whose label is doubted most, by probes of the features that the head is trained on.

    Nothing where clips may have many labels, or where a whole network is trained on frames.
    """
    train = prepared.train
    if not isinstance(train, FeatureClips) or table.multi_label or len(prepared.clips) != len(train):
        return []
    shape = tuple(train.read(0).shape[1:])
    return _doubts(train, prepared.clips, table, {"features": (0, shape)}, records=table.records is not None)


def doubts_in_data(data: str | Path, strict: bool = False) -> list[dict[str, Any]]:
    """The clips of a folder or table whose label is doubted most, by probes of several cuts of MobileNetV2.

    Features that are not stored are computed, once, as ``vidlet train`` does; no split is looked at.

    Raises:
        DataError: no videos, a single class, clips with many labels, or too few clips.
    """
    table = labelled_clips(data, strict=strict)
    if table.multi_label:
        raise DataError(f"{data}: clips have many labels; labels are doubted where a clip has one")
    if len(table.labels) < 2 or len(table) < 2 * len(table.labels):
        raise DataError(f"{data}: {len(table)} clips of {len(table.labels)} classes are too few to doubt a label")
    plan = load_recipe(RECIPE)
    extractor = build_extractor(plan.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    with bar("features") as move:
        found = extract(table, graph, plan.sampling, extractor.input_size, cache_folder("features"), progress=move)
    rows = [i for i, key in enumerate(found.keys) if key]
    if len(rows) < 2 * len(table.labels):
        raise DataError(f"{data}: {len(rows)} of {len(table)} clips can be read, too few to doubt a label")

    def read(i: int) -> np.ndarray:
        return found.store.read(str(found.keys[rows[i]])).features

    clips = [table.clips[i] for i in rows]
    _, std = moments(read(i) for i in range(len(rows)))
    names, targets = [clip.path.name for clip in clips], targets_of(clips, table.labels)
    whole = FeatureClips(read, targets, names, std, plan.sampling.max_frames)
    places = extractor.places() if isinstance(extractor, JointCuts) else {"": (0, extractor.feature_shape)}
    return _doubts(whole, clips, table, places)


def _doubts(
    clips: FeatureClips, of: Sequence[Clip], table: ClipTable, places: Places, records: bool = False
) -> list[dict[str, Any]]:
    most = int(max(200, min(MOST, TARGETS / len(table.labels))))
    rows = np.linspace(0, len(of) - 1, min(len(of), most)).astype(int)
    if len(rows) < len(of):
        say(f"labels: {len(rows)} of {len(of)} clips, evenly spread, are looked at")
        clips = clips.some(rows)
    asked = [of[i] for i in rows]
    folds = held_out(table, [replace(clip, split="") for clip in asked])
    pool = Pool(clips, clips.targets.astype(np.float64), places, folds)
    with bar("labels") as move:
        measured = measure_probes(pool, (probes_of_records if records else probes_of_clips)(places), move)
    return held_out_findings(choose(measured, pool.targets).probabilities, asked, table)["doubts"]
