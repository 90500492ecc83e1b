"""Boxes as YOLO's text files write them: a line "class x y width height" a box, relative to the image, by its center.

    root/images/train/a.jpg, root/labels/train/a.txt      root/train/images/a.jpg, root/train/labels/a.txt
    root/a.jpg, root/a.txt                                root/train.txt (a list of images), root/obj.names

Folders of images may be called images, image, img or JPEGImages, those beside them labels, annotations and the like, in
any case. The split is what data.yaml says (folders or lists, wherever on the writer's machine they lay), the list that
names the image (train.txt), or what a folder is named for. The classes' names are those of data.yaml, of a
.names file or of classes.txt, there or one folder below; without any they are called by their numbers. An image without
a text file shows nothing, but where no image of a split has one, the split is left out; one of whose text file no line
can be read is skipped. Of a polygon the box around it is taken.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, reading
from ..labels import composed
from .box_table import BoxGatherer, BoxTable, Written, split_of_place
from .media import is_image, visible
from .table import folder_split, split_name
from .texts import MOST_CLASSES, class_number, numbered_names, read_text, text_lines

NAME_FILES = ("classes.txt", "labels.txt")
IMAGE_FOLDERS = ("images", "image", "img", "imgs", "jpegimages")
LABEL_WORDS = ("label", "annot", "txt", "yolo")  # a folder beside one of images whose name has one, if it fits
MAX_DEPTH = 6
MOST_YAML = 2**20


def is_yolo(root: Path) -> bool:
    """Whether a folder holds images with YOLO's text files."""
    texts = Texts(root)
    return any(texts.of(path) is not None for path in _images(root))


def read_yolo(root: Path) -> BoxTable:
    """Read a folder of images with text files.

    Raises:
        DataError: no image can be used, or data.yaml's names cannot be understood.
    """
    about = _about(root)
    found = BoxGatherer(root, "yolo", about.names)
    found.notes += about.notes
    images, texts = _images(root), Texts(root)
    _check_names(about, texts.folders(images))
    listed = _lists(about.lists, root, images) or _lists(_split_texts(about.place), root, images)
    listed = listed or _lists(_split_texts(root), root, images)
    splits = {path: listed.get(path, "") if listed else _split_of(path, root, about) for path in images}
    labelled = {splits[path] for path in images if texts.of(path) is not None}
    empty, left_out, largest = 0, 0, -1
    unlabelled: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for path, split in splits.items():
        if listed and not split:
            left_out += 1
            continue
        if split and split not in labelled:
            unlabelled[split] += 1
            continue
        text = texts.of(path)
        boxes: list[Written] = []
        if text is not None:
            try:
                boxes, number, lines = _boxes(text, about, others, found)
            except DataError as error:
                found.skip(path, str(error).removeprefix(f"{text}: "))
                continue
            if lines and not boxes:  # it shows something, so it is no background
                found.skip(path, f"none of the {lines} lines of its text file is a box")
                continue
            largest = max(largest, number)
        empty += text is None
        found.add(path, boxes, split)
    if about.names is None:
        found.names = [str(i) for i in range(largest + 1)]
        found.notes.append("No list of class names was found (data.yaml, *.names, classes.txt): numbers are used.")
    if left_out:
        found.notes.append(f"{left_out} images are in none of the lists and were left out.")
    for split, count in unlabelled.items():
        found.notes.append(f"None of the {count} images of {split} has a text file: they were left out.")
    if orphans := texts.unused():
        first = orphans[0].relative_to(root).as_posix()
        found.notes.append(f"{len(orphans)} text files belong to no image (first: {first}).")
    if empty:
        found.notes.append(f"{empty} images have no text file: they count as showing nothing.")
    found.notes += [f"{count} lines are {what}." for what, count in others.items()]
    return found.table()


@dataclass(frozen=True)
class About:
    """What the files beside the images say: names of classes, folders by split, whether boxes carry key points."""

    names: list[str] | None = None
    folders: tuple[tuple[Path, str], ...] = ()
    lists: tuple[tuple[Path, str], ...] = ()  # texts that name images, by split
    key_points: bool = False
    notes: tuple[str, ...] = ()
    place: Path = Path()  # the folder where that was found


def _about(root: Path) -> About:
    """From data.yaml, else a .names file or classes.txt, in the folder or one below.

    Raises:
        DataError: a file that cannot be understood, or two that name the classes differently.
    """
    below = [entry for entry in visible(root) if entry.is_dir()]
    for level in ([root], below):
        found = [said for folder in level if (said := _about_folder(folder, root)) is not None]
        if found:
            if other := next((said for said in found if said.names != found[0].names), None):
                raise DataError(f"{root}: the classes are named in {found[0].place} and otherwise in {other.place}")
            folders = tuple(entry for said in found for entry in said.folders)
            return replace(found[0], folders=folders, lists=tuple(entry for said in found for entry in said.lists))
    return About(place=root)


def _about_folder(folder: Path, root: Path) -> About | None:
    entries = visible(folder)
    said = [(path, found) for path in entries if is_yaml(path) and isinstance(found := _yaml(path), dict)]
    said = [(path, found) for path, found in said if "names" in found]
    plain = [pair for pair in said if isinstance(pair[1]["names"], (list, dict))] or said
    read = [_about_yaml(found, path, root) for path, found in plain]
    if other := next((index for index, about in enumerate(read) if about.names != read[0].names), 0):
        raise DataError(f"{plain[0][0]}: names other classes than {plain[other][0].name}")
    if read:
        return read[0]
    files = [path for path in entries if path.suffix.lower() == ".names"]
    files += [path for name in NAME_FILES for path in entries if path.name.lower() == name]
    if not files:
        return None
    found = numbered_names(files[0])
    return About(list(found.names), notes=found.notes, place=folder)


def is_yaml(path: Path) -> bool:
    """Whether a file's name says that it is YAML."""
    return path.suffix.lower() in (".yaml", ".yml") and path.is_file()


def _yaml(path: Path) -> Any:
    """A YAML file as lists, dicts and texts: no types are guessed ("no" is a name), nothing is made of what it says."""
    import yaml

    with reading(path, "a YAML file"):
        text = read_text(path, MOST_YAML)
        _check_keys(yaml.compose(text, Loader=yaml.BaseLoader), path)
        return yaml.load(text, Loader=yaml.BaseLoader)


def _check_keys(node: Any, path: Path) -> None:
    """Refuse a mapping, or one right in it, in which a key stands twice: the last one would be taken without a word."""
    inner = [value for _, value in node.value] if getattr(node, "id", "") == "mapping" else []
    for mapping in (node, *inner) if inner else ():
        keys = Counter(key.value for key, _ in mapping.value if key.id == "scalar") if mapping.id == "mapping" else {}
        if twice := [key for key, count in keys.items() if count > 1]:
            raise DataError(f"{path}: {twice[0]!r} stands twice")


def _about_yaml(said: dict[str, Any], path: Path, root: Path) -> About:
    names = _yaml_names(said["names"], path)
    told = str(said.get("nc", "")).strip()
    counted = told in ("", str(len(names)))
    notes = [] if counted else [f"{path.name}: nc is {told}, and {len(names)} names are listed."]
    splits: dict[Path, list[str]] = defaultdict(list)
    for key, places in said.items():
        split = split_name(key)
        for place in places if isinstance(places, list) else [places]:
            if not split or not isinstance(place, str) or not place.strip():
                continue
            if (there := _place(place, str(said.get("path") or ""), path, root)) is None:
                notes.append(f"{path.name}: what it names for {split} is not there ({place.strip()[:80]}).")
            elif split not in splits[there]:
                splits[there].append(split)
    for there, several in splits.items():
        if len(several) > 1:
            taken = "none of them" if "train" in several else "val"
            notes.append(f"{path.name} names {there.name} for {' and '.join(several)}: it is taken for {taken}.")
    one = [(p, ("" if "train" in s else "val") if len(s) > 1 else s[0]) for p, s in splits.items()]
    lists = tuple((there, split) for there, split in one if there.is_file() and split)
    folders = tuple((there, split) for there, split in one if there.is_dir())
    return About(names, folders, lists, "kpt_shape" in said, tuple(notes), path.parent)


def _place(written: str, base: str, path: Path, root: Path) -> Path | None:
    """The folder or list of images that a YAML file means, of its path as much as is there, below the data's folder."""
    outer, inner = _parts(base), _parts(written)
    for first in range(len(inner)):
        for folder in dict.fromkeys((path.parent, root)):
            for begin in (outer[at:] for at in range(len(outer) + 1)):
                there = folder.joinpath(*begin, *inner[first:])
                if there.is_dir() or (there.suffix.lower() == ".txt" and there.is_file()):
                    return there
    return None


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _check_names(about: About, folders: Iterable[Path]) -> None:
    """Refuse names that a classes.txt beside the texts, as LabelImg leaves one, contradicts.

    Raises:
        DataError: a class has two names.
    """
    for folder in dict.fromkeys((about.place, *folders)):
        path = folder / NAME_FILES[0]
        for number, (one, other) in enumerate(
            zip(about.names or (), numbered_names(path).names if path.is_file() else (), strict=False)
        ):
            if composed(one) != other:
                raise DataError(f"{path}: class {number} is {other!r} there, and {one!r} in {about.place}")


def _yaml_names(names: Any, path: Path) -> list[str]:
    """The entry ``names``: a list, or a dict by number; [] is refused."""
    if isinstance(names, dict):
        pairs = {class_number(str(key), f"{path}: names"): name for key, name in names.items()}
        if sorted(pairs) != list(range(len(pairs))):
            raise DataError(f"{path}: names must be numbered 0, 1, 2 ..., got {sorted(pairs)[:8]}")
        names = [pairs[i] for i in range(len(pairs))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: names must be a list of names, or names by number")
    return [name.strip() or str(i) for i, name in enumerate(names)]


def _boxes(path: Path, about: About, others: Counter[str], found: BoxGatherer) -> tuple[list[Written], int, int]:
    """The boxes of a text file, the largest class number in it, and how many lines it has.

    Raises:
        DataError: it is no text.
    """
    boxes: list[Written] = []
    largest, lines, names = -1, 0, about.names
    for line in read_text(path).splitlines():
        cells = line.split()
        if not cells:
            continue
        lines += 1
        try:
            number, values = float(cells[0]), [float(cell) for cell in cells[1:]]
        except ValueError:
            found.drop(path, f"line {line[:60]!r}: not 'class x y width height'")
            continue
        most = MOST_CLASSES if names is None else len(names)
        if not number.is_integer() or not 0 <= number < most:
            why = f"class {cells[0][:20]} is not in the list of classes (0 to {most - 1})"
            found.drop(path, f"line {line[:60]!r}: {why}")
            continue
        corners = _corners(values, about, others)
        if corners is None:
            found.drop(path, f"line {line[:60]!r}: not 'class x y width height'")
            continue
        largest = max(largest, int(number))
        boxes.append((*corners, str(int(number)) if names is None else names[int(number)], False))
    return boxes, largest, lines


def _corners(values: list[float], about: About, others: Counter[str]) -> tuple[float, float, float, float] | None:
    """Corners of a box, of a box with a score or key points behind it, or of the box around a polygon."""
    of_points = len(values) > 6 and (len(values) - 4) % 3 == 0
    seen = values[6::3] if of_points else []  # of each key point: 2, 1 where it is hidden, 0 where it is absent
    odd = len(values) % 2 == 1
    key_points = about.key_points or (bool(seen) and set(seen) <= {0.0, 1.0, 2.0} and (odd or 2.0 in seen))
    if len(values) >= 6 and not odd and not key_points:
        others["polygons, of which the box around each is taken"] += 1
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    if len(values) < 4 or (len(values) > 5 and not key_points):
        return None
    if len(values) > 4:
        others["boxes with more numbers behind them (scores, key points), which are not read"] += 1
    x, y, width, height = values[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _images(root: Path) -> list[Path]:
    """Images below a folder, by name, at most six folders deep."""
    found: list[Path] = []
    level = [root]
    for _ in range(MAX_DEPTH):
        entries = [entry for folder in level for entry in visible(folder)]
        found += [entry for entry in entries if is_image(entry)]
        level = [entry for entry in entries if entry.is_dir()]
    return sorted(found)


class Texts:
    """The text files of images, whatever the Unicode form of their names or the case of their suffix.

    Each folder is listed once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inside: dict[Path, dict[str, Path]] = {}
        self._label_folders: set[Path] = set()
        self._used: set[Path] = set()

    def of(self, image: Path) -> Path | None:
        """The text file of an image: in the label folder beside the image folder nearest to it, or beside it.

        It is called as the image is with another suffix (a.txt), or with a further one (a.jpg.txt).
        """
        for folder in (*self._folders(image), image.parent):
            inside = self._texts(folder)
            for name in (image.stem, image.name):
                if text := inside.get(composed(name)):
                    self._used.add(text)
                    return text
        return None

    def folders(self, images: Iterable[Path]) -> list[Path]:
        """The folders in which texts of images are looked for, and those above them, as far as the root."""
        found = dict.fromkeys(folder for image in images for folder in (*self._folders(image), image.parent))
        above = (folder.parent for folder in found if folder != self.root)
        return list(dict.fromkeys((*found, *above)))

    def unused(self) -> list[Path]:
        """Text files in label folders that no image was asked for."""
        there = {text for folder in self._label_folders for text in self._texts(folder).values()}
        return sorted(text for text in there - self._used if text.name.lower() not in NAME_FILES)

    def _folders(self, image: Path) -> list[Path]:
        parts = image.relative_to(self.root).parts
        at = next((at for at in range(len(parts) - 2, -1, -1) if parts[at].lower() in IMAGE_FOLDERS), None)
        if at is None:
            return []
        base = self.root.joinpath(*parts[:at])
        named = [entry for entry in visible(base) if any(word in entry.name.lower() for word in LABEL_WORDS)]
        beside = [entry for entry in named if entry.is_dir() and entry.name != parts[at]]
        found = [entry.joinpath(*parts[at + 1 : -1]) for entry in beside]
        self._label_folders |= set(found)
        return found

    def _texts(self, folder: Path) -> dict[str, Path]:
        if folder not in self._inside:
            entries = visible(folder) if folder.is_dir() else []
            texts = [entry for entry in entries if entry.suffix.lower() == ".txt" and entry.is_file()]
            self._inside[folder] = {composed(text.stem): text for text in texts}
        return self._inside[folder]


def _split_texts(place: Path) -> list[tuple[Path, str]]:
    """The texts of a folder that are named for a split: train.txt, valid.txt, train2017.txt."""
    texts = (path for path in visible(place) if path.suffix.lower() == ".txt")
    return [(path, split) for path in texts if (split := folder_split(path.stem))]


def _lists(files: Iterable[tuple[Path, str]], root: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Image -> its split, from lists of images; {} without them.

    A line means the image with which it shares most of its path, from the end; lists often name images from another
    folder than this. Twins of one name in several folders are told apart by the folders.

    Raises:
        DataError: an image is in two lists, or a line means several images.
    """
    lines: list[tuple[Path, str, tuple[str, ...]]] = []
    for path, split in files:
        for _, line in text_lines(path):
            parts = _parts(line)
            lines += [(path, split, tuple(map(composed, parts)))] if parts else []
    twins: dict[str, list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
    for image in images:
        below = tuple(map(composed, image.relative_to(root).parts))
        twins[below[-1]].append((image, below))
    found: dict[Path, str] = {}
    by_name: list[tuple[Path, str, Path]] = []
    for path, split, parts in lines:
        ranked = sorted(((_shared(parts, below), image) for image, below in twins[parts[-1]]), reverse=True)
        if not ranked:
            continue
        (best, image), others = ranked[0], ranked[1:]
        if others and others[0][0] == best:
            raise DataError(f"{path}: {'/'.join(parts)} means {image} and {others[0][1]}; write more of the path")
        if best == 1 and len(parts) > 1 and image.parent != root:  # another folder: only if nothing else is meant
            by_name.append((path, split, image))
        elif found.setdefault(image, split) != split:
            raise DataError(f"{path}: {'/'.join(parts)} is listed in {found[image]} too")
    claimed = set(found)
    for path, split, image in by_name:
        if image not in claimed and found.setdefault(image, split) != split:
            raise DataError(f"{path}: {image.name} is listed in {found[image]} too")
    return found


def _shared(listed: tuple[str, ...], below: tuple[str, ...]) -> int:
    """How many parts two paths share, from the end."""
    pairs = zip(reversed(listed), reversed(below), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _split_of(image: Path, root: Path, about: About) -> str:
    said = [(len(folder.parts), split) for folder, split in about.folders if image.is_relative_to(folder)]
    if said:
        return max(said)[1]
    return split_of_place(image, root)
