"""Many labels a clip: GAP@20, Hit@1, PERR and MAP, as the YouTube-8M challenge defines them.

Scores and labels are (N, K), labels 0 or 1. The functions take whole matrices; ``MultiLabelScores`` takes them in
chunks and keeps only the ``top_k`` highest scores of each clip: 180 MB for a million clips of 3862 classes (float32
scores), not 15 GB. MAP needs no more, since by its definition only the pairs among those 20 count.

Equal scores of different clips share the precision at the last of them, so that the order of clips never matters;
equal scores of one clip rank in class order. (The challenge's own code shuffles ties; untied figures are the same.)

Source: Abu-El-Haija et al. 2016, YouTube-8M, arXiv:1609.08675, and the challenge's evaluation page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .bootstrap import Groups, group_indices

TOP_K = 20
SPARE = 4  # times as many scores as are wanted may be sorted


def gap(scores: ArrayLike, labels: ArrayLike, top_k: int = TOP_K) -> float:
    """Global average precision: the ``top_k`` scores of each clip, pooled, as one ranked list; NaN without positives.

    The sum over hits of the precision down to them, over all positives, those outside the top included.
    """
    return _all(scores, labels, top_k).gap()


def gap_samples(
    scores: ArrayLike, labels: ArrayLike, groups: Groups, top_k: int = TOP_K, resamples: int = 500, seed: int = 0
) -> NDArray[np.float64]:
    """``gap`` of ``resamples`` draws of whole groups of clips with replacement (R,); a draw without positives has 0.

    The same seed draws the same groups, so that two models' samples of the same clips can be subtracted in pairs.
    """
    table, truth = _checked(scores, labels)
    if not len(table):
        return np.empty(0)
    order = highest(table, min(top_k, table.shape[1]))  # (N, depth)
    flat = np.take_along_axis(table, order, axis=1).ravel()
    rank = np.argsort(-flat, kind="stable")
    hits = np.take_along_axis(truth, order, axis=1).ravel()[rank]
    owner = np.repeat(np.arange(len(table)), order.shape[1])[rank]  # whose score it is
    last = np.flatnonzero(np.append(np.diff(flat[rank]) != 0, True))  # of each group of equal scores
    member, positives = group_indices(groups, len(table)), truth.sum(axis=1)
    count, rng, found = int(member.max()) + 1, np.random.default_rng(seed), np.zeros(resamples)
    for number in range(resamples):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[member]  # how often a clip is drawn: (N,)
        weights = times[owner]
        right, seen = np.cumsum(weights * hits)[last], np.cumsum(weights)[last]
        precision = right / np.maximum(seen, 1)
        found[number] = (np.diff(right, prepend=0) * precision).sum() / max(1, int(times @ positives))
    return found


def hit_at_1(scores: ArrayLike, labels: ArrayLike) -> float:
    """Fraction of clips whose highest score is that of one of their labels."""
    return _all(scores, labels, 1).hit_at_1()


def perr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Precision at equal recall: of a clip with g labels, the share of labels among its g highest scores above 0.

    The mean over clips that have labels.
    """
    return _all(scores, labels, 1).perr()


def mean_average_precision(scores: ArrayLike, labels: ArrayLike, top_k: int = TOP_K) -> float:
    """Mean over all K classes of the average precision among the clips in whose ``top_k`` the class stands.

    A class is divided by all its positives; one without positives counts as 0.
    """
    return _all(scores, labels, top_k).mean_average_precision()


def multilabel_summary(scores: ArrayLike, labels: ArrayLike) -> dict[str, Any]:
    """{"clips", "gap20", "hit1", "perr", "map"}; what has no value is None."""
    return _all(scores, labels, TOP_K).summary()


@dataclass
class _Top:
    """The highest scores of some clips: each (n, top_k)."""

    scores: NDArray[Any]
    classes: NDArray[np.int32]
    hits: NDArray[np.bool_]


@dataclass
class MultiLabelScores:
    """The four figures of clips that come in chunks; memory is that of ``top_k`` scores a clip (9 bytes each).

    >>> found = MultiLabelScores()
    >>> found.add([[0.9, 0.2]], [[1, 0]]).summary()["gap20"]
    1.0
    """

    top_k: int = TOP_K
    clips: int = 0
    _tops: list[_Top] = field(default_factory=list)
    _positives: NDArray[np.int64] | None = None  # of each class: (K,)
    _first_hits: int = 0
    _perr: float = 0.0
    _labelled: int = 0  # clips that have labels

    def add(self, scores: ArrayLike, labels: ArrayLike) -> MultiLabelScores:
        """Count scores (n, K) of clips with labels (n, K); returns itself.

        Raises:
            DataError: shapes that differ or another K than before, a score that is not finite, a label that is not 0
                or 1.
        """
        table, truth = _checked(scores, labels)
        if self._positives is None:
            self._positives = np.zeros(table.shape[1], np.int64)
        if len(self._positives) != table.shape[1]:
            raise DataError(f"scores of {table.shape[1]} classes after scores of {len(self._positives)}")
        if not len(table):
            return self
        labels_of = truth.sum(axis=1)  # (n,)
        order = highest(table, max(self.top_k, int(labels_of.max()), 1))  # (n, depth)
        best = np.take_along_axis(table, order, axis=1)
        hits = np.take_along_axis(truth, order, axis=1)
        kept = slice(0, self.top_k)
        self._tops.append(_Top(best[:, kept].copy(), order[:, kept].astype(np.int32), hits[:, kept].copy()))
        self._positives += truth.sum(axis=0)
        self._first_hits += int(hits[:, 0].sum())
        among = np.arange(hits.shape[1]) < labels_of[:, None]  # (n, depth): the g highest of g labels
        found = (hits & among & (best > 0)).sum(axis=1)
        self._perr += float((found / np.maximum(labels_of, 1)).sum())
        self._labelled += int((labels_of > 0).sum())
        self.clips += len(table)
        return self

    def merge(self, other: MultiLabelScores) -> MultiLabelScores:
        """Count what ``other`` counted too, as of another process; returns itself."""
        if other._positives is None:
            return self
        if other.top_k != self.top_k:
            raise DataError(f"scores cut at the {other.top_k} highest do not join those cut at {self.top_k}")
        mine = np.zeros_like(other._positives) if self._positives is None else self._positives
        if len(mine) != len(other._positives):
            raise DataError(f"scores of {len(other._positives)} classes after scores of {len(mine)}")
        self._positives = mine + other._positives
        self._tops = [*self._tops, *other._tops]
        self._first_hits, self._perr = self._first_hits + other._first_hits, self._perr + other._perr
        self._labelled, self.clips = self._labelled + other._labelled, self.clips + other.clips
        return self

    def gap(self) -> float:
        """See the function ``gap``."""
        total = 0 if self._positives is None else int(self._positives.sum())
        if not total:
            return float("nan")
        scores = np.concatenate([top.scores.ravel() for top in self._tops])
        hits = np.concatenate([top.hits.ravel() for top in self._tops])
        return _precision_sum(scores, hits) / total

    def hit_at_1(self) -> float:
        """See the function ``hit_at_1``."""
        return self._first_hits / self.clips if self.clips else float("nan")

    def perr(self) -> float:
        """See the function ``perr``."""
        return self._perr / self._labelled if self._labelled else float("nan")

    def mean_average_precision(self) -> float:
        """See the function ``mean_average_precision``."""
        return float(self.average_precisions().mean()) if self._positives is not None else float("nan")

    def average_precisions(self) -> NDArray[np.float64]:
        """The average precision of each class: (K,)."""
        if self._positives is None:
            return np.empty(0)
        found = np.zeros(len(self._positives))
        if self._tops:
            classes = np.concatenate([top.classes.ravel() for top in self._tops])
            order = np.argsort(classes, kind="stable")
            bounds = np.searchsorted(classes[order], np.arange(len(found) + 1))
            del classes
            scores = np.concatenate([top.scores.ravel() for top in self._tops])[order]
            hits = np.concatenate([top.hits.ravel() for top in self._tops])[order]
            for name in np.flatnonzero(self._positives):
                own = slice(bounds[name], bounds[name + 1])
                found[name] = _precision_sum(scores[own], hits[own])
        return found / np.maximum(self._positives, 1)

    def summary(self) -> dict[str, Any]:
        """{"clips", "gap20", "hit1", "perr", "map"} (gapN for another ``top_k``); what has no value is None."""
        figures = {
            f"gap{self.top_k}": self.gap(),
            "hit1": self.hit_at_1(),
            "perr": self.perr(),
            "map": self.mean_average_precision(),
        }
        return {"clips": self.clips} | {name: None if np.isnan(value) else value for name, value in figures.items()}


def _all(scores: ArrayLike, labels: ArrayLike, top_k: int) -> MultiLabelScores:
    if top_k < 1:
        raise DataError(f"top_k must be at least 1, got {top_k}")
    return MultiLabelScores(top_k).add(scores, labels)


def highest(table: NDArray[Any], depth: int) -> NDArray[np.int64]:
    """Classes of the ``depth`` highest scores of each row (n, K), descending, equal ones in class order: (n, depth)."""
    rows, classes = table.shape
    if depth >= classes:
        return np.argsort(-table, axis=1, kind="stable")
    bound = _below(table, depth)  # at least ``depth`` scores of each row reach it: (n, 1)
    row, column = np.divmod(np.flatnonzero(table >= bound), classes)  # ascending rows, then classes
    count = np.bincount(row, minlength=rows)
    if count.max() > SPARE * depth:  # many equal scores: the lowest of them in class order
        bound = np.partition(table, classes - depth, axis=1)[:, classes - depth, None]
        tied = table == bound
        spare = depth - (table > bound).sum(axis=1, keepdims=True)  # how many of the tied ones still fit: (n, 1)
        chosen = (table > bound) | (tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= spare))
        row, column = np.nonzero(chosen)
        count = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)  # in its row
    scores = np.full((rows, count.max()), -np.inf, table.dtype)
    names = np.zeros(scores.shape, np.int64)
    scores[row, place], names[row, place] = table[row, column], column
    return np.take_along_axis(names, np.argsort(-scores, axis=1, kind="stable")[:, :depth], axis=1)


def _below(table: NDArray[Any], depth: int) -> NDArray[Any]:
    """A bound (n, 1) that at least ``depth`` scores of each row reach, and few more: from the highest of groups.

    A fifth of the time of a partition of 3862 classes.
    """
    rows, classes = table.shape
    groups = max(64, 3 * depth)
    width = classes // groups
    peaks = table[:, : groups * width].reshape(rows, width, groups).max(axis=1) if width > 1 else table
    return np.partition(peaks, peaks.shape[1] - depth, axis=1)[:, peaks.shape[1] - depth, None]


def _precision_sum(scores: NDArray[Any], hits: NDArray[np.bool_]) -> float:
    """Sum over hits of the precision of all that scored at least as high."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hit = hits[order]
    counted = np.cumsum(hit, dtype=np.int64)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.empty(0, np.int64)
    hits_here = np.diff(counted[last], prepend=0)  # in each group of equal scores
    return float((hits_here * (counted[last] / (last + 1))).sum())


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    table, truth = np.asarray(scores), np.asarray(labels)
    if table.ndim != 2 or truth.shape != table.shape:
        raise DataError(f"scores and labels must both be (N, K), got {table.shape} and {truth.shape}")
    if table.dtype not in (np.float32, np.float64):
        table = table.astype(np.float64)
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise DataError(f"scores: row {row} holds a value that is not finite")
    if truth.dtype != np.bool_:
        if not ((truth == 0) | (truth == 1)).all():
            row = int(np.flatnonzero(~((truth == 0) | (truth == 1)).all(axis=1))[0])
            raise DataError(f"labels: row {row} holds a value that is neither 0 nor 1")
        truth = truth.astype(bool)
    return table, truth
