"""What the adapters of published data sets share: rows of official lists, and the files that they mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..labels import label_order
from .folders import VIDEO_SUFFIXES, holds_images
from .table import Clip, ClipTable


@dataclass(frozen=True)
class Listed:
    """A clip as a list has it; ``names`` are the places where it may lie below a folder of videos, likeliest first.

    A name in ``parts`` is that of the whole video, of which the clip is start_s to end_s; other names are the clip.
    """

    names: tuple[str, ...]
    label: str
    group: str = ""
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None
    parts: tuple[str, ...] = ()


def listed_table(
    rows: Iterable[Listed], root: Path, bases: Sequence[Path], what: str, notes: Sequence[str] = ()
) -> ClipTable:
    """The clips of a list whose files are there; the others are skipped, and counted in a note.

    Args:
        root: of the table.
        bases: folders below which names are looked for, likeliest first.
        what: name of the data set, for messages.

    Raises:
        DataError: the list is empty, or none of its clips is there; says how many are missing and where was looked.
    """
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    total, media = 0, Media()
    for row in rows:
        total += 1
        found = next(((name, path) for base in bases for name in row.names if (path := media.find(base / name))), None)
        if found is None:
            skipped.append((row.names[0], "no such file"))
            continue
        name, path = found
        times = (row.start_s, row.end_s) if name in row.parts else (None, None)
        clips.append(Clip(path, (row.label,), row.group, row.split, *times))
    looked = ", ".join(str(base) for base in bases[:3]) or str(root)
    if not total:
        raise DataError(f"{root}: the lists of {what} name no labelled clip")
    if not clips:
        raise DataError(
            f"{root}: all {total:,} videos that the lists of {what} name are missing (first: {skipped[0][0]}); "
            f"looked in {looked}"
        )
    told = list(notes)
    if skipped:
        told.append(
            f"{len(skipped):,} of the {total:,} videos that the lists of {what} name are missing "
            f"(first: {skipped[0][0]})."
        )
    labels = label_order((clip.label for clip in clips), str(root))
    return ClipTable(tuple(clips), labels, root, tuple(told), tuple(skipped))


class Media:
    """What lies in folders; each is listed once, so that a hundred thousand names cost no more than their folders."""

    def __init__(self) -> None:
        self.inside: dict[Path, dict[str, bool]] = {}  # folder -> name -> whether it is a folder itself

    def find(self, path: Path) -> Path | None:
        """A video file or a folder of frames of this name; a missing or other suffix of a video is forgiven."""
        names = self._names(path.parent)
        bare = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
        for name in dict.fromkeys((path.name, bare)):
            if name in names and (not names[name] or holds_images(path.parent / name)):
                return path.parent / name
        found = next((bare + suffix for suffix in VIDEO_SUFFIXES if not names.get(bare + suffix, True)), None)
        return None if found is None else path.parent / found

    def _names(self, folder: Path) -> dict[str, bool]:
        if folder not in self.inside:
            try:
                self.inside[folder] = {entry.name: entry.is_dir() for entry in os.scandir(folder)}
            except OSError:
                self.inside[folder] = {}
        return self.inside[folder]


def text_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list that say something, with their numbers.

    Raises:
        DataError: the file cannot be read as text.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list ({error})") from None
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def folders_near(folder: Path) -> list[Path]:
    """Where videos lie beside lists: the folder, its sub-folders, the one above and its sub-folders."""
    near = [folder, *_subfolders(folder)]
    return list(dict.fromkeys([*near, folder.parent, *_subfolders(folder.parent)]))


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
