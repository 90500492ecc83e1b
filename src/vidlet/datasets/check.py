"""What was understood of a clip table and what is wrong with it, told before hours of training are spent on it."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, VidletError
from ..files import sha256_of
from ..labels import join_labels
from ..video import VideoInfo, probe, read_many
from ..video.folder import image_files
from ..wording import notebook_table
from .box_table import image_size
from .frame_record import frame_codes
from .splits import split_names
from .table import SPLITS, Clip, ClipTable

FEW_CLIPS = 5  # a class with fewer is told
UNEVEN = 10.0  # the largest class has so many times the clips of the smallest: told


@dataclass(frozen=True)
class Spread:
    """Least, median and greatest of some values."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Duplicate:
    """Clips with the same content: names, splits and labels side by side."""

    clips: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]


def told(found: Mapping[str, Any]) -> list[str]:
    """What a report on data says at a prompt: its root, classes, clips or images, splits, how much is wrong."""
    boxes = [f"{found['images']} images", f"{found['boxes']} boxes"] if "boxes" in found else []
    counts = boxes or [f"{found['clips']} clips", f"{found['groups']} groups"]
    splits = [f"{count} {split or 'without a split'}" for split, count in found["splits"].items()]
    wrong = [f"{key}: {len(found[key])}" for key in ("skipped", "dropped", "warnings") if found.get(key)]
    return [found["root"], f"{len(found['classes'])} classes", *counts, *splits, *wrong]


def told_in_notebook(found: Mapping[str, Any]) -> str:
    """The same in HTML, with classes by split, notes and warnings below."""
    rows = [("", *(split or "no split" for split in found["splits"]))]
    rows += [(label, *counts.values()) for label, counts in found["classes"].items()]
    remarks = [(kind[:-1], text) for kind in ("notes", "warnings") for text in found[kind]]
    return notebook_table([told(found)]) + notebook_table(rows) + (notebook_table(remarks) if remarks else "")


@dataclass(frozen=True, repr=False)
class DataReport:
    """What ``vidlet data`` shows. ``clips`` are the usable rows of the table, broken ones included."""

    root: Path
    kind: str  # "videos", or "features" (stored ones)
    sha256: str
    clips: int
    groups: int
    splits: dict[str, int]  # clips of each split that occurs; "" = none given
    classes: dict[str, dict[str, int]]  # label -> the same
    durations_s: Spread | None
    frames: Spread | None
    resolutions: dict[str, int]  # "320x240" (width x height) -> clips, most frequent first
    fps: dict[str, int]
    broken: tuple[tuple[str, str], ...]  # (path, why)
    skipped: tuple[tuple[str, str], ...]
    leaking_groups: tuple[str, ...]  # in train and in val or test
    duplicates: tuple[Duplicate, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    doubts: tuple[dict[str, Any], ...] = ()  # labels to look at again, where that was asked for

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(told(self.to_dict()))})"

    def _repr_html_(self) -> str:
        return told_in_notebook(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data for JSON; ``skipped`` lists what is unusable, broken files included."""
        found = asdict(self) | {"root": str(self.root)}
        found["broken"] = _listed(self.broken)
        found["skipped"] = _listed((*self.skipped, *self.broken))
        return found


def check_trainable(table: ClipTable) -> None:
    """Refuse a table of videos of which no classifier can be trained.

    Raises:
        DataError: fewer than two classes, a class with one clip, or (where splits are given) without one in train.
    """
    _need_two_classes(table)
    clips = {name: [clip for clip in table if name in clip.labels] for name in table.labels}
    for name, own in clips.items():
        if len(own) == 1:
            raise DataError(f"{own[0].path}: the only clip of class {name!r}; training needs two, and better twenty")
    if not any(clip.split for clip in table):
        return
    _need_training_clips(table)
    for name, own in clips.items():
        if not any(clip.split == "train" for clip in own):
            raise DataError(f"{table.root}: class {name!r} has no clip in train")


def check_records_trainable(table: ClipTable) -> None:
    """The same of records, which may have a vocabulary of which some classes do not occur.

    Raises:
        DataError: fewer than two classes, or (where splits are given) no record in train.
    """
    _need_two_classes(table)
    if any(clip.split for clip in table):
        _need_training_clips(table)


def _need_two_classes(table: ClipTable) -> None:
    if len(table.labels) < 2:
        alone = " (--none FOLDER takes videos that show none of it)" if table.labels and table.records is None else ""
        raise DataError(f"{table.root}: training needs two classes, found {', '.join(table.labels) or 'none'}{alone}")


def _need_training_clips(table: ClipTable) -> None:
    if not any(clip.split == "train" for clip in table):
        raise DataError(f"{table.root}: no clip is in train")


def inspect_table(table: ClipTable, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Open every clip, decode its first frame, look for copies and leaks. ``progress`` gets (done, total)."""
    stored = table.features is not None
    infos: dict[Path, VideoInfo] = {}
    broken: list[tuple[str, str]] = []
    parts = Counter(clip.path for clip in table)
    told = {clip.path: clip.fps for clip in table}
    if not stored:
        for done, (path, found) in enumerate(read_many(told, lambda path: probe_all(path, told[path]), workers), 1):
            if isinstance(found, VidletError):
                broken.append((_name(path, table.root), str(found).removeprefix(f"{path}: ")))
            else:
                infos[path] = found
            if progress:
                progress(done, len(told))
        broken += [(_name(c.path, table.root), why) for c in table if (why := _outside(c, infos.get(c.path)))]
    durations = array("d", (_duration(clip, infos[clip.path]) for clip in table if clip.path in infos))
    frames = array("q")
    for path, info in infos.items():
        if info.frames:
            frames.extend([info.frames] * parts[path])
    if table.records is not None:
        frames = array("q", (max(1, table.records.frames[clip.row]) for clip in table if clip.row is not None))
    sizes: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    for path, info in infos.items():
        sizes[f"{info.width}x{info.height}"] += parts[path]
        if told[path] is not None or not path.is_dir():
            rates[f"{info.fps:.4g}"] += parts[path]
    counted = Counter((clip.labels, clip.split) for clip in table)
    of_split = {name: sum(n for (_, split), n in counted.items() if split == name) for name in (*SPLITS, "")}
    splits = [name for name, clips in of_split.items() if clips]
    classes = {name: dict.fromkeys(splits, 0) for name in table.labels}
    for (labels, split), clips in counted.items():
        for name in labels:
            classes[name][split] += clips
    leaking = _leaking_groups(table)
    duplicates = _duplicates(table, set(infos))
    warnings = [
        *_unusable_warnings(table, broken),
        *_leak_warnings(leaking, duplicates),
        *_class_warnings(table, classes, splits),
    ]
    if single := sum(parts[path] for path, info in infos.items() if info.frames == 1):
        warnings.append(f"{single} clips have a single frame: nothing moves in them.")
    return DataReport(
        root=table.root,
        kind="features" if stored else "videos",
        sha256=table.sha256(),
        clips=len(table),
        groups=len({clip.group for clip in table if clip.group}),
        splits={name: of_split[name] for name in splits},
        classes=classes,
        durations_s=_spread(durations),
        frames=_spread(frames),
        resolutions=dict(sizes.most_common()),
        fps=dict(rates.most_common()),
        broken=tuple(broken),
        skipped=table.skipped,
        leaking_groups=leaking,
        duplicates=duplicates,
        notes=(*table.notes, *_split_notes(table), *_file_notes(infos, table.root)),
        warnings=tuple(warnings),
    )


def probe_all(path: Path, fps: float | None) -> VideoInfo:
    """``probe``, and of a folder of frames the sizes of all of them.

    Raises:
        DataError: as ``probe``.
    """
    info = probe(path, fps)
    if not path.is_dir():
        return info
    sizes: Counter[str] = Counter()
    odd: Path | None = None
    for image in image_files(path):
        try:
            height, width = image_size(image)
        except DataError:  # told when it is its turn
            continue
        sizes[f"{width}x{height}"] += 1
        odd = odd or (image if len(sizes) > 1 else None)
    if odd is None:
        return info
    told = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
    return replace(
        info, notes=(*info.notes, f"its frames are of several sizes: {told}, the first other one {odd.name}")
    )


def _file_notes(infos: Mapping[Path, VideoInfo], root: Path) -> list[str]:
    """What had to be assumed of single files, one line a kind: "3 clips: its clock breaks (first: a.ts: ...)"."""
    kinds: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path, info in infos.items():
        for note in info.notes:
            kinds[note.partition(":")[0]].append((path, note))
    found = []
    for kind, told in kinds.items():
        path, note = told[0]
        how = note.removeprefix(kind).lstrip(": ")
        found.append(f"{len(told)} clip{'s' * (len(told) > 1)}: {kind} (first: {_name(path, root)}: {how}).")
    return found


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _listed(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "error": why} for path, why in pairs]


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(*(round(float(v), 3) for v in (min(values), np.median(values), max(values))))


def _duration(clip: Clip, info: VideoInfo) -> float:
    end = info.duration_s if clip.end_s is None else min(clip.end_s, info.duration_s or clip.end_s)
    return max(0.0, end - (clip.start_s or 0.0))


def _outside(clip: Clip, info: VideoInfo | None) -> str:
    """Why the part of a video that a clip names does not exist; "" if it does."""
    if info is None or not info.duration_s or (clip.start_s or 0.0) < info.duration_s:
        return ""
    return f"start_s {clip.start_s:g} lies behind its end ({info.duration_s:.1f} s)"


def _leaking_groups(table: ClipTable) -> tuple[str, ...]:
    splits_of: dict[str, set[str]] = defaultdict(set)
    for group, split in {(clip.group, clip.split) for clip in table}:
        if group and split:
            splits_of[group].add(split)
    return tuple(sorted(group for group, splits in splits_of.items() if len(splits) > 1 and "train" in splits))


def _duplicates(table: ClipTable, readable: set[Path]) -> tuple[Duplicate, ...]:
    """Clips of the same content and the same part of it, or parts of one content in different splits."""
    contents = _feature_contents(table) if table.features else _file_contents(table, readable)
    many = {content for content, clips in Counter(contents).items() if clips > 1}
    same: dict[str, list[Clip]] = defaultdict(list)
    for clip, content in zip(table, contents, strict=True):
        if content and content in many:
            same[content].append(clip)
    found = []
    for clips in same.values():
        parts = Counter((clip.start_s, clip.end_s) for clip in clips)
        across = len({clip.split for clip in clips}) > 1
        if copies := [clip for clip in clips if across or parts[clip.start_s, clip.end_s] > 1]:
            names = tuple(_name(clip.path, table.root) for clip in copies)
            found.append(Duplicate(names, tuple(c.split for c in copies), tuple(join_labels(c.labels) for c in copies)))
    return tuple(found)


def _feature_contents(table: ClipTable) -> list[str]:
    """The hash of each clip's features."""
    assert table.records is not None
    keys = tuple(table.records.widths)
    return [
        hashlib.sha256(frame_codes(table.records.read(clip.row), keys).tobytes()).hexdigest()
        for clip in table
        if clip.row is not None
    ]


def _file_contents(table: ClipTable, readable: set[Path]) -> list[str]:
    """What tells the content of each clip's file or frame folder from others'; "" where it cannot be read.

    Only what has the size of another is hashed; for all else the name does.
    """
    files = {path: image_files(path) if path.is_dir() else [path] for path in readable}
    sizes = {path: tuple(part.stat().st_size for part in parts) for path, parts in files.items()}
    shared = Counter(sizes.values())
    content = {
        path: " ".join(sha256_of(part) for part in parts) if shared[sizes[path]] > 1 else str(path)
        for path, parts in files.items()
    }
    return [content.get(clip.path, "") for clip in table]


def _unusable_warnings(table: ClipTable, broken: Sequence[tuple[str, str]]) -> list[str]:
    found = []
    for pairs, what in ((table.skipped, "entries name nothing usable"), (broken, "clips cannot be read")):
        if pairs:
            path, why = pairs[0]
            found.append(f"{len(pairs)} {what} and are skipped (first: {path}: {why}).")
    return found


def _leak_warnings(leaking: Sequence[str], duplicates: Sequence[Duplicate]) -> list[str]:
    found = []
    if leaking:
        found.append(
            f"{_some(leaking, 'group')} {'has' if len(leaking) == 1 else 'have'} clips in train and in val or test,"
            " which inflates accuracy: keep a group in one split, or leave the splits out and vidlet splits by group."
        )
    across = [copy for copy in duplicates if len(set(copy.splits)) > 1]
    unlike = [copy for copy in duplicates if len(set(copy.labels)) > 1]
    rest = [copy for copy in duplicates if copy not in across and copy not in unlike]
    if any(copy.splits[0] for copy in rest):
        doubled = "within a split, where they count double: keep one of each"
    else:
        doubled = "in the data, and a split may tear them apart: keep one of each, or give them one group"
    for copies, what in (
        (across, "in different splits, which inflates accuracy: keep one of each"),
        (unlike, "with different labels: one label must be wrong, or write them a|b"),
        (rest, doubled),
    ):
        if copies:
            several = f"{len(copies)} sets of identical clips lie" if len(copies) > 1 else "Identical clips lie"
            found.append(f"{several} {what} ({'; '.join(_equation(copy) for copy in copies[:3])}).")
    return found


def _equation(copy: Duplicate) -> str:
    named = zip(copy.clips, copy.splits, strict=True)
    return " = ".join(f"{name} [{split}]" if split else name for name, split in named)


def _class_warnings(table: ClipTable, classes: Mapping[str, Mapping[str, int]], splits: Sequence[str]) -> list[str]:
    found = []
    totals = {name: sum(counts.values()) for name, counts in classes.items()}
    if single := [name for name, count in totals.items() if count == 1]:
        found.append(f"{_some(single, 'class')} {_has(single)} one clip: training needs two.")
    if few := [name for name, count in totals.items() if 1 < count < FEW_CLIPS]:
        found.append(f"{_some(few, 'class')} {_has(few)} fewer than {FEW_CLIPS} clips: expect no accuracy there.")
    if min(totals.values()) * UNEVEN < max(totals.values()):
        least, most = min(totals, key=lambda n: totals[n]), max(totals, key=lambda n: totals[n])
        found.append(
            f"Classes are uneven: {most!r} has {totals[most]} clips, {least!r} {totals[least]}; look at macro averages."
        )
    for split in SPLITS:
        if split in splits and (absent := [name for name in classes if not classes[name][split]]):
            what = "the model cannot learn" if split == "train" else f"nothing is known on {split} of"
            found.append(f"{_some(absent, 'class')} {_has(absent)} no clip in {split}: {what} {_it(absent)}.")
    used = [name for name in table.labels if totals.get(name)]
    if len(used) < 2:
        found.append(f"There is one class only ({', '.join(used)}): nothing to tell apart.")
    groups: dict[str, set[str]] = defaultdict(set)
    for labels, group in dict.fromkeys((clip.labels, clip.group) for clip in table):
        for name in labels:
            groups[name].add(group)
    if all(clip.group for clip in table) and (bound := [n for n in groups if len(groups[n]) == 1 and totals[n] > 1]):
        found.append(f"{_some(bound, 'class')} {_has(bound)} one group only: no split by group can test {_it(bound)}.")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in table.labels:
        alike[re.sub(r"[\W_]+", "", name.casefold())].append(name)
    for names in alike.values():
        if len(names) > 1:
            found.append(f"Classes {' and '.join(map(repr, names))} are spelled almost alike: are they one?")
    return found


def _split_notes(table: ClipTable) -> list[str]:
    if any(clip.split for clip in table):
        return []
    how = "by group" if any(clip.group for clip in table) else "by clip, because no groups are given"
    try:
        dealt = Counter(split_names(table))
    except DataError as error:
        return [f"No split is given, and none can be made: {str(error).removeprefix(f'{table.root}: ')}."]
    parts = [f"{name} {dealt[name]} ({dealt[name] / len(table):.0%})" for name in SPLITS]
    return [f"No split is given: train takes {parts[0].removeprefix('train ')}, {parts[1]}, {parts[2]} clips, {how}."]


def _some(names: Sequence[str], what: str, shown: int = 4) -> str:
    if len(names) == 1:
        return f"{what.capitalize()} {names[0]!r}"
    several = f"{len(names)} {what}{'es' if what.endswith('s') else 's'}"
    return f"{several} ({', '.join(names[:shown])}{', ...' if len(names) > shown else ''})"


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
