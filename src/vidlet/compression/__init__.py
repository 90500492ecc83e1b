"""Compression: small functions, each with a stated guarantee, and the steps that recipes list."""

from .chain import Chain, Step, StepEntry, chain_text, file_name, integer_steps, split_chain
from .material import BoxMaterial, Material, Trained, TrainedBoxes
from .qat_steps import trained_ranges
from .steps import BOX_STEPS, CLIP_STEPS, boxes_graph, find_box_chain, find_chain, shrink_graph, shrink_network

__all__ = [
    "BOX_STEPS", "CLIP_STEPS", "BoxMaterial", "Chain", "Material", "Step", "StepEntry", "Trained", "TrainedBoxes",
    "boxes_graph", "chain_text", "file_name", "find_box_chain", "find_chain", "integer_steps", "shrink_graph",
    "shrink_network", "split_chain", "trained_ranges",
]  # fmt: skip
