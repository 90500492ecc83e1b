"""CVAT's XML 1.1: tracks of a video, with their attributes from frame to frame, and tags of frames.

Source: docs.cvat.ai, "CVAT for video" and "CVAT for images". Frames count from 0 in the video at any step.
A track is there from a shape with outside="0" to one with outside="1", or to the end of the task. A tag of frames that
follow each other is one segment. The class is the track's label, or the value of an attribute: of one whose name says
that it is the action, or of the only one that varies where all tracks have the same label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..errors import DataError
from .boxes_voc import Element, parse_xml
from .segments import Segment, ignored_note, segment_table
from .table import ClipTable, split_name
from .texts import begins_with

MOST_BYTES = 2**27
FILE = "annotations.xml"
ACTION = ("action", "activity", "event", "gesture", "class", "label", "state")  # names of attributes, the surest first
NOTHING = ("", "__undefined__")  # values that name no class
SHAPES = frozenset({"box", "polygon", "polyline", "points", "ellipse", "cuboid", "skeleton", "mask"})


def cvat_file(path: Path) -> Path | None:
    """The file of CVAT's annotations that ``path`` is, or that lies in it; None where there is none."""
    file = path / FILE if path.is_dir() else path
    return file if file.suffix.lower() == ".xml" and begins_with(file, b"<", [b"<annotations"]) else None


def read_cvat(file: Path) -> ClipTable:
    """Read tracks and tags.

    Raises:
        DataError: not such XML, a number that is none, no video is named or there, or nothing is labelled.
    """
    root = parse_xml(file, MOST_BYTES)
    tasks = _tasks(root)
    if not tasks:
        raise DataError(f"{file}: not CVAT's XML for video (its meta names no task)")
    tracks = [_Track.of(element, file) for element in root.children if element.name == "track"]
    images = [element for element in root.children if element.name == "image"]
    attribute = _class_attribute(tracks)
    segments = [segment for track in tracks for segment in track.segments(_task_of(tasks, track.task), attribute)]
    segments += _tagged(images, tasks, file)
    notes = ignored_note(shape.name for image in images for shape in image.children if shape.name in SHAPES)
    if attribute:
        notes += (f"Classes are the values of the attribute {attribute!r} of the tracks.",)
    return segment_table(segments, file, "CVAT", notes)


@dataclass(frozen=True)
class _Task:
    video: str
    first: int
    last: int | None  # frame of the video; None: not told
    step: int
    split: str


def _tasks(root: Element) -> dict[str, _Task]:
    """The tasks of an export by their ids; of a single task or job also by ""."""
    meta = next((child for child in root.children if child.name == "meta"), None)
    found: dict[str, _Task] = {}
    for element in _below(meta, ("task", "job")) if meta else ():
        words = {child.name: child.text.strip() for child in element.children}
        video = words.get("source") or (_text(meta, "source") if meta else "") or words.get("name", "")
        step = words.get("frame_filter", "").partition("=")[2]
        last = words.get("stop_frame", "")
        found[words.get("id", "")] = _Task(
            video,
            int(words["start_frame"]) if words.get("start_frame", "").isdecimal() else 0,
            int(last) if last.isdecimal() else None,
            int(step) if step.isdecimal() and int(step) else 1,
            split_name(words.get("subset", "")) or "",
        )
    if len(found) == 1:
        found[""] = next(iter(found.values()))
    return {name: task for name, task in found.items() if task.video}


def _below(element: Element | None, names: tuple[str, ...]) -> Iterator[Element]:
    for child in element.children if element else ():
        if child.name in names:
            yield child
        else:
            yield from _below(child, names)


def _text(element: Element, name: str) -> str:
    return next((child.text.strip() for child in _below(element, (name,))), "")


def _task_of(tasks: dict[str, _Task], name: str) -> _Task:
    return tasks.get(name) or next(iter(tasks.values()))


@dataclass(frozen=True)
class _Track:
    number: str
    label: str
    task: str
    shapes: tuple[tuple[int, bool, dict[str, str]], ...]  # frame, outside, values of attributes; by frame

    @classmethod
    def of(cls, element: Element, file: Path) -> _Track:
        """The track that an element describes."""
        known = element.attributes
        where = f"{file}: track {known.get('id', '?')}"
        shapes = [
            (_frame(shape, where), shape.attributes.get("outside") == "1", _values(shape))
            for shape in element.children
            if shape.name in SHAPES
        ]
        order = tuple(sorted(shapes, key=lambda shape: shape[0]))
        return cls(known.get("id", "?"), known.get("label", "").strip(), known.get("task_id", ""), order)

    def segments(self, task: _Task, attribute: str) -> Iterator[Segment]:
        """Where the track is seen, and with the same value of the attribute that is the class."""
        after = None if task.last is None else task.last + 1
        open_from, label = 0, ""
        names = [
            ("" if outside else values.get(attribute, "").strip() if attribute else self.label)
            for _, outside, values in self.shapes
        ]
        names = ["" if name in NOTHING else name for name in names]
        for (frame, _, _), name in zip(self.shapes, names, strict=True):
            if name != label:
                if label:
                    yield self._segment(task, label, open_from, frame)
                open_from, label = frame, name
        if label:
            yield self._segment(task, label, open_from, after)

    def _segment(self, task: _Task, label: str, first: int, after: int | None) -> Segment:
        last = None if after is None else max(after - 1, first)
        return Segment(task.video, (label,), f"track {self.number}", frames=(first, last), split=task.split)


def _frame(element: Element, where: str, key: str = "frame") -> int:
    text = element.attributes.get(key, "")
    if not text.isdecimal() or len(text) > 9:
        raise DataError(f"{where}: {key} {text[:20]!r} is no number of a frame")
    return int(text)


def _values(shape: Element) -> dict[str, str]:
    attributes = [child for child in shape.children if child.name == "attribute"]
    return {child.attributes.get("name", ""): child.text.strip() for child in attributes}


def _class_attribute(tracks: list[_Track]) -> str:
    """The attribute whose values are the classes; "" where the labels are."""
    values: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        for _, outside, known in track.shapes:
            for name, value in known.items() if not outside else ():
                values[name].add(value)
    named = {name.strip().casefold(): name for name in values}
    for word in ACTION:
        if word in named and values[named[word]] - set(NOTHING):
            return named[word]
    varying = [name for name, found in values.items() if len(found - set(NOTHING)) > 1]
    return varying[0] if len(varying) == 1 and len({track.label for track in tracks}) == 1 else ""


def _tagged(images: list[Element], tasks: dict[str, _Task], file: Path) -> list[Segment]:
    """Tags of frames that follow each other, a segment each."""
    frames: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in images:
        where = f"{file}: image {image.attributes.get('name', '?')}"
        for tag in image.children:
            if tag.name == "tag" and (label := tag.attributes.get("label", "").strip()):
                key = (image.attributes.get("task_id", ""), label)
                frames[key].append(_frame(image, where, "id"))
    segments = []
    for (name, label), numbers in frames.items():
        task, order = _task_of(tasks, name), sorted(set(numbers))
        breaks = [later for earlier, later in pairwise(order) if later - earlier > task.step]
        edges = [order[0], *breaks, order[-1] + task.step + 1]
        for first, following in pairwise(edges):
            last = max(number for number in order if number < following) + task.step - 1
            last = last if task.last is None else max(min(last, task.last), first)
            segments.append(Segment(task.video, (label,), f"tag {label}", frames=(first, last), split=task.split))
    return segments
