"""Published data sets, recognized by their official lists beside their videos."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .folders import read_folders
from .media import Listed, folders_near, listed_table, visible
from .table import ClipTable, split_name
from .texts import text_lines
from .viva import read_viva, twin_folders

# HMDB51 with its official splits. The group of a clip is the film that it was cut from, which its name begins with.
#
# Source: Kuehne et al. 2011, "HMDB: a large video database for human motion recognition"; files
# brush_hair_test_split1.txt list NAME.avi and 1 (train), 2 (test) or 0 (not used).
HMDB_LIST = re.compile(r"(\w+)_test_split([123])\.txt")
HMDB_SPLITS = {"1": "train", "2": "test", "0": ""}


def hmdb51_lists(path: Path) -> tuple[Path, int] | None:
    """The folder of the official lists and the number of the split, if ``path`` means them; a folder means split 1."""
    if path.is_file():
        found = HMDB_LIST.fullmatch(path.name)
        return (path.parent, int(found[2])) if found else None
    for folder in (path, *(entry for entry in visible(path) if entry.is_dir())):
        if any(HMDB_LIST.fullmatch(entry.name) for entry in visible(folder)):
            return folder, 1
    return None


def read_hmdb51(lists: Path, split: int, root: Path) -> ClipTable:
    """Read one of the three splits of HMDB51; clips that it does not use are left out.

    Raises:
        DataError: a line that is none, or no video is there (says how many are missing).
    """
    rows: list[Listed] = []
    unused = 0
    for path in sorted(lists.iterdir()):
        found = HMDB_LIST.fullmatch(path.name)
        if not found or int(found[2]) != split:
            continue
        label = found[1]
        for number, line in text_lines(path):
            name, _, mark = line.rpartition(" ")
            if mark not in HMDB_SPLITS or not name:
                raise DataError(f"{path} line {number}: {line!r} is not NAME.avi and 0, 1 or 2")
            if not HMDB_SPLITS[mark]:
                unused += 1
                continue
            rows.append(
                Listed((f"{label}/{name.strip()}", name.strip()), label, source_of(name, label), HMDB_SPLITS[mark])
            )
    notes = [f"Official split {split} of HMDB51; {unused:,} clips that it does not use were left out."]
    return listed_table(rows, root, _class_folders(lists, rows), "HMDB51", notes)


def _class_folders(lists: Path, rows: list[Listed]) -> list[Path]:
    """Where the folders of the classes lie, beside the official lists."""
    near, labels = folders_near(lists), {row.label for row in rows}
    return [folder for folder in near if any((folder / label).is_dir() for label in labels)] or near[:3]


def source_of(name: str, label: str) -> str:
    """The film of a clip: "April_09_brush_hair_u_nm_np1_ba_goo_0.avi" of brush_hair -> "April_09"."""
    film, found, _ = name.partition(f"_{label}_")
    return film if found else ""


# Kinetics and Moments in Time: CSV tables of clips, the videos in folders by split and class.
#
# Source: Kay et al. 2017, arXiv:1705.06950 (label,youtube_id,time_start,time_end,split; a clip is cut to
# LABEL/ID_000010_000020.mp4, or its whole video lies there as ID.mp4); Monfort et al. 2019, arXiv:1801.03150
# (trainingSet.csv: LABEL/FILE.mp4,LABEL,votes for,votes against; training/LABEL/FILE.mp4).
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
MOMENTS = {"trainingSet.csv": ("train", "training"), "validationSet.csv": ("val", "validation")}


def kinetics_tables(path: Path) -> list[Path]:
    """The tables with Kinetics' columns that ``path`` is or that lie in it (or in a folder annotations)."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".csv" and _has_columns(path) else []
    for folder in (path, path / "annotations"):
        if folder.is_dir() and (found := [t for t in sorted(folder.glob("*.csv")) if _has_columns(t)]):
            return found
    return []


def _has_columns(path: Path) -> bool:
    with path.open("rb") as stream:
        header = stream.readline(4096).decode("utf-8", "replace")
    names = {cell.strip().strip('"').casefold() for cell in header.split(",")}
    return set(KINETICS_COLUMNS[:3]) <= names


def read_kinetics(tables: list[Path], root: Path) -> ClipTable:
    """Read Kinetics' tables: trimmed clips, or parts of whole videos; the group is the video.

    Raises:
        DataError: a row without times, an unknown split, or no video is there (says how many are missing).
    """
    rows = [row for table in tables for row in _kinetics_rows(table)]
    bases = list(dict.fromkeys(base for table in tables for base in folders_near(table.parent)))
    return listed_table(rows, root, bases, "Kinetics")


def _kinetics_rows(table: Path) -> Iterator[Listed]:
    text = "\n".join(line for _, line in text_lines(table))
    for number, raw in enumerate(csv.DictReader(io.StringIO(text)), 2):
        row = {(key or "").strip().casefold(): (value or "").strip() for key, value in raw.items() if key}
        label, name = row.get("label", ""), row.get("youtube_id", "")
        if not label or not name:
            continue  # the test tables name no class
        word = row.get("split") or table.stem.split("_")[-1]
        split = split_name(word)
        if split is None:
            raise DataError(f"{table} line {number}: split {word!r} is none of train, val and test")
        try:
            start_s, end_s = float(row.get("time_start", "")), float(row.get("time_end", ""))
        except ValueError:
            raise DataError(f"{table} line {number}: time_start and time_end must be seconds") from None
        if not 0 <= start_s < end_s:
            raise DataError(f"{table} line {number}: time_end {end_s:g} is not after time_start {start_s:g}")
        trimmed = f"{name}_{int(start_s):06d}_{int(end_s):06d}.mp4"
        folders = [f"{word}/{label}/", f"{split}/{label}/", f"{label}/", f"{word}/", f"{split}/", ""]
        folders += [folder.replace(label, label.replace(" ", "_")) for folder in folders if label in folder]
        cut = tuple(dict.fromkeys(folder + trimmed for folder in folders))
        whole = tuple(dict.fromkeys(f"{folder}{name}.mp4" for folder in folders))
        yield Listed((*cut, *whole), label, name, split, start_s, end_s, whole)


def moments_tables(path: Path) -> list[Path]:
    """The tables of Moments in Time that ``path`` is or that lie in it."""
    if path.is_file():
        return [path] if path.name in MOMENTS else []
    return [path / name for name in MOMENTS if (path / name).is_file()]


def read_moments(tables: list[Path], root: Path) -> ClipTable:
    """Read the tables of Moments in Time; their clips are trimmed already, groups are not known.

    Raises:
        DataError: a row that is none, or no video is there (says how many are missing).
    """
    rows = []
    for table in tables:
        split, folder = MOMENTS[table.name]
        for number, line in text_lines(table):
            cells = next(csv.reader([line]))
            if len(cells) < 2 or "/" not in cells[0]:
                raise DataError(f"{table} line {number}: {line!r} is not LABEL/FILE.mp4,LABEL,...")
            rows.append(Listed((f"{folder}/{cells[0]}", cells[0]), cells[1], "", split))
    return listed_table(rows, root, [tables[0].parent], "Moments in Time")


# Something-Something and Jester: lists of numbered clips with labels, beside numbered videos or folders of frames.
#
# Source: Goyal et al. 2017, arXiv:1706.04261 (something-something-v2-train.json: id, label, template); Materzynska et
# al. 2019, "The Jester Dataset" (jester-v1-train.csv: id;label; a folder of frames 00001.jpg a clip). The class of a
# clip of Something-Something is its template, "Holding [something]" without the brackets.
NUMBERED_LIST = re.compile(
    r"(?:[\w.-]*(?:something|jester|20bn)[\w.-]*-)(train|training|val|validation|test)\.(json|csv)", re.I
)


def numbered_lists(path: Path) -> dict[str, Path]:
    """The lists by split that ``path`` is one of or that lie in it, or in its folder of labels or annotations."""
    folders = [path.parent] if path.is_file() else [path, path / "labels", path / "annotations"]
    if path.is_file() and not NUMBERED_LIST.fullmatch(path.name):
        return {}
    for folder in folders:
        found: dict[str, Path] = {}
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            match = NUMBERED_LIST.fullmatch(entry.name)
            if match and (split := split_name(match[1])):
                found[split] = entry
        if "train" in found or "val" in found:
            return found
    return {}


def read_numbered(lists: dict[str, Path], root: Path) -> ClipTable:
    """Read the lists; clips without a label (of a hidden test set) are left out.

    Raises:
        DataError: a list that is none, or no clip is there (says how many are missing).
    """
    rows: list[Listed] = []
    hidden = 0
    for split, path in lists.items():
        for name, label in _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path):
            if not label:
                hidden += 1
                continue
            rows.append(Listed((name,), label, "", split))
    folder = next(iter(lists.values())).parent
    notes = [f"{hidden:,} clips of the lists have no label and were left out."] if hidden else []
    what = "Jester" if any("jester" in path.name.casefold() for path in lists.values()) else "Something-Something"
    return listed_table(rows, root, folders_near(folder), what, notes)


def _json_rows(path: Path) -> list[tuple[str, str]]:
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) and "id" in item for item in found):
        raise DataError(f"{path}: expected a list of objects with id and template (or label)")
    return [(str(item["id"]), class_of(item)) for item in found]


def class_of(item: dict[str, Any]) -> str:
    """The class of a clip: its template without brackets, else its label, "" where it has neither."""
    return re.sub(r"[\[\]]", "", str(item.get("template") or item.get("label") or "")).strip()


def _csv_rows(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in text_lines(path):
        mark = ";" if ";" in line else ","
        cells = next(csv.reader([line], delimiter=mark))
        if number == 1 and not cells[0].strip().isdigit():
            continue  # a header
        rows.append((cells[0].strip(), cells[1].strip() if len(cells) > 1 else ""))
    return rows


# UCF101 with its official lists, and UCF11. The groups, recordings of one scene, stand in the names of the files.
#
# Both number the groups of each class from 1 to 25. The groups of a number are one group here, in whichever class: that
# is how UCF101's lists split them, and how UCF11 is evaluated (25 folds, each of which tests all classes).
#
# Source: Soomro et al. 2012, arXiv:1212.0402 (v_ApplyEyeMakeup_g08_c01.avi is clip 1 of group 8 of its class; three
# lists of train and test); Liu et al. 2009, "Recognizing Realistic Actions from Videos in the Wild" (UCF11:
# basketball/v_shooting_01/v_shooting_01_01.mpg).
UCF101_CLASSES = "classInd.txt"
UCF101_LIST = re.compile(r"(train|test)list0([123])\.txt")
UCF_FILE = re.compile(r"v_(\w+?)_g(\d+)_c\d+")
UCF11_FOLDER = re.compile(r"v_\w+_(\d\d)")


def ucf101_lists(path: Path) -> tuple[Path, int] | None:
    """The folder of the official lists and the number of the split, if ``path`` means them.

    A list itself ("testlist02.txt") means its split; the folder of the lists, or the one above, means split 1.
    """
    if path.is_file():
        found = UCF101_LIST.fullmatch(path.name)
        return (path.parent, int(found[2])) if found and (path.parent / UCF101_CLASSES).is_file() else None
    for folder in (path, *(entry for entry in visible(path) if entry.is_dir())):
        if (folder / UCF101_CLASSES).is_file() and (folder / "trainlist01.txt").is_file():
            return folder, 1
    return None


def read_ucf101(lists: Path, split: int, root: Path) -> ClipTable:
    """Read one of the three splits of UCF101.

    Raises:
        DataError: a list names a class that classInd.txt does not, or no video is there (says how many are missing).
    """
    known = {line.split(maxsplit=1)[-1] for _, line in text_lines(lists / UCF101_CLASSES)}

    def rows() -> Iterator[Listed]:
        for name in ("train", "test"):
            path = lists / f"{name}list0{split}.txt"
            for number, line in text_lines(path):
                video = line.split()[0]
                label, _, file = video.partition("/")
                if label not in known or not (match := UCF_FILE.match(file)):
                    raise DataError(
                        f"{path} line {number}: {video!r} is not CLASS/v_CLASS_g01_c01.avi of {UCF101_CLASSES}"
                    )
                yield Listed((video, file), label, f"g{match[2]}", name)

    listed = list(rows())
    note = f"Official split {split} of UCF101; for another give its list: {lists / f'testlist0{1 + split % 3}.txt'}"
    return listed_table(listed, root, _class_folders(lists, listed), "UCF101", (note,))


def is_ucf11(path: Path) -> bool:
    """Whether a folder's classes hold folders v_NAME_01 of groups, as UCF11's do."""
    classes = [entry for entry in visible(path) if entry.is_dir()]
    inside = [entry.name for folder in classes[:3] for entry in visible(folder) if entry.is_dir()]
    return bool(inside) and sum(bool(UCF11_FOLDER.fullmatch(name)) for name in inside) >= 0.5 * len(inside)


def read_ucf11(path: Path) -> ClipTable:
    """A folder per class with a folder per group: v_biking_01 and v_shooting_01 are both group 01.

    The folders of annotations are left out.
    """
    table = read_folders(path)
    clips = tuple(
        replace(clip, group=match[1]) if (match := UCF11_FOLDER.fullmatch(clip.group)) else clip for clip in table
    )
    skipped = tuple(item for item in table.skipped if Path(item[0]).name.casefold() != "annotation")
    notes = tuple(note for note in table.notes if ".xgtf" not in note)
    return replace(table, clips=clips, skipped=skipped, notes=notes)


def with_ucf_groups(table: ClipTable) -> ClipTable:
    """Groups from the names of the files, where all clips are called v_CLASS_g01_c01 and none has a group."""
    matches = [UCF_FILE.match(clip.path.name) for clip in table]
    if not matches or not all(matches) or any(clip.group for clip in table):
        return table
    clips = [replace(clip, group=f"g{match[2]}") for clip, match in zip(table, matches, strict=True) if match]
    return replace(table, clips=tuple(clips), notes=(*table.notes, "Groups were read from the names (g01, g02, ...)."))


def read_known(path: Path) -> ClipTable | None:
    """The table of a published data set, or None where ``path`` is none that is known.

    ``path`` is the folder of the lists, the one above it, or one of the lists, which also chooses among several splits.

    Raises:
        DataError: a list that makes no sense, or none of its videos is there.
    """
    root = path if path.is_dir() else path.parent
    if found := ucf101_lists(path):
        return read_ucf101(*found, root)
    if found := hmdb51_lists(path):
        return read_hmdb51(*found, root)
    if tables := kinetics_tables(path):
        return read_kinetics(tables, root)
    if tables := moments_tables(path):
        return read_moments(tables, root)
    if lists := numbered_lists(path):
        return read_numbered(lists, root)
    if twin_folders(path):
        return read_viva(path)
    return read_ucf11(path) if path.is_dir() and is_ucf11(path) else None
