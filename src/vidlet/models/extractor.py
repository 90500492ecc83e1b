"""A frame extractor: uint8 frames -> one feature vector, one coarse grid of features, or whole maps a frame.

Beside the one class stand those whose features no network computes: pixels as they are, and features that are stored.
``Taps`` computes several cuts of one network in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError
from .mobilenets import ConvNorm, Stack
from .onnx_file import OnnxBackbone
from .tflite import Range

CHANNELS = {"rgb": 3, "gray": 1, "gray-sobel": 2, "intensity-depth-sobel": 3}  # of Pixels
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
SCALE, BIAS = 4 / 255, 4 / 512 - 2  # of datasets.frame_record.dequantize


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

    Attributes:
        inputs: what a file with this extractor takes, and the size of the last dimension of each.
    """

    inputs: Mapping[str, int] = {"frames": 3}

    def __init__(
        self,
        backbone: Stack | OnnxBackbone | Pixels,
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


class Pixels(nn.Module):
    """Normalized pictures (T, 3, H, W), -1 to 1 -> channels (T, C, H, W), whole and unpooled: no weights.

    Clip networks (clip_networks.py) and recurrent heads on raw pixels read these maps.

    Args:
        cut: "rgb": the picture; "gray": its intensity, -1 to 1; "gray-sobel": intensity and the magnitude of its Sobel
            gradient, 0 on a flat ground and 2 beside a step from black to white, which is VIVA's input (Wang et al.'s
            3-D CNNs) without its third channel, depth, which RGB video does not have; "intensity-depth-sobel": that
            input, of pictures whose red is intensity and whose green is depth (tasks/joint_depth.py).
    """

    luma: Tensor

    def __init__(self, cut: str = "rgb") -> None:
        super().__init__()
        if cut not in CHANNELS:
            raise RecipeError(f"extractor.cut of pixels must be one of {', '.join(CHANNELS)}, got {cut!r}")
        self.cut, self.out_channels = cut, CHANNELS[cut]
        self.register_buffer("luma", torch.tensor(LUMA).reshape(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (T, 3, H, W) -> channels (T, C, H, W)."""
        if self.cut == "rgb":
            return pictures
        if self.cut == "intensity-depth-sobel":
            return torch.cat([pictures[:, :2], sobel_magnitude(pictures[:, :1])], dim=1)
        gray = (pictures * self.luma).sum(1, keepdim=True)  # (T, 1, H, W)
        return gray if self.cut == "gray" else torch.cat([gray, sobel_magnitude(gray)], dim=1)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the maps: the picture's."""
        return height, width


def sobel_magnitude(gray: Tensor) -> Tensor:
    """Length of the Sobel gradient of (T, 1, H, W), border pixels repeated: 1 beside a step of height 1.

    Written as sums of shifted pictures: a convolution with one channel in is slower, and would look like a layer.
    """
    around = functional.pad(gray, (1, 1, 1, 1), mode="replicate")
    down = around[:, :, :-2] + 2 * around[:, :, 1:-1] + around[:, :, 2:]  # (T, 1, H, W + 2), smoothed along columns
    across = around[..., :-2] + 2 * around[..., 1:-1] + around[..., 2:]  # (T, 1, H + 2, W), along rows
    horizontal = down[..., 2:] - down[..., :-2]
    vertical = across[:, :, 2:] - across[:, :, :-2]
    return (horizontal.square() + vertical.square()).sqrt() / 4


class StoredFeatures(FrameExtractor):
    """Stored features as an extractor: the codes uint8 of each modality, an input each -> numbers side by side.

    What an artifact does of them is dequantization; they were computed elsewhere (YouTube-8M records, or an .npz), and
    docs/data.md says how they are quantized. Training and compression handle a clip as one array of codes (T, D of
    all); artifact/feeds.py cuts it for the file.

    Args:
        widths: numbers a frame of each modality, {"rgb": 1024, "audio": 128}.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__(_Codes(sum(widths.values())), (1, 1), provenance={"weights": "none"})  # type: ignore[arg-type]
        self.inputs = dict(widths)

    def forward(self, *codes: Tensor) -> Tensor:
        """Codes uint8 (T, width) of each modality -> features float32 (T, D)."""
        joined = codes[0] if len(codes) == 1 else torch.cat(codes, 1)
        return joined.float() * SCALE + BIAS


class _Codes(nn.Module):
    """Stands for a network where there is none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.out_channels = size

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """The side of a map of one point."""
        return 1, 1

    def forward(self, pictures: Tensor) -> Tensor:
        """Nothing is done."""
        return pictures


class Taps(nn.Module):
    """The features of several cuts of one network, for the price of the deepest.

    Args:
        cuts: cut ("block6") -> its extractor; weights, input size and normalization are those of one network.
    """

    def __init__(self, cuts: Mapping[str, FrameExtractor]) -> None:
        super().__init__()
        depth = {name: len(network_of(extractor).parts) for name, extractor in cuts.items()}
        self.deepest = cuts[max(cuts, key=lambda name: depth[name])]
        self.names = tuple(cuts)
        self.extractors = nn.ModuleList(cuts.values())
        self.input_size = self.deepest.input_size

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Frames uint8 (T, H, W, 3) -> the features (T, ...) of each cut, in the order of ``names``."""
        maps, found = self.deepest.normalize(frames), {}
        for part in network_of(self.deepest).parts:
            maps = self.deepest.backbone.get_submodule(part)(maps)
            if part in self.names:
                extractor = self.extractors[self.names.index(part)]
                assert isinstance(extractor, FrameExtractor)
                found[part] = extractor.pool(maps)
        return tuple(found[name] for name in self.names)


def network_of(extractor: FrameExtractor) -> Stack:
    """The network of an extractor of which several cuts can be taken.

    Raises:
        RecipeError: it is not made of blocks.
    """
    if not isinstance(extractor.backbone, Stack):
        raise RecipeError("extractor.cut: several cuts are of a network of blocks, as mobilenetv2 is")
    return extractor.backbone


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
