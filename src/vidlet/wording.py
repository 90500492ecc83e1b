"""How what comes from outside is shown: names without control characters, addresses without passwords, plain JSON.

A label, a file's name or a model's metadata may hold anything; a terminal obeys escape sequences, a spreadsheet runs
cells that begin a formula, and a log keeps a camera's password. These few functions stand wherever something is said.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

HIDDEN = "***"
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:/{1,2})[^/\s'\"]*@")
_SECRET = re.compile(
    r"(?i)([?&;/_!](?:user|usr|username|login|pass|passwd|password|pwd|token|access_token|key|api_?key|apikey|auth|secret"
    r"|sig|signature|session|sid)=)[^&;/\s'\"]*?(?=_(?:user|pass|pwd|channel|stream)|[&;/\s'\"#]|$)"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # as spreadsheets begin one


def how_to_install(extra: str = "") -> str:
    """The command that installs vidlet, with an extra. It is in no package index yet, so that only a clone has it."""
    return f"in a clone of vidlet, pip install '.[{extra}]'" if extra else "in a clone of vidlet, pip install ."


def redact(text: str) -> str:
    """The text with user and password of every address in it replaced: rtsp://***@10.0.0.1/x?token=***."""
    if ":/" not in text:
        return text
    return _SECRET.sub(rf"\g<1>{HIDDEN}", _LOGIN.sub(rf"\g<1>{HIDDEN}@", text))


def shown(text: object) -> str:
    """The text on one line of a terminal: control characters, overrides of direction and halves of pairs as escapes."""
    return redact("".join(_escaped(letter) for letter in str(text)))


def shown_lines(text: str) -> str:
    """The same for text whose line breaks and tabs are meant."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return redact(text)
    return redact("".join(letter if letter in "\n\t" else _escaped(letter) for letter in text))


def _escaped(letter: str) -> str:
    """C0 and C1 controls, formats such as U+202E, surrogates and separators of lines as Python writes them."""
    if letter.isascii():
        return letter if letter.isprintable() else repr(letter)[1:-1]
    joins = letter in "\u200c\u200d"  # two formats without which words of some scripts and emoji fall apart
    return (
        repr(letter)[1:-1] if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not joins else letter
    )


def notebook_table(rows: Iterable[Sequence[object]]) -> str:
    """A small table as a notebook shows it; the first cell of each row is its name."""
    texts = ([escape(shown(value)) for value in row] for row in rows)
    lines = (f"<tr><th>{name}</th>{''.join(f'<td>{text}</td>' for text in more)}</tr>" for name, *more in texts)
    return f"<table>{''.join(lines)}</table>"


def cell(value: object) -> object:
    """A value for a CSV that people open in a spreadsheet: a text that would begin a formula gets an apostrophe."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text.strip()) is not None


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON that every reader takes: what is not finite is null, addresses have no passwords."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """NumPy numbers, paths and mappings as JSON has them; what is no number there is None."""
    if isinstance(value, Mapping):
        return {redact(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return redact(str(value))
