"""How a clip goes into a graph: frames as they are, stored features cut into the inputs of their modalities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from ..onnx_graph import Graph


def clip_inputs(model: onnx.ModelProto) -> dict[str, int]:
    """Inputs of a graph that a clip gives (no states): name -> size of their last dimension."""
    inputs = Graph(model).inputs
    return {
        value.name: value.type.tensor_type.shape.dim[-1].dim_value
        for value in model.graph.input
        if value.name in inputs and not value.name.startswith("state.")
    }


Clip = np.ndarray | Mapping[str, np.ndarray]


def clip_feed(inputs: Mapping[str, int], clip: Clip) -> dict[str, np.ndarray]:
    """Frames (T, H, W, 3), or codes side by side (T, D of all), as the arrays of ``inputs`` (see ``clip_inputs``).

    A dict of the arrays is taken as it is.
    """
    if isinstance(clip, Mapping):
        return dict(clip)
    if len(inputs) == 1:
        return {next(iter(inputs)): clip}
    edges = np.cumsum(list(inputs.values()))[:-1]
    parts = np.split(clip, edges, axis=1)
    return {name: np.ascontiguousarray(part) for name, part in zip(inputs, parts, strict=True)}


def clip_length(clip: Clip) -> int:
    """T of a clip, whatever its form."""
    return len(next(iter(clip.values())) if isinstance(clip, Mapping) else clip)


def clip_part(clip: Clip, first: int, end: int) -> Clip:
    """Frames ``first`` to ``end`` of a clip in the form that it has."""
    if isinstance(clip, Mapping):
        return {name: array[first:end] for name, array in clip.items()}
    return clip[first:end]
