"""Extract features once, through the runtime: what training sees is what the device sees.

As many clips as there are cores are worked on at once, each decoded and computed by one thread: neither waits for the
other, and no operator for its threads. Finished clips are stored in parts every few seconds, so that killing the
process loses seconds, and running it again does the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Clip, ClipTable
from ..errors import DataError, ModelError, VidletError
from ..recipe import Sampling
from ..runtime import Session, open_session
from ..video import COLORS, RESIZE, read_clip, read_many
from .store import STORAGE, ClipFeatures, FeatureStore, clip_key

BATCH_FRAMES = 2  # frames of one call of the extractor: more of them cost a tenth more, for they do not fit the caches
PART_SECONDS = 5.0
PART_CLIPS = 512
PART_BYTES = 1 << 25  # of features of all cuts: what waits to be stored is in memory, with its copies on the way


@dataclass(frozen=True)
class Extracted:
    """A store that holds every readable clip of a table: row i of ``keys`` is clip i, None where it failed."""

    store: FeatureStore
    keys: Sequence[str | None]
    failures: list[tuple[str, str]]  # path, reason
    damaged: list[tuple[str, str]]
    computed: int  # clips that were not stored before


def extract(
    table: ClipTable,
    extractor: bytes,
    sampling: Sampling,
    size: tuple[int, int],
    root: Path,
    storage: str = "float16",
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Store the features of every clip of ``table`` and return where they are.

    Args:
        extractor: an ONNX graph, ``frames`` uint8 (T, H, W, 3) -> ``features`` float32 (T, ...).
        size: (H, W) of the frames.
        storage: "float16", "float32" or "uint8".
        threads: that work, each on a clip of its own; 0: one a core.
        progress: called with (clips done, clips in all).
    """
    taps = {"features": extractor}
    return extract_taps(table, extractor, taps, sampling, size, root, storage, threads, progress)["features"]


def extract_taps(
    table: ClipTable,
    graph: bytes,
    taps: Mapping[str, bytes],
    sampling: Sampling,
    size: tuple[int, int],
    root: Path,
    storage: str = "float16",
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Extracted]:
    """Fill the stores of several extractors, which are cuts of one network, in one pass over the clips.

    Args:
        graph: ``frames`` -> an output a tap.
        taps: output's name -> the graph of the extractor whose features it equals; the store is that extractor's own,
            so that :func:`extract` with it finds everything done.

    Returns:
        output's name -> what :func:`extract` returns for its extractor.
    """
    threads = threads or _cores()
    session = open_session(graph, "the extractor", max(1, threads // max(1, len(table))))
    outputs = dict(zip(taps, session.run(list(taps), {"frames": np.zeros((1, *size, 3), np.uint8)}), strict=True))
    stores = {
        name: FeatureStore(root, store_setting(sampling, size, extractor, outputs[name].shape[1:], storage))
        for name, extractor in taps.items()
    }
    keys: list[str | None] = [None] * len(table)
    failures: list[tuple[str, str]] = []
    todo: dict[str, Clip] = {}
    for index, clip in enumerate(table):
        try:
            keys[index] = key = clip_key(clip)
        except DataError as error:
            failures.append((str(clip.path), str(error)))
            continue
        if any(key not in store for store in stores.values()):
            todo.setdefault(key, clip)
    failed = {}
    filling = fill_stores(todo, session, stores, sampling, size, threads)
    for done, (key, why) in enumerate(filling, len(table) - len(todo) + 1):
        if why:
            failed[key] = why.removeprefix(f"{todo[key].path}: ")
        if progress:
            progress(done, len(table))
    if progress:
        progress(len(table), len(table))
    told = ((clip.path, failed[key]) for clip, key in zip(table, keys, strict=True) if key in failed)
    failures += [(str(path), f"{path}: {why}") for path, why in told]  # each of several with the same content
    keys = [None if key in failed else key for key in keys]
    found = {}
    for name, store in stores.items():
        damaged = damaged_clips(store, table, keys)
        found[name] = Extracted(store, list(keys), list(failures), damaged, computed=len(todo) - len(failed))
    return found


def fill_stores(
    todo: Mapping[str, Clip],
    session: Session,
    stores: Mapping[str, FeatureStore],
    sampling: Sampling,
    size: tuple[int, int],
    threads: int,
) -> Iterator[tuple[str, str]]:
    """Compute the features of clips, by their keys; each key as it is done, with why it cannot be read, or "".

    Parts are written every few seconds and at the end, however that comes.

    Args:
        stores: output of the session -> where it is stored.
        threads: that work, each on a clip of its own.

    Raises:
        ModelError: the extractor cannot compute; it is not the clip's fault.
    """
    pending: list[tuple[Clip, dict[str, ClipFeatures]]] = []
    flushed, waiting = time.monotonic(), 0
    # Eight bits are scaled by the clip's own numbers, when it is stored.
    kinds = {name: STORAGE[store.storage] if store.storage != "uint8" else None for name, store in stores.items()}

    def work(job: tuple[str, Clip]) -> dict[str, ClipFeatures]:
        key, clip = job
        sampled = read_clip(clip.path, sampling, size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps)
        found = _features(session, list(stores), sampled.frames)
        found = {name: own if (kind := kinds[name]) is None else own.astype(kind) for name, own in found.items()}
        return {name: ClipFeatures(key, values, sampled.times_s, sampled.damage) for name, values in found.items()}

    def flush() -> None:
        for name, store in stores.items():
            store.write((of[name], str(clip.path)) for clip, of in pending if of[name].key not in store)

    try:
        for (key, clip), result in read_many(list(todo.items()), work, threads, 2 * threads):
            if isinstance(result, ModelError):
                raise result
            if isinstance(result, VidletError):
                yield key, str(result)
                continue
            pending.append((clip, result))
            waiting += sum(own.features.nbytes for own in result.values())
            yield key, ""
            if len(pending) >= PART_CLIPS or waiting >= PART_BYTES or time.monotonic() - flushed > PART_SECONDS:
                flush()
                pending, flushed, waiting = [], time.monotonic(), 0
    finally:
        flush()


def damaged_clips(store: FeatureStore, table: ClipTable, keys: Sequence[str | None]) -> list[tuple[str, str]]:
    """Path and damage of the clips that could be read in part only; ``keys`` are those of the table's clips."""
    return [
        (str(clip.path), damage)
        for clip, key in zip(table, keys, strict=True)
        if key and (damage := store.read(key).damage)
    ]


def not_stored(
    table: ClipTable,
    extractor: bytes,
    shape: tuple[int, ...],
    sampling: Sampling,
    size: tuple[int, int],
    root: Path,
    storage: str = "float16",
) -> list[Clip]:
    """The clips whose features :func:`extract` would have to compute; unreadable ones are not among them."""
    store = FeatureStore(root, store_setting(sampling, size, extractor, shape, storage))
    missing = []
    for clip in table:
        try:
            if clip_key(clip) not in store:
                missing.append(clip)
        except DataError:
            continue
    return missing


def holds_any(sampling: Sampling, size: tuple[int, int], root: Path) -> bool:
    """Whether any features of this sampling and this size of pictures are stored, of whichever extractor."""
    wanted = {"sampling": _sampling(sampling), "colors": COLORS, "resize": _resize(size)}
    for spec in root.glob("*/spec.json"):
        with contextlib.suppress(OSError, ValueError):
            setting = json.loads(spec.read_text("utf-8"))
            if wanted == {key: setting.get(key) for key in wanted} and any(spec.parent.glob("part-*.arrow")):
                return True
    return False


def thinned(found: Extracted, sampling: Sampling, factor: int, root: Path) -> Extracted:
    """The store of a rate that is a whole fraction of the one at hand: every ``factor``-th frame, nothing computed.

    Frame k of a clip sampled at hz is the one on display at start + k / hz, so that every second frame at 16 Hz is a
    frame at 8 Hz.

    Args:
        sampling: that of ``found``, by rate.
    """
    assert sampling.rule == "rate", sampling
    slower = replace(sampling, hz=sampling.hz / factor)
    store = FeatureStore(root, {**found.store.setting, "sampling": _sampling(slower)})

    def every(key: str) -> ClipFeatures:
        item = found.store.read(key)
        return ClipFeatures(key, item.features[::factor], item.times_s[::factor], item.damage)

    write_parts(store, found.keys, every)
    return Extracted(store, list(found.keys), list(found.failures), list(found.damaged), computed=0)


def narrowed(
    found: Extracted,
    columns: np.ndarray,
    shape: tuple[int, ...],
    sampling: Sampling,
    size: tuple[int, int],
    extractor: bytes,
    root: Path,
) -> Extracted:
    """The store of an extractor whose features are some of those at hand: numbers of a frame, nothing computed.

    Args:
        found: features (T, D) of several cuts side by side.
        columns: which of the D numbers the extractor gives, in its order.
        shape: of its features.
        extractor: its graph.
    """
    store = FeatureStore(root, store_setting(sampling, size, extractor, shape, found.store.storage))

    def some(key: str) -> ClipFeatures:
        item = found.store.read(key)
        return ClipFeatures(key, item.features[:, columns].reshape(-1, *shape), item.times_s, item.damage)

    write_parts(store, found.keys, some)
    return Extracted(store, list(found.keys), list(found.failures), list(found.damaged), computed=0)


def joined(
    stores: Sequence[FeatureStore],
    keys: Sequence[str],
    shape: tuple[int, ...],
    sampling: Sampling,
    size: tuple[int, int],
    extractor: bytes,
    root: Path,
) -> FeatureStore:
    """The store of an extractor whose features are those of several, side by side, nothing computed.

    Args:
        stores: of the parts, in the extractor's order; ``keys`` are in all of them.
        shape, extractor: its features' and its graph.
    """
    store = FeatureStore(root, store_setting(sampling, size, extractor, shape, stores[0].storage))

    def together(key: str) -> ClipFeatures:
        parts = [own.read(key) for own in stores]
        features = np.concatenate([part.features.reshape(len(part.features), -1) for part in parts], 1)
        return ClipFeatures(key, features.reshape(-1, *shape), parts[0].times_s, parts[0].damage)

    write_parts(store, keys, together)
    return store


def write_parts(store: FeatureStore, keys: Iterable[str | None], make: Callable[[str], ClipFeatures]) -> None:
    """Store what ``make`` gives of clips, by their keys, that are not stored yet; a part of them is in memory."""
    items: list[tuple[ClipFeatures, str]] = []
    waiting = 0
    for key in dict.fromkeys(key for key in keys if key):
        if key in store:
            continue
        items.append((make(key), ""))
        waiting += items[-1][0].features.nbytes
        if len(items) >= PART_CLIPS or waiting >= PART_BYTES:
            store.write(items)
            items, waiting = [], 0
    store.write(items)


def store_setting(
    sampling: Sampling, size: tuple[int, int], extractor: bytes, shape: tuple[int, ...], storage: str
) -> dict[str, Any]:
    """All that determines a feature but its clip."""
    return {
        "sampling": _sampling(sampling),
        "colors": COLORS,
        "resize": _resize(size),
        "extractor_sha256": hashlib.sha256(extractor).hexdigest(),
        "shape": list(shape),
        "storage": storage,
    }


def _resize(size: tuple[int, int]) -> dict[str, Any]:
    return {"rule": RESIZE["rule"], "size": list(size)}


def _sampling(sampling: Sampling) -> dict[str, Any]:
    if sampling.rule == "rate":
        return {"rule": "rate", "hz": float(sampling.hz)}
    return {"rule": "uniform", "frames": sampling.frames}


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _features(session: Session, outputs: list[str], frames: NDArray[np.uint8]) -> dict[str, np.ndarray]:
    """What the extractor says of the frames of a clip, some at a time."""
    parts = [
        session.run(outputs, {"frames": frames[i : i + BATCH_FRAMES]}) for i in range(0, len(frames), BATCH_FRAMES)
    ]
    return {name: np.concatenate(column) for name, column in zip(outputs, zip(*parts, strict=True), strict=True)}
