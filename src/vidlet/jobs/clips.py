"""From a user's DATA argument to the clips of each split, the same for every command."""

from __future__ import annotations

from pathlib import Path

from ..datasets import ClipTable, group_folds, read_table, with_splits
from ..datasets.record_table import hold_out_shards
from ..errors import DataError

SPLIT_SEED = 0  # splits belong to the data, not to the seed of a training


def labelled_clips(
    data: str | Path,
    fold: str | None = None,
    strict: bool = False,
    stored: bool = False,
    classes: int | None = None,
    val_shards: int | None = None,
) -> ClipTable:
    """Read a table and give every clip a split.

    Args:
        fold: "I/K" for fold I (from 0) of a K-fold by group; None: the table's own splits, or ours where it has none.
        strict: a clip that cannot be found is an error, not a note.
        stored: stored features will do (records, or features.npz).
        classes: size of the vocabulary of records, where no file beside them says it.
        val_shards: so many shards of records, drawn at random, validate, and all others that are not test train.

    Raises:
        DataError: nothing usable is there, or the data are stored features and ``stored`` is False.
    """
    table = read_table(data, strict, classes)
    if table.features is not None and not stored:
        raise DataError(f"{table.features}: stored features, no videos; this command takes clips")
    if val_shards is not None:
        if fold is not None:
            raise DataError("--val-shards: not with --fold")
        return hold_out_shards(table, val_shards, SPLIT_SEED)
    if fold is None:
        return with_splits(table, seed=SPLIT_SEED)
    index, folds = _parse_fold(fold)
    return group_folds(table, folds, seed=SPLIT_SEED)[index]


def scored_split(table: ClipTable, split: str | None) -> tuple[str, ClipTable]:
    """The split to score and its clips: the one asked for, else test, else val.

    Raises:
        DataError: there are no such clips.
    """
    for name in (split,) if split else ("test", "val"):
        clips = table.with_clips(table) if name == "all" else table.of_split(name)
        if len(clips):
            return name, clips
    raise DataError(f"{table.root}: no clips in split {split or 'test or val'}")


def _parse_fold(fold: str) -> tuple[int, int]:
    index, slash, folds = fold.partition("/")
    if not (slash and index.isdigit() and folds.isdigit() and int(index) < int(folds) and int(folds) >= 2):
        raise DataError(f"--fold {fold}: expected I/K with 0 <= I < K, as in 0/5")
    return int(index), int(folds)
