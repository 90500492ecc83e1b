"""tiny-YOLOv2 as darknet defines it, at any number of classes, input size and width.

Source: Redmon & Farhadi 2017, "YOLO9000: Better, Faster, Stronger", arXiv:1612.08242; darknet's yolov2-tiny-voc.cfg.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError
from .mobilenets import ConvNorm, round_channels

CHANNELS = (16, 32, 64, 128, 256, 512, 1024, 1024)  # of the eight 3x3 convolutions (COCO's cfg: 512 in the last)
HALVED = 5  # so many of them are followed by a pooling of stride 2
STRIDE = 2**HALVED
SLOPE = 0.1  # of the leaky rectifier
PRIOR = 0.01  # objectness that a network begins with: most cells are empty

VOC_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))  # width, height in cells
COCO_ANCHORS = (
    (0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828)
)  # fmt: skip


class LeakyBlock(ConvNorm):
    """3x3 convolution, batch normalization, leaky rectifier; then the pooling that follows it, if any.

    Args:
        pool: 2 halves the map (an odd last row counts as a whole one, as in darknet); 1 keeps its size, taking
            the maximum with the neighbors below and to the right; 0: none.
    """

    def __init__(self, inputs: int, outputs: int, pool: int = 0) -> None:
        super().__init__(inputs, outputs, 3)
        self.act = nn.LeakyReLU(SLOPE)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / pool, W / pool), rounded up."""
        x = super().forward(x)
        if self.pool == 1:
            x = functional.pad(x, (0, 1, 0, 1), value=float("-inf"))  # behind and below only
            return functional.max_pool2d(x, 2, 1)
        return functional.max_pool2d(x, 2, 2, ceil_mode=True) if self.pool else x


class TinyYolo(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> map (B, A (5 + K), H / 32, W / 32).

    A cell's channels are, anchor by anchor, tx ty tw th, objectness, and K class logits (``region.decode``).

    Args:
        classes: K.
        anchors: A, the number of anchors.
        width: multiplies all channels of the eight convolutions, which are kept multiples of 8.
        channels: those channels themselves, instead of ``width``.
    """

    def __init__(
        self, classes: int, anchors: int = 5, width: float = 1.0, channels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if not 0.05 <= width <= 4:
            raise RecipeError(f"the width of tiny-YOLOv2 must be between 0.05 and 4, got {width}")
        self.channels = tuple(channels) if channels else tuple(round_channels(c * width) for c in CHANNELS)
        assert len(self.channels) == len(CHANNELS)
        self.classes, self.anchors = classes, anchors
        inputs = 3
        for i, outputs in enumerate(self.channels):
            pool = 2 if i < HALVED else 1 if i == HALVED else 0
            self.add_module(f"conv{i + 1}", LeakyBlock(inputs, outputs, pool))
            inputs = outputs
        self.out_channels = anchors * (5 + classes)
        self.predict = nn.Conv2d(inputs, self.out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_in")
        start_predictions_(self.predict, anchors)

    @property
    def blocks(self) -> list[LeakyBlock]:
        """The eight convolutions in order."""
        return [block for block in self.children() if isinstance(block, LeakyBlock)]

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> the map (B, A (5 + K), ceil(H / 32), ceil(W / 32))."""
        for block in self.blocks:
            x = block(x)
        return self.predict(x)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the map; each pooling of stride 2 rounds up."""
        return -(-height // STRIDE), -(-width // STRIDE)


def start_predictions_(layer: nn.Conv2d, anchors: int) -> None:
    """Small weights, and an objectness of ``PRIOR``, so that the empty cells do not drown the first steps."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    bias = layer.bias.detach().view(anchors, -1)  # (A, 5 + K)
    bias.zero_()
    bias[:, 4] = -4.595  # log(PRIOR / (1 - PRIOR))
