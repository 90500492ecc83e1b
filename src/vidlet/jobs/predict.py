"""Name what happens in a video, a folder of videos or records: a label, scores and a timeline, or boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..recipe import in_range
from ..runs import quickest
from ..runtime import Model, load
from ..tasks import task_of_model
from ..tasks.predictions import Wanted


def predict(
    model: str | Path | Model,
    source: str | Path,
    threshold: float | None = None,
    min_s: float | None = None,
    save: str | Path | None = None,
    threads: int = 1,
    strict: bool = False,
    csv: str | Path | None = None,
    fps: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one result a source: {"source", "label", "score", "scores", "segments"}, or {"source", "error"}.

    A file that only detects names no clips: it yields a line whenever other kinds of boxes are seen, {"source",
    "time_s", "label", "score", "boxes"}.

    Args:
        source: a video file, a folder of frames, or a folder of videos (searched with its sub-folders); of a model of
            stored features, records (see ``predict_records``).
        threshold: a segment needs this score; below it nothing is named. None: what the file says, else one half.
        min_s: a segment needs this duration; None: a quarter of a training clip.
        save: annotated video (a folder for several sources).
        fps: frames a second of folders of frames (what their names tell, else 25).
        csv: gets the segments, or of records a submission in the form of the YouTube-8M challenge.

    Raises:
        VidletError: the source cannot be read (one of several: its result holds the error; ``strict`` raises).
    """
    in_range("threshold", threshold, 0, 1)
    in_range("min_s", min_s, 0)
    in_range("threads", threads, 0)
    in_range("fps", fps, 0.001, 1000)
    loaded = model if isinstance(model, Model) else load(quickest(model, threads), threads=threads)
    yield from task_of_model(loaded).predict(loaded, source, Wanted(threshold, min_s, save, csv, strict, fps))
