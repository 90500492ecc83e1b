"""What a file says of clips, kept in the cache: the highest scores of each, so that no file is asked twice."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ..compression.ensemble_search import TopScores, join_tops, top_scores
from ..datasets import ClipTable
from ..files import atomic_path, cache_folder
from ..runtime import Model, graph_sha256
from .clips import CHUNK, answers, batched


def cached_scores(model: Model, clips: ClipTable, strict: bool = False) -> tuple[TopScores, list[int]]:
    """The 50 highest scores that a file gives each clip, and which clips could be read; kept in the cache.

    Kept by the model's graph, the table, and each clip's size and time of change: what was replaced is asked again.
    """
    key = f"{graph_sha256(model.path.read_bytes())[:32]}-{clips.sha256()[:16]}{_as_they_lie(clips)[:16]}"
    path = cache_folder("predictions") / f"{key}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            return TopScores(kept["classes"], kept["scores"]), kept["rows"].tolist()
    place = {id(clip): row for row, clip in enumerate(clips)}
    rows, tops = [], []
    for part in batched(answers(model, clips, strict, []), CHUNK):
        rows += [place[id(one.clip)] for one in part]
        tops.append(top_scores(np.stack([one.scores for one in part])))
    top = join_tops(tops)
    with atomic_path(path) as draft, draft.open("wb") as handle:
        np.savez(handle, classes=top.classes, scores=top.scores, rows=np.array(rows))
    return top, rows


def _as_they_lie(clips: ClipTable) -> str:
    """Hash of the size and the time of change of every file that the clips are in."""
    found = []
    folder = clips.root if clips.root.is_dir() else clips.root.parent
    stored = sorted(folder.iterdir()) if clips.records is not None else []  # records: the files that they are in
    for path in stored or dict.fromkeys(clip.path for clip in clips):
        state = path.stat() if path.exists() else None
        found.append((state.st_size, state.st_mtime_ns) if state else ())
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
