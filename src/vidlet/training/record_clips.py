"""Records of frame features as padded batches: quantized codes become numbers before padding, so that padding is 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from ..datasets.frame_record import dequantize, frame_codes
from ..datasets.table import StoredRecords
from ..errors import DataError
from .batches import Batch, Draw, FeatureClips

MOMENT_CLIPS = 2000  # read to find mean and deviation


class RecordClips:
    """Some records of a set as clips for the training loop, read anew each epoch.

    Args:
        rows: numbers of the records in ``records``.
        classes: K; labels are below it.
        keys: features that stand side by side in a frame, e.g. ("rgb", "audio"); records of means have one frame.
            Asked for "rgb", a record that has only "mean_rgb" gives it quantized, as the exported model takes it.
        max_frames, one_way: see FeatureClips.
        keep_bytes: of records that stay in memory once they were read.

    Raises:
        DataError: a record whose label is outside 0..K-1; names id and shard.
    """

    def __init__(
        self,
        records: StoredRecords,
        rows: Sequence[int],
        classes: int,
        keys: Sequence[str] = ("rgb", "audio"),
        max_frames: int = 300,
        one_way: np.ndarray | None = None,
        keep_bytes: int = 0,
    ) -> None:
        self.records, self.rows, self.keys = records, list(rows), tuple(keys)
        self.classes = classes
        labels = [records.labels[row] for row in self.rows]
        for row, own in zip(self.rows, labels, strict=True):
            if own and not 0 <= min(own) <= max(own) < classes:
                raise DataError(f"{records.where(row)}: labels {own} do not fit {classes} classes")
        self._labels = _MultiHot(labels, classes)
        names = [records.ids[row] for row in self.rows]
        self._room, self._kept = keep_bytes, dict[int, np.ndarray]()
        self._one_way, self._max_frames = one_way, max_frames
        spread = np.ones(self._read(0).shape[1] if self.rows else 1, np.float32)
        self._clips = FeatureClips(self._read, cast(np.ndarray, self._labels), names, spread, max_frames, one_way)

    @property
    def targets(self) -> np.ndarray:
        """(N, K) float32, made when asked for: 15 GB for a million records of 3862 classes, so ask of few."""
        return self._labels[range(len(self.rows))]

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, draw: Draw) -> Iterator[Batch]:
        """See Clips.batches. x is float32 (B, T, D), D the keys' sizes together."""
        return self._clips.batches(draw)

    def with_targets(self, change: Callable[[Any], Any]) -> FeatureClips:
        """See FeatureClips.with_targets; ``change`` gets the labels as what makes rows (n, K) when asked for them."""
        return self._clips.with_targets(change)

    def frames_of(self, index: int) -> np.ndarray:
        """The frames of a clip, float32 (T, D)."""
        return self._read(index)

    def dense(self, spread: np.ndarray) -> FeatureClips:
        """The same clips with their targets (N, K) in memory; ``spread`` (D,) is the unit of "noise" (augmentation)."""
        names = [self.records.ids[row] for row in self.rows]
        return FeatureClips(self._read, self.targets, names, spread, self._max_frames, self._one_way)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each feature over the frames of up to 2000 clips: (D,), (D,) float32."""
        chosen = np.linspace(0, len(self.rows) - 1, min(len(self.rows), MOMENT_CLIPS)).astype(int)
        count, total, squares = 0, np.zeros(0), np.zeros(0)
        for index in chosen:
            x = self._read(int(index)).astype(np.float64)  # (T, D)
            count += len(x)
            total, squares = (total + x.sum(0), squares + (x**2).sum(0)) if total.size else (x.sum(0), (x**2).sum(0))
        mean = total / count
        return mean.astype(np.float32), np.sqrt(np.maximum(squares / count - mean**2, 0)).astype(np.float32)

    def _read(self, index: int) -> np.ndarray:
        """The frames of a clip, float32 (T, D)."""
        if index in self._kept:
            return dequantize(self._kept[index])
        record = self.records.read(self.rows[index])
        if any(key.startswith("mean_") for key in self.keys):
            return np.concatenate([record.features[key][None] for key in self.keys], axis=1)
        codes = frame_codes(record, self.keys)
        if codes.nbytes <= self._room:
            self._room -= codes.nbytes
            self._kept[index] = codes
        return dequantize(codes)


class _MultiHot:
    """Labels of N clips that look like a matrix (N, K) and become one row by row."""

    def __init__(self, labels: Sequence[tuple[int, ...]], classes: int) -> None:
        self.labels, self.classes = labels, classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        found = np.zeros((len(rows), self.classes), np.float32)
        for place, row in enumerate(rows):
            found[place, list(self.labels[row])] = 1
        return found
