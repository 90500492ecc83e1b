"""Splits in which train, val and test never share a group, and every class is spread as evenly as groups allow.

A group (a person, a scene, a video of which several clips are cut) is atomic. Groups are dealt out greedily, the
ones that are hardest to place first, each to the part that is least filled with its classes (after scikit-learn's
StratifiedGroupKFold); then single groups are moved while that helps. Everything depends on the table and the seed only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError
from .table import SPLITS, ClipTable

GroupKey = tuple[str, str]
MOVES = 500  # so many groups, the smallest, are tried in other parts


def with_splits(table: ClipTable, seed: int = 0, val: float = 0.1, test: float = 0.2) -> ClipTable:
    """Fill in the splits that a table does not give.

    Without any: train, val and test by group, in these shares of the clips. With train and no val: val is split off
    train. A given test is never touched. Single clips without a split join their group's, else train.

    Raises:
        DataError: there are fewer groups than parts to make.
    """
    if not table.clips:
        return table
    given = {clip.split for clip in table}
    if given == {""}:
        return _deal_all(table, seed, val, test)
    if "" in given:
        table = _complete(table)
    if any(clip.split == "train" for clip in table) and not any(clip.split == "val" for clip in table):
        return _split_off_val(table, seed, val)
    return table


def group_folds(table: ClipTable, folds: int = 5, seed: int = 0, val: float = 0.08) -> list[ClipTable]:
    """K-fold by group: in table i the groups of fold i are test, of the rest some are val, the others train.

    Splits that the table gives are not looked at. Every clip is test exactly once. With ``val`` 0 none are.

    Raises:
        DataError: fewer groups than folds, or too few for a val beside them.
    """
    keys, counts = _group_counts(table)
    least = 2 if folds == 2 and val else 1  # what is not in a fold must be two groups, for train and val
    if folds < 2 or folds * least > len(keys) or len(keys) < (3 if val else 2):
        beside = " with a val beside each" if val else ""
        raise DataError(f"{table.root}: {len(keys)} groups cannot make {folds} folds{beside}")
    part = _fill_poor_parts(_deal(counts, np.full(folds, 1 / folds), seed), counts, folds, least)
    fold_of = dict(zip(keys, part, strict=True))
    return [_told(_hold_out(table, {key for key in keys if fold_of[key] == fold}, seed, val)) for fold in range(folds)]


def leave_one_group_out(table: ClipTable, seed: int = 0, val: float = 0.08) -> list[ClipTable]:
    """One table per group, in the order of their names: that group is test, of the rest some are val (``val`` 0: none).

    Raises:
        DataError: a clip has no group, or there are fewer than three (without val, two).
    """
    if alone := next((clip for clip in table if not clip.group), None):
        raise DataError(f"{alone.path}: has no group; to leave one group out every clip needs one")
    keys = sorted({_group_key(table, index) for index in range(len(table))})
    if len(keys) < (3 if val else 2):
        takes = "with a val beside it takes three" if val else "takes two"
        raise DataError(f"{table.root}: {len(keys)} groups; to leave one out {takes}")
    return [_told(_hold_out(table, {key}, seed, val)) for key in keys]


def _deal_all(table: ClipTable, seed: int, val: float, test: float) -> ClipTable:
    keys, counts = _group_counts(table)
    if len(keys) < 3:
        raise DataError(
            f"{table.root}: all clips are of {len(keys)} group{'s' * (len(keys) > 1)}, and train, val and test take"
            " three; leave the groups empty to split by clip, or give the splits"
        )
    part = _deal(counts, np.array([1 - val - test, val, test]), seed, train_first=True)
    split_of = {key: SPLITS[p] for key, p in zip(keys, part, strict=True)}
    return _with_split_names(table, [split_of[_group_key(table, index)] for index in range(len(table))])


def _split_off_val(table: ClipTable, seed: int, val: float) -> ClipTable:
    train = table.of_split("train")
    keys, counts = _group_counts(train)
    if len(keys) < 2:
        raise DataError(f"{table.root}: all train clips are of one group, so no val can be split off by group")
    part = _deal(counts, np.array([1 - val, val]), seed, train_first=True)
    chosen = {key for key, p in zip(keys, part, strict=True) if p == 1}
    names = [
        "val" if clip.split == "train" and _group_key(table, index) in chosen else clip.split
        for index, clip in enumerate(table)
    ]
    return _with_split_names(table, names)


def _hold_out(table: ClipTable, test: set[GroupKey], seed: int, val: float) -> ClipTable:
    names = ["test" if _group_key(table, index) in test else "train" for index in range(len(table))]
    split = _with_split_names(table, names)
    return _split_off_val(split, seed, val) if val else split


def _told(table: ClipTable) -> ClipTable:
    """The table of a fold, with a note where it tests a single class, which says nothing of telling classes apart."""
    tested = {name for clip in table if clip.split == "test" for name in clip.labels}
    if len(tested) > 1 or len(table.labels) < 2:
        return table
    note = (
        f"This fold tests clips of one class only ({', '.join(tested)}): are groups named for their class? "
        "Groups that are one scene or person need one name in all classes."
    )
    return replace(table, notes=(*table.notes, note))


def _complete(table: ClipTable) -> ClipTable:
    """Give clips without a split the split of their group, and train where the group has none."""
    known = {_group_key(table, index): clip.split for index, clip in enumerate(table) if clip.split}
    names = [clip.split or known.get(_group_key(table, index), "train") for index, clip in enumerate(table)]
    filled = sum(not clip.split for clip in table)
    note = f"{filled} clips without a split were given their group's, or train."
    return replace(_with_split_names(table, names), notes=(*table.notes, note))


def _with_split_names(table: ClipTable, names: Sequence[str]) -> ClipTable:
    return table.with_clips(replace(clip, split=name) for clip, name in zip(table, names, strict=True))


def _group_key(table: ClipTable, index: int) -> GroupKey:
    """What may not be torn apart: the group, or where none is given the file (several clips may be cut from one)."""
    clip = table.clips[index]
    return ("group", clip.group) if clip.group else ("file", str(clip.path))


def _group_counts(table: ClipTable) -> tuple[list[GroupKey], np.ndarray]:
    """Groups in the order of their first clip, and how many clips of each class they have: int (G, K)."""
    row_of: dict[GroupKey, int] = {}
    column_of = {name: column for column, name in enumerate(table.labels)}
    cells = [
        (row_of.setdefault(_group_key(table, index), len(row_of)), column_of[name])
        for index, clip in enumerate(table)
        for name in clip.labels
    ]
    counts = np.zeros((len(row_of), len(table.labels)), dtype=np.int64)
    np.add.at(counts, tuple(np.array(cells).T), 1)
    return list(row_of), counts


def _deal(counts: np.ndarray, shares: np.ndarray, seed: int, train_first: bool = False) -> np.ndarray:
    """Deal groups with class counts (G, K) out to parts with these shares: the part of each group, int (G,).

    No part stays empty. With ``train_first`` no class is absent from part 0 that can be there.
    """
    rng = np.random.default_rng(seed)
    attempts = int(np.clip(800 // len(counts), 1, 8))
    best = min(
        (_deal_once(counts, shares, rng, train_first) for _ in range(attempts)),
        key=lambda part: _badness(_filled(counts, part, len(shares)), counts.sum(axis=0), shares, train_first),
    )
    return _fill_poor_parts(best, counts, len(shares))


def _deal_once(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator, train_first: bool) -> np.ndarray:
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    weight = 1.0 / np.maximum(counts.sum(axis=0), 1) ** 2  # (K,)
    filled = np.zeros((len(shares), counts.shape[1]))
    part = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        cost = ((2 * filled + counts[group]) * counts[group] * weight).sum(axis=1) / shares  # growth of the badness
        near = np.flatnonzero(cost <= cost.min() * (1 + 1e-9))
        part[group] = near[np.argmin(filled[near].sum(axis=1) / shares[near])]
        filled[part[group]] += counts[group]
    total = counts.sum(axis=0)
    badness = _badness(filled, total, shares, train_first)
    for group in order[::-1][:MOVES]:
        for target in range(len(shares)):
            moved = filled.copy()
            moved[part[group]] -= counts[group]
            moved[target] += counts[group]
            if (better := _badness(moved, total, shares, train_first)) < badness:
                part[group], filled, badness = target, moved, better
    return part


def _filled(counts: np.ndarray, part: np.ndarray, parts: int) -> np.ndarray:
    return np.stack([counts[part == p].sum(axis=0) for p in range(parts)]).astype(float)


def _badness(
    filled: np.ndarray, total: np.ndarray, shares: np.ndarray, train_first: bool
) -> tuple[int, int, int, float]:
    """What is worse, in this order: empty parts, classes absent from train, from others; uneven shares of a class."""
    absent = ((filled == 0) & (total > 0)).sum(axis=1)
    uneven = (((filled / np.maximum(total, 1) - shares[:, None]) ** 2).sum(axis=1) / shares).sum()
    empty = int((filled.sum(axis=1) == 0).sum())
    return empty, int(absent[0]) if train_first else 0, int(absent.sum()), round(float(uneven), 9)


def _fill_poor_parts(part: np.ndarray, counts: np.ndarray, parts: int, least: int = 1) -> np.ndarray:
    """Move the smallest group of the part that has most into each part that has fewer than ``least``."""
    part = part.copy()
    while (have := np.bincount(part, minlength=parts)).min() < least:
        donor = np.flatnonzero(part == have.argmax())
        part[donor[counts[donor].sum(axis=1).argmin()]] = have.argmin()
    return part
