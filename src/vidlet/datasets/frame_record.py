"""One video of frame features (YouTube-8M): what a record must hold, how it is quantized, and its bytes.

Video level: ``mean_rgb`` and ``mean_audio``, float32 (1024,) and (128,), means of dequantized values. Frame level:
``rgb`` and ``audio``, uint8 (T, 1024) and (T, 128), a frame a second, 300 at most. ``id`` is ``video_id`` in 2017.

Source: Abu-El-Haija et al. 2016, arXiv:1609.08675, and https://research.google.com/youtube8m/download.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..recipe import nearest
from .example import Example, Frames, Values, encode_example

FRAME_KEYS, VIDEO_KEYS = ("rgb", "audio"), ("mean_rgb", "mean_audio")
ID_KEYS = ("id", "video_id")
MAX_FRAMES = 300


@dataclass(frozen=True, eq=False)
class Record:
    """One video: its id, class indices, and features by key (see the head of this file)."""

    id: str
    labels: tuple[int, ...]
    features: Mapping[str, NDArray[Any]]

    @property
    def frames(self) -> int:
        """How many frames there are; 0 of a record of means."""
        return next((len(self.features[key]) for key in FRAME_KEYS if key in self.features), 0)


def dequantize(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Codes 0..255 as float32: q * 4/255 + 4/512 - 2 (the bias of 1/128 included: models were trained with it)."""
    values = codes.astype(np.float32)
    values *= np.float32(4 / 255)
    values += np.float32(4 / 512 - 2)
    return values


def quantize(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values as codes: round((clip(x, -2, 2) + 2) * 255/4)."""
    return np.rint((np.clip(values, -2, 2) + 2) * (255 / 4)).astype(np.uint8)


def frame_codes(record: Record, keys: Sequence[str]) -> NDArray[np.uint8]:
    """The frames of a record as codes (T, D), modalities side by side; means are quantized and count as one frame.

    Raises:
        DataError: the record lacks one of ``keys`` ("rgb", "audio").
    """
    parts = []
    for key in keys:
        if key in record.features:
            parts.append(record.features[key])
        elif f"mean_{key}" in record.features:
            parts.append(quantize(record.features[f"mean_{key}"])[None])
        else:
            raise DataError(f"id {record.id}: has no {key}, only {', '.join(record.features)}")
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def to_record(example: Example) -> tuple[Record, list[str]]:
    """A record and the keys of ``example`` that nobody reads.

    Raises:
        DataError: a key is missing or holds something else, there are no frames, or not equally many.
    """
    context, lists = example
    name = next((key for key in ID_KEYS if key in context), None)
    wanted = FRAME_KEYS if lists else VIDEO_KEYS
    held: Mapping[str, Values | Frames] = lists or context
    unread = [key for key in (*context, *lists) if key not in (*ID_KEYS, "labels", *wanted)]
    features: dict[str, NDArray[Any]] = {}
    for key in wanted:
        if key in held:
            features[key] = _frames(key, lists[key]) if lists else _vector(key, context[key])
    if not features:
        hint = f"; has {', '.join(unread)}{nearest(unread[0], wanted)}" if unread else ""
        raise DataError(f"no features: neither {' nor '.join((*FRAME_KEYS, *VIDEO_KEYS))}{hint}")
    counts = {key: len(value) for key, value in features.items()}
    if lists and not all(counts.values()):
        raise DataError("no frames")
    if lists and len(set(counts.values())) > 1:
        raise DataError("unequal numbers of frames: " + ", ".join(f"{count} of {key}" for key, count in counts.items()))
    if name is None:
        hint = f"; has {', '.join(unread)}{nearest(unread[0], ID_KEYS)}" if unread else ""
        raise DataError(f"no id: neither {' nor '.join(ID_KEYS)}{hint}")
    labels = context.get("labels", np.empty(0, np.int64))
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        if len(labels):
            raise DataError("labels are not whole numbers")
        labels = np.empty(0, np.int64)
    if lists:
        features = {key: value[:MAX_FRAMES] for key, value in features.items()}
    return Record(id_text(context[name]), tuple(labels.tolist()), features), unread


def check_record(record: Record, classes: int | None, sizes: Mapping[str, int] | None) -> None:
    """Hold a record to a vocabulary and to the sizes of features.

    Raises:
        DataError: what differs.
    """
    for label in record.labels:
        if label < 0 or (classes is not None and label >= classes):
            fit = f"outside 0..{classes - 1}: another vocabulary?" if classes is not None else "below 0"
            raise DataError(f"label {label} is {fit}")
    if sizes is None:
        return
    found = {key: int(value.shape[-1]) for key, value in record.features.items()}
    if found != dict(sizes):
        raise DataError(f"features are {_sizes(found)}; expected {_sizes(sizes)}")


def encode_record(record: Record, id_key: str = "id") -> bytes:
    """A record as the bytes of an Example or SequenceExample; ``id_key`` "video_id" for readers of 2017."""
    context: dict[str, Values] = {id_key: [record.id.encode()], "labels": np.array(record.labels, np.int64)}
    frames: dict[str, Frames] = {key: np.asarray(record.features[key]) for key in FRAME_KEYS if key in record.features}
    context |= {key: record.features[key] for key in VIDEO_KEYS if key in record.features}
    return encode_example(context, frames or None)


def _frames(key: str, value: Frames) -> NDArray[np.uint8]:
    if isinstance(value, np.ndarray):
        return value
    if any(not isinstance(one, list) or len(one) != 1 for one in value):
        raise DataError(f"{key}: a frame is not one byte string")
    if len({len(one[0]) for one in value}) > 1:
        raise DataError(f"{key}: frames of unequal size")
    return np.array([np.frombuffer(one[0], np.uint8) for one in value], np.uint8)


def _vector(key: str, value: Values) -> NDArray[np.float32]:
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or not len(value):
        raise DataError(f"{key}: no list of floats")
    if not np.isfinite(value).all():
        raise DataError(f"{key}: holds a value that is not finite")
    return value


def id_text(values: Values) -> str:
    """The text of an id.

    Raises:
        DataError: it is not one byte string.
    """
    if not isinstance(values, list) or len(values) != 1:
        raise DataError("id is not one byte string")
    return values[0].decode(errors="replace")


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{key} of {size}" for key, size in sizes.items())
