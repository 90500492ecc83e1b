"""The clips of a search: which may be looked at, how they are judged, and their features, computed once."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..artifact import taps_graph
from ..datasets import (
    Background,
    Clip,
    ClipTable,
    check_trainable,
    group_folds,
    read_table,
    with_background,
    with_splits,
)
from ..errors import DataError
from ..features import Extracted, FeatureStore, extract_taps, holds_any, joined, not_stored, thinned
from ..files import cache_folder
from ..models import FrameExtractor, build_extractor
from ..models.extractor import Taps
from ..models.extractors import split_cuts
from ..progress import Move, bar
from ..recipe import Extractor, Recipe, Sampling
from ..runtime import reference_ms
from ..tasks.clips import labelled_clips
from ..tasks.prepare import graph_bytes, targets_of
from ..video import probe, read_clip
from .needs import enough
from .proxy import Pool
from .space import Space, place_of

FEW_CLIPS = 1000  # with fewer, one validation set is too small to choose by: three folds
FIRST = 8  # clips whose features are computed before it is looked at the clock
TIMED = 3  # clips whose decoding is timed
REFERENCE_S = 0.3  # for which the reference network is timed
REFERENCE_OPERATIONS = 2 * 6 * (2 * 96 * 576 + 9 * 576) * 14 * 14  # benchmarks/speed/make_reference.py
HARDER = 1.6  # times: an operation of a network beside one of the reference (1.2 to 2.3 on a busy machine)
ANOTHER_CORE = 0.6
NO_LIMIT_S = 1e9
VAL_SHARE = 0.25  # much, because it chooses; the chosen is trained once more on all of them

ClipKey = tuple[Path, float | None, float | None]  # its file, and which part of it


@dataclass(frozen=True)
class Judged:
    """The clips of a search. ``pool``: those that it may see; ``folds``: tables of the pool with splits train and val.

    ``test`` is scored once, by the chosen file; it is empty where the data have no test clips. ``background`` is what
    shows none of the classes, if that was given.
    """

    table: ClipTable
    folds: tuple[ClipTable, ...]
    test: ClipTable
    rule: str  # how trials are judged, in words
    background: Background | None = None


def judge(data: str | Path, fold: str | None = None, strict: bool = False, none: str | None = None) -> Judged:
    """Read a table and decide how trials are judged.

    Args:
        none: a folder of videos without any of the classes, or the class that means so.

    Raises:
        DataError: nothing usable is there, or too few groups.
    """
    own_val = fold is None and any(clip.split == "val" for clip in read_table(data))
    table = labelled_clips(data, fold, strict)
    table, background = with_background(table, none) if none is not None else (table, None)
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
    return Judged(table, tuple(folds), table.of_split("test"), rule, background)


class Built(Mapping[str, FrameExtractor]):
    """Place -> its network, which is built when it is first asked for: what is not searched costs nothing."""

    def __init__(self, plans: Sequence[Extractor]) -> None:
        self._plans = {place_of(plan): plan for plan in plans}
        self._built: dict[str, FrameExtractor] = {}

    def __getitem__(self, place: str) -> FrameExtractor:
        if place not in self._built:
            self._built[place] = build_extractor(self._plans[place])
        return self._built[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plans)

    def __len__(self) -> int:
        return len(self._plans)

    def only(self, plans: Sequence[Extractor]) -> Built:
        """The same networks, of these places."""
        some = Built(plans)
        some._built = self._built
        return some


@cache
def sketch(plan: Extractor) -> FrameExtractor:
    """A network without memory for its weights: for counting."""
    with torch.device("meta"):
        return build_extractor(replace(plan, weights="none"))


@cache
def numbers(plan: Extractor) -> int:
    """Parameters of a network: the deeper of two cuts has more."""
    return sum(p.numel() for p in sketch(plan).parameters())


@cache
def operations(plan: Extractor) -> int:
    """Floating point operations of a frame."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        sketch(plan)(torch.zeros(1, *plan.input_size, 3, dtype=torch.uint8, device="meta"))
    return int(counter.get_total_flops())


class Pass:
    """Cuts of one network, whose features are computed in one pass over the clips; graphs are written once."""

    def __init__(self, cuts: Sequence[Extractor], extractors: Mapping[str, FrameExtractor]) -> None:
        self.cuts = cuts
        self._graphs = {plan.cut: graph_bytes(extractors[place_of(plan)]) for plan in cuts}
        self._taps = taps_graph(_taps(cuts, extractors)).SerializeToString(deterministic=True)

    def extract(
        self, table: ClipTable, sampling: Sampling, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Extracted]:
        """Store what is not stored yet of these clips: cut -> where it is."""
        size, root = self.cuts[0].input_size, cache_folder("features")
        return extract_taps(table, self._taps, self._graphs, sampling, size, root, progress=progress)


def in_time(
    space: Space,
    judged: Judged,
    extractors: Mapping[str, FrameExtractor],
    passes: Sequence[Pass],
    left: Callable[[], float],
    check: Callable[[float], None] = lambda seconds: None,
) -> Judged:
    """Store features until the time is over: the clips that then have them, of all classes and folds about alike.

    As many as a choice needs are looked at in any case (``needs.enough``); what is stored is not computed again.

    Args:
        left: seconds that are left for it.
        check: called with the seconds that those clips still take, as soon and as often as that is known; it may raise.
    """
    seen, sampling = judged.folds[0], Sampling("rate", hz=max(space.rates_hz))
    absent = {
        _key(clip) for plan in space.extractors for clip in _missing(sampling, judged, extractors[place_of(plan)])
    }
    turns = _by_turns(judged)
    todo = [clip for clip in turns if _key(clip) in absent]
    least = sum(_key(clip) in absent for clip in turns[: enough(cells_of(judged))])
    done, count = 0, FIRST
    with bar("features") as move:
        while done < len(todo) and (done < least or left() > 0):
            part, before = seen.with_clips(todo[done : done + count]), left()
            for network in passes:
                network.extract(part, sampling, partial(_moved, move, done, len(todo)))
            done += len(part)
            pace = max(1e-6, (before - left()) / len(part))
            if done < least:  # else there is what a choice needs, and a file is made of it
                check(pace * (least - done))
            count = max(1, min(FIRST, least - done), min(done, int(left() / 2 / pace)))  # then the clock is looked at
    late = {_key(clip) for clip in todo[done:]}
    return some_of(judged, [i for i, clip in enumerate(seen) if _key(clip) not in late]) if late else judged


def _moved(move: Move, begun: int, total: int, done: int, _: int) -> None:
    move(begun + done, total)


def some_of(judged: Judged, rows: Sequence[int]) -> Judged:
    """The same with these of the clips that a search may see alone."""
    kept = {_key(judged.folds[0].clips[i]) for i in rows}
    return replace(judged, folds=tuple(f.with_clips(clip for clip in f if _key(clip) in kept) for f in judged.folds))


def _by_turns(judged: Judged) -> list[Clip]:
    """The clips in an order of which every beginning has all classes and folds about alike."""
    taken: Counter[tuple[str, int]] = Counter()
    turns = []
    for cell in cells_of(judged):
        turns.append(taken[cell])
        taken[cell] += 1
    return [judged.folds[0].clips[i] for i in np.argsort(turns, kind="stable")]


def cells_of(judged: Judged) -> list[tuple[str, int]]:
    """The class of each clip, and the number of the fold that holds it out; -1 where none does."""
    out = {_key(clip): number for number, fold in enumerate(judged.folds) for clip in fold.of_split("val")}
    return [(clip.label, out.get(_key(clip), -1)) for clip in judged.folds[0]]


def open_pool(
    space: Space,
    judged: Judged,
    extractors: Mapping[str, FrameExtractor],
    device: str,
    left: Callable[[], float] = lambda: NO_LIMIT_S,
    check: Callable[[float], None] = lambda seconds: None,
) -> tuple[Pool, Judged]:
    """Features of the clips a search may see, for every extractor and rate, and those clips; see ``in_time``."""
    passes = [Pass(cuts, extractors) for cuts in networks_of(space)]
    judged = in_time(space, judged, extractors, passes, left, check)
    seen = judged.folds[0]
    fastest = max(space.rates_hz)
    sampling = Sampling("rate", hz=fastest)
    root = cache_folder("features")
    stores: dict[tuple[str, float], Extracted] = {}
    for network in passes:
        found = network.extract(seen, sampling)
        for plan in network.cuts:
            stores[place_of(plan), fastest] = found[plan.cut]
            for hz in space.rates_hz:
                if hz != fastest:
                    thin = thinned(found[plan.cut], sampling, round(fastest / hz), root)
                    stores[place_of(plan), hz] = thin
    first = next(iter(stores.values()))
    good = [i for i, key in enumerate(first.keys) if key]
    if not good:
        raise DataError(f"{judged.table.root}: no clip could be read; first: {first.failures[0][1]}")
    pool = Pool(
        root,
        {name: extracted.store.setting for name, extracted in stores.items()},
        tuple(str(first.keys[i]) for i in good),
        targets_of([seen.clips[i] for i in good], judged.table.labels),
        tuple(_held_out(table, seen, good) for table in judged.folds),
        device=device,
    )
    return pool, judged


class Pace:
    """How fast this machine is now, and how long clips are: measured once, whichever networks are asked about.

    No network is written for it: a frame's time follows from its operations and from the time of the reference network
    that every installation carries (``runtime.reference_ms``).

    Args:
        stretch: seconds in which this process gets one of a processor; the reference network's time says nothing of it.
    """

    def __init__(self, judged: Judged, stretch: Callable[[], float] = lambda: 1.0) -> None:
        clips = judged.folds[0].clips
        self._stretch = stretch
        self.some = [clips[i] for i in np.linspace(0, len(clips) - 1, min(20, len(clips))).astype(int)]
        self._decode: dict[float, float] = {}

    @cached_property
    def clip_s(self) -> float:
        """Mean length of a clip."""
        return float(np.mean([_seconds(clip) for clip in self.some]))

    @cached_property
    def operation_s(self) -> float:
        """Seconds of an operation, on one thread."""
        return reference_ms(REFERENCE_S) / 1e3 / REFERENCE_OPERATIONS

    @cached_property
    def cores(self) -> float:
        """How many times as fast all cores are as one; they share memory and what else runs."""
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return 1 + ANOTHER_CORE * (count - 1)

    def frame_s(self, cuts: Sequence[Extractor], sampling: Sampling) -> float:
        """Seconds of a frame of some cuts of one network, and of decoding it; to which size decides little in that."""
        return self._alone(cuts, sampling) / self.cores

    def one_s(self, cuts: Sequence[Extractor], sampling: Sampling) -> float:
        """Seconds of a clip that one thread decodes and takes through some cuts of one network."""
        return self.clip_s * sampling.hz * self._alone(cuts, sampling)

    def _alone(self, cuts: Sequence[Extractor], sampling: Sampling) -> float:
        if sampling.hz not in self._decode:
            self._decode[sampling.hz] = _decode_seconds(self.some[:TIMED], cuts[0], sampling)
        deepest = max(cuts, key=numbers)
        return HARDER * self._stretch() * self.operation_s * operations(deepest) + self._decode[sampling.hz]


def extraction_seconds(space: Space, judged: Judged, extractors: Mapping[str, FrameExtractor], pace: Pace) -> float:
    """About how long the features will take that are not stored."""
    sampling = Sampling("rate", hz=max(space.rates_hz))
    total = 0.0
    for cuts in networks_of(space):
        if missing := _most_missing(cuts, sampling, judged, extractors):
            total += pace.clip_s * sampling.hz * missing * pace.frame_s(cuts, sampling)
    return total


def stored(space: Space, judged: Judged, extractors: Mapping[str, FrameExtractor]) -> list[Extractor]:
    """The extractors of a space whose features of all clips are stored."""
    sampling = Sampling("rate", hz=max(space.rates_hz))
    return [
        plan
        for plan in space.extractors
        if _any_stored(plan, sampling) and not _missing(sampling, judged, extractors[place_of(plan)])
    ]


def _any_stored(plan: Extractor, sampling: Sampling) -> bool:
    return holds_any(sampling, plan.input_size, cache_folder("features"))


def _most_missing(
    cuts: Sequence[Extractor], sampling: Sampling, judged: Judged, extractors: Mapping[str, FrameExtractor]
) -> int:
    """The most clips that a cut of a network misses, found without writing more of its graphs than needed."""
    clips, most = len(judged.folds[0]), 0
    if not _any_stored(cuts[0], sampling):
        return clips
    for plan in cuts:
        most = max(most, len(_missing(sampling, judged, extractors[place_of(plan)])))
        if most == clips:
            break
    return most


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


def _key(clip: Clip) -> ClipKey:
    return clip.path, clip.start_s, clip.end_s


def _held_out(table: ClipTable, seen: ClipTable, rows: Sequence[int]) -> np.ndarray:
    """(N,) True where a clip of ``seen`` is a validation clip of a fold's table."""
    val = {_key(clip) for clip in table if clip.split == "val"}
    return np.array([_key(seen.clips[i]) in val for i in rows])
