"""Class names: how a cell names them, their order, and what may not stand side by side."""

import re
import unicodedata
from collections.abc import Iterable

from .errors import DataError

WHOLE = re.compile(r"0*(\d+)(?:\.0+)?")  # a whole number, however it is written
# Characters that nobody sees and that come along when names are copied: spaces of no width, marks of byte order and
# direction. (Joiners stay: they make one emoji or letter of several.)
UNSEEN = dict.fromkeys((0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF))


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which names are compared: "e" and an accent are one "é".

    Characters that nobody sees are left out. What no terminal and no file of text should get (controls, halves of
    characters) is written as its escape.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFC", name).translate(UNSEEN)
    return name if name.isprintable() else "".join(map(_visible, name))


def _visible(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")


def split_labels(cell: str) -> tuple[str, ...]:
    """Names in a table cell, separated by ``|``, without blanks and repetitions: "run| jump" -> ("run", "jump").

    A bar with a backslash before it belongs to a name; see ``join_labels``.
    """
    return tuple(dict.fromkeys(name for part in label_parts(cell) if (name := part.strip())))


def label_parts(cell: str) -> list[str]:
    """What stands between the bars of a cell, as it stands there."""
    return cell.split("|") if "\\" not in cell else _ENDS.sub(_read, cell).split(_BETWEEN)


def join_labels(names: Iterable[str]) -> str:
    """Names as one cell, from which ``split_labels`` reads them again: ("a|b", "c") -> "a\\|b|c".

    Backslashes at the end of a name or before its bars are doubled.
    """
    return "|".join(_ENDS.sub(_written, name) for name in names)


_ENDS = re.compile(r"(\\*)(\||\Z)")  # backslashes that mean something: those before a bar or at the end
_BETWEEN = "\0"


def _written(end: re.Match[str]) -> str:
    return 2 * end[1] + ("\\|" if end[2] else "")


def _read(end: re.Match[str]) -> str:
    odd = len(end[1]) % 2
    if end[2]:
        return end[1][: len(end[1]) // 2] + ("|" if odd else _BETWEEN)
    return end[1][: len(end[1]) // 2 + odd]


def label_order(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Sort class names into the model's output order.

    Raises:
        DataError: two names differ only in upper and lower case (one class, most likely, and one folder on some
            file systems), or are one number, as "1" and "1.0" in tables that a program wrote in parts.
    """
    order = tuple(sorted(set(names)))
    seen: dict[str, str] = {}
    for name in order:
        number = WHOLE.fullmatch(name)
        folded = number[1] if number else name.casefold()
        if folded in seen:
            how = "are the same number" if number else "differ only in upper and lower case"
            raise DataError(f"{where}: classes {seen[folded]!r} and {name!r} {how}")
        seen[folded] = name
    return order
