"""Name what happens in a video, a folder of videos or before a camera: a label, scores and a timeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..datasets import VIDEO_SUFFIXES
from ..errors import DataError, VidletError
from ..runtime import Model, Timeline, load, predict_timeline
from ..video import annotate, enlarge, iter_frames, probe, write_video
from .records import model_takes_records, predict_records


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
        try:
            timeline = predict_timeline(loaded, path, threshold=threshold, min_s=min_s)
        except VidletError as error:
            if strict or len(sources) == 1:
                raise
            yield {"source": str(path), "error": str(error)}
            continue
        if save is not None:
            save_annotated(path, timeline, _target(path, sources, source, Path(save)))
        yield as_result(path, timeline)


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


def find_sources(source: str | Path) -> list[Path]:
    """The video files below a folder, or the source itself (a file, or a folder of frames).

    Raises:
        DataError: there is no such file, or no video in the folder.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder")
    if not path.is_dir():
        return [path]
    videos = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if videos:
        return videos
    if any(p.suffix.lower() in (".jpg", ".jpeg", ".png") for p in path.iterdir()):
        return [path]
    raise DataError(f"{source}: no video files and no frames (jpg, png) in this folder")


def _target(path: Path, sources: list[Path], root: str | Path, save: Path) -> Path:
    """Where a source's annotated video goes: ``save``, or for several sources the same place below it.

    Raises:
        DataError: it would overwrite a source.
    """
    target = save if len(sources) == 1 else (save / path.relative_to(root)).with_suffix(".mp4")
    if target.resolve() in {source.resolve() for source in sources}:
        raise DataError(f"{target}: is a source; choose another --save")
    return target


def save_annotated(path: Path, timeline: Timeline, target: Path) -> None:
    """Write the video again, small ones enlarged, with the label and score of each moment drawn on it.

    A video of at most one segment has bars of the best classes too; in a longer one they would belong to no moment.
    """
    best = sorted(timeline.scores.items(), key=lambda item: -item[1])[:4] if len(timeline.segments) <= 1 else []

    def drawn() -> Iterator[Any]:
        for frame in iter_frames(path):
            here = [s for s in timeline.segments if s.start_s <= frame.time_s < s.end_s]
            label, score = (here[-1].label, here[-1].score) if here else ("", 0.0)
            yield annotate(enlarge(frame.rgb()), label, score, best)

    write_video(target, drawn(), probe(path).fps or 25.0)
