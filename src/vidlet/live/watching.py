"""Before a camera, a stream, or a file played at its own speed: a line a change, and the view with boxes drawn on it.

The newest frame wins: what comes while the model is busy is dropped, so that the delay stays bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..runtime import Model, Moment, load, watch
from ..runtime.sources import sampled_frames
from ..runtime.timeline import above
from ..video import LiveSource, VideoWriter, annotate, enlarge, iter_frames

SHOWN_SCORES = 4  # bars of the best classes
LEAST_HZ = 8.0  # boxes drawn on a file are found at least so often a second


@dataclass
class LiveFigures:
    """What happened to the frames of a live source: how many were answered and dropped, and after which time."""

    frames: int = 0
    dropped: int = 0
    delays_s: list[float] = field(default_factory=list)  # the last ones, from a frame's arrival to its answer

    def add(self, delay_s: float) -> None:
        """One more frame answered; the delays of the last 10,000 are kept."""
        self.frames += 1
        self.delays_s.append(delay_s)
        del self.delays_s[:-10_000]

    def to_dict(self) -> dict[str, Any]:
        """frames, dropped, delay_ms {"p50", "p95"}."""
        p50, p95 = np.percentile(self.delays_s or [0.0], [50, 95]) * 1e3
        return {"frames": self.frames, "dropped": self.dropped, "delay_ms": {"p50": float(p50), "p95": float(p95)}}


def predict_live(
    model: str | Path | Model,
    source: str | int | Path | LiveSource,
    threshold: float | None = None,
    min_s: float | None = None,
    save: str | Path | None = None,
    show: Callable[[NDArray[np.uint8]], None] | None = None,
    figures: LiveFigures | None = None,
    each: Callable[[Moment], None] | None = None,
    frames: Callable[[float, NDArray[np.uint8]], None] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Yield a line whenever the answer changes: {"time_s", "label", "score", "boxes"}; see ``as_line``.

    Args:
        source: a camera's number, an address, or a file, which is played at its own speed.
        threshold: below it nothing is named and no box is drawn; None: the model's own.
        save: the view as a video: boxes, action, confidence.
        show: called with each frame of the view, uint8 (H, W, 3).
        figures: is filled with frames answered, dropped, and their delays.
        each: called with every moment, told or not, as ``actions.EventActions`` is.
        frames: called with time and frame (H, W, 3) before the moment that answers it, as ``EventClips.push`` is.

    Raises:
        DataError: the source cannot be opened, or breaks off (and is no ``LiveSource`` that waits).
        ModelError: the model takes no frames.
    """
    loaded = model if isinstance(model, Model) else load(model, threads=1)
    loaded.needs_video()
    least = loaded.threshold if threshold is None else threshold
    figures = LiveFigures() if figures is None else figures
    opened = source if isinstance(source, LiveSource) else LiveSource(source)
    writer: VideoWriter | None = None
    first_s: float | None = None  # of the view
    try:
        if save is not None:
            writer = VideoWriter(save, loaded.rate_hz).__enter__()

        def seen(moment: Moment) -> None:
            figures.add(time.monotonic() - opened.arrived_s)
            figures.dropped = opened.dropped
            assert opened.taken is not None
            looked_at = writer is not None or show is not None
            rgb = opened.taken.rgb() if looked_at or frames is not None else None
            if frames is not None and rgb is not None:
                frames(moment.time_s, rgb)
            if each is not None:
                each(moment)
            if rgb is None or not looked_at:
                return
            view = draw_moment(rgb, above(moment, least, loaded.none), loaded.box_labels, least)
            if writer is not None:
                nonlocal first_s
                first_s = moment.time_s if first_s is None else first_s
                writer.write(view, moment.time_s - first_s)
            if show is not None:
                show(view)

        for moment in watch(cast(Model, _Seen(loaded, seen)), opened, least, min_s):
            yield as_line(moment, loaded.box_labels)
    except BaseException as error:
        if writer is not None:
            broken = not isinstance(error, (KeyboardInterrupt, GeneratorExit))  # then what was seen is kept
            writer.__exit__(*((type(error), error, error.__traceback__) if broken else (None, None, None)))
            writer = None
        raise
    finally:
        if writer is not None:
            writer.__exit__(None, None, None)
        if opened is not source:
            opened.close()


def detect_moments(
    model: Model,
    source: str | Path,
    threshold: float | None = None,
    min_s: float | None = None,
    fps: float | None = None,
    each: Callable[[Moment], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """The same lines for a file (or folder of frames) that is read as fast as it can be, nothing dropped."""
    watched = model if each is None else cast(Model, _Seen(model, each))
    for moment in watch(watched, source, threshold, min_s, windows=0, fps=fps):
        yield as_line(moment, model.box_labels)


def as_line(moment: Moment, box_labels: Sequence[str] = ()) -> dict[str, Any]:
    """The contract's JSON object of a moment: what holds from now on.

    ``label`` is "" where nothing is named; ``score`` is that of the best label all the same.
    ``boxes`` are [x1, y1, x2, y2, score, class], in four digits; ``box_labels`` are their names, of what detects.
    """
    rows = () if moment.boxes is None else moment.boxes
    line: dict[str, Any] = {
        "time_s": moment.time_s,
        "label": moment.label,
        "score": moment.score,
        "boxes": [[round(float(value), 4) for value in row[:5]] + [int(row[5])] for row in rows],
    }
    return line | ({"box_labels": [box_labels[int(row[5])] for row in rows]} if box_labels else {})


def draw_moment(
    rgb: NDArray[np.uint8], moment: Moment, box_labels: tuple[str, ...], threshold: float = 0.5
) -> NDArray[np.uint8]:
    """A frame (H, W, 3) with the action and its confidence, bars of the best classes, and the boxes above threshold."""
    best = sorted(moment.scores.items(), key=lambda item: -item[1])[:SHOWN_SCORES]
    label = moment.label if moment.score >= threshold else ""
    return annotate(enlarge(rgb), label, moment.score, best, drawn_boxes(moment.boxes, box_labels, threshold))


def drawn_boxes(
    boxes: NDArray[np.float32] | None, labels: tuple[str, ...], threshold: float
) -> list[tuple[float, float, float, float, str]]:
    """Boxes (M, 6) above a threshold as ``annotate`` takes them."""
    rows = np.zeros((0, 6)) if boxes is None else boxes[boxes[:, 4] >= threshold]
    return [
        (float(x1), float(y1), float(x2), float(y2), f"{labels[int(label)]} {score:.0%}")
        for x1, y1, x2, y2, score, label in rows
    ]


def frames_with_boxes(
    model: Model, path: Path | str, fps: float | None = None
) -> Iterator[tuple[float, NDArray[np.uint8], NDArray[np.float32] | None]]:
    """Each frame of a file with its time and the boxes (M, 6) found last, at least 8 times a second."""
    hz = max(model.rate_hz, LEAST_HZ)
    frames = sampled_frames(path, hz, model.input_size, fps=fps)
    found = ((time_s, model.run(frame[None]).boxes) for time_s, frame in frames)
    boxes, following = None, next(found, None)
    for frame in iter_frames(path, fps=fps):
        while following is not None and following[0] <= frame.time_s + 1e-6:
            boxes, following = following[1], next(found, None)
        yield frame.time_s, frame.rgb(), boxes


class _Seen:
    """A model that tells of every moment, not only of changes."""

    def __init__(self, model: Model, tell: Callable[[Moment], None]) -> None:
        self.model, self.tell, self.median_s, self.none = model, tell, model.median_s, model.none

    def stream(
        self, source: LiveSource | str | Path, windows: int | None = None, fps: float | None = None
    ) -> Iterator[Moment]:
        for moment in self.model.stream(source, windows, fps):
            self.tell(moment)
            yield moment
