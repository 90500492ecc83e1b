"""HTML out of small pieces that compose: what is not ``Html`` is escaped, always."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .text import NOTHING

_VOID = {"br", "img", "input", "link", "meta", "source", "col", "path", "line", "rect", "circle", "polyline"}


class Html(str):
    """Markup that stands as it is; any other string is text."""


def text(value: object) -> Html:
    """Markup of a value: ``Html`` as it is, None as a dash, all else as escaped text."""
    if isinstance(value, Html):
        return value
    return Html(NOTHING if value is None else escape(str(value)))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """One element: ``element("td", 3, class_="num", data_v=3)`` -> ``<td class="num" data-v="3">3</td>``.

    Attributes that are None or False are left out, True stands bare; an underscore is a hyphen. Elements that hold
    nothing (and SVG shapes without children) close themselves.
    """
    named = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID and not children:
        return Html(f"<{tag}{named}/>")
    return Html(f"<{tag}{named}>{''.join(text(child) for child in children)}</{tag}>")


def join(parts: Sequence[object], between: str = "") -> Html:
    """Pieces side by side."""
    return Html(text(between).join(text(part) for part in parts))


@dataclass(frozen=True)
class Section:
    """A titled part of a page; ``html`` is its body, ``lead`` one sentence that says how to read it."""

    title: str
    html: Html
    lead: str = ""

    @property
    def anchor(self) -> str:
        """The fragment that links to it: letters, digits and hyphens."""
        return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Column:
    """Head of a table column; ``kind`` is "text" or "number" (right-aligned, sorted from the largest)."""

    name: str
    kind: str = "text"


@dataclass(frozen=True)
class Cell:
    """What a table cell shows, and what it sorts by."""

    shown: object
    sort: float | str | None = None


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]], caption: str, sortable: bool = False) -> Html:
    """A table whose first column names the rows; it scrolls sideways on its own where the page is narrow.

    Cells are text, numbers, ``Html`` or ``Cell``. ``caption`` is read out, not shown.
    """
    head = element("tr", *(element("th", c.name, scope="col", class_=_css(c)) for c in columns))
    body = [
        element("tr", *(_cell(cell, column, i == 0) for i, (cell, column) in enumerate(zip(row, columns, strict=True))))
        for row in rows
    ]
    return scroller(
        element(
            "table",
            element("caption", caption, class_="unseen"),
            element("thead", head),
            element("tbody", *body),
            data_sortable=sortable,
        ),
        caption,
    )


def scroller(content: Html, label: str) -> Html:
    """A region that scrolls sideways by itself, by keyboard too."""
    return element("div", content, class_="scroll", role="region", tabindex=0, aria_label=label)


def figure(content: object, caption: object = "") -> Html:
    """A chart or picture with its caption below."""
    return element("figure", content, element("figcaption", caption) if caption else "")


def code(source: str, label: str) -> Html:
    """Text to copy: a titled box; the page's script adds the button."""
    return element(
        "figure",
        element("figcaption", label),
        element("pre", element("code", source), tabindex=0, aria_label=label),
        class_="code",
    )


_BREAK = re.compile(r"(?<=[/_])")


def breakable(name: str) -> Html:
    """A name that may go on in the next line behind its underscores and slashes."""
    return join(_BREAK.split(name), Html("<wbr/>"))


def folded(title: str, *content: object) -> Html:
    """What few readers need, behind a line that opens it."""
    return element("details", element("summary", title), *content, class_="fold")


def _cell(value: object, column: Column, names_row: bool) -> Html:
    cell = value if isinstance(value, Cell) else Cell(value)
    if names_row:
        return element("th", cell.shown, scope="row", data_v=cell.sort)
    return element("td", cell.shown, class_=_css(column), data_v=cell.sort)


def _css(column: Column) -> str | None:
    return "num" if column.kind == "number" else None
