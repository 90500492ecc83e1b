"""Which image an annotation means: found by its name, wherever below a folder it lies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..labels import composed
from .media import is_image, visible
from .table import folder_split, split_in_name

MOST_DEPTH = 8


def is_there(path: Path) -> bool:
    """Whether a path is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


class Pictures:
    """The images below a folder by name; each folder is listed once.

    Args:
        several: gets, of a name that means several images, the place that ``find`` gives and those images.
    """

    def __init__(self, root: Path, several: dict[Path, list[Path]]) -> None:
        self.root, self.several = root, several
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        level = [root]
        for _ in range(MOST_DEPTH):
            entries = [entry for folder in level for entry in visible(folder)]
            for entry in entries:
                if is_image(entry):
                    self._by_name[composed(entry.name)].append(entry)
                    self._by_stem[composed(entry.stem)].append(entry)
            level = [entry for entry in entries if entry.is_dir()]

    def find(self, name: str, beside: Path) -> Path:
        """The image of a name, as written with or without folders and suffix; of several the nearest to a file.

        Near is who shares most of the written path, then the split that ``beside`` is named for, then most folders
        with it. Where there is none, or several are equally near, the place where it would lie beside it.
        """
        written = PurePosixPath(composed(name.replace("\\", "/")))
        parts = [part for part in written.parts if part not in ("", ".", "..", "/")]
        if not parts:
            return beside.parent
        found = self._by_name.get(parts[-1]) or self._by_stem.get(parts[-1]) or self._by_stem.get(written.stem) or []
        if not found:
            return beside.parent.joinpath(*parts[-1:])
        split = folder_split(beside.parent.name) or split_in_name(beside.stem)
        nearness = [
            (_same_end(parts, image), bool(split) and folder_split(image.parent.name) == split,
             _same_folders(image, beside))
            for image in found
        ]  # fmt: skip
        nearest = [image for image, near in zip(found, nearness, strict=True) if near == max(nearness)]
        if len(nearest) == 1:
            return nearest[0]
        place = beside.parent.joinpath(*parts[-1:])
        self.several[place] = nearest
        return place

    def find_one(self, names: Iterable[str], beside: Path) -> Path:
        """The image of the first name that has one; else the place of the first that means several, or of the last."""
        places = [self.find(name, beside) for name in names]
        several = next((place for place in places if place in self.several), places[-1])
        return next((place for place in places if is_there(place)), several)


def _same_end(parts: list[str], image: Path) -> int:
    """How many folders of the written path an image has, from the end."""
    count = 0
    for written, there in zip(reversed(parts[:-1]), reversed(image.parent.parts), strict=False):
        if written != there:
            break
        count += 1
    return count


def _same_folders(image: Path, beside: Path) -> tuple[int, int]:
    """How many folders an image and a file share: their names anywhere (train, valid), and from the root on."""
    one, other = image.parent.parts, beside.parent.parts
    common = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        common += 1
    return len(set(one[common:]) & set(other[common:])) + common, -len(one)
