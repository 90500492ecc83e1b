"""Late fusion: several model files, each on its own form of the same clips; their scores are averaged.

Source: Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition", whose two-stream network is two of them,
on pictures and on optical flow (Simonyan and Zisserman 2014, arXiv:1406.2199).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, ModelError
from ..metrics import classification_summary
from ..runs import product_of, shipped
from ..runtime import load
from ..tasks import scored_split
from ..tasks.clips import Scored, labelled_clips, score_clips
from ..tasks.flow import stream_name

Stream = tuple[str | Path, str | Path]  # a model file and its clips


def fuse(
    streams: Sequence[Stream],
    weights: Sequence[float] | None = None,
    split: str | None = None,
    fold: str | None = None,
    strict: bool = False,
    threads: int = 1,
    join: str | Path | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Score several model files on their forms of the same clips and average what they say.

        vidlet.fuse([("rgb.onnx", "clips/"), ("flow.onnx", "flow/")])

    Clips are the same where their paths below their tables are, dots aside: so ``vidlet extract --flow`` names them.

    Args:
        streams: a file or a run (its file to ship; with ``join`` its product), and the clips of each.
        weights: of the streams; None: all alike.
        join: a folder for ``model.onnx``, one file of both: the first on clips, the second on their flow, as
            ``vidlet extract --flow`` stored it. It takes ``frames`` and ``flow`` and is scored again.
        split: as in ``evaluate``, and so are ``fold``, ``strict`` and ``threads``.

    Returns:
        The figures of ``evaluate`` for the fused scores, ``bytes`` of all files, and ``streams``: {"model", "data",
        "accuracy", "bytes"} of each alone; with ``join`` also ``joined``, what ``join_files`` returns.

    Raises:
        DataError: fewer than two streams, no clip that all have, or weights that do not fit.
        ModelError: files of other labels, or that cannot be joined.
    """
    share = np.asarray(weights if weights is not None else [1.0] * len(streams), float)
    if len(streams) < 2 or len(share) != len(streams) or share.min() < 0 or share.sum() <= 0:
        raise DataError(f"fuse: {len(streams)} streams and weights {share.tolist()}: at least two, a weight each")
    files = [shipped(path, threads) if join is None else product_of(path) for path, _ in streams]
    models = [load(path, threads=threads) for path in files]
    labels = models[0].labels
    for model in models:
        if model.labels != labels:
            raise ModelError(
                f"{model.path}: its labels are not those of {streams[0][0]}; streams must be trained on the same"
            )
    if join is not None:
        from ..tasks.joint import check_joinable, join_files  # needs more than the runtime

        check_joinable(models, streams[-1][1], join)
    found: list[tuple[dict[str, int], Scored]] = []
    told, tables = [], []
    for model, (_, data) in zip(models, streams, strict=True):
        name, clips = scored_split(labelled_clips(data, fold, strict), split)
        tables.append(clips)
        scored = score_clips(model, clips, strict)
        found.append(({stream_name(clip, clips): i for i, clip in enumerate(scored.clips)}, scored))
        accuracy = float(scored.correct.mean())
        told.append({"model": str(model.path), "data": str(data), "accuracy": accuracy, "bytes": model.bytes})
    first, of = found[0]
    common = [key for key in first if all(key in names for names, _ in found)]
    if not common:
        raise DataError(f"{streams[1][1]}: has no clip of {streams[0][1]} (as {next(iter(first), 'none')})")
    rows = [first[key] for key in common]
    scores = sum(
        weight * scored.scores[[names[key] for key in common]]
        for weight, (names, scored) in zip(share / share.sum(), found, strict=True)
    )
    truth = of.labels[rows]
    for (names, scored), (_, data) in zip(found[1:], streams[1:], strict=True):
        if (scored.labels[[names[key] for key in common]] != truth).any():
            raise DataError(f"{data}: labels differ from those of {streams[0][1]} for clips of the same name")
    groups = [of.groups[row] for row in rows]
    joined = {}
    if join is not None:
        parts = (share / share.sum()).tolist()
        joined = {"joined": join_files(models, streams[1][1], parts, tables[0], join, name, strict, command)}
    return {
        **joined,
        "split": name,
        **classification_summary(np.asarray(scores, np.float32), truth, groups, labels),
        "bytes": sum(stream["bytes"] for stream in told),
        "streams": told,
        "skipped": [{"path": path, "error": error} for _, scored in found for path, error in scored.skipped],
    }
