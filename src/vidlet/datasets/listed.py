"""What the adapters of published data sets share: rows of official lists, and the files that they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..labels import label_order
from .media import Media
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
        bases: folders below which names are looked for, likeliest first. Those outside of ``root`` count where no clip
            lies inside: a neighbor may have other videos of the same names.
        what: name of the data set, for messages.

    Raises:
        DataError: the list is empty, or none of its clips is there; says how many are missing and where was looked.
    """
    clips: list[Clip] = []
    skipped: list[tuple[str, str]] = []
    media, listed = Media(), list(rows)
    inside = [base for base in bases if base.is_relative_to(root)]
    places = _places(listed, inside, media)
    if not any(places):
        places = _places(listed, bases, media)
    total = len(listed)
    for row, found in zip(listed, places, strict=True):
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
    told = [*notes, *media.notes()]
    if skipped:
        told.append(
            f"{len(skipped):,} of the {total:,} videos that the lists of {what} name are missing "
            f"(first: {skipped[0][0]})."
        )
    labels = label_order((clip.label for clip in clips), str(root))
    return ClipTable(tuple(clips), labels, root, tuple(told), tuple(skipped))


def _places(rows: Sequence[Listed], bases: Sequence[Path], media: Media) -> list[tuple[str, Path] | None]:
    """Of each row the first of its names that is there, and where."""
    return [
        next(
            (
                (name, path)
                for base in bases
                for name in row.names
                if (path := media.find(base / name, other_suffix=True))
            ),
            None,
        )
        for row in rows
    ]


def folders_near(folder: Path, beyond: bool = True) -> list[Path]:
    """Where videos lie beside lists: the folder, its sub-folders and, ``beyond`` it, the one above and those in it."""
    near = [folder, *_subfolders(folder)]
    return list(dict.fromkeys([*near, folder.parent, *_subfolders(folder.parent)])) if beyond else near


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []
