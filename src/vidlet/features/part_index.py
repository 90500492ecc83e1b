"""Which part of a store holds which clip, in one file: a store of a million clips is opened without reading its parts.

The keys are sorted and memory-mapped, so that all processes of a machine share them. The index is trusted as long as
every part it names is there with the same size and time of change, and was at rest for a while before it was written
(both times are those of the disk that holds them). It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_bytes

NAME = "index.arrow"
KEY_BYTES = 64  # a SHA-256 in hexadecimal
REST_NS = 2_000_000_000  # a part that changed so shortly before may have changed after, within the disk's clock
Stamp = tuple[int, int]  # size in bytes, time of change in nanoseconds


class PartIndex:
    """Sorted keys, each with the number of its part and its row there."""

    def __init__(self, parts: Sequence[str], keys: np.ndarray, part: np.ndarray, row: np.ndarray) -> None:
        self.parts, self.keys, self.part, self.row = list(parts), keys, part, row

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[str]:
        return (key.decode() for key in self.keys)

    def find(self, key: str) -> tuple[int, int] | None:
        """Part and row of a clip; None: it is not here."""
        wanted = np.bytes_(key.encode())
        at = int(np.searchsorted(self.keys, wanted))
        if at == len(self.keys) or self.keys[at] != wanted:
            return None
        return int(self.part[at]), int(self.row[at])


def read_index(arrow: Any, folder: Path, stamps: Mapping[str, Stamp]) -> PartIndex | None:
    """The index of a folder; None where there is none that fits the parts as they are.

    Args:
        arrow: the module pyarrow.
        stamps: of the folder's parts, by their names.
    """
    path = folder / NAME
    try:
        table = arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()
        told: dict[str, Stamp] = {name: tuple(stamp) for name, stamp in json.loads(table.schema.metadata[b"parts"])}
        if not told or any(stamps.get(name) != stamp for name, stamp in told.items()):
            return None
        if max(changed for _, changed in told.values()) + REST_NS > path.stat().st_mtime_ns:
            return None
        key, part, row = (table.column(name).chunk(0) for name in ("key", "part", "row"))
        keys = np.frombuffer(key.buffers()[1], dtype=f"S{KEY_BYTES}")[: len(key)]
        return PartIndex(list(told), keys, part.to_numpy(), row.to_numpy())
    except (OSError, ValueError, KeyError, TypeError, IndexError, arrow.ArrowException):
        return None  # absent or damaged: the parts say the same


def write_index(arrow: Any, folder: Path, index: PartIndex, stamps: Mapping[str, Stamp]) -> None:
    """Write an index; into a folder that may not be written, or of parts that are gone by now, nothing."""
    if len(stamps) < len(index.parts):
        return
    buffer = arrow.py_buffer(np.ascontiguousarray(index.keys))
    keys = arrow.FixedSizeBinaryArray.from_buffers(arrow.binary(KEY_BYTES), len(index), [None, buffer])
    table = arrow.table({"key": keys, "part": index.part, "row": index.row})
    told = json.dumps([[name, stamps[name]] for name in index.parts])
    table = table.replace_schema_metadata({"parts": told})
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with contextlib.suppress(OSError):
        write_bytes(folder / NAME, sink.getvalue())


def joined_index(parts: Sequence[str], known: PartIndex | None, rows: Mapping[str, tuple[int, int]]) -> PartIndex:
    """The index of what is known and of further clips, key -> (number among ``parts``, row), which come first.

    Raises:
        ValueError: a key is not the SHA-256 of a clip.
    """
    if any(len(key) != KEY_BYTES for key in rows):
        raise ValueError("a key is none")
    keys = np.array([key.encode() for key in rows], dtype=f"S{KEY_BYTES}")
    places = np.array(list(rows.values()), np.int32).reshape(-1, 2)
    if known is not None:
        rest = ~np.isin(known.keys, keys)
        keys = np.concatenate([keys, known.keys[rest]])
        places = np.concatenate([places, np.stack([known.part[rest], known.row[rest]], 1)])
    order = np.argsort(keys)
    return PartIndex(parts, keys[order], places[order, 0], places[order, 1])
