"""Tensor-train cores, layers, decomposition and rank choice."""

from .conv import TTConv2d, TTConv3d
from .convert import (
    from_conv,
    from_linear,
    from_recurrent,
    kernel_to_cores,
    matrix_to_cores,
    relative_error,
    to_conv,
    to_linear,
    to_recurrent,
    tt_svd,
)
from .cores import (
    channel_modes,
    conv_ranks,
    factor,
    linear_modes,
    linear_ranks,
    maximal_ranks,
    pair_modes,
    split_places,
)
from .layers import PlannedProduct, TTLinear
from .recurrent import TTGRU, TTLSTM
from .tensorize import LayerReport, densify, layer_plan, slow_trains, slower_than_dense, tensorize

__all__ = [
    "TTGRU",
    "TTLSTM",
    "LayerReport",
    "PlannedProduct",
    "TTConv2d",
    "TTConv3d",
    "TTLinear",
    "channel_modes",
    "conv_ranks",
    "densify",
    "factor",
    "from_conv",
    "from_linear",
    "from_recurrent",
    "kernel_to_cores",
    "layer_plan",
    "linear_modes",
    "linear_ranks",
    "matrix_to_cores",
    "maximal_ranks",
    "pair_modes",
    "relative_error",
    "slow_trains",
    "slower_than_dense",
    "split_places",
    "tensorize",
    "to_conv",
    "to_linear",
    "to_recurrent",
    "tt_svd",
]
