"""Name what happens in a video, a folder of videos or before a camera: a label, scores and a timeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..datasets import clips_below
from ..errors import DataError, VidletError
from ..live.watching import detect_moments, drawn_boxes, frames_with_boxes
from ..runtime import Model, Timeline, load, predict_timeline
from ..tasks.records import model_takes_records, predict_records
from ..video import annotate, as_place, enlarge, iter_frames, probe, write_video


def predict(
    model: str | Path | Model,
    source: str | Path,
    threshold: float = 0.5,
    min_s: float | None = None,
    save: str | Path | None = None,
    threads: int = 1,
    strict: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield one result a source: {"source", "label", "score", "scores", "segments"}, or {"source", "error"}.

    A file that only detects names no clips: it yields a line whenever other kinds of boxes are seen, {"source",
    "time_s", "label", "score", "boxes"}.

    Args:
        source: a video file, a folder of frames, or a folder of videos (searched with its sub-folders); of a model of
            stored features, records (see ``predict_records``).
        threshold: a segment needs this score; below it nothing is named.
        min_s: a segment needs this duration; None: a quarter of a training clip.
        save: annotated video (a folder for several sources).

    Raises:
        VidletError: the source cannot be read (one of several: its result holds the error; ``strict`` raises).
    """
    loaded = model if isinstance(model, Model) else load(model, threads=threads)
    if model_takes_records(loaded):
        yield from predict_records(loaded, source, strict)
        return
    sources = find_sources(source)
    for path in sources:
        if not loaded.labels:
            yield from _detected(loaded, path, sources, source, threshold, min_s, save, strict)
            continue
        try:
            timeline = predict_timeline(loaded, path, threshold=threshold, min_s=min_s)
        except VidletError as error:
            if strict or len(sources) == 1:
                raise
            yield {"source": str(path), "error": str(error)}
            continue
        if save is not None:
            save_annotated(path, timeline, _target(path, sources, source, Path(save)), loaded, threshold)
        yield as_result(path, timeline)


def _detected(
    model: Model, path: Path | str, sources: list[Path | str], source: str | Path, threshold: float,
    min_s: float | None, save: str | Path | None, strict: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """What a file that only detects says of a source: a line a change, with its "source"."""
    try:
        for line in detect_moments(model, path, threshold, min_s):
            yield {"source": str(path), **line}
        if save is not None:
            nothing = Timeline((), "", 0.0, {})
            save_annotated(path, nothing, _target(path, sources, source, Path(save)), model, threshold)
    except VidletError as error:
        if strict or len(sources) == 1:
            raise
        yield {"source": str(path), "error": str(error)}


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


def _target(path: Path | str, sources: list[Path | str], root: str | Path, save: Path) -> Path:
    """Where a source's annotated video goes: ``save``, or for several sources the same place below it.

    Raises:
        DataError: it would overwrite a source.
    """
    target = save if len(sources) == 1 else (save / Path(path).relative_to(as_place(root))).with_suffix(".mp4")
    if target.resolve() in {Path(source).resolve() for source in sources}:
        raise DataError(f"{target}: is a source; choose another --save")
    return target


def save_annotated(
    path: Path | str, timeline: Timeline, target: Path, model: Model | None = None, threshold: float = 0.5
) -> None:
    """Write the video again, small ones enlarged, with label and score of each moment, and the boxes of a detector.

    A video of at most one segment has bars of the best classes too; in a longer one they would belong to no moment.
    """
    best = sorted(timeline.scores.items(), key=lambda item: -item[1])[:4] if len(timeline.segments) <= 1 else []

    def drawn() -> Iterator[Any]:
        detector = model if model is not None and model.box_labels else None
        plain = ((frame.time_s, frame.rgb(), None) for frame in iter_frames(path))
        for time_s, rgb, boxes in frames_with_boxes(detector, path) if detector else plain:
            here = [s for s in timeline.segments if s.start_s <= time_s < s.end_s]
            label, score = (here[-1].label, here[-1].score) if here else ("", 0.0)
            found = drawn_boxes(boxes, detector.box_labels, threshold) if detector else ()
            yield annotate(enlarge(rgb), label, score, best, found)

    write_video(target, drawn(), probe(path).fps or 25.0)
