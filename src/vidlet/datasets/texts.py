"""Text files and tables as people have them: any line end, UTF-8 or UTF-16, Excel's line "sep=;" before the header.

Everything is bounded before it is read, and whatever is wrong is one DataError that names the file.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, reading
from ..labels import composed

MOST_BYTES = 2**28  # of a table; Kinetics-700 has 40 MB
SNIFF_BYTES = 2**16
MOST_CLASSES = 1_000_000  # the largest vocabularies have some ten thousands
SEPARATORS = (",", ";", "\t", "|")
Row = tuple[int, list[str]]  # number of the (last) line, cells


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file: UTF-8 with or without a byte order mark, or UTF-16.

    Raises:
        DataError: absent, too large, or not such text.
    """
    with reading(path, "a file that can be read"):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if (size := path.stat().st_size) > most:
            raise DataError(f"{path}: {size:,} bytes of text, more than is read ({most:,})")
        data = path.read_bytes()
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif len(data) > 3 and not len(data) % 2 and 0 in data[:2] and data[:2] != b"\0\0":
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: not a text (zero bytes in it)")
    return text


def begins_with(path: Path, mark: bytes, words: Sequence[bytes]) -> bool:
    """Whether a file's text begins with a mark and names one of some words early: a look before all of it is read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(SNIFF_BYTES)
    except OSError:
        return False
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark) and any(word in head for word in words)


def json_of(path: Path) -> Any:
    """What a JSON file holds; read once as long as it does not change, and not to be changed by who asks.

    Raises:
        DataError: the file cannot be read as text, or is not JSON.
    """
    with reading(path, "a file that can be read"):
        status = path.stat()
    return _json(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _json(path: Path, size: int, changed: int) -> Any:
    with reading(path, "JSON"):
        return json.loads(read_text(path))


def text_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list that say something, with their numbers.

    Raises:
        DataError: the file cannot be read as text.
    """
    return [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]


def table_rows(path: Path, columns: Sequence[str] = ()) -> tuple[list[Row], str]:
    """The rows of a table that are not empty, its header among them, and what separates its cells.

    Args:
        columns: names that the header may hold; the separator is the one that finds most of them.

    Raises:
        DataError: not a table of cells.
    """
    whole = read_text(path)
    text = whole.lstrip("\r\n")
    blank = len(whole[: len(whole) - len(text)].splitlines())
    first, _, rest = text.partition("\n")
    told = first.strip().strip('"').casefold()
    skipped = blank
    if told.startswith("sep=") and len(told) <= 5:  # Excel's own first line
        separator = told[4:] or "\t"
        text, skipped = rest, blank + 1
    else:
        known = set(columns)
        separator = max(SEPARATORS, key=lambda mark: (sum(cell_key(c) in known for c in first.split(mark)), 0))
        if not known:
            separator = max(SEPARATORS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
        rows = [(reader.line_num + skipped, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(f"{path}: not a table of cells ({error})") from None
    return rows, separator


def cell_key(cell: str) -> str:
    """A column's name as it is compared: no quotes, no case."""
    return cell.strip().strip('"').strip().casefold()


class Names(NamedTuple):
    """Classes by their number, and what had to be assumed."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def numbered_names(path: Path) -> Names:
    """The names of a file of one name a line: line 1 is class 0, also behind an empty line.

    Raises:
        DataError: not text, or a name stands twice.
    """
    lines = [composed(line.strip()) for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    empty = [number for number, line in enumerate(lines) if not line]
    names = tuple(line or str(number) for number, line in enumerate(lines))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: class {twice[0]!r} stands twice")
    if not empty:
        return Names(names)
    many = f"{len(empty)} lines are" if len(empty) > 1 else f"line {empty[0] + 1} is"
    return Names(names, (f"{path.name}: {many} empty; such a class is called by its number ({empty[0]}).",))


def class_number(text: str, where: str) -> int:
    """A class's number.

    Raises:
        DataError: not a whole number, or beyond any vocabulary.
    """
    text = text.strip()
    if not text.isascii() or not text.isdecimal():
        raise DataError(f"{where}: class {text[:20]!r} is no number")
    if len(text) > 9 or int(text) >= MOST_CLASSES:
        raise DataError(f"{where}: class {text[:20]} is beyond {MOST_CLASSES:,} classes")
    return int(text)
