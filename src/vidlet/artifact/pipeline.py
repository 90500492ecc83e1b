"""One file that gives boxes and the action: a detector's file with a head on its final map (DEEPEYE's pipeline).

The detector runs once a frame and feeds both: its nodes stand in the graph as they stood in its own file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import ParityError
from ..models.detector_file import BOXES, FEATURES, DetectorFile
from ..models.head import Head
from ..onnx_graph import Graph, copy_model
from ..runtime import open_session
from .answer import answer
from .exporter import to_onnx_graph


class HeadNetwork(nn.Module):
    """(features (T, ...), *state of N windows) -> (scores (N, K), *next_state)."""

    def __init__(self, head: Head, temperature: float, multi_label: bool) -> None:
        super().__init__()
        self.head, self.temperature, self.multi_label = head, temperature, multi_label

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Scores of the windows after these frames, and their states."""
        return answer(self.head, features, state, self.temperature, self.multi_label)


def pipeline_graph(
    extractor: DetectorFile, head: Head, temperature: float = 1.0, multi_label: bool = False
) -> onnx.ModelProto:
    """Detector and head as one graph: frames, states -> ``boxes`` of the last frame, ``scores``, next states."""
    examples: dict[str, Tensor] = {FEATURES: torch.zeros(3, *extractor.feature_shape)}
    dynamic: dict[str, dict[int, str]] = {FEATURES: {0: "T"}}
    for name, shape in head.state_shapes.items():
        examples[f"state.{name}"] = torch.zeros(2, *shape)
        dynamic[f"state.{name}"] = {0: "N"}
    outputs = ["scores", *(f"next_state.{name}" for name in head.state_shapes)]
    behind = to_onnx_graph(HeadNetwork(head, temperature, multi_label).eval(), examples, outputs, dynamic)
    result = copy_model(extractor.detector)
    graph = result.graph
    graph.node.extend(behind.graph.node)
    graph.initializer.extend(behind.graph.initializer)
    graph.input.extend(value for value in behind.graph.input if value.name != FEATURES)
    Graph(result).set_outputs([*behind.graph.output, *graph.output])
    _same_versions(result, behind)
    onnx.checker.check_model(result, full_check=False)
    return result


def box_metadata(extractor: nn.Module) -> dict[str, Any]:
    """What the metadata of a file with this extractor say of its boxes: nothing where there are none."""
    return {"box_labels": list(extractor.box_labels)} if isinstance(extractor, DetectorFile) else {}


def check_same_boxes(graph: onnx.ModelProto, extractor: nn.Module, frames: np.ndarray, exact: bool = True) -> None:
    """Hold a file's boxes to those of the detector that it was made of; nothing to do without one.

    Args:
        frames: uint8 (T, H, W, 3).
        exact: the detector was left as it is: the same boxes. Else (8 bits), that there are boxes as the contract says.

    Raises:
        ParityError: with what differs.
    """
    if not isinstance(extractor, DetectorFile):
        return
    for count in (1, len(frames)):
        found = _boxes(graph, frames[-count:])
        if found.ndim != 2 or found.shape[1] != 6 or not np.isfinite(found).all():
            raise ParityError(f"boxes of {count} frames are {found.shape}, or not finite")
        if (np.diff(found[:, 4]) > 0).any() or (found.size and not 0 <= found[:, :4].min() <= found[:, :4].max() <= 1):
            raise ParityError(f"boxes of {count} frames leave the picture, or are not in descending order")
        expected = _boxes(extractor.detector, frames[-1:])
        if exact and (found.shape != expected.shape or np.abs(found - expected).max(initial=0) > 1e-4):
            raise ParityError(f"boxes of the last of {count} frames are not those of the detector's own file")


def _boxes(graph: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    session = open_session(graph)
    states = {name: shape[1:] for name, shape in session.inputs.items() if name.startswith("state.")}
    zeros = {name: np.zeros((1, *shape), np.float32) for name, shape in states.items()}
    result: np.ndarray = session.run([BOXES], {"frames": frames, **zeros})[0]
    return result


def _same_versions(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    """Both were written by this package; the newer format of the two holds."""
    mine = {item.domain: item.version for item in model.opset_import}
    theirs = {item.domain: item.version for item in other.opset_import}
    for domain, version in theirs.items():
        if mine.get(domain, version) != version:
            raise ParityError(f"the detector's file has version {mine[domain]} of {domain or 'ONNX'}, not {version}")
        if domain not in mine:
            model.opset_import.append(onnx.helper.make_opsetid(domain, version))
    model.ir_version = max(model.ir_version, other.ir_version)
