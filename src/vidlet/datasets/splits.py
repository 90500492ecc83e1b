"""Splits in which train, val and test never share a group, and every class is spread as evenly as groups allow.

A group (a person, a scene, a video of which several clips are cut) is atomic. Groups are dealt out greedily, the
ones that are hardest to place first, each to the part that is least filled with its classes (after scikit-learn's
StratifiedGroupKFold); then single groups are moved while that helps. Everything depends on the table and the seed only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .table import SPLITS, Clip, ClipTable

GroupKey = tuple[str, str]
DENSE = 2**17  # counts of groups times classes that are in memory at a time
MOVES = 500  # so many groups, the smallest, are tried in other parts


def with_splits(table: ClipTable, seed: int = 0, val: float = 0.1, test: float = 0.2) -> ClipTable:
    """Fill in the splits that a table does not give.

    Without any: train, val and test by group, in these shares of the clips. With train and no val: val is split off
    train. A given test is never touched. Single clips without a split join their group's, else train.

    Raises:
        DataError: there are fewer groups than parts to make.
    """
    if 0 < (filled := sum(not clip.split for clip in table)) < len(table):
        note = f"{filled} clips without a split were given their group's, or train."
        table = replace(table, notes=(*table.notes, note))
    return _with_split_names(table, split_names(table, seed, val, test))


def split_names(table: ClipTable, seed: int = 0, val: float = 0.1, test: float = 0.2) -> list[str]:
    """The split of each clip of ``with_splits``.

    Raises:
        DataError: as ``with_splits``.
    """
    names = [clip.split for clip in table]
    if not any(names):
        return _deal_all(table, seed, val, test) if names else []
    if not all(names):
        member = _members(table)[1].tolist()
        known = {group: name for group, name in zip(member, names, strict=True) if name}
        names = [name or known.get(group, "train") for group, name in zip(member, names, strict=True)]
    return _split_off_val(table, names, seed, val) if "train" in names and "val" not in names else names


def group_folds(table: ClipTable, folds: int = 5, seed: int = 0, val: float = 0.08) -> list[ClipTable]:
    """K-fold by group: in table i the groups of fold i are test, of the rest some are val, the others train.

    Splits that the table gives are not looked at. Every clip is test exactly once. With ``val`` 0 none are.

    Raises:
        DataError: fewer groups than folds, or too few for a val beside them.
    """
    groups = _groups(table)
    count = len(groups.keys)
    least = 2 if folds == 2 and val else 1  # what is not in a fold must be two groups, for train and val
    if folds < 2 or folds * least > count or count < (3 if val else 2):
        beside = " with a val beside each" if val else ""
        raise DataError(f"{table.root}: {count} groups cannot make {folds} folds{beside}")
    part = _fill_poor_parts(_deal(groups, np.full(folds, 1 / folds), seed), groups.clips, folds, least)
    return [_told(_hold_out(table, (part == fold)[groups.member], seed, val)) for fold in range(folds)]


def given_folds(table: ClipTable, folds: int, seed: int = 0, val: float = 0.08) -> list[ClipTable]:
    """The parts that a table gives (``Clip.fold``): that of number i is test, of the rest some are val, by group.

    A clip of no part is never test. Where a group is in several parts, that is noted.

    Raises:
        DataError: the table has not so many parts.
    """
    parts = sorted({clip.fold for clip in table} - {""}, key=lambda name: (len(name), name))
    if len(parts) != folds:
        told = f"its column 'fold' has {len(parts)} parts ({', '.join(parts[:8])})"
        raise DataError(f"{table.root}: {told}; --fold takes 0/{len(parts)} to {len(parts) - 1}/{len(parts)}")
    of_group: dict[str, set[str]] = {}
    for clip in table:
        of_group.setdefault(clip.group, set()).add(clip.fold)
    torn = [group for group, own in of_group.items() if group and len(own) > 1]
    if torn:
        note = f"{len(torn)} groups are in several parts of the column 'fold', in train and test (first: {torn[0]})."
        table = replace(table, notes=(*table.notes, note))
    member = np.array([clip.fold for clip in table])
    return [_told(_hold_out(table, member == part, seed, val)) for part in parts]


def leave_one_group_out(table: ClipTable, seed: int = 0, val: float = 0.08) -> list[ClipTable]:
    """One table per group, in the order of their names: that group is test, of the rest some are val (``val`` 0: none).

    Raises:
        DataError: a clip has no group, or there are fewer than three (without val, two).
    """
    if alone := next((clip for clip in table if not clip.group), None):
        raise DataError(f"{alone.path}: has no group; to leave one group out every clip needs one")
    keys, member = _members(table)
    if len(keys) < (3 if val else 2):
        takes = "with a val beside it takes three" if val else "takes two"
        raise DataError(f"{table.root}: {len(keys)} groups; to leave one out {takes}")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [_told(_hold_out(table, member == group, seed, val)) for group in order]


def _deal_all(table: ClipTable, seed: int, val: float, test: float) -> list[str]:
    groups = _groups(table)
    if len(table) < 3:
        raise DataError(
            f"{table.root}: {len(table)} clip{'s' * (len(table) > 1)}; train, val and test take one each at the least"
        )
    if (count := len(groups.keys)) < 3:
        raise DataError(
            f"{table.root}: all clips are of {count} group{'s' * (count > 1)}, and train, val and test take"
            " three; leave the groups empty to split by clip, or give the splits"
        )
    part = _deal(groups, np.array([1 - val - test, val, test]), seed, train_first=True)
    return [SPLITS[p] for p in part[groups.member].tolist()]


def _split_off_val(table: ClipTable, names: Sequence[str], seed: int, val: float) -> list[str]:
    train = [at for at, name in enumerate(names) if name == "train"]
    groups = _groups(table.with_clips(table.clips[at] for at in train))
    if len(groups.keys) < 2:
        raise DataError(f"{table.root}: all train clips are of one group, so no val can be split off by group")
    part = _deal(groups, np.array([1 - val, val]), seed, train_first=True)
    found = list(names)
    for at, p in zip(train, part[groups.member].tolist(), strict=True):
        if p == 1:
            found[at] = "val"
    return found


def _hold_out(table: ClipTable, test: np.ndarray, seed: int, val: float) -> ClipTable:
    """The table with the clips of ``test``, bool (N,), as test, of the rest some as val."""
    names = np.where(test, "test", "train").tolist()
    return _with_split_names(table, _split_off_val(table, names, seed, val) if val else names)


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


def _with_split_names(table: ClipTable, names: Sequence[str]) -> ClipTable:
    if all(clip.split == name for clip, name in zip(table, names, strict=True)):
        return table
    return table.with_clips(
        c if c.split == name else Clip(c.path, c.labels, c.group, name, c.start_s, c.end_s, c.row, c.fps, c.fold)
        for c, name in zip(table, names, strict=True)
    )


@dataclass(frozen=True)
class _Groups:
    """G groups in the order of their first clip, and how many clips of each of the K classes they have.

    Attributes:
        member: the group of each clip, int (N,).
        clips: labels in each group, int (G,).
        first: group g has the classes ``classes[first[g]:first[g + 1]]``, so many clips of each: ``counts``.
        spread: the standard deviation of a group's K counts, (G,).
        totals: clips of each class, int (K,).
    """

    keys: list[GroupKey]
    member: np.ndarray
    clips: np.ndarray
    first: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    spread: np.ndarray
    totals: np.ndarray


def _members(table: ClipTable) -> tuple[list[GroupKey], np.ndarray]:
    """What may not be torn apart, and which of it each clip is of: int (N,).

    It is the group, or where none is given the file (several clips may be cut from one).
    """
    groups: dict[str, int] = {}
    files: dict[Path, int] = {}
    keys: list[GroupKey] = []

    def number(clip: Clip) -> int:
        found = groups.get(clip.group) if clip.group else files.get(clip.path)
        if found is None:
            found = len(keys)
            if clip.group:
                groups[clip.group] = found
                keys.append(("group", clip.group))
            else:
                files[clip.path] = found
                keys.append(("file", str(clip.path)))
        return found

    return keys, np.fromiter(map(number, table), np.int64, len(table))


def _groups(table: ClipTable) -> _Groups:
    keys, member = _members(table)
    classes = len(table.labels)
    column_of = {name: column for column, name in enumerate(table.labels)}
    columns_of = {labels: [column_of[name] for name in labels] for labels in {clip.labels for clip in table}}
    columns = np.fromiter((c for clip in table for c in columns_of[clip.labels]), np.int64)
    labels = np.fromiter((len(clip.labels) for clip in table), np.int64, len(table))
    cells, counts = np.unique(np.repeat(member, labels) * classes + columns, return_counts=True)
    rows, columns = np.divmod(cells, classes)
    first = np.searchsorted(rows, np.arange(len(keys) + 1))
    clips = np.bincount(rows, counts, len(keys)).astype(np.int64)
    totals = np.bincount(columns, counts, classes).astype(np.int64)
    return _Groups(keys, member, clips, first, columns, counts, _spread(first, columns, counts, classes), totals)


def _spread(first: np.ndarray, columns: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """The standard deviation of the counts of each group over all classes, (G,); some groups at a time."""
    found = np.empty(len(first) - 1)
    rows = max(1, DENSE // classes)
    for begin in range(0, len(found), rows):
        dense = np.zeros((min(rows, len(found) - begin), classes), np.int64)
        inside = slice(first[begin], first[begin + len(dense)])
        group = np.repeat(np.arange(len(dense)), np.diff(first[begin : begin + len(dense) + 1]))
        dense[group, columns[inside]] = counts[inside]
        found[begin : begin + len(dense)] = dense.std(axis=1)
    return found


def _deal(groups: _Groups, shares: np.ndarray, seed: int, train_first: bool = False) -> np.ndarray:
    """Deal groups out to parts with these shares: the part of each group, int (G,).

    No part stays empty. With ``train_first`` no class is absent from part 0 that can be there.
    """
    rng = np.random.default_rng(seed)
    attempts = int(np.clip(800 // len(groups.keys), 1, 8))
    dealt = (_deal_once(groups, shares, rng, train_first) for _ in range(attempts))
    best, _ = min(dealt, key=lambda found: _badness(found[1], groups.totals, shares, train_first))
    return _fill_poor_parts(best, groups.clips, len(shares))


def _deal_once(
    groups: _Groups, shares: np.ndarray, rng: np.random.Generator, train_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each group (G,), and how many clips of each class the parts have (P, K).

    Plain numbers, not arrays: most groups have clips of one class or of few.
    """
    order = rng.permutation(len(groups.keys))
    order = order[np.argsort(-groups.spread[order], kind="stable")]
    weight = (1.0 / np.maximum(groups.totals, 1) ** 2).tolist()
    share, parts = shares.tolist(), range(len(shares))
    filled = [[0] * len(weight) for _ in parts]
    sizes = [0] * len(share)
    part = np.zeros(len(order), dtype=np.int64)
    first, classes, counts, clips = (
        column.tolist() for column in (groups.first, groups.classes, groups.counts, groups.clips)
    )
    for group in order.tolist():
        inside = [(classes[i], counts[i]) for i in range(first[group], first[group + 1])]
        cost = [  # growth of the badness
            sum((2 * own[c] + n) * n * weight[c] for c, n in inside) / of for own, of in zip(filled, share, strict=True)
        ]
        most = min(cost) * (1 + 1e-9)
        chosen = min((p for p in parts if cost[p] <= most), key=lambda p: sizes[p] / share[p])
        part[group] = chosen
        sizes[chosen] += clips[group]
        for c, n in inside:
            filled[chosen][c] += n
    return _moved(groups, shares, part, np.array(filled, float), order[::-1][:MOVES], train_first)


def _moved(
    groups: _Groups, shares: np.ndarray, part: np.ndarray, filled: np.ndarray, smallest: np.ndarray, train_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same after some groups, the smallest, were moved where that helps."""
    badness = _badness(filled, groups.totals, shares, train_first)
    for group in smallest:
        inside = slice(groups.first[group], groups.first[group + 1])
        classes, counts = groups.classes[inside], groups.counts[inside]
        for target in range(len(shares)):
            moved = filled.copy()
            moved[part[group], classes] -= counts
            moved[target, classes] += counts
            if (better := _badness(moved, groups.totals, shares, train_first)) < badness:
                part[group], filled, badness = target, moved, better
    return part, filled


def _badness(
    filled: np.ndarray, total: np.ndarray, shares: np.ndarray, train_first: bool
) -> tuple[int, int, int, float]:
    """What is worse, in this order: empty parts, classes absent from train, from others; uneven shares of a class."""
    absent = ((filled == 0) & (total > 0)).sum(axis=1)
    uneven = (((filled / np.maximum(total, 1) - shares[:, None]) ** 2).sum(axis=1) / shares).sum()
    empty = int((filled.sum(axis=1) == 0).sum())
    return empty, int(absent[0]) if train_first else 0, int(absent.sum()), round(float(uneven), 9)


def _fill_poor_parts(part: np.ndarray, clips: np.ndarray, parts: int, least: int = 1) -> np.ndarray:
    """Move the smallest group of the part that has most into each part that has fewer than ``least``.

    ``clips``: of each group, (G,).
    """
    part = part.copy()
    while (have := np.bincount(part, minlength=parts)).min() < least:
        donor = np.flatnonzero(part == have.argmax())
        part[donor[clips[donor].argmin()]] = have.argmin()
    return part
