"""The metadata of an artifact: one JSON object under the key ``vidlet`` of the ONNX file, and what it must hold.

``schema/artifact.json`` describes the same object for other languages.

The hash of the graph is the SHA-256 of the file's bytes without this entry: take the file, leave out every field 14
(metadata_props) of the outermost protobuf message whose key is ``vidlet`` (its tag, its length and its content), hash
what remains in its order. So evidence inside the entry can name the graph that was measured.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ModelError
from ..files import write_bytes
from .onnx_wire import MAX_FILE_BYTES, metadata_entries

KEY = "vidlet"
DESCRIPTION = "vidlet.json"  # the same object in the archive at the end of a .tflite file
LITERT = b"TFL3"  # behind the first four bytes of a .tflite file
CHECKSUM = "checksum"
FORMAT = "1.0"
MAX_METADATA_BYTES = 2**24
HZ, MEDIAN_S, MAX_FRAMES = (0.001, 1000.0), (0.001, 86400.0), 4096  # what a reader is willing to sample by
INPUTS = (["frames"], ["frames", "flow"], ["rgb"], ["rgb", "audio"])


def read_model_bytes(path: str | Path) -> bytes:
    """Read a model file once, whole.

    Raises:
        ModelError: absent, not a file, unreadable, empty, or larger than an ONNX file can be.
    """
    path = Path(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ModelError(f"{path}: not a file")
        if info.st_size > MAX_FILE_BYTES:
            raise ModelError(f"{path}: {info.st_size} bytes, more than an ONNX file can have ({MAX_FILE_BYTES})")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if data[4:8] == LITERT:
        raise ModelError(f"{path}: {_of_litert(path, data)}")
    return data


def _of_litert(path: Path, data: bytes) -> str:
    """What a .tflite file is, what runs it, and what is to be used here instead."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            made_of = json.loads(archive.read(DESCRIPTION))["made_of"]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError, RuntimeError, RecursionError):
        return (
            "a file for LiteRT (TensorFlow Lite), and none of vidlet; of an image model, `vidlet export` makes an "
            "extractor that `vidlet train --extractor` takes"
        )
    beside = [other for other in sorted(path.parent.glob("*.onnx")) if _has_graph(other, made_of)]
    use = str(beside[0]) if beside else "the .onnx file of the run that it was exported from"
    return f"a file for LiteRT, which runs it on phones and boards (docs/clients.md); here, use {use}"


def _has_graph(path: Path, sha256: str) -> bool:
    try:
        return graph_sha256(path.read_bytes()) == sha256
    except (OSError, ModelError):
        return False


def read_metadata(source: str | Path | bytes, where: str = "model") -> dict[str, Any]:
    """Return the validated metadata of an artifact, given its path or its bytes (then ``where`` names it).

    Raises:
        ModelError: not an ONNX file, not one of ours, of another major version, metadata that make no sense, or a file
            whose content is not what its checksum says (files without one are older, and are read).
    """
    if isinstance(source, bytes):
        data = source
    else:
        data, where = read_model_bytes(source), str(source)
    entries = [entry for entry in metadata_entries(data, where) if entry.key == KEY]
    if not entries:
        raise ModelError(f"{where}: an ONNX file, but not a vidlet model (no {KEY!r} metadata in it)")
    if len(entries) > 1:
        raise ModelError(f"{where}: {len(entries)} {KEY!r} metadata entries, there must be one")
    start, end = entries[0].value
    metadata = validate_metadata(_parse_json(data[start:end], where), where)
    told = metadata.pop(CHECKSUM, None)
    if told is not None and told != _checksum(data, metadata, where):
        raise ModelError(f"{where}: damaged, its content is not what was written (the checksum in it differs)")
    return metadata


def is_ours(path: str | Path) -> bool:
    """Whether a file is an ONNX file with an entry ``vidlet``, whatever stands in it.

    Raises:
        ModelError: it cannot be read, or is no ONNX file.
    """
    data = read_model_bytes(path)
    return any(entry.key == KEY for entry in metadata_entries(data, str(path)))


def write_metadata(path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Put the metadata into an ONNX file in place of what it had; all other bytes stay as they are.

    The checksum of the whole file is put in: with it a reader finds a changed byte. The file is replaced whole or not
    at all.

    Raises:
        ModelError: not an ONNX file, or metadata that ``validate_metadata`` refuses.
    """
    data, where = read_model_bytes(path), str(path)
    metadata = validate_metadata(metadata, where)
    metadata.pop(CHECKSUM, None)
    plain = json.loads(json.dumps(metadata, allow_nan=False))  # as a reader will see them
    text = json.dumps({**plain, CHECKSUM: _checksum(data, plain, where)}, ensure_ascii=False)
    entry = _field(1, KEY.encode()) + _field(2, _as_utf8(text))
    write_bytes(path, _without_entry(data, where) + _field(14, entry))


def graph_sha256(data: bytes, where: str = "model") -> str:
    """SHA-256 of an ONNX file's bytes without the ``vidlet`` metadata entry (see the head of this module)."""
    return hashlib.sha256(_without_entry(data, where)).hexdigest()


def _as_utf8(text: str) -> bytes:
    """JSON as bytes; half a surrogate pair, as names that are not UTF-8 have, is written as an escape."""
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _checksum(data: bytes, metadata: Mapping[str, Any], where: str) -> str:
    """SHA-256 over the file without our entry, then over the metadata without this sum as JSON with sorted keys."""
    digest = hashlib.sha256(_without_entry(data, where))
    digest.update(json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    return digest.hexdigest()


def _without_entry(data: bytes, where: str) -> bytes:
    parts, at = [], 0
    for entry in metadata_entries(data, where):
        if entry.key == KEY:
            parts.append(data[at : entry.span[0]])
            at = entry.span[1]
    return b"".join([*parts, data[at:]])


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _parse_json(content: bytes, where: str) -> Any:
    if len(content) > MAX_METADATA_BYTES:
        raise ModelError(f"{where}: {len(content)} bytes of metadata, more than {MAX_METADATA_BYTES}")

    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(content.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: its metadata are not JSON ({error})") from error


def validate_metadata(metadata: Any, where: str = "metadata") -> dict[str, Any]:
    """Check a metadata object against the rules of ``schema/artifact.json``; return it as a dict.

    Keys that this version does not know are kept: a later minor version may add some.

    Raises:
        ModelError: names the key and the rule.
    """
    if not isinstance(metadata, Mapping):
        raise ModelError(f"{where}: metadata must be an object, got {type(metadata).__name__}")
    _check_format(metadata.get("format"), where)
    for key, (rule, holds) in _RULES.items():
        if key not in metadata:
            if key in _REQUIRED:
                raise ModelError(f"{where}: metadata key {key} is missing")
        elif not holds(metadata[key]):
            raise ModelError(f"{where}: metadata key {key} must be {rule}, got {_short(metadata[key])}")
    if not metadata["labels"] and not metadata.get("box_labels"):
        raise ModelError(f"{where}: metadata key labels must not be empty where there are no box_labels")
    if (label := metadata.get("none", {}).get("label")) and label not in metadata["labels"]:
        raise ModelError(f"{where}: metadata key none names {_short(label)}, which is none of the labels")
    if "frames" in metadata["inputs"] and "resize" not in metadata:
        raise ModelError(f"{where}: metadata key resize is missing (the model takes frames)")
    return dict(metadata)


def _check_format(version: Any, where: str) -> None:
    major, dot, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise ModelError(f'{where}: metadata key format must be a version such as "{FORMAT}", got {_short(version)}')
    if major != FORMAT.partition(".")[0]:
        raise ModelError(f"{where}: format {_short(version)}, this vidlet reads format 1; a newer vidlet may read it")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    )


def _sampling(value: Any) -> bool:
    if not isinstance(value, dict) or not _between(value.get("median_s"), *MEDIAN_S):
        return False
    if value.get("rule") == "rate":
        return _between(value.get("hz"), *HZ)
    return value.get("rule") == "uniform" and _count(value.get("frames")) and 1 <= value["frames"] <= MAX_FRAMES


def _named_rule(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("rule"), str) and bool(value["rule"])


def _evidence(value: Any) -> bool:
    texts = ("data", "table_sha256", "command", "graph_sha256")
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and isinstance(row.get("what"), str)
        and "value" in row
        and all(isinstance(row.get(key, ""), str) for key in texts)
        for row in value
    )


def _none(value: Any) -> bool:
    return (
        isinstance(value, dict) and _between(value.get("threshold"), 0, 1) and isinstance(value.get("label", ""), str)
    )


def _sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(_count(size) for size in value.values())


_REQUIRED = ("labels", "inputs", "sampling")
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "labels": ("a list of different names", _names),
    "box_labels": ("a list of different names", _names),
    "inputs": (f"one of {', '.join(str(kind) for kind in INPUTS)}", lambda value: value in INPUTS),
    "sampling": (
        f'{{"rule": "rate", "hz": {HZ[0]} to {HZ[1]:g}}} or {{"rule": "uniform", "frames": 1 to {MAX_FRAMES}}}, with '
        f"median_s {MEDIAN_S[0]} to {MEDIAN_S[1]:g}",
        _sampling,
    ),
    "resize": ('an object with the name of its "rule"', _named_rule),
    "flow": ('an object with the name of its "rule"', _named_rule),
    "multi_label": ("true or false", lambda value: isinstance(value, bool)),
    "recipe": ("an object", lambda value: isinstance(value, dict)),
    "provenance": ("an object", lambda value: isinstance(value, dict)),
    "temperature": ("a positive number or null", lambda value: value is None or _between(value, 1e-6, 1e6)),
    "none": ('an object with a "threshold" from 0 to 1, and perhaps a "label"', _none),
    "evidence": ('a list of objects with "what" and "value", and texts data, table_sha256, command', _evidence),
    "sizes": ("an object of byte counts", _sizes),
    CHECKSUM: ("a text", lambda value: isinstance(value, str)),
}
