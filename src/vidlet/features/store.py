"""The feature store: features of clips on disk, computed once, read memory-mapped.

A store is a folder of Arrow IPC files, one row a clip, and ``spec.json``. The folder's name is the hash of everything
that determines a feature but the clip itself (sampling, resize rule, extractor, storage), a row's key the hash of the
clip's content and interval: a changed setting never finds stale features. A part appears under its final name only when
it is whole, so that a killed extraction resumes where the last part ended. Its name ends with its checksum: a part that
is damaged is told, removed, and its clips are computed again. Where parts are many, an index says which clips they
hold (part_index.py): then a part is read when the first of its clips is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cloud import here
from ..datasets import Clip
from ..errors import DataError, DependencyError, why
from ..files import sha256_of, write_bytes, write_text
from ..progress import say
from ..video.folder import image_files
from ..wording import how_to_install
from .part_index import NAME as INDEX
from .part_index import Stamp, joined_index, read_index, write_index

COLUMNS = ("key", "frames", "times_s", "damage", "scale", "low", "features")
INDEXED_PARTS = 64  # from so many on the store has an index
CHECKSUM = re.compile(r"part-\d+-\w+-([0-9a-f]{8})\.arrow")
STORAGE = {"float16": np.float16, "uint8": np.uint8, "float32": np.float32}


@dataclass(frozen=True)
class ClipFeatures:
    """Features (T, *shape) of one clip, float32 or float16, with the times of their frames in seconds."""

    key: str
    features: np.ndarray
    times_s: np.ndarray
    damage: str = ""


class FeatureStore:
    """A folder of stored features that belong to one setting.

    Args:
        root: where stores lie side by side; this one gets a folder named by its setting.
        setting: whatever determines a feature besides the clip, as JSON-able values; must hold ``shape`` (without T)
            and ``storage`` ("float16", "float32", or "uint8": affine per clip, error at most half a step).
    """

    def __init__(self, root: str | os.PathLike[str], setting: Mapping[str, Any]) -> None:
        self.setting = dict(setting)
        self.shape = tuple(int(n) for n in self.setting["shape"])
        self.storage = str(self.setting["storage"])
        text = json.dumps(self.setting, sort_keys=True)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "spec.json").exists():
            write_text(self.folder / "spec.json", json.dumps(self.setting, indent=1, sort_keys=True))
        self._rows: dict[str, tuple[int, int]] = {}  # number of the part and row, where the index does not say them
        self._parts: list[Path] = []
        self._columns: dict[int, Any] = {}  # number of the part -> its columns, once it was opened
        parts = sorted(self.folder.glob("part-*.arrow"))
        self._index = read_index(_arrow(), self.folder, _stamps(parts)) if len(parts) >= INDEXED_PARTS else None
        known = self._index.parts if self._index is not None else []
        self._parts += [self.folder / name for name in known]
        new = [part for part in parts if part.name not in set(known)]
        for part in new:
            self._open(part)
        if len(new) >= INDEXED_PARTS:
            self._write_index()

    def _write_index(self) -> None:
        """Write an index of all parts, so that who opens the store next need not read them."""
        with contextlib.suppress(ValueError):
            self._index = joined_index([part.name for part in self._parts], self._index, self._rows)
            self._rows = {}
            write_index(_arrow(), self.folder, self._index, _stamps(self._parts))

    def _find(self, key: str) -> tuple[int, int] | None:
        return self._rows.get(key) or (self._index.find(key) if self._index is not None else None)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def __len__(self) -> int:
        if self._index is None:
            return len(self._rows)
        return len(self._index) + sum(self._index.find(key) is None for key in self._rows)

    def __iter__(self) -> Iterator[str]:
        """Keys of all stored clips."""
        yield from self._rows
        if self._index is not None:
            yield from (key for key in self._index if key not in self._rows)

    def read(self, key: str) -> ClipFeatures:
        """Features of one clip; a view of the mapped file where storage is floating point.

        Raises:
            KeyError: the clip is not stored.
            DataError: its part, or the index, is damaged, and was so before it was opened; it is removed.
        """
        found = self._find(key)
        if found is None:
            raise KeyError(key)
        part, row = found
        there = 0 <= part < len(self._parts)
        columns: dict[str, Any] = (self._columns.get(part) or self._opened(part)) if there else {"key": ()}
        if not 0 <= row < len(columns["key"]) or columns["key"][row].as_py() != key:
            (self.folder / INDEX).unlink(missing_ok=True)
            raise DataError(f"{self.folder / INDEX}: a damaged index of the feature store is removed; run this again")
        flat = columns["features"].chunk(0)
        begin, end = flat.offsets[row].as_py(), flat.offsets[row + 1].as_py()
        dtype = STORAGE[self.storage]
        stored = np.frombuffer(flat.values.buffers()[1], dtype=dtype)[begin:end]
        values = stored.reshape(-1, *self.shape)
        if self.storage == "uint8":
            scale, low = columns["scale"][row].as_py(), columns["low"][row].as_py()
            values = values.astype(np.float32) * np.float32(scale) + np.float32(low)
        times = np.asarray(columns["times_s"][row].as_py(), dtype=np.float64)
        return ClipFeatures(key, values, times, columns["damage"][row].as_py())

    def write(self, clips: Iterable[tuple[ClipFeatures, str]]) -> None:
        """Add a part: features with the path each came from (for readers of the table). All or nothing."""
        arrow = _arrow()
        rows = list(clips)
        if not rows:
            return
        flat, scales, lows = [], [], []
        for item, _ in rows:
            if item.features.shape[1:] != self.shape:
                raise ValueError(f"features of shape {item.features.shape[1:]}, the store holds {self.shape}")
            values, scale, low = _pack(item.features, self.storage)
            flat.append(values.ravel())
            scales.append(scale)
            lows.append(low)
        offsets = np.concatenate([[0], np.cumsum([len(v) for v in flat])]).astype(np.int64)
        table = arrow.table(
            {
                "key": [item.key for item, _ in rows],
                "path": [path.encode("utf-8", "backslashreplace").decode() for _, path in rows],
                "frames": arrow.array([len(item.features) for item, _ in rows], arrow.int32()),
                "times_s": [item.times_s.tolist() for item, _ in rows],
                "damage": [item.damage for item, _ in rows],
                "scale": arrow.array(scales, arrow.float32()),
                "low": arrow.array(lows, arrow.float32()),
                "features": arrow.LargeListArray.from_arrays(offsets, arrow.array(np.concatenate(flat))),
            }
        )
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        content = sink.getvalue()
        part = self.folder / f"part-{len(self._parts):05d}-{rows[0][0].key[:8]}-{zlib.crc32(content):08x}.arrow"
        write_bytes(part, content)
        self._open(part)

    def _open(self, part: Path) -> None:
        """Open a part that is not in the index; a damaged one is told and removed."""
        columns, error = self._read(part)
        if error:
            say(f"{part}: a damaged part of the feature store ({error}); its clips are computed again")
            return
        self._columns[len(self._parts)] = columns
        self._parts.append(part)
        for row, key in enumerate(columns["key"].to_pylist()):
            self._rows[key] = (len(self._parts) - 1, row)

    def _opened(self, number: int) -> Any:
        """The columns of a part of the index, checked when the first clip of it is read.

        Raises:
            DataError: it is damaged, though its size and time say that nobody has changed it.
        """
        part = self._parts[number]
        columns, error = self._read(part)
        if error:
            raise DataError(
                f"{part}: a damaged part of the feature store ({error}); run this again: its clips are computed again"
            )
        self._columns[number] = columns
        return columns

    def _read(self, part: Path) -> tuple[Any, str]:
        """The columns of a part, or why it is damaged; then it is removed. DataError: the disk cannot be read."""
        try:
            return _checked(part, self.shape), ""
        except DependencyError:
            raise
        except Exception as error:  # whatever Arrow finds in damaged bytes
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of Arrow
                raise DataError(f"{part}: cannot be read ({why(error, part)})") from error
            part.unlink(missing_ok=True)
            return None, why(error, part)


def _stamps(parts: Iterable[Path]) -> dict[str, Stamp]:
    """Size and time of change of parts, by their names; those that are gone are left out."""
    found = {}
    for part in parts:
        with contextlib.suppress(OSError):
            status = part.stat()
            found[part.name] = (status.st_size, status.st_mtime_ns)
    return found


def _checked(part: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """The columns of a part, mapped, once its checksum and all that Arrow and we read of it hold.

    Raises:
        Exception: of Arrow, or ValueError: it is damaged.
    """
    arrow = _arrow()
    if not part.stat().st_size:
        raise ValueError("it is empty")
    mapped = arrow.memory_map(str(part))
    sealed = CHECKSUM.fullmatch(part.name)
    if sealed and f"{zlib.crc32(mapped.read_buffer()):08x}" != sealed[1]:
        raise ValueError("its checksum is wrong")
    mapped.seek(0)
    table = arrow.ipc.open_file(mapped).read_all()
    table.validate(full=True)
    if missing := set(COLUMNS) - set(table.column_names):
        raise ValueError(f"it has no column {min(missing)}")
    columns = {name: table.column(name) for name in table.column_names}
    if len(table) and any(columns[name].num_chunks != 1 or columns[name].null_count for name in COLUMNS):
        raise ValueError("it is no part of one piece")
    if len(table):
        frames = columns["frames"].to_numpy().astype(np.int64)
        if not np.array_equal(columns["features"].chunk(0).value_lengths().to_numpy(), frames * math.prod(shape)):
            raise ValueError("its features are not of the store's shape")
        if not np.array_equal(columns["times_s"].chunk(0).value_lengths().to_numpy(), frames):
            raise ValueError("its times are not those of its frames")
    return columns


def clip_key(clip: Clip) -> str:
    """Hash of a clip's content (of all frames, for a folder of frames) and its interval.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        if clip.path.is_dir():
            files = sorted(image_files(clip.path))
            for file in files:
                here(file)
            listed = "".join(f"{p.name}:{sha256_of(p)}" for p in files)
            content = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
        else:
            here(clip.path)
            status = clip.path.stat()
            content = _content(clip.path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{clip.path}: cannot be read ({error.strerror or error})") from error
    rate = "" if clip.fps is None else f":{clip.fps:g}"
    return hashlib.sha256(f"{content}:{clip.start_s}:{clip.end_s}{rate}".encode()).hexdigest()


@functools.lru_cache(maxsize=1024)
def _content(path: Path, size: int, changed: int) -> str:
    """The hash of a file, which is read once however many clips are parts of it."""
    return sha256_of(path)


def _pack(features: np.ndarray, storage: str) -> tuple[np.ndarray, float, float]:
    if storage != "uint8":
        return features.astype(STORAGE[storage]), 1.0, 0.0
    low, high = float(features.min()), float(features.max())
    scale = (high - low) / 255 or 1.0
    return np.round((features - low) / scale).clip(0, 255).astype(np.uint8), scale, low


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise DependencyError(f"the feature store needs pyarrow: {how_to_install('train')}") from error
    import pyarrow.ipc

    return pyarrow
