"""The compression steps that recipes may list: a table for classifiers, one for detectors, and how a chain is applied.

A step that trains takes a trained network and returns a smaller one, trained on where it must be. Any other takes the
exported float32 graph and calibration clips and returns a graph that stores or computes in fewer bits. Each is a small
function usable alone; its docstring states what it guarantees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from .. import plugins
from ..artifact.detector import MAP, detector_graph
from ..errors import RecipeError
from .average import MEMBERS, average, ensemble
from .box_graph import int8_detections
from .box_qat import deepeye_boxes, qat_boxes
from .chain import Chain, StepEntry, Steps, apply_storage, apply_training, parse_chain
from .channels import channels
from .deepeye_graph import replace_network
from .distill import distill
from .graph_steps import codebook, compact, half, head4, int4, int8, sparse, weights8
from .int8 import Range
from .lowrank import lowrank, tensor_train
from .material import Material, Trained, TrainedBoxes
from .qat import attach_knowledge_, attach_ranges, drop_ranges
from .qat_steps import extractor_qat, qat, qat4
from .shrink import prune, units

CLIP_STEPS: dict[str, StepEntry] = {
    "units": StepEntry(units, trains=True),
    "channels": StepEntry(channels, trains=True),
    "prune": StepEntry(prune, trains=True),
    "lowrank": StepEntry(lowrank, trains=True),
    "tt": StepEntry(tensor_train, trains=True),
    "distill": StepEntry(distill, trains=True),
    "average": StepEntry(average, trains=True),
    "ensemble": StepEntry(ensemble, trains=True, heads=MEMBERS),
    "qat": StepEntry(qat, trains=True),
    "qat4": StepEntry(qat4, trains=True),
    "extractor-qat": StepEntry(extractor_qat, trains=True),
    "int8": StepEntry(int8, integers=lambda amount: amount is None),  # an amount bounds the loss: the head decides
    "int4": StepEntry(int4, integers=lambda amount: True),
    "head4": StepEntry(head4),
    "codebook": StepEntry(codebook),
    "half": StepEntry(half),
    "weights8": StepEntry(weights8),
    "sparse": StepEntry(sparse, lossless=True),
    "compact": StepEntry(compact, lossless=True),
}
BOX_STEPS: dict[str, StepEntry] = {
    "deepeye": StepEntry(deepeye_boxes, trains=True),
    "qat": StepEntry(qat_boxes, trains=True),
    "int8": StepEntry(int8_detections, integers=lambda amount: True),
    "half": StepEntry(half),
    "weights8": StepEntry(weights8),
}


def find_chain(text: str, steps: Steps = CLIP_STEPS) -> Chain:
    """The steps of a chain such as "units:0.5+int8".

    Args:
        steps: the table of a task.

    Raises:
        RecipeError: an unknown step, a wrong amount or a wrong order.
    """
    if steps is not CLIP_STEPS:
        return parse_chain(text, steps)
    for name in (part.partition(":")[0].strip() for part in text.split("+")):
        add_plugin(name)
    return parse_chain(text, steps, [*plugins.names("training-step"), *plugins.names("step")])


def add_plugin(name: str) -> None:
    """Put a step that was registered, or that an installed package brings, into the table of classifiers' steps."""
    if name in CLIP_STEPS:
        return
    if (trains := plugins.find("training-step", name)) is not None:
        CLIP_STEPS[name] = StepEntry(trains, trains=True)
    elif (stores := plugins.find("step", name)) is not None:
        CLIP_STEPS[name] = StepEntry(stores)


def find_box_chain(text: str, network: str) -> Chain:
    """The steps of a chain for a detector whose recipe's ``extractor.name`` is ``network``.

    Raises:
        RecipeError: an unknown step, a wrong order, or a step that the network cannot have.
    """
    chain = find_chain(text, BOX_STEPS)
    names = [step.name for step in chain]
    if "deepeye" in names and network != "tiny-yolov2":
        raise RecipeError(
            f"compress: {text!r}: deepeye takes a chain of convolutions (tiny-yolov2), {network} is none; qat+int8 is "
            "the standard form"
        )
    if "deepeye" in names and {"qat", "int8"} & set(names):
        raise RecipeError(f"compress: {text!r}: deepeye computes in 8 bits by itself; qat and int8 are other chains")
    return chain


def shrink_network(chain: Chain, trained: Trained, material: Material) -> Trained:
    """Apply the steps of a classifier's chain that train the network."""
    result: Trained = apply_training(chain, CLIP_STEPS, trained, material)
    return result


def shrink_graph(
    chain: Chain,
    graph: onnx.ModelProto,
    clips: Sequence[np.ndarray],
    ranges: Mapping[str, Range] | None = None,
    steps: Steps = CLIP_STEPS,
    head_of_integers: bool = False,
) -> onnx.ModelProto:
    """Apply the steps of a chain that change the exported graph.

    Args:
        clips: frames uint8 (T, H, W, 3) to calibrate on; pictures (H, W, 3) for a detector.
        ranges: by layer, of the extractor's activations, where training has learned them (``trained_ranges``).
        head_of_integers: the head was trained on the features in integers, so its biases fit them already.
    """
    own = attach_ranges(graph, ranges)
    if head_of_integers:
        attach_knowledge_(own)
    return drop_ranges(apply_storage(chain, steps, own, clips))


def boxes_graph(chain: Chain, trained: TrainedBoxes, pictures: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The graph of a detector behind the steps of a chain that change it.

    Args:
        pictures: uint8 (H, W, 3) of training images, to find ranges on.
    """
    graph = detector_graph(trained.detector)
    if trained.integers is not None:
        graph = replace_network(graph, trained.integers, MAP)
    return shrink_graph(chain, graph, pictures, trained.ranges, BOX_STEPS)
