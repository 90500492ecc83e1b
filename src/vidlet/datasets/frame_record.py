"""One video of frame features (YouTube-8M): what a record must hold, how it is quantized, and its bytes.

Video level: ``mean_rgb`` and ``mean_audio``, float32 (1024,) and (128,), means of dequantized values. Frame level:
``rgb`` and ``audio``, uint8 (T, 1024) and (T, 128), a frame a second, 300 at most. ``id`` is ``video_id`` in 2017.

Source: Abu-El-Haija et al. 2016, arXiv:1609.08675, and https://research.google.com/youtube8m/download.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..recipe import nearest

FRAME_KEYS, VIDEO_KEYS = ("rgb", "audio"), ("mean_rgb", "mean_audio")

# ``tf.train.Example`` and ``tf.train.SequenceExample`` without TensorFlow: read from and written to their bytes.
#
#     Example          1: Features (context)
#     SequenceExample  1: Features (context)   2: FeatureLists
#     Features         1: map<string, Feature>       FeatureLists  1: map<string, FeatureList>
#     Feature          1: BytesList | 2: FloatList | 3: Int64List     FeatureList  1: repeated Feature
#
# An Example is a SequenceExample without lists. Frames of equal size, one byte string each, lie at equal distances:
# they are read as one array without a loop and without a copy. Source: tensorflow/core/example/{example,feature}.proto.
Values: TypeAlias = "list[bytes] | NDArray[Any]"  # byte strings, float32 (n,) or int64 (n,)
Frames: TypeAlias = "NDArray[np.uint8] | list[Values]"  # (T, D), or what each frame holds where it is not that

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Example(NamedTuple):
    """The named values of a record: of the whole, and of its frames."""

    context: dict[str, Values]
    lists: dict[str, Frames]


def parse_example(data: bytes) -> Example:
    """Read the bytes of an Example or a SequenceExample.

    Arrays of frames are views of ``data``, read-only.

    Raises:
        DataError: these bytes are neither.
    """
    context: dict[str, Values] = {}
    lists: dict[str, Frames] = {}
    for number, kind, begin, end in _fields(data, 0, len(data)):
        if number not in (1, 2) or kind != _BYTES:
            continue
        for inner, inner_kind, first, last in _fields(data, begin, end):
            if inner != 1 or inner_kind != _BYTES:
                continue
            key, value = _entry(data, first, last)
            if number == 1:
                context[key] = _feature(data, *value)
            else:
                lists[key] = _feature_list(data, *value)
    return Example(context, lists)


def encode_example(context: Mapping[str, Values], lists: Mapping[str, Frames] | None = None) -> bytes:
    """Write an Example, or with ``lists`` a SequenceExample, keys in alphabetic order.

    Frames are uint8 (T, D), one byte string a frame, or values of each frame.
    """
    features = b"".join(_map_entry(key, _encode_feature(context[key])) for key in sorted(context))
    if lists is None:
        return _field(1, features)
    entries = b"".join(_map_entry(key, _encode_frames(lists[key])) for key in sorted(lists))
    return _field(1, features) + _field(2, entries)


def _fields(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type and place (begin, end) of each field's content in data[begin:end]."""
    while begin < end:
        tag, begin = _varint(data, begin, end)
        kind = tag & 7
        if kind == _BYTES:
            length, begin = _varint(data, begin, end)
            after = begin + length
        elif kind == _VARINT:
            _, after = _varint(data, begin, end)
        elif kind in (_FIXED64, _FIXED32):
            after = begin + (8 if kind == _FIXED64 else 4)
        else:
            raise DataError(f"not an Example: wire type {kind} at byte {begin} of the record")
        if after > end:
            raise DataError(f"not an Example: a field at byte {begin} of the record ends behind its message")
        yield tag >> 3, kind, begin, after
        begin = after


def _varint(data: bytes, begin: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while begin < end and shift < 70:
        byte = data[begin]
        begin += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, begin
        shift += 7
    raise DataError(f"not an Example: a number at byte {begin} of the record does not end")


def _entry(data: bytes, begin: int, end: int) -> tuple[str, tuple[int, int]]:
    """Key and place of the value of a map's entry."""
    key, value = b"", (end, end)
    for number, kind, first, last in _fields(data, begin, end):
        if number == 1 and kind == _BYTES:
            key = data[first:last]
        elif number == 2 and kind == _BYTES:
            value = (first, last)
    try:
        return key.decode(), value
    except UnicodeDecodeError as error:
        raise DataError(f"not an Example: a key at byte {begin} of the record is not text") from error


def _feature(data: bytes, begin: int, end: int) -> Values:
    for number, kind, first, last in _fields(data, begin, end):
        if kind != _BYTES or number not in (1, 2, 3):
            continue
        if number == 1:
            return [data[a:b] for n, k, a, b in _fields(data, first, last) if (n, k) == (1, _BYTES)]
        return _floats(data, first, last) if number == 2 else _integers(data, first, last)
    return []


def _floats(data: bytes, begin: int, end: int) -> NDArray[np.float32]:
    """A FloatList, packed or not."""
    parts = []
    for number, kind, first, last in _fields(data, begin, end):
        if number == 1 and kind in (_BYTES, _FIXED32):
            if (last - first) % 4:
                raise DataError(f"not an Example: {last - first} bytes at byte {first} of the record are no floats")
            parts.append(np.frombuffer(data, "<f4", (last - first) // 4, first))
    return np.concatenate(parts) if len(parts) != 1 else parts[0]


def _integers(data: bytes, begin: int, end: int) -> NDArray[np.int64]:
    """An Int64List, packed or not."""
    values = []
    for number, kind, first, last in _fields(data, begin, end):
        if number != 1 or kind not in (_BYTES, _VARINT):
            continue
        place = first
        while place < last:
            value, place = _varint(data, place, last)
            values.append(value - (1 << 64) if value >> 63 else value)
    return np.array(values, np.int64)


def _feature_list(data: bytes, begin: int, end: int) -> Frames:
    found = _equal_frames(data, begin, end)
    if found is not None:
        return found
    return [
        _feature(data, first, last)
        for number, kind, first, last in _fields(data, begin, end)
        if (number, kind) == (1, 2)
    ]


def _equal_frames(data: bytes, begin: int, end: int) -> NDArray[np.uint8] | None:
    """Frames (T, D) where each is one byte string of D bytes in the same envelope; else None."""
    inner, last = begin, end
    for level in range(3):  # FeatureList.feature, Feature.bytes_list, BytesList.value
        if inner >= last or data[inner] != 0x0A:
            return None
        length, inner = _varint(data, inner + 1, last)
        if inner + length > last:
            return None
        if level and inner + length != last:  # more in the first frame than one byte string
            return None
        last = inner + length
    stride, head = last - begin, inner - begin
    if (end - begin) % stride:
        return None
    table = np.frombuffer(data, np.uint8, end - begin, begin).reshape(-1, stride)  # (T, head + D)
    return table[:, head:] if (table[:, :head] == table[0, :head]).all() else None


def _number(value: int) -> bytes:
    """A varint; negative numbers as 64 bits."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _map_entry(key: str, value: bytes) -> bytes:
    return _field(1, _field(1, key.encode()) + _field(2, value))


def _encode_feature(values: Values | Sequence[bytes]) -> bytes:
    if isinstance(values, np.ndarray):
        if np.issubdtype(values.dtype, np.floating):
            return _field(2, _field(1, values.astype("<f4").tobytes()))
        return _field(3, _field(1, b"".join(_number(int(value)) for value in values)))
    return _field(1, b"".join(_field(1, value) for value in values))


def _encode_frames(frames: Frames) -> bytes:
    if not isinstance(frames, np.ndarray):
        return b"".join(_field(1, _encode_feature(values)) for values in frames)
    count, size = frames.shape
    empty = _field(1, _field(1, _field(1, bytes(size))))
    head = np.frombuffer(empty[: len(empty) - size], np.uint8)
    table = np.empty((count, len(empty)), np.uint8)
    table[:, : len(head)], table[:, len(head) :] = head, frames
    return table.tobytes()


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
