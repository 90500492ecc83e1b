"""Compression: small functions, each with a stated guarantee, and the steps that recipes list."""

from .chain import Chain, Step, chain_text, file_name
from .material import Material, Trained
from .qat_steps import trained_ranges
from .steps import GRAPH_STEPS, NETWORK_STEPS, find_chain, shrink_graph, shrink_network

__all__ = [
    "GRAPH_STEPS", "NETWORK_STEPS", "Chain", "Material", "Step", "Trained", "chain_text", "file_name", "find_chain",
    "shrink_graph", "shrink_network", "trained_ranges",
]  # fmt: skip
