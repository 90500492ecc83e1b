"""Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition": its tables, every count recomputed.

The counts come from our networks (models/clip_tables.py), built without memory for their weights. The paper counts
weights without biases and normalization, in 10^6. Its storage is no model size: it fits 12 bytes for each parameter,
biases included, in MiB, which is a checkpoint of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..models.clip_networks import ClipNetwork3d, count_weights
from ..models.clip_tables import CLIP_NETWORKS
from ..tensor_train import conv_ranks
from .rows import Row, ratio, row, table

if TYPE_CHECKING:
    from .experiment import Effort
    from .protocol import Case

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


SMALLER = {"extractor.input_size", "head.options.frames", "head.options.fitted"}  # change a network's layers


def measure(tables: list[dict[str, Any]], data: str, effort: Effort, log: Path) -> int:
    """Train the 3-D CNNs on clips and fill in what was measured; returns how many were scored. Bytes are of files.

    Quick: VIVA-1 and VIVA-2, dense and TT, by their recipes: 32 frames of 62 x 28, intensity and Sobel (a video has no
    depth). The paper's protocol: see ``cases``.
    """
    from .experiment import fill, measured, run_recipes
    from .protocol import over_folds, run_cases

    if effort.protocol == "paper":
        runs = run_cases(cases(Path(data)), data, effort, log)
        of = {name: over_folds(found) for name, found in runs.items()}
        tables.append(_beside(runs))
    else:
        runs = run_recipes(MEASURED, data, effort, log)
        of = {name: measured(found) for name, found in runs.items()}
    figures: dict[str, float] = {}
    names = {row["name"] for table in tables for row in table["rows"]}
    whole = not effort.overrides.keys() & SMALLER  # else the bytes are of another network
    for name, values in of.items():
        own = {
            f"{name}: accuracy": values["accuracy"],
            f"{name}: spread of the accuracy": values.get("spread"),
            f"{name}: all parameters in float32": values["bytes"] if whole else None,
        }
        figures |= {key: value for key, value in own.items() if value is not None and key in names}
    for network in (name.upper() for name in VIVA):
        if {f"{network} dense", f"{network} TT"} <= set(of):
            lost = of[f"{network} dense"]["accuracy"] - of[f"{network} TT"]["accuracy"]
            figures[f"{network}: lost by TT"] = round(lost, 4)
    for part, name in {"none": "VIVA-1 dense", "both": "VIVA-1 TT"}.items():  # table 5 has these two once more
        if name in of:
            figures[f"{part}: accuracy"] = of[name]["accuracy"]
            if "spread" in of[name]:
                figures[f"{part}: spread of the accuracy"] = of[name]["spread"]
    fill(tables, figures)
    return int(next(iter(runs.values()))[0]["scored"])


BATCHES = {"viva-1": 100, "viva-2": 100, "viva-3": 50, "viva-4": 25, "viva-5": 25}
RATES = {"viva-4": 0.005, "viva-5": 0.005}  # .01 of the others
DROPPED = {"none": 0.5, "convolutions": 0.5, "linear": 0.3, "both": 0.3}  # keep .5 of dense layers, .7 of trains
BY_SUBJECT = "{}, folds of subjects"
RANKS = (2, 4, 8, 16, 32, 64, 100)  # of table 1, which are swept from 2 to 100
EQUAL, EQUAL_DROP = "{}, equal dropout", 0.3  # both forms with what the paper drops of trains, folds of subjects


def cases(data: Path) -> list[Case]:
    """What the paper trains on such data, row by row: UCF101 by its lists, UCF11 by its folders, all else as VIVA.

    VIVA: 32 frames of a clip, bicubic, with depth where it lies beside (datasets/viva.py); mirrored and reversed copies
    where the gesture stays itself, 5 folds of all of them. Copies of a clip may stand on both sides then, so each
    network is also trained on folds of subjects, whose own clips are scored; once more so with the same dropout in both
    forms, for the paper's are unlike and more of them costs more than the form does.
    """
    from ..datasets.known import is_ucf11, ucf101_lists
    from ..datasets.viva import twin_folders
    from .protocol import Case

    def ucf(name: str, folds: str) -> list[Case]:
        return [
            Case(f"{name}, {text}", f"ucf-rgb{end}", {}, folds, f"ucf-flow{end}")
            for text, end in (("dense", ""), ("TT", "-tt"))
        ]

    if data.exists() and ucf101_lists(data):
        return ucf("UCF101", "three splits")
    if data.is_dir() and is_ucf11(data):
        return ucf("UCF11, k-fold", "by clip") + ucf("UCF11, leave one group out", "one group")
    seen = WITH_DEPTH if twin_folders(data) else {"training.augment.contrast": 0.25}

    def viva(name: str, network: str, form: str, folds: str = "copies", dropout: float | None = None) -> Case:
        return Case(name, "viva-1", {**_trained(network, form, dropout), **seen}, folds, small=True)

    rows = {f"{network.upper()} {text}": (network, form) for network in VIVA for text, form in FORMS.items()}
    return [
        *(viva(name, *row) for name, row in rows.items()),
        *(viva(part, "viva-1", PARTS[part][0]) for part in ("fully connected", "convolutions")),
        *(viva(BY_SUBJECT.format(name), *row, "copies by group") for name, row in rows.items()),
        *(viva(EQUAL.format(name), *row, "copies by group", EQUAL_DROP) for name, row in rows.items()),
        *(viva(f"VIVA-2 of 3x3x3 stacks, {text}", "viva-2-stacks", form) for text, form in FORMS.items()),
        *(
            viva(f"VIVA-3 TT, kept by dropout: {kept:g}", "viva-3", "both", dropout=round(1 - kept, 1))
            for kept in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
        ),
        *(_ranked(network, rank) for network in ("CNN-1", "CNN-2") for rank in (0, *RANKS)),
    ]


WITH_DEPTH: dict[str, Any] = {  # intensity, depth and Sobel; each of the first two changes in its own way
    "extractor.cut": "intensity-depth-sobel",
    "training.augment": {"zoom": 0.15, "shift": 0.06, "rotate": 10, "intensity_contrast": 0.25, "depth_brighten": 0.5},
}


def _trained(network: str, form: str, dropout: float | None = None) -> dict[str, Any]:
    """How the paper trains a network, where the recipe viva-1 does not say so."""
    table = network.removesuffix("-stacks")
    drop = DROPPED[form] if dropout is None else dropout
    return {
        "head.options": {"network": network, "tt": form, "dropout": drop, "pixel_drop": 0.5},
        "training.batch": BATCHES[table],
        "training.lr": RATES.get(table, 0.01),
        "training.clip_norm": 0.0,
    }


def _ranked(network: str, rank: int) -> Case:
    """A network of table 1 on single frames of 32 x 32, its convolutions dense or of one rank; the training is ours.

    The paper trains on CIFAR-10, and draws the accuracies without numbers.
    """
    from .protocol import Case

    options = {"network": network.casefold(), "tt": "convolutions" if rank else "none", "rank": rank}
    changes = {
        "head": {"name": "frame-network", "options": options},
        "extractor": {"name": "pixels", "input_size": [32, 32], "cut": "rgb", "grid": 0, "weights": "none"},
        "sampling.frames": 1,
        "training.batch": 64,
        "training.lr": 0.05,
        "training.weight_decay": 5e-4,
        "training.augment": {"shift": 0.1, "zoom": 0.1},
    }
    return Case(f"{network}, {f'rank {rank}' if rank else 'dense'}", "viva-1", changes, "by group")


def _beside(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What was measured that the paper's tables have no row of."""
    from .protocol import over_folds

    own = (BY_SUBJECT.format(""), EQUAL.format(""), "stacks", "kept by dropout", "CNN-")
    rows: list[Row] = []
    for name, found in runs.items():
        if any(words in name for words in own):
            rows += _with_spread(f"{name}: accuracy", f"{name}: spread of the accuracy", over_folds(found))
    for network in map(str.upper, VIVA):
        for how in (BY_SUBJECT, EQUAL):
            dense, train = (runs.get(how.format(f"{network} {text}"), ()) for text in FORMS)
            if lost := [{**a, "accuracy": a["accuracy"] - b["accuracy"]} for a, b in zip(dense, train, strict=False)]:
                where = f"{how.format(network)}: lost by TT"
                rows += _with_spread(where, f"{where}: spread over pairs", over_folds(lost))
    return table("Beside the tables: folds of subjects, equal dropout, small kernels, dropout, ranks", rows)


def _with_spread(mean: str, spread: str, values: Mapping[str, float]) -> list[Row]:
    """A row of the mean, and of the spread where there is one."""
    found = {mean: values["accuracy"], spread: values.get("spread")}
    return [{**row(name, "accuracy"), "measured": value} for name, value in found.items() if value is not None]


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
