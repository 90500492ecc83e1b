"""Tensor-train cores, layers, decomposition and rank choice."""

from .layers import TTLinear
from .recurrent import TTGRU, TTLSTM

__all__ = ["TTGRU", "TTLSTM", "TTLinear"]
