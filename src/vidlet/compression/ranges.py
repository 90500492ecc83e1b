"""Ranges of the activations that become integers: those that training has learned, else calibrated ones.

A graph in memory carries learned ranges as an entry of its metadata, by layer; ``drop_ranges`` removes it before the
graph becomes a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ..onnx_graph import copy_model
from .calibrate import calibrate, channel_means, clip_feeds, run_inner
from .int8 import Range, conv_inputs, quantized_tensors
from .qat import ranges_by_layer

KEY = "ranges"
KNOWS = "head.integers"  # entry of a graph whose head was trained on the features in integers


def activation_ranges(graph: onnx.ModelProto, clips: Sequence[np.ndarray], until: str = "features") -> dict[str, Range]:
    """The range of every tensor before ``until`` that becomes integers: learned, or calibrated on frames of clips.

    Raises:
        ExportError: ranges were learned, but a layer has none.
    """
    learned = learned_ranges(graph)
    if learned is not None:
        return ranges_by_layer(graph, learned, until)
    names = quantized_tensors(graph, until)
    return calibrate(graph, clip_feeds(graph, clips), names) if names else {}  # pixels have no convolution


def input_means(graph: onnx.ModelProto, clips: Sequence[np.ndarray], until: str = "features") -> dict[str, np.ndarray]:
    """Means of what integer convolutions before ``until`` read, over frames of clips, for :func:`quantize_graph`.

    None where ranges were learned: training rounded the weights, and the biases were trained with them.
    """
    names = conv_inputs(graph, until) if learned_ranges(graph) is None else []
    return channel_means(names, run_inner(graph, clip_feeds(graph, clips), names)) if names else {}


def learned_ranges(graph: onnx.ModelProto) -> dict[str, Range] | None:
    """The ranges by layer that a graph carries; None where it carries none."""
    for entry in graph.metadata_props:
        if entry.key == KEY:
            return {layer: (float(scale), int(zero)) for layer, (scale, zero) in json.loads(entry.value).items()}
    return None


def attach_ranges(graph: onnx.ModelProto, ranges: Mapping[str, Range] | None) -> onnx.ModelProto:
    """A copy of the graph that carries ranges by layer name; of None, nothing."""
    result = drop_ranges(graph)
    if ranges:
        entry = result.metadata_props.add()
        entry.key, entry.value = KEY, json.dumps(dict(ranges))
    return result


def knows_integers(graph: onnx.ModelProto) -> bool:
    """Whether the head of a graph in memory was trained on the features in integers (``attach_knowledge_``)."""
    return any(entry.key == KNOWS for entry in graph.metadata_props)


def attach_knowledge_(graph: onnx.ModelProto) -> None:
    """Note in a graph that its head was trained on the features in integers."""
    entry = graph.metadata_props.add()
    entry.key, entry.value = KNOWS, "true"


def drop_ranges(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph that carries no ranges, nor what its head was trained on."""
    result = copy_model(graph)
    for entry in [entry for entry in result.metadata_props if entry.key in (KEY, KNOWS)]:
        result.metadata_props.remove(entry)
    return result
