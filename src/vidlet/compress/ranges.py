"""Ranges that were learned in training, on their way from the network to the step that writes integers.

A graph in memory carries them as an entry of its metadata, by layer; ``take_ranges`` takes it out again, so that no
file has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx

from .int8 import Range
from .qat import ranges_by_layer

KEY = "ranges"


def attach_ranges(graph: onnx.ModelProto, ranges: Mapping[str, Range] | None) -> onnx.ModelProto:
    """A copy of the graph that carries ranges by layer name; of None, nothing."""
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    if ranges:
        entry = result.metadata_props.add()
        entry.key, entry.value = KEY, json.dumps(dict(ranges))
    return result


def take_ranges(graph: onnx.ModelProto, until: str = "features") -> tuple[onnx.ModelProto, dict[str, Range] | None]:
    """A copy of the graph without the ranges that it carries, and these by tensor; None if it carries none.

    Raises:
        ExportError: a layer that is computed in integers has none.
    """
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    for entry in list(result.metadata_props):
        if entry.key == KEY:
            result.metadata_props.remove(entry)
            ranges = {layer: (float(scale), int(zero)) for layer, (scale, zero) in json.loads(entry.value).items()}
            return result, ranges_by_layer(result, ranges, until)
    return result, None
