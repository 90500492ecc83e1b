"""Shards of records: found, read one after the other or by number, divided among processes, shuffled, written.

A record that is damaged or makes no sense is named with its shard, its offset and, where known, its id, and skipped;
nothing is lost of the rest.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .frame_record import ID_KEYS, Record, check_record, encode_record, id_text, parse_example, to_record
from .tfrecord import Span, open_shard, read_span, read_tfrecord, write_tfrecord

SHARD_SUFFIXES = tuple(
    f".{name}{end}" for name in ("tfrecord", "tfrecords") for end in ("", ".gz", ".z", ".zlib", ".zz")
)


def is_shard(name: str) -> bool:
    """Whether a file's name is that of a shard of records: a.tfrecord, a.tfrecord.gz, a.tfrecord-00000-of-00010."""
    return name.endswith(SHARD_SUFFIXES) or re.search(r"\.tfrecords?-\d+-of-\d+$", name) is not None


class Problem(NamedTuple):
    """Why a record was skipped, and where it stands; ``id`` is "" where it cannot be known."""

    shard: str
    offset: int
    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}: at byte {self.offset}{f', id {self.id}' if self.id else ''}: {self.reason}"


@dataclass
class Checks:
    """What a record must be, and what was found otherwise.

    Args:
        classes: size of the vocabulary; labels are below it. None: unknown, not checked.
        most_classes: the same, where it is unknown: no vocabulary is larger.
        sizes: numbers a frame of each key that every record must have, as {"rgb": 1024, "audio": 128}; None: the
            first record says.
        strict: the first problem is an error.
    """

    classes: int | None = None
    sizes: Mapping[str, int] | None = None
    strict: bool = False
    most_classes: int = 2**63
    problems: list[Problem] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)  # keys that records have and nobody reads, how often

    def tell(self, problem: Problem) -> None:
        """Note a problem.

        Raises:
            DataError: where ``strict``.
        """
        if self.strict:
            raise DataError(str(problem))
        self.problems.append(problem)


def find_shards(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Record files of a folder, a glob, a file, or a list of these, sorted by name within each.

    Raises:
        DataError: there is none.
    """
    if not isinstance(source, (str, os.PathLike)):
        return [path for item in source for path in find_shards(item)]
    where = Path(source)
    if where.is_dir():
        found = sorted(path for path in where.iterdir() if is_shard(path.name) and path.is_file())
        if not found:
            raise DataError(f"{where}: no record file in it ({', '.join(SHARD_SUFFIXES)})")
        return found
    if where.is_file():
        return [where]
    anchor = Path(where.anchor)
    matches = sorted(path for path in anchor.glob(str(where.relative_to(anchor))) if path.is_file())
    if not matches:
        raise DataError(f"{source}: no such file, folder, or files that match")
    return matches


def part_of(shards: Sequence[Path], part: int, parts: int) -> tuple[list[Path], int, int]:
    """What one of ``parts`` processes reads: its shards, and (first, step) of the records in them.

    Whole shards where there are enough of them; else every ``parts``-th record of all.
    """
    if not 0 <= part < parts:
        raise DataError(f"part must be 0 to {parts - 1} of {parts}, got {part}")
    return (list(shards[part::parts]), 0, 1) if len(shards) >= parts else (list(shards), part, parts)


def read_records(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    checks: Checks | None = None,
    part: int = 0,
    parts: int = 1,
    seed: int | None = None,
    buffer: int = 1024,
) -> Iterator[Record]:
    """Every sound record of the shards of ``source``; frames beyond 300 are left out.

    Args:
        checks: what must hold; gets the problems. None: nothing is skipped, the first problem is an error.
        part, parts: read one of so many parts, as for processes or ranks; together they are everything, once.
        seed: shuffle: shards in random order, records drawn from a buffer of ``buffer`` records. None: in order.

    Raises:
        DataError: no shard, or a problem where ``checks`` are strict; names shard, offset and id.
    """
    rules = Checks(strict=True) if checks is None else checks
    shards, first, step = part_of(find_shards(source), part, parts)
    rng = None if seed is None else np.random.default_rng(seed)
    if rng is not None:
        shards = [shards[i] for i in rng.permutation(len(shards))]
    number = itertools.count()
    found = (
        record for shard in shards for _, record in _shard_records(shard, rules, lambda: next(number) % step == first)
    )
    return found if rng is None else _shuffled(found, buffer, rng)


class RecordSet:
    """Records by number: ids and labels in memory, features read from the shards when asked for.

    Every record is read once, and checked, when the set is made. The ``inflated`` gzip shards read last stay in memory.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        checks: Checks | None = None,
        inflated: int = 4,
    ) -> None:
        self.checks = Checks() if checks is None else checks
        self.shards = find_shards(source)
        self.ids: list[str] = []
        self.labels: list[tuple[int, ...]] = []
        self.frames: list[int] = []
        self.shard_of: list[int] = []
        self.spans: list[Span] = []
        for index, shard in enumerate(self.shards):
            for span, record in _shard_records(shard, self.checks):
                self.ids.append(record.id)
                self.labels.append(record.labels)
                self.frames.append(record.frames)
                self.shard_of.append(index)
                self.spans.append(span)
        self._inflated: dict[int, io.BytesIO] = {}
        self._most_inflated = inflated

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def widths(self) -> dict[str, int]:
        """Numbers a frame of each modality: {"rgb": 1024, "audio": 128}; of means, too."""
        return {key.removeprefix("mean_"): size for key, size in (self.checks.sizes or {}).items()}

    def where(self, index: int) -> str:
        """Shard and id of a record, for messages."""
        return f"{self.shards[self.shard_of[index]]} id {self.ids[index]}"

    def read(self, index: int) -> Record:
        """The record of a number.

        Raises:
            DataError: it is no longer what it was when the set was made.
        """
        shard = self.shard_of[index]
        stream = self._inflated.pop(shard, None) or open_shard(self.shards[shard], lambda offset, why: None)
        try:
            data = read_span(stream, self.spans[index])
        except DataError as error:
            raise DataError(f"{self.shards[shard]}: {error}") from error
        finally:
            if isinstance(stream, io.BytesIO):
                self._keep(shard, stream)
            else:
                stream.close()
        return to_record(parse_example(data))[0]

    def _keep(self, shard: int, stream: io.BytesIO) -> None:
        self._inflated[shard] = stream  # the last used is the last to go
        while len(self._inflated) > self._most_inflated:
            del self._inflated[next(iter(self._inflated))]


def write_records(
    path: str | os.PathLike[str], records: Iterable[Record], compressed: bool = False, id_key: str = "id"
) -> list[int]:
    """Write a shard that others' readers read, too: Example for means, SequenceExample for frames.

    Returns the offset of each record. Reading gives back exactly what was written (labels, ids, features).
    """
    return write_tfrecord(Path(path), (encode_record(record, id_key) for record in records), compressed)


def _shard_records(
    shard: Path, checks: Checks, mine: Callable[[], bool] = lambda: True
) -> Iterator[tuple[Span, Record]]:
    def told(offset: int, why: str) -> None:
        checks.tell(Problem(str(shard), offset, "", why))

    for offset, data in read_tfrecord(shard, told):
        if not mine():
            continue
        name = ""
        try:
            example = parse_example(data)
            name = next((id_text(example.context[key]) for key in ID_KEYS if example.context.get(key) is not None), "")
            record, unread = to_record(example)
            check_record(record, checks.classes or checks.most_classes, checks.sizes)
        except DataError as error:
            checks.tell(Problem(str(shard), offset, name, str(error)))
            continue
        for key in unread:
            checks.unread[key] = checks.unread.get(key, 0) + 1
        if checks.sizes is None:
            checks.sizes = {key: int(value.shape[-1]) for key, value in record.features.items()}
        yield Span(offset, len(data)), record


def _shuffled(records: Iterator[Record], buffer: int, rng: np.random.Generator) -> Iterator[Record]:
    kept: list[Record] = []
    for record in records:
        kept.append(record)
        if len(kept) > buffer:
            place = int(rng.integers(len(kept)))
            kept[place], kept[-1] = kept[-1], kept[place]
            yield kept.pop()
    yield from (kept[i] for i in rng.permutation(len(kept)))
