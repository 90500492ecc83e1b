"""The confusion matrix as a table that one can read, hover, normalize and cut down to chosen classes."""

import math
from collections.abc import Sequence

from .markup import Html, breakable, element, scroller
from .text import rate_text

MOST_CLASSES = 40  # more rows and columns than this are not looked at; those with the most mistakes are shown
SHADES = 10


def heat_map(
    counts: Sequence[Sequence[int]], names: Sequence[str], key: str = "confusion", most: int = MOST_CLASSES
) -> Html:
    """Counts (K, K), true classes as rows, shaded; in shares of the row (shown first) or in clips.

    The switch between the two works without a script; the choice of classes needs one and is hidden without. Of more
    than ``most`` classes, those with the most mistakes are shown. ``key`` tells several maps on a page apart.
    """
    shown = shown_classes(counts, most)
    rest = len(names) - len(shown)
    note = element("p", f"{len(shown)} of {len(names)} classes: those with the most mistakes.", class_="note")
    grid = scroller(_grid(counts, names, shown), "Confusion matrix")
    return element("div", *_switch(key), _filter(names, shown), note if rest else "", grid, class_="heat")


def shown_classes(counts: Sequence[Sequence[int]], most: int = MOST_CLASSES) -> list[int]:
    """Indices, ascending, of the ``most`` classes with the most clips missed or wrongly claimed."""
    missed = [sum(row) - row[i] for i, row in enumerate(counts)]
    claimed = [sum(row[i] for row in counts) - counts[i][i] for i in range(len(counts))]
    worst = sorted(range(len(counts)), key=lambda i: -(missed[i] + claimed[i]))
    return sorted(worst[:most])


def confused_pairs(counts: Sequence[Sequence[int]], most: int = 8) -> list[tuple[int, int, int]]:
    """(true class, predicted class, clips) of the commonest mistakes, most first."""
    pairs = [(i, j, clips) for i, row in enumerate(counts) for j, clips in enumerate(row) if i != j and clips]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:most]


def _switch(key: str) -> list[Html]:
    """Two radio buttons, siblings of the table, which the style sheet reads."""
    parts = []
    for mode, label in (("share", "% of the true class"), ("raw", "clips")):
        name = f"{key}-{mode}"
        parts.append(
            element("input", type="radio", name=f"{key}-mode", id=name, class_=f"pick {mode}", checked=mode == "share")
        )
        parts.append(element("label", label, for_=name))
    return parts


def _filter(names: Sequence[str], shown: Sequence[int]) -> Html:
    boxes = (
        element("label", element("input", type="checkbox", value=i, checked=True), " ", names[i], class_="choice")
        for i in shown
    )
    buttons = (
        element("button", label, type="button", data_choose=choose)
        for choose, label in (("all", "All"), ("none", "None"), ("mistakes", "Only with mistakes"))
    )
    return element(
        "details",
        element("summary", "Choose classes"),
        element("div", *buttons, class_="buttons"),
        element("div", *boxes, class_="choices"),
        class_="filter",
        data_filter=True,
        hidden=True,
    )


def _grid(counts: Sequence[Sequence[int]], names: Sequence[str], shown: Sequence[int]) -> Html:
    largest = max([1, *(counts[i][j] for i in shown for j in shown)])
    heads = (
        element("th", element("span", breakable(names[j])), scope="col", data_k=j, data_mistakes=_mistakes(counts, j))
        for j in shown
    )
    corner = element("td", "true ↓ \u2003 predicted →", class_="corner")
    rows = (
        element(
            "tr",
            element("th", breakable(names[i]), scope="row"),
            *(_cell(counts, names, i, j, largest) for j in shown),
            element("td", sum(counts[i]), class_="total"),
            data_k=i,
        )
        for i in shown
    )
    total = element("th", element("span", "clips"), scope="col", class_="total")
    return element(
        "table",
        element("caption", "Confusion matrix: true classes in rows, predicted classes in columns", class_="unseen"),
        element("thead", element("tr", corner, *heads, total)),
        element("tbody", *rows),
        class_="confusion",
    )


def _mistakes(counts: Sequence[Sequence[int]], k: int) -> int:
    return sum(counts[k]) + sum(row[k] for row in counts) - 2 * counts[k][k]


def _cell(counts: Sequence[Sequence[int]], names: Sequence[str], i: int, j: int, largest: int) -> Html:
    clips, whole = counts[i][j], sum(counts[i])
    if not clips:
        return element("td", class_="hit" if i == j else None)
    share = clips / whole
    told = f"{names[i]} → {names[j]}: {clips} of {whole} ({rate_text(share, 0)})"
    kind = "hit" if i == j else "miss"
    return element(
        "td",
        element("span", f"{share * 100:.0f}", class_="share"),
        element("span", clips, class_="raw"),
        class_=f"{kind} s{_shade(share, i == j)} r{_shade(clips / largest, i == j)}",
        title=told,
    )


def _shade(share: float, linear: bool) -> int:
    """1..SHADES; mistakes are drawn on a square-root scale, or the few would not be seen."""
    return max(1, math.ceil(SHADES * (share if linear else math.sqrt(share)) - 1e-9))
