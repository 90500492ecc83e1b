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

from ..files import atomic_path

NAME = "index.arrow"
KEY_BYTES = 32  # a SHA-256
REST_NS = 2_000_000_000  # a part that changed so shortly before may have changed after, within the disk's clock
Stamp = tuple[int, int]  # size in bytes, time of change in nanoseconds


def digest_of(key: str) -> bytes:
    """The bytes of a key. ValueError: it is not the SHA-256 of a clip."""
    digest = bytes.fromhex(key)
    if len(digest) != KEY_BYTES:
        raise ValueError(f"{key}: no key")
    return digest


def key_of(digest: bytes) -> str:
    """The key of a digest, from whose end NumPy has taken the zeros."""
    return digest.ljust(KEY_BYTES, b"\0").hex()


class PartIndex:
    """Sorted digests of keys, each with the number of its part and its row there."""

    def __init__(self, parts: Sequence[str], keys: np.ndarray, part: np.ndarray, row: np.ndarray) -> None:
        self.parts, self.keys, self.part, self.row = list(parts), keys, part, row

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[str]:
        return map(key_of, self.keys)

    def find(self, key: str) -> tuple[int, int] | None:
        """Part and row of a clip; None: it is not here."""
        try:
            wanted = digest_of(key).rstrip(b"\0")  # as NumPy gives them
        except ValueError:
            return None
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
        if key.type != arrow.binary(KEY_BYTES):
            return None  # an earlier version's
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
    with (
        contextlib.suppress(OSError),
        atomic_path(folder / NAME) as draft,
        arrow.ipc.new_file(str(draft), table.schema) as writer,
    ):
        writer.write_table(table)


def joined_index(parts: Sequence[str], known: PartIndex | None, rows: Mapping[str, tuple[int, int]]) -> PartIndex:
    """The index of what is known and of further clips, key -> (number among ``parts``, row), which come first.

    Raises:
        ValueError: a key is not the SHA-256 of a clip.
    """
    keys = np.array([digest_of(key) for key in rows], dtype=f"S{KEY_BYTES}")
    part, row = np.array(list(rows.values()), np.int32).reshape(-1, 2).T
    order = np.argsort(keys)
    keys, part, row = keys[order], part[order], row[order]
    if known is None or not len(known):
        return PartIndex(parts, keys, part, row)
    at = np.searchsorted(known.keys, keys)
    new = known.keys[np.minimum(at, len(known) - 1)] != keys
    pairs = ((known.keys, keys), (known.part, part), (known.row, row))
    merged = [np.insert(old, at[new], own[new]) for old, own in pairs]
    again = at[~new] + np.searchsorted(at[new], at[~new], "right")
    merged[1][again], merged[2][again] = part[~new], row[~new]
    return PartIndex(parts, *merged)
