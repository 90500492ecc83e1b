"""A model file of ours as a .tflite file for LiteRT: one frame a call, one stream, the state given in and taken out.

``frames`` uint8 (1, H, W, 3) and each ``state.s`` (1, ...) go in; ``scores`` (1, K) and each ``next_state.s`` come
out, by the names of the signature "serving_default"; zeros begin. Convolutions of an int8 file are integer operators
with the same codes. The metadata are in the file as ``vidlet.json`` of a zip archive at its end. A file that answers
otherwise than the model that it was made of is never written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..errors import ExportError, ModelError
from ..files import write_bytes
from ..metrics import percentiles_ms
from ..onnx_graph import Graph
from ..onnx_graph.columns import part_columns
from ..onnx_graph.normal import fix_batch, operations_of
from ..onnx_graph.rewrites import fold_constants, run_scans_once
from ..progress import bar
from ..runtime import load, open_session
from ..runtime.metadata import DESCRIPTION, graph_sha256
from ..runtime.model import Model
from .lowered_operators import LOWERED
from .lowering import Codes, Lowering
from .tflite_file import SIGNATURE, FileGraph, litert_package, open_interpreter, tflite_bytes

PARITY = 1e-3  # largest difference of a score, and of a state in parts of its largest number
CHECKED = 1000  # frames that the two files are compared on
CLIP = 40  # after so many of them the state is zero again


def export_litert(source: str | Path, out: str | Path) -> dict[str, Any]:
    """Write a classifier on frames as a .tflite file; returns labels, operators and what ``compare_litert`` measured.

    Raises:
        ExportError: the model has no such form (a detector, one on stored features, an operator without counterpart),
            or the file would answer otherwise; nothing is written.
        DependencyError: the package ``ai-edge-litert`` is not installed.
    """
    litert_package("interpreter")
    model = load(source, threads=1)
    if list(model.inputs) != ["frames"] or model.box_labels:
        what = "a detector" if model.box_labels else f"one on {' and '.join(model.inputs)}"
        raise ExportError(f"{source}: --format litert writes classifiers on frames; this model is {what}")
    data = Path(source).read_bytes()
    graph = litert_graph(data, str(source))
    told = {name: value for name, value in model.metadata.items() if name != "evidence"}  # measured of another file
    told |= {"made_of": graph_sha256(data)}
    content = tflite_bytes(graph, "vidlet", {DESCRIPTION: json.dumps(told, ensure_ascii=False, indent=1).encode()})
    measured = compare_litert(content, model, CHECKED)
    if max(measured["score_difference"], measured["state_difference"]) > PARITY:
        codes = any(tensor.dtype == "int8" and tensor.data is None for tensor in graph.tensors)
        hint = "; sums in its 8 bits round otherwise: make it anew, or try the float32 file" if codes else ""
        raise ExportError(
            f"{source}: not written: over {CHECKED} frames the .tflite file differs by up to "
            f"{measured['score_difference']:.2g} in a score and {measured['state_difference']:.2g} in a state "
            f"(at most {PARITY:g} may be){hint}"
        )
    write_bytes(out, content)
    return {"labels": len(model.labels), "operators": len(graph.operators), "bound": PARITY, **measured}


def litert_graph(data: bytes, where: str) -> FileGraph:
    """The graph of a model file for one frame and one stream, as TFLite's operators.

    Raises:
        ExportError: operators have no counterpart; all of them are named.
    """
    model = part_columns(onnx.load_from_string(data))
    codes = _stored_codes(Graph(model))
    try:
        graph = Graph(fix_batch(model))
        run_scans_once(graph)
        tensors = _run_once(graph, where)
        _store_known(graph, tensors)
        fold_constants(graph)
        graph.prune()
        missing = {node.op_type for node in graph.nodes} - set(LOWERED)
        if missing:
            raise ExportError(f"{where}: no .tflite form is known of its operators {', '.join(sorted(missing))}")
        operations = operations_of(graph, graph.nodes, {name: t.shape for name, t in tensors.items()}, LOWERED)
        return Lowering(graph, tensors, codes, LOWERED).lower(operations)
    except (ModelError, ExportError) as error:
        text = str(error).removeprefix(f"{where}: ")
        raise ExportError(f"{where}: {text}") from error


def _store_known(graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
    """Store what no frame changes: shapes, and tensors without any number (earlier frames of a clip of one)."""
    known = [
        node
        for node in graph.nodes
        if node.op_type == "Shape" or all(not tensors[name].size for name in node.output if name)
    ]
    for node in known:
        for name in node.output:
            graph.store(name, tensors[name])
    graph.remove(known)


def _run_once(graph: Graph, where: str) -> dict[str, np.ndarray]:
    """All tensors of a graph for one frame of zeros: their shapes and types are what is wanted."""
    names = list(dict.fromkeys(name for node in graph.nodes for name in node.output if name))
    everything = Graph.copy_of(graph.model)
    everything.set_outputs(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(everything.model, where, threads=1)
    types = {value.name: value.type.tensor_type.elem_type for value in graph.proto.input}
    feeds = {
        name: np.zeros(shape, helper.tensor_dtype_to_np_dtype(types[name])) for name, shape in session.inputs.items()
    }
    return feeds | dict(zip(names, session.run(names, feeds), strict=True)) | graph.values()


def _stored_codes(graph: Graph) -> dict[str, Codes]:
    """Constants that are integers times scales in a file, by the names of their float values."""
    found = {}
    for node in graph.nodes:
        if node.op_type == "DequantizeLinear" and all(name in graph.constants for name in node.input):
            codes = graph.value(node.input[0])
            zero = graph.value(node.input[2]) if len(node.input) > 2 else np.zeros(1)
            if codes.dtype in (np.int8, np.int32) and not zero.any():
                found[node.output[0]] = (codes, graph.value(node.input[1]))
    return found


def compare_litert(content: bytes, model: Model, frames: int) -> dict[str, Any]:
    """A .tflite file beside the model that it was made of, frame by frame in turn, over drawn clips.

    Scores alone would not do: a model that is sure of all that it sees is sure in both files.

    Returns:
        frames; score_difference, the largest; state_difference, the largest, in parts of the largest number of that
        state; same_label, a share of the frames; and the median milliseconds of a frame in both, by the clock, in turn,
        each on one thread: litert_ms, onnx_ms.
    """
    runner = open_interpreter(content).get_signature_runner(SIGNATURE)
    seconds = np.empty((frames, 2))
    scores, same = 0.0, 0
    off, size = dict.fromkeys(model.state_spec, 0.0), dict.fromkeys(model.state_spec, 1e-9)
    with bar("comparing with the model", "frame") as move:
        for t, frame in enumerate(_stream(model.input_size, frames)):
            if t % CLIP == 0:
                state = model.zero_state(1)
                kept = {f"state.{name}": value for name, value in state.items()}
            began = time.perf_counter()
            expected, state = model(frame, state)
            between = time.perf_counter()
            answered = runner(frames=frame, **kept)
            seconds[t] = between - began, time.perf_counter() - between
            kept = {name: answered[f"next_{name}"] for name in kept}
            scores = max(scores, _apart(answered["scores"], expected))
            same += int(answered["scores"].argmax() == expected.argmax())
            for name, value in state.items():
                off[name] = max(off[name], _apart(kept[f"state.{name}"], value))
                size[name] = max(size[name], float(np.abs(value).max(initial=0)))
            move(t + 1, frames, "")
    onnx_ms, litert_ms = (percentiles_ms(times, [50])["p50"] for times in seconds.T)
    return {
        "frames": frames,
        "score_difference": scores,
        "state_difference": max((off[name] / size[name] for name in off), default=0.0),
        "same_label": same / frames,
        "litert_ms": litert_ms,
        "onnx_ms": onnx_ms,
    }


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays; what is no number is infinitely far."""
    return float(np.nan_to_num(np.abs(a.astype(np.float64) - b), nan=np.inf).max(initial=0))


def _stream(size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    """uint8 (1, H, W, 3): clips of CLIP frames, in each other colors, waves and discs, which move otherwise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : 1j * size[0], 0 : 1 : 1j * size[1]].astype(np.float32)[..., None]
    for first in range(0, frames, CLIP):
        far, near = rng.uniform(0, 255, 3), rng.uniform(0, 255, (rng.integers(1, 5), 3))
        waves, speed = rng.uniform(-25, 25, (2, 3)), rng.uniform(-0.5, 0.5, 3)
        place, way = rng.uniform(0, 1, (2, len(near), 2)) * [[[1]], [[0.1]]]
        radius, noise = rng.uniform(0.05, 0.4, len(near)), rng.uniform(0, 12)
        for t in range(min(CLIP, frames - first)):
            light = far + 40 * np.sin(x * waves[0] + y * waves[1] + t * speed)
            for color, (b, a), r in zip(near, 0.5 + 0.5 * np.sin(6 * (place + t * way)), radius, strict=True):
                light = np.where((y - b) ** 2 + (x - a) ** 2 < r**2, color, light)
            light += noise * rng.standard_normal(light.shape, np.float32)
            yield light.clip(0, 255).astype(np.uint8)[None]
