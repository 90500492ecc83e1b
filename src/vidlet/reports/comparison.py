"""The sections that set two files beside each other: class by class, and the clips on which they disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .markup import Cell, Column, Html, Section, element, join, table
from .pictures import moving_picture
from .text import points_interval, points_text, rate_text

FIGURES = {"precision": "Precision", "recall": "Recall", "f1": "F1"}


@dataclass(frozen=True)
class Disagreement:
    """A clip that two files name differently; ``frames`` uint8 (T, H, W, 3) where it is to be shown."""

    name: str
    label: str
    predicted: str
    score: float
    against_predicted: str
    against_score: float
    frames: NDArray[np.uint8] | None = None
    fps: float = 8.0

    @property
    def right(self) -> str:
        """Who names it rightly: "model", "against" or "neither"."""
        named = {self.predicted: "model", self.against_predicted: "against"}
        return named.get(self.label, "neither")


def class_differences(found: Mapping[str, Any], model: str, against: str) -> Section:
    """Figures of every class of both files, and the interval of their difference; ``found``: comparison_summary's."""
    columns = [Column("Class")]
    for title in FIGURES.values():
        columns += [Column(f"{title}, {model}", "number"), Column(against, "number"), Column("Difference, points")]
    rows = [[name, *_cells(figures)] for name, figures in found["per_class"].items()]
    sure = [
        name
        for name, figures in found["per_class"].items()
        if figures["f1"]["low"] is not None and (figures["f1"]["low"] > 0 or figures["f1"]["high"] < 0)
    ]
    told = f"The interval of F1 leaves 0 out in {len(sure)} of {len(rows)} classes: {', '.join(sure)}. " if sure else ""
    lead = (
        f"{model} minus {against}, with 95 % intervals of the difference (paired bootstrap over groups). {told}"
        "One class of twenty is expected outside by chance alone."
    )
    return Section("Classes compared", table(columns, rows, "Figures of both files by class", sortable=True), lead)


def _cells(figures: Mapping[str, Mapping[str, float | None]]) -> list[object]:
    cells: list[object] = []
    for key in FIGURES:
        row = figures[key]
        interval = points_interval(row["low"], row["high"])
        cells += [Cell(rate_text(row["model"]), row["model"]), Cell(rate_text(row["against"]), row["against"])]
        cells.append(Cell(join([points_text(row["difference"]), element("small", interval)]), row["difference"]))
    return cells


def disagreements(
    clips: Sequence[Disagreement], counts: Mapping[str, Any], model: str, against: str, most: int = 200
) -> Section | None:
    """The clips that the files name differently, the shown ones as moving pictures, up to ``most`` in a table."""
    if not clips:
        return None
    cards = [_card(clip, model, against) for clip in clips if clip.frames is not None]
    columns = [Column("Clip"), Column("Is"), Column(model), Column(against), Column("Right")]
    right = {"model": model, "against": against, "neither": "neither"}
    rows = [
        [c.name, c.label, _said(c.predicted, c.score), _said(c.against_predicted, c.against_score), right[c.right]]
        for c in clips[:most]
    ]
    left = f" The first {most} of {len(clips)} are listed." if len(clips) > most else ""
    lead = (
        f"Both are right on {counts['both']} clips, only {model} on {counts['only']}, only {against} on "
        f"{counts['only_against']}, neither on {counts['neither']}.{left}"
    )
    body = [element("ul", *cards, class_="cards")] if cards else []
    body.append(table(columns, rows, "Clips that the files name differently", sortable=True))
    return Section("Where they disagree", join(body), lead)


def _card(clip: Disagreement, model: str, against: str) -> Html:
    assert clip.frames is not None
    told = f"{clip.name}: {clip.label}; {model} says {clip.predicted}, {against} says {clip.against_predicted}"
    return element(
        "li",
        moving_picture(clip.frames, told, clip.fps),
        element("p", element("b", clip.label)),
        *(
            element("p", f"{name}: ", element("b", said, class_=None if said == clip.label else "wrong"), f" {score}")
            for name, said, score in (
                (model, clip.predicted, rate_text(clip.score, 0)),
                (against, clip.against_predicted, rate_text(clip.against_score, 0)),
            )
        ),
        element("p", clip.name, class_="path"),
    )


def _said(name: str, score: float) -> str:
    return f"{name} {rate_text(score, 0)}"
