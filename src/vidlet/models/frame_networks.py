"""The two image networks of Wang et al.'s rank study, as a head on pixels: each frame alone, then the mean.

Source: Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition", table 1, for CIFAR-10. The first
convolution, 1x1 convolutions and the fully connected layers stay dense. Normalization before each ReLU is ours;
"average pool 4x4" is read as a kernel of 4 x 4, which leaves 2 x 2 places of a 32 x 32 picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError
from ..recipe import nearest
from ..tensor_train import TTConv2d
from .clip_tables import read_train
from .head import Head, Standardize, State, add_frames, draw_frame

POOL, LAST_POOL = 2, 4


@dataclass(frozen=True)
class Layer:
    """One convolution of the study: output channels, kernel side, its train's modes, and whether a pool follows."""

    channels: int
    kernel: int = 3
    train: str = ""
    pool: bool = False


_SAME = Layer(128, 3, "4.8 8.4 4.4 @16")
_WIDE = Layer(256, 3, "4.4 4.4 4.4 4.4 @16")

FRAME_NETWORKS: dict[str, tuple[tuple[Layer, ...], int]] = {  # convolutions, units of the fully connected layer
    "cnn-1": (
        (
            Layer(64),
            Layer(64, 3, "4.4 4.4 4.4 @16", pool=True),
            Layer(128, 3, "4.4 4.8 4.4 @16"),
            Layer(128, 3, "4.8 8.4 4.4 @16", pool=True),
            _SAME,
            _SAME,
        ),
        128,
    ),
    "cnn-2": (
        (
            Layer(64),
            Layer(64, 3, "4.4 4.4 4.4 @16", pool=True),
            Layer(256, 1),
            Layer(256, 3, "4.4 4.4 4.4 4.4 @16", pool=True),
            _WIDE,
            _WIDE,
        ),
        256,
    ),
}


class FrameNetworkHead(Head):
    """CNN-1 or CNN-2 on whole maps, as ``pixels`` gives them; a clip's logits are the mean over its frames.

    In training one random frame of each clip is seen. State: sum (K,) of the logits and count (1,) of the frames.

    Args:
        network: a name of ``FRAME_NETWORKS``.
        tt: "none" or "convolutions": what is in tensor-train form.
        rank: of all trains, clipped to what is attainable; 0: the rule's, 16, as it stands.
        dropout: behind the hidden fully connected layer.

    Raises:
        RecipeError: no such network or form, or features that are no maps.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        network: str = "cnn-1",
        tt: str = "none",
        rank: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if network not in FRAME_NETWORKS:
            known = ", ".join(FRAME_NETWORKS)
            raise RecipeError(f"no frame network {network!r}{nearest(network, FRAME_NETWORKS)}; known: {known}")
        if tt not in ("none", "convolutions"):
            raise RecipeError(f"head frame-network: option tt must be none or convolutions, got {tt!r}")
        if len(feature_shape) != 3:
            raise RecipeError(
                f"head frame-network needs whole maps (C, H, W); the extractor gives {feature_shape}: take pixels"
            )
        layers, units = FRAME_NETWORKS[network]
        c, h, w = feature_shape
        self.standardize = Standardize(c, 2)
        blocks: list[nn.Module] = []
        for layer in layers:
            blocks += [_convolution(c, layer, tt == "convolutions", rank), nn.BatchNorm2d(layer.channels), nn.ReLU()]
            if layer.pool:
                blocks.append(nn.MaxPool2d(POOL, ceil_mode=True))
                h, w = -(-h // POOL), -(-w // POOL)
            c = layer.channels
        last = min(LAST_POOL, h), min(LAST_POOL, w)
        self.body = nn.Sequential(*blocks, nn.AvgPool2d(last))
        self.hidden = nn.Linear(c * (h // last[0]) * (w // last[1]), units)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(units, classes)
        self.state_shapes = {"sum": (classes,), "count": (1,)}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify features (B, T, C, H, W) frame by frame into mean logits (B, K)."""
        x = self.standardize(features)
        if self.training and mask is not None:
            x, mask = draw_frame(x, mask), None
        maps = self.body(x.flatten(0, 1)).flatten(1)  # (B T, C' H' W')
        logits = self.classify(self.dropout(functional.relu(self.hidden(maps))))
        logits = logits.unflatten(0, x.shape[:2])  # (B, T, K)
        total, count = add_frames(logits, mask, state["sum"], state["count"])
        return total / count, {"sum": total, "count": count}


def _convolution(inputs: int, layer: Layer, tt: bool, rank: int) -> nn.Module:
    if not tt or not layer.train:
        made = nn.Conv2d(inputs, layer.channels, layer.kernel, padding="same", bias=False)
        nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
        return made
    in_modes, out_modes, ranks = read_train(layer.train)
    return TTConv2d(in_modes, out_modes, layer.kernel, rank or ranks[0], padding="same", bias=False, clip=bool(rank))
