"""The clips of a search: which may be looked at, how they are judged, and their features, computed once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..artifact import taps_graph
from ..datasets import Clip, ClipTable, check_trainable, group_folds, read_table, with_splits
from ..errors import DataError
from ..features import Extracted, FeatureStore, extract_taps, joined, not_stored, thinned
from ..files import cache_folder
from ..models import FrameExtractor, build_extractor
from ..models.extractor import Taps
from ..models.joint_cuts import split_cuts
from ..progress import bar
from ..recipe import Extractor, Recipe, Sampling
from ..runtime import open_session
from ..tasks.clips import labelled_clips
from ..tasks.prepare import graph_bytes, targets_of
from ..video import probe, read_clip
from .proxy import Pool
from .space import Space, place_of

FEW_CLIPS = 1000  # with fewer, one validation set is too small to choose by: three folds
TIMED = 3  # clips whose decoding is timed
VAL_SHARE = 0.25  # much, because it chooses; the chosen is trained once more on all of them


@dataclass(frozen=True)
class Judged:
    """The clips of a search. ``pool``: those that it may see; ``folds``: tables of the pool with splits train and val.

    ``test`` is scored once, by the chosen file; it is empty where the data have no test clips.
    """

    table: ClipTable
    folds: tuple[ClipTable, ...]
    test: ClipTable
    rule: str  # how trials are judged, in words


def judge(data: str | Path, fold: str | None = None, strict: bool = False) -> Judged:
    """Read a table and decide how trials are judged.

    Raises:
        DataError: nothing usable is there, or too few groups.
    """
    own_val = fold is None and any(clip.split == "val" for clip in read_table(data))
    table = labelled_clips(data, fold, strict)
    check_trainable(table)
    if table.multi_label:
        raise DataError(f"{table.root}: fit takes clips of one label; train takes several")
    seen = table.with_clips(clip for clip in table if clip.split in ("train", "val"))
    if own_val:
        rule = "the table's own validation clips"
        folds = [seen]
    elif len(seen) < FEW_CLIPS:
        parts = group_folds(seen.with_clips(replace(clip, split="") for clip in seen), 3)
        folds = [
            part.with_clips(replace(c, split="val" if c.split == "test" else "train") for c in part) for part in parts
        ]
        rule = "three folds by group of the training clips"
    else:
        unsplit = seen.with_clips(replace(clip, split="train") for clip in seen)
        folds = [with_splits(unsplit, val=VAL_SHARE)]
        rule = f"{VAL_SHARE:.0%} of the training clips, whole groups"
    return Judged(table, tuple(folds), table.of_split("test"), rule)


def build_extractors(space: Space) -> dict[str, FrameExtractor]:
    """The network of each place of the space."""
    return {place_of(plan): build_extractor(plan) for plan in space.extractors}


def open_pool(space: Space, judged: Judged, extractors: Mapping[str, FrameExtractor], device: str) -> Pool:
    """Features of the clips a search may see, for every extractor and rate; what is stored is not computed again."""
    seen = judged.folds[0]
    fastest = max(space.rates_hz)
    sampling = Sampling("rate", hz=fastest)
    root = cache_folder("features")
    stores: dict[tuple[str, float], Extracted] = {}
    for cuts in networks_of(space):
        graphs = {plan.cut: graph_bytes(extractors[place_of(plan)]) for plan in cuts}
        taps = taps_graph(_taps(cuts, extractors)).SerializeToString(deterministic=True)
        with bar("features") as move:
            found = extract_taps(seen, taps, graphs, sampling, cuts[0].input_size, root, progress=move)
        for plan in cuts:
            stores[place_of(plan), fastest] = found[plan.cut]
            for hz in space.rates_hz:
                if hz != fastest:
                    thin = thinned(found[plan.cut], sampling, round(fastest / hz), root)
                    stores[place_of(plan), hz] = thin
    first = next(iter(stores.values()))
    good = [i for i, key in enumerate(first.keys) if key]
    if not good:
        raise DataError(f"{judged.table.root}: no clip could be read; first: {first.failures[0][1]}")
    return Pool(
        root,
        {name: extracted.store.setting for name, extracted in stores.items()},
        tuple(str(first.keys[i]) for i in good),
        targets_of([seen.clips[i] for i in good], judged.table.labels),
        tuple(_held_out(table, seen, good) for table in judged.folds),
        device=device,
    )


def extraction_seconds(space: Space, judged: Judged, extractors: Mapping[str, FrameExtractor]) -> float:
    """About how long the features will take that are not stored: by a few frames and clips and more lengths."""
    sampling = Sampling("rate", hz=max(space.rates_hz))
    total = 0.0
    for cuts in networks_of(space):
        missing = max((_missing(sampling, judged, extractors[place_of(plan)]) for plan in cuts), key=len)
        if missing:
            some = [missing[i] for i in np.linspace(0, len(missing) - 1, min(20, len(missing))).astype(int)]
            frames = float(np.mean([_seconds(clip) for clip in some])) * sampling.hz * len(missing)
            total += frames * (
                _frame_seconds(_taps(cuts, extractors)) + _decode_seconds(some[:TIMED], cuts[0], sampling)
            )
    return total


def stored(space: Space, judged: Judged, extractors: Mapping[str, FrameExtractor]) -> list[Extractor]:
    """The extractors of a space whose features of all clips are stored."""
    sampling = Sampling("rate", hz=max(space.rates_hz))
    return [plan for plan in space.extractors if not _missing(sampling, judged, extractors[place_of(plan)])]


def store_joint(plan: Recipe, pool: Pool, space: Space) -> None:
    """Store the features of a recipe whose extractor is several cuts of one network: they are there, side by side."""
    network, wanted = replace(plan.extractor, cut="", grid=0), split_cuts(plan.extractor.cut)
    own = [e for e in space.extractors if e.cut in wanted and replace(e, cut="", grid=0) == network]
    stores = [FeatureStore(pool.root, pool.stores[place_of(e), plan.sampling.hz]) for e in own]
    extractor = build_extractor(plan.extractor)
    shape, size = extractor.feature_shape, extractor.input_size
    joined(stores, pool.keys, shape, plan.sampling, size, graph_bytes(extractor), pool.root)


def _missing(sampling: Sampling, judged: Judged, extractor: FrameExtractor) -> list[Clip]:
    """The clips of which an extractor's features are still to be computed."""
    shape, size = extractor.feature_shape, extractor.input_size
    return not_stored(judged.folds[0], graph_bytes(extractor), shape, sampling, size, cache_folder("features"))


def networks_of(space: Space) -> list[list[Extractor]]:
    """The extractors of a space, those together that are cuts of one network: one pass computes them."""
    found: dict[Extractor, list[Extractor]] = {}
    for plan in space.extractors:
        found.setdefault(replace(plan, cut="", grid=0), []).append(plan)
    return list(found.values())


def _taps(cuts: Sequence[Extractor], extractors: Mapping[str, FrameExtractor]) -> Taps:
    return Taps({plan.cut: extractors[place_of(plan)] for plan in cuts})


def _seconds(clip: Clip) -> float:
    """Length of a clip; 0 where it cannot be told."""
    try:
        end = clip.end_s if clip.end_s is not None else probe(clip.path).duration_s or 0.0
    except DataError:
        return 0.0
    return end - (clip.start_s or 0.0)


def _frame_seconds(taps: Taps) -> float:
    """Time of a frame, decoding not included: the mean of two calls of eight."""
    session = open_session(taps_graph(taps))
    frames = np.zeros((8, *taps.input_size, 3), np.uint8)
    session.run(None, {"frames": frames})
    times = []
    for _ in range(2):
        started = time.perf_counter()
        session.run(None, {"frames": frames})
        times.append(time.perf_counter() - started)
    return sum(times) / len(times) / len(frames)


def _decode_seconds(clips: Sequence[Clip], plan: Extractor, sampling: Sampling) -> float:
    """Time of decoding a frame and bringing it to size, on a few clips; 0 where none can be read."""
    started, frames = time.perf_counter(), 0
    for clip in clips:
        with suppress(DataError):
            frames += len(
                read_clip(
                    clip.path, sampling, plan.input_size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps
                ).frames
            )
    return (time.perf_counter() - started) / frames if frames else 0.0


def _held_out(table: ClipTable, seen: ClipTable, rows: Sequence[int]) -> np.ndarray:
    """(N,) True where a clip of ``seen`` is a validation clip of a fold's table."""
    val = {(clip.path, clip.start_s, clip.end_s) for clip in table if clip.split == "val"}
    clips = [seen.clips[i] for i in rows]
    return np.array([(clip.path, clip.start_s, clip.end_s) in val for clip in clips])
