"""The clip table: what is labelled how. Every adapter gives this, everything above reads only this."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from .frame_record import Record

SPLITS = ("train", "val", "test")
HASHED_ROWS = 512  # that are text in memory at a time
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "validating", "vld", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_PLAIN_WORDS = {"images", "image", "imgs", "img", "data", "dataset", "set", "labels", "annotations", "frames", "obj"}
_PLAIN_WORDS |= {"list", "lists", "files", "videos", "clips", "names", "split"}


def split_name(word: str) -> str | None:
    """The split that a cell or a folder name means: "Validate" -> "val", "" -> "", "holdout" -> None."""
    word = word.strip().casefold()
    return _SPLIT_WORDS.get(word) if word else ""


def split_in_name(stem: str) -> str:
    """The split that words of a file's name mean: "instances_val2017" -> "val"; "" where none or two of them do."""
    words = re.findall(r"[^\W\d_]+", stem.casefold())
    said = {split for word in words if (split := split_name(word.removesuffix("set")))}
    return said.pop() if len(said) == 1 else ""


def without_split(name: str) -> str:
    """What a name says beside a split: "walk_train" -> "walk"; "" for numbers and plain words ("train_data")."""
    words = re.split(r"([^\W\d_]+)", name)
    said = [i for i, word in enumerate(words) if word and split_name(word.casefold().removesuffix("set"))]
    rest = re.sub(r"([_\W])[_\W]+", r"\1", "".join("" if i in said else word for i, word in enumerate(words)))
    more = [word for word in re.findall(r"[^\W\d_]+", rest.casefold()) if word not in _PLAIN_WORDS]
    return rest.strip("_-. ") if more else ""


def folder_split(name: str) -> str:
    """The split that a folder of images is named for: "train2017", "valid_images" -> "val"; "" where it says more."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    said = {split_name(word.removesuffix("set")) or "" for word in words if word not in _PLAIN_WORDS}
    return said.pop() if len(said) == 1 else ""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled clip: a video file, a part of one (start_s, end_s), a folder of frame images or stored features.

    ``group`` is the subject or scene that train and test must not share ("" where unknown); ``split`` is "train",
    "val", "test" or "" where none is given. ``row`` is the clip's row in the table's feature file, if it has one.
    """

    path: Path
    labels: tuple[str, ...]
    group: str = ""
    split: str = ""
    start_s: float | None = None
    end_s: float | None = None
    row: int | None = None
    fps: float | None = None  # frames a second of a folder of images; None: what their names tell, else 25
    fold: str = ""  # the part that a table puts it in, for ``--fold``

    @property
    def label(self) -> str:
        """The only label; for clips with several, the first."""
        return self.labels[0]


class StoredRecords(Protocol):
    """Stored features by number: what ``RecordSet`` and ``ArrayRecords`` have in common."""

    ids: list[str]
    labels: list[tuple[int, ...]]  # indices of classes
    frames: list[int]  # how many each has; 0 of means

    @property
    def widths(self) -> Mapping[str, int]:
        """Numbers a frame of each modality: {"rgb": 1024, "audio": 128}."""
        ...

    def read(self, index: int) -> Record:
        """The record of a number."""
        ...

    def where(self, index: int) -> str:
        """The file and id of a record, for messages."""
        ...


@dataclass(frozen=True)
class ClipTable:
    """Clips in a fixed order, with the names of their classes (the model's output order).

    Where ``features`` is a path, the data are stored features, not videos: clip.row is the number of a clip's record
    in ``records``, and clip.path is only a name below the root.
    """

    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    root: Path
    notes: tuple[str, ...] = field(default=())  # what the adapter had to assume or skip, one sentence each
    skipped: tuple[tuple[str, str], ...] = field(default=())  # (path, why) of what was listed and cannot be used
    features: Path | None = None
    records: StoredRecords | None = field(default=None, compare=False, repr=False)
    none: str = ""  # the class that means none of the others, which is never announced (background.py)

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    def of_split(self, split: str) -> ClipTable:
        """The clips of one split, labels unchanged."""
        return self.with_clips(clip for clip in self.clips if clip.split == split)

    def with_clips(self, clips: Iterable[Clip]) -> ClipTable:
        """The same table with other clips, labels unchanged."""
        return replace(self, clips=tuple(clips))

    @property
    def multi_label(self) -> bool:
        """Whether any clip has more than one label."""
        return any(len(clip.labels) > 1 for clip in self.clips)

    def names(self) -> list[str]:
        """What tells each clip from the others: its path relative to the root, and its times where it has any."""
        return [
            "|".join([path, *("" if t is None else f"{t:g}" for t in (c.start_s, c.end_s))])
            for c, path in zip(self, self._paths(), strict=True)
        ]

    def sha256(self) -> str:
        """Hash of what the table says (paths relative to the root, labels, groups, splits, times)."""
        digest = hashlib.sha256(b"[[")
        clips, mark = iter(zip(self.clips, self._paths(), strict=True)), ""
        while some := list(islice(clips, HASHED_ROWS)):
            rows = [[path, list(c.labels), c.group, c.split, c.start_s, c.end_s, *_told(c.fps)] for c, path in some]
            digest.update((mark + json.dumps(rows)[1:-1]).encode())
            mark = ", "
        digest.update(f"], {json.dumps(list(self.labels))}]".encode())
        return digest.hexdigest()

    def _paths(self) -> Iterator[str]:
        """The path of each clip relative to the root; parts of one video often follow each other."""
        last: Path | None = None
        for clip in self.clips:
            if clip.path is not last:
                last = clip.path
                text = _relative(last, self.root)
            yield text


def _told(fps: float | None) -> list[float]:
    return [] if fps is None else [fps]


def _relative(path: Path, root: Path) -> str:
    text, begin = path.as_posix(), root.as_posix().rstrip("/") + "/"
    if text.startswith(begin):
        return text[len(begin) :]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else text
