"""The best ensemble that fits a byte limit: which models, and with which weights their probabilities are averaged.

Every model's validation predictions are kept once, the ``depth`` highest of each clip; an ensemble is then a sum of
cached numbers. Up to 20 models all subsets within the limit are tried, beyond that models are added one by one, each
as often as it helps, from many starts. What is searched is GAP@20. Pure NumPy.

Source: Caruana et al. 2004, Ensemble selection from libraries of models (greedy, with replacement); Liu and Liu 2018
(all subsets under a byte limit).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

TOP_K = 20
EXHAUSTIVE = 20  # models of which all subsets are tried
STARTS = 40  # of greedy paths, beyond that
_SLACKS = (0.0, 3e-4, 3e-3)  # of GAP, within which a smaller model is taken
_FACTORS = (0.0, 0.5, 0.8, 1.25, 2.0)  # by which a weight is changed to see whether that is better


@dataclass(frozen=True)
class TopScores:
    """The highest probabilities of each clip: classes and scores (N, depth); all others count as 0."""

    classes: NDArray[np.int32]
    scores: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.classes.nbytes + self.scores.nbytes


@dataclass(frozen=True)
class Candidate:
    """A model: its name, the bytes it adds to a file, and its predictions of the validation clips."""

    name: str
    bytes: int
    top: TopScores


@dataclass(frozen=True)
class Chosen:
    """An ensemble: members with weights that sum to 1, their bytes, and GAP@20 on the validation clips."""

    members: tuple[str, ...]
    weights: tuple[float, ...]
    bytes: int
    gap: float


def top_scores(scores: NDArray[np.floating], depth: int = 50) -> TopScores:
    """Cache the ``depth`` highest probabilities of (N, K)."""
    depth = min(depth, scores.shape[1])
    classes = np.argpartition(scores, scores.shape[1] - depth, axis=1)[:, scores.shape[1] - depth :]
    return TopScores(classes.astype(np.int32), np.take_along_axis(scores, classes, 1).astype(np.float32))


def join_tops(parts: Sequence[TopScores]) -> TopScores:
    """Predictions of chunks of clips, one after the other."""
    return TopScores(np.concatenate([p.classes for p in parts]), np.concatenate([p.scores for p in parts]))


def search_ensemble(
    candidates: Sequence[Candidate],
    labels: Sequence[Sequence[int]],
    limit_bytes: int,
    shared_bytes: int = 0,
    *,
    screen_clips: int = 1000,
    keep: int = 20,
    exhaustive: int = EXHAUSTIVE,
) -> Chosen:
    """The ensemble of the highest GAP@20 whose members fit, together, into ``limit_bytes``.

    All subsets (or greedy paths, beyond ``exhaustive`` models) are judged at equal weights on up to
    ``screen_clips`` clips, each with the 40 likeliest classes; the best ``keep`` on all clips, and their weights are
    then refined, never below 0. Single models are among the subsets: the result is at least as good as the best that
    fits.

    Args:
        labels: class indices of each clip.
        shared_bytes: what the file takes besides its members.

    Raises:
        DataError: no candidates, predictions of other numbers of clips, or none that fits; says how much is missing.
    """
    _check(candidates, labels, limit_bytes - shared_bytes)
    room = limit_bytes - shared_bytes
    whole = _Pool(candidates, labels)
    part = whole.some(min(len(labels), screen_clips))
    sizes = np.array([candidate.bytes for candidate in candidates], np.int64)
    found = _subsets(part, sizes, room) if len(candidates) <= exhaustive else _greedy_paths(part, sizes, room)
    ranked = sorted(found, key=lambda item: -item[0])
    tried = [weights for _, weights in ranked[:keep]]
    tried += [_single(i, len(sizes)) for i in np.flatnonzero(sizes <= room).tolist()]
    judged = sorted(((whole.gap(weights), tuple(weights)) for weights in tried), reverse=True)[:keep]
    refined = [_refined(whole, np.array(weights), value) for value, weights in judged]
    best = max(refined, key=lambda item: (round(item[0], 5), -int(sizes[item[1] > 0].sum())))  # of equals the smallest
    value, weights = best
    members = np.flatnonzero(weights).tolist()
    return Chosen(
        tuple(candidates[i].name for i in members),
        tuple(float(w) for w in weights[members] / weights.sum()),
        int(sizes[members].sum()) + shared_bytes,
        value,
    )


def best_weights(candidates: Sequence[Candidate], labels: Sequence[Sequence[int]]) -> Chosen:
    """All of these models together, with the weights that make their GAP@20 highest; one whose weight is 0 leaves."""
    pool = _Pool(candidates, labels)
    equal = np.full(len(candidates), 1 / len(candidates))
    value, weights = _refined(pool, equal, pool.gap(equal))
    size = sum(candidate.bytes for candidate in candidates)
    return Chosen(tuple(one.name for one in candidates), tuple(map(float, weights / weights.sum())), size, value)


def weighted_gap(candidates: Sequence[Candidate], weights: Sequence[float], labels: Sequence[Sequence[int]]) -> float:
    """GAP@20 of the weighted mean of these models' cached predictions."""
    return _Pool(candidates, labels).gap(np.array(weights, np.float64))


class _Pool:
    """Predictions of all models for every (clip, class) that any of them names: (M, N, U), and which are labels."""

    def __init__(self, candidates: Sequence[Candidate], labels: Sequence[Sequence[int]]) -> None:
        clips = len(labels)
        classes = np.concatenate([candidate.top.classes for candidate in candidates], axis=1)  # (N, M depth)
        ordered = np.sort(classes, axis=1)
        fresh = np.concatenate([np.ones((clips, 1), bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
        place = fresh.cumsum(axis=1) - 1  # of each class among its clip's own
        width = int(place.max()) + 1
        union = np.full((clips, width), -1, np.int64)
        rows = np.repeat(np.arange(clips)[:, None], ordered.shape[1], axis=1)
        union[rows, place] = ordered
        self.scores = np.zeros((len(candidates), clips, width), np.float32)
        for model, candidate in enumerate(candidates):
            for row in range(clips):  # classes of a row ascend, except the padding behind them
                used = int(place[row, -1]) + 1
                at = np.searchsorted(union[row, :used], candidate.top.classes[row])
                self.scores[model, row, at] = candidate.top.scores[row]
        self.hits = np.zeros((clips, width), bool)
        for row, own in enumerate(labels):
            self.hits[row] = np.isin(union[row], list(own))
        self.positives = sum(len(set(own)) for own in labels)
        self.outside = self.positives - int(self.hits.sum())  # labels that no model names

    def some(self, clips: int, width: int = 40) -> _Pool:
        """Every n-th clip, and of each its ``width`` classes of the highest mean score: to judge many ensembles."""
        rows = np.linspace(0, self.hits.shape[0] - 1, clips).astype(int)
        part = object.__new__(_Pool)
        scores, hits = self.scores[:, rows], self.hits[rows]
        width = min(width, scores.shape[2])
        best = np.argsort(-scores.mean(axis=0), axis=1, kind="stable")[:, :width]  # (n, width)
        part.scores = np.ascontiguousarray(np.take_along_axis(scores, best[None], 2))
        part.hits = np.take_along_axis(hits, best, 1)
        part.positives = int(hits.sum()) + round(self.outside * clips / self.hits.shape[0])
        return part

    def gap(self, weights: NDArray[np.float64]) -> float:
        """GAP@20 of the weighted mean."""
        members = np.flatnonzero(weights)
        share = (weights[members] / weights.sum()).astype(np.float32)
        return self.gap_of(np.tensordot(share, self.scores[members], axes=1))

    def gap_of(self, scores: NDArray[np.float32]) -> float:
        """GAP@20 of scores (N, U)."""
        depth, width = min(TOP_K, scores.shape[1]), scores.shape[1]
        best = np.argpartition(scores, width - depth, axis=1)[:, width - depth :]
        ranked = np.take_along_axis(scores, best, 1).ravel()
        order = np.argsort(-ranked)
        hits = np.take_along_axis(self.hits, best, 1).ravel()[order]
        places = np.flatnonzero(hits)
        return float((np.arange(1, len(places) + 1) / (places + 1)).sum()) / max(1, self.positives)


def _subsets(pool: _Pool, sizes: NDArray[np.int64], room: int) -> list[tuple[float, NDArray[np.float64]]]:
    """Every subset that fits, at equal weights, with its GAP."""
    found: list[tuple[float, NDArray[np.float64]]] = []

    def grow(start: int, total: NDArray[np.float32], weights: NDArray[np.float64], left: int) -> None:
        for model in range(start, len(sizes)):
            if sizes[model] > left:
                continue
            joined = total + pool.scores[model]  # the sum ranks as the mean does
            own = weights.copy()
            own[model] = 1
            found.append((pool.gap_of(joined), own))
            grow(model + 1, joined, own, left - int(sizes[model]))

    grow(0, np.zeros_like(pool.scores[0]), np.zeros(len(sizes)), room)
    return found


def _greedy_paths(pool: _Pool, sizes: NDArray[np.int64], room: int) -> list[tuple[float, NDArray[np.float64]]]:
    """What greedy paths from nothing, and from each of the models that are small or good, pass through.

    One path alone ends early where its first member is a large file of a model that comes in smaller ones, too.
    """
    fitting = np.flatnonzero(sizes <= room)
    good = sorted(fitting.tolist(), key=lambda model: -pool.gap_of(pool.scores[model]))[: STARTS // 2]
    small = sorted(fitting.tolist(), key=lambda model: int(sizes[model]))[: STARTS // 2]
    found = [step for slack in _SLACKS for step in _greedy_path(pool, sizes, room, None, slack)]
    for model in dict.fromkeys([*good, *small]):
        found += _greedy_path(pool, sizes, room, model, _SLACKS[1])
    return found


def _greedy_path(
    pool: _Pool, sizes: NDArray[np.int64], room: int, start: int | None, slack: float
) -> list[tuple[float, NDArray[np.float64]]]:
    """Add, again and again, the model that helps most, of those within ``slack`` of it the one of the fewest bytes.

    One that is in costs no more. Ends after 3 in vain.
    """
    weights = np.zeros(len(sizes)) if start is None else _single(start, len(sizes))
    total = np.zeros_like(pool.scores[0]) if start is None else pool.scores[start].copy()
    found: list[tuple[float, NDArray[np.float64]]] = []
    best, idle = 0.0, 0
    while idle < 3:
        left = room - int(sizes[weights > 0].sum())
        able = [model for model in range(len(sizes)) if weights[model] or sizes[model] <= left]
        values = {model: pool.gap_of(total + pool.scores[model]) for model in able}
        near = [model for model in able if values[model] >= max(values.values()) - slack]
        model = min(near, key=lambda model: (0 if weights[model] else int(sizes[model]), -values[model]))
        value = values[model]
        weights[model] += 1
        total = total + pool.scores[model]
        found.append((value, weights.copy()))
        best, idle = (value, 0) if value > best else (best, idle + 1)
    return found


def _refined(pool: _Pool, weights: NDArray[np.float64], value: float) -> tuple[float, NDArray[np.float64]]:
    """Change one weight at a time as long as GAP rises; a member whose weight becomes 0 leaves."""
    weights = weights / weights.sum()
    for _ in range(10):
        before = value
        for other in _neighbors(weights):
            tried = pool.gap(other)
            if tried > value:
                value, weights = tried, other
        if value == before:
            break
    return value, weights


def _neighbors(weights: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    members = np.flatnonzero(weights)
    if len(members) == 1:
        return
    for model in members:
        for factor in _FACTORS:
            other = weights.copy()
            other[model] *= factor
            yield other / other.sum()


def _single(model: int, count: int) -> NDArray[np.float64]:
    weights = np.zeros(count)
    weights[model] = 1
    return weights


def _check(candidates: Sequence[Candidate], labels: Sequence[Sequence[int]], room: int) -> None:
    if not candidates:
        raise DataError("an ensemble needs candidates, got none")
    for candidate in candidates:
        if len(candidate.top.classes) != len(labels):
            raise DataError(
                f"{candidate.name}: predictions of {len(candidate.top.classes)} clips, labels of {len(labels)}"
            )
    smallest = min(candidates, key=lambda candidate: candidate.bytes)
    if smallest.bytes > room:
        raise DataError(f"no model fits into {room} bytes: the smallest, {smallest.name}, has {smallest.bytes}")
