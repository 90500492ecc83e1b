"""Tensor-train cores, layers, decomposition and rank choice."""
