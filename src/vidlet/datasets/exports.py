"""What labelling tools and hubs write, recognized by their files: the table of their readers.

A line is (name, find, read): ``find`` gives what ``read`` takes, or nothing where a path is not that tool's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import DataError, reading
from ..labels import label_order
from .csv_table import Rows, named_rows, stream_csv, table_of_rows
from .cvat import cvat_file, read_cvat
from .media import visible
from .segments import Segment, ignored_note, segment_table
from .table import ClipTable, split_name
from .texts import PARQUET, begins_with, cell_text, json_of, parquet_file, read_text, text_lines

# Hugging Face's VideoFolder: metadata.csv, .jsonl or .parquet beside the videos, one or one a split.
#
# Source: huggingface.co/docs/datasets/video_load: a column ``file_name``, relative to the file; other columns are those
# of our own tables (label, group, split, start, end). Splits are the names of the folders. Where labels are numbers,
# their names are those that the Parquet file's own description or README.md has.
NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SUFFIXES = (".jsonl", PARQUET)  # files of rows under any name
DEPTH = 2  # folders in folders in which metadata lie


def metadata_files(path: Path) -> list[Path]:
    """The files of rows that ``path`` is or that lie in it, in DATA/train or DATA/data/train."""
    if path.is_file():
        return [path] if path.name in NAMES or path.suffix.lower() in SUFFIXES else []
    found, level = [], [path] if path.is_dir() else []
    for _ in range(DEPTH + 1):
        found += [folder / name for folder in level for name in NAMES if (folder / name).is_file()]
        inside = (entry for folder in level for entry in visible(folder) if _may_hold(entry.name)) if not found else ()
        level = [entry for entry in inside if entry.is_dir()]
    return found


def _may_hold(name: str) -> bool:
    """Whether metadata may lie in a folder of this name: thousands of others are not looked into."""
    return name.casefold() == "data" or bool(split_name(name))


def read_metadata(files: list[Path], path: Path) -> ClipTable:
    """Read the rows of all files, found at ``path``, as one table.

    Raises:
        DataError: a file that is no table, no label, or no video is there; DependencyError: Parquet without pyarrow.
    """
    tables, root = [], path if path.is_dir() else path.parent
    for file in files:
        (rows, decimal, told), names = _rows(file)
        names = names or _names_of_card(file.parent, root)
        named = ((line, {**row, "label": _named(row["label"], names)}) for line, row in rows)
        table = table_of_rows(named, decimal, file)
        table = replace(table, notes=(*table.notes, *told))
        folders = [folder.name for folder in (file.parent, *file.parent.parents) if folder.is_relative_to(root)]
        split = next((name for folder in folders[: DEPTH + 1] if (name := split_name(folder))), "")
        tables.append(table.with_clips(replace(clip, split=clip.split or split) for clip in table))
    if len(tables) == 1:
        return tables[0]
    clips = tuple(clip for table in tables for clip in table)
    labels = label_order((name for clip in clips for name in clip.labels), str(root))
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return ClipTable(clips, labels, root, notes, tuple(row for table in tables for row in table.skipped))


def _rows(file: Path) -> tuple[Rows, list[str]]:
    """The rows of a file, and the names of its labels where it tells them."""
    if file.suffix.lower() != ".jsonl":
        return stream_csv(file), _names_in_parquet(file) if file.suffix.lower() == PARQUET else []
    found = _json_lines(file)
    keys = list(dict.fromkeys(key for _, row in found for key in row))
    lines = [(line, [cell_text(row.get(key)) for key in keys]) for line, row in found]
    named = named_rows([key.casefold() for key in keys], lines, lambda: lines, ",", file)
    rows = list(named.rows)
    if not any(row["path"] for _, row in rows) or not any(row["label"] for _, row in rows):
        columns = ", ".join(list(found[0][1])[:12]) if found else "none"
        raise DataError(f"{file}: needs file_name (or path) and label in its rows (found: {columns})")
    return named._replace(rows=rows), []


def _json_lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in text_lines(file):
        with reading(f"{file} line {number}", "a JSON object"):
            row = json.loads(line)
        if not isinstance(row, dict):
            raise DataError(f"{file} line {number}: not a JSON object")
        rows.append((number, row))
    return rows


def _names_in_parquet(file: Path) -> list[str]:
    """The names of numbered labels that a Parquet file tells; [] where it tells none."""
    with reading(file, "a Parquet file"):
        told = json.loads((parquet_file(file).schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        label = told.get("info", {}).get("features", {}).get("label", {})
        return [str(name) for name in label.get("names") or []]


def _names_of_card(folder: Path, root: Path) -> list[str]:
    """The names of numbered labels in the head of README.md; [] where it has none."""
    card = next((place / "README.md" for place in (folder, root) if (place / "README.md").is_file()), None)
    if card is None:
        return []
    text = read_text(card)
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    with reading(card, "a card with a readable head"):
        told = yaml.safe_load(head) or {}
    info = told.get("dataset_info") if isinstance(told, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    for feature in features if isinstance(features, list) else []:
        kind = feature.get("dtype") if isinstance(feature, dict) and feature.get("name") == "label" else None
        names = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
        if isinstance(names, dict):
            return [str(names[key]) for key in sorted(names, key=int)]
    return []


def _named(label: str, names: list[str]) -> str:
    return names[int(label)] if label.isdecimal() and len(label) < 9 and int(label) < len(names) else label


# FiftyOne's temporal detections: labels.json beside data/ (FiftyOneTemporalDetectionDataset), or samples.json.
#
# Source: docs.voxel51.com, "Exporting FiftyOne datasets": ``support`` is the [first, last] frame of a detection,
# counted from 1, both included; ``timestamps`` are [start, stop] in seconds.
FIFTYONE_FILES = ("labels.json", "samples.json")
FIFTYONE_KEYS = (b'"support"', b'"timestamps"', b'"filepath"')
TIMES = ("support", "timestamps")
TEMPORAL = ("TemporalDetections", "TemporalDetection")


def fiftyone_file(path: Path) -> Path | None:
    """The file of FiftyOne's labels that ``path`` is, or that lies in it; None where there is none."""
    for file in (path / name for name in FIFTYONE_FILES) if path.is_dir() else [path]:
        wanted = file.suffix.lower() == ".json" and begins_with(file, b"{", FIFTYONE_KEYS)
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


# Label Studio's exports (JSON, JSON-MIN): labels on a video's timeline, or on the time of a video or its sound.
#
# Source: labelstud.io/tags/timelinelabels: ``ranges`` of frames, counted from 1, the last one included. The older form,
# a video beside ``<Labels>`` of its sound, has ``start`` and ``end`` in seconds. A project of ``<Choices>`` alone gives
# the class of whole videos. Cancelled annotations and predictions are left out; of several annotators all are taken.
TIMELINE, SECONDS, WHOLE = "timelinelabels", "labels", "choices"
MEDIA = ("video", "video_url", "video_path", "url", "path", "file", "audio")  # of a task's data, likeliest first
LABEL_STUDIO_KEYS = (b'"annotations"', b'"completions"', b'"annotation_id"')
OWN_KEYS = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"})  # of JSON-MIN

Value = tuple[str, dict[str, Any]]  # kind of a label, and what it says


def is_label_studio(path: Path) -> bool:
    """Whether a .json file is a list of Label Studio's tasks."""
    if path.suffix.lower() != ".json" or not begins_with(path, b"[", LABEL_STUDIO_KEYS):
        return False
    found = json_of(path)
    return isinstance(found, list) and bool(found) and all(isinstance(task, dict) and _is_task(task) for task in found)


def _is_task(task: dict[str, Any]) -> bool:
    return isinstance(task.get("data"), dict) or ("annotation_id" in task and "id" in task)


def read_label_studio(path: Path) -> ClipTable:
    """Read an export; videos are looked for by their names beside it.

    Raises:
        DataError: no labelled segment, or none of the videos is there.
    """
    segments: list[Segment] = []
    whole: list[Segment] = []
    others: list[str] = []
    for number, task in enumerate(json_of(path), 1):
        data = task["data"] if isinstance(task.get("data"), dict) else task
        where = f"task {task.get('id', number)}"
        values = list(_values(task))
        counted = next((n for _, value in values if isinstance(n := value.get("framesCount"), int) and n > 0), None)
        for kind, value in values:
            names = value.get(kind)
            labels = tuple(dict.fromkeys(str(name).strip() for name in names)) if isinstance(names, list) else ()
            if not labels or kind not in (TIMELINE, SECONDS, WHOLE):
                others.append(kind)
                continue
            video = _video(data, path, where)
            split, group = split_name(str(data.get("split", ""))) or "", str(data.get("group", ""))
            plain = Segment(video, labels, where, split=split, group=group, counted=counted)
            if kind == WHOLE:
                whole.append(plain)
            elif kind == TIMELINE:
                ranges = value.get("ranges")
                for span in ranges if isinstance(ranges, list) else []:
                    first, last = (_number(span, key, where, path) for key in ("start", "end"))
                    frames = (max(int(first), 1) - 1, int(last) - 1)  # a range from 0 is one from the first frame
                    segments.append(replace(plain, frames=frames))
            else:
                start, end = (_number(value, key, where, path) for key in ("start", "end"))
                segments.append(replace(plain, start=start, end=end))
    if segments:
        others += [WHOLE] * len(whole)
    return segment_table(segments or whole, path, "Label Studio", ignored_note(others))


def _values(task: dict[str, Any]) -> Iterator[Value]:
    """What the annotations of a task say, each with its kind."""
    annotations = task.get("annotations", task.get("completions"))
    if not isinstance(annotations, list):  # JSON-MIN: a key for each control
        for key, items in task.items():
            yield from _short(key, items)
        return
    for annotation in annotations:
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or []:
            if isinstance(result, dict) and isinstance(result.get("value"), dict):
                yield str(result.get("type", "?")), result["value"]


def _short(key: str, items: Any) -> Iterator[Value]:
    """The labels of one control as JSON-MIN has them: a list of values, or the text of a choice."""
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                known = TIMELINE if TIMELINE in item else SECONDS if {SECONDS, "start"} <= set(item) else None
                yield known or key, item
    elif isinstance(items, dict) and isinstance(items.get(WHOLE), list):
        yield WHOLE, items
    elif isinstance(items, str) and key not in (*MEDIA, "split", "group") and key not in OWN_KEYS:
        yield WHOLE, {WHOLE: [items]}


def _video(data: dict[str, Any], path: Path, where: str) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    named = next((texts[key] for key in MEDIA if key in texts), None)
    if named is None:
        named = next((text for key, text in texts.items() if "video" in key.casefold()), None)
    if named is None:
        raise DataError(f"{path}: {where} names no video (its data have {', '.join(sorted(data)[:8]) or 'nothing'})")
    return named


def _number(span: Any, key: str, where: str, path: Path) -> float:
    value = span.get(key) if isinstance(span, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
        raise DataError(f"{path}: {where}: {key} of a segment is no number ({str(value)[:40]})")
    return value


class Export(NamedTuple):
    """How the files of a tool are found at a path, and read."""

    find: Callable[[Path], Any]
    read: Callable[[Any, Path], ClipTable]


EXPORTS: dict[str, Export] = {
    "Label Studio": Export(is_label_studio, lambda found, path: read_label_studio(path)),
    "CVAT": Export(cvat_file, lambda found, path: read_cvat(found)),
    "FiftyOne": Export(fiftyone_file, lambda found, path: read_fiftyone(found)),
    "Hugging Face": Export(metadata_files, read_metadata),
}


def is_export(path: Path) -> bool:
    """Whether a path is what one of these tools wrote."""
    return any(export.find(path) for export in EXPORTS.values())


def read_export(path: Path) -> ClipTable | None:
    """The table of what a tool wrote, or None where ``path`` is nothing that is known.

    Raises:
        DataError: it makes no sense, or none of its videos is there.
    """
    for export in EXPORTS.values():
        if found := export.find(path):
            return export.read(found, path)
    return None
