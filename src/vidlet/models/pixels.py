"""The extractor without weights: each pixel as a few channels, for networks that see the frames themselves.

Clip networks (clip_networks.py) and recurrent heads on raw pixels read these maps, whole and unpooled. A frame's
channels depend on that frame alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError

CHANNELS = {"rgb": 3, "gray": 1, "gray-sobel": 2}
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Pixels(nn.Module):
    """Normalized pictures (T, 3, H, W), -1 to 1 -> channels (T, C, H, W).

    Args:
        cut: "rgb": the picture; "gray": its intensity, -1 to 1; "gray-sobel": intensity and the magnitude of its Sobel
            gradient, 0 on a flat ground and 2 beside a step from black to white. The last is VIVA's input (Wang et
            al.'s 3-D CNNs) without its third channel, depth, which RGB video does not have.
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
