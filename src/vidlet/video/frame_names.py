"""Which images of a folder are the frames of a clip, and in which order: what their names say.

Names are compared by their last number (frame2 before frame10, f-1 before f0, 0.2 after 0.16 where the numbers are
decimal). Where names of several kinds have the same numbers (img_0001, flow_x_0001, flow_y_0001; 0001.jpg, 0001.png),
they are views of the same moments, and the pictures among them are the clip.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-\d\d)?")
PICTURE_WORDS = {"img", "image", "im", "rgb", "color", "colour", "frame", "picture", "photo"}
OTHER_WORDS = {
    "flow", "flowx", "flowy", "x", "y", "u", "v", "depth", "mask", "seg", "segmentation", "ir", "infrared", "thermal",
    "skeleton", "pose", "normal", "disparity", "label", "gt", "thumb", "thumbnail", "heatmap", "saliency", "event",
}  # fmt: skip
COVER_WORDS = {
    "thumb", "thumbs", "thumbnail", "cover", "folder", "poster", "preview", "albumart", "albumartsmall", "montage",
}  # fmt: skip
CLOCKS = {13: 10**3, 16: 10**6, 19: 10**9}  # digits of a time since 1970 -> its parts of a second
SHOWN = 4  # kinds of names that a note lists


@dataclass(frozen=True)
class FrameNames:
    """Images in their order, the frames a second that decimal names tell (else None), and notes on what was assumed."""

    images: tuple[Path, ...]
    fps: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Name:
    path: Path
    kind: str  # the name without its numbers
    before: str  # what stands before the last number
    number: str | None
    after: str


def order_frames(files: Iterable[Path]) -> FrameNames:
    """Put the images of a folder in order."""
    kinds: dict[str, list[_Name]] = defaultdict(list)
    for path in files:
        name = _parsed(path)
        kinds[name.kind].append(name)
    if not kinds:
        return FrameNames(())
    if others := _beside(kinds):
        rest = order_frames(name.path for kind, names in kinds.items() if kind not in others for name in names)
        listed = ", ".join(f"{kind} ({len(kinds[kind])})" for kind in others[:SHOWN])
        note = f"some of its images are no pictures of its frames, by their names: {listed}; they are left out"
        return FrameNames(rest.images, rest.fps, (note, *rest.notes))
    if len(kinds) == 1:
        return _series(next(iter(kinds.values())))
    listed = ", ".join(f"{kind} ({len(names)})" for kind, names in list(kinds.items())[:SHOWN])
    if len(kinds) > SHOWN:
        listed += ", ..."
    chosen = max(kinds, key=lambda kind: (says_picture(kind), len(kinds[kind]), -list(kinds).index(kind)))
    views = [names for names in kinds.values() if _parallel([names, kinds[chosen]])]  # the chosen one among them
    if len(views) > 1 and 2 * sum(map(len, views)) > sum(map(len, kinds.values())):  # hashes share some by chance
        found = _series(kinds[chosen])
        note = f"its frames have names of several kinds: {listed}; only {chosen} is read"
        return FrameNames(found.images, found.fps, (note, *found.notes))
    everything = [name.path for names in kinds.values() for name in names]
    note = f"its frames have names of several kinds: {listed}; all are read, in the order of their names"
    return FrameNames(tuple(sorted(everything, key=natural_key)), None, (note,))


def _beside(kinds: Mapping[str, Sequence[_Name]]) -> list[str]:
    """Kinds of names that are no frames where others are: flow, depth and masks; covers and thumbnails."""
    numbered = [kind for kind, names in kinds.items() if len(names) > 1 and names[0].number is not None]
    if not numbered:
        return []
    covers = [kind for kind, names in kinds.items() if names[0].number is None and _words(kind) & COVER_WORDS]
    if max(map(says_picture, numbered)) == 2 and not _parallel([kinds[kind] for kind in numbered]):
        covers += [kind for kind in numbered if not says_picture(kind)]
    return covers


def natural_key(path: Path) -> tuple[list[Any], str]:
    """Sort key of a file name: runs of digits count as numbers."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _parsed(path: Path) -> _Name:
    suffix = path.suffix.lower().replace(".jpeg", ".jpg")
    stem = path.name.removesuffix(path.suffix).casefold()
    kind = NUMBER.sub("#", stem) + suffix
    last = list(NUMBER.finditer(stem))[-1:]
    if not last:
        return _Name(path, kind, stem, None, "")
    begin, end = last[0].span()
    return _Name(path, kind, stem[:begin], last[0][0], stem[end:])


def _series(names: Sequence[_Name]) -> FrameNames:
    """Names of one kind in the order of their numbers."""
    numbers = [name.number for name in names if name.number is not None]
    decimal = _decimal(numbers)
    signed = any(number.startswith("-") for number in numbers) and not all(n.startswith("-") for n in numbers)
    if any("." in number or "e" in number for number in numbers) and not decimal:
        return FrameNames(tuple(sorted((name.path for name in names), key=natural_key)))

    def value(name: _Name) -> Decimal:
        return Decimal((name.number if signed else (name.number or "0").removeprefix("-")) or 0)

    def key(name: _Name) -> tuple[Any, ...]:
        return (natural_key(Path(name.before))[0], value(name), natural_key(Path(name.after))[0], name.path.name)

    ordered = sorted(names, key=key)
    alone = len({(name.before, name.after) for name in ordered}) == 1
    values = [value(name) for name in ordered] if alone else []
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    images, notes = tuple(name.path for name in ordered), []
    fps, ticks = None, 1 if decimal else _ticks_a_second(numbers)
    if ticks and steps and 0.001 <= (step := float(median(steps)) / ticks) <= 60:
        fps = round(1 / step, 3)
        notes.append(f"its frames are named by their times: {fps:g} frames/s is taken from them")
    if gap := _gap(steps, ordered):
        notes.append(gap)
    return FrameNames(images, fps, tuple(notes))


def _decimal(numbers: Sequence[str]) -> bool:
    """Whether numbers with a point are decimal ones, as 0.04 and 0.2, and not parts of a number, as 1.9 and 1.10."""
    fractions = [number.partition(".")[2] for number in numbers if "e" not in number]
    if not any(fractions) or len({Decimal(number) for number in numbers}) < len(numbers):
        return False
    return len({len(fraction) for fraction in fractions}) == 1 or not any(
        part.endswith("0")
        for part in fractions
        if part != "0"  # "2.0" is how programs write a whole number
    )


def _ticks_a_second(numbers: Sequence[str]) -> int:
    """1000, a million or a thousand million, if numbers are times since 1970 in such parts of a second; 0 else."""
    lengths = {len(number) for number in numbers if number[0] == "1"}
    return CLOCKS.get(lengths.pop(), 0) if len(lengths) == 1 and all(n[0] == "1" for n in numbers) else 0


def _gap(steps: Sequence[Decimal], names: Sequence[_Name]) -> str:
    """In words, that numbers are missing where most follow at one step; "" else."""
    if len(steps) < 3:
        return ""
    usual, often = Counter(steps).most_common(1)[0]
    if usual <= 0 or 2 * often < len(steps):
        return ""
    missing = sum(int(step / usual) - 1 for step in steps if step >= 2 * usual)
    if not missing:
        return ""
    first = next(i for i, step in enumerate(steps) if step >= 2 * usual)
    return f"its frames have gaps: {missing} numbers are missing, the first behind {names[first].path.name}"


def _parallel(groups: Sequence[Sequence[_Name]]) -> bool:
    """Whether kinds of names are views of the same moments: two of them share half of their numbers."""
    numbers = [{name.number for name in group if name.number is not None} for group in groups]
    return any(
        2 * len(one & other) >= min(len(one), len(other)) > 0 for one, other in itertools.combinations(numbers, 2)
    )


def _words(kind: str) -> set[str]:
    return {word for word in re.split(r"[\W_\d]+", kind.partition(".")[0]) if word}


def says_picture(kind: str) -> int:
    """2: a name of pictures; 1: one that says nothing; 0: flow, depth, masks."""
    words = _words(kind)
    if words & OTHER_WORDS:
        return 0
    return 2 if words & PICTURE_WORDS or {word.rstrip("s") for word in words} & PICTURE_WORDS else 1
