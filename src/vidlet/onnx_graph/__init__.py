"""ONNX graphs: who makes and who reads each tensor, edits and rewrites, and a graph as a module of PyTorch.

``Graph`` is what every module that reads or changes a graph works with; it needs the onnx package alone.
``interpreter.GraphNetwork`` computes a graph in PyTorch, and only there (and in ``operators``) is PyTorch imported.
"""

from .graph import Graph, alive, attribute, attributes, copy_model, names_read
from .rewrites import clean, fold_pads, hide_outputs, pool_before_rectifying, share_equal, with_outputs

__all__ = [
    "Graph", "alive", "attribute", "attributes", "clean", "copy_model", "fold_pads", "hide_outputs", "names_read",
    "pool_before_rectifying", "share_equal", "with_outputs",
]  # fmt: skip
