"""A folder or glob of record shards as a clip table, so that splits, checks and training treat it as clips.

Names of classes come from clips.csv beside the shards (columns name, label and, if it has them, group, split and fold,
by all names that csv_table.py knows), else from classes.txt (a name a line), vocabulary.csv (columns Index, Name) or
label_names_2018.csv (label_id, label_name; both YouTube-8M's), else they are the numbers. The split is clips.csv's,
else that of the shard's name: train0000.tfrecord, validate0000.tfrecord, test0000.tfrecord.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..labels import composed, label_parts, split_labels
from .csv_table import PATHS, fold_notes, named_rows
from .records import Checks, RecordSet, find_shards
from .table import Clip, ClipTable, split_name
from .texts import MOST_CLASSES, TABLE_NAMES, Names, cell_key, class_number, numbered_names, table_rows

CLASSES_NAME = "classes.txt"
VOCABULARIES = {"vocabulary.csv": ("Index", "Name"), "label_names_2018.csv": ("label_id", "label_name")}
# A word for a split with the number of a shard: digits and what follows, or two letters as in Kaggle's of 2017.
SPLIT_WORD = re.compile(r"(?i:(training|train|validation|validate|valid|val|testing|test))(?:\d\w*|[A-Za-z0-9]{2})?")


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
    names, assumed, _ = named_classes(root)
    known = len(names) if names else classes
    checks = Checks(classes=known, most_classes=MOST_CLASSES, strict=strict)
    records = RecordSet(shards, checks)
    if not names:
        highest = max((label for own in records.labels for label in own), default=-1)
        names = tuple(map(str, range(classes or highest + 1)))
    table = _table_beside(root)
    rows, told = _listed(table)
    clips: list[Clip] = []
    skipped = [(f"{problem.shard} at byte {problem.offset}", str(problem)) for problem in checks.problems]
    for index, (name, labels) in enumerate(zip(records.ids, records.labels, strict=True)):
        shard = records.shards[records.shard_of[index]]
        where = records.where(index)
        if rows is not None and name not in rows:
            skipped.append((where, f"is not in {table.name}"))
        elif not labels:
            skipped.append((where, "has no label"))
        else:
            row = rows[name] if rows is not None else None
            own = tuple(names[label] for label in labels)
            if row is not None and set(own) != set(row.labels):
                raise DataError(f"{where}: is {'|'.join(own)}, in {table.name} {'|'.join(row.labels)}")
            row = row or _Row(own, "", shard_split(shard), "")
            clips.append(Clip(root / name, own, row.group, row.split, row=index, fold=row.fold))
    if not clips:
        raise DataError(f"{source}: no labelled record" + (f" ({skipped[0][0]} {skipped[0][1]})" if skipped else ""))
    notes = (*assumed, *_notes(records, checks), *_split_notes(records, rows), *told, *fold_notes(clips))
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
    return named_classes(root).names


def named_classes(root: Path) -> Names:
    """``class_names``, and what had to be assumed."""
    if (root / CLASSES_NAME).is_file():
        return numbered_names(root / CLASSES_NAME)
    for file, (index, name) in (*VOCABULARIES.items(), (_table_beside(root).name, ("label_id", "label"))):
        path = root / file
        if path.is_file() and (found := _numbered(path, index, name)):
            missing = next((i for i in range(len(found)) if i not in found), None)
            if missing is not None and file in VOCABULARIES:
                raise DataError(f"{path}: class {missing} is missing")
            return Names(_unique([found.get(i, str(i)) for i in range(max(found) + 1)], path))
    return Names(())


def shard_split(shard: Path) -> str:
    """The split that a shard's name says: YouTube-8M's train0000, trainaB, validate00-of-44, test_7 ...; "" if none.

    Raises:
        DataError: the name speaks of validation or test in a form that is not known; to train on it would be wrong.
    """
    said: set[str] = set()
    doubtful = ""
    for word in re.split(r"[^A-Za-z0-9]+", shard.name.partition(".tfrecord")[0]):
        if match := SPLIT_WORD.fullmatch(word):
            said.add(split_name(match[1]) or "")
        elif re.fullmatch(r"(?i)dev\d*", word):
            said.add("val")
        elif re.match("(?i)valid|test|eval|holdout|heldout|unseen", word):
            doubtful = word
    if len(said) == 1 and not (doubtful and said == {"train"}):
        return said.pop()
    if doubtful or len(said) > 1:
        raise DataError(
            f"{shard}: does its name mean train, validate or test? Call it train0000.tfrecord, validate0000.tfrecord "
            f"or test0000.tfrecord, or give the splits in a {TABLE_NAMES[0]} beside it"
        )
    return ""


def _numbered(path: Path, index: str, name: str) -> dict[int, str]:
    """Class index -> name; cells may hold several, as 3|7 and run|jump."""
    rows, _ = table_rows(path, (index.casefold(), name.casefold()))
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    if not {index, name} <= set(header):
        return {}
    first, second = header.index(index), header.index(name)
    found: dict[int, str] = {}
    for line, cells in rows[1:]:
        written, called = (cells[at] if at < len(cells) else "" for at in (first, second))
        numbers = written.split("|")
        names = label_parts(called)
        names = names if len(numbers) > 1 else ["|".join(names)]
        for number, one in zip(numbers, names, strict=False):
            if number.strip().isdecimal():
                found[class_number(number, f"{path} line {line}")] = composed(one.strip()) or number.strip()
    return found


def _unique(names: Sequence[str], path: Path) -> tuple[str, ...]:
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if not twice:
        return tuple(names)
    if path.name not in VOCABULARIES:
        raise DataError(f"{path}: class {twice[0]!r} stands twice")
    return tuple(f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names))


class _Row(NamedTuple):
    labels: tuple[str, ...]
    group: str
    split: str
    fold: str


def _table_beside(root: Path) -> Path:
    return next((root / name for name in TABLE_NAMES if (root / name).is_file()), root / TABLE_NAMES[0])


def _listed(path: Path) -> tuple[dict[str, _Row] | None, list[str]]:
    """What the table beside the shards says of each record's id, and notes; None where there is none, or of videos."""
    if not path.is_file():
        return None, []
    found, separator = table_rows(path, ("name", "label", "split", "group"))
    names = [cell_key(cell) for cell in found[0][1]] if found else []
    if not {"name", "label"} <= set(names):
        return None, [f"{path.name} has no columns name and label and says nothing of the records."]
    names = ["" if name == "label_id" or (name in PATHS and name != "name") else name for name in names]
    said = named_rows(names, found[1:], lambda: found[1:], separator, path)
    rows: dict[str, _Row] = {}
    for line, row in said.rows:
        split = split_name(row.get("split", ""))
        if split is None:
            raise DataError(f"{path} line {line}: split {row['split']!r} is none of train, val and test")
        labels = tuple(map(composed, split_labels(row["label"])))
        rows[row["name"]] = _Row(labels, row.get("group", ""), split, row.get("fold", "").removesuffix(".0"))
    of_videos = any((path.parent / name).is_file() for name in list(rows)[:20])
    return (None, []) if of_videos else (rows, said.notes)


def _split_notes(records: RecordSet, rows: dict[str, _Row] | None) -> tuple[str, ...]:
    """A sentence, if the names of some shards say no split."""
    silent = [shard for shard in records.shards if rows is None and not shard_split(shard)]
    if not silent:
        return ()
    return (f"{len(silent)} of {len(records.shards)} shards have names that say no split (first: {silent[0].name}).",)


def _notes(records: RecordSet, checks: Checks) -> tuple[str, ...]:
    notes = [f"{count} records have a key {key!r} that is not read." for key, count in checks.unread.items()]
    twice = [name for name, count in Counter(records.ids).items() if count > 1]
    if twice:
        notes.append(f"{len(twice)} ids stand in several records (first: {twice[0]}).")
    return tuple(notes)
