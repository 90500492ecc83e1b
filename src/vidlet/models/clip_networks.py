"""Clip networks: 3-D convolutions over the last frames, dense or as tensor trains, as a head on pixels.

Source: Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition"; the layers are in clip_tables.py. A
network of L frames scores the last L of those it has seen: its state is a ring of L - 1 frames, and what a frame costs
in a stream is the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import RecipeError
from ..recipe import nearest
from ..tensor_train import TTConv3d, TTLinear, channel_modes, conv_ranks, linear_modes, linear_ranks
from .clip_tables import CLIP_NETWORKS, ClipTable, Convolution, Linear, Triple, read_train
from .head import Head, Standardize, State, last_frames

FORMS = ("none", "convolutions", "linear", "both")


class ConvolutionBlock(nn.Module):
    """Convolution ("same"), batch normalization where asked for, ReLU, and a pool that rounds up."""

    def __init__(self, convolution: nn.Conv3d | TTConv3d, pool: Triple, norm: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm3d(convolution.out_channels) if norm else None
        self.pool = nn.MaxPool3d(pool, ceil_mode=True) if max(pool) > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T', H', W')."""
        x = self._convolved(x)
        if self.norm is not None:
            x = self.norm(x)
        return functional.relu(self.pool(x))  # a maximum and ReLU may change places: fewer numbers this way

    def _convolved(self, x: Tensor) -> Tensor:
        """Clips shorter than the kernel in float32: in bfloat16 a processor's gradients of its weights are rubbish."""
        if not (self.training and x.device.type == "cpu" and 1 < x.shape[2] < self.convolution.kernel_size[0]):
            convolved: Tensor = self.convolution(x)
            return convolved
        with torch.autocast("cpu", enabled=False):
            return self.convolution(x.float())


class ClipNetwork3d(nn.Module):
    """Clips (B, C, L, H, W) -> logits (B, K), by a table of layers.

    Args:
        feature_shape: (C, H, W) of a frame.
        form: what is in tensor-train form: "none", "convolutions", "linear" or "both"; the first convolution and the
            output layer never are.
        rank: of all trains, clipped to what is attainable; 0: the table's ranks, as they stand.
        dropout: share of each hidden fully connected layer's outputs that is dropped in training.
        fitted: clips may have another size than the table's; trains that do not fit it take our modes and the paper's
            rank rule.
    """

    def __init__(
        self,
        name: str,
        feature_shape: tuple[int, int, int],
        classes: int,
        frames: int = 0,
        form: str = "none",
        rank: int = 0,
        dropout: float = 0.5,
        fitted: bool = False,
    ) -> None:
        super().__init__()
        table = find_table(name)
        c, h, w = feature_shape
        self.frames = frames or table.frames
        blocks: list[nn.Module] = []
        for i, layer in enumerate(table.convolutions, 1):
            where = f"{name}, convolution {i}"
            made = _convolution(where, c, layer, form in ("convolutions", "both"), rank)
            blocks.append(ConvolutionBlock(made, layer.pool, table.norm))
            c = layer.channels
        self.convolutions = nn.ModuleList(blocks)
        size = math.prod(table.maps(self.frames, h, w))
        hidden: list[nn.Module] = []
        for i, dense in enumerate(table.linear, 1):
            where = f"{name}, fully connected layer {i}"
            hidden.append(_linear(where, size, dense, form in ("linear", "both"), rank, table, fitted))
            size = dense.size
        self.linear = nn.ModuleList(hidden)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(size, classes)
        self.apply(_initialize)
        nn.init.normal_(self.classify.weight, std=0.01)  # all classes alike to begin with

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, C, L, H, W) -> logits (B, K)."""
        x = clips
        if self.training:  # channels last: maxima over pictures laid out so are a seventh of the time (lab notes)
            x = x.contiguous(memory_format=torch.channels_last_3d)
        for block in self.convolutions:
            x = block(x)
        x = x.flatten(1)  # (B, C' T' H' W')
        for layer in self.linear:
            x = self.dropout(functional.relu(layer(x)))
        logits: Tensor = self.classify(x)
        return logits


class ClipNetworkHead(Head):
    """A clip network as a head on whole maps, as ``pixels`` gives them: scores of the last L frames.

    While fewer than L frames were seen, the first one seen stands for those before it. State: ring (L - 1, C, H, W),
    the last frames, the newest at its end; count (1,), frames seen, at most L.

    Args:
        network: a name of ``CLIP_NETWORKS``.
        frames: L; 0: the network's own.
        tt: what is in tensor-train form: "none", "convolutions", "linear" or "both".
        rank: of all trains; 0: the table's.
        dropout: behind each hidden fully connected layer; the paper drops .5 of dense ones and .3 of trains.
        pixel_drop: share of the pixels of the last channel (Sobel's) that are set to 0 in training.
        fitted: trains fit frames of any size and number; else those of the table are an error where they do not.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        classes: int,
        network: str = "viva-1",
        frames: int = 0,
        tt: str = "none",
        rank: int = 0,
        dropout: float = 0.5,
        pixel_drop: float = 0.0,
        fitted: bool = False,
    ) -> None:
        super().__init__()
        if len(feature_shape) != 3:
            raise RecipeError(
                f"head clip-network needs whole maps (C, H, W); the extractor gives {feature_shape}: take pixels"
            )
        if tt not in FORMS:
            raise RecipeError(f"head clip-network: option tt must be one of {', '.join(FORMS)}, got {tt!r}")
        if frames < 0 or frames == 1:
            raise RecipeError(f"head clip-network: option frames must be 0 (the network's own) or >= 2, got {frames}")
        c, h, w = feature_shape
        self.standardize = Standardize(c, 2)
        self.network = ClipNetwork3d(network, (c, h, w), classes, frames, tt, rank, dropout, fitted)
        self.frames, self.pixel_drop = self.network.frames, pixel_drop
        self.state_shapes = {"ring": (self.frames - 1, c, h, w), "count": (1,)}

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Classify the last L frames of features (B, T, C, H, W) and of the ring into logits (B, K)."""
        if self.training and self.pixel_drop:
            features = _drop_last_channel(features, self.pixel_drop)
        clip, after = last_frames(features, state, mask, self.frames)
        return self.network(self.standardize(clip).transpose(1, 2)), after  # (B, C, L, H, W)


def find_table(name: str) -> ClipTable:
    """The table of a network.

    Raises:
        RecipeError: no such network, with the nearest.
    """
    if name not in CLIP_NETWORKS:
        raise RecipeError(f"no clip network {name!r}{nearest(name, CLIP_NETWORKS)}; known: {', '.join(CLIP_NETWORKS)}")
    return CLIP_NETWORKS[name]


def count_weights(name: str, classes: int, form: str = "none", channels: int = 3) -> tuple[int, int]:
    """Weights of the convolutions and of the whole network, without biases and normalization, as the paper counts.

    Made without memory for the weights (a dense viva-5 would take 340 MB).
    """
    table = find_table(name)
    with torch.device("meta"):
        network = ClipNetwork3d(name, (channels, *table.size), classes, form=form)
    weights = {key: p.numel() for key, p in network.named_parameters() if p.ndim > 1}
    return sum(n for key, n in weights.items() if key.startswith("convolutions.")), sum(weights.values())


def _convolution(where: str, inputs: int, layer: Convolution, tt: bool, rank: int) -> nn.Conv3d | TTConv3d:
    if not tt or not layer.train:
        return nn.Conv3d(inputs, layer.channels, layer.kernel, padding="same")
    if layer.train == "auto":
        in_modes, out_modes = channel_modes(inputs, layer.channels)
        ranks: Sequence[int] = conv_ranks(in_modes, out_modes)
    else:
        in_modes, out_modes, ranks = read_train(layer.train)
    _fits(where, in_modes, inputs)
    given = rank or (ranks[0] if len(ranks) == 1 else ranks)
    return TTConv3d(in_modes, out_modes, layer.kernel, given, padding="same", clip=bool(rank))


def _linear(
    where: str, inputs: int, layer: Linear, tt: bool, rank: int, table: ClipTable, fitted: bool
) -> nn.Linear | TTLinear:
    if not tt or not layer.train:
        return nn.Linear(inputs, layer.size)
    known = None if layer.train == "auto" else read_train(layer.train)
    if known is None or (fitted and math.prod(known[0]) != inputs):
        in_modes, out_modes = linear_modes(inputs, layer.size)
        ranks: Sequence[int] = linear_ranks(in_modes, out_modes)
    else:
        in_modes, out_modes, ranks = known
    hint = (
        f"; its train is for {table.frames} frames of {table.size[0]} x {table.size[1]} "
        "(head.options.fitted=true makes another for these)"
    )
    _fits(where, in_modes, inputs, hint)
    given = rank or (ranks[0] if len(ranks) == 1 else ranks)
    return TTLinear(in_modes, out_modes, given, clip=bool(rank), variance=2 / inputs)


def _fits(where: str, modes: Sequence[int], inputs: int, hint: str = "") -> None:
    if math.prod(modes) != inputs:
        raise RecipeError(
            f"{where}: modes {tuple(modes)} multiply to {math.prod(modes)}, its inputs are {inputs}{hint}"
        )


def _initialize(module: nn.Module) -> None:
    """He et al. 2015 for dense layers; trains draw their cores themselves."""
    if isinstance(module, (nn.Conv3d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _drop_last_channel(features: Tensor, share: float) -> Tensor:
    """Set a share of the pixels of the last channel of (B, T, C, H, W) to 0."""
    kept = torch.rand_like(features[:, :, -1:]) >= share
    return torch.cat([features[:, :, :-1], features[:, :, -1:] * kept], dim=2)
