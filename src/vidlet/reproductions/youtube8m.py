"""Liu and Liu 2018, "Constrained-size Tensorflow Models for YouTube-8M Video Understanding Challenge" (ECCV workshop).

Its tables with every size recomputed from the shapes of the weights. MiB are 2^20 bytes, as the paper's "MB".
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .rows import row

if TYPE_CHECKING:
    from .experiment import Effort

VIDEO, AUDIO, CLASSES, EXPERTS = 1024, 128, 3862, 5
LIMIT_BYTES = 2**30
MIB = 2**20


class Model(NamedTuple):
    """A single model of table 1: clusters, hidden units, and what is printed of it."""

    clusters: int
    hidden: int
    float32_mib: float
    half_mib: float
    gap_averaged: float | None
    gap_single: float | None


MODELS = {
    "Y": Model(24, 1440, 714.93, 381.40, 0.8744, 0.8682),
    "G": Model(32, 1280, 679.73, 358.85, 0.8731, 0.8669),
    "F": Model(100, 800, 663.87, 339.76, 0.8721, 0.8677),
    "X": Model(16, 1280, 594.59, 316.21, 0.8718, 0.8665),
    "H": Model(32, 1024, 549.24, 286.85, 0.8717, 0.8665),
    "K": Model(20, 960, 469.18, 245.31, 0.8717, 0.8661),
    "L": Model(16, 800, 384.27, 199.61, 0.8712, 0.8666),
    "J": Model(64, 512, 365.53, 186.11, 0.8702, 0.8664),
    "A": Model(100, 400, 357.21, 180.93, 0.8685, 0.8647),
    "N": Model(32, 600, 339.72, 174.20, 0.8684, 0.8648),
    "S": Model(32, 512, 297.27, 151.85, 0.8683, 0.8647),
    "O": Model(16, 512, 263.13, 134.71, 0.8665, 0.8641),
    "T": Model(8, 512, 246.07, 126.15, 0.8660, 0.8627),
    "Q": Model(16, 400, 217.05, 110.50, 0.8658, 0.8619),
    "E": Model(10, 400, 207.04, 105.47, 0.8644, 0.8626),
    "R": Model(32, 256, 175.78, 88.85, 0.8616, 0.8593),
    "M": Model(10, 300, 168.87, 85.58, 0.8605, 0.8589),
    "P": Model(16, 256, 158.65, 80.21, 0.8594, 0.8576),
}
UNLISTED = {"B": (32, 400)}  # in no table; K32-H400 fits GFAB within 0.5 MiB
DROPPED = (  # clusters and hidden units of the other ten that were trained: each is equalled by a smaller one
    (20, 1600), (64, 1024), (150, 600), (128, 512), (16, 1024), (32, 400), (128, 1024), (8, 1024), (32, 800), (8, 800),
)  # fmt: skip
COMPRESSION = 0.485  # of a model's bytes, saved by float16: the mean, as the abstract says it
WEIGHTS = {"YHLS": (0.39, 0.26, 0.21, 0.14)}  # of the members' probabilities; printed of the best ensemble only
PUBLIC_GAINS = (0.0018, 0.0021)  # of GAP on the public leaderboard over the local one: the least, the most


class Ensemble(NamedTuple):
    """A row of table 2: printed size of the float16 members together, and GAP where it is printed."""

    mib: float
    gap_local: float
    gap_public: float | None = None
    gap_private: float | None = None


ENSEMBLES = {
    "YHLS": Ensemble(1019.7, 0.8821, 0.8839, 0.8832),
    "YFH": Ensemble(1008.0, 0.8819),
    "GHLS": Ensemble(997.2, 0.8818, 0.8838, 0.8832),
    "YGLP": Ensemble(1020.1, 0.8814),
    "YLSQRP": Ensemble(1012.4, 0.8811),
    "GHLRP": Ensemble(1015.0, 0.8811, 0.8832, 0.8825),
    "GFX": Ensemble(1014.8, 0.8810),
    "FJSOQR": Ensemble(1012.5, 0.8810, 0.8828, 0.8822),
    "GFAB": Ensemble(1004.0, 0.8808, 0.8826, 0.8821),
    "FJSO": Ensemble(812.4, 0.8808),
    "LNSOTQP": Ensemble(977.2, 0.8803),
    "GF": Ensemble(698.9, 0.8785),
}


def weight_shapes(
    clusters: int,
    hidden: int,
    classes: int = CLASSES,
    experts: int = EXPERTS,
    video: int = VIDEO,
    audio: int = AUDIO,
) -> dict[str, tuple[int, ...]]:
    """The 32 variables of gated NetVLAD on two modalities, running statistics included."""

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.{part}": (size,) for part in ("gamma", "beta", "mean", "variance")}

    shapes: dict[str, tuple[int, ...]] = {}
    for name, width, count in (("video", video, clusters), ("audio", audio, clusters // 2)):
        shapes |= {f"{name}.assign": (width, count), f"{name}.centers": (1, width, count)}
        shapes |= norm(f"{name}.norm", count)
    shapes |= {"hidden": (video * clusters + audio * (clusters // 2), hidden)} | norm("hidden.norm", hidden)
    shapes |= {"widen": (hidden, 2 * hidden), "widen.bias": (2 * hidden,)}
    shapes |= {"gating": (2 * hidden, 2 * hidden)} | norm("gating.norm", 2 * hidden)
    shapes |= {"gates": (2 * hidden, (experts + 1) * classes)}
    shapes |= {"experts": (2 * hidden, experts * classes), "experts.bias": (experts * classes,)}
    return shapes | {"probabilities": (classes, classes)} | norm("probabilities.norm", classes)


LARGE = ("hidden", "gates", "experts", "probabilities")  # the four that are stored in float16


def parameter_count(clusters: int, hidden: int, **sizes: int) -> int:
    """All numbers of a model, running statistics included."""
    return sum(math.prod(shape) for shape in weight_shapes(clusters, hidden, **sizes).values())


def stored_bytes(clusters: int, hidden: int, large_bytes: int = 4, **sizes: int) -> int:
    """Bytes of a model whose four large tensors take ``large_bytes`` a number (2: float16) and all others 4."""
    shapes = weight_shapes(clusters, hidden, **sizes)
    return sum(math.prod(shape) * (large_bytes if name in LARGE else 4) for name, shape in shapes.items())


def ensemble_bytes(members: str, large_bytes: int = 2) -> int:
    """Bytes of the members, named by their letters, in one file."""
    return sum(stored_bytes(*_size(letter), large_bytes=large_bytes) for letter in members)


def fitting_subsets(limit: int = LIMIT_BYTES, large_bytes: int = 2) -> int:
    """How many non-empty subsets of the 18 models fit into ``limit`` bytes."""
    totals = np.zeros(1, np.int64)
    for letter in MODELS:
        totals = np.concatenate([totals, totals + ensemble_bytes(letter, large_bytes)])
    return int((totals <= limit).sum()) - 1


def tables() -> dict[str, Any]:
    """The paper's tables: printed and recomputed. GAP cannot be recomputed without YouTube-8M (1.5 TB)."""
    found = [_single_models(), _ensembles(), _compression(), _boards(), _weights(), _dropped()]
    return {"tables": [*found, _shares(), _int8(), _pruned()]}


def measure(tables: list[dict[str, Any]], data: str | Path, effort: Effort, log: Path) -> int:
    """Run the experiment on records at hand (youtube8m_records.py); how many were scored.

    Quick: smaller models, in tables of their own. The paper's protocol: its 18 models, and the one that only an
    ensemble names, at their size, into tables 1 and 2.
    """
    from .youtube8m_records import run_records

    networks = {f"{letter} K{_size(letter)[0]}-H{_size(letter)[1]}": _size(letter) for letter in (*MODELS, *UNLISTED)}
    return run_records(tables, data, effort, log, networks)


def _size(letter: str) -> tuple[int, int]:
    return UNLISTED[letter] if letter in UNLISTED else MODELS[letter][:2]


def _mib(size: int) -> float:
    return round(size / MIB, 2)


def _single_models() -> dict[str, Any]:
    rows = []
    for letter, model in MODELS.items():
        name = f"{letter} K{model.clusters}-H{model.hidden}"
        for kind, printed, large in (("float32", model.float32_mib, 4), ("float16", model.half_mib, 2)):
            size = stored_bytes(model.clusters, model.hidden, large)
            rows.append(row(f"{name}, {kind}", "MiB", printed, _mib(size)))
        rows.append(row(f"{name}, averaged checkpoints", "GAP@20", model.gap_averaged, None))
        rows.append(row(f"{name}, best checkpoint", "GAP@20", model.gap_single, None))
    return {"title": "Table 1: single models", "rows": rows}


def _ensembles() -> dict[str, Any]:
    rows = []
    for members, printed in ENSEMBLES.items():
        rows.append(row(f"{members}, float16", "MiB", printed.mib, _mib(ensemble_bytes(members))))
        figures = {"local": printed.gap_local, "public": printed.gap_public, "private": printed.gap_private}
        rows += [row(f"{members}, {where}", "GAP@20", gap, None) for where, gap in figures.items() if gap is not None]
    return {"title": "Table 2: ensembles within 1 GiB", "rows": rows}


def saved_by_half(clusters: int, hidden: int) -> float:
    """The share of a model's bytes that float16 saves."""
    return 1 - stored_bytes(clusters, hidden, 2) / stored_bytes(clusters, hidden)


def _compression() -> dict[str, Any]:
    """Table 1's column of compression: only its mean is quoted where this was checked, so each is recomputed."""
    each = {letter: saved_by_half(*_size(letter)) for letter in MODELS}
    rows = [
        row(f"{letter} K{MODELS[letter].clusters}-H{MODELS[letter].hidden}", "fraction", None, round(saved, 4))
        for letter, saved in each.items()
    ]
    mean = round(statistics.mean(each.values()), 4)
    return {"title": "Bytes saved by float16", "rows": [*rows, row("mean of the 18", "fraction", COMPRESSION, mean)]}


def _boards() -> dict[str, Any]:
    """How the leaderboards differ from the local validation, from table 2's own figures."""
    rows, gains = [], []
    for members, printed in ENSEMBLES.items():
        if printed.gap_public is None or printed.gap_private is None:
            continue
        gains.append(round(printed.gap_public - printed.gap_local, 4))
        rows.append(row(f"{members}, public - local", "GAP@20", None, gains[-1]))
        rows.append(
            row(f"{members}, private - public", "GAP@20", None, round(printed.gap_private - printed.gap_public, 4))
        )
    ends = zip(("least", "most"), PUBLIC_GAINS, (min(gains), max(gains)), strict=True)
    rows += [row(f"public - local, {what}", "GAP@20", printed, own) for what, printed, own in ends]
    return {"title": "Leaderboards against local validation", "rows": rows}


def _weights() -> dict[str, Any]:
    rows = [
        row(f"{ensemble}, {letter}", "weight", weight)
        for ensemble, weights in WEIGHTS.items()
        for letter, weight in zip(ensemble, weights, strict=True)
    ]
    total = round(sum(WEIGHTS["YHLS"]), 4)
    return {"title": "Weights of the averaged members", "rows": [*rows, row("YHLS, sum", "weight", None, total)]}


def _dropped() -> dict[str, Any]:
    """The models that were trained and left out: bytes, and whether the list gives the 28 that were trained."""
    rows = [
        row(f"K{clusters}-H{hidden}, {kind}", "MiB", None, _mib(stored_bytes(clusters, hidden, large)))
        for clusters, hidden in DROPPED
        for kind, large in (("float32", 4), ("float16", 2))
    ]
    rows.append(row("models trained", "count", 28, len(MODELS) + len(DROPPED)))
    return {"title": "Models that a smaller one equals", "rows": rows}


def pruned_bytes(clusters: int, hidden: int, zeros: float) -> int:
    """Bytes of a model in float16 whose large tensors have a share of zeros: a bit a number, and what is left."""
    shapes = weight_shapes(clusters, hidden)
    large = sum(math.prod(shapes[name]) for name in LARGE)
    others = sum(math.prod(shape) for name, shape in shapes.items() if name not in LARGE)
    return 4 * others + math.ceil(large / 8) + 2 * round((1 - zeros) * large)


def _pruned() -> dict[str, Any]:
    """Pruned models stored without their zeros, as the step ``sparse`` does it."""
    rows = [
        row(f"H K32-H1024, {100 * zeros:g} % zeros", "MiB", None, _mib(pruned_bytes(*_size("H"), zeros)))
        for zeros in (0.0625, 0.5, 0.75, 0.875)
    ]
    return {"title": "Large tensors pruned, in float16, zeros not stored", "rows": rows}


def _shares() -> dict[str, Any]:
    shapes = weight_shapes(*_size("H"))
    large = sum(math.prod(shapes[name]) for name in LARGE) / sum(map(math.prod, shapes.values()))
    return {
        "title": "In the text",
        "rows": [
            row("K32-H1024: share of the four large tensors", "fraction", 0.98, round(large, 4)),
            row("K32-H1024: variables", "count", None, len(shapes)),
            row("K32-H1024: numbers", "count", None, parameter_count(*_size("H"))),
            row("subsets of the 18 models that fit into 1 GiB", "count", None, fitting_subsets()),
        ],
    }


def _int8() -> dict[str, Any]:
    """What the paper names as next: the large tensors in 8 bits."""
    rows = [row(f"{name}, int8", "MiB", None, _mib(ensemble_bytes(name, 1))) for name in ("YHLS", "GHLS", "YGLP")]
    return {"title": "The large tensors in 8 bits", "rows": [*rows, row("subsets that fit", "count", None, _fit8())]}


def _fit8() -> int:
    return fitting_subsets(large_bytes=1)
