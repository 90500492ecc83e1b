"""What a detector loses in DEEPEYE's 8 bits: one cause at a time, simulated, each trained on equally long.

    python benchmarks/studies/eight_bits.py runs/hands ../shared/data/detection/hand_gesture --epochs 6

RUN is a run of tiny-yolov2. "deepeye" is the step itself, as its file computes; "the scheme" its simulation in float,
which all other rows change: rows "without" give one thing back to it, rows "float" do one thing of it to the float
network. Each is trained on with the rate and the pictures of the step and scored on the test images. ``--out`` gets a
JSON line a finished row, which is not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidlet.artifact.detector import suppress, torch_boxes
from vidlet.compression import TrainedBoxes, box_qat
from vidlet.compression.box_qat import DEEPEYE_RATE, picture_batches, tune_boxes
from vidlet.compression.deepeye import UNIT, Layer, chain_of, deepeye_quantize, weight_codes, weight_unit
from vidlet.compression.fake_quant import channel_scales, fake_int8, straight_through
from vidlet.compression.material import BoxMaterial, with_part
from vidlet.datasets import BoxTable
from vidlet.metrics import Truth, detection_summary
from vidlet.models.detector import Detector
from vidlet.reports import text_table
from vidlet.runs import RunFolder
from vidlet.tasks import DataSource, task_of_recipe
from vidlet.tasks.box_networks import BoxWriter
from vidlet.training import keep_memory
from vidlet.training.region_loss import RegionWeights
from vidlet.video import resize
from vidlet.video.folder import load_image


@dataclass(frozen=True)
class Scheme:
    """What is done to a network; as it stands: the paper's.

    Args:
        slope: of the leaky rectifier, kept below zero; 0: cut off.
        outputs: how activations become 256 steps of a layer's own ``beta``: "floor", "round", or "float": not at all.
        clipped: activations end at ``beta``.
        weights: "layer": truncated, none of them 0, one unit a layer; "rounded": to the nearest of the same unit;
            "channel": truncated, a unit a channel; "exact": rounded, a unit a channel, as ``int8``; "float".
        last: the last convolution is in 8 bits, too.
    """

    slope: bool = False
    outputs: str = "floor"
    clipped: bool = True
    weights: str = "layer"
    last: bool = True


PAPER = Scheme()
FLOAT = Scheme(True, "float", False, "float", False)
ROWS: dict[str, Scheme | None] = {
    "deepeye": None,
    "the scheme": PAPER,
    "the float network": FLOAT,
    "without: the slope is kept": replace(PAPER, slope=True),
    "without: activations rounded": replace(PAPER, outputs="round"),
    "without: activations in float": replace(PAPER, outputs="float", clipped=False),
    "without: weights rounded": replace(PAPER, weights="rounded"),
    "without: weights with a unit a channel": replace(PAPER, weights="channel"),
    "without: weights rounded, a unit a channel": replace(PAPER, weights="exact"),
    "without: weights in float": replace(PAPER, weights="float"),
    "without: the last layer in float": replace(PAPER, last=False),
    "float, the slope cut off": replace(FLOAT, slope=False),
    "float, activations truncated": replace(FLOAT, outputs="floor", clipped=True),
    "float, weights truncated": replace(FLOAT, weights="layer", last=True),
}


class Simulated(nn.Module):
    """A chain of convolutions under a scheme, pictures (B, 3, H, W) in [0, 1] -> maps; trained behind the rounding."""

    def __init__(self, network: nn.Module, scheme: Scheme, batches: list[Tensor]) -> None:
        super().__init__()
        self.network, self.scheme = copy.deepcopy(network).eval(), scheme
        self.chain: list[Layer] = chain_of(self.network)
        self.log_beta = nn.Parameter(torch.zeros(len(self.chain) - 1))
        with torch.no_grad():
            x = torch.cat(batches)
            for number, layer in enumerate(self.chain[:-1]):
                tops = [_top(self._linear(number, layer, part)) for part in x.split(len(batches[0]))]
                self.log_beta[number] = torch.stack(tops).mean().clamp(min=1e-4).log()
                x = torch.cat([self._layer(number, layer, part) for part in x.split(len(batches[0]))])

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the maps of pictures of this size."""
        found: tuple[int, int] = self.network.map_size(height, width)  # type: ignore[operator]
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Pictures -> maps."""
        for number, layer in enumerate(self.chain):
            x = self._layer(number, layer, x)
        return x

    def _layer(self, number: int, layer: Layer, x: Tensor) -> Tensor:
        x = self._linear(number, layer, x)
        if layer.rectified:
            x = functional.leaky_relu(x, 0.1 if self.scheme.slope else 0.0)
            beta = self.log_beta[number].exp()
            a = x / beta
            a = a.clamp(-1.0, 1.0) if self.scheme.clipped else a
            if self.scheme.outputs != "float":
                whole = (a.detach() * UNIT).floor() if self.scheme.outputs == "floor" else (a.detach() * UNIT).round()
                a = straight_through(a, whole.clamp(max=UNIT - 1) / UNIT)
            x = a * beta
        return layer.pool(x) if layer.pool is not None and not self.scheme.slope else _pooled(layer, x)

    def _linear(self, number: int, layer: Layer, x: Tensor) -> Tensor:
        conv = layer.conv
        weight = conv.weight
        if number < len(self.chain) - 1 or self.scheme.last:
            weight = rounded_weight(weight, self.scheme.weights)
        y = functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        return y if layer.norm is None else layer.norm(y)


def rounded_weight(weight: Tensor, how: str) -> Tensor:
    """A weight (O, I, ...) as a scheme stores it; see ``Scheme``."""
    if how == "float":
        return weight
    if how == "exact":
        return fake_int8(weight, channel_scales(weight))
    unit = weight_unit(weight)
    if how == "channel":
        unit = channel_scales(weight).double().reshape(unit.shape) * (127 / 128)
    if how == "rounded":
        codes = (weight.detach().double() / unit).round().clamp(-127, 127)
        return straight_through(weight, (codes * unit).to(weight))
    return straight_through(weight, weight_codes(weight, unit) * unit.to(weight))


def _pooled(layer: Layer, x: Tensor) -> Tensor:
    """Pooling of values that may be below 0: what stands behind the map counts as nothing."""
    pool = layer.pool
    if pool is None:
        return x
    x = functional.pad(x, (0, pool.behind, 0, pool.behind), value=float("-inf")) if pool.behind else x
    return functional.max_pool2d(x, pool.kernel, pool.stride, ceil_mode=pool.ceil)


def _top(values: Tensor, share: float = 0.999) -> Tensor:
    """The value that ``share`` of the positive ones do not exceed, ()."""
    positive = values[values > 0].flatten()
    return positive.kthvalue(max(1, round(share * len(positive)))).values if len(positive) else torch.ones(())


def scored(detector: Detector, table: BoxTable) -> dict[str, Any]:
    """``map50`` and ``map50_95`` of a network on a table's images."""
    look = torch_boxes(detector)
    images = list(table)
    found = [suppress(*look(resize(load_image(image.path), detector.input_size)[None])) for image in images]
    summary = detection_summary(found, [Truth(*table.truth(image)) for image in images], table.labels)
    return {key: summary[key] for key in ("map50", "map50_95", "images")}


def main() -> None:
    """Run what is not yet in --out, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of tiny-yolov2")
    parser.add_argument("data", help="its images with boxes")
    parser.add_argument("--epochs", type=int, default=6, help="0: none of the rows is trained on (%(default)s)")
    parser.add_argument("--rate", type=float, default=DEEPEYE_RATE, help="of the recipe's rate (%(default)s)")
    parser.add_argument("--pull", action="store_true", help="draw boxes to the anchors again, as untrained ones")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORDS", help="rows whose name holds one of these")
    parser.add_argument("--out", type=Path, default=Path("runs/eight_bits.jsonl"))
    args = parser.parse_args()
    keep_memory()
    if args.pull:
        box_qat.SETTLED = RegionWeights()
    folder = RunFolder.of(args.run)
    plan = folder.recipe()
    task = task_of_recipe(plan, args.data)
    table = task.read(DataSource(args.data))
    networks = task.networks()
    trained = networks.open(folder, plan, table)
    writer = networks.writer(plan, table, trained, networks.prepare(plan, table, trained, False), "cpu")
    assert isinstance(writer, BoxWriter)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {row["key"]: row for row in map(json.loads, args.out.read_text().splitlines())} if args.out.exists() else {}
    shown = []
    for name in ("as trained", *ROWS):
        if not any(word in name for word in args.only):
            continue
        key = json.dumps([Path(args.run).name, args.epochs, args.rate, args.pull, name])
        if key not in known:
            started = time.perf_counter()
            detector = made(name, trained, writer.material, args.epochs, args.rate)
            chosen = {f"val_{name}": value for name, value in scored(detector, table.of_split("val")).items()}
            known[key] = {"key": key, **scored(detector, table.of_split("test")), **chosen,
                          "seconds": round(time.perf_counter() - started, 1)}  # fmt: skip
            with args.out.open("a") as sink:
                sink.write(json.dumps(known[key]) + "\n")
            print(name, f"{known[key]['map50']:.4f} {known[key]['map50_95']:.4f}", flush=True)
        row = known[key]
        figures = [f"{100 * row[key]:.1f}" for key in ("map50", "map50_95", "val_map50_95")]
        shown.append((name, *figures, f"{row['seconds']:.0f}"))
    print(text_table(shown, ("", "mAP .5", "mAP .5:.95", "on validation images", "seconds"), "lrrrr"))


def made(name: str, trained: TrainedBoxes, material: BoxMaterial, epochs: int, rate: float) -> Detector:
    """A row's network, trained on."""
    detector, scheme = trained.detector, ROWS.get(name)
    if name == "as trained":
        return detector
    batches = picture_batches(detector, material.pictures())
    if scheme is None:
        network: nn.Module = deepeye_quantize(detector.network, batches, float(detector.scale))
    else:
        network = Simulated(detector.network, scheme, batches)
    student = with_part(detector, "network", network.eval())
    if epochs:
        tune_boxes(student, epochs, material, rate)
    return student


if __name__ == "__main__":
    main()
