"""A quantized TFLite classifier as an int8 ONNX extractor: frames in, features out, the file's own ranges kept."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ..artifact import extractor_graph
from ..errors import ParityError, WeightsError
from ..files import write_bytes
from ..models import MobileNetV2
from ..models.extractor import FrameExtractor
from ..models.extractors import extractor_from_tflite
from ..models.mobilenets import MobileNetV1
from ..onnx_graph.columns import join_columns
from ..runtime import open_session
from .calibrate import channel_means, run_inner, zero_states
from .int8 import conv_inputs, quantize_graph, ranges_from_tflite

NETWORKS: dict[type[MobileNetV1 | MobileNetV2], tuple[str, tuple[float, ...]]] = {  # whole cut, widths of known files
    MobileNetV2: ("head", (1.0, 0.35, 0.5, 0.75, 1.3, 1.4)),
    MobileNetV1: ("block12", (1.0, 0.25, 0.5, 0.75)),
}
PARITY = 1e-4  # largest difference between torch and the float graph, relative to the largest feature


def export_tflite(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Any]:
    """Write ``out``: frames uint8 (T, H, W, 3) -> features float32 (T, D), computed in integers.

    Returns what was made: {"network", "width", "input_size", "feature_shape", "float_difference", "int8_cosine"}; the
    last two compare, on generated pictures, the float graph with torch and the file with the float graph.

    Raises:
        WeightsError: not a quantized MobileNetV1 or MobileNetV2.
    """
    extractor = _load(path)
    graph = extractor_graph(extractor)
    frames = _pictures(extractor.input_size)
    with torch.no_grad():
        expected = extractor(torch.from_numpy(frames)).numpy()
    features = _run(graph, frames)
    difference = float(np.abs(features - expected).max() / np.abs(expected).max())
    if difference > PARITY:
        raise ParityError(f"{path}: float features differ by {difference:.2e} of the largest, allowed {PARITY:.0e}")
    quantized = quantize_imported(graph, extractor)
    entry = quantized.metadata_props.add()
    entry.key, entry.value = "provenance", json.dumps(extractor.provenance, sort_keys=True)
    integer = _run(quantized, frames)
    write_bytes(out, quantized.SerializeToString(deterministic=True))
    return {
        "network": type(extractor.backbone).__name__,
        "width": extractor.backbone.width,
        "input_size": list(extractor.input_size),
        "feature_shape": list(extractor.feature_shape),
        "float_difference": difference,
        "int8_cosine": float((features * integer).sum() / np.linalg.norm(features) / np.linalg.norm(integer)),
    }


def quantize_imported(graph: onnx.ModelProto, extractor: FrameExtractor) -> onnx.ModelProto:
    """Quantize the graph of an extractor of TFLite weights with the ranges that its file had.

    Channels whose codes could saturate in 16 bits get coarser ones (exact.py); what that shifts the outputs by in the
    mean, over generated pictures, the biases take.
    """
    assert extractor.ranges is not None, "the extractor has no ranges: calibrate instead"
    names, feeds = conv_inputs(graph), [{"frames": _pictures(extractor.input_size), **zero_states(graph)}]
    means = channel_means(names, run_inner(graph, feeds, names))
    return join_columns(quantize_graph(graph, ranges_from_tflite(graph, extractor.ranges), means=means))


def _load(path: str | os.PathLike[str]) -> FrameExtractor:
    """The extractor, of the first network and width that fit; if none does, the error that got furthest."""
    errors: list[WeightsError] = []
    for network, (whole, widths) in NETWORKS.items():
        for width in widths:
            try:
                return extractor_from_tflite(Path(path), width, whole, 0, network=network)
            except WeightsError as error:
                errors.append(error)
    raise max(errors, key=_progress)


def _progress(error: WeightsError) -> int:
    """How many operators fitted before an error; -1 where it is of another kind."""
    found = re.search(r": operator (\d+) .* is not ", str(error))
    return int(found[1]) if found else -1


def _pictures(size: tuple[int, int]) -> np.ndarray:
    """Three reproducible pictures (3, H, W, 3) of colored blocks."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, -(-size[0] // 16), -(-size[1] // 16), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 1).repeat(16, 2)[:, : size[0], : size[1]])


def _run(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    features: np.ndarray = open_session(model).run(["features"], {"frames": frames})[0]
    return features
