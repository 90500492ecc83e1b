"""The compression steps that a recipe may list, and how a chain of them is applied.

A network step takes a trained network and returns a smaller one, trained on where it must be. A graph step takes the
exported float32 graph and calibration clips and returns a graph that stores or computes in fewer bits. Each is a small
function usable alone; its docstring states what it guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from .calibrate import calibrate
from .chain import Chain, parse_chain
from .int8 import quantize_graph, quantized_tensors
from .material import Material, Trained
from .storage import store_weights_half, store_weights_int8

CALIBRATION_FRAMES = 3  # of a clip: its frames look alike, other clips do not

NetworkStep = Callable[[Trained, "float | None", Material], Trained]
GraphStep = Callable[[onnx.ModelProto, "float | None", Sequence[np.ndarray]], onnx.ModelProto]


def int8(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Integer convolutions in the extractor (u8 activations, s8 weights per channel), 8-bit storage of the head.

    Args:
        clips: frames uint8 (T, H, W, 3) of training clips; the activations' ranges are those of a few frames of each.
    """
    zero = {
        i.name: np.zeros((1, *(d.dim_value for d in i.type.tensor_type.shape.dim[1:])), np.float32)
        for i in graph.graph.input
        if i.name.startswith("state.")
    }
    feeds = ({"frames": frames[_spread(len(frames), CALIBRATION_FRAMES)], **zero} for frames in clips)
    names = quantized_tensors(graph, until="features")
    ranges = calibrate(graph, feeds, names) if names else {}  # pixels have no convolution
    return store_weights_int8(quantize_graph(graph, ranges, until="features"))


def half(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """All large weights stored as float16, computed in float32."""
    return store_weights_half(graph)


NETWORK_STEPS: dict[str, NetworkStep] = {}
GRAPH_STEPS: dict[str, GraphStep] = {"int8": int8, "half": half}


def find_chain(text: str) -> Chain:
    """The steps of a chain such as "units:0.5+int8".

    Raises:
        RecipeError: an unknown step, a wrong amount or a wrong order.
    """
    return parse_chain(text, NETWORK_STEPS, GRAPH_STEPS)


def shrink_network(chain: Chain, trained: Trained, material: Material) -> Trained:
    """Apply the network steps of a chain."""
    for step in chain:
        if step.name in NETWORK_STEPS:
            trained = NETWORK_STEPS[step.name](trained, step.amount, material)
    return trained


def shrink_graph(chain: Chain, graph: onnx.ModelProto, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Apply the graph steps of a chain to the exported graph; ``clips``: frames uint8 (T, H, W, 3) to calibrate on."""
    for step in chain:
        if step.name in GRAPH_STEPS:
            graph = GRAPH_STEPS[step.name](graph, step.amount, clips)
    return graph


def _spread(frames: int, most: int) -> np.ndarray:
    """Indices of at most ``most`` frames, evenly over a clip."""
    return np.linspace(0, frames - 1, min(most, frames)).astype(int)
