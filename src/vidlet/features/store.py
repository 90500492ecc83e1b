"""The feature store: features of clips on disk, computed once, read memory-mapped.

A store is a folder of Arrow IPC files, one row a clip, and ``spec.json``. The folder's name is the hash of everything
that determines a feature but the clip itself (sampling, resize rule, extractor, storage), a row's key the hash of the
clip's content and interval: a changed setting never finds stale features. A part appears under its final name only when
it is whole, so that a killed extraction resumes where the last part ended. Its name ends with its checksum: a part that
is damaged is told, removed, and its clips are computed again. Where parts are many, an index says which clips they
hold (part_index.py): then a part is read when the first of its clips is. Pages that were read are given back before
they are many (resident.py), so that a store takes as little memory as its clips, however many they are.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from .part_index import KEY_BYTES, Stamp, digest_of, joined_index, key_of, read_index, write_index
from .part_index import NAME as INDEX
from .resident import AROUND_BYTES, give_back_later

COLUMNS = ("key", "frames", "times_s", "damage", "scale", "low", "features")
INDEXED_PARTS = 64  # from so many on the store has an index
LOOSE_ROWS = 4096  # from so many on, and an eighth of those that are sorted, rows are sorted into an index in memory
OPEN_PARTS = 32_000  # that a store holds mapped, of 8 kB each; Linux allows a process 65,530 maps
PIECE_BYTES = 1 << 20  # of a file that are in memory while it is checked
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
        held: parts that stay open; few do where clips are read in the order in which they were stored.
    """

    def __init__(self, root: str | os.PathLike[str], setting: Mapping[str, Any], held: int = OPEN_PARTS) -> None:
        self.setting, self.held = dict(setting), held
        self.shape = tuple(int(n) for n in self.setting["shape"])
        self.storage = str(self.setting["storage"])
        text = json.dumps(self.setting, sort_keys=True)
        self.folder = Path(root) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "spec.json").exists():
            write_text(self.folder / "spec.json", json.dumps(self.setting, indent=1, sort_keys=True))
        self._rows: dict[str, tuple[int, int]] = {}  # number of the part and row, where the index does not say them
        self._parts: list[Path] = []
        self._batches: dict[int, _Mapped] = {}  # number of the part -> its rows, of those opened last
        self._whole: set[int] = set()  # parts that were checked once
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
        if self._sorted() and self._index is not None:
            write_index(_arrow(), self.folder, self._index, _stamps(self._parts))

    def _sorted(self) -> bool:
        """Sort the rows into an index in memory: 40 bytes a clip instead of 300; False: a key is no clip's hash."""
        with contextlib.suppress(ValueError):
            self._index = joined_index([part.name for part in self._parts], self._index, self._rows)
            self._rows = {}
        return not self._rows

    def _add(self, part: Path, keys: Iterable[str]) -> None:
        """Know the rows of a part."""
        self._rows |= {key: (len(self._parts), row) for row, key in enumerate(keys)}
        self._parts.append(part)
        if len(self._rows) >= max(LOOSE_ROWS, len(self._index or ()) // 8):
            self._sorted()

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
        opened = (self._batches.get(part) or self._opened(part)) if there else None
        if opened is None or not opened.has(row, key):
            (self.folder / INDEX).unlink(missing_ok=True)
            raise DataError(f"{self.folder / INDEX}: a damaged index of the feature store is removed; run this again")
        begin, end = opened.bounds[row : row + 2].tolist()
        stored = np.frombuffer(opened.features, dtype=STORAGE[self.storage])[begin:end]
        values = stored.reshape(-1, *self.shape)
        if self.storage == "uint8":
            scale, low = opened.rows.column("scale")[row].as_py(), opened.rows.column("low")[row].as_py()
            values = values.astype(np.float32) * np.float32(scale) + np.float32(low)
        times = opened.times[opened.time_bounds[row] : opened.time_bounds[row + 1]].copy()
        give_back_later(opened.file, stored.nbytes)
        return ClipFeatures(key, values, times, opened.rows.column("damage")[row].as_py())

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
        self._add(part, [item.key for item, _ in rows])

    def _open(self, part: Path) -> None:
        """Open a part that is not in the index; a damaged one is told and removed."""
        batch, error = self._read(part)
        if batch is None:
            say(f"{part}: a damaged part of the feature store ({error}); its clips are computed again")
            return
        self._hold(len(self._parts), batch)
        self._add(part, batch.rows.column("key").to_pylist())

    def _hold(self, number: int, batch: _Mapped) -> None:
        """Keep the rows of a part that was checked mapped, and let go of those that were opened first."""
        for first in list(self._batches)[: len(self._batches) + 1 - self.held]:
            self._batches.pop(first, None)
        self._batches[number] = batch
        self._whole.add(number)

    def _opened(self, number: int) -> _Mapped:
        """The rows of a part of the index, or of one written here, checked when it is opened first.

        Raises:
            DataError: it is damaged, though its size and time say that nobody has changed it.
        """
        part = self._parts[number]
        batch, error = self._read(part, number not in self._whole)
        if batch is None:
            raise DataError(
                f"{part}: a damaged part of the feature store ({error}); run this again: its clips are computed again"
            )
        self._hold(number, batch)
        return batch

    def _read(self, part: Path, check: bool = True) -> tuple[_Mapped | None, str]:
        """The rows of a part, or why it is damaged; then it is removed. DataError: the disk cannot be read."""
        try:
            return _mapped(part, self.shape if check else None), ""
        except DependencyError:
            raise
        except Exception as error:  # whatever Arrow finds in damaged bytes
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of Arrow
                raise DataError(f"{part}: cannot be read ({why(error, part)})") from error
            part.unlink(missing_ok=True)
            return None, why(error, part)


class Keys(Sequence[str | None]):
    """The keys of many clips, 32 bytes each; None where a clip has none, as all at first."""

    def __init__(self, count: int) -> None:
        self.digests = np.zeros(count, f"S{KEY_BYTES}")

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        digest = self.digests[index]
        return key_of(digest) if digest else None

    def __setitem__(self, index: int, key: str | None) -> None:
        self.digests[index] = digest_of(key) if key else b""


def _stamps(parts: Iterable[Path]) -> dict[str, Stamp]:
    """Size and time of change of parts, by their names; those that are gone are left out."""
    found = {}
    for part in parts:
        with contextlib.suppress(OSError):
            status = part.stat()
            found[part.name] = (status.st_size, status.st_mtime_ns)
    return found


class _Mapped:
    """The rows of a part, and its file, both of Arrow and mapped; what is long of them also as views of NumPy."""

    def __init__(self, rows: Any, file: Any) -> None:
        self.rows, self.file = rows, file
        self.keys = rows.column("key")
        flat, times = rows.column("features"), rows.column("times_s")
        self.bounds, self.time_bounds = flat.offsets.to_numpy(), times.offsets.to_numpy()
        self.features = flat.values.buffers()[1]
        self.times = np.asarray(times.values.to_numpy(), np.float64)

    def has(self, row: int, key: str) -> bool:
        """Whether a clip is in that row."""
        return 0 <= row < len(self.keys) and bool(self.keys[row].as_py() == key)


def _mapped(part: Path, shape: tuple[int, ...] | None) -> _Mapped:
    """The rows of a part, mapped.

    Args:
        shape: of a frame's features: the part's checksum and all that Arrow and we read of it is checked.

    Raises:
        Exception: of Arrow, or ValueError: it is damaged.
    """
    arrow = _arrow()
    if not part.stat().st_size:
        raise ValueError("it is empty")
    sealed = CHECKSUM.fullmatch(part.name)
    if shape is not None and sealed and f"{_checksum(part):08x}" != sealed[1]:
        raise ValueError("its checksum is wrong")
    mapped = arrow.memory_map(str(part))
    file = mapped.read_buffer()
    give_back_later(file, AROUND_BYTES)  # its begin and its end are read
    mapped.seek(0)
    batches = arrow.ipc.open_file(mapped)
    if batches.num_record_batches != 1:
        raise ValueError("it is no part of one piece")
    batch = batches.get_batch(0)
    if shape is None:
        return _Mapped(batch, file)
    batch.validate(full=True)
    if missing := set(COLUMNS) - set(batch.schema.names):
        raise ValueError(f"it has no column {min(missing)}")
    if any(batch.column(name).null_count for name in COLUMNS):
        raise ValueError("it is no part of one piece")
    frames = batch.column("frames").to_numpy().astype(np.int64)
    if not np.array_equal(batch.column("features").value_lengths().to_numpy(), frames * math.prod(shape)):
        raise ValueError("its features are not of the store's shape")
    if not np.array_equal(batch.column("times_s").value_lengths().to_numpy(), frames):
        raise ValueError("its times are not those of its frames")
    return _Mapped(batch, file)


def _checksum(part: Path) -> int:
    """CRC-32 of a file, of which a piece is in memory at a time."""
    found, piece = 0, memoryview(bytearray(PIECE_BYTES))
    with part.open("rb", buffering=0) as file:
        while size := file.readinto(piece):
            found = zlib.crc32(piece[:size], found)
    return found


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
        return features.astype(STORAGE[storage], copy=False), 1.0, 0.0
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
