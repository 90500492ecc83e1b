"""Tensor-train cores, layers, decomposition, rank choice and the plan of computation."""

from .conv import TTConv2d, TTConv3d
from .convert import from_conv, from_linear, from_recurrent, relative_error, to_conv, to_linear, to_recurrent
from .cores import maximal_ranks
from .decompose import kernel_to_cores, matrix_to_cores, tt_svd
from .layers import TTLinear
from .machine import Machine, measure_machine
from .modes import channel_modes, conv_ranks, factor, linear_modes, linear_ranks, pair_modes, split_places
from .planner import Plan, plan_product
from .recurrent import TTGRU, TTLSTM

__all__ = [
    "TTGRU",
    "TTLSTM",
    "Machine",
    "Plan",
    "TTConv2d",
    "TTConv3d",
    "TTLinear",
    "channel_modes",
    "conv_ranks",
    "factor",
    "from_conv",
    "from_linear",
    "from_recurrent",
    "kernel_to_cores",
    "linear_modes",
    "linear_ranks",
    "matrix_to_cores",
    "maximal_ranks",
    "measure_machine",
    "pair_modes",
    "plan_product",
    "relative_error",
    "split_places",
    "to_conv",
    "to_linear",
    "to_recurrent",
    "tt_svd",
]
