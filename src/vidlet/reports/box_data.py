"""A page to look at images with boxes: how many of each class there are, how large, and some images with them drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..files import write_text
from .markup import Column, Html, Section, element, table
from .page import page
from .pictures import gallery


@dataclass(frozen=True, kw_only=True)
class BoxView:
    """Everything on the page.

    ``classes``: label -> boxes by split; ``sizes``: label -> (5 %, median, 95 %) of the square root of a box's share of
    its picture; ``pictures``: frames uint8 (H, W, 3) with boxes drawn, and a caption.
    """

    title: str
    summary: str
    splits: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    sizes: Mapping[str, tuple[float, float, float]]
    pictures: Sequence[tuple[NDArray[np.uint8], str]]
    remarks: Sequence[str] = ()


def write_box_view(path: str | os.PathLike[str], view: BoxView) -> None:
    """Write the page, whole or not at all."""
    header = element(
        "header",
        element("p", "vidlet data", class_="eyebrow"),
        element("h1", view.title),
        element("p", view.summary, class_="summary"),
        id="top",
    )
    remarks = element("ul", *(element("li", remark) for remark in view.remarks))
    sections = [
        Section(
            "Classes", _classes(view), "Boxes by split; a side is the square root of a box's share of its picture."
        ),
        Section("Pictures", gallery(view.pictures), "Spread evenly over the data, with every box that is used."),
        *([Section("Remarks", remarks)] if view.remarks else []),
    ]
    write_text(path, page(view.title, header, sections))


def _classes(view: BoxView) -> Html:
    columns = [Column("Class"), *(Column(split or "no split", "number") for split in view.splits),
               Column("Boxes", "number"), Column("Side, 5 %", "number"), Column("median", "number"),
               Column("95 %", "number")]  # fmt: skip
    rows: list[list[object]] = []
    for label, counts in view.classes.items():
        sides = [f"{side:.0%}" for side in view.sizes.get(label, ())] or ["", "", ""]
        rows.append(
            [label, *(f"{counts.get(split, 0):,}" for split in view.splits), f"{sum(counts.values()):,}", *sides]
        )
    return table(columns, rows, "Boxes of each class", sortable=True)
