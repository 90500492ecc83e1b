"""Cheng et al., "DEEPEYE: A Compact and Accurate Video Comprehension at Terminal Devices Compressed with Quantization
and Tensorization": its tables, with every count and size recomputed from our detector and our tensor-train LSTM.

KB are 1024 bytes in its first table, MB 10^6 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..models import build_head
from ..models.tiny_yolo import TinyYolo
from ..recipe import Head, load_recipe
from ..runs import METRICS, MODEL, RECIPE
from ..runtime import load
from ..tensor_train import TTLinear
from .rows import Row, ratio, row, table

if TYPE_CHECKING:
    from .experiment import Effort

SIDE = 608  # of the pictures
VOC, COCO = 20, 80  # classes of the two heads that the paper mixes
ACTIONS = 11  # of UCF11
FRAME = (3, 120, 160)
ON_FEATURES = {"in_modes": [17, 19, 19, 25], "groups": 25}  # the T-RNN on the detector's map

# Weights, KB before and after 8 bits, and (height = width, channels) of the output, as printed.
LAYERS = {
    "CONV1": ("conv1", 432, 1.7, 0.4, 608, 16),
    "CONV2": ("conv2", 4608, 17.9, 4.5, 304, 32),
    "CONV3": ("conv3", 18432, 71.9, 18.1, 152, 64),
    "CONVfinal": ("predict", 128_000, 499.3, 125.0, 19, 125),
}


def tables() -> dict[str, Any]:
    """The paper's tables, printed and recomputed. Accuracies and mAP are fractions."""
    return {"tables": [_layers(), _detector(), _precision(), _recurrent(), _beside()]}


MEASURED: dict[str, tuple[str, dict[str, Any]]] = {
    "plain RNN on frames": ("lstm-pixels", {}),
    "T-RNN on frames": ("tt-lstm-pixels", {}),
}


def measure(tables: Sequence[dict[str, Any]], data: str, effort: Effort, log: Path) -> int:
    """Train the plain LSTM and the T-RNN on 6 frames of clips and fill in table 2; returns how many were scored.

    Both read 160 x 120 pixels by their recipes; the T-RNN has both mappings in tensor-train form. With a detector,
    also the T-RNN on its map, in float32 and, where the run has a file of it, in the paper's 8 bits; and the mAP
    of these files on its own boxes. By the paper's protocol: ``TRAINED``, over 5 folds of groups.

    Raises:
        RecipeError: the detector is neither a run nor a file of one.
    """
    from .experiment import fill, measured, run_recipes
    from .protocol import Case, over_folds, run_cases

    files = detector_files(effort.detector) if effort.detector else {}
    told = MEASURED | {
        name: ("deepeye", {"extractor.weights": str(path), "extractor.input_size": list(size)})
        for name, (path, size, _) in files.items()
    }
    if effort.protocol == "paper":
        cases = [Case(name, recipe, {**changes, **TRAINED}, "by group") for name, (recipe, changes) in told.items()]
        runs = run_cases(cases, data, effort, log)
        of = {name: over_folds(found) for name, found in runs.items()}
    else:
        runs = run_recipes(told, data, effort, log)
        of = {name: measured(found) for name, found in runs.items()}
    figures: dict[str, float] = {BITS[name]: score for name, (_, _, score) in files.items() if score is not None}
    plain = of.get("plain RNN on frames")
    for name, values in of.items():
        short = name.removesuffix(" (detector features)")
        figures |= {name: values["accuracy"], f"{short}: epoch": values["epoch_s"]}
        if "spread" in values:
            figures[f"{name}: spread"] = values["spread"]
        if plain and name in (EIGHT, "T-RNN on frames"):
            beside = "plain" if name == "T-RNN on frames" else "plain on frames"
            figures[f"{short}: faster than {beside}"] = ratio(plain["epoch_s"], values["epoch_s"])
    [second] = [found for found in tables if found["title"].startswith("Table 2")]
    known = {found["name"] for found in second["rows"]}
    for name in of:  # what the paper has no row of
        own = {name: "accuracy", f"{name}: spread": "accuracy", f"{FLOAT}: epoch": "s"}
        second["rows"] += [row(key, unit) for key, unit in own.items() if key in figures and key not in known]
        known |= set(own)
    fill(tables, figures)
    return int(next(iter(runs.values()))[0]["scored"])


# Yang et al. 2017, whom the paper follows: Adam, L2 of .01 |w|^2 on the classifier (ours is |w|^2 / 2). The epochs are
# ours, for none are printed; dropout .25 on both mappings is in the recipes of the T-RNN.
TRAINED: dict[str, Any] = {
    "training.lr": 1e-4,
    "training.batch": 16,
    "training.schedule.kind": "constant",
    "training.weight_decay": 0.0,
    "training.l2": {"classif": 0.02},
    "training.clip_norm": 0.0,
    "training.class_weights": False,
    "training.early_stopping": 0,
    "training.epochs": 100,
}
EIGHT, FLOAT = "DEEPEYE (detector features)", "DEEPEYE with the detector in float"
BITS = {EIGHT: "8 bits", FLOAT: "float"}  # the rows of a detector's mAP


def detector_files(detector: Path) -> dict[str, tuple[Path, tuple[int, int], float | None]]:
    """The files of a detector by the row that stands on them: path, input (H, W), mAP at IoU .5 on its boxes.

    Args:
        detector: the run folder of one, or a single file of ours that detects, of which no mAP is known: a detector
            that others trained is such a file by ``vidlet export``.

    Raises:
        RecipeError: it is no detector's run. ModelError: a file that is no model of ours.
    """
    if detector.is_file():
        return {FLOAT: (detector, load(detector, threads=1).input_size, None)}
    try:
        told = json.loads((detector / METRICS).read_text())["files"]
        scores = {name: float(figures["map50"]) for name, figures in told.items()}
        size = load_recipe(detector / RECIPE).extractor.input_size
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"{detector}: not the run folder of a detector (vidlet train BOXES --recipe tiny-yolov2)"
        ) from error
    eight = next((name for name in scores if name.startswith("model.deepeye")), None)
    rows = {FLOAT: MODEL} | ({EIGHT: eight} if eight else {})
    return {row: (detector / name, (size[0], size[1]), scores[name]) for row, name in rows.items()}


def detector_bytes(classes: int = VOC, last: int = 1024) -> tuple[int, int]:
    """Bytes of tiny-YOLOv2 in float32, and with its weights in 8 bits and all other numbers (norm, bias) in float32.

    ``last``: channels of the last 3x3 convolution; darknet's network for COCO has 512.
    """
    network = _network(classes, last)
    numbers = _numbers(network)
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    return 4 * numbers, weights + 4 * (numbers - weights)


def classifier(kind: str) -> nn.Module:
    """A recurrent classifier of table 2 for 11 actions, without memory for its weights.

    ``kind``: "plain" (on frames), "frames" (T-RNN on frames), "features" (T-RNN on the detector's map); with
    " both", hidden-to-hidden in tensor-train form too.
    """
    detector = _network(COCO)
    shapes = {"plain": FRAME, "frames": FRAME, "features": (detector.out_channels, *detector.map_size(SIDE, SIDE))}
    name, _, both = kind.partition(" ")
    if name == "plain":
        head = load_recipe("lstm-pixels").head
    else:
        options = load_recipe("tt-lstm-pixels").head.options if name == "frames" else ON_FEATURES
        ranks = {"ranks": [4], **({"recurrent_ranks": [4]} if both else {})}
        head = Head("tt-lstm", {key: options[key] for key in ("in_modes", "groups") if key in options} | ranks)
    with torch.device("meta"):
        return build_head(head, shapes[name], ACTIONS)


def _network(classes: int, last: int = 1024) -> TinyYolo:
    with torch.device("meta"):
        network = TinyYolo(classes)
        return network if last == network.channels[-1] else TinyYolo(classes, channels=(*network.channels[:-1], last))


def _numbers(module: nn.Module) -> int:
    """All numbers of a module: parameters and running statistics, counters of batches not."""
    return sum(t.numel() for t in module.state_dict().values() if t.is_floating_point())


def _outputs(network: TinyYolo) -> dict[str, tuple[int, ...]]:
    """Shapes (C, H, W) that come out of each convolution, before pooling, for one picture of ``SIDE``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, child in network.named_children():

        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            shapes[name] = tuple(output.shape[1:])

        convolution = child if isinstance(child, nn.Conv2d) else child.get_submodule("conv")
        convolution.register_forward_hook(note)
    network(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    return shapes


def _layers() -> dict[str, Any]:
    network = _network(VOC)
    outputs = _outputs(network)
    rows: list[Row] = []
    for name, (ours, weights, before, after, side, channels) in LAYERS.items():
        layer = network.get_submodule(ours)
        count = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
        c, h, _ = outputs[ours]
        rows += [
            row(f"{name}: weights", "count", weights, count),
            row(f"{name}: float32", "KB", before, round(4 * count / 1024, 2)),
            row(f"{name}: 8 bits", "KB", after, round(count / 1024, 2)),
            row(f"{name}: height and width of the output", "pixels", side, h),
            row(f"{name}: channels of the output", "count", channels, c),
        ]
    rows.append(row("CONVfinal: channels of the output in the text", "count", 425, _network(COCO).out_channels))
    return table("Table 1: the detector layer by layer (20 classes of VOC; the text has the 80 of COCO)", rows)


def _detector() -> dict[str, Any]:
    before, after = detector_bytes()
    rows = [
        row("float32", "MB", 63.5, before / 1e6),
        row("8-bit weights, the rest float32", "MB", 15.9, after / 1e6),
        row("ratio (printed: 63.5 / 15.9)", "times", 3.994, ratio(before, after, 3)),
        row("numbers", "count", None, before // 4),
    ]
    for last in (1024, 512):
        before, after = detector_bytes(COCO, last)
        rows += [
            row(f"425 outputs behind {last} channels: float32", "MB", None, before / 1e6),
            row(f"425 outputs behind {last} channels: 8-bit weights", "MB", None, after / 1e6),
        ]
    return table("Table 1: the whole detector (125 outputs of VOC; the 425 that its T-RNN reads are COCO's)", rows)


def _precision() -> dict[str, Any]:
    rows = [row("float", "mAP", 0.5397), row("8 bits", "mAP", 0.5350)]
    return table("Figures: 20 classes of VOC, area under the curve, IoU 0.5", rows)


def _recurrent() -> dict[str, Any]:
    plain, frames, features = (_input_to_hidden(classifier(kind)) for kind in ("plain", "frames", "features"))
    rows = [
        row("plain RNN on frames", "accuracy", 0.6951),
        row("plain RNN on frames: input-to-hidden", "parameters", 58_982_400, plain),
        row("plain RNN on frames: epoch", "s", 1369),
        row("T-RNN on frames", "accuracy", 0.7998),
        row("T-RNN on frames: input-to-hidden", "parameters", 3360, frames),
        row("T-RNN on frames: fewer than plain", "times", 17_554, ratio(plain, frames, 1)),
        row("T-RNN on frames: epoch", "s", 431),
        row("T-RNN on frames: faster than plain", "times", 3.18),
        row("DEEPEYE (detector features)", "accuracy", 0.8609),
        row("DEEPEYE: input-to-hidden", "parameters", 3920, features),
        row("DEEPEYE: fewer than plain on frames", "times", 15_047, ratio(plain, features, 1)),
        row("DEEPEYE: epoch", "s", 477),
        row("DEEPEYE: faster than plain on frames", "times", 2.87),
    ]
    return table("Table 2: UCF11, 6 frames a clip", rows)


def _beside() -> dict[str, Any]:
    """What the printed counts leave out."""
    rows: list[Row] = []
    for kind, text in (("frames", "T-RNN on frames"), ("features", "DEEPEYE")):
        dense, both = classifier(kind), classifier(f"{kind} both")
        train = dense.get_submodule("rnn.input_map")
        assert isinstance(train, TTLinear)
        same = train.in_features * train.out_features
        rows += [
            row(f"{text}: dense input-to-hidden of the same input", "parameters", None, same),
            row(f"{text}: fewer than that", "times", None, ratio(same, _input_to_hidden(dense), 1)),
            row(f"{text}: hidden-to-hidden, dense", "parameters", None, _hidden_to_hidden(dense)),
            row(f"{text}: hidden-to-hidden, tensor train (modes ours)", "parameters", None, _hidden_to_hidden(both)),
            row(f"{text}: whole classifier, hidden-to-hidden dense", "parameters", None, _parameters(dense)),
            row(f"{text}: whole classifier, both in tensor-train form", "parameters", None, _parameters(both)),
        ]
    rows.append(row("plain RNN on frames: whole classifier", "parameters", None, _parameters(classifier("plain"))))
    return table("Beside table 2: what it does not count (11 actions)", rows)


def _input_to_hidden(head: nn.Module) -> int:
    if isinstance(rnn := head.get_submodule("rnn"), nn.LSTM):
        return rnn.get_parameter("weight_ih_l0").numel()
    return _parameters(rnn.get_submodule("input_map"))


def _hidden_to_hidden(head: nn.Module) -> int:
    return _parameters(head.get_submodule("rnn.hidden_map"))


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
