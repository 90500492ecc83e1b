"""Detectors: uint8 frames -> a map of cells that ``region.decode`` reads as boxes.

Two networks: tiny-YOLOv2 (tiny_yolo.py), and MobileNetV2 cut at a block, with a small head. Both end in one 1x1
convolution, whose map is also what a video's frames can be told apart by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RecipeError, WeightsError
from ..files import sha256_of
from ..recipe import Extractor, nearest
from ..runs import DETECTOR
from .darknet import load_darknet
from .extractors import build_extractor
from .mobilenets import ConvNorm, MobileNetV2, round_channels
from .options import checked_options, refuse_unread
from .region import corners, decode
from .tiny_yolo import TinyYolo, start_predictions_
from .weights import load_state_dict


class MobileDetector(nn.Module):
    """MobileNetV2 up to a block, two separable 3x3 convolutions, and the map.

    Args:
        backbone: its cut decides the cells' size: 32 pixels behind block13, 16 from block6 to block12.
        freeze_norm: batch normalization of the backbone keeps its statistics (weights of TFLite files have none).
    """

    def __init__(self, backbone: MobileNetV2, classes: int, anchors: int, freeze_norm: bool = False) -> None:
        super().__init__()
        self.backbone, self.freeze_norm = backbone, freeze_norm
        self.classes, self.anchors, self.out_channels = classes, anchors, anchors * (5 + classes)
        inner = round_channels(256 * min(1.0, backbone.width))
        inputs = backbone.out_channels
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [ConvNorm(inputs, inputs, 3, groups=inputs), ConvNorm(inputs, inner)]
            inputs = inner
        self.neck = nn.Sequential(*layers)
        self.predict = nn.Conv2d(inputs, self.out_channels, 1)
        start_predictions_(self.predict, anchors)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized pictures (B, 3, H, W) -> the map (B, A (5 + K), h, w)."""
        return self.predict(self.neck(self.backbone(x)))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the map."""
        return self.backbone.map_size(height, width)

    def train(self, mode: bool = True) -> MobileDetector:
        """Training mode; where ``freeze_norm``, the backbone's batch normalization keeps its statistics."""
        super().train(mode)
        if self.freeze_norm:
            for layer in self.backbone.modules():
                if isinstance(layer, ConvNorm):
                    layer.norm.eval()
        return self


class Detector(nn.Module):
    """uint8 frames (B, H, W, 3) -> boxes and scores, with all that a detector must know.

    Args:
        network: normalized pictures (B, 3, H, W) -> maps (B, A (5 + K), h, w); has ``classes`` and ``map_size``.
        anchors: (A, 2), width and height in cells.
        input_size: (H, W).
        zero_point, scale: pictures are ``(q - zero_point) * scale`` of a frame's bytes.
        plan: what ``build_network`` needs to make the network again.
    """

    def __init__(
        self,
        network: TinyYolo | MobileDetector,
        anchors: np.ndarray,
        input_size: tuple[int, int],
        zero_point: float | tuple[float, ...] = 0.0,
        scale: float | tuple[float, ...] = 1 / 255,
        plan: DetectorPlan | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.input_size, self.plan = network, input_size, plan
        self.provenance = dict(provenance or {})
        self.register_buffer("anchors", torch.as_tensor(np.asarray(anchors), dtype=torch.float32))
        self.register_buffer("zero_point", _per_channel(zero_point))
        self.register_buffer("scale", _per_channel(scale))
        self.anchors: Tensor
        self.zero_point: Tensor
        self.scale: Tensor
        assert self.anchors.shape == (network.anchors, 2)

    @property
    def classes(self) -> int:
        """K."""
        return self.network.classes

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames uint8 (B, H, W, 3) -> corners x1 y1 x2 y2 (B, N, 4) in [0, 1] and scores (B, N, K)."""
        boxes, scores = decode(self.maps(frames), self.anchors)
        return corners(boxes), scores

    def maps(self, frames: Tensor) -> Tensor:
        """Frames uint8 (B, H, W, 3) -> the network's maps (B, A (5 + K), h, w)."""
        return self.network(self.normalize(frames.permute(0, 3, 1, 2).float()))

    def normalize(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) of 0..255 as the network wants them."""
        return (pictures - self.zero_point) * self.scale


@dataclass(frozen=True)
class DetectorPlan:
    """What must be known to build a detector's network: which, how wide, of which classes."""

    name: str
    labels: tuple[str, ...]
    input_size: tuple[int, int]
    width: float = 1.0
    cut: str = "block12"
    channels: tuple[int, ...] = ()


def build_detector(config: Extractor, labels: Sequence[str], anchors: np.ndarray) -> Detector:
    """Make the detector that a recipe's ``extractor`` names, in eval mode.

    ``config.weights``: "none" (from scratch), the file of another run (``detector.pt``), for mobilenetv2 what
    ``build_extractor`` takes (then the head starts from scratch), for tiny-yolov2 darknet's ``.weights`` with its
    ``.cfg`` beside it.

    Args:
        anchors: (A, 2), width and height relative to the picture.

    Raises:
        RecipeError: no such detector, or a size or cut that it cannot have.
        WeightsError: weights that are missing, damaged or of another network.
    """
    builder = DETECTORS.get(config.name)
    if builder is None:
        known = ", ".join(DETECTORS)
        raise RecipeError(f"a detector's extractor.name must be one of {known}, got {config.name!r}"
                          f"{nearest(config.name, DETECTORS)}")  # fmt: skip
    checked_options(f"extractor {config.name}", config.options, {})
    refuse_unread(f"a detector of {config.name}", config, READS[config.name])
    if min(config.input_size) < 64:
        raise RecipeError(f"a detector's extractor.input_size must be at least 64 x 64, got {config.input_size}")
    if Path(config.weights).name == DETECTOR or Path(config.weights).suffix == ".detector":
        return load_detector(config.weights, config.input_size)
    return builder(config, tuple(labels), np.asarray(anchors)).eval()


def _tiny_yolo(config: Extractor, labels: tuple[str, ...], anchors: np.ndarray) -> Detector:
    if config.weights.endswith(".weights"):
        return _from_darknet(config, labels, anchors)
    if config.weights != "none":
        raise RecipeError(
            f"extractor.weights of {config.name} must be 'none', a run's {DETECTOR} or a .weights file of darknet's, "
            f"got {config.weights!r}"
        )
    network = TinyYolo(len(labels), len(anchors), config.width)
    plan = DetectorPlan("tiny-yolov2", labels, config.input_size, channels=network.channels)
    return Detector(network, _in_cells(anchors, network, config), config.input_size, plan=plan,
                    provenance={"weights": "none"})  # fmt: skip


def _from_darknet(config: Extractor, labels: tuple[str, ...], anchors: np.ndarray) -> Detector:
    """A detector that starts from darknet's files, whose .cfg decides how wide it is.

    The last layer and its anchors are taken where they are of as many classes and anchors as the data's, and a .names
    file, if one lies beside, says the same classes; else that layer starts from scratch.
    """
    weights = Path(config.weights).expanduser()
    cfg, names = weights.with_suffix(".cfg"), weights.with_suffix(".names")
    if not cfg.is_file():
        raise WeightsError(f"{weights}: its layers are described by {cfg.name}, which must lie beside it")
    network, found, _ = load_darknet(cfg, weights)
    said = tuple(names.read_text("utf-8").splitlines()[: found.classes]) if names.is_file() else labels
    in_cells = found.anchors
    if (found.classes, len(found.anchors), said) != (len(labels), len(anchors), labels):
        whole = TinyYolo(len(labels), len(anchors), channels=found.channels)
        body = {name: value for name, value in network.state_dict().items() if not name.startswith("predict.")}
        whole.load_state_dict(body, strict=False)
        network, in_cells = whole, _in_cells(anchors, whole, config)
    plan = DetectorPlan("tiny-yolov2", labels, config.input_size, channels=network.channels)
    provenance = {"weights": "darknet", "file": weights.name, "sha256": sha256_of(weights), "licence": "not stated"}
    return Detector(network, in_cells, config.input_size, plan=plan, provenance=provenance)


def _mobilenetv2(config: Extractor, labels: tuple[str, ...], anchors: np.ndarray) -> Detector:
    extractor = build_extractor(
        Extractor("mobilenetv2", config.width, config.input_size, config.cut, 0, config.weights)
    )
    backbone = cast(MobileNetV2, extractor.backbone)
    network = MobileDetector(backbone, len(labels), len(anchors), extractor.freeze_norm)
    plan = DetectorPlan("mobilenetv2", labels, config.input_size, config.width, config.cut)
    detector = Detector(network, _in_cells(anchors, network, config), config.input_size, plan=plan,
                        provenance=extractor.provenance)  # fmt: skip
    detector.zero_point, detector.scale = extractor.zero_point.clone(), extractor.scale.clone()
    return detector


DETECTORS: dict[str, Callable[[Extractor, tuple[str, ...], np.ndarray], Detector]] = {
    "tiny-yolov2": _tiny_yolo, "mobilenetv2": _mobilenetv2
}  # fmt: skip
READS = {"tiny-yolov2": ("width",), "mobilenetv2": ("width", "cut")}  # of width, cut and grid, which a builder reads


def detector_state(detector: Detector) -> dict[str, Any]:
    """All of a detector as plain values and tensors, for ``torch.save``."""
    plan = detector.plan
    assert plan is not None, "a detector without a plan cannot be stored"
    freeze = getattr(detector.network, "freeze_norm", False)
    return {
        "detector": {**vars(plan), "input_size": list(detector.input_size), "freeze_norm": freeze},
        "provenance": detector.provenance,
        "state_dict": {name: value.detach().cpu() for name, value in detector.state_dict().items()},
    }


def load_detector(path: str | Path, input_size: tuple[int, int] | None = None) -> Detector:
    """Read the ``detector.pt`` of a run, in eval mode; ``input_size`` as it was trained, unless told.

    Raises:
        WeightsError: absent, damaged, or not such a file; no code of the file is run.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["detector"]
    except KeyError as error:
        raise WeightsError(f"{path}: not a detector (it was stored without its labels and anchors)") from error
    except Exception as error:  # what torch.load raises has no common class
        load_state_dict(path)  # says it in our words
        raise WeightsError(f"{path}: not a detector ({error})") from error
    state = load_state_dict(path)
    try:
        freeze = bool(stored.pop("freeze_norm"))
        stored |= {key: tuple(stored[key]) for key in ("labels", "input_size", "channels")}
        plan = DetectorPlan(**stored)
        anchors, labels = state["anchors"], len(plan.labels)
        network: TinyYolo | MobileDetector
        if plan.name == "tiny-yolov2":
            network = TinyYolo(labels, len(anchors), channels=plan.channels)
        else:
            network = MobileDetector(MobileNetV2(plan.width, plan.cut), labels, len(anchors), freeze)
        detector = Detector(network, anchors.numpy(), input_size or plan.input_size, plan=plan)
        detector.zero_point, detector.scale = state["zero_point"], state["scale"]
        detector.load_state_dict(state)
    except (KeyError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise WeightsError(f"{path}: not a whole detector ({str(error).splitlines()[0][:120]})") from error
    return detector.eval()


def _in_cells(anchors: np.ndarray, network: TinyYolo | MobileDetector, config: Extractor) -> np.ndarray:
    height, width = network.map_size(*config.input_size)
    return anchors * np.array([width, height])


def _per_channel(value: float | tuple[float, ...]) -> Tensor:
    """A scalar, or (3, 1, 1)."""
    return torch.tensor(value) if isinstance(value, float) else torch.tensor(value).reshape(3, 1, 1)
