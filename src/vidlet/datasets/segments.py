"""Segments of long videos, as labelling tools export them -> one clip table.

A tool's reader lists its ``Segment``s, in seconds or in numbers of frames; here their videos are found, numbers of
frames become the times at which those frames are shown (at variable rates, too), and what cannot be used is named.
Where a table's clips are parts of one or two videos, stretches of time are their groups, so that a split is possible
at all.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..labels import label_order
from ..video import frame_times, probe
from .media import Media, folders_near
from .table import Clip, ClipTable

STRETCHES = 15  # of a table whose clips are parts of one or two videos
PER_STRETCH = 2  # segments in a stretch at least, on average
NAMED = 5  # missing videos that a message names
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file
CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?")
FRAME_CODE = re.compile(r"(\d{1,4}):(\d{1,2}):(\d{1,2})([:;])(\d{1,3})")


@dataclass(frozen=True)
class Segment:
    """A labelled part of a video, as a tool wrote it.

    Attributes:
        video: a path, an address or a name.
        where: what to call the segment in messages: "task 12".
        start, end: seconds; None: where the video begins and ends.
        frames: instead of them numbers of frames from 0, the last one is part of the segment; None for it is the last
            of the video.
        counted: how many frames the tool took the video to have, where it tells: some count at a rate that was set by
            hand, and their numbers are then times at that rate.
    """

    video: str
    labels: tuple[str, ...]
    where: str
    start: float | None = None
    end: float | None = None
    frames: tuple[int, int | None] | None = None
    counted: int | None = None
    group: str = ""
    split: str = ""


def segment_table(
    segments: Sequence[Segment], file: Path, tool: str, notes: Sequence[str] = (), bases: Sequence[Path] = ()
) -> ClipTable:
    """The clip table of a tool's segments.

    Args:
        file: the export, beside which and near which videos are looked for.
        bases: folders in which they are looked for first.

    Raises:
        DataError: there is no segment, or none of the videos is there; names the videos.
    """
    if not segments:
        why = f" ({' '.join(notes)})" if notes else ""
        raise DataError(f"{file}: no labelled segment of a video in this export of {tool}{why}")
    media, clips = Media(), []
    skipped: list[tuple[str, str]] = []
    folders = list(dict.fromkeys([*bases, *folders_near(file.parent)]))
    inside = [folder for folder in folders if folder in bases or folder.is_relative_to(file.parent)]
    names = list(dict.fromkeys(one.video for one in segments))
    found = {name: _find(name, inside, media) for name in names}
    if not any(found.values()):  # a neighbor's videos may have the same names: they count where there are no others
        found = {name: _find(name, folders, media) for name in names}
    for segment in segments:
        path = found[segment.video]
        try:
            if path is None:
                raise DataError("no such file")
            start_s, end_s = _seconds(segment, path)
        except DataError as error:
            skipped.append((segment.video, f"{segment.where}: {error}"))
            continue
        clips.append(Clip(path, segment.labels, segment.group, segment.split, start_s, end_s))
    told = [*notes, *_missing_note(found, tool), *_same_note(found), *_rate_note(segments, found, tool), *media.notes()]
    if not clips:
        if missing := [name for name, path in found.items() if path is None]:
            raise DataError(
                f"{file}: none of the {len(missing)} videos that {tool} names is there: {_listed(missing)}; looked in "
                f"{', '.join(str(folder) for folder in folders[:3])}"
            )
        raise DataError(f"{file}: none of {len(skipped)} segments can be used (first: {': '.join(skipped[0])})")
    kept = list(dict.fromkeys(clips))
    if len(kept) < len(clips):
        told.append(f"{len(clips) - len(kept)} segments repeat an earlier one and were dropped.")
    labels = label_order((name for clip in kept for name in clip.labels), str(file))
    return ClipTable(tuple(kept), labels, file.parent, (*told, *overlap_notes(kept)), tuple(skipped))


def ignored_note(kinds: Iterable[str]) -> tuple[str, ...]:
    """A sentence that counts labels which are no segments, by their kind; none where there are none."""
    counts = Counter(kinds)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (f"Labels of other kinds were ignored: {listed}.",) if counts else ()


def overlap_notes(clips: Sequence[Clip]) -> tuple[str, ...]:
    """A sentence, if parts of the same video with different labels overlap."""
    count, first = 0, None
    for parts in _files_with_overlaps(clips):
        known: dict[tuple[str, ...], int] = {}
        kinds = np.array([known.setdefault(clip.labels, len(known)) for clip in parts])
        starts, ends = np.array([_start(clip) for clip in parts]), np.array([_end(clip) for clip in parts]) - 1e-6
        met = _going_on(starts, ends)
        order = np.argsort(kinds, kind="stable")
        for own in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):  # of the same labels
            met[own] -= _going_on(starts[own], ends[own])
        count += int(met.sum())
        if first is None and met.any():
            later = np.flatnonzero(met)[0]
            earlier = np.flatnonzero((ends[:later] > starts[later]) & (kinds[:later] != kinds[later]))[0]
            first = parts[earlier], parts[later]
    if first is None:
        return ()
    one, other = first
    counted = f"{count} {'pair' if count == 1 else 'pairs'} of them"
    return (
        f"Segments with different labels overlap, {counted} (first: "
        f"{one.path.name}, {one.label} {_span(one)} and {other.label} {_span(other)}); each stays a clip of its label.",
    )


def _going_on(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How many of the parts before it go on when each begins, (N,); they are sorted by their starts."""
    return np.arange(len(starts)) - np.searchsorted(np.sort(ends), starts, "right")


def _files_with_overlaps(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """The parts of each file in which one begins before the one before it has ended, by file and start."""
    numbers, starts, ends = places_of_parts(clips)
    starts = np.maximum(starts, 0.0)
    order = np.lexsort((starts, numbers))
    numbers, begin, end = numbers[order], starts[order], ends[order]
    early = (numbers[1:] == numbers[:-1]) & (begin[1:] < end[:-1] - 1e-6)
    for number in np.unique(numbers[1:][early]).tolist():
        first, last = np.searchsorted(numbers, [number, number + 1]).tolist()
        yield [clips[at] for at in order[first:last].tolist()]


def places_of_parts(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each clip the number of its file, by the order of their names, and its start and end in seconds, (N,) each.

    A clip without a start has -1, one without an end infinity.
    """
    known: dict[Path, int] = {}
    seen = np.fromiter((known.setdefault(clip.path, len(known)) for clip in clips), np.int64, len(clips))
    ranks = np.empty(len(known), np.int64)
    ranks[[known[path] for path in sorted(known, key=str)]] = np.arange(len(known))
    starts = np.fromiter((-1.0 if clip.start_s is None else clip.start_s for clip in clips), float, len(clips))
    ends = np.fromiter((_end(clip) for clip in clips), float, len(clips))
    return ranks[seen], starts, ends


def _by_file(clips: Sequence[Clip]) -> Iterator[tuple[Path, list[Clip]]]:
    order = sorted(clips, key=lambda clip: (str(clip.path), _start(clip)))
    for path, parts in groupby(order, key=lambda clip: clip.path):
        yield path, list(parts)


def _start(clip: Clip) -> float:
    return clip.start_s or 0.0


def _end(clip: Clip) -> float:
    return np.inf if clip.end_s is None else clip.end_s


def _span(clip: Clip) -> str:
    return f"{_start(clip):.2f} to {'the end' if clip.end_s is None else f'{clip.end_s:.2f} s'}"


# Where videos lie.


def _find(video: str, folders: Sequence[Path], media: Media) -> Path | None:
    """The file that a tool's name of a video means: itself, or by the end of its path in one of the folders.

    Raises:
        DataError: it lies in several of them.
    """
    names = places_of(video)
    first = Path(names[0]) if names else None
    if first is not None and first.is_absolute() and (found := media.find(first)):
        return found
    for name in names:
        places = list(dict.fromkeys(found for folder in folders if (found := media.find(folder / name))))
        if len(places) > 1:
            raise DataError(f"{video}: {places[0]} and {places[1]} may be meant; leave one where videos are looked for")
        if places:
            return places[0]
    return None


def places_of(video: str) -> list[str]:
    """Names under which a video may lie, the whole path first: an address loses its host, an upload its prefix."""
    parts = urlsplit(video) if "://" in video or "?" in video else None
    if parts is not None:
        asked = parse_qs(parts.query).get("d")
        video = asked[0] if asked else unquote(parts.path)
    steps = [step for step in video.replace("\\", "/").split("/") if step not in ("", ".", "..")]
    names = [video] if video.startswith("/") and parts is None else []
    names += ["/".join(steps[first:]) for first in range(len(steps))]
    if steps and (plain := UPLOAD.sub("", steps[-1])) != steps[-1]:
        names.append(plain)
    return names


def _missing_note(found: dict[str, Path | None], tool: str) -> list[str]:
    missing = [name for name, path in found.items() if path is None]
    if not missing or len(missing) == len(found):
        return []
    return [f"{len(missing)} of the {len(found)} videos that {tool} names are missing: {_listed(missing)}."]


def _same_note(found: dict[str, Path | None]) -> list[str]:
    """A sentence, if several names mean one file."""
    names: dict[Path, list[str]] = {}
    for name, path in found.items():
        if path is not None:
            names.setdefault(path, []).append(name)
    several = next((group for group in names.values() if len(group) > 1), None)
    return [f"{_listed(several)} are taken for one video, by their names."] if several else []


def _rate_note(segments: Sequence[Segment], found: dict[str, Path | None], tool: str) -> list[str]:
    """A sentence, if the tool counted the frames of a video at another rate than the video's."""
    for segment in segments:
        path = found[segment.video]
        if path is not None and segment.frames is not None and _counts_otherwise(segment, path):
            counts = f"{segment.counted:,} frames in {path.name}, which has {len(times_of(path)):,}"
            return [
                f"{tool} counted {counts}: its rate was set otherwise, its numbers are taken as times at that rate."
            ]
    return []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


# When segments are.


def _seconds(segment: Segment, path: Path) -> tuple[float | None, float | None]:
    """Start and end of a segment in seconds.

    Raises:
        DataError: it is empty, or lies outside of its video.
    """
    start_s, end_s = segment.start, segment.end
    if segment.frames is not None:
        if not _counts_otherwise(segment, path):
            return span_of_frames(path, *segment.frames)
        start_s, end_s = _at_its_rate(segment, path)
    if start_s is not None and not 0 <= start_s < np.inf:
        raise DataError(f"start {start_s:g} s is no time")
    if end_s is not None and not end_s > (start_s or 0.0):
        raise DataError(f"end {end_s:g} s is not after start {start_s or 0.0:g} s")
    if start_s and start_s >= (length_s := _length_of(path)) > 0:
        raise DataError(f"start {start_s:g} s lies behind the end of the video ({length_s:.2f} s)")
    return start_s, None if end_s is None else float(end_s)


def _counts_otherwise(segment: Segment, path: Path) -> bool:
    """Whether the tool's number of frames is not the video's: its numbers are those of another rate."""
    if segment.counted is None:
        return False
    real = len(times_of(path))
    return abs(segment.counted - real) > max(1, 0.005 * real)


def _at_its_rate(segment: Segment, path: Path) -> tuple[float, float | None]:
    """The times of a tool's numbers of frames at the rate by which it counted as many as it did."""
    assert segment.frames is not None and segment.counted is not None
    first, last = segment.frames
    each_s = _length_of(path) / segment.counted
    whole = last is None or last + 1 >= segment.counted
    return first * each_s, None if whole or last is None else (last + 1) * each_s


def span_of_frames(path: Path, first: int, last: int | None, fps: float | None = None) -> tuple[float, float | None]:
    """The time from frame ``first`` to the end of frame ``last`` (None: of the video), counted from 0.

    Raises:
        DataError: the last frame is before the first, or one of them is not in the video.
    """
    times = times_of(path, fps)
    if last is None:
        last = len(times) - 1
    if last < first:
        raise DataError(f"last frame {last} is before first frame {first}")
    if not 0 <= first < len(times) or last >= len(times):
        raise DataError(f"frames {first} to {last} are not in the video, which has {len(times):,} (from 0)")
    return float(times[first]), float(times[last + 1]) if last + 1 < len(times) else None


def _length_of(path: Path) -> float:
    status = path.stat()
    return _length(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _length(path: Path, size: int, changed: int) -> float:
    return probe(path).duration_s


def times_of(path: Path, fps: float | None = None) -> NDArray[np.float64]:
    """``frame_times`` of a file, which is read through once as long as it does not change."""
    status = path.stat()
    return _times(path, fps, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _times(path: Path, fps: float | None, size: int, changed: int) -> NDArray[np.float64]:
    return frame_times(path, fps)


def seconds_of_clock(text: str) -> float | None:
    """Seconds of "1:02:03.5" or "2:03"; None where the text is no such time."""
    match = CLOCK.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds, part = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{part or 0}")


def is_frame_code(text: str) -> bool:
    """Whether a text is a timecode that counts frames: "00:01:02:13", or "00:01:02;13" with dropped numbers."""
    return FRAME_CODE.fullmatch(text) is not None


def seconds_of_frame_code(text: str, path: Path, fps: float | None = None) -> float:
    """The time of a timecode HH:MM:SS:FF of a video whose first frame is 00:00:00:00; ";" before FF: drop frame.

    It is the number of a frame, by the whole rate next to the video's; where the rate varies, HH:MM:SS is the time
    on the clock. A number behind the last frame is the end.

    Raises:
        DataError: no such timecode at the video's rate.
    """
    match = FRAME_CODE.fullmatch(text)
    assert match is not None, text
    hours, minutes, seconds, mark, frame = match.groups()
    times = times_of(path, fps)
    rate = (len(times) - 1) / float(times[-1]) if len(times) > 1 else 25.0
    whole = max(round(rate), 1)
    if int(frame) >= whole:
        raise DataError(f"timecode {text}: there are {whole} frames a second, counted from 0")
    all_minutes, second, number = int(hours) * 60 + int(minutes), int(seconds), int(frame)
    if np.abs(times - np.arange(len(times)) / rate).max() > 0.5 / rate:
        return all_minutes * 60 + second + number / whole
    count = (all_minutes * 60 + second) * whole + number
    if mark == ";":
        count -= whole // 15 * (all_minutes - all_minutes // 10)  # two numbers a minute at 30, none at a tenth minute
    return float(times[count]) if count < len(times) else count / rate


# Stretches: groups where there are hardly any videos.


def in_stretches(table: ClipTable) -> ClipTable:
    """Where all clips are parts of one or two videos without groups, give stretches of time as their groups; told.

    Otherwise a split by video would be impossible. No stretch ends inside of a clip.
    """
    if table.features is not None or any(clip.group for clip in table):
        return table
    parts = Counter(clip.path for clip in table)
    if len(parts) > 2 or min(parts.values(), default=0) < 2 or all(clip.start_s is None for clip in table):
        return table
    size = max(PER_STRETCH, -(-len(table) // STRETCHES))
    names: dict[Clip, str] = {}
    for path, clips in _by_file(table.clips):
        for stretch in _stretches(clips, size):
            names |= dict.fromkeys(stretch, f"{path.name} from {_start(stretch[0]):.1f} s")
    count = len(set(names.values()))
    videos = "one video" if len(parts) == 1 else "two videos"
    note = (
        f"All clips are parts of {videos}: {count} stretches of time are the groups of the split. Accuracy on other "
        "videos will be lower than what is measured here."
    )
    grouped = table.with_clips(replace(clip, group=names[clip]) for clip in table)
    return replace(grouped, notes=(*table.notes, note))


def _stretches(clips: Sequence[Clip], size: int) -> Iterator[list[Clip]]:
    """Clips in their order, in lists of at least ``size`` between which no clip goes on and the split may change."""
    stretch: list[Clip] = []
    end = 0.0
    for clip in clips:
        ended = stretch and _start(clip) >= end - 1e-6
        if ended and (len(stretch) >= size or clip.split != stretch[-1].split):
            yield stretch
            stretch = []
        stretch.append(clip)
        end = max(end, _end(clip))
    if stretch:
        yield stretch
