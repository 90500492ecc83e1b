"""The artifact of a detector: frames in, ``boxes`` of the last frame out, decoding and suppression inside the graph.

``boxes`` float32 (M, 6): x1 y1 x2 y2 in [0, 1], score, class; score >= 0.001, descending; M is free. Of boxes of one
class that overlap by more than 0.45 the best is kept (ONNX's NonMaxSuppression), at most 100 a class and 300 in all.
A file whose boxes are not those of the network it was made from is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ..datasets.texts import numbered_names
from ..errors import ExportError, ParityError
from ..files import atomic_path, sha256_of
from ..metrics import overlaps
from ..models.brought_detectors import COCO, BroughtDetector, load_brought
from ..models.detector import Detector
from ..models.region import corners, decode
from ..onnx_graph import Graph, fold_pads, hide_outputs, with_outputs
from ..onnx_graph.graph import set_attribute
from ..recipe import Recipe, Sampling, recipe_to_dict
from ..runtime import open_session, write_metadata
from ..video import RESIZE
from .classifier import FORMAT, PARITY, STREAMING
from .exporter import to_onnx_graph

MAP, CORNERS, SCORES = "map", "box_corners", "box_scores"  # inner tensors (1, C, h, w), (1, N, 4), (1, K, N)
LEAST_SCORE, MOST_OVERLAP, MOST_PER_CLASS, MOST = 0.001, 0.45, 100, 300
CLOSE = 1e-5


class DetectorNetwork(nn.Module):
    """The last of some frames -> its map, all boxes and their scores, before any suppression."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames uint8 (T, H, W, 3) -> map (1, C, h, w), corners (1, N, 4) in [0, 1], scores (1, K, N)."""
        maps = self.detector.maps(frames[-1:])
        boxes, scores = decode(maps, self.detector.anchors)
        return maps, corners(boxes), scores.transpose(1, 2)


def detector_graph(detector: Detector) -> onnx.ModelProto:
    """A detector as an ONNX graph, T free, with the inner tensor ``map`` named."""
    return boxes_graph(DetectorNetwork(detector), detector.input_size)


def boxes_graph(network: nn.Module, size: tuple[int, int]) -> onnx.ModelProto:
    """A network of frames (T, H, W, 3) that gives what ``DetectorNetwork`` gives, as an ONNX graph with ``boxes``."""
    examples = {"frames": torch.zeros(3, *size, 3, dtype=torch.uint8)}
    graph = to_onnx_graph(network.eval(), examples, [MAP, CORNERS, SCORES], {"frames": {0: "T"}})
    fold_pads(graph, "MaxPool", -np.inf)
    hide_outputs(graph, [MAP, CORNERS, SCORES])
    append_suppression(graph)
    onnx.checker.check_model(graph)
    return graph


def append_suppression(graph: onnx.ModelProto) -> None:
    """Add what makes ``boxes`` (M, 6) of the tensors ``box_corners`` and ``box_scores``."""
    constants: dict[str, np.ndarray] = {
        "nms.most": np.array([MOST_PER_CLASS], np.int64),
        "nms.overlap": np.array([MOST_OVERLAP], np.float32),
        "nms.score": np.array(
            [np.nextafter(np.float32(LEAST_SCORE), np.float32(0))]
        ),  # the operator wants more than it
        "nms.owner": np.array([0, 2], np.int64),
        "nms.class": np.array([1], np.int64),
        "nms.last": np.array([-1], np.int64),
        "nms.all": np.array([MOST], np.int64),
    }
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("NonMaxSuppression", [CORNERS, SCORES, "nms.most", "nms.overlap", "nms.score"], ["nms.found"], {}),
        ("Gather", ["nms.found", "nms.owner"], ["nms.places"], {"axis": 1}),  # (M, 2): picture, box
        ("GatherND", [CORNERS, "nms.places"], ["nms.corners"], {}),  # (M, 4)
        ("GatherND", [SCORES, "nms.found"], ["nms.scores"], {}),  # (M,)
        ("Unsqueeze", ["nms.scores", "nms.last"], ["nms.score_column"], {}),
        ("Gather", ["nms.found", "nms.class"], ["nms.classes"], {"axis": 1}),
        ("Cast", ["nms.classes"], ["nms.class_column"], {"to": onnx.TensorProto.FLOAT}),
        ("Concat", ["nms.corners", "nms.score_column", "nms.class_column"], ["nms.rows"], {"axis": 1}),
        ("Shape", ["nms.scores"], ["nms.count"], {}),
        ("Min", ["nms.count", "nms.all"], ["nms.kept"], {}),
        ("TopK", ["nms.scores", "nms.kept"], ["nms.sorted", "nms.order"], {}),
        ("Gather", ["nms.rows", "nms.order"], ["boxes"], {"axis": 0}),
    ]
    graph.graph.node.extend(helper.make_node(kind, ins, outs, **options) for kind, ins, outs, options in nodes)
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.graph.output.append(helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, ["M", 6]))


def detector_metadata(
    recipe: Recipe | Mapping[str, Any], labels: Sequence[str], provenance: Mapping[str, Any], anchors: np.ndarray | None
) -> dict[str, Any]:
    """The ``vidlet`` metadata object of a file that only detects (schema/artifact.json).

    Args:
        recipe: of the training; a mapping with ``name`` where somebody else trained it.
        anchors: (A, 2) in cells; None where the map is not one of cells with anchors.
    """
    ours = recipe if isinstance(recipe, Recipe) else None
    found = {
        "format": FORMAT,
        "labels": [],
        "box_labels": list(labels),
        "inputs": ["frames"],
        "sampling": {"rule": "rate", "hz": (ours.sampling if ours else Sampling()).hz, "median_s": 1.0},
        "resize": RESIZE,
        "recipe": dict(recipe) if not isinstance(recipe, Recipe) else recipe_to_dict(recipe),
        "provenance": dict(provenance),
        "evidence": [],
    }
    return found if anchors is None else {**found, "anchors": np.asarray(anchors, float).round(6).tolist()}


def write_detector(
    graph: onnx.ModelProto,
    path: str | Path,
    metadata: Mapping[str, Any],
    frames: np.ndarray,
    reference: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> int:
    """Check a detector's graph on real frames and write it with its metadata; return its bytes.

    Args:
        frames: uint8 (T, H, W, 3), real ones, T >= 2.
        reference: ``torch_boxes`` of the network that the file must equal; None for 8 bits, of which only the contract
            is checked.

    Raises:
        ParityError: the file differs from the reference, or does not keep the contract; nothing is written.
    """
    data = graph.SerializeToString(deterministic=True)
    check_boxes(graph, frames, reference)
    with atomic_path(path) as draft:
        draft.write_bytes(data)
        write_metadata(draft, metadata)
    return Path(path).stat().st_size


def check_boxes(
    graph: onnx.ModelProto,
    frames: np.ndarray,
    reference: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> None:
    """Hold a detector's graph to the contract: boxes of the last frame, suppressed as ``suppress`` does, the network's.

    Raises:
        ParityError: with what differs and by how much.
    """
    run = _runner(graph)
    _, before, scores_before = run(frames[:-1])
    for count in sorted({1, len(frames)}):
        boxes, places, scores = run(frames[-count:])
        if boxes.ndim != 2 or boxes.shape[1] != 6 or not np.isfinite(boxes).all():
            raise ParityError(f"boxes of {count} frames are {boxes.shape}, or not finite")
        if len(boxes) and (boxes[:, :4].min() < 0 or boxes[:, :4].max() > 1 or (np.diff(boxes[:, 4]) > 0).any()):
            raise ParityError(f"boxes of {count} frames leave the picture, or are not in descending order")
        if why := broken_rule(boxes, places, scores):
            raise ParityError(f"boxes of {count} frames are not chosen by the rule: {why}")
        if count == 1:
            before, scores_before = places, scores
        elif max(np.abs(places - before).max(), np.abs(scores - scores_before).max()) > STREAMING:
            raise ParityError(f"the last of {count} frames gives other boxes than that frame alone")
        if reference is not None:
            for mine, other, what in zip(
                (places, scores), reference(frames[-count:]), ("corners", "scores"), strict=True
            ):
                if (worst := float(np.abs(mine - other).max())) > PARITY:
                    raise ParityError(f"file and network: {what} differ by {worst:.2e}, allowed {PARITY:.0e}")


def broken_rule(boxes: np.ndarray, places: np.ndarray, scores: np.ndarray) -> str:
    """What is wrong with the choice of boxes (M, 6) out of corners (N, 4) and scores (K, N); "" if nothing is.

    Overlaps within ``CLOSE`` of the limit may go either way: the runtime computes them in float32.
    """
    last = boxes[-1, 4] if len(boxes) >= MOST else 0.0  # what is not better than it may have had no room
    for label, own in enumerate(scores):
        kept = boxes[boxes[:, 5] == label]
        worst = kept[:, 4].min(initial=np.inf) if len(kept) >= MOST_PER_CLASS else 0.0
        shares = overlaps(kept[:, :4], kept[:, :4]) - np.eye(len(kept))
        if shares.max(initial=0) > MOST_OVERLAP + CLOSE:
            return f"two boxes of class {label} overlap by {shares.max():.3f}"
        rows = np.flatnonzero(own >= np.float32(LEAST_SCORE))
        candidates = np.column_stack([places[rows], own[rows]])
        known = {tuple(row) for row in candidates.tolist()}
        if any(tuple(row) not in known for row in kept[:, :5].tolist()):
            return f"a box of class {label} is none of the network's"
        chosen = {tuple(row) for row in kept[:, :5].tolist()}
        left = np.array([row for row in candidates.tolist() if tuple(row) not in chosen]).reshape(-1, 5)
        better = kept[None, :, 4] >= left[:, None, 4]
        hidden = (better & (overlaps(left[:, :4], kept[:, :4]) > MOST_OVERLAP - CLOSE)).any(1)
        missing = ~hidden & (left[:, 4] > max(last, worst))
        if missing.any():
            return f"a box of class {label} with score {left[missing, 4].max():.4f} is missing"
    return ""


def torch_boxes(detector: Detector) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The network's own corners (N, 4) and scores (K, N) of the last frame, as ``check_boxes`` wants them."""
    return network_boxes(DetectorNetwork(detector))


def network_boxes(network: nn.Module) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The same of a network that gives what ``DetectorNetwork`` gives."""

    @torch.no_grad()
    def boxes(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        network.eval()
        _, places, scores = network(torch.from_numpy(frames))
        return places[0].numpy(), scores[0].numpy()

    return boxes


def suppress(
    places: np.ndarray, scores: np.ndarray, least: float = LEAST_SCORE, most_overlap: float = MOST_OVERLAP
) -> np.ndarray:
    """What a detector's file does behind its network, in NumPy: boxes (M, 6) of corners (N, 4) and scores (K, N)."""
    rows = [np.zeros((0, 6), np.float32)]
    for label, own in enumerate(np.asarray(scores, np.float32)):
        order = np.argsort(-own, kind="stable")
        order = order[own[order] >= np.float32(least)]
        kept: list[int] = []
        while len(order) and len(kept) < MOST_PER_CLASS:
            kept.append(int(order[0]))
            shares = overlaps(places[order[:1]], places[order[1:]])[0]
            order = order[1:][shares <= most_overlap]
        rows.append(np.column_stack([places[kept], own[kept], np.full(len(kept), label)]).astype(np.float32))
    found = np.concatenate(rows)
    return found[np.argsort(-found[:, 4], kind="stable")][:MOST]


def _runner(graph: onnx.ModelProto) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Run a detector's graph: boxes (M, 6), and the corners (N, 4) and scores (K, N) they were chosen from."""
    session = open_session(with_outputs(graph, ["boxes", CORNERS, SCORES]))

    def run(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes, places, scores = session.run(["boxes", CORNERS, SCORES], {"frames": frames})
        return boxes, places[0], scores[0]

    return run


# A detector that others trained as an artifact by the contract: frames in, ``boxes`` out, suppression in the graph.


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
