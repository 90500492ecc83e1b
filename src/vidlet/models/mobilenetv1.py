"""MobileNetV1, cut at any block, with PyTorch's or TensorFlow's padding: the smallest pretrained extractors.

Source: Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
arXiv:1704.04861, table 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import RecipeError
from .mobilenetv2 import PADDINGS, ConvNorm, Stack, initialize

# (output channels at width 1, stride) of the thirteen separable convolutions; block10 ends the 512-channel stage
STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
BLOCKS = len(STAGES)
CUTS = tuple(f"block{i}" for i in range(BLOCKS))


def scaled(channels: int, width: float) -> int:
    """Channels times the width, rounded down, at least 8 (the rule of the authors' code)."""
    return max(8, int(channels * width))


class Separable(nn.Module):
    """3x3 depthwise convolution, then a 1x1 convolution, each with batch normalization and ReLU6."""

    residual = False

    def __init__(self, inputs: int, outputs: int, stride: int, padding: str) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, stride, groups=inputs, padding=padding)
        self.pointwise = ConvNorm(inputs, outputs, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        return self.pointwise(self.depthwise(x))


class MobileNetV1(Stack):
    """Pictures (B, 3, H, W) -> the feature map at ``cut``; parameters behind the cut do not exist.

    Args:
        width: multiplies all channels; ImageNet weights exist for 0.25, 0.5, 0.75 and 1.
        cut: "block0" to "block12" (the separable convolutions); "block12" is the whole network before its average.
        padding: "symmetric", as PyTorch pads, or "same", as TensorFlow does (differs at stride 2).
        classes: adds a linear classifier on the averaged last map, used by :meth:`logits`; needs cut "block12".
    """

    def __init__(
        self, width: float = 1.0, cut: str = CUTS[-1], padding: str = "symmetric", classes: int | None = None
    ) -> None:
        super().__init__()
        if cut not in CUTS:
            raise RecipeError(
                f"extractor.cut of mobilenetv1 must be one of block0 ... {CUTS[-1]} (the whole network), got {cut!r}"
            )
        if padding not in PADDINGS:
            raise RecipeError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
        if not 0.1 <= width <= 4:
            raise RecipeError(f"extractor.width must be between 0.1 and 4, got {width}")
        if classes is not None and cut != CUTS[-1]:
            raise RecipeError(f"a classifier needs extractor.cut = {CUTS[-1]!r}, got {cut!r}")
        self.width, self.cut, self.padding = width, cut, padding
        self.append("stem", ConvNorm(3, scaled(32, width), 3, 2, padding=padding), scaled(32, width))
        for name, (channels, stride) in zip(CUTS, STAGES, strict=True):
            outputs = scaled(channels, width)
            self.append(name, Separable(self.out_channels, outputs, stride, padding), outputs)
            if name == cut:
                break
        self.classifier = nn.Linear(self.out_channels, classes) if classes is not None else None
        self.apply(initialize)
