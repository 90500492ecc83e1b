"""Name what happens in a video, a folder of videos or before a camera: a label, scores and a timeline."""

from __future__ import annotations

import csv
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import clips_below
from ..datasets.media import is_video
from ..errors import DataError, VidletError
from ..files import atomic_path
from ..live.watching import detect_moments, drawn_boxes, frames_with_boxes
from ..progress import bar, say
from ..runtime import Model, Moment, Timeline, predict_timeline
from ..video import Strip, VideoWriter, annotate, as_place, container_of, enlarge, iter_frames, probe, resize
from ..video.ending import BREAKS_OFF
from ..video.frames import DEFAULT_FPS
from ..wording import cell, shown


@dataclass(frozen=True)
class Wanted:
    """What a person wants of predictions.

    Args:
        threshold: a segment needs this score; below it nothing is named. None: the model's own.
        min_s: a segment needs this duration; None: a quarter of a training clip.
        save: annotated video (a folder for several sources).
        csv: the segments as CSV; of what detects the boxes of each frame; of records a submission
            (see ``predict_records``).
        strict: what cannot be read is an error.
        fps: frames a second of folders of frames; None: what their names tell, else 25.
    """

    threshold: float | None = None
    min_s: float | None = None
    save: str | Path | None = None
    csv: str | Path | None = None
    strict: bool = False
    fps: float | None = None


Said = Iterator[dict[str, Any]]

SEGMENT_COLUMNS = ("source", "start_s", "end_s", "label", "score")
BOX_COLUMNS = ("source", "time_s", "label", "score", "x1", "y1", "x2", "y2")


def predict_clips(model: Model, source: str | Path, wanted: Wanted) -> Said:
    """Yield {"source", "label", "score", "named", "scores", "segments"} of each video below a source, or its error."""

    threshold = model.threshold if wanted.threshold is None else wanted.threshold
    segments: _Table | None = None
    boxes: _Table | None = None

    def timeline_of(path: Path | str, target: Path | None) -> Said:
        with _passing(f"predict {path}", path, wanted.fps) as passed:
            seen = None if boxes is None else partial(_box_rows, boxes, model.box_labels, path, threshold)
            timeline = predict_timeline(
                model,
                path,
                threshold,
                wanted.min_s,
                progress=lambda frames: passed(frames / model.rate_hz),
                fps=wanted.fps,
                seen=seen,
            )
        if target is not None:
            with _passing(f"write {target}", path, wanted.fps) as passed:
                save_annotated(path, timeline, target, model, threshold, wanted.fps, passed)
        notes = _notes(path, wanted.fps, timeline.damage)
        if segments is not None:
            for segment in timeline.segments:
                segments.add(path, segment.start_s, segment.end_s, segment.label, segment.score)
        named = model.names(timeline.label, timeline.score, threshold)
        yield {**as_result(path, timeline, named), **({"notes": notes} if notes else {})}

    with ExitStack() as open_tables:
        if wanted.csv is not None:
            missing = f"no segment reached the threshold {threshold:g}"
            segments = open_tables.enter_context(_Table(wanted.csv, SEGMENT_COLUMNS, missing))
            if model.box_labels:
                beside = Path(wanted.csv).with_suffix(".boxes.csv")
                boxes = open_tables.enter_context(_Table(beside, BOX_COLUMNS, _no_box(threshold)))
        yield from _each_source(source, wanted, timeline_of)


def predict_boxes(model: Model, source: str | Path, wanted: Wanted) -> Said:
    """Yield a line whenever other kinds of boxes are seen: {"source", "time_s", ...}, see ``as_line``."""

    threshold = model.threshold if wanted.threshold is None else wanted.threshold
    boxes: _Table | None = None

    def moments_of(path: Path | str, target: Path | None) -> Said:
        def each(moment: Moment) -> None:
            passed(moment.time_s)
            if boxes is not None and moment.boxes is not None:
                _box_rows(boxes, model.box_labels, path, threshold, moment.time_s, moment.boxes)

        with _passing(f"predict {path}", path, wanted.fps) as passed:
            for line in detect_moments(model, path, threshold, wanted.min_s, wanted.fps, each):
                yield {"source": str(path), **line}
        for note in _notes(path, wanted.fps):
            say(f"{shown(path)}: {note}")
        if target is not None:
            with _passing(f"write {target}", path, wanted.fps) as passed:
                save_annotated(path, Timeline((), "", 0.0, {}), target, model, threshold, wanted.fps, passed)

    with ExitStack() as open_tables:
        if wanted.csv is not None:
            boxes = open_tables.enter_context(_Table(wanted.csv, BOX_COLUMNS, _no_box(threshold)))
        yield from _each_source(source, wanted, moments_of)


@contextmanager
def _passing(text: str, path: Path | str, fps: float | None) -> Iterator[Callable[[float], None]]:
    """Show how far into a video the work is, by a function of its seconds; of unknown length, how long it goes on."""
    with bar(f"{text}, second", "s") as move:
        whole = math.ceil(probe(path, fps).duration_s or 0.0)
        yield lambda time_s: move(min(int(time_s), whole), whole) if whole else None


def _notes(path: Path | str, fps: float | None, damage: str = "") -> list[str]:
    """What had to be assumed to read a video, but for what its damage says already."""
    return [note for note in probe(path, fps).notes if not (damage and note.startswith(BREAKS_OFF))]


def _each_source(source: str | Path, wanted: Wanted, said_of: Callable[[Path | str, Path | None], Said]) -> Said:
    """What is said of each source; of several, one that cannot be read yields its error.

    Raises:
        DataError: so it is with all of them.
    """
    sources, failed = find_sources(source), 0
    targets = {} if wanted.save is None else save_targets(sources, source, Path(wanted.save))
    for path in sources:
        try:
            yield from said_of(path, targets.get(path))
        except VidletError as error:
            if wanted.strict or len(sources) == 1:
                raise
            failed += 1
            yield {"source": str(path), "error": str(error)}
    if failed == len(sources):
        raise DataError(f"{shown(source)}: of its {failed} sources none has an answer")
    if wanted.save is not None:
        say(f"written {shown(wanted.save)}")
    if failed:
        say(f"{failed} of {len(sources)} sources have no answer")


class _Table:
    """A CSV that is whole or not there, written row by row; at its end it is said, and why if it has no row."""

    def __init__(self, path: str | Path, columns: Sequence[str], missing: str) -> None:
        self.path, self.columns, self.missing, self.rows = path, columns, missing, 0

    def __enter__(self) -> _Table:
        with ExitStack() as opened:
            draft = opened.enter_context(atomic_path(os.fspath(self.path)))
            handle = opened.enter_context(draft.open("w", encoding="utf-8", newline=""))
            self._writer = csv.writer(handle, lineterminator="\n")
            self._writer.writerow(self.columns)
            self._opened = opened.pop_all()
        return self

    def add(self, *row: Any) -> None:
        """A row, in the order of the columns."""
        self._writer.writerow([cell(str(value)) if isinstance(value, (str, Path)) else value for value in row])
        self.rows += 1

    def __exit__(self, *failure: Any) -> None:
        self._opened.__exit__(*failure)
        if failure[0] is None:
            say(f"written {shown(self.path)}{'' if self.rows else f', without a row: {self.missing}'}")


def _no_box(threshold: float) -> str:
    return f"no box reached the threshold {threshold:g}"


def _box_rows(
    table: _Table, names: Sequence[str], path: Path | str, threshold: float, time_s: float, boxes: NDArray[np.float32]
) -> None:
    """A row for each box (M, 6) of a frame that reaches the threshold."""
    for *corners, score, kind in boxes[boxes[:, 4] >= threshold].tolist():
        table.add(path, time_s, names[int(kind)], score, *corners)


def as_result(path: str | Path, timeline: Timeline, named: bool) -> dict[str, Any]:
    """The contract's JSON object of a timeline."""
    return {
        "source": str(path),
        "label": timeline.label,
        "score": timeline.score,
        "named": named,
        "scores": dict(timeline.scores),
        "segments": [
            {"start_s": s.start_s, "end_s": s.end_s, "label": s.label, "score": s.score} for s in timeline.segments
        ],
        **({"damage": timeline.damage} if timeline.damage else {}),
    }


def find_sources(source: str | Path) -> list[Path | str]:
    """The clips below a folder, or the source itself (a file, the address of one, or a folder of frames).

    Folders are walked by the rules of ``data``: hidden files are left out, links are followed.

    Raises:
        DataError: there is no such file, or no video in the folder.
    """
    path = as_place(source)
    if isinstance(path, str):
        return [path]
    if not path.exists():
        raise DataError(f"{source}: no such file or folder")
    if not path.is_dir():
        return [path]
    if found := list(clips_below(path)):
        return [*found]
    raise DataError(f"{source}: no video files and no folders of frames in this folder")


def save_targets(sources: Sequence[Path | str], root: str | Path, save: Path) -> dict[Path | str, Path]:
    """Where each source's annotated video goes: ``save``, or, where that is a folder, the same place below it, as .mp4.

    Sources that differ only in what their name ends with keep that: a.avi.mp4 beside a.mov.mp4.

    Raises:
        DataError: one would overwrite a source, several have one file, or ``save`` ends like no video that is written.
    """
    targets: dict[Path | str, Path] = {}
    if len(sources) == 1 and save.is_dir():
        targets[sources[0]] = save / f"{Path(sources[0]).stem}.mp4"
    elif len(sources) == 1:
        container_of(save)
        targets[sources[0]] = save
    else:
        if not save.is_dir() and (save.exists() or is_video(save)):
            raise DataError(f"--save {shown(save)}: {len(sources)} videos need a folder, and this names a file")
        places = {path: save / Path(path).relative_to(as_place(root)) for path in sources}
        count = Counter(_folded(place.with_suffix(".mp4")) for place in places.values())
        taken = {name for name, times in count.items() if times == 1}
        for path, place in places.items():
            target, number = place.with_suffix(".mp4"), 1
            while count[_folded(target)] > 1 or (number > 1 and _folded(target) in taken):
                target = place.with_name(f"{place.name}.mp4" if number == 1 else f"{place.name}-{number}.mp4")
                number += 1
            taken.add(_folded(target))
            targets[path] = target
    there = {Path(source).resolve() for source in sources}
    for target in targets.values():
        if target.resolve() in there:
            raise DataError(f"{target}: is a source; choose another --save")
    return targets


def _folded(path: Path) -> str:
    """A name as file systems see it that know no case and one form of letters."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def save_annotated(
    path: Path | str,
    timeline: Timeline,
    target: Path,
    model: Model | None = None,
    threshold: float = 0.5,
    fps: float | None = None,
    passed: Callable[[float], None] | None = None,
) -> None:
    """Write the video again, small ones enlarged, with label and score of each moment, and the boxes of a detector.

    A video of at most one segment has bars of the best classes too; in a longer one they would belong to no moment, and
    a strip along the lower edge shows when which label was. Each picture is shown when it was; pixels that are not
    square become square. ``passed`` is called with the time of each picture.
    """
    info = probe(path, fps)
    single = len(timeline.segments) <= 1
    best = sorted(timeline.scores.items(), key=lambda item: -item[1])[:4] if single else []
    quiet = "nothing" if timeline.scores else ""  # a detector alone says boxes
    whole_s = max([info.duration_s or 0.0, *(s.end_s for s in timeline.segments)])
    kinds = {label: kind for kind, label in enumerate(timeline.scores)}
    spans = tuple((s.start_s / whole_s, s.end_s / whole_s, kinds.get(s.label, 0)) for s in timeline.segments)

    def drawn() -> Iterator[tuple[float, Any]]:
        detector = model if model is not None and model.box_labels else None
        plain = ((frame.time_s, frame.rgb(), None) for frame in iter_frames(path, fps=fps))
        for time_s, rgb, boxes in frames_with_boxes(detector, path, fps) if detector else plain:
            here = [s for s in timeline.segments if s.start_s <= time_s < s.end_s]
            label, score = (here[-1].label, here[-1].score) if here else ("", 0.0)
            found = drawn_boxes(boxes, detector.box_labels, threshold) if detector else ()
            strip = None if single else Strip(spans, min(1.0, time_s / whole_s))
            squared = enlarge(_squared(rgb, info.pixel_aspect))
            yield time_s, annotate(squared, label, score, best, found, quiet, strip)

    with VideoWriter(target, info.fps or DEFAULT_FPS) as video:
        first_s: float | None = None
        for time_s, picture in drawn():
            first_s = time_s if first_s is None else first_s
            if passed is not None:
                passed(time_s)
            video.write(picture, time_s - first_s)


def _squared(rgb: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """A picture (H, W, 3) stretched along one side until its pixels are square."""
    if abs(aspect - 1) < 0.01:
        return rgb
    height, width = rgb.shape[:2]
    return resize(rgb, (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width))
