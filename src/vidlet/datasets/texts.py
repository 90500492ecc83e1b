"""Text files and tables as people have them: any line end, UTF-8 or UTF-16, Excel's line "sep=;" before the header.

Everything is bounded before it is read, and whatever is wrong is one DataError that names the file.
"""

from __future__ import annotations

import csv
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, DependencyError, reading
from ..labels import composed, join_labels
from ..wording import how_to_install

MOST_BYTES = 2**28  # of a table; Kinetics-700 has 40 MB
SNIFF_BYTES = 2**16
MOST_CLASSES = 1_000_000  # the largest vocabularies have some ten thousands
MOST_ROWS = 10_000_000  # of a Parquet file
TABLE_NAMES = ("clips.csv", "clips.parquet")
TABLES = (".csv", ".tsv", ".txt", ".parquet")  # files of rows
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_UNREAD = re.compile("struct|binary|map")  # types of columns
PARQUET, PARQUET_ROWS = ".parquet", 8192  # rows that are texts in memory at a time
SEPARATORS = (",", ";", "\t", "|")
NUMBERED = re.compile(r"(\d{1,7})(?:\s*[:,=]\s*|\s+)(\S.*)")  # a line of names that tells its number
Row = tuple[int, list[str]]  # number of the (last) line, cells


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file: UTF-8 with or without a byte order mark, or UTF-16.

    Raises:
        DataError: absent, too large, or not such text.
    """
    encoding = _encoding(path, most)
    with reading(path, "a file that can be read"):
        data = path.read_bytes()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: not a text (zero bytes in it)")
    return text


def _encoding(path: Path, most: int) -> str:
    """How a text is written, by its first bytes.

    Raises:
        DataError: absent, or too large.
    """
    with reading(path, "a file that can be read"):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if (size := path.stat().st_size) > most:
            raise DataError(f"{path}: {size:,} bytes of text, more than is read ({most:,})")
        with path.open("rb") as handle:
            head = handle.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) > 3 and not size % 2 and 0 in head[:2] and head[:2] != b"\0\0":
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def _lines_as_written(path: Path) -> Iterator[str]:
    """The lines of a text with their ends, one at a time.

    Raises:
        DataError: as ``read_text``, when it is seen.
    """
    encoding = _encoding(path, MOST_BYTES)
    with reading(path, "a file that can be read"), path.open(encoding=encoding, newline="") as handle:
        try:
            for line in handle:
                if "\0" in line:
                    raise DataError(f"{path}: not a text (zero bytes in it)")
                yield line
        except UnicodeDecodeError:
            read_text(path)  # says which byte
            raise


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a text, without their ends: a look before all of it is read.

    Raises:
        DataError: as ``read_text``, of what was looked at.
    """
    return [line.rstrip("\r\n") for line in islice(_lines_as_written(path), count)]


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
    rows, separator = stream_rows(path, columns)
    return list(rows), separator


def stream_rows(path: Path, columns: Sequence[str] = ()) -> tuple[Iterator[Row], str]:
    """``table_rows`` as they are read: of a text or a Parquet file, of which only some rows are in memory at a time.

    Rows of Parquet are numbered from 1, its header has number 0. Columns of structures and of bytes have no cells.

    Raises:
        DataError: not a table of cells, here or at the row where that is seen.
    """
    if path.suffix.lower() == PARQUET:
        return _parquet_rows(path), ","
    lines = _lines_as_written(path)
    blank, first = 0, ""
    for first in lines:
        if first.strip("\r\n"):
            break
        blank += 1
    told = first.strip().strip('"').casefold()
    if told.startswith("sep=") and len(told) <= 5:  # Excel's own first line
        return _cells(path, lines, told[4:] or "\t", blank + 1), told[4:] or "\t"
    known = set(columns)
    separator = max(SEPARATORS, key=lambda mark: (sum(cell_key(c) in known for c in first.split(mark)), 0))
    if not known:
        separator = max(SEPARATORS, key=first.count)
    return _cells(path, chain([first], lines), separator, blank), separator


def _cells(path: Path, lines: Iterable[str], separator: str, skipped: int) -> Iterator[Row]:
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
        for cells in reader:
            if cells and (cells[0].strip() or any(cell.strip() for cell in cells)):
                yield reader.line_num + skipped, cells
    except csv.Error as error:
        raise DataError(f"{path}: not a table of cells ({error})") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    """Header and rows of a Parquet file as texts; a list is written a|b."""
    with reading(path, "a Parquet file"):
        opened = parquet_file(path)
        fields = list(opened.schema_arrow)
        wanted = [at for at, field in enumerate(fields) if not _UNREAD.search(str(field.type))]
        names = [fields[at].name for at in wanted]
        yield 0, names
        number, twice = 0, len({field.name for field in fields}) < len(fields)  # by names those cannot be chosen
        for batch in opened.iter_batches(columns=None if twice else names, batch_size=PARQUET_ROWS):
            read = [batch.column(at) for at in wanted] if twice else [batch.column(name) for name in names]
            for cells in zip(*map(_texts, read), strict=True):
                number += 1
                if any(cells) and any(cell.strip() for cell in cells):
                    yield number, list(cells)


def parquet_file(path: Path) -> Any:
    """A Parquet file, opened.

    Raises:
        DataError: it is none, or has more rows than are read; DependencyError: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(f"{path}: Parquet needs pyarrow; {how_to_install('train')}") from error
    with reading(path, "a Parquet file"):
        opened = parquet.ParquetFile(path)
    if opened.metadata.num_rows > MOST_ROWS:
        raise DataError(f"{path}: {opened.metadata.num_rows:,} rows, more than are read ({MOST_ROWS:,})")
    return opened


def _texts(column: Any) -> list[str]:
    """The cells of an Arrow column as a table of text would have them."""
    import pyarrow

    kind = column.type
    if kind == pyarrow.float32():  # whose numbers are longer as Python's
        return ["" if value is None else str(np.float32(value)) for value in column.to_pylist()]
    if pyarrow.types.is_timestamp(kind):  # Python has no nanoseconds, and perhaps not this zone of time
        column = column.cast(pyarrow.timestamp("us"), safe=False)
    elif pyarrow.types.is_duration(kind):
        column = column.cast(pyarrow.duration("us"), safe=False)
    elif pyarrow.types.is_time64(kind):
        column = column.cast(pyarrow.time64("us"), safe=False)
    return [value if isinstance(value, str) else cell_text(value) for value in column.to_pylist()]


def cell_text(value: Any) -> str:
    """A value of a typed table as a cell of a text: a list is a|b, nothing is ""."""
    if isinstance(value, list):
        return join_labels(map(cell_text, value))
    return "" if value is None or isinstance(value, dict) else str(value)


def cell_key(cell: str) -> str:
    """A column's name as it is compared: no quotes, no case."""
    return cell.strip().strip('"').strip().casefold()


class Names(NamedTuple):
    """Classes by their number, and what had to be assumed."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    first: int = 0  # the number of the first one, where the file numbers them


def numbered_names(path: Path) -> Names:
    """The names of a file of one name a line: line 1 is class 0, also behind an empty line.

    Where every line begins with a number ("0 cat", "1: dog"), and these are 0, 1, 2 ... or 1, 2, 3 ... in any order,
    they are the order of the names and no part of them.

    Raises:
        DataError: not text, not a name a line, or a name stands twice.
    """
    lines = [composed(line.strip()) for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    wrong = next((n for n, line in enumerate(lines, 1) if line.startswith(("# ", "{", "[")) or line.endswith("{")), 0)
    if wrong:
        raise DataError(f"{path} line {wrong}: {lines[wrong - 1][:60]!r} is no name of a class; a name a line is read")
    pairs = [(int(match[1]), match[2]) for line in lines if (match := NUMBERED.fullmatch(line))]
    first = min((number for number, _ in pairs), default=0)
    if len(pairs) == len(lines) > 1 and first < 2 and {n for n, _ in pairs} == set(range(first, first + len(lines))):
        note = f"{path.name}: its lines are numbered from {first}; the numbers are the order of the names."
        return Names(tuple(name for _, name in sorted(pairs)), (note,), first)
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
