"""One module a seed paper: its recipes, its tables, what we get beside what it printed.

A module has ``tables()``; it is imported when it is asked for.
"""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """What a paper is, and the built-in recipes that follow it."""

    title: str
    recipes: tuple[str, ...] = ()


PAPERS = {  # each is the module of this name
    "youtube8m": Paper("Liu & Liu 2018: size-constrained gated NetVLAD models for YouTube-8M"),
    "deepeye": Paper(
        "Cheng et al.: DEEPEYE, an 8-bit tiny-YOLOv2 and a tensor-train LSTM in one pass",
        ("tiny-yolov2", "lstm-pixels", "tt-lstm-pixels", "deepeye"),
    ),
    "tt3dcnn": Paper(
        "Wang et al.: 3-D CNNs compressed by tensor-train decomposition",
        (
            "viva-1",
            "viva-1-tt",
            "viva-2",
            "viva-2-tt",
            "viva-4",
            "viva-4-tt",
            "ucf-rgb",
            "ucf-rgb-tt",
            "ucf-flow",
            "ucf-flow-tt",
        ),
    ),
    "mobile": Paper(
        "Chiche 2019: MobileNetV2 and Inception-v3 with recurrent classifiers on UCF101",
        tuple(
            f"{extractor}-{head}" for extractor in ("mobilenetv2", "inceptionv3") for head in ("gru", "lstm", "single")
        ),
    ),
}


EXPERIMENTS = ("youtube8m", "tt3dcnn", "deepeye", "mobile")  # these have ``measure(tables, data, effort, log)``
