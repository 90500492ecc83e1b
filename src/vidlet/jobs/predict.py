"""Name what happens in a video, a folder of videos, records or before a camera: a label, scores and a timeline."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from csv import writer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import clips_below
from ..errors import RecipeError
from ..live.session import LiveWanted, live_lines
from ..progress import say, working
from ..recipe import in_range
from ..runs import shipped
from ..runtime import Model, load
from ..tasks import task_of_model
from ..tasks.predictions import Wanted
from ..video import is_live
from ..video.folder import image_files
from ..wording import cell

LIVE_COLUMNS = ("time_s", "label", "score")


def predict(
    model: str | Path | Model,
    source: str | Path | int,
    threshold: float | None = None,
    min_s: float | None = None,
    save: str | Path | None = None,
    threads: int = 1,
    strict: bool = False,
    csv: str | Path | None = None,
    fps: float | None = None,
    live: bool = False,
    on: str | None = None,
    above: float | None = None,
    command: str | None = None,
    webhook: str | None = None,
    mqtt: str | None = None,
    around_s: float | None = None,
    show: Callable[[NDArray[np.uint8]], None] | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Yield one result a source: {"source", "label", "score", "named", "scores", "segments"}, or {"source", "error"}.

    ``label`` is the best one, whatever its score; ``named`` says whether that reaches the threshold (and the label
    is not the one that means none). Of a video of at most one and a half training clips label and scores are those of
    ``Model.classify``, as ``evaluate`` takes them; of a longer one they are the mean over its timeline.

    A file that only detects names no clips: it yields a line whenever other kinds of boxes are seen, {"source",
    "time_s", "label", "score", "boxes", "box_labels"}. Of a camera, a stream, or with ``live`` a file at
    its own speed, a line whenever the answer changes: the same without "source", and "box_labels" only of what detects.

        for line in vidlet.predict("runs/a", 0, on="wave", webhook="http://192.168.0.2/hook"): ...

    Args:
        source: a video file, a folder of frames, or a folder of videos (searched with its sub-folders); a camera's
            number or a stream's address; of a model of stored features, records (see ``predict_records``).
        threshold: a segment needs this score; below it nothing is named. None: what the file says, else one half.
        min_s: a segment needs this duration; None: a quarter of a training clip.
        save: annotated video (a folder for several sources); live with ``on`` a folder for a clip around each event.
        csv: gets the segments; of a detector the boxes of each frame that it looks at (of a file that names clips, too:
            beside the segments, day.boxes.csv for day.csv); of a live source time_s, label and score of each line; of
            records a submission in the form of the YouTube-8M challenge.
        fps: frames a second of folders of frames (what their names tell, else 25).
        live: play a file at its own speed, as a camera would.
        on, above: live: an event begins when this label reaches this score (None: what the file says, else 0.8).
        command, webhook, mqtt: what an event does: a command of the shell, a POST, a sensor at mqtt://host (mqtt.py).
        around_s: live: seconds before and after an event in its clip (3).
        show: live: called with each picture of the view, uint8 (H, W, 3).
        tell: live: called with the line of an event's clip at once, from another thread, instead of yielding it later.

    Raises:
        VidletError: the source cannot be read (one of several: its result holds the error, and at the end nothing is
            raised unless all failed; ``strict`` raises), or something asked for of a live source did not happen.
    """
    in_range("threshold", threshold, 0, 1)
    in_range("min_s", min_s, 0)
    in_range("threads", threads, 0)
    in_range("fps", fps, 0.001, 1000)
    wanted = LiveWanted(threshold, min_s, save, on, above, command, webhook, mqtt, around_s, show)
    watched = live or show is not None or is_live(str(source))
    wanted.check(watched)
    if watched and fps is not None:
        raise RecipeError("--fps is for folders of frames that are read as files, not for live sources")
    if watched and (folder := Path(str(source))).is_dir() and not image_files(folder):
        some = next((f" ({path})" for path in clips_below(folder)), "")
        raise RecipeError(f"--live: {folder} is a folder of videos; name one of them{some}, or leave out --live")
    with working(f"load {model}"):
        loaded = model if isinstance(model, Model) else load(shipped(model, threads), threads=threads)
    if watched:
        lines = live_lines(loaded, source, wanted, say, tell)
        yield from lines if csv is None else _kept(lines, Path(csv))
    else:
        place = str(source) if isinstance(source, int) else source
        yield from task_of_model(loaded).predict(loaded, place, Wanted(threshold, min_s, save, csv, strict, fps))


def _kept(lines: Iterator[dict[str, Any]], path: Path) -> Iterator[dict[str, Any]]:
    """Live lines, each a row of a table too, written at once: whoever ends the view has all until then."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        table = writer(handle, lineterminator="\n")
        table.writerow(LIVE_COLUMNS)
        for line in lines:
            if set(LIVE_COLUMNS) <= set(line):
                table.writerow(
                    [cell(value) if isinstance(value, str) else value for value in map(line.get, LIVE_COLUMNS)]
                )
                handle.flush()
            yield line
