"""The compression steps that a recipe may list, and how a chain of them is applied.

A network step takes a trained network and returns a smaller one, trained on where it must be. A graph step takes the
exported float32 graph and calibration clips and returns a graph that stores or computes in fewer bits. Each is a small
function usable alone; its docstring states what it guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from .. import plugins
from .average import average, ensemble
from .chain import Chain, parse_chain
from .distill import distill
from .graph_steps import codebook, compact, half, head4, int4, int8, sparse
from .int8 import Range
from .lowrank import lowrank
from .material import Material, Trained
from .prune import prune
from .qat_steps import extractor_qat, qat, qat4
from .ranges import attach_ranges, drop_ranges
from .shrink import units
from .tensorize import tensor_train
from .thin import channels

NetworkStep = Callable[[Trained, "float | None", Material], Trained]
GraphStep = Callable[[onnx.ModelProto, "float | None", Sequence[np.ndarray]], onnx.ModelProto]


NETWORK_STEPS: dict[str, NetworkStep] = {
    "units": units,
    "channels": channels,
    "prune": prune,
    "lowrank": lowrank,
    "tt": tensor_train,
    "distill": distill,
    "average": average,
    "ensemble": ensemble,
    "qat": qat,
    "qat4": qat4,
    "extractor-qat": extractor_qat,
}
GRAPH_STEPS: dict[str, GraphStep] = {
    "int8": int8,
    "int4": int4,
    "head4": head4,
    "codebook": codebook,
    "half": half,
    "sparse": sparse,
    "compact": compact,
}


def find_chain(text: str) -> Chain:
    """The steps of a chain such as "units:0.5+int8".

    Raises:
        RecipeError: an unknown step, a wrong amount or a wrong order.
    """
    for name in (part.partition(":")[0].strip() for part in text.split("+")):
        add_plugin(name)
    return parse_chain(text, {*NETWORK_STEPS, *plugins.names("training-step")}, {*GRAPH_STEPS, *plugins.names("step")})


def add_plugin(name: str) -> None:
    """Put a step that was registered or that an installed package brings into its table."""
    if name in NETWORK_STEPS or name in GRAPH_STEPS:
        return
    if (trains := plugins.find("training-step", name)) is not None:
        NETWORK_STEPS[name] = trains
    elif (stores := plugins.find("step", name)) is not None:
        GRAPH_STEPS[name] = stores


def shrink_network(chain: Chain, trained: Trained, material: Material) -> Trained:
    """Apply the network steps of a chain."""
    for step in chain:
        if step.name in NETWORK_STEPS:
            trained = NETWORK_STEPS[step.name](trained, step.amount, material)
    return trained


def shrink_graph(
    chain: Chain, graph: onnx.ModelProto, clips: Sequence[np.ndarray], ranges: Mapping[str, Range] | None = None
) -> onnx.ModelProto:
    """Apply the graph steps of a chain to the exported graph.

    Args:
        clips: frames uint8 (T, H, W, 3) to calibrate on.
        ranges: by layer, of the extractor's activations, where training has learned them (``trained_ranges``).
    """
    graph = attach_ranges(graph, ranges)
    for step in chain:
        if step.name in GRAPH_STEPS:
            graph = GRAPH_STEPS[step.name](graph, step.amount, clips)
    return drop_ranges(graph)
