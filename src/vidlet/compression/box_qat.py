"""Steps that train a detector in 8 bits: by DEEPEYE's scheme (Q-YOLO), or for the standard integer kernels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..artifact.exporter import to_onnx_graph
from ..errors import ExportError
from ..models.detector import Detector, MobileDetector
from ..models.tiny_yolo import TinyYolo
from ..onnx_graph import fold_pads, pool_before_rectifying
from ..training.detection import fit_detector
from ..training.region_loss import RegionWeights
from .box_graph import float_kernels
from .deepeye import deepeye_quantize
from .material import BoxMaterial, TrainedBoxes, tuning_share, with_part
from .qat import RESULT, SOURCE, QuantizedNetwork, byte_range, rounded_network, write_back_

DEEPEYE_RATE, QAT_RATE = 0.25, 0.1  # of the recipe's learning rates
BATCH = 8  # pictures that activations are looked at on together
SETTLED = RegionWeights(anchors=0.0)  # boxes that were learned are not drawn to the anchors once more


def deepeye_boxes(trained: TrainedBoxes, amount: float | None, material: BoxMaterial) -> TrainedBoxes:
    """Train the whole detector in DEEPEYE's 8 bits (deepeye.py), batch norm and pooling included.

    Guarantee: the file's integers are those of the network that was trained, to the bit.

    Args:
        amount: epochs; a quarter of the recipe's by default.

    Raises:
        ExportError: the network is no chain of convolutions, or its pictures are not bytes times one number.
    """
    detector = trained.detector
    if detector.zero_point.numel() > 1 or float(detector.zero_point) or detector.scale.numel() > 1:
        raise ExportError("DEEPEYE's scheme takes the bytes of a picture themselves, scaled by one number")
    batches = picture_batches(detector, material.pictures())
    network = deepeye_quantize(detector.network, batches, float(detector.scale))
    student = with_part(detector, "network", network)
    tune_boxes(student, amount, material, DEEPEYE_RATE)
    return TrainedBoxes(detector, integers=network.eval())


def qat_boxes(trained: TrainedBoxes, amount: float | None, material: BoxMaterial) -> TrainedBoxes:
    """Train the detector with the rounding of the integer kernels that the step ``int8`` gives it.

    The last convolution stays in float, as ``int8`` keeps it. Guarantee: the integer file computes what the simulation
    did in training, but where a sum lies on the border of two steps.

    Args:
        amount: epochs; a quarter of the recipe's by default.
    """
    network = SimulatedBoxes(trained.detector, material.pictures())
    tune_boxes(with_part(trained.detector, "network", network), amount, material, QAT_RATE, fixed_size=True)
    result = copy.deepcopy(trained.detector)
    holder = nn.Module()
    holder.network = result.network
    write_back_(holder, network.body)
    result.network.predict.load_state_dict(network.predict.state_dict())
    return TrainedBoxes(result.eval(), ranges=network.body.ranges())


def tune_boxes(
    detector: Detector, amount: float | None, material: BoxMaterial, rate: float, fixed_size: bool = False
) -> None:
    """Train a detector on in place, on the recipe's terms but for ``rate`` times its learning rates.

    Products are of float32: these steps simulate integers.

    Args:
        amount: epochs; None: a quarter of the recipe's.
        fixed_size: all pictures of the network's size, where the network was made for that.
    """
    config = material.config
    epochs = tuning_share(amount, config)
    augment = {**config.augment, "scales": 0} if fixed_size else config.augment
    config = replace(
        config, epochs=epochs, lr=rate * config.lr, extractor_lr=rate * config.extractor_lr, early_stopping=0,
        least_updates=0, augment=augment, precision="float32",
    )  # fmt: skip
    torch.manual_seed(config.seed)
    fit_detector(detector, material.train, material.val, config, device=material.device, weights=SETTLED, title="tune")


def picture_batches(detector: Detector, pictures: Sequence[np.ndarray]) -> list[Tensor]:
    """Pictures uint8 (H, W, 3) as the network takes them, in batches (B, 3, H, W), at least two in the first."""
    stacked = np.stack([*pictures, *pictures[:1]] if len(pictures) == 1 else list(pictures))
    frames = torch.from_numpy(stacked)
    return [detector.normalize(part.permute(0, 3, 1, 2).float()) for part in frames.split(BATCH)]


class SimulatedBoxes(nn.Module):
    """A detector's network as its integer file computes it: all but the last convolution rounded; made for one size."""

    def __init__(self, detector: Detector, pictures: list) -> None:
        super().__init__()
        network = copy.deepcopy(detector.network).eval()
        self.predict = network.predict
        self.map_size: Callable[[int, int], tuple[int, int]] = detector.network.map_size
        network.predict = nn.Identity()  # type: ignore[assignment]
        self.body = _rounded(_Body(network), picture_batches(detector, pictures), detector)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) -> maps (B, A (5 + K), h, w)."""
        maps: Tensor = self.predict(self.body(x))
        return maps


class _Body(nn.Module):
    """Gives the layers of a network the names that they have in a detector."""

    def __init__(self, network: TinyYolo | MobileDetector) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def _rounded(body: nn.Module, batches: list[Tensor], detector: Detector) -> QuantizedNetwork:
    graph = to_onnx_graph(body, {SOURCE: batches[0]}, [RESULT], {SOURCE: {0: "T"}})
    fold_pads(graph, "MaxPool", -math.inf)
    graph = pool_before_rectifying(graph)
    source = byte_range(detector.zero_point, detector.scale)
    with torch.no_grad():
        return rounded_network(graph, batches, source, float_kernels(graph, RESULT))
