"""The feature store: features of clips on disk, computed once, read memory-mapped.

A store is a folder of Arrow IPC files, one row a clip, and ``spec.json``. The folder's name is the hash of everything
that determines a feature but the clip itself (sampling, resize rule, extractor, storage), a row's key the hash of the
clip's content and interval: a changed setting never finds stale features. A part appears under its final name only when
it is whole, so that a killed extraction resumes where the last part ended.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Clip
from ..errors import DataError, DependencyError
from ..files import atomic_path, sha256_of, write_text
from ..video.folder import image_files

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
        self._rows: dict[str, tuple[int, int]] = {}
        self._tables: list[Any] = []
        for part in sorted(self.folder.glob("part-*.arrow")):
            self._open(part)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def keys(self) -> Iterator[str]:
        """Keys of all stored clips."""
        return iter(self._rows)

    def read(self, key: str) -> ClipFeatures:
        """Features of one clip; a view of the mapped file where storage is floating point.

        Raises:
            KeyError: the clip is not stored.
        """
        table, row = self._rows[key]
        columns = self._tables[table]
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
                "path": [path for _, path in rows],
                "frames": arrow.array([len(item.features) for item, _ in rows], arrow.int32()),
                "times_s": [item.times_s.tolist() for item, _ in rows],
                "damage": [item.damage for item, _ in rows],
                "scale": arrow.array(scales, arrow.float32()),
                "low": arrow.array(lows, arrow.float32()),
                "features": arrow.LargeListArray.from_arrays(offsets, arrow.array(np.concatenate(flat))),
            }
        )
        part = self.folder / f"part-{len(self._tables):05d}-{rows[0][0].key[:8]}.arrow"
        with (
            atomic_path(part) as draft,
            arrow.OSFile(str(draft), "wb") as sink,
            arrow.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        self._open(part)

    def _open(self, part: Path) -> None:
        arrow = _arrow()
        try:
            table = arrow.ipc.open_file(arrow.memory_map(str(part))).read_all()
            keys = table.column("key").to_pylist()
        except (arrow.ArrowInvalid, KeyError, OSError) as error:
            raise DataError(
                f"{part}: not a whole feature file ({error}); delete it to extract its clips again"
            ) from error
        columns = {name: table.column(name) for name in table.column_names}
        self._tables.append(columns)
        for row, key in enumerate(keys):
            self._rows[key] = (len(self._tables) - 1, row)


def clip_key(clip: Clip) -> str:
    """Hash of a clip's content (of all frames, for a folder of frames) and its interval.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        if clip.path.is_dir():
            files = sorted(image_files(clip.path))
            listed = "".join(f"{p.name}:{sha256_of(p)}" for p in files)
            content = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
        else:
            content = sha256_of(clip.path)
    except OSError as error:
        raise DataError(f"{clip.path}: cannot be read ({error.strerror or error})") from error
    rate = "" if clip.fps is None else f":{clip.fps:g}"
    return hashlib.sha256(f"{content}:{clip.start_s}:{clip.end_s}{rate}".encode()).hexdigest()


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
        raise DependencyError("the feature store needs pyarrow: pip install 'vidlet[train]'") from error
    import pyarrow.ipc

    return pyarrow
