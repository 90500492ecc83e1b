"""Chiche 2019 (KTH), "Video classification with memory and computation-efficient convolutional neural network".

Its tables: the six combinations of two extractors and three classifiers on UCF101 split 1, the per-class report and
the counts over it. Sizes are recomputed from our networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..models import MobileNetV2, build_head, fuse_batch_norm
from ..models.inceptionv3 import InceptionV3
from ..recipe import Head
from .mobile_classes import METRICS, ClassReport, Metrics, class_reports
from .rows import Number, Row, row, table

if TYPE_CHECKING:
    from .experiment import Effort
    from .protocol import Case

CLASSES = 101
FEATURES = {"Inception-v3": 2048, "quantized MobileNetV2": 1280}
HEADS = {"LSTM": "lstm", "GRU": "gru", "single frame": "single"}

# Accuracy and top-5; precision, recall and F1 where they are printed.
PRINTED: dict[tuple[str, str], tuple[float, ...]] = {
    ("Inception-v3", "LSTM"): (0.7875, 0.9422),
    ("Inception-v3", "GRU"): (0.7961, 0.9469, 0.77, 0.77, 0.76),
    ("quantized MobileNetV2", "LSTM"): (0.7430, 0.9117),
    ("quantized MobileNetV2", "GRU"): (0.7594, 0.9297, 0.74, 0.73, 0.72),
    ("Inception-v3", "single frame"): (0.6969, 0.8812, 0.67, 0.67, 0.66),
    ("quantized MobileNetV2", "single frame"): (0.6425, 0.8473, 0.62, 0.61, 0.61),
}
OTHERS = {"LSTM + flow": 0.886, "two-stream": 0.870, "fused two-stream": 0.925}


def tables() -> dict[str, Any]:
    """The thesis' tables, printed and recomputed. Accuracies, precision, recall and F1 are fractions."""
    return {"tables": [_extractors(), _others(), _per_class(), _over_classes(), _combinations(), _claims(), _sizes()]}


# The strong extractor of the experiment and the weak ones: what they change in the recipes mobilenetv2-*.
EXTRACTORS: dict[str, dict[str, Any]] = {
    "quantized MobileNetV2": {},
    "MobileNetV1 0.5/160": {"extractor.width": 0.5, "extractor.input_size": [160, 160]},
    "MobileNetV1 0.25/128": {"extractor.width": 0.25, "extractor.input_size": [128, 128]},
}
STRONG, *WEAK = EXTRACTORS


INCEPTION, BROUGHT = "Inception-v3", "the brought network"


def measure(tables: list[dict[str, Any]], data: str, effort: Effort, log: Path) -> int:
    """Train the classifiers on extractors and fill in what is measured; returns how many were scored.

    Quick: the three classifiers on MobileNetV2 and two MobileNetV1, which stand for a weak extractor; a table of the
    claims is added. The thesis' protocol: MobileNetV2, and its readings of the input dropout. With
    ``effort.extractor``, the same on that file: torchvision's state dict of Inception-v3 fills that network's rows.

    Raises:
        WeightsError: a file that is none of these.
    """
    from .experiment import fill, run_recipes
    from .protocol import run_cases

    if effort.protocol == "paper":
        runs = run_cases(cases(effort.extractor), data, effort, log)
    else:
        runs = run_recipes(_quick(effort.extractor), data, effort, log)
    of = {name: _seeds_mean(found) for name, found in runs.items()}
    figures = {
        f"{extractor}, {classifier}: {name}": of[f"{extractor}, {classifier}"][name]
        for (extractor, classifier), printed in PRINTED.items()
        if f"{extractor}, {classifier}" in of
        for name in ("accuracy", "top-5", *METRICS)[: len(printed)]
    }
    accuracy = {name: values["accuracy"] for name, values in of.items()}
    for name, parts in CLAIMED.items():
        if set(parts) <= set(accuracy):
            figures[name] = round(accuracy[parts[0]] - accuracy[parts[1]], 4)
    fill(tables, figures | _by_class({name: found[0].get("per_class", {}) for name, found in runs.items()}))
    if effort.protocol == "paper":
        rows = [
            {**row(f"{name}: accuracy", "accuracy"), "measured": value}
            for name, value in accuracy.items()
            if tuple(name.rsplit(", ", 1)) not in PRINTED
        ]
        if rows:
            tables.append(table("Beside the six: the other reading of the dropout, other extractors", rows))
    else:
        tables.append(_tried(accuracy))
    return int(next(iter(runs.values()))[0]["scored"])


def _by_class(found: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """The per-class report of the GRUs, of those of its classes that the clips have; with all of both, the counts.

    Args:
        found: precision, recall, F1 and scored clips by class, of each row; of the first seed where there are several.
    """
    short = {STRONG: "MobileNetV2", INCEPTION: INCEPTION}
    own = {
        extractor: {label.casefold(): values for label, values in found.get(f"{extractor}, GRU", {}).items()}
        for extractor in short
    }
    figures: dict[str, float] = {}
    reports: list[ClassReport] = []
    for name in class_reports():
        of = {extractor: own[extractor][name.casefold()] for extractor in short if name.casefold() in own[extractor]}
        for extractor, values in of.items():
            rows = zip(METRICS, values[:3], strict=True)
            figures |= {f"{name}, {short[extractor]}: {metric}": value for metric, value in rows}
            figures[f"{name}: test clips"] = int(values[3])
        if len(of) == len(short):
            a, b = ([round(x, 2) for x in of[extractor][:3]] for extractor in short)  # as printed
            reports.append(ClassReport((a[0], a[1], a[2]), (b[0], b[1], b[2]), int(of[STRONG][3])))
    return figures | (_counts(reports) if len(reports) == CLASSES else {})


def _quick(file: str | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """The quick experiment: three classifiers on each extractor, by their recipes."""
    found = {}
    for extractor, changes in EXTRACTORS.items():
        whole = {"extractor.name": "mobilenetv1", "extractor.cut": "block12", "extractor.weights": "imagenet"}
        for classifier, head in HEADS.items():
            found[f"{extractor}, {classifier}"] = (f"mobilenetv2-{head}", {**whole, **changes} if changes else {})
    if file:
        name, recipe, changes = brought(file)
        found |= {f"{name}, {classifier}": (recipe.format(head), changes) for classifier, head in HEADS.items()}
    return found


def brought(file: str) -> tuple[str, str, dict[str, Any]]:
    """What rows on a brought file are called, the pattern of their recipes, and what they change in them.

    Raises:
        WeightsError: neither a PyTorch state dict nor an .onnx or .tflite file.
    """
    if Path(file).suffix in (".pt", ".pth"):
        return INCEPTION, "inceptionv3-{}", {"extractor.weights": file, "extractor.grid": 0}
    from ..tasks.brought import extractor_overrides

    return BROUGHT, "mobilenetv2-{}", {**extractor_overrides(file), "extractor.grid": 0}


# The thesis: Adam at 1e-5 with Keras' decay, batches of 32, the weights that validate best. Early stopping ends a run;
# its patience is not printed and is the recipe's. The division by 255 is of the quantized embedding alone.
# The single frame is one drawn of a clip in training; a clip's score is the mean over its frames.
THESIS: dict[str, Any] = {"training.lr": 1e-5, "training.batch": 32, "training.epochs": 10_000}
DIVIDED, WHOLE = {"head.options.scale": 1 / 6}, {"head.options.scale": 1.0}  # 6 is 255 of the quantized network
AS_PRINTED = {"head.options.input_dropout": 0.005}  # "0.5 %", where 0.5 is meant elsewhere


def cases(file: str | None) -> list[Case]:
    """What the thesis trains on UCF101's split 1: its rows, then the recurrent ones with the dropout as printed."""
    from .protocol import Case

    ways = {STRONG: ("mobilenetv2-{}", dict[str, Any]())}
    if file:
        name, recipe, changes = brought(file)
        ways[name] = (recipe, changes)
    found, printed = [], []
    for extractor, (recipe, changes) in ways.items():
        for classifier, head in HEADS.items():
            recurrent = classifier != "single frame"
            own = {**changes, **THESIS, **(DIVIDED if extractor == STRONG else WHOLE)}
            name = f"{extractor}, {classifier}"
            found.append(Case(name, recipe.format(head), own))
            if recurrent:
                printed.append(Case(f"{name}, input dropout .005", recipe.format(head), {**own, **AS_PRINTED}))
    return found + printed


def _tried(accuracy: Mapping[str, float]) -> dict[str, Any]:
    """The claims on the given clips: is GRU at least LSTM, and the gap between extractors smaller with recurrence?"""
    rows = []
    for name, value in accuracy.items():
        if not name.startswith(STRONG):
            rows.append({**row(f"{name}: accuracy on the clips", "accuracy"), "measured": value})
    for extractor in dict.fromkeys(name.rsplit(", ", 1)[0] for name in accuracy):
        gain = round(accuracy[f"{extractor}, GRU"] - accuracy[f"{extractor}, LSTM"], 4)
        rows.append({**row(f"{extractor}: GRU minus LSTM", "accuracy"), "measured": gain})
    for weak in WEAK:
        for classifier in HEADS:
            gap = round(accuracy[f"{STRONG}, {classifier}"] - accuracy[f"{weak}, {classifier}"], 4)
            rows.append({**row(f"{STRONG} minus {weak}: {classifier}", "accuracy"), "measured": gap})
    return table("The claims, tried with MobileNetV1 as the weak extractor", rows)


def _seeds_mean(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy, top-5 and the means over classes, averaged over runs alike."""
    keys = {"accuracy": "accuracy", "top-5": "top5", **{metric: f"macro_{metric.lower()}" for metric in METRICS}}
    return {name: round(sum(run[key] for run in runs) / len(runs), 4) for name, key in keys.items() if key in runs[0]}


# What the thesis concludes from its six accuracies: a difference of two of them, and where it is printed.
CLAIMED = {
    **{f"{e}: GRU minus LSTM": (f"{e}, GRU", f"{e}, LSTM") for e in FEATURES},
    **{f"{INCEPTION} minus {STRONG}: {c}": (f"{INCEPTION}, {c}", f"{STRONG}, {c}") for c in HEADS},
}
GAPS = {"single frame": 0.0544, "LSTM": 0.0445, "GRU": 0.0367}  # Inception-v3 minus MobileNetV2, accuracy
TOP5_GAPS = {"single frame": 0.0339, "LSTM": 0.0305, "GRU": 0.0172}


def _claims() -> dict[str, Any]:
    """What the thesis concludes from its six accuracies and their top-5."""
    rows = []
    for name, (one, other) in CLAIMED.items():
        first, second = (PRINTED[tuple(key.rsplit(", ", 1))][0] for key in (one, other))  # type: ignore[index]
        printed = GAPS[name.split(": ")[1]] if " minus quantized" in name else None
        rows.append(row(name, "accuracy", printed, round(first - second, 4)))
    for classifier, printed in TOP5_GAPS.items():
        gap = PRINTED[INCEPTION, classifier][1] - PRINTED[STRONG, classifier][1]
        rows.append(row(f"{INCEPTION} minus {STRONG}: {classifier}, top-5", "top-5", printed, round(gap, 4)))
    return table("Claims: GRU at least LSTM, and a smaller gap between the extractors with recurrence", rows)


def classifier_parameters(extractor: str, classifier: str, classes: int = CLASSES) -> int:
    """Trained parameters of a classifier on the features of an extractor (Keras' GRU of the time has one bias less)."""
    with torch.device("meta"):
        head = build_head(Head(HEADS[classifier]), (FEATURES[extractor],), classes)
    return sum(p.numel() for p in head.parameters())


def mobilenetv2_size(classes: int | None = None) -> tuple[int, int]:
    """Numbers of MobileNetV2 1.0, batch norm folded, and its bytes: weights in 8 bits, biases in 32.

    ``classes``: with the classifier of so many ImageNet classes, as the .tflite file has it (1,001).
    """
    with torch.device("meta"):
        network = fuse_batch_norm(MobileNetV2(classes=classes))
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    biases = sum(p.numel() for p in network.parameters() if p.ndim == 1)
    return weights + biases, weights + 4 * biases


def inceptionv3_numbers(classes: int | None = None) -> int:
    """Numbers of Inception-v3, batch norm folded; ``classes``: with a classifier of so many classes."""
    with torch.device("meta"):
        network = fuse_batch_norm(InceptionV3(classes=classes))
    return sum(p.numel() for p in network.parameters())


def _combinations() -> dict[str, Any]:
    rows: list[Row] = []
    for (extractor, classifier), figures in PRINTED.items():
        names = ("accuracy", "top-5", *METRICS)
        rows += [
            row(f"{extractor}, {classifier}: {name}", name, figure)
            for name, figure in zip(names, figures, strict=False)
        ]
    return table("The six combinations on UCF101 split 1", rows)


def _sizes() -> dict[str, Any]:
    numbers, size = mobilenetv2_size()
    inception = inceptionv3_numbers()
    rows: list[Row] = []
    for extractor, classifier in PRINTED:
        count = classifier_parameters(extractor, classifier)
        ours = extractor == "quantized MobileNetV2"
        where = f"{extractor}, {classifier}"
        rows += [
            row(f"{where}: classifier", "parameters", None, count),
            row(f"{where}: extractor and classifier", "parameters", None, (numbers if ours else inception) + count),
            row(f"{where}: classifier in float32", "MB", None, round(4 * count / 1e6, 3)),
            row(
                f"{where}: {'8-bit' if ours else 'float32'} extractor and float32 classifier",
                "MB",
                None,
                _mb((size if ours else 4 * inception) + 4 * count),
            ),
        ]
    return table("Sizes of the six combinations", rows)


def _extractors() -> dict[str, Any]:
    full = mobilenetv2_size(1001)[1]  # the page's MB fits 2^20 bytes
    rows = [
        row(
            "Inception-v3: file (ours: its numbers in float32, 1,001 classes)",
            "MB",
            95.3,
            _mb(4 * inceptionv3_numbers(1001)),
        ),
        row("Inception-v3: ImageNet top-1", "accuracy", 0.779),
        row("Inception-v3: ImageNet top-5", "top-5", 0.938),
        row("Inception-v3: a frame on a Pixel 2", "ms", 1433),
        row("quantized MobileNetV2: file (ours: its numbers, 1,001 classes)", "MiB", 3.4, round(full / 2**20, 3)),
        row("quantized MobileNetV2: without the classifier", "MB", None, _mb(mobilenetv2_size()[1])),
        row("quantized MobileNetV2: ImageNet top-1", "accuracy", 0.708),
        row("quantized MobileNetV2: ImageNet top-5", "top-5", 0.899),
        row("quantized MobileNetV2: a frame on a Pixel 2", "ms", 80.3),
    ]
    return table("Extractors, from the page of the .tflite files", rows)


def _others() -> dict[str, Any]:
    rows = [row(name, "accuracy", accuracy) for name, accuracy in OTHERS.items()]
    return table("Other methods on UCF101, mean of three splits", rows)


def _per_class() -> dict[str, Any]:
    rows: list[Row] = []
    for name, report in class_reports().items():
        for extractor, figures in (("MobileNetV2", report.mobilenetv2), ("Inception-v3", report.inceptionv3)):
            where = f"{name}, {extractor}"
            rows += [row(f"{where}: {metric}", metric, x) for metric, x in zip(METRICS, figures, strict=True)]
        rows.append(row(f"{name}: test clips", "clips", report.support))
    return table("Per class, GRU", rows)


# Of the classes' three metrics with MobileNetV2 and Inception-v3: what is true of so many classes, as printed.
CLAIMS: dict[str, tuple[int, Callable[[Metrics, Metrics], bool]]] = {
    "any metric higher with MobileNetV2": (54, lambda ours, theirs: any(a > b for a, b in _pairs(ours, theirs))),
    "all metrics higher or equal with MobileNetV2, not all equal": (
        23,
        lambda ours, theirs: ours != theirs and all(a >= b for a, b in _pairs(ours, theirs)),
    ),
    "all metrics higher with MobileNetV2": (15, lambda ours, theirs: all(a > b for a, b in _pairs(ours, theirs))),
    "all metrics equal": (7, lambda ours, theirs: ours == theirs),
}


PRINTED_COUNTS = {
    "metrics": 303,
    "metrics higher with Inception-v3": 157,
    "metrics higher with MobileNetV2": 109,
    "metrics equal": 37,
    **{f"classes: {text}": printed for text, (printed, _) in CLAIMS.items()},
    "test clips": 3783,
}


def _counts(reports: Sequence[ClassReport]) -> dict[str, float]:
    """What is counted over a per-class report of both extractors."""
    pairs = [pair for report in reports for pair in _pairs(report.mobilenetv2, report.inceptionv3)]
    return {
        "metrics": len(pairs),
        "metrics higher with Inception-v3": sum(a < b for a, b in pairs),
        "metrics higher with MobileNetV2": sum(a > b for a, b in pairs),
        "metrics equal": sum(a == b for a, b in pairs),
        **{
            f"classes: {text}": sum(holds(report.mobilenetv2, report.inceptionv3) for report in reports)
            for text, (_, holds) in CLAIMS.items()
        },
        "test clips": sum(report.support for report in reports),
    }


def _over_classes() -> dict[str, Any]:
    """Counted over the per-class report as it is printed."""
    reports = list(class_reports().values())
    rows = [
        row(name, "clips" if name == "test clips" else "count", PRINTED_COUNTS[name], count)
        for name, count in _counts(reports).items()
    ]
    for extractor, of in (("quantized MobileNetV2", _mobilenetv2), ("Inception-v3", _inceptionv3)):
        rows += _means(extractor, of, reports)
    return table("Over the classes, GRU (recomputed from the per-class report)", rows)


def _means(extractor: str, of: Callable[[ClassReport], Metrics], reports: list[ClassReport]) -> list[Row]:
    """Means over classes; recalls weighted by support are the accuracy, and do not give the printed one."""
    accuracy, _, *means = PRINTED[extractor, "GRU"]
    rows = [
        row(f"{extractor}: mean {metric}", metric, mean, _mean([(of(report)[i], 1) for report in reports]))
        for i, (metric, mean) in enumerate(zip(METRICS, means, strict=True))
    ]
    implied = _mean([(of(report)[1], report.support) for report in reports])
    return [*rows, row(f"{extractor}: accuracy that the recalls give", "accuracy", accuracy, implied)]


def _mobilenetv2(report: ClassReport) -> Metrics:
    return report.mobilenetv2


def _inceptionv3(report: ClassReport) -> Metrics:
    return report.inceptionv3


def _pairs(ours: Metrics, theirs: Metrics) -> list[tuple[float, float]]:
    return list(zip(ours, theirs, strict=True))


def _mean(weighted: list[tuple[float, Number]]) -> float:
    return round(sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted), 4)


def _mb(size: int) -> float:
    return round(size / 1e6, 3)
