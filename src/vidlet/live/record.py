"""Clips for class folders, before a camera or cut from a long video: by keys in a window, or by a plan of times.

Frames are handed on at their own times, so that a clip is as long as it was; a file's frames are all seen, a camera's
as they come. Nothing here asks for a screen: a window is whatever shows a picture and tells the keys.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..datasets.table import split_name
from ..errors import DataError
from ..labels import label_order
from ..video import Frame, VideoWriter, annotate, enlarge

RATE_HZ = 30.0  # what a file says of its rate; its frames have their own times
PAUSE_S = 2.0  # between two clips of a plan, to get ready
SLACK_S = 0.1  # that the last clip may be shorter than planned: its last frame is shown for a while
LEAST_FRAMES = 2  # of a clip; what is shorter is no movement
TABLE = "clips.csv"
FORBIDDEN = '/\\:*?"<>|'  # what no folder may be called on every system
NEXT, UNDO, LEAVE = "space", ("u", "BackSpace"), ("q", "Escape")


class Screen(Protocol):
    """A window: it shows pictures and knows which keys were pressed since it was asked last."""

    def show(self, rgb: NDArray[np.uint8]) -> None: ...

    def pressed(self) -> list[str]: ...


@dataclass(frozen=True)
class Clip:
    """A clip on the disk."""

    path: Path
    label: str
    seconds: float
    frames: int


class Recorder:
    """Clips in a folder per class, one at a time; none is overwritten.

    Args:
        folder: gets LABEL/LABEL-001.mp4, or LABEL/GROUP/LABEL-001.mp4.
        group: the person or scene, which train and test must not share; "" where that is not known.

    Raises:
        DataError: a label or the group can be no folder, or the folder holds a table of clips.
    """

    def __init__(self, folder: str | Path, labels: Sequence[str], group: str = "") -> None:
        self.folder, self.group = Path(folder), group
        self.labels = _checked(labels, group, self.folder)
        self.clips: list[Clip] = []
        self._draft = contextlib.ExitStack()
        self._writer: VideoWriter | None = None
        self._path, self._label = Path(), ""
        self._first_s = self._last_s = math.nan
        self._frames = 0

    @property
    def recording(self) -> str:
        """The label of the clip under way, or ""."""
        return self._label

    def count(self, label: str) -> int:
        """Clips of a label so far."""
        return sum(clip.label == label for clip in self.clips)

    def begin(self, label: str) -> None:
        """The next frames are a clip of this label."""
        self.end()
        place = self.folder / label / self.group if self.group else self.folder / label
        place.mkdir(parents=True, exist_ok=True)
        number = next(n for n in range(1, 1_000_000) if not (place / f"{label}-{n:03d}.mp4").exists())
        self._path, self._label, self._frames = place / f"{label}-{number:03d}.mp4", label, 0
        self._writer = self._draft.enter_context(VideoWriter(self._path, RATE_HZ))

    def push(self, rgb: NDArray[np.uint8], time_s: float) -> None:
        """One more frame, which is part of the clip under way if there is one."""
        if self._writer is None:
            return
        self._first_s = time_s if not self._frames else self._first_s
        self._writer.write(rgb, time_s - self._first_s)
        self._last_s, self._frames = time_s, self._frames + 1

    def end(self) -> Clip | None:
        """The clip under way is whole; None where there is none, or too short a one, of which nothing is left."""
        if self._writer is None:
            return None
        if self._frames < LEAST_FRAMES:
            self._drop()
            return None
        self._writer = None
        label, self._label = self._label, ""
        self._draft.close()
        clip = Clip(self._path, label, self._last_s - self._first_s, self._frames)
        self.clips.append(clip)
        return clip

    def undo(self) -> Clip | None:
        """Take the clip under way back, or else the last one of this session, from the disk too."""
        if self._writer is not None:
            self._drop()
            return None
        if not self.clips:
            return None
        clip = self.clips.pop()
        clip.path.unlink(missing_ok=True)
        return clip

    def _drop(self) -> None:
        self._writer, self._label = None, ""
        dropped = DataError("a clip that is not wanted")
        with contextlib.suppress(DataError):
            self._draft.__exit__(DataError, dropped, None)
        self._draft = contextlib.ExitStack()


def _checked(labels: Sequence[str], group: str, folder: Path) -> tuple[str, ...]:
    if (folder / TABLE).exists():
        raise DataError(f"{folder}: holds {TABLE}, a table of clips; record into a folder of its own")
    for what, name in [*(("label", label) for label in labels), *([("group", group)] if group else [])]:
        if not name.strip() or name != name.strip() or name.startswith(".") or set(name) & set(FORBIDDEN):
            raise DataError(f"{what} {name!r}: can be no folder; take letters, digits and blanks between them")
        if split_name(name):
            raise DataError(f"{what} {name!r}: a folder of this name is read as a split; choose another one")
    label_order(labels, str(folder))  # refuses two that differ in case only
    return tuple(dict.fromkeys(labels))


@dataclass(frozen=True)
class Plan:
    """When which label is recorded, in seconds of the source."""

    label: str
    start_s: float
    end_s: float


def planned(labels: Sequence[str], count: int, seconds: float, every: float | None = None) -> list[Plan]:
    """``count`` clips of each label, one label after the other, the first after a pause.

    Args:
        every: from the beginning of a clip to that of the next; None: ``seconds`` and a pause.

    Raises:
        DataError: no clip, or clips that would overlap.
    """
    step = seconds + PAUSE_S if every is None else every
    if count < 1 or not 0 < seconds < math.inf or not step >= seconds:
        raise DataError(f"{count} clips of {seconds:g} s every {step:g} s: they must be longer than 0 and not overlap")
    lead = max(step - seconds, 0.0)
    names = [label for label in labels for _ in range(count)]
    return [Plan(label, lead + i * step, lead + i * step + seconds) for i, label in enumerate(names)]


def record_by_plan(
    frames: Iterable[Frame], recorder: Recorder, plan: Sequence[Plan], say: Callable[[str], None]
) -> None:
    """Record clips at their times, with a countdown before each; ends with the last one, or with the source."""
    waiting, told, now_s = list(plan), "", 0.0
    total = Counter(one.label for one in plan)
    for frame in frames:
        now_s = frame.time_s
        while waiting and now_s >= waiting[0].end_s:
            waiting.pop(0)
            if (clip := recorder.end()) is not None:
                say(f"{clip.label}  {recorder.count(clip.label)}/{total[clip.label]}  {clip.path}")
        if not waiting:
            return
        following = waiting[0]
        if now_s >= following.start_s and not recorder.recording:
            say(f"{following.label}: now, {following.end_s - following.start_s:g} s")
            recorder.begin(following.label)
        elif (left := math.ceil(following.start_s - now_s)) <= 3 and f"{following} {left}" != told and left > 0:
            say(f"{following.label} in {left} s")
            told = f"{following} {left}"
        if recorder.recording:
            recorder.push(frame.rgb(), now_s)
    if recorder.recording and now_s < waiting[0].end_s - SLACK_S:
        recorder.undo()  # the source ended within the clip
    recorder.end()
    if len(recorder.clips) < len(plan):
        say(f"the source ended: {len(recorder.clips)} of {len(plan)} clips were recorded")


def record_by_keys(
    frames: Iterable[Frame],
    recorder: Recorder,
    screen: Screen,
    say: Callable[[str], None],
    seconds: float | None = None,
) -> None:
    """Record while a person says so: space begins and ends a clip, digits choose the label, u takes the last one back.

    Args:
        seconds: a clip ends by itself after so long; None: at the next space.
    """
    label, ends_s = recorder.labels[0], math.inf
    for frame in frames:
        rgb = frame.rgb()
        for key in screen.pressed():
            if key in LEAVE:
                _ended(recorder, say)
                return
            if key == NEXT and recorder.recording:
                _ended(recorder, say)
            elif key == NEXT:
                recorder.begin(label)
                ends_s = math.inf if seconds is None else frame.time_s + seconds
            elif key in UNDO:
                taken = recorder.undo()
                say(f"taken back: {taken.path}" if taken else "taken back")
            elif key.isdecimal() and 1 <= int(key) <= len(recorder.labels) and not recorder.recording:
                label = recorder.labels[int(key) - 1]
        if frame.time_s >= ends_s and recorder.recording:
            _ended(recorder, say)
        recorder.push(rgb, frame.time_s)
        screen.show(preview(rgb, label, recorder))
    _ended(recorder, say)


def _ended(recorder: Recorder, say: Callable[[str], None]) -> None:
    if (clip := recorder.end()) is not None:
        say(f"{clip.label}  {recorder.count(clip.label)}  {clip.seconds:.1f} s  {clip.path}")


def preview(rgb: NDArray[np.uint8], label: str, recorder: Recorder) -> NDArray[np.uint8]:
    """The picture with the label, how many clips of it there are, and a red edge while one is recorded."""
    now = recorder.recording
    state = "recording" if now else f"{recorder.count(label)} clips"
    picture = annotate(enlarge(rgb), f"{now or label}: {state}")
    if now:
        edge = max(4, min(picture.shape[:2]) // 50)
        for side in (picture[:edge], picture[-edge:], picture[:, :edge], picture[:, -edge:]):
            side[:] = (220, 30, 30)
    return picture


def at_own_speed(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Frames of a file no sooner than they are shown; none is left out where somebody is slow."""
    began = time.monotonic()
    for frame in frames:
        time.sleep(max(0.0, began + frame.time_s - time.monotonic()))
        yield frame
