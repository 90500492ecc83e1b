"""Extract features once, through the runtime: what training sees is what the device sees.

Decoding (two threads) and inference overlap; frames of several short clips share a batch. Finished clips are stored in
parts every few seconds, so that killing the process loses seconds, and running it again does the rest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Clip, ClipTable
from ..errors import DataError, VidletError
from ..recipe import Sampling
from ..video import RESIZE, SampledClip, read_clip, read_many
from .store import ClipFeatures, FeatureStore, clip_key

BATCH_FRAMES = 8  # frames of one call of the extractor: more of them do not fit the caches, and cost memory
PART_SECONDS = 5.0
PART_CLIPS = 512


@dataclass(frozen=True)
class Extracted:
    """A store that holds every readable clip of a table: row i of ``keys`` is clip i, None where it failed."""

    store: FeatureStore
    keys: list[str | None]
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
        threads: of the runtime; 0 leaves the choice to it.
        progress: called with (clips done, clips in all).
    """
    session = _session(extractor, threads)
    shape = session.run(None, {"frames": np.zeros((1, *size, 3), np.uint8)})[0].shape[1:]
    store = FeatureStore(
        root,
        {
            "sampling": {k: v for k, v in vars(sampling).items() if k in _RELEVANT[sampling.rule]},
            "resize": {"rule": RESIZE["rule"], "size": list(size)},
            "extractor_sha256": hashlib.sha256(extractor).hexdigest(),
            "shape": list(shape),
            "storage": storage,
        },
    )
    keys: list[str | None] = [None] * len(table)
    failures: list[tuple[str, str]] = []
    todo: dict[str, Clip] = {}
    for index, clip in enumerate(table):
        try:
            keys[index] = key = clip_key(clip)
        except DataError as error:
            failures.append((str(clip.path), str(error)))
            continue
        if key not in store:
            todo.setdefault(key, clip)
    done = len(table) - len(todo)
    failed: set[str] = set()
    pending: list[tuple[ClipFeatures, str]] = []
    flushed = time.monotonic()

    def read(job: tuple[str, Clip]) -> SampledClip:
        clip = job[1]
        return read_clip(clip.path, sampling, size, start_s=clip.start_s, end_s=clip.end_s)

    def decoded() -> Iterator[tuple[tuple[str, Clip], SampledClip]]:
        nonlocal done
        for job, result in read_many(list(todo.items()), read):
            if isinstance(result, VidletError):
                failures.append((str(job[1].path), str(result)))
                failed.add(job[0])
                done += 1
            else:
                yield job, result

    try:
        for (key, clip), sampled, features in _in_batches(decoded(), session):
            pending.append((ClipFeatures(key, features, sampled.times_s, sampled.damage), str(clip.path)))
            done += 1
            if progress:
                progress(done, len(table))
            if len(pending) >= PART_CLIPS or time.monotonic() - flushed > PART_SECONDS:
                store.write(pending)
                pending, flushed = [], time.monotonic()
    finally:
        store.write(pending)
    if progress:
        progress(len(table), len(table))
    keys = [None if key in failed else key for key in keys]
    damaged = [
        (str(clip.path), damage)
        for clip, key in zip(table, keys, strict=True)
        if key and (damage := store.read(key).damage)
    ]
    return Extracted(store, keys, failures, damaged, computed=len(todo) - len(failed))


_RELEVANT = {"rate": ("rule", "hz"), "uniform": ("rule", "frames")}


def _in_batches(
    clips: Iterator[tuple[tuple[str, Clip], SampledClip]], session: Any
) -> Iterator[tuple[tuple[str, Clip], SampledClip, np.ndarray]]:
    """Run the extractor over frames of several clips at a time; a long clip is cut into several calls."""
    waiting: list[tuple[tuple[str, Clip], SampledClip]] = []
    frames = 0
    for item in clips:
        waiting.append(item)
        frames += len(item[1].frames)
        if frames >= BATCH_FRAMES:
            yield from _run(waiting, session)
            waiting, frames = [], 0
    yield from _run(waiting, session)


def _run(
    clips: list[tuple[tuple[str, Clip], SampledClip]], session: Any
) -> Iterator[tuple[tuple[str, Clip], SampledClip, np.ndarray]]:
    if not clips:
        return
    frames = np.concatenate([sampled.frames for _, sampled in clips])
    features = np.concatenate(
        [
            session.run(["features"], {"frames": frames[i : i + BATCH_FRAMES]})[0]
            for i in range(0, len(frames), BATCH_FRAMES)
        ]
    )
    begin = 0
    for job, sampled in clips:
        end = begin + len(sampled.frames)
        yield job, sampled, features[begin:end]
        begin = end


def _session(graph: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
