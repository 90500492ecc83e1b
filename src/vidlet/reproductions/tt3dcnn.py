"""Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition": its tables, every count recomputed.

The counts come from our networks (models/clip_tables.py), built without memory for their weights. The paper counts
weights without biases and normalization, in 10^6. Its storage is no model size: it fits 12 bytes for each parameter,
biases included, in MiB, which is a checkpoint of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..models.clip_networks import ClipNetwork3d, count_weights
from ..models.clip_tables import CLIP_NETWORKS
from ..tensor_train import conv_ranks
from .rows import Row, ratio, row, table

if TYPE_CHECKING:
    from .experiment import Effort

GESTURES = 19  # of VIVA
FORMS = {"dense": "none", "TT": "both"}
CHECKPOINT = 12  # bytes a parameter that the printed storage fits: the weight and two numbers of the optimizer
MIB = 2**20

# Printed of each network, dense and TT: accuracy, its spread, storage, convolutions and whole in 10^6; then the ratio.
Printed = tuple[float, float, float, float, float]
VIVA: dict[str, tuple[Printed, Printed, float, float]] = {
    "viva-1": ((78.61, 2.05, 26.3, 0.07, 2.3), (71.75, 1.46, 2.23, 0.015, 0.2), 11.5, 6.86),
    "viva-2": ((80.12, 2.01, 155, 0.2, 13.6), (74.28, 2.17, 3.29, 0.015, 0.29), 46.9, 5.84),
    "viva-3": ((81.13, 2.01, 184, 2.75, 16.03), (77.67, 1.75, 5.28, 0.13, 0.46), 34.85, 3.46),
    "viva-4": ((80.20, 2.85, 836, 3.9, 73.12), (80.78, 2.61, 15.6, 0.23, 1.36), 53.8, -0.58),
    "viva-5": ((81.47, 1.19, 970, 4.79, 84.8), (81.83, 0.76, 5.41, 0.25, 0.47), 180.4, -0.36),
}
# Storage, convolutions and whole in 10^6 of both streams, dense and TT; the ratio.
UCF = {
    11: ((1009.57, 4.95, 88.17), (9.9, 0.36, 0.82), 107.5),
    101: ((1011.68, 4.95, 88.36), (12, 0.36, 1.01), 87.5),
}
UCF_ACCURACY = {
    "UCF11, k-fold, dense": (93.78, 1.09),
    "UCF11, k-fold, TT": (93.56, 1.16),
    "UCF11, leave one group out, dense": (83.72, None),
    "UCF11, leave one group out, TT": (83.81, None),
    "UCF101, dense": (78.38, 0.37),
    "UCF101, TT": (77.86, 0.51),
}
OTHERS = {
    "VIVA, dense trajectories": 54, "VIVA, HON4D": 58.7, "VIVA, HOG+HOG2": 64.5, "VIVA, multi-resolution 3-D CNN": 77.5,
    "UCF11, Fisher vector (leave one group out)": 93.77, "UCF11, local motion": 88.0,
    "UCF11, visual attention (k-fold)": 85.0, "UCF11, TT-GRU": 81.3, "UCF11, BT-LSTM": 85.3, "UCF11, TR-LSTM": 86.9,
    "UCF101 from scratch, C3D": 44, "UCF101 from scratch, 3DConvNet": 79.9, "UCF101 from scratch, 3D ResNet-18": 42.4,
    "UCF101 from scratch, MiCT": 58.7, "UCF101 from scratch, LTC": 80.5,
}  # fmt: skip
# Parts of VIVA-1 in tensor-train form: accuracy, spread, convolutions and whole in 10^6, ratio.
PARTS: dict[str, tuple[str, float, float, float, float, float | None]] = {
    "none": ("none", 78.61, 2.05, 0.07, 2.3, None),
    "fully connected": ("linear", 72.97, 1.78, 0.07, 0.25, 9.2),
    "convolutions": ("convolutions", 72.58, 0.68, 0.015, 2.25, 1.02),
    "both": ("both", 71.75, 1.46, 0.015, 0.2, 11.5),
}
# Modes of the trains of the rank study's networks on CIFAR-10.
STUDY = {
    "CNN-1, 64-64": ((4, 4, 4), (4, 4, 4)),
    "CNN-1, 64-128": ((4, 4, 4), (4, 8, 4)),
    "CNN-1, 128-128": ((4, 8, 4), (8, 4, 4)),
    "CNN-2, 64-64": ((4, 4, 4), (4, 4, 4)),
    "CNN-2, 256-256": ((4, 4, 4, 4), (4, 4, 4, 4)),
}


def tables() -> dict[str, Any]:
    """The paper's tables, printed and recomputed. Accuracies and their spreads are fractions."""
    return {"tables": [_study(), _viva(), _ucf(), _others(), _parts(), _text()]}


MEASURED: dict[
    str, tuple[str, dict[str, Any]]
] = {  # the networks that two cores train, and what the rows of table 2 call them
    "VIVA-1 dense": ("viva-1", {}),
    "VIVA-1 TT": ("viva-1-tt", {}),
    "VIVA-2 dense": ("viva-2", {}),
    "VIVA-2 TT": ("viva-2-tt", {}),
}


def measure(tables: Sequence[dict[str, Any]], data: str, effort: Effort, log: Path) -> int:
    """Train VIVA-1 and VIVA-2, dense and TT, on clips and fill in what was measured; returns how many were scored.

    Their recipes: 32 frames of 62 x 28, intensity and Sobel (no depth in a video). Bytes are those of the whole file.
    """
    from .experiment import fill, measured, run_recipes

    runs = run_recipes(MEASURED, data, effort, log)
    figures: dict[str, float] = {}
    of = {name: measured(found) for name, found in runs.items()}
    for name, values in of.items():
        figures[f"{name}: accuracy"] = values["accuracy"]
        figures[f"{name}: all parameters in float32"] = values["bytes"]
        if "spread" in values:
            figures[f"{name}: spread of the accuracy"] = values["spread"]
    for network in ("VIVA-1", "VIVA-2"):
        dense, train = of[f"{network} dense"], of[f"{network} TT"]
        figures[f"{network}: lost by TT"] = round(dense["accuracy"] - train["accuracy"], 4)
    figures |= {"none: accuracy": of["VIVA-1 dense"]["accuracy"], "both: accuracy": of["VIVA-1 TT"]["accuracy"]}
    fill(tables, figures)
    return int(runs["VIVA-1 dense"][0]["scored"])


def parameters(name: str, classes: int, form: str = "none") -> int:
    """All parameters of a network, biases and normalization included."""
    with torch.device("meta"):
        network = ClipNetwork3d(name, (3, *CLIP_NETWORKS[name].size), classes, form=form)
    return sum(p.numel() for p in network.parameters())


def _study() -> dict[str, Any]:
    rows = [row(f"{name}: rank of the rule", "rank", 16, max(conv_ranks(*modes))) for name, modes in STUDY.items()]
    return table("Table 1: rank study on CIFAR-10 (the gain slows after the rule's rank)", rows)


def _viva() -> dict[str, Any]:
    rows: list[Row] = []
    for name, (dense, train, times, lost) in VIVA.items():
        for (text, form), (accuracy, spread, storage, convolutions, whole) in zip(
            FORMS.items(), (dense, train), strict=True
        ):
            where = f"{name.upper()} {text}"
            rows += _accuracy(where, accuracy, spread)
            rows += _counts(where, count_weights(name, GESTURES, form), convolutions, whole)
            rows += _sizes(where, parameters(name, GESTURES, form), storage)
        whole_counts = [count_weights(name, GESTURES, form)[1] for form in FORMS.values()]
        rows.append(row(f"{name.upper()}: dense / TT", "times", times, ratio(whole_counts[0], whole_counts[1])))
        rows.append(row(f"{name.upper()}: lost by TT", "accuracy", _fraction(lost)))
    return table("Table 2: VIVA, 19 gestures (16.03 of VIVA-3 is probably a misprint)", rows)


def _ucf() -> dict[str, Any]:
    rows: list[Row] = []
    for name, (accuracy, spread) in UCF_ACCURACY.items():
        rows += _accuracy(name, accuracy, spread)
    for classes, (dense, train, times) in UCF.items():
        wholes = []
        for (text, form), (storage, convolutions, whole) in zip(FORMS.items(), (dense, train), strict=True):
            where = f"UCF{classes} {text}"
            one = count_weights("ucf", classes, form)
            both = (2 * one[0], 2 * one[1])  # two streams of the same layers
            rows += _counts(where, both, convolutions, whole)
            rows += _sizes(where, 2 * parameters("ucf", classes, form), storage)
            wholes.append(both[1])
        rows.append(row(f"UCF{classes}: dense / TT", "times", times, ratio(wholes[0], wholes[1])))
    return table("Table 3: the two-stream network, RGB and flow together", rows)


def _others() -> dict[str, Any]:
    rows = [row(name, "accuracy", _fraction(percent)) for name, percent in OTHERS.items()]
    return table("Table 4: others' accuracies", rows)


def _parts() -> dict[str, Any]:
    rows: list[Row] = []
    everything = count_weights("viva-1", GESTURES)[1]
    for text, (form, accuracy, spread, convolutions, whole, times) in PARTS.items():
        counts = count_weights("viva-1", GESTURES, form)
        rows += _accuracy(text, accuracy, spread) + _counts(text, counts, convolutions, whole)
        if times is not None:
            rows.append(row(f"{text}: dense / this", "times", times, ratio(everything, counts[1])))
    return table("Table 5: parts of VIVA-1 in tensor-train form", rows)


def _text() -> dict[str, Any]:
    rows = [row("share kept by dropout on TT VIVA-3 that is best", "fraction", 0.7)]
    for text, form in FORMS.items():
        rows += _counts(f"VIVA-2 of 3x3x3 stacks (one reading), {text}", count_weights("viva-2-stacks", 19, form))
    return table("In the text", rows)


def _accuracy(where: str, percent: float, spread: float | None) -> list[Row]:
    rows = [row(f"{where}: accuracy", "accuracy", _fraction(percent))]
    return rows if spread is None else [*rows, row(f"{where}: spread of the accuracy", "accuracy", _fraction(spread))]


def _counts(
    where: str, counts: tuple[int, int], convolutions: float | None = None, whole: float | None = None
) -> list[Row]:
    return [
        row(f"{where}: weights of the convolutions", "10^6", convolutions, counts[0] / 1e6),
        row(f"{where}: weights of the whole", "10^6", whole, counts[1] / 1e6),
    ]


def _sizes(where: str, count: int, storage: float) -> list[Row]:
    return [
        row(f"{where}: storage, at {CHECKPOINT} bytes a parameter", "MiB", storage, round(CHECKPOINT * count / MIB, 2)),
        row(f"{where}: all parameters in float32", "bytes", None, 4 * count),
    ]


def _fraction(percent: float) -> float:
    return round(percent / 100, 6)
