"""The artifact: extractor and head as one ONNX graph by the contract of docs/clients.md, checked before it is written.

``frames`` (``rgb``, ``audio`` of stored features) and each ``state.s`` go in; ``scores`` and each ``next_state.s``
come out. N windows (rows of the state) share the frames: the extractor runs once, the head N times. A file that does
not give the scores of the network it was made from, or not the same scores frame by frame as at once, is never
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import ParityError
from ..files import atomic_path
from ..models.detector_file import BOXES, FEATURES, DetectorFile
from ..models.extractor import FrameExtractor, Taps
from ..models.head import Head
from ..onnx_graph import Graph, copy_model, hide_outputs
from ..recipe import Recipe, Sampling, recipe_to_dict
from ..runtime import open_session, write_metadata
from ..video import RESIZE
from .exporter import to_onnx_graph
from .feeds import Clip, clip_feed, clip_length, clip_part

FORMAT = "1.0"
PARITY = 1e-4  # largest difference of a score between torch and the file, same frames
STREAMING = 1e-5  # largest difference between frame by frame and at once, same file


# What a head answers for N windows that share the frames, as every artifact gives it.


def answer(
    head: Head, features: Tensor, state: Sequence[Tensor], temperature: float, multi_label: bool
) -> tuple[Tensor, ...]:
    """Scores (N, K) of N windows after the frames of features (T, ...), and their next states."""
    shared = features.unsqueeze(0)  # (1, T, ...)
    if not head.shares_frames:
        shared = shared.expand(state[0].shape[0], *features.shape)  # (N, T, ...)
    logits, after = head(shared, dict(zip(head.state_shapes, state, strict=True)))
    logits = logits / temperature
    scores = logits.sigmoid() if multi_label else logits.softmax(1)
    return (scores, *(after[name] for name in head.state_shapes))


class ArtifactNetwork(nn.Module):
    """The one function: (frames, *state) -> (scores, *next_state, features).

    Args:
        extractor: uint8 (T, H, W, 3) -> features (T, ...).
        temperature: logits are divided by it.
        multi_label: sigmoid instead of softmax.
    """

    def __init__(self, extractor: nn.Module, head: Head, temperature: float = 1.0, multi_label: bool = False) -> None:
        super().__init__()
        self.extractor, self.head = extractor, head
        self.temperature, self.multi_label = temperature, multi_label

    def forward(self, frames: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Scores (N, K) of frames (T, H, W, 3) for N windows, their next state, and the features (T, ...).

        ``rest`` is the other inputs of the extractor, if it has several, and the state.
        """
        more = len(input_widths(self.extractor)) - 1
        features, state = self.extractor(frames, *rest[:more]), rest[more:]
        return (*answer(self.head, features, state, self.temperature, self.multi_label), features)


def input_widths(extractor: nn.Module) -> dict[str, int]:
    """Inputs of an artifact with this extractor, and the size of their last dimension."""
    return dict(getattr(extractor, "inputs", FrameExtractor.inputs))


def extractor_graph(extractor: FrameExtractor) -> onnx.ModelProto:
    """A frame extractor as a float32 graph: frames uint8 (T, H, W, 3) -> features, T free."""
    if isinstance(extractor, DetectorFile):
        return extractor.graph()
    examples = {"frames": torch.zeros(3, *extractor.input_size, 3, dtype=torch.uint8)}
    return to_onnx_graph(extractor, examples, ["features"], {"frames": {0: "T"}})


def taps_graph(taps: Taps) -> onnx.ModelProto:
    """Several cuts of one network as a graph: frames uint8 (T, H, W, 3) -> an output named for each cut, T free."""
    examples = {"frames": torch.zeros(3, *taps.input_size, 3, dtype=torch.uint8)}
    return to_onnx_graph(taps, examples, list(taps.names), {"frames": {0: "T"}})


def artifact_graph(network: ArtifactNetwork, input_size: tuple[int, int]) -> onnx.ModelProto:
    """The network as an ONNX graph with the contract's names, T and N free, and the inner tensor ``features`` named."""
    if isinstance(network.extractor, DetectorFile):
        return pipeline_graph(network.extractor, network.head, network.temperature, network.multi_label)
    names = list(network.head.state_shapes)
    inputs = input_widths(network.extractor)
    size = input_size if "frames" in inputs else ()
    examples: dict[str, Tensor] = {n: torch.zeros(3, *size, width, dtype=torch.uint8) for n, width in inputs.items()}
    dynamic: dict[str, dict[int, str]] = {name: {0: "T"} for name in inputs}
    for name, shape in network.head.state_shapes.items():
        examples[f"state.{name}"] = torch.zeros(2, *shape)
        dynamic[f"state.{name}"] = {0: "N"}
    outputs = ["scores", *(f"next_state.{name}" for name in names), "features"]
    graph = to_onnx_graph(network.eval(), examples, outputs, dynamic)
    hide_outputs(graph, ["features"])
    return graph


def artifact_metadata(
    recipe: Recipe,
    labels: tuple[str, ...],
    median_s: float,
    provenance: Mapping[str, Any],
    temperature: float | None = None,
    multi_label: bool = False,
    inputs: Sequence[str] = ("frames",),
) -> dict[str, Any]:
    """The ``vidlet`` metadata object of a classifier on frames or stored features (schema/artifact.json)."""
    return {
        "format": FORMAT,
        "labels": list(labels),
        "inputs": list(inputs),
        "sampling": _sampling(recipe.sampling) | {"median_s": round(median_s, 3)},
        **({"resize": RESIZE} if "frames" in inputs else {}),
        "recipe": recipe_to_dict(recipe),
        "provenance": dict(provenance),
        "temperature": temperature,
        "multi_label": multi_label,
        "evidence": [],
    }


def write_artifact(
    graph: onnx.ModelProto,
    path: str | Path,
    metadata: Mapping[str, Any],
    frames: Clip,
    reference: Callable[[Any, int], np.ndarray] | None = None,
) -> int:
    """Check the graph on real frames and write it with its metadata; return its bytes.

    Args:
        frames: uint8 (T, H, W, 3), or codes of stored features side by side (T, D), or a dict of the graph's inputs;
            T >= 4, real ones.
        reference: (frames in that form, N) -> scores (N, K) of the network that the file must equal; None for a file
            that is meant to differ (8 bits), of which only the contract is checked.

    Raises:
        ParityError: the file differs from the reference or from itself frame by frame; nothing is written.
    """
    data = graph.SerializeToString(deterministic=True)
    check_parity(data, frames, reference)
    with atomic_path(path) as draft:
        draft.write_bytes(data)
        write_metadata(draft, metadata)
    return Path(path).stat().st_size


def check_parity(data: bytes, frames: Clip, reference: Callable[[Any, int], np.ndarray] | None = None) -> None:
    """Hold a graph to the contract: any T and N, frame by frame = at once, scores in [0, 1], equal to the reference.

    Raises:
        ParityError: with the largest difference and where it was.
    """
    session = open_session(data)
    states = {name: shape[1:] for name, shape in session.inputs.items() if name.startswith("state.")}
    inputs = {name: shape[-1] for name, shape in session.inputs.items() if name not in states}
    outputs = session.outputs

    def run(part: Clip, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        values = dict(zip(outputs, session.run(outputs, {**clip_feed(inputs, part), **state}), strict=True))
        return values["scores"], {name: values[f"next_{name}"] for name in states}

    def zeros(windows: int) -> dict[str, np.ndarray]:
        return {name: np.zeros((windows, *shape), np.float32) for name, shape in states.items()}

    whole_length = clip_length(frames)
    for length, windows in ((whole_length, 1), (1, 1), (whole_length - 1, 3)):
        part = clip_part(frames, 0, length)
        whole, _ = run(part, zeros(windows))
        if not (np.isfinite(whole).all() and whole.min() >= 0 and whole.max() <= 1 + 1e-6):
            raise ParityError(f"scores of {length} frames leave [0, 1]: {whole.min()} .. {whole.max()}")
        state = zeros(windows)
        for t in range(length):
            scores, state = run(clip_part(part, t, t + 1), state)
        _compare(scores, whole, STREAMING, f"{length} frames one by one and at once, {windows} windows")
        if reference is not None:
            _compare(whole, reference(part, windows), PARITY, f"file and network, {length} frames, {windows} windows")


def torch_reference(network: ArtifactNetwork) -> Callable[[np.ndarray, int], np.ndarray]:
    """The network's own scores as ``check_parity`` wants them."""

    @torch.no_grad()
    def scores(frames: np.ndarray, windows: int) -> np.ndarray:
        network.eval()
        state = network.head.zero_state(windows, torch.zeros(1))
        parts = clip_feed(input_widths(network.extractor), frames).values()
        result: np.ndarray = network(*map(torch.from_numpy, parts), *state.values())[0].numpy()
        return result

    return scores


def _compare(a: np.ndarray, b: np.ndarray, tolerance: float, what: str) -> None:
    if a.shape != b.shape:
        raise ParityError(f"{what}: shapes {a.shape} and {b.shape}")
    if (worst := float(np.abs(a - b).max())) > tolerance:
        raise ParityError(f"{what}: scores differ by {worst:.2e}, allowed {tolerance:.0e}")


def _sampling(sampling: Sampling) -> dict[str, Any]:
    if sampling.rule == "rate":
        return {"rule": "rate", "hz": sampling.hz}
    return {"rule": "uniform", "frames": sampling.frames}


# One file that gives boxes and the action: a detector's file with a head on its final map (DEEPEYE's pipeline).
#
# The detector runs once a frame and feeds both: its nodes stand in the graph as they stood in its own file.


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
