"""A head, an extractor, two compression steps and a reader of data, as another package has them (test_plugins.py)."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from vidlet.datasets import read_table
from vidlet.models import FrameExtractor, Head
from vidlet.models.head import Standardize, add_frames


class Average(Head):
    """The mean over time and a linear layer."""

    def __init__(self, feature_shape, classes, bias: bool = True):
        super().__init__()
        size = int(np.prod(feature_shape))
        self.standardize = Standardize(feature_shape[0], len(feature_shape) - 1)
        self.classify = nn.Linear(size, classes, bias=bias)
        self.state_shapes = {"sum": (size,), "count": (1,)}

    def forward(self, features, state, mask=None):
        x = self.standardize(features).flatten(2)
        total, count = add_frames(x, mask, state["sum"], state["count"])
        return self.classify(total / count), {"sum": total, "count": count}


class Tiles(nn.Module):
    """The mean color of tiles of 8 x 8 pixels."""

    out_channels = 3

    def map_size(self, height, width):
        return height // 8, width // 8

    def forward(self, pictures):
        return functional.avg_pool2d(pictures, 8)


def tiles(config):
    return FrameExtractor(
        Tiles(), config.input_size, config.grid, zero_point=127.5, scale=1 / 127.5, provenance={"weights": "none"}
    )


def rounded(graph, amount, clips):
    """Weights of the head rounded to multiples of 1 / amount."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and "classify" in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(np.round(values * amount) / np.float32(amount), tensor.name))
    return changed


def negated(trained, amount, material):
    """The opposite of what was learned."""
    with torch.no_grad():
        for parameter in trained.head.parameters():
            parameter.neg_()
    return trained


def read_mine(path: Path):
    return read_table(path.read_text().strip()) if path.suffix == ".mine" else None
