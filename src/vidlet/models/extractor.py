"""Frame extractors: uint8 frames -> one feature vector, one coarse grid of features, or whole maps a frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError, VidletError, WeightsError
from ..files import sha256_of
from ..recipe import Extractor
from .inceptionv3 import SMALLEST, InceptionV3, load_inception_
from .mobilenetv1 import MobileNetV1
from .mobilenetv2 import ConvNorm, MobileNetV2
from .onnx_file import OnnxBackbone
from .pixels import Pixels
from .tflite import Range
from .tflite_import import import_network
from .weights import MOBILENETV1, WEIGHTS, find_weights, is_torchvision, load_into_, load_state_dict, weights_entry

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of [0, 1] RGB, as torchvision's weights expect them
IMAGENET_STD = (0.229, 0.224, 0.225)


PIXELS: dict[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]] = {  # (zero point, scale) of a byte
    "imagenet": (tuple(255 * m for m in IMAGENET_MEAN), tuple(1 / (255 * s) for s in IMAGENET_STD)),
    "unit": (0.0, 1 / 255),  # 0 to 1
    "signed": (127.5, 1 / 127.5),  # -1 to 1
    "bytes": (0.0, 1.0),  # 0 to 255
}


class FrameExtractor(nn.Module):
    """uint8 frames (T, H, W, 3) -> float32 features (T, C, G, G), or (T, D) where ``grid`` is 0, or whole maps.

    A frame's features depend on that frame alone. ``forward`` is ``features(normalize(frames))``; training may
    augment in between.

    Args:
        backbone: normalized pictures (T, 3, H, W) -> maps (T, C, h, w); has ``out_channels`` and ``map_size``.
        input_size: (H, W) of the frames.
        grid: side of the grid that maps are averaged to, with the bins of torch's adaptive average pooling.
        zero_point, scale: normalization ``(q - zero_point) * scale`` of a frame's bytes; numbers, or one each channel.
        ranges: (scale, zero point) of the backbone's activations as uint8, by layer name, where weights bring them.
        provenance: where the weights come from.
        whole: features are the maps as they are, (T, C, h, w), neither pooled nor averaged; ``grid`` must be 0.
        freeze_norm: keep batch normalization in eval mode also in training: weights of TFLite files have none left
            (it is the identity plus a learned offset), and statistics of a few clips would destroy them. Gradients
            flow through it either way.
    """

    def __init__(
        self,
        backbone: InceptionV3 | MobileNetV1 | MobileNetV2 | OnnxBackbone | Pixels,
        input_size: tuple[int, int] = (224, 224),
        grid: int = 0,
        *,
        zero_point: float | tuple[float, ...] = 128.0,
        scale: float | tuple[float, ...] = 1 / 128,
        ranges: dict[str, Range] | None = None,
        provenance: dict[str, Any] | None = None,
        whole: bool = False,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__()
        height, width = backbone.map_size(*input_size)
        if whole and grid:
            raise RecipeError(f"extractor.grid must be 0 where maps stay whole, got {grid}")
        if grid < 0 or grid > min(height, width):
            raise RecipeError(f"extractor.grid must be 0 to {min(height, width)} (the map's side), got {grid}")
        self.backbone, self.input_size, self.grid = backbone, input_size, grid
        self.ranges, self.whole, self.freeze_norm = ranges, whole, freeze_norm
        self.provenance = dict(provenance or {})
        sides = (height, width) if whole else (grid, grid) if grid else ()
        self.feature_shape = (backbone.out_channels, *sides)
        self.register_buffer("zero_point", _per_channel(zero_point), persistent=False)
        self.register_buffer("scale", _per_channel(scale), persistent=False)
        self.pooled: nn.Module = GridPool(height, width, grid) if grid else nn.Identity()
        self.zero_point: Tensor
        self.scale: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 (T, H, W, 3) -> features float32 (T, *feature_shape)."""
        return self.features(self.normalize(frames))

    def normalize(self, frames: Tensor) -> Tensor:
        """Frames uint8 (T, H, W, 3) -> pictures float32 (T, 3, H, W), about -1 to 1."""
        return (frames.permute(0, 3, 1, 2).float() - self.zero_point) * self.scale

    def features(self, pictures: Tensor) -> Tensor:
        """Normalized pictures (T, 3, H, W) -> features float32 (T, *feature_shape)."""
        return self.pool(self.backbone(pictures))

    def pool(self, maps: Tensor) -> Tensor:
        """Maps of the backbone (T, C, h, w) -> features (T, *feature_shape)."""
        if self.whole:
            return maps
        if not self.grid:
            return maps.mean((2, 3))
        return self.pooled(maps)

    def train(self, mode: bool = True) -> FrameExtractor:
        """Training mode; where ``freeze_norm``, batch normalization keeps its statistics."""
        super().train(mode)
        if self.freeze_norm:
            for layer in self.modules():
                if isinstance(layer, ConvNorm):
                    layer.norm.eval()
        return self


class GridPool(nn.Module):
    """Torch's adaptive average pooling to (G, G): bin i covers floor(i n / G) to ceil((i + 1) n / G) of n positions.

    In a file it is a plain average where G divides both sides, else a product along each side: (h w) G G numbers as one
    matrix would outweigh the convolutions of a network that is cut early.
    """

    def __init__(self, height: int, width: int, grid: int) -> None:
        super().__init__()
        self.kernel = (height // grid, width // grid) if height % grid == width % grid == 0 else None
        self.register_buffer("rows", None if self.kernel else _bins(height, grid), persistent=False)
        self.register_buffer("columns", None if self.kernel else _bins(width, grid), persistent=False)
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, maps: Tensor) -> Tensor:
        """(T, C, h, w) -> (T, C, G, G)."""
        if self.kernel == (1, 1):
            return maps
        if self.kernel:
            return functional.avg_pool2d(maps, self.kernel)
        return ((maps @ self.columns).transpose(2, 3) @ self.rows).transpose(2, 3)  # w -> G, then h -> G


def build_extractor(config: Extractor) -> FrameExtractor:
    """Make the extractor that a recipe names, in eval mode.

    ``config.weights``: "none" (from scratch), a name of the table in weights.py, or the path of a .tflite file or of a
    PyTorch state dict (.pt, .pth).

    Raises:
        RecipeError: no such extractor, or a size, cut or grid that it cannot have.
        WeightsError: weights that are missing, damaged or of another network.
    """
    builder = EXTRACTORS.get(config.name)
    if builder is None:
        raise RecipeError(f"extractor.name must be one of {', '.join(EXTRACTORS)}, got {config.name!r}")
    try:
        return builder(config).eval()
    except VidletError:
        raise
    except Exception as error:
        raise RecipeError(
            f"extractor {config.name}: cannot be made with {config} "
            f"({' '.join(str(error).split())[:200] or type(error).__name__})"
        ) from error


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


def _mobilenetv2(config: Extractor) -> FrameExtractor:
    if min(config.input_size) < 32:
        raise RecipeError(f"extractor.input_size must be at least 32 x 32, got {config.input_size}")
    if config.weights == "none":
        backbone = MobileNetV2(config.width, config.cut)
        return FrameExtractor(backbone, config.input_size, config.grid, provenance={"weights": "none"})
    path, provenance = _weights_file(config.weights)
    if path.suffix == ".tflite":
        return extractor_from_tflite(
            path, config.width, config.cut, config.grid, input_size=config.input_size, provenance=provenance
        )
    state = load_state_dict(path)
    backbone = MobileNetV2(config.width, config.cut)
    load_into_(backbone, state, str(path))
    if not is_torchvision(state):
        return FrameExtractor(backbone, config.input_size, config.grid, provenance=provenance)
    zero_point, scale = PIXELS["imagenet"]
    return FrameExtractor(
        backbone, config.input_size, config.grid, zero_point=zero_point, scale=scale, provenance=provenance
    )


def _mobilenetv1(config: Extractor) -> FrameExtractor:
    if min(config.input_size) < 32:
        raise RecipeError(f"extractor.input_size must be at least 32 x 32, got {config.input_size}")
    if config.weights == "none":
        backbone = MobileNetV1(config.width, config.cut)
        return FrameExtractor(backbone, config.input_size, config.grid, provenance={"weights": "none"})
    weights = config.weights
    if weights == "imagenet":
        if config.width not in MOBILENETV1:
            widths = ", ".join(f"{width:g}" for width in MOBILENETV1)
            raise WeightsError(
                f"weights 'imagenet': MobileNetV1 has them for the widths {widths}, got {config.width:g}"
            )
        weights = MOBILENETV1[config.width]
    path, provenance = _weights_file(weights)
    if path.suffix == ".tflite":
        return extractor_from_tflite(
            path, config.width, config.cut, config.grid,
            input_size=config.input_size, provenance=provenance, network=MobileNetV1,
        )  # fmt: skip
    backbone = MobileNetV1(config.width, config.cut)
    load_into_(backbone, load_state_dict(path), str(path))
    return FrameExtractor(backbone, config.input_size, config.grid, provenance=provenance)


def _inceptionv3(config: Extractor) -> FrameExtractor:
    if min(config.input_size) < SMALLEST:
        raise RecipeError(f"extractor.input_size of inceptionv3 must be at least {SMALLEST}, got {config.input_size}")
    if config.width != 1:
        raise RecipeError(f"extractor.width of inceptionv3 is 1, got {config.width:g}")
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


def _onnx(config: Extractor) -> FrameExtractor:
    path = Path(config.weights).expanduser()
    if path.suffix != ".onnx" or not path.is_file():
        raise WeightsError(f"weights {config.weights!r}: of the extractor 'onnx' they are an .onnx file")
    kind, _, order = config.pixels.partition("-")
    if kind not in PIXELS or order not in ("", "bgr"):
        raise RecipeError(
            f"extractor.pixels must be one of {', '.join(PIXELS)}, or that and -bgr, got {config.pixels!r}"
        )
    zero_point, scale = PIXELS[kind]
    backbone = OnnxBackbone(path, config.cut, config.input_size, bool(order))
    provenance = {**_provenance(path), "tensor": backbone.cut, "pixels": config.pixels}
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


def _detector(config: Extractor) -> FrameExtractor:
    from .detector_file import build_detector_file  # it is a FrameExtractor itself

    return build_detector_file(config)


EXTRACTORS: dict[str, Callable[[Extractor], FrameExtractor]] = {
    "mobilenetv2": _mobilenetv2,
    "mobilenetv1": _mobilenetv1,
    "inceptionv3": _inceptionv3,
    "onnx": _onnx,
    "pixels": _pixels,
    "detector": _detector,
}


def _weights_file(weights: str) -> tuple[Path, dict[str, Any]]:
    """Path and provenance of a table name or a file."""
    path = Path(weights).expanduser()
    if path.suffix in (".tflite", ".pt", ".pth"):
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


def _per_channel(value: float | tuple[float, ...]) -> Tensor:
    """A scalar, or (3, 1, 1)."""
    return torch.tensor(value) if isinstance(value, float) else torch.tensor(value).reshape(3, 1, 1)


def _bins(size: int, grid: int) -> Tensor:
    """(n, G): the share of each position in each bin."""
    weights = torch.zeros(size, grid)
    for i in range(grid):
        start, end = i * size // grid, -(-(i + 1) * size // grid)
        weights[start:end, i] = 1 / (end - start)
    return weights
