"""The log of a search: one JSON line a finished trial, on disk before the next begins.

A search that was killed goes on from it: no finished trial is lost or repeated. A line that was being written when the
process died is incomplete and is dropped; a damaged one is said and left out, and those behind it stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import write_bytes
from ..progress import say

Record = dict[str, Any]
COSTS = ("begin", "card")  # kinds of records that an impossible budget leaves too


def holds_search(path: Path) -> bool:
    """Whether trials stand in a log; what was only measured before a budget was refused is none."""
    if not path.exists():
        return False
    records = [_record(line) for line in _lines(path) if line.endswith(b"\n")]
    return any(record is None or record["kind"] not in COSTS for record in records)  # None: not ours to write over


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror})") from error


def _record(line: bytes) -> Record | None:
    """What a line says; None if it is damaged: no JSON, no record of a kind, or one without its end."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("kind"), str)
    return record if known and line.endswith(b"\n") else None


class TrialLog:
    """Finished trials in the order in which they ended.

    Args:
        identity: hash of all that determines a trial's outcome but its own parameters (data, space, seed).

    Raises:
        TrainingError: the file belongs to a search of other data or another space that has tried something.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.records: list[Record] = []
        whole: list[bytes] = []
        if path.exists():
            lines = _lines(path)
            for number, line in enumerate(lines, 1):
                record = _record(line)
                if record is not None:
                    self.records.append(record)
                    whole.append(line)
                elif number < len(lines) or line.endswith(b"\n"):
                    say(f"{path}: line {number} is damaged and left out; its trial is run again")
        if self.records and self.records[0].get("identity") != identity:
            if holds_search(path):
                raise TrainingError(
                    f"{path}: belongs to a search of other data or other settings; choose another --out"
                )
            self.records, whole = [], []  # costs of another search whose budget was refused: nobody needs them
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and b"".join(whole) != path.read_bytes():
            write_bytes(path, b"".join(whole))
        self._first: Record | None = None if self.records else {"kind": "begin", "identity": identity}

    def add(self, kind: str, **values: Any) -> Record:
        """Write a record and return it; it is on the disk when this returns."""
        if self._first is not None:
            self._write(self._first)
            self.records.append(self._first)
            self._first = None
        record = {"kind": kind, **values}
        self._write(record)
        self.records.append(record)
        return record

    def of(self, kind: str) -> Iterator[Record]:
        """Records of a kind, oldest first."""
        return (record for record in self.records if record["kind"] == kind)

    def _write(self, record: Record) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(record, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


class NoLog(TrialLog):
    """Of a process that tries for another one, which keeps the outcomes."""

    def __init__(self) -> None:
        self.records, self._first = [], None

    def _write(self, record: Record) -> None:
        """Nothing is on the disk."""
