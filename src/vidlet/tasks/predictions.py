"""Name what happens in a video, a folder of videos or before a camera: a label, scores and a timeline."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import clips_below
from ..errors import DataError, VidletError
from ..files import write_text
from ..live.watching import detect_moments, drawn_boxes, frames_with_boxes
from ..progress import say, working
from ..runtime import Model, Timeline, predict_timeline
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
        csv: the segments as CSV; of records a submission (see ``predict_records``).
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


def predict_clips(model: Model, source: str | Path, wanted: Wanted) -> Said:
    """Yield {"source", "label", "score", "scores", "segments"} of each video below a source, or {"source", "error"}."""

    threshold = model.threshold if wanted.threshold is None else wanted.threshold

    def timeline_of(path: Path | str, target: Path | None) -> Said:
        with working(f"predict {path}"):
            timeline = predict_timeline(model, path, threshold, wanted.min_s, fps=wanted.fps)
        if target is not None:
            with working(f"write {target}"):
                save_annotated(path, timeline, target, model, threshold, wanted.fps)
        notes = _notes(path, wanted.fps, timeline.damage)
        yield {**as_result(path, timeline), **({"notes": notes} if notes else {})}

    yield from _each_source(source, wanted, timeline_of)


def predict_boxes(model: Model, source: str | Path, wanted: Wanted) -> Said:
    """Yield a line whenever other kinds of boxes are seen: {"source", "time_s", "label", "score", "boxes"}."""

    threshold = model.threshold if wanted.threshold is None else wanted.threshold

    def moments_of(path: Path | str, target: Path | None) -> Said:
        for line in detect_moments(model, path, threshold, wanted.min_s, wanted.fps):
            yield {"source": str(path), **line}
        for note in _notes(path, wanted.fps):
            say(f"{shown(path)}: {note}")
        if target is not None:
            with working(f"write {target}"):
                save_annotated(path, Timeline((), "", 0.0, {}), target, model, threshold, wanted.fps)

    yield from _each_source(source, wanted, moments_of)


def _notes(path: Path | str, fps: float | None, damage: str = "") -> list[str]:
    """What had to be assumed to read a video, but for what its damage says already."""
    return [note for note in probe(path, fps).notes if not (damage and note.startswith(BREAKS_OFF))]


def _each_source(source: str | Path, wanted: Wanted, said_of: Callable[[Path | str, Path | None], Said]) -> Said:
    """What is said of each source; of several, one that cannot be read yields its error."""
    sources, failed = find_sources(source), 0
    targets = {} if wanted.save is None else save_targets(sources, source, Path(wanted.save))
    rows: list[dict[str, Any]] = []
    for path in sources:
        try:
            for found in said_of(path, targets.get(path)):
                rows += [{"source": found["source"], **segment} for segment in found.get("segments", [])]
                yield found
        except VidletError as error:
            if wanted.strict or len(sources) == 1:
                raise
            failed += 1
            yield {"source": str(path), "error": str(error)}
    if wanted.csv is not None:
        _write_csv(wanted.csv, rows)
    for made in (wanted.save, wanted.csv):
        if made is not None and failed < len(sources):
            say(f"written {shown(made)}")
    if failed:
        say(f"{failed} sources could not be read")


def _write_csv(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["source", "start_s", "end_s", "label", "score"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def as_result(path: str | Path, timeline: Timeline) -> dict[str, Any]:
    """The contract's JSON object of a timeline."""
    return {
        "source": str(path),
        "label": timeline.label,
        "score": timeline.score,
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
    """Where each source's annotated video goes: ``save``, or for several sources the same place below it, as .mp4.

    Sources that differ only in what their name ends with keep that: a.avi.mp4 beside a.mov.mp4.

    Raises:
        DataError: one would overwrite a source, or ``save`` ends like no video that is written.
    """
    targets: dict[Path | str, Path] = {}
    if len(sources) == 1:
        container_of(save)
        targets[sources[0]] = save
    else:
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
) -> None:
    """Write the video again, small ones enlarged, with label and score of each moment, and the boxes of a detector.

    A video of at most one segment has bars of the best classes too; in a longer one they would belong to no moment, and
    a strip along the lower edge shows when which label was. Each picture is shown when it was; pixels that are not
    square become square.
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
            video.write(picture, time_s - first_s)


def _squared(rgb: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """A picture (H, W, 3) stretched along one side until its pixels are square."""
    if abs(aspect - 1) < 0.01:
        return rgb
    height, width = rgb.shape[:2]
    return resize(rgb, (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width))
