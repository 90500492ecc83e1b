"""Names what happens when in a video of any length: segments with start, end, label and score.

The extractor runs once a frame, at the rate of the training clips; N staggered windows share it, each as long as a
training clip (windows.py). A window speaks when it has ended, for all the time that it has seen; so every moment is
judged by the N windows that cover it, before and after, and borders do not lag. "None of these" is an answer: scores
below the threshold and segments shorter than the minimum name nothing. Memory does not grow with the video but for
the list of segments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import video
from .model import LIVE_WINDOWS, Model, Moment
from .sources import Source, sampled_frames
from .windows import StaggeredWindows

SHORT_WINDOWS = 1.5  # a clip of at most so many windows is one clip: it has classify's scores from start to end


@dataclass(frozen=True)
class Segment:
    """One thing that happens, in [start_s, end_s); ``score`` is the label's mean over that time."""

    start_s: float
    end_s: float
    label: str
    score: float


@dataclass(frozen=True)
class Timeline:
    """Segments in order of their start, and the answer for the video as a whole."""

    segments: tuple[Segment, ...]
    label: str
    score: float
    scores: dict[str, float]
    duration_s: float = 0.0
    frames: int = 0
    damage: str = ""  # what was wrong with the file, "" if nothing


def predict_timeline(
    model: Model,
    source: str | Path,
    threshold: float | None = None,
    min_s: float | None = None,
    *,
    windows: int = 4,
    progress: Callable[[int], None] | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    fps: float | None = None,
    seen: Callable[[float, NDArray[np.float32]], None] | None = None,
) -> Timeline:
    """Read a whole file (or folder of frames) and say what happens when.

    A clip of at most one and a half training clips has the label and scores of ``model.classify``, from start to end;
    a longer video has the mean over its time.

    Args:
        threshold: a label needs this score to name anything; None: the model's own.
        min_s: a segment needs this duration; None: a quarter of a training clip, or the whole of a shorter video.
        windows: how many windows share the frames; borders are as fine as a window divided by this.
        progress: called with the number of frames done.
        start_s, end_s: look at this part of the video alone; its segments have the video's times.
        fps: frames a second of a folder of frames; None: what their names tell, else 25.
        seen: called with time and boxes (M, 6) of each frame, where the file detects as well.

    Raises:
        DataError: the video cannot be read.
        ModelError: the model takes no frames or names no clips.
    """
    model.needs_video(labels=True)
    staggered = StaggeredWindows(model, round(model.median_s * model.rate_hz), windows, whole=True)
    blocks = _Blocks(staggered)
    builder = SegmentBuilder(
        model.labels,
        model.threshold if threshold is None else threshold,
        model.median_s / 4 if min_s is None else min_s,
        model.multi_label,
        model.none,
    )
    short_frames = SHORT_WINDOWS * model.median_s * model.rate_hz
    total, weight_s, last_s = np.zeros(len(model.labels)), 0.0, 0.0
    whole: NDArray | None = None

    def judge(ready: list[tuple[float, float, NDArray]]) -> None:
        nonlocal total, weight_s
        for begin_s, until_s, scores in ready:
            builder.push(begin_s, until_s, scores)
            total, weight_s = total + scores * (until_s - begin_s), weight_s + until_s - begin_s

    held: list[tuple[float, float, NDArray]] = []  # until it is known whether the video is short
    damage = [""]
    frames = sampled_frames(source, model.rate_hz, model.input_size, damage.append, start_s, end_s, fps)
    for time_s, frame in frames:
        step = staggered.push(frame)
        if seen is not None and step.boxes is not None:
            seen(time_s, step.boxes)
        last_s = time_s
        held += blocks.tick(time_s)
        if staggered.frames > short_frames:
            if whole is not None:
                staggered.drop_whole()
                whole = None
            judge(held)
            held = []
        else:
            whole = staggered.scores[-1]
        if progress:
            progress(staggered.frames)
    stop_s = _end_of(source, last_s, last_s + 1 / model.rate_hz, fps)
    if whole is not None:
        same = model.sampling.rule == "rate" and not damage[-1]  # classify ends at damage, where this goes on
        scores = whole if same else _classified(model, source, start_s, end_s, fps)
        judge([(blocks.start_s, stop_s, scores)])
    else:
        judge(blocks.finish(stop_s))
    if min_s is None:
        builder.min_s = min(builder.min_s, stop_s - blocks.start_s)
    label, score, named = model.name_scores((total / weight_s).astype(np.float32))
    return Timeline(tuple(builder.finish()), label, score, named, stop_s, staggered.frames, damage[-1])


def _end_of(source: str | Path, last_s: float, next_s: float, fps: float | None) -> float:
    """When the video ends: with its last sampled frame's turn, or before."""
    duration_s = video.probe(source, fps).duration_s
    return min(next_s, duration_s) if duration_s > last_s else next_s


def _classified(
    model: Model, source: str | Path, start_s: float | None, end_s: float | None, fps: float | None
) -> NDArray:
    return np.array(list(model.classify(source, start_s, end_s, fps).scores.values()))


class _Blocks:
    """Time in blocks of one stride; a block has the mean of the last scores of the windows that cover it.

    Block b begins with window b, and is covered by the windows b - N + 1 .. b.
    """

    def __init__(self, staggered: StaggeredWindows) -> None:
        self.staggered = staggered
        self.start_s = 0.0
        self.starts: deque[float] = deque()  # of the blocks that have no scores yet
        self.finals: deque[NDArray] = deque(maxlen=staggered.windows)  # of the windows that ended last
        self.ended = 0  # windows that ended

    def tick(self, time_s: float) -> list[tuple[float, float, NDArray]]:
        """After each frame: the block that is now known, if any (start_s, end_s, scores)."""
        s, ready = self.staggered, []
        if s.frames == 1:
            self.start_s = time_s
        if (s.frames - 1) % s.stride == 0:
            self.starts.append(time_s)
            if len(self.starts) > s.windows:  # the oldest block's own window ended with the frame before
                ready.append((self.starts.popleft(), self.starts[0], np.mean(self.finals, axis=0)))
        if s.frames % s.stride == 0 and s.frames >= s.length:
            self._speak()
        return ready

    def finish(self, end_s: float) -> list[tuple[float, float, NDArray]]:
        """At the end of the video: the blocks that are left; windows that have seen half their length speak, too."""
        s, ready = self.staggered, []
        bounds = [*self.starts, end_s]
        block = -(-s.frames // s.stride) - len(self.starts)
        for start_s, stop_s in pairwise(bounds):
            if self.ended == block and 2 * s.age(block) >= s.length:
                self._speak()
            else:  # windows that ended before this block say nothing about it; the last one stays
                while len(self.finals) > 1 and self.ended - len(self.finals) <= block - s.windows:
                    self.finals.popleft()
            scores = np.mean(self.finals, axis=0) if self.finals else s.row(s.oldest)
            ready.append((start_s, stop_s, scores))
            block += 1
        return ready

    def _speak(self) -> None:
        self.finals.append(self.staggered.row(self.ended).copy())
        self.ended += 1


class SegmentBuilder:
    """Merges scores of successive spans of time into segments, one span at a time.

    One label a clip: the best label of a span counts, if it reaches the threshold. Many labels: each for itself. A
    segment shorter than ``min_s`` is dropped; a gap shorter than ``min_s`` between two of one label is bridged. The
    label ``none`` is never named; where it is the best nothing is.
    """

    def __init__(
        self, labels: Sequence[str], threshold: float, min_s: float, multi_label: bool = False, none: str = ""
    ) -> None:
        self.labels, self.threshold, self.min_s, self.multi_label = labels, threshold, min_s, multi_label
        self.none = none
        self.open: dict[int, Segment] = {}
        self.closed: list[Segment] = []
        self.last: dict[str, int] = {}  # place in ``closed`` of a label's latest segment

    def push(self, start_s: float, end_s: float, scores: NDArray) -> None:
        """Add the scores (K,) of [start_s, end_s), which begins where the last one ended, or later."""
        best = range(len(scores)) if self.multi_label else (int(np.argmax(scores)),)
        present = {i for i in best if scores[i] >= self.threshold and self.labels[i] != self.none}
        for index in [index for index in self.open if index not in present or self.open[index].end_s < start_s]:
            self._close(self.open.pop(index))
        for index in present:
            span = Segment(start_s, end_s, self.labels[index], float(scores[index]))
            self.open[index] = _join(self.open[index], span) if index in self.open else span

    def finish(self) -> list[Segment]:
        """The segments, in order of their start."""
        for segment in self.open.values():
            self._close(segment)
        self.open.clear()
        return sorted(self.closed, key=lambda segment: (segment.start_s, segment.label))

    def _close(self, segment: Segment) -> None:
        if segment.end_s - segment.start_s < self.min_s - 1e-9:
            return
        place = self.last.get(segment.label)
        near = place is not None and segment.start_s - self.closed[place].end_s < self.min_s
        if place is not None and near and (self.multi_label or place == len(self.closed) - 1):
            self.closed[place] = _join(self.closed[place], segment)
            return
        self.last[segment.label] = len(self.closed)
        self.closed.append(segment)


def _join(a: Segment, b: Segment) -> Segment:
    """One segment over both; the score is the mean, weighted by duration."""
    long_a, long_b = a.end_s - a.start_s, b.end_s - b.start_s
    score = (a.score * long_a + b.score * long_b) / (long_a + long_b) if long_a + long_b else a.score
    return Segment(a.start_s, b.end_s, a.label, score)


def segments_from_scores(
    times: ArrayLike,
    scores: ArrayLike,
    labels: Sequence[str],
    threshold: float = 0.5,
    min_s: float = 0.0,
    *,
    end_s: float | None = None,
    multi_label: bool = False,
) -> list[Segment]:
    """Segments of scores (n, K) that hold from their time (n,) to the next; see ``SegmentBuilder``.

    ``end_s`` ends the last one; None: it lasts as long as the one before it.
    """
    starts, rows = np.asarray(times, float), np.asarray(scores)
    if not len(starts):
        return []
    if end_s is None:
        end_s = float(starts[-1] + (starts[-1] - starts[-2] if len(starts) > 1 else 0.0))
    builder = SegmentBuilder(labels, threshold, min_s, multi_label)
    for start, stop, row in zip(starts.tolist(), [*starts[1:].tolist(), end_s], rows, strict=True):
        builder.push(start, stop, row)
    return builder.finish()


def watch(
    model: Model,
    source: Source,
    threshold: float | None = None,
    min_s: float | None = None,
    windows: int = LIVE_WINDOWS,
    fps: float | None = None,
) -> Iterator[Moment]:
    """Yield a moment whenever the answer changes: another label, none (""), or other kinds of boxes.

    A new label must hold for ``min_s`` (None: a quarter of a training clip) before it is told; the moment is that of
    its first frame. Boxes below the threshold are left out. ``threshold`` None: the model's own. ``fps`` is that of a
    folder of frames.
    """
    threshold = model.threshold if threshold is None else threshold
    min_s = model.median_s / 4 if min_s is None else min_s
    told: tuple[str, tuple[int, ...]] | None = None
    candidate: tuple[tuple[str, tuple[int, ...]], Moment] | None = None
    for told_by_model in model.stream(source, windows, fps) if fps else model.stream(source, windows):
        moment = above(told_by_model, threshold, model.none)
        boxes = () if moment.boxes is None else tuple(sorted(moment.boxes[:, 5].astype(int).tolist()))
        answer = (moment.label, boxes)
        if answer == told:
            candidate = None
            continue
        if candidate is None or candidate[0] != answer:
            candidate = (answer, moment)
        if moment.time_s - candidate[1].time_s >= min_s:
            yield candidate[1]
            told, candidate = answer, None
    if told is None and candidate is not None:  # the source has ended before anything could hold
        yield candidate[1]


def above(moment: Moment, threshold: float, none: str = "") -> Moment:
    """The moment with nothing named below the threshold, nor where the label ``none`` is the best."""
    boxes = None if moment.boxes is None else moment.boxes[moment.boxes[:, 4] >= threshold]
    label = moment.label if moment.score >= threshold and moment.label != none else ""
    return replace(moment, label=label, boxes=boxes)
