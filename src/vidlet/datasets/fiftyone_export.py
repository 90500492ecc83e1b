"""FiftyOne's temporal detections: labels.json beside data/ (FiftyOneTemporalDetectionDataset), or samples.json.

Source: docs.voxel51.com, "Exporting FiftyOne datasets": ``support`` is the [first, last] frame of a detection, counted
from 1, both included; ``timestamps`` are [start, stop] in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .segments import Segment, ignored_note, segment_table
from .table import ClipTable, split_name
from .texts import begins_with, json_of

FILES = ("labels.json", "samples.json")
KEYS = (b'"support"', b'"timestamps"', b'"filepath"')
TIMES = ("support", "timestamps")
TEMPORAL = ("TemporalDetections", "TemporalDetection")


def fiftyone_file(path: Path) -> Path | None:
    """The file of FiftyOne's labels that ``path`` is, or that lies in it; None where there is none."""
    for file in (path / name for name in FILES) if path.is_dir() else [path]:
        wanted = file.suffix.lower() == ".json" and begins_with(file, b"{", KEYS)
        if wanted and _is_fiftyone(json_of(file)):
            return file
    return None


def _is_fiftyone(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    labels, samples = found.get("labels"), found.get("samples")
    if isinstance(labels, dict):
        first: Any = next((items for items in labels.values() if items), [])
        return isinstance(first, list) and all(isinstance(x, dict) and set(TIMES) & set(x) for x in first)
    return isinstance(samples, list) and all(isinstance(one, dict) and "filepath" in one for one in samples[:10])


def read_fiftyone(file: Path) -> ClipTable:
    """Read temporal detections, and no other labels.

    Raises:
        DataError: a detection without times, no detection at all, or none of the videos is there.
    """
    found = json_of(file)
    others: list[str] = []
    rows = _of_labels(found) if "labels" in found else _of_samples(found["samples"], others)
    segments = [_segment(video, item, split, file) for video, item, split in rows]
    return segment_table(segments, file, "FiftyOne", ignored_note(others), [file.parent / "data"])


def _of_labels(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    classes = found.get("classes")
    for name, items in found["labels"].items():
        for item in items or []:
            label = item.get("label")
            if isinstance(classes, list) and isinstance(label, int) and 0 <= label < len(classes):
                label = classes[label]
            yield str(name), {**item, "label": label}, ""


def _of_samples(samples: list[dict[str, Any]], others: list[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    for sample in samples:
        tags = sample.get("tags") if isinstance(sample.get("tags"), list) else []
        split = next((name for tag in tags or [] if (name := split_name(str(tag)))), "")
        for value in sample.values():
            kind = value.get("_cls") if isinstance(value, dict) else None
            if kind in TEMPORAL:
                items = value.get("detections") if kind == TEMPORAL[0] else [value]
                yield from ((str(sample["filepath"]), item, split) for item in items or [])
            elif isinstance(kind, str) and not kind.endswith("Metadata"):
                others.append(kind)


def _segment(video: str, item: dict[str, Any], split: str, file: Path) -> Segment:
    label, support, times = (item.get(key) for key in ("label", *TIMES))
    if label is None or str(label).strip() == "":
        raise DataError(f"{file}: {video}: a detection without a label")
    name = str(label).strip()
    where = f"{name} {support or times}"
    if pair := _pair(support):
        return Segment(video, (name,), where, frames=(int(pair[0]) - 1, int(pair[1]) - 1), split=split)
    if pair := _pair(times):
        return Segment(video, (name,), where, float(pair[0]), float(pair[1]), split=split)
    raise DataError(f"{file}: {video}: detection {name!r} has neither support nor timestamps of two numbers")


def _pair(value: Any) -> list[float]:
    """Two numbers, or none."""
    sound = isinstance(value, list) and len(value) == 2 and all(isinstance(n, (int, float)) for n in value)
    return value if sound and max(map(abs, value)) < 1e9 else []
