"""From a clip table and a recipe to what the training loop takes: stored features, or decoded frames."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import torch

from ..artifact import extractor_graph
from ..datasets import Clip, ClipTable
from ..errors import DataError, RecipeError, VidletError
from ..features import (
    Extracted,
    FeatureStore,
    Shard,
    damaged_clips,
    extract,
    extract_on_ray,
    merge_stores,
    store_setting,
)
from ..files import cache_folder
from ..models import FrameExtractor, build_extractor
from ..progress import bar, say, working
from ..recipe import Recipe, Sampling, load_recipe, nearest
from ..training import Clips, FeatureClips, FrameClips, keep_memory, training_sampling
from ..training.parts import free_bytes
from ..video import SampledClip, read_clip, read_many
from .clips import unsplit_clips

CALIBRATION_CLIPS = 40
KEEP_BYTES = 6_000_000_000  # of decoded frames that training on frames holds in memory; the rest is decoded again
KEEP_SHARE = 0.3  # of the memory that is free, at most


@dataclass(frozen=True)
class Prepared:
    """Training and validation clips as the loop takes them, and what was learned of the data on the way.

    ``mean`` and ``std`` (C,) are those of stored features over the training clips; None for frames. ``clips`` are those
    of ``train`` in the table, in the same order.
    """

    train: Clips
    val: Clips
    skipped: tuple[tuple[str, str], ...]
    median_s: float  # of a training clip
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    clips: tuple[Clip, ...] = ()

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and deviation, where the clips are stored features: what a head is calibrated with."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)


def targets_of(clips: Sequence[Clip], labels: Sequence[str]) -> np.ndarray:
    """(N, K) float32: 1 where a clip has the label."""
    index = {name: i for i, name in enumerate(labels)}
    targets = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in enumerate(clips):
        targets[row, [index[name] for name in clip.labels]] = 1
    return targets


def one_way_clips(clips: Sequence[Clip], labels: Sequence[str], one_way: Sequence[str]) -> np.ndarray | None:
    """Which clips (N,) have a label that must not be mirrored or reversed; None where no label is named.

    Raises:
        RecipeError: a name that is no label of the data, with the nearest.
    """
    for name in one_way:
        if name not in labels:
            raise RecipeError(f"training.one_way: the data have no label {name!r}{nearest(name, labels)}")
    return np.array([any(name in one_way for name in clip.labels) for clip in clips]) if one_way else None


def extract_features(
    data: str | Path,
    recipe: str | Path,
    out: str | Path | None,
    overrides: Mapping[str, Any] | None,
    storage: str,
    strict: bool,
    shard: str | None = None,
    merge: Sequence[str | Path] | None = None,
    ray: Mapping[str, Any] | None = None,
) -> tuple[ClipTable, Extracted, dict[str, Any]]:
    """The table, its stored features, and the figures that :func:`extract` returns; arguments as there."""
    plan = load_recipe(recipe, overrides)
    part = Shard.parse(shard) if shard is not None else None
    table = unsplit_clips(data, strict)  # all are stored, whatever their splits will be
    everything, table = table, part.of(table) if part else table
    torch.manual_seed(plan.training.seed)  # an extractor without weights is drawn
    extractor = build_extractor(plan.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    root = Path(out) if out else cache_folder("features")
    metrics: dict[str, Any] = {"clips": len(table)}
    say(f"extract {plan.extractor.name} of {data}: {len(table)} clips; writes below {root}")
    if part:
        metrics |= {"shard": str(shard), "clips_in_all": len(everything)}
    if ray is not None:
        setting = store_setting(plan.sampling, extractor.input_size, graph, extractor.feature_shape, storage)
        with bar("features") as move:
            found = extract_on_ray(
                table, graph, plan.sampling, extractor.input_size, root, setting, progress=move, **ray
            )
    elif merge is None:
        with bar("features") as move:
            found = extract(table, graph, plan.sampling, extractor.input_size, root, storage=storage, progress=move)
    else:
        setting = store_setting(plan.sampling, extractor.input_size, graph, extractor.feature_shape, storage)
        with working("merge"):
            merged = merge_stores(table, root, setting, [Path(source) for source in merge])
        damaged = damaged_clips(merged.store, table, merged.keys)
        found = Extracted(merged.store, merged.keys, merged.failures, damaged, computed=0)
        metrics |= {"taken": merged.taken, "twice": merged.twice}
    if strict and found.failures:
        raise DataError(found.failures[0][1])
    metrics |= {
        "computed": found.computed,
        "shape": list(found.store.shape),
        "extractor_sha256": hashlib.sha256(graph).hexdigest(),
    }
    return table, found, metrics


_graphs: WeakKeyDictionary[FrameExtractor, bytes] = WeakKeyDictionary()


def graph_bytes(extractor: FrameExtractor) -> bytes:
    """A frozen extractor's graph, written once: that takes seconds."""
    if extractor not in _graphs:
        _graphs[extractor] = extractor_graph(extractor).SerializeToString(deterministic=True)
    return _graphs[extractor]


def prepare_features(
    plan: Recipe,
    table: ClipTable,
    extractor: FrameExtractor,
    strict: bool,
    stored: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> Prepared:
    """Features of all training and validation clips, from the store or through the runtime.

    Args:
        stored: what is done to the extractor's graph before (8 bits, say).
    """
    one_way_clips((), table.labels, plan.training.one_way)  # a wrong name is told before the work
    graph = graph_bytes(extractor)
    if stored is not None:
        graph = stored(onnx.load_from_string(graph)).SerializeToString(deterministic=True)
    parts: dict[str, list[tuple[Clip, FeatureStore, str]]] = {"train": [], "val": []}
    failures: list[tuple[str, str]] = []
    for splits, sampling in _passes(plan):
        wanted = table.with_clips(clip for clip in table if clip.split in splits)
        with bar("features") as move:
            found = extract(wanted, graph, sampling, extractor.input_size, cache_folder("features"), progress=move)
        failures += found.failures
        for clip, key in zip(wanted, found.keys, strict=True):
            if key:
                parts[clip.split].append((clip, found.store, key))
    _refuse(failures, strict)
    _need_clips(parts, table)
    mean, std = moments(store.read(key).features for _, store, key in parts["train"])

    def clips(split: str) -> FeatureClips:
        rows = parts[split]
        return FeatureClips(
            lambda i: rows[i][1].read(rows[i][2]).features,
            targets_of([clip for clip, _, _ in rows], table.labels),
            [clip.path.name for clip, _, _ in rows],
            std,
            plan.sampling.max_frames,
            one_way_clips([clip for clip, _, _ in rows], table.labels, plan.training.one_way),
        )

    times = (store.read(key).times_s for _, store, key in parts["train"])
    used = tuple(clip for clip, _, _ in parts["train"])
    return Prepared(clips("train"), clips("val"), tuple(failures), median_seconds(times, plan), mean, std, used)


def _passes(plan: Recipe) -> list[tuple[tuple[str, ...], Sampling]]:
    """Which splits are read together, and how: training clips may be read more densely (augmentation "redraw")."""
    dense = training_sampling(plan.sampling, plan.training.augment)
    if dense == plan.sampling:
        return [(("train", "val"), dense)]
    return [(("train",), dense), (("val",), plan.sampling)]


def prepare_frames(plan: Recipe, table: ClipTable, extractor: FrameExtractor, strict: bool) -> Prepared:
    """Decoded frames of all training and validation clips; every clip is read once to know that it can be."""
    keep_memory()
    one_way_clips((), table.labels, plan.training.one_way)
    sampling_of = {split: sampling for splits, sampling in _passes(plan) for split in splits}

    def read(clip: Clip) -> SampledClip:
        sampling = sampling_of[clip.split]
        return read_clip(
            clip.path, sampling, extractor.input_size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps
        )

    wanted = [clip for clip in table if clip.split in ("train", "val")]
    failures: list[tuple[str, str]] = []
    times: list[np.ndarray] = []
    frames: dict[str, list[np.ndarray | None]] = {"train": [], "val": []}
    parts: dict[str, list[tuple[Clip, str]]] = {"train": [], "val": []}
    free = free_bytes("cpu")
    room = KEEP_BYTES if free is None else min(KEEP_BYTES, KEEP_SHARE * free)
    with bar("decode") as move:
        jobs = read_many(wanted, read)
        for done, (clip, result) in enumerate(jobs, 1):
            move(done, len(wanted))
            if isinstance(result, VidletError):
                failures.append((str(clip.path), str(result)))
                continue
            room -= result.frames.nbytes
            frames[clip.split].append(result.frames if room > 0 else None)
            parts[clip.split].append((clip, ""))
            if clip.split == "train":
                times.append(result.times_s)
    _refuse(failures, strict)
    _need_clips(parts, table)

    def clips(split: str) -> FrameClips:
        rows = [clip for clip, _ in parts[split]]

        def frames_of(index: int) -> np.ndarray:
            kept = frames[split][index]
            return read(rows[index]).frames if kept is None else kept

        names = [clip.path.name for clip in rows]
        one_way = one_way_clips(rows, table.labels, plan.training.one_way)
        return FrameClips(frames_of, targets_of(rows, table.labels), names, plan.sampling.max_frames, one_way)

    used = tuple(clip for clip, _ in parts["train"])
    return Prepared(clips("train"), clips("val"), tuple(failures), median_seconds(times, plan), clips=used)


def sample_clips(table: ClipTable, plan: Recipe, most: int = CALIBRATION_CLIPS) -> list[np.ndarray]:
    """Frames of up to ``most`` readable training clips, spread over the table: what steps calibrate on.

    Raises:
        DataError: none of them can be read (their features may be stored, and the videos gone).
    """
    rows = list(table.of_split("train"))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]

    def read(clip: Clip) -> np.ndarray:
        return read_clip(
            clip.path, plan.sampling, plan.extractor.input_size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps
        ).frames[: plan.sampling.max_frames]

    found = [frames for _, frames in read_many(chosen, read)]
    samples = [frames for frames in found if not isinstance(frames, VidletError)]
    if not samples:
        first = f"; first: {found[0]}" if found else ""
        raise DataError(
            f"{table.root}: none of {len(found)} training clips can be read, which files are made with{first}"
        )
    return samples


def moments(features: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel over clips, frames and positions: (C,), (C,)."""
    count, total, squares = 0, 0.0, 0.0
    for item in features:
        x = np.asarray(item, np.float64).reshape(len(item), item.shape[1], -1)  # (T, C, positions)
        count += x.shape[0] * x.shape[2]
        total = total + x.sum((0, 2))
        squares = squares + (x**2).sum((0, 2))
    mean = np.asarray(total) / count
    variance = np.maximum(np.asarray(squares) / count - mean**2, 0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def median_seconds(times: Iterable[np.ndarray], plan: Recipe) -> float:
    """Median duration of training clips, from the times of their sampled frames."""
    if plan.sampling.rule == "rate":
        return float(np.median([len(t) for t in times])) / plan.sampling.hz
    return float(np.median([(t[-1] - t[0]) * len(t) / max(1, len(t) - 1) for t in times])) or 1.0


def _refuse(failures: Sequence[tuple[str, str]], strict: bool) -> None:
    if failures and strict:
        raise DataError(failures[0][1])
    if failures:
        say(f"skipped {len(failures)} clips that cannot be read; first: {failures[0][1]}")


def _need_clips(parts: Mapping[str, Sequence[Any]], table: ClipTable) -> None:
    for split, rows in parts.items():
        if not rows:
            raise DataError(f"{table.root}: no readable clip in split {split}")
