"""A detector that others trained as an artifact by the contract: frames in, ``boxes`` out, suppression in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..datasets.texts import numbered_names
from ..errors import ExportError
from ..files import sha256_of
from ..models.brought_detectors import COCO, BroughtDetector, load_brought
from ..onnx_graph import Graph
from ..onnx_graph.graph import set_attribute
from .detector import boxes_graph, detector_metadata, network_boxes, write_detector


def export_brought(
    path: Path, out: Path, labels: str | Path | None = None, known: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write ``out`` from a detector's ONNX file, or darknet's .weights with its .cfg beside it.

    What the file gives is compared with the network that was read, which was compared with ONNX Runtime's answer for
    ``path``. Pictures come by our rule, stretched to the size that the detector takes.

    Args:
        labels: a file of one class a line, or "coco"; None: a .names file beside ``path``.
        known: what else is known of where it comes from, for its metadata: "licence", "url".

    Returns:
        {"kind", "labels", "input_size", "bytes"}.

    Raises:
        WeightsError: not a detector that is read. ExportError: its classes are not named, or by too few or many names.
    """
    detector = load_brought(path)
    names = _names(path, detector, labels)
    graph = boxes_graph(detector, detector.input_size)
    free_pictures(graph)
    provenance = {"weights": detector.kind.name, "file": path.name, "sha256": sha256_of(path), "licence": "not stated"}
    provenance |= dict(known or {})
    metadata = detector_metadata({"name": detector.kind.name}, names, provenance, None)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 13, 13, 3)).astype(np.uint8)
    height, width = detector.input_size
    frames = pictures.repeat(-(-height // 13), 1).repeat(-(-width // 13), 2)[:, :height, :width]
    size = write_detector(graph, out, metadata, np.ascontiguousarray(frames), network_boxes(detector))
    return {
        "kind": detector.kind.name, "labels": len(names), "input_size": list(detector.input_size), "bytes": size
    }  # fmt: skip


def free_pictures(model: onnx.ModelProto) -> None:
    """Let a graph that was made for one picture compute several: what is reshaped or resized keeps their number."""
    graph = Graph(model)

    def put(node: onnx.NodeProto, place: int, sizes: np.ndarray) -> None:
        node.input[place] = graph.store(graph.fresh(f"{node.output[0]}.sizes"), sizes)

    for node in list(graph.nodes):
        place = {"Reshape": 1, "Resize": 3}.get(node.op_type, len(node.input))
        if place >= len(node.input) or node.input[place] not in graph.constants:
            continue
        sizes = graph.value(node.input[place])
        if node.op_type == "Reshape" and sizes.size and sizes[0] == 1:
            set_attribute(node, "allowzero", 0)  # so that a size of 0 says: as many as there are
            put(node, place, np.concatenate([[0], sizes[1:]]))
        elif node.op_type == "Resize" and len(sizes) == 4:
            set_attribute(node, "axes", [2, 3])
            put(node, place, sizes[2:])
    graph.index()
    graph.prune(nodes=False)


def _names(path: Path, detector: BroughtDetector, labels: str | Path | None) -> tuple[str, ...]:
    beside = sorted(path.parent.glob("*.names"))
    if labels is None and len(beside) != 1:
        raise ExportError(
            f"{path}: does not say what its {detector.classes} classes are called: name a file of one class a line by "
            "--labels FILE, or --labels coco"
        )
    source = beside[0] if labels is None else labels
    names = COCO if str(source) == "coco" else numbered_names(Path(source)).names
    if len(names) != detector.classes:
        raise ExportError(f"{source}: names {len(names)} classes, but {path} has {detector.classes}")
    return names
