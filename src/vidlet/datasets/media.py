"""One rule of names: what counts as a video, a frame image or a clip, which files are hidden, which name means which.

Everything that walks folders (data, train, evaluate, predict) walks them by this file. Hidden files and what operating
systems and servers put beside files are left out, links are followed. Names are the same text in any Unicode form
(macOS writes "é" as two characters, most tables as one), and a suffix is the same in any case.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..labels import composed, label_order
from ..video.folder import IMAGE_SUFFIXES
from .table import Clip, ClipTable

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v", ".3gp", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"),
    *(".ts", ".mts", ".m2ts", ".vob", ".mjpeg", ".mjpg", ".asf", ".divx", ".3g2", ".f4v"),
    *(".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".m1v", ".m2v", ".mpv", ".mpe", ".m2p", ".obu", ".ivf"),
    *(".qt", ".ogm", ".rm", ".rmvb", ".mxf", ".dv", ".y4m", ".nut", ".trp", ".tp", ".m2t", ".amv", ".xvid"),
)
_ENDINGS = frozenset(VIDEO_SUFFIXES)
# What operating systems and servers put beside files: recycle bins, thumbnails, settings of windows.
NOT_OURS = frozenset({
    "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
})  # fmt: skip
MOST_DEPTH = 32  # folders in folders; links may lead in circles


def is_video(path: Path) -> bool:
    """Whether a file's name says that it is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def holds_images(folder: Path) -> bool:
    """Whether frame images lie directly in a folder."""
    return any(is_image(entry) for entry in visible(folder))


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name; without hidden files and what systems put there (NOT_OURS).

    Raises:
        DataError: the folder may not be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in NOT_OURS]


def clips_below(folder: Path) -> Iterator[Path]:
    """Every clip below a folder, by name: video files, and folders of frame images in which no other clip lies.

    Raises:
        DataError: a folder may not be read.
    """
    yield from _clips_below(folder, frozenset(), MOST_DEPTH)


def _clips_below(folder: Path, above: frozenset[str], depth: int) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above or not depth:
        return
    entries, found = visible(folder), False
    for entry in entries:
        clips = _clips_below(entry, above | {real}, depth - 1) if entry.is_dir() else iter([entry])
        for clip in clips:
            if entry.is_dir() or (is_video(clip) and clip.is_file()):
                found = True
                yield clip
    if not found and any(is_image(entry) for entry in entries):
        yield folder


class Media:
    """What lies in folders; each is listed once, so that a hundred thousand names cost no more than their folders.

    ``forgiven`` holds (name as written, name as found) where these differ in Unicode form or the case of a suffix.
    """

    def __init__(self) -> None:
        self._inside: dict[Path, dict[str, str | list[str]]] = {}  # folder -> what a name is found by -> its names
        self._bare: dict[Path, set[str]] = {}  # folder -> names without what ends them as videos
        self._spelled: dict[Path, Path | None] = {}  # folder -> as it is spelled on the disk
        self.forgiven: list[tuple[str, str]] = []

    def find(self, path: Path, other_suffix: bool = False) -> Path | None:
        """A video file or a folder of frames of this name; a missing suffix is forgiven, another one if told so."""
        folder = self._folder(path.parent)
        if folder is None:
            return None
        if (place := self._clip(folder, path.name, path.name)) is not None:
            return place
        bare = path.stem if other_suffix and is_video(path) else path.name
        if not {_key(path.name), composed(bare), composed(path.stem)} & self._without_suffix(folder):
            return None
        names = (bare, *(bare + suffix for suffix in VIDEO_SUFFIXES))
        return next((place for name in names if (place := self._clip(folder, name, path.name))), None)

    def _clip(self, folder: Path, name: str, written: str) -> Path | None:
        """The clip that a name means; what was ``written`` otherwise is noted."""
        for found in self._named(folder, name):
            place = folder / found
            if place.is_file() or (place.is_dir() and holds_images(place)):
                if found != name:
                    self.forgiven.append((written, found))
                return place
        return None

    def notes(self) -> tuple[str, ...]:
        """One sentence, if names were found under another spelling."""
        if not self.forgiven:
            return ()
        written, found = self.forgiven[0]
        return (
            f"{len(self.forgiven)} names were found in another Unicode form or case of the suffix "
            f"(first: {written} is {found}).",
        )

    def _folder(self, folder: Path) -> Path | None:
        """A folder as it is spelled on the disk."""
        if folder not in self._spelled:
            self._spelled[folder] = folder if folder.is_dir() else self._other_spelling(folder)
        return self._spelled[folder]

    def _other_spelling(self, folder: Path) -> Path | None:
        if folder == folder.parent or (above := self._folder(folder.parent)) is None:
            return None
        return next((above / name for name in self._named(above, folder.name) if (above / name).is_dir()), None)

    def _named(self, folder: Path, name: str) -> Sequence[str]:
        """Entries that a name means, the one of exactly this name first."""
        found = self._list(folder).get(_key(name), ())
        if isinstance(found, str):
            return (found,)
        return (name,) if name in found else found

    def _without_suffix(self, folder: Path) -> set[str]:
        if folder not in self._bare:
            keys = self._list(folder)
            names = (name for found in keys.values() for name in ([found] if isinstance(found, str) else found))
            self._bare[folder] = {*keys, *(Path(name).stem for name in names if is_video(Path(name)))}
        return self._bare[folder]

    def _list(self, folder: Path) -> dict[str, str | list[str]]:
        if folder not in self._inside:
            listed: dict[str, str | list[str]] = {}
            with contextlib.suppress(OSError):
                for name in sorted(os.listdir(folder)):  # noqa: PTH208  # a million paths cost more than their names
                    key = _key(name)
                    if (known := listed.setdefault(key, name)) is not name:
                        listed[key] = [*([known] if isinstance(known, str) else known), name]
            self._inside[folder] = listed
        return self._inside[folder]


def _key(name: str) -> str:
    name = composed(name)
    stem, dot, suffix = name.rpartition(".")
    lower = f".{suffix.lower()}"
    return stem + lower if stem and dot and lower in _ENDINGS else name


# What the adapters of published data sets share: rows of official lists, and the files that they mean.


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
