"""Tensor-train cores, layers, decomposition and rank choice."""

from .layers import TTLinear

__all__ = ["TTLinear"]
