"""A folder per class: its video files, and folders of frame images, perhaps below train/val/test or in group folders.

root/[train|val|test/]class/clip.mp4
root/[train|val|test/]class/clip/0001.jpg
root/[train|val|test/]class/group/clip.mp4     (the group is named by its folder, in every class the same)
root/class_train/clip.mp4, root/class_test/... root/class/train_1.mp4, test_1.mp4
root/class/[train|val|test/]clip.mp4           root/train.txt, val.txt, test.txt (names of clips)
root/train/class/clip.mp4, root/test/clip.mp4  (clips of test without a class, which are told and left out)
root/subject1/class/clip.mp4                   (also person, actor, session, fold ...: a group of the classes in it)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DataError
from ..labels import composed, label_order
from ..video.frame_names import says_picture
from .media import holds_images, is_image, is_video, visible
from .table import SPLITS, Clip, ClipTable, folder_split, split_in_name, split_name, without_split
from .texts import SPREADSHEETS, text_lines

TABLES = (".csv", ".tsv", ".parquet")
LISTS = (".txt", ".lst", ".list")
# What no class is called that has a number: who or when it was.
GROUPS = re.compile(
    r"(subject|subj|person|people|actor|user|participant|performer|volunteer|patient|speaker|signer|session|recording|fold"
    r"|camera|cam|view|scene|day|split|part|set|batch|group|trial|take|repetition|site|room|location)[ _.-]?\d+",
    re.IGNORECASE,
)
LOOKED_INTO = 20  # folders, where only a short look is wanted
DOUBTFUL = ("eval", "evaluation", "holdout", "hold_out", "held_out", "heldout", "unseen")  # names of splits, unclear


@dataclass
class _Found:
    """What a walk over the folders has gathered so far."""

    clips: list[Clip] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)  # files that are neither a clip nor a frame
    beside: list[Path] = field(default_factory=list)  # folders of images that are no frames of a clip


def read_folders(root: Path) -> ClipTable:
    """Read a folder of class folders. Class folders without a clip are skipped and listed.

    Raises:
        DataError: the folder is empty, or its clips are not sorted into class folders.
    """
    entries = visible(root)
    if not entries:
        raise DataError(f"{root}: empty folder")
    notes = []
    while (inner := _only_folder(entries)) is not None:
        notes = [f"Everything lies in {inner.relative_to(root).as_posix()}, which is read."]
        entries = visible(inner)
    folders = [entry for entry in entries if entry.is_dir()]
    splits = _split_folders(folders)
    found = _Found()
    for split, folder in splits.items() if splits else [("", entries[0].parent)]:
        for class_folder in visible(folder):
            if class_folder.is_dir():
                _read_class(class_folder, split, found, root)
            else:
                found.foreign.append(class_folder)
    if not found.clips:
        raise DataError(f"{root}: {_why_nothing(entries, found)}")
    notes += _groups_above_classes(found)
    if not splits:
        notes += _inner_splits(found) or _listed_splits(found, root) or _named_splits(found)
    tops = {path for inner in splits.values() for path in (inner, *inner.parents)}
    if splits and (beside := [entry.name for entry in folders if entry not in tops]):
        notes.append(f"Folders beside train, val and test were not read: {', '.join(beside[:5])}.")
    if loose := [path for path in found.foreign if is_video(path)]:
        notes.append(f"{len(loose)} videos lie outside of any class folder and were not read (first: {loose[0].name}).")
    if rest := [path for path in found.foreign if not is_video(path)]:
        notes.append(f"{len(rest)} files are neither videos nor frames and were not read (first: {rest[0].name}).")
    if found.beside:
        first = found.beside[0].relative_to(root).as_posix()
        notes.append(
            f"{len(found.beside)} folders of images beside or below the frames were not read (first: {first})."
        )
    labels = label_order((clip.label for clip in found.clips), str(root))
    return ClipTable(tuple(found.clips), labels, root, tuple(notes), tuple(found.skipped))


def seems_of_images(root: Path) -> bool:
    """Whether a folder and the first ones in it hold images, and neither videos, tables nor further folders."""
    entries = visible(root)
    inside = [
        path for folder in [entry for entry in entries if entry.is_dir()][:LOOKED_INTO] for path in visible(folder)
    ]
    others = any(path.is_dir() for path in inside) or any(is_video(path) for path in (*entries, *inside))
    tables = any(entry.suffix.lower() in TABLES for entry in entries)
    return not others and not tables and any(is_image(path) for path in (*entries, *inside))


def _only_folder(entries: list[Path]) -> Path | None:
    """The one folder in which everything lies, as archives unpack: it holds folders of folders or of several videos."""
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) != 1 or any(is_video(entry) or is_image(entry) for entry in entries):
        return None
    inside = visible(folders[0])
    below = [entry for entry in inside if entry.is_dir() and not holds_images(entry)]
    loose = any(is_video(entry) or is_image(entry) or entry.suffix.lower() in TABLES for entry in inside)
    return folders[0] if not loose and (len(below) > 1 or _only_folder(inside) is not None) else None


def _split_folders(folders: list[Path]) -> dict[str, Path]:
    """Folders that are splits, not classes: train beside val or test, of which train at least has folders in it.

    Raises:
        DataError: two folders mean the same split ("val" and "validation"), or one beside train may mean val or test.
    """
    named: dict[str, Path] = {}
    sets = all(split_in_name(folder.name) for folder in folders)  # training_set, test_set
    sets = sets and not all(without_split(folder.name) for folder in folders)  # but no walk_train, walk_test
    said = {folder: (split_in_name if sets else split_name)(folder.name) for folder in folders}
    classes = [folder for folder in folders if said[folder] and any(entry.is_dir() for entry in visible(folder))]
    several = len({split for split in said.values() if split}) > 1 and "train" in {said[folder] for folder in classes}
    for folder in folders if several else classes:
        split = said[folder]
        if not split or (not several and any(is_video(entry) or is_image(entry) for entry in visible(folder))):
            continue
        if split in named:
            raise DataError(f"{folder.parent}: folders {named[split].name!r} and {folder.name!r} are the same split")
        named[split] = _inside(folder, split)
    if "train" in named and (doubtful := [folder.name for folder in folders if folder.name.lower() in DOUBTFUL]):
        raise DataError(
            f"{named['train'].parent}: does {doubtful[0]!r} beside {named['train'].name!r} mean val or test? Call it so"
        )
    if "train" not in named or (len(named) == 1 and len(folders) > 1):
        return {}
    return {split: named[split] for split in SPLITS if split in named}


def _inside(folder: Path, split: str) -> Path:
    """A split's folder; of train/train/class, as archives unpack, the inner one."""
    entries = visible(folder)
    again = len(entries) == 1 and entries[0].is_dir() and folder_split(entries[0].name) == split
    return _inside(entries[0], split) if again and any(entry.is_dir() for entry in visible(entries[0])) else folder


def _read_class(folder: Path, split: str, found: _Found, root: Path) -> None:
    before = len(found.clips)
    loose_images = 0
    for path, group in _members(folder, found):
        if path.is_dir():
            if holds_images(path):
                found.clips.append(Clip(path, (folder.name,), group, split))
            else:
                found.skipped.append((path.relative_to(root).as_posix(), "a folder without videos or frame images"))
        elif is_video(path):
            found.clips.append(Clip(path, (folder.name,), group, split))
        elif is_image(path) and not group:
            loose_images += 1
        else:
            found.foreign.append(path)
    if loose_images:
        why = f"{loose_images} images that are in no folder of their own (a clip of frames is one folder)"
        found.skipped.append((folder.relative_to(root).as_posix(), why))
    elif len(found.clips) == before and not visible(folder):
        found.skipped.append((folder.relative_to(root).as_posix(), "a class folder without clips"))


def _members(folder: Path, found: _Found) -> Iterator[tuple[Path, str]]:
    """Everything in a class folder as (path, group): a folder of clips is a group, a folder of images is a clip.

    Of rgb/, flow/, depth/ and masks/ in one folder the pictures are the clip. Links that lead back are not followed.
    """
    for entry in visible(folder):
        if entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve()):
            continue
        inside = visible(entry) if entry.is_dir() else []
        frames = [path for path in inside if path.is_dir() and holds_images(path)]
        videos = any(is_video(path) for path in inside)
        own = sum(map(is_image, inside))
        if frames and not videos and own >= sum(map(is_image, visible(frames[0]))):  # its masks or such, below it
            found.beside += frames
            yield entry, ""
        elif frames or videos:
            kinds = {path: says_picture(path.name.casefold()) for path in frames}
            others = [path for path in frames if kinds[path] == 0 and max(kinds.values()) == 2]
            found.beside += others
            yield from ((path, entry.name) for path in inside if path not in others)
        else:
            yield entry, ""


def _groups_above_classes(found: _Found) -> list[str]:
    """Take subject1/run/a.mp4 for a clip of the class run, where subject2 has a folder run too; a note on that."""
    outer = {clip.label for clip in found.clips}
    if len(outer) < 2 or not all(GROUPS.fullmatch(name) for name in outer):
        return []
    inner = [clip.group or (clip.path.name if clip.path.is_dir() else "") for clip in found.clips]
    pairs = {(clip.label, name) for clip, name in zip(found.clips, inner, strict=True)}
    if not all(inner) or len(set(inner)) < 2 or len(pairs) == len(set(inner)):
        return []
    found.clips = [
        replace(clip, labels=(name,), group=clip.label) for clip, name in zip(found.clips, inner, strict=True)
    ]
    first = min(outer)
    return [f"The folders {first} and such are taken for groups, and the folders in them for the classes."]


def _inner_splits(found: _Found) -> list[str]:
    """Take class/train/clip.mp4 for a clip of train, where all groups are named for splits; a note on that."""
    said = {group: split_name(group) or "" for group in {clip.group for clip in found.clips}}
    if "train" not in said.values() or not all(said.values()):
        return []
    found.clips = [replace(clip, group="", split=said[clip.group]) for clip in found.clips]
    return ["The folders in the folders of the classes are the splits."]


def _named_splits(found: _Found) -> list[str]:
    """Take class_train/a.mp4, or class/train_1.mp4, for a clip of train, if all names say a split; a note on that."""
    folders = {clip.label: split_in_name(clip.label) for clip in found.clips}
    if _are_splits(folders.values()) and (short := {name: without_split(name) for name in folders}):
        train = {short[name] for name, split in folders.items() if split == "train"}
        if train and all(train) and {short[name] for name in folders} == train:
            found.clips = [
                replace(clip, labels=(short[clip.label],), split=folders[clip.label]) for clip in found.clips
            ]
            return [
                f"The splits are those in the names of the folders, as in {min(folders)}, and the rest is the class."
            ]
    files = [split_in_name(clip.path.stem) for clip in found.clips]
    if _are_splits(files) and not any(folders.values()):
        found.clips = [replace(clip, split=split) for clip, split in zip(found.clips, files, strict=True)]
        return [f"The splits are those in the names of the clips, as in {found.clips[0].path.name}."]
    return []


def _are_splits(said: Collection[str]) -> bool:
    return all(said) and "train" in said and len(set(said)) > 1


def _listed_splits(found: _Found, root: Path) -> list[str]:
    """Give clips the splits of lists of names beside the classes (train.txt, or test.txt alone); notes on that.

    Raises:
        DataError: a clip is in two lists.
    """
    by_name: dict[str, set[int]] = defaultdict(set)
    for number, clip in enumerate(found.clips):
        below = clip.path.relative_to(root)
        for name in (below, below.with_suffix(""), Path(below.name), Path(below.stem)):
            by_name[composed(name.as_posix())].add(number)
    read: dict[Path, str] = {}
    splits: dict[int, str] = {}
    for path in [path for folder in (root, root / "splits", root / "lists") for path in _texts(folder)]:
        split = folder_split(path.stem)
        lines = [line.replace("\\", "/").removeprefix("./") for _, line in text_lines(path)] if split else []
        meant = [number for line in lines if len(few := by_name.get(composed(line), set())) == 1 for number in few]
        if 2 * len(meant) <= len(lines):
            continue
        read[path] = split
        for number in meant:
            if splits.setdefault(number, split) != split:
                raise DataError(f"{path}: {found.clips[number].path.name} is listed in {splits[number]} too")
    if not read:
        return []
    rest = "" if "train" in read.values() else "train"
    left_out = sum(number not in splits for number in range(len(found.clips)))
    found.clips = [
        replace(clip, split=splits.get(number, rest))
        for number, clip in enumerate(found.clips) if number in splits or rest
    ]  # fmt: skip
    found.foreign = [path for path in found.foreign if path not in read]
    told = [f"The splits are those of {', '.join(path.name for path in read)}."]
    if left_out:
        told.append(f"{left_out} clips are in none of the lists and {'train' if rest else 'were left out'}.")
    return told


def _texts(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.suffix.lower() in LISTS] if folder.is_dir() else []


def _why_nothing(entries: list[Path], found: _Found) -> str:
    videos = sum(map(is_video, entries))
    if table := next((entry for entry in entries if entry.suffix.lower() in TABLES), None):
        return f"no class folders in it; to read the table give its name: {table}"
    if sheet := next((entry for entry in entries if entry.suffix.lower() in SPREADSHEETS), None):
        return f"no class folders in it, but the spreadsheet {sheet.name}; save its sheet as CSV (UTF-8), and name that"
    if videos:
        return f"{videos} videos without a label: put each into a folder named for its class, or write a clips.csv"
    if any(is_image(entry) for entry in entries) or any("images that are" in why for _, why in found.skipped):
        return (
            "images, and no clips: vidlet learns from videos or folders of frames; the layout is class/clip.mp4 or "
            "class/clip/0001.jpg, or a clips.csv that names them"
        )
    return "no video and no frame folder in it (a folder per class, or a clips.csv with columns path and label)"
