"""Label Studio's exports (JSON, JSON-MIN): labels on a video's timeline, or on the time of a video or its sound.

Source: labelstud.io/tags/timelinelabels: ``ranges`` of frames, counted from 1, the last one included. The older form, a
video beside ``<Labels>`` of its sound, has ``start`` and ``end`` in seconds. A project of ``<Choices>`` alone gives the
class of whole videos. Cancelled annotations and predictions are left out; of several annotators all are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .segments import Segment, ignored_note, segment_table
from .table import ClipTable, split_name
from .texts import begins_with, json_of

TIMELINE, SECONDS, WHOLE = "timelinelabels", "labels", "choices"
MEDIA = ("video", "video_url", "video_path", "url", "path", "file", "audio")  # of a task's data, likeliest first
KEYS = (b'"annotations"', b'"completions"', b'"annotation_id"')
OWN_KEYS = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"})  # of JSON-MIN

Value = tuple[str, dict[str, Any]]  # kind of a label, and what it says


def is_label_studio(path: Path) -> bool:
    """Whether a .json file is a list of Label Studio's tasks."""
    if path.suffix.lower() != ".json" or not begins_with(path, b"[", KEYS):
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
