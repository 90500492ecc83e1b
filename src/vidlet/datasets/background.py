"""Videos that show none of the classes: what of them trains, what a threshold is chosen by, what is held out.

A camera sees mostly nothing. Videos without any of the classes are cut into windows as long as a training clip, and
those are one more class, which no client announces. Whole videos are held out of all that, so that false events can be
counted on what was neither trained on nor chosen by; a video is never on two sides unless there are too few, which is
said. A background of any length costs no more than the clips do: windows are spread evenly over all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError, VidletError
from ..files import sha256_of
from ..video import probe, read_many
from .media import clips_below, is_video
from .table import Clip, ClipTable

NAME = "none"  # of the class that a folder of background becomes
PARTS = {"train": 0.6, "held": 0.25, "val": 0.15}  # of the background's seconds
LEAST, MOST = 150, 1000  # windows that train: as many as there are clips, between these
HELD_S = 900.0  # of what is held out: so much is looked at
SHORT = 2.0  # windows: a video up to this is one clip, as it is
LOOKED_AT = 200  # clips whose length is asked for


@dataclass(frozen=True)
class Background:
    """What shows none of the classes.

    Args:
        label: the class; "" where there is none and only a threshold is chosen.
        added: whether its clips came from elsewhere than DATA.
        held: parts of videos that are neither trained on nor chosen by.
        windows: what a threshold is chosen by, where there is no class.
        told: what was taken, in words.
    """

    label: str
    added: bool
    held: tuple[Clip, ...]
    told: str
    windows: tuple[Clip, ...] = ()

    def without(self, table: ClipTable) -> ClipTable:
        """The clips of DATA alone."""
        return table.with_clips(clip for clip in table if self.label not in clip.labels) if self.added else table


@dataclass(frozen=True)
class _Span:
    """A part of a video, in seconds; ``whole`` if it is all of it."""

    path: Path
    start_s: float
    end_s: float
    whole: bool = True

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


def with_background(table: ClipTable, none: str | Path) -> tuple[ClipTable, Background]:
    """The table with one class that means none of the others.

    Args:
        none: the name of a class of the table, or a folder of videos (or one video) without any of its classes.

    Raises:
        DataError: neither; nothing readable in it; it has clips of the table; or a class is already called "none".
    """
    if str(none) in table.labels:
        return _as_class(table, str(none))
    paths = _videos(table, Path(none))
    if label := _class_of(table, paths):
        return _as_class(table, label)
    _refuse_clips_of(table, paths, str(none))
    if NAME in table.labels:
        raise DataError(f"--none {none}: the data have a class {NAME!r} already; put the videos there: --none {NAME}")
    lengths, skipped = _lengths(paths)
    if not lengths:
        raise DataError(f"--none {none}: none of {len(paths)} videos can be read; first: {skipped[0][1]}")
    window_s = _clip_seconds(table)
    parts, shared = _deal([_Span(path, 0.0, seconds) for path, seconds in lengths.items()], window_s)
    most = max(LEAST, min(MOST, len(table.of_split("train"))))
    train = _cut(parts["train"], window_s, most, NAME, "train")
    val = _cut(parts["val"], window_s, max(LEAST, most) // 3, NAME, "val")
    if not train:
        raise DataError(f"--none {none}: {sum(lengths.values()):.1f} s of video; a clip of DATA has {window_s:.1f} s")
    held = _clips(_bounded(parts["held"], HELD_S), NAME)
    told = _told(lengths, train, val, parts, held, window_s, shared)
    found = replace(
        table,
        clips=(*table.clips, *train, *val),
        labels=(*table.labels, NAME),
        skipped=(*table.skipped, *skipped),
        none=NAME,
    )
    return found, Background(NAME, True, held, told)


def between_segments(table: ClipTable) -> Background | None:
    """What lies between and outside of the clips that are cut from longer videos; None where there are no such.

    A video counts where all its clips have their times and are of one split. What is nearer to a clip than a quarter
    of a clip's length is left out, for nobody cuts to the frame.
    """
    own: dict[Path, list[Clip]] = {}
    for clip in table:
        own.setdefault(clip.path, []).append(clip)
    cut = {
        path: clips
        for path, clips in own.items()
        if all(c.start_s is not None and c.end_s is not None for c in clips) and len({c.split for c in clips}) == 1
    }
    if not cut or table.records is not None:
        return None
    lengths, _ = _lengths(list(cut))
    window_s = _clip_seconds(table)
    of_split: dict[str, list[_Span]] = {"train": [], "val": [], "test": []}
    for path, seconds in lengths.items():
        spans = _gaps(path, cut[path], seconds, window_s)
        of_split.setdefault(cut[path][0].split, []).extend(spans)
    windows = _cut([*of_split["train"], *of_split["val"]], window_s, 2 * LEAST, "", "val")
    if not windows:
        return None
    held = _clips(_bounded(of_split["test"], HELD_S), "")
    told = (
        f"between clips: {len(windows)} windows of {window_s:.1f} s choose the threshold, "
        f"{_minutes(held)} of test videos measure it"
    )
    return Background("", False, held, told, windows)


def _gaps(path: Path, clips: Sequence[Clip], seconds: float, window_s: float) -> list[_Span]:
    """What of a video lies between and outside of its clips, with room for a window."""
    margin, at, found = window_s / 4, 0.0, []
    for start, end in [*sorted((c.start_s or 0.0, c.end_s or 0.0) for c in clips), (seconds + margin, seconds)]:
        if start - margin - at >= window_s:
            found.append(_Span(path, at, start - margin, whole=False))
        at = max(at, end + margin)
    return found


def _as_class(table: ClipTable, label: str) -> tuple[ClipTable, Background]:
    split = "test" if len(table.of_split("test")) else "val"
    held = tuple(clip for clip in table.of_split(split) if label in clip.labels)
    told = f"background: class {label!r}; its {len(held)} {split} clips measure"
    return replace(table, none=label), Background(label, False, held, told)


def _videos(table: ClipTable, place: Path) -> list[Path]:
    known = ", ".join(table.labels[:8]) + (", ..." if len(table.labels) > 8 else "")
    if not place.exists():
        raise DataError(f"--none {place}: no such folder or video, and no class of the data ({known})")
    if not place.is_dir():
        if not is_video(place):
            raise DataError(f"--none {place}: no video; give a folder of videos without any of the classes")
        return [place]
    if found := list(clips_below(place)):
        return found
    raise DataError(f"--none {place}: no video and no folder of frames in it")


def _class_of(table: ClipTable, paths: Iterable[Path]) -> str:
    """The class of the table whose clips these are, all of them and no others; "" if there is none."""
    wanted = {path.resolve() for path in paths}
    labels = {clip.labels for clip in table if clip.path.resolve() in wanted}
    if len(labels) != 1 or len(only := labels.pop()) != 1:
        return ""
    own = {clip.path.resolve() for clip in table if only[0] in clip.labels}
    return only[0] if own == wanted else ""


def _refuse_clips_of(table: ClipTable, paths: Sequence[Path], none: str) -> None:
    """A clip that has a label shows something; its copies do, too."""
    known = {clip.path.resolve(): clip for clip in table}
    sizes: dict[int, list[Clip]] = {}
    for path, clip in known.items():
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(clip)
    for path in paths:
        same = known.get(path.resolve())
        if same is None and path.is_file() and (alike := sizes.get(path.stat().st_size)):
            content = sha256_of(path)
            same = next((other for other in alike if sha256_of(other.path) == content), None)
        if same is not None:
            raise DataError(f"--none {none}: {path} is a clip of the data, of class {same.label!r}; it shows something")


def _lengths(paths: Sequence[Path]) -> tuple[dict[Path, float], list[tuple[str, str]]]:
    """Seconds of each video that can be read, and what cannot."""
    found, skipped = {}, []
    for path, info in read_many(list(paths), probe):
        if isinstance(info, VidletError):
            skipped.append((str(path), str(info)))
        elif info.duration_s:
            found[path] = float(info.duration_s)
        else:
            skipped.append((str(path), f"{path}: its length is not known"))
    return found, skipped


def _clip_seconds(table: ClipTable) -> float:
    """The median length of some training clips."""
    clips = list(table.of_split("train")) or list(table)
    some = [clips[i] for i in np.linspace(0, len(clips) - 1, min(len(clips), LOOKED_AT)).astype(int)]
    told = [c.end_s - (c.start_s or 0.0) for c in some if c.end_s is not None]
    whole, _ = _lengths(list(dict.fromkeys(clip.path for clip in some if clip.end_s is None)))
    seconds = [*told, *whole.values()]
    if not seconds:
        raise DataError(f"{table.root}: no clip whose length is known")
    return max(float(np.median(seconds)), 0.1)


def _deal(spans: Sequence[_Span], window_s: float) -> tuple[dict[str, list[_Span]], bool]:
    """Videos to the parts, the longest first, each to the part that has least of its share.

    Where there are too few videos for all parts, the last quarter of the longest one that trains goes to each part that
    has none, with a window's room between, if it is long enough. Returns the parts, and whether that was so.
    """
    parts: dict[str, list[_Span]] = {name: [] for name in PARTS}
    for span in sorted(spans, key=lambda span: (-span.seconds, str(span.path))):
        filled = {name: sum(own.seconds for own in parts[name]) / share for name, share in PARTS.items()}
        parts[min(filled, key=lambda name: filled[name])].append(span)
    shared = False
    for name in ("held", "val"):
        if parts[name] or parts["train"][0].seconds < 8 * window_s:
            continue
        first, *rest = parts["train"]
        border = first.end_s - first.seconds / 4
        parts[name] = [replace(first, start_s=border, whole=False)]
        parts["train"], shared = [replace(first, end_s=border - window_s, whole=False), *rest], True
    return parts, shared


def _cut(spans: Sequence[_Span], window_s: float, most: int, label: str, split: str) -> tuple[Clip, ...]:
    """Windows of a length out of spans, at most so many: as many of each span as there are, spread evenly over it."""
    counts = [_count(span, window_s) for span in spans]
    quota = _even_quota(counts, most)
    found = []
    for span, count, take in zip(spans, counts, quota, strict=True):
        if span.whole and span.seconds <= SHORT * window_s:
            found += [Clip(span.path, (label,), "", split)] * take
            continue
        for i in np.linspace(0, count - 1, take).astype(int) if take else ():
            start = span.start_s + int(i) * window_s
            found.append(Clip(span.path, (label,), "", split, round(start, 3), round(start + window_s, 3)))
    return tuple(found)


def _count(span: _Span, window_s: float) -> int:
    if span.whole and span.seconds <= SHORT * window_s:
        return 1
    return int(span.seconds / window_s + 1e-6)


def _even_quota(counts: Sequence[int], most: int) -> list[int]:
    """How many to take of each, ``most`` in all: nobody gets more than another who has more to give."""
    quota, left = [0] * len(counts), most
    order = sorted(range(len(counts)), key=lambda i: counts[i])
    for place, i in enumerate(order):
        quota[i] = min(counts[i], -(-left // (len(order) - place)))
        left -= quota[i]
    return quota


def _bounded(spans: Sequence[_Span], most_s: float) -> list[_Span]:
    """The same spans, shortened so that they are so many seconds in all, the long ones first."""
    found, left = [], most_s
    order = sorted(spans, key=lambda span: span.seconds)
    for place, span in enumerate(order):
        take = min(span.seconds, left / (len(order) - place))
        left -= take
        found.append(span if take == span.seconds else replace(span, end_s=span.start_s + take, whole=False))
    return found


def _clips(spans: Iterable[_Span], label: str) -> tuple[Clip, ...]:
    return tuple(
        Clip(span.path, (label,), "", "held", *((None, None) if span.whole else (span.start_s, span.end_s)))
        for span in spans
    )


def _told(
    lengths: Mapping[Path, float],
    train: Sequence[Clip],
    val: Sequence[Clip],
    parts: Mapping[str, Sequence[_Span]],
    held: Sequence[Clip],
    window_s: float,
    shared: bool,
) -> str:
    seconds = sum(lengths.values())
    there = sum(_count(span, window_s) for span in parts["train"])
    of = f" of {there}" if there > len(train) else ""
    held_s = sum(span.seconds for span in parts["held"])
    measured = min(HELD_S, held_s)
    less = f" of {held_s / 60:.1f}" if held_s > measured else ""
    parted = "; too few videos: parts of one video are on both sides, so other scenes may do worse" if shared else ""
    return (
        f"background: {len(lengths)} videos, {seconds / 60:.1f} min: {len(train)}{of} windows of {window_s:.1f} s "
        f"train, {len(val)} validate, {measured / 60:.1f}{less} min of {len(held)} held out videos measure{parted}"
    )


def _minutes(clips: Sequence[Clip]) -> str:
    seconds = sum((clip.end_s or 0.0) - (clip.start_s or 0.0) for clip in clips)
    return f"{seconds / 60:.1f} min"
