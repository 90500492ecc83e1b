"""The VIVA hand gesture challenge, and what is laid out like it: intensity and depth of each clip in twin folders.

Source: Ohn-Bar and Trivedi 2014, "Hand Gesture Recognition in Real Time for Automotive Interfaces" (885 pairs of
videos, 19 gestures, 8 subjects). Two folders side by side, one named for depth and one for intensity (or gray, rgb,
color) and else alike (depth_clips, rgb_clips), hold clips of the same names: in a folder per class, or numbered
GESTURE_SUBJECT_REPETITION (07_03_01.avi).
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DataError
from .folders import read_folders
from .media import holds_images, is_video, visible
from .table import Clip, ClipTable
from .texts import text_lines

DEPTH = ("depth",)
INTENSITY = ("intensity", "gray", "grey", "rgb", "color", "colour")
NUMBERED = re.compile(r"(\d{1,3})_(\d{1,3})_(\d{1,3})\b")
NAMES = "classes.txt"  # beside the two folders: a gesture a line, the first is number 1


def twin_folders(path: Path) -> tuple[Path, Path] | None:
    """The folders of intensity and of depth, if ``path`` holds two such with the same clips or classes in them."""
    if not path.is_dir():
        return None
    folders = [entry for entry in visible(path) if entry.is_dir()]
    named = [_named(folders, words) for words in (INTENSITY, DEPTH)]
    if len(folders) != 2 or None in named:
        return None
    intensity, depth = (folder for folder in named if folder is not None)
    if _without(intensity.name, INTENSITY) != _without(depth.name, DEPTH):  # color_guard and depth_jump are classes
        return None
    inside = [{entry.stem for entry in visible(folder)} for folder in (intensity, depth)]
    return (intensity, depth) if inside[0] & inside[1] else None


def read_viva(path: Path) -> ClipTable:
    """The clips of the intensity folder; ``depth_of`` finds the depth of each. Clips without it are skipped and listed.

    Raises:
        DataError: the twin folders hold no clip, or a number has no name in classes.txt.
    """
    twins = twin_folders(path)
    assert twins is not None
    table = _numbered(twins[0], path) or read_folders(twins[0])
    alone = [clip for clip in table if depth_of(clip.path, twins) is None]
    kept = tuple(clip for clip in table if clip not in alone)
    if not kept:
        raise DataError(f"{path}: no clip of {twins[0].name} has its depth in {twins[1].name}")
    skipped = tuple((str(clip.path), f"no clip of its name in {twins[1].name}") for clip in alone)
    note = (
        f"Clips of intensity ({twins[0].name}) with their depth beside them ({twins[1].name}): "
        "`vidlet papers tt3dcnn --protocol paper` sees both, other commands the intensity."
    )
    return ClipTable(kept, table.labels, path, (*table.notes, note), (*table.skipped, *skipped))


def depth_of(clip: Path, twins: tuple[Path, Path]) -> Path | None:
    """The depth of a clip of the intensity folder: the clip of its name, whatever its suffix."""
    folder = twins[1] / clip.relative_to(twins[0]).parent
    beside = visible(folder) if folder.is_dir() else []
    return next((entry for entry in beside if entry.stem == clip.stem), None)


def _named(folders: list[Path], words: tuple[str, ...]) -> Path | None:
    found = [folder for folder in folders if any(word in folder.name.casefold() for word in words)]
    return found[0] if len(found) == 1 else None


def _without(name: str, words: tuple[str, ...]) -> str:
    """A folder's name without the word that says what it holds."""
    folded = name.casefold()
    return next(folded.replace(word, "", 1) for word in sorted(words, key=len, reverse=True) if word in folded)


def _numbered(folder: Path, root: Path) -> ClipTable | None:
    """The table of clips numbered GESTURE_SUBJECT_REPETITION; None where they are not."""
    found = [entry for entry in visible(folder) if is_video(entry) or (entry.is_dir() and holds_images(entry))]
    numbers = [NUMBERED.match(entry.stem) for entry in found]
    if not found or not all(numbers):
        return None
    names = [line.strip() for _, line in text_lines(root / NAMES)] if (root / NAMES).is_file() else []
    clips = []
    for entry, match in zip(found, numbers, strict=True):
        assert match is not None
        number = int(match[1])
        if names and not 1 <= number <= len(names):
            raise DataError(f"{root / NAMES}: has {len(names)} names; {entry.name} is of gesture {number}")
        label = names[number - 1] if names else f"gesture {number:02d}"
        clips.append(Clip(entry, (label,), f"subject{int(match[2]):02d}"))
    note = "" if names else f"Gestures have numbers only; {NAMES} beside the folders may name them, a line a gesture."
    return ClipTable(tuple(clips), tuple(sorted({clip.label for clip in clips})), root, (note,) if note else ())
