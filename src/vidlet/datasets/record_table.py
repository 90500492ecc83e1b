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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, reading
from ..labels import composed, label_parts, split_labels
from .csv_table import FEATURES_NAME, PATHS, csv_rows, feature_rows, feature_shape, fold_notes, named_rows
from .frame_record import FRAME_KEYS, Record
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


# Stored features of one array, as records: features.npz beside clips.csv, read once.


class ArrayRecords:
    """Row i of the arrays ``rgb`` and, where there is one, ``audio``, uint8 (N, T, D), as record i.

    Arrays (N, D) are of one vector a record, which counts as its only frame: means over a video. The arrays are read
    when the first record is asked for, and stay in memory.
    """

    def __init__(self, path: Path, ids: list[str], labels: list[tuple[int, ...]]) -> None:
        self.path, self.ids, self.labels = path, ids, labels
        rows, frames, width = _records_shape(path, FRAME_KEYS[0])
        self.frames = [frames] * rows
        self._widths = {"rgb": width}
        with reading(path, "a readable .npz file"), np.load(path, allow_pickle=False) as stored:
            others = [key for key in FRAME_KEYS[1:] if key in stored.files]
        for key in others:
            shape = _records_shape(path, key)
            if shape[:2] != (rows, frames):
                raise DataError(f"{path}: {key} has the shape {shape}, rgb {(rows, frames, width)}")
            self._widths[key] = shape[2]
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    @property
    def widths(self) -> Mapping[str, int]:
        """Numbers a frame of each modality."""
        return self._widths

    def where(self, index: int) -> str:
        """File and name of a record, for messages."""
        return f"{self.path} row {index} ({self.ids[index]})"

    def read(self, index: int) -> Record:
        """The record of a row.

        Raises:
            DataError: the arrays are no bytes.
        """
        if not self._arrays:
            self._load()
        return Record(self.ids[index], self.labels[index], {key: own[index] for key, own in self._arrays.items()})

    def _load(self) -> None:
        with reading(self.path, "a readable .npz file"), np.load(self.path, allow_pickle=False) as stored:
            for key in self._widths:
                array = stored[key]
                if array.dtype != np.uint8:
                    raise DataError(f"{self.path}: {key} is {array.dtype}; stored features are uint8 (docs/data.md)")
                self._arrays[key] = array if array.ndim == 3 else array[:, None]


def _records_shape(path: Path, key: str) -> tuple[int, int, int]:
    """(records, frames, numbers) of an array of stored features.

    Raises:
        DataError: an array of another form.
    """
    shape = feature_shape(path, key)
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    if len(shape) != 3:
        raise DataError(f"{path}: {key} has the shape {shape}; records are (records, frames, numbers)")
    return shape[0], shape[1], shape[2]


def with_array_records(table: ClipTable) -> ClipTable:
    """A table of features.npz with its records; classes in the order of their numbers where a file says them."""
    path = table.features
    assert path is not None
    table = _in_class_order(table)
    index = {name: i for i, name in enumerate(table.labels)}
    rows = feature_shape(path)[0]
    ids, labels = [""] * rows, [()] * rows  # type: tuple[list[str], list[tuple[int, ...]]]
    for clip in table:
        assert clip.row is not None
        ids[clip.row] = clip.path.name
        labels[clip.row] = tuple(index[name] for name in clip.labels)
    return replace(table, records=ArrayRecords(path, ids, labels))


def every_array_record(table: Path) -> ArrayRecords:
    """All rows of features.npz beside a table, with a label there or without; labels are not read.

    Raises:
        DataError: as ``read_csv``, but of labels.
    """
    lines, path = csv_rows(table, labelled=False), table.parent / FEATURES_NAME
    ids = [""] * len(lines)
    for place, (_, row) in zip(feature_rows(lines, path, table), lines, strict=True):
        ids[place] = row["path"]
    return ArrayRecords(path, ids, [()] * len(lines))


def _in_class_order(table: ClipTable) -> ClipTable:
    """The table with its classes in the order of their numbers, in the names that a file beside it gives them.

    Raises:
        DataError: a class number that the names do not reach.
    """
    named = class_names(table.root)
    if set(named) == set(table.labels):
        return replace(table, labels=named)
    if not all(label.isdecimal() for label in table.labels):
        return table
    highest = max(map(int, table.labels))
    if not named:
        several = table.multi_label and highest < MOST_CLASSES
        return replace(table, labels=tuple(map(str, range(highest + 1)))) if several else table
    if highest >= len(named):
        raise DataError(f"{table.root}: class {highest}, of {len(named)} that have names beside it")
    clips = (replace(clip, labels=tuple(named[int(label)] for label in clip.labels)) for clip in table)
    return replace(table, clips=tuple(clips), labels=named)
