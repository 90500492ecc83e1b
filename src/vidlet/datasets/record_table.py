"""A folder or glob of record shards as a clip table, so that splits, checks and training treat it as clips.

Names of classes come from clips.csv beside the shards (columns name, label and, if it has them, group and split), else
from classes.txt (a name a line) or vocabulary.csv (columns Index, Name; YouTube-8M's), else they are the numbers. The
split is clips.csv's, else that of the shard's name: train0000.tfrecord, validate0000.tfrecord, test0000.tfrecord.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..labels import split_labels
from .records import Checks, RecordSet, find_shards
from .table import Clip, ClipTable, split_name

TABLE_NAME, CLASSES_NAME, VOCABULARY_NAME = "clips.csv", "classes.txt", "vocabulary.csv"


def read_record_table(
    source: str | os.PathLike[str], classes: int | None = None, strict: bool = False
) -> tuple[ClipTable, RecordSet]:
    """The table of all sound, labelled records, and the set that reads them: ``clip.row`` is a record's number.

    Every record is read once. What is damaged, senseless, unlabelled or not in clips.csv is listed in
    ``table.skipped``.

    Args:
        classes: size of the vocabulary where no file beside the shards says it; None: the highest label + 1.

    Raises:
        DataError: no shard, no labelled record, or names that do not fit the labels; with ``strict`` the first
            problem.
    """
    shards = find_shards(source)
    root = shards[0].parent
    names = class_names(root)
    checks = Checks(classes=len(names) if names else classes, strict=strict)
    records = RecordSet(shards, checks)
    if not names:
        highest = max((label for own in records.labels for label in own), default=-1)
        names = tuple(map(str, range(classes or highest + 1)))
    rows = _listed(root / TABLE_NAME)
    clips: list[Clip] = []
    skipped = [(f"{problem.shard} at byte {problem.offset}", str(problem)) for problem in checks.problems]
    for index, (name, labels) in enumerate(zip(records.ids, records.labels, strict=True)):
        shard = records.shards[records.shard_of[index]]
        where = records.where(index)
        if rows is not None and name not in rows:
            skipped.append((where, f"is not in {TABLE_NAME}"))
        elif not labels:
            skipped.append((where, "has no label"))
        else:
            row = rows[name] if rows is not None else None
            own = tuple(names[label] for label in labels)
            if row is not None and set(own) != set(row.labels):
                raise DataError(f"{where}: is {'|'.join(own)}, in {TABLE_NAME} {'|'.join(row.labels)}")
            split = row.split if row is not None else shard_split(shard)
            clips.append(Clip(root / name, own, row.group if row is not None else "", split, row=index))
    if not clips:
        raise DataError(f"{source}: no labelled record" + (f" ({skipped[0][0]} {skipped[0][1]})" if skipped else ""))
    notes = _notes(records, checks)
    return ClipTable(tuple(clips), names, root, notes, tuple(skipped), Path(shards[0]), records), records


def hold_out_shards(table: ClipTable, count: int, seed: int = 0) -> ClipTable:
    """Validate on so many shards, drawn at random, and train on all others that are not test.

    Drawn are they from the shards that validate by their names; where there is none, from those that train.

    Raises:
        DataError: the data are no shards, or not as many, or none is left to train on.
    """
    records = table.records
    if not isinstance(records, RecordSet):
        raise DataError(f"{table.root}: no record shards; --val-shards holds out shards")
    splits: dict[int, set[str]] = {}
    for clip in table:
        if clip.row is not None:
            splits.setdefault(records.shard_of[clip.row], set()).add(clip.split)
    pool = [shard for shard, own in splits.items() if "val" in own]
    pool = pool or [shard for shard, own in splits.items() if own & {"train", ""}]
    others = [shard for shard, own in splits.items() if shard not in pool and own & {"train", ""}]
    most = len(pool) if others else len(pool) - 1
    if not 1 <= count <= most:
        raise DataError(f"{table.root}: --val-shards {count}: from 1 to {max(0, most)} of its shards can be held out")
    chosen = set(np.random.default_rng(seed).choice(pool, count, replace=False).tolist())

    def split(clip: Clip) -> str:
        if clip.split == "test" or clip.row is None:
            return clip.split
        return "val" if records.shard_of[clip.row] in chosen else "train"

    return table.with_clips(replace(clip, split=split(clip)) for clip in table)


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the classes by their index, from the files beside the shards; () where none says.

    Raises:
        DataError: a name stands twice, or an index is missing.
    """
    if (root / CLASSES_NAME).is_file():
        lines = [line.strip() for line in (root / CLASSES_NAME).read_text(encoding="utf-8").splitlines()]
        return _unique([line for line in lines if line], root / CLASSES_NAME)
    for file, index, name in ((VOCABULARY_NAME, "Index", "Name"), (TABLE_NAME, "label_id", "label")):
        path = root / file
        if path.is_file() and (found := _numbered(path, index, name)):
            missing = set(range(max(found) + 1)) - set(found)
            if missing and file == VOCABULARY_NAME:
                raise DataError(f"{path}: class {min(missing)} is missing")
            return _unique([found.get(i, str(i)) for i in range(max(found) + 1)], path)
    return ()


def shard_split(shard: Path) -> str:
    """The split that a shard's name begins with, "" if none."""
    match = re.match(r"[A-Za-z]+", shard.name)
    return (split_name(match[0]) or "") if match else ""


def _numbered(path: Path, index: str, name: str) -> dict[int, str]:
    """Class index -> name; cells may hold several, as 3|7 and run|jump."""
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        if not {index, name} <= set(reader.fieldnames or ()):
            return {}
        found: dict[int, str] = {}
        for row in reader:
            numbers, names = (row[index] or "").split("|"), (row[name] or "").split("|")
            if len(numbers) == 1:
                names = [row[name] or ""]
            for number, one in zip(numbers, names, strict=False):
                if number.strip().isdecimal():
                    found[int(number)] = one.strip() or number.strip()
        return found


def _unique(names: Sequence[str], path: Path) -> tuple[str, ...]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not twice:
        return tuple(names)
    if path.name != VOCABULARY_NAME:
        raise DataError(f"{path}: class {twice[0]!r} stands twice")
    return tuple(f"{name} ({i})" if name in twice else name for i, name in enumerate(names))


class _Row(NamedTuple):
    labels: tuple[str, ...]
    group: str
    split: str


def _listed(path: Path) -> dict[str, _Row] | None:
    """What clips.csv says of each record's id; None where it is not there, or names video files instead."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        if not {"name", "label"} <= set(reader.fieldnames or ()):
            return None
        rows: dict[str, _Row] = {}
        for row in reader:
            split = split_name(row.get("split") or "")
            if split is None:
                raise DataError(f"{path} line {reader.line_num}: split {row['split']!r} is none of train, val and test")
            rows[row["name"]] = _Row(split_labels(row["label"] or ""), (row.get("group") or "").strip(), split)
    return None if any((path.parent / name).is_file() for name in list(rows)[:20]) else rows


def _notes(records: RecordSet, checks: Checks) -> tuple[str, ...]:
    notes = [f"{count} records have a key {key!r} that is not read." for key, count in checks.unread.items()]
    twice = [name for name, count in Counter(records.ids).items() if count > 1]
    if twice:
        notes.append(f"{len(twice)} ids stand in several records (first: {twice[0]}).")
    return tuple(notes)
