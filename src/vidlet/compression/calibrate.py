"""Activation ranges from real frames: the float graph is run, and each tensor's values are counted.

Counting is in constant memory: a histogram a tensor, whose limit doubles when a larger value comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ..artifact.feeds import clip_feed, clip_inputs
from ..errors import ExportError
from ..onnx_graph import Graph, with_outputs
from ..runtime import Session, open_session
from .int8 import LEVELS, Range, range_of, ranges_from_tflite

__all__ = [
    "METHODS", "Histogram", "calibrate", "calibrate_along", "channel_means", "clip_feeds", "ranges_from_tflite",
    "run_along", "run_inner", "zero_states",
]  # fmt: skip

Feed = Mapping[str, np.ndarray]

METHODS = ("minmax", "percentile", "mse")
CALIBRATION_FRAMES = 3  # of a clip: its frames look alike, other clips do not
BINS = 4096  # of a histogram, from -limit to limit


class Histogram:
    """Counts of a tensor's values between -limit and limit; also the exact extremes."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Count the values of an array of any shape."""
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if not np.isfinite((self.low, self.high)).all():
            raise ExportError("calibration met a value that is not finite")
        largest = max(-self.low, self.high)
        if not self.limit:
            self.limit = float(2.0 ** np.ceil(np.log2(largest))) if largest else 0.0
        while self.limit < largest:  # two bins become one, about the middle
            self.limit *= 2
            quarter = BINS // 4
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), quarter)
        if self.limit:
            bins = ((values.reshape(-1) + self.limit) * (BINS / (2 * self.limit))).astype(np.int32)
            self.counts += np.bincount(np.minimum(bins, BINS - 1, out=bins), minlength=BINS)

    def range(self, method: str = "percentile", percentile: float = 99.999) -> Range:
        """The uint8 range by a method of :func:`calibrate`."""
        if not self.limit or method == "minmax":
            return range_of(self.low, self.high)
        edges = np.linspace(-self.limit, self.limit, BINS + 1)
        if method == "percentile":
            tail = (1 - percentile / 100) / 2
            share = np.cumsum(self.counts) / self.counts.sum()
            low, high = edges[np.searchsorted(share, tail, "right")], edges[np.searchsorted(share, 1 - tail) + 1]
            return range_of(max(low, self.low), min(high, self.high))
        return self._least_error((edges[:-1] + edges[1:]) / 2)

    def _least_error(self, centers: np.ndarray) -> Range:
        """The range of least squared error among those that cut both extremes by 0 to 80 %, ends searched in turn."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        shares = np.linspace(0.2, 1.0, 41)

        def error(candidate: Range) -> float:
            scale, zero_point = candidate
            codes = np.clip(np.rint(centers / scale) + zero_point, 0, LEVELS)
            inside = (codes > 0) & (codes < LEVELS)
            distance = (scale * (codes - zero_point) - centers) ** 2
            return float((self.counts * np.where(inside, scale**2 / 12, distance)).sum())

        best = min((range_of(low, high * share) for share in shares), key=error)
        top = (LEVELS - best[1]) * best[0]
        return min((range_of(low * share, top) for share in shares), key=error) if low < 0 else best


def calibrate(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    tensors: Sequence[str],
    method: str = "percentile",
    percentile: float = 99.999,
) -> dict[str, Range]:
    """Run the float graph and choose each tensor's uint8 range (scale, zero point).

    Args:
        feeds: one dict of inputs a run; memory is that of the largest run's activations (27 MB a frame of a
            MobileNetV2 at 224 x 224) and does not grow with their number.
        method: "minmax"; "percentile": cuts (100 - percentile) / 2 % of the values at either end; "mse": least squared
            error of rounding and cutting together. Relative error of MobileNetV2's embedding on 12 frames of videos
            of hands, calibrated on 20 others: minmax .083, 99.999 % .080, 99.99 % .085, 99.9 % .157, mse .081.

    Raises:
        ExportError: no feeds, an unknown method or tensor, or a value that is not finite.
    """
    _check_method(method)
    counts = {name: Histogram() for name in tensors}
    for found in run_inner(model, feeds, tensors):
        for name, values in zip(tensors, found, strict=True):
            counts[name].add(values)
    return {name: histogram.range(method, percentile) for name, histogram in counts.items()}


def channel_means(tensors: Sequence[str], runs: Iterable[Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean of each channel (C,) float64 of tensors (B, C, ...) over all runs, as :func:`run_inner` gives them."""
    total = dict.fromkeys(tensors, np.zeros(()))
    count = 0
    for values in runs:
        count += len(values[0])
        for name, found in zip(tensors, values, strict=True):
            axes = (0, *range(2, found.ndim))
            total[name] = total[name] + found.mean(axes, dtype=np.float64) * len(found)
    return {name: summed / count for name, summed in total.items()}


def clip_feeds(model: onnx.ModelProto, clips: Iterable[np.ndarray], frames: int = CALIBRATION_FRAMES) -> Iterator[Feed]:
    """A feed a clip (T, H, W, 3): a few of its frames, evenly, and zero states. For tensors before the states."""
    zero, inputs = zero_states(model), clip_inputs(model)
    for clip in clips:
        yield {**clip_feed(inputs, clip[np.linspace(0, len(clip) - 1, min(frames, len(clip))).astype(int)]), **zero}


def zero_states(model: onnx.ModelProto, windows: int = 1) -> dict[str, np.ndarray]:
    """The zeros (windows, ...) that a graph's states begin with."""
    return {
        value.name: np.zeros(
            (windows, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])),
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in model.graph.input
        if value.name.startswith("state.")
    }


def run_inner(model: onnx.ModelProto, feeds: Iterable[Feed], tensors: Sequence[str]) -> Iterator[list[np.ndarray]]:
    """Values of inner tensors, feed by feed.

    Raises:
        ExportError: no feeds, or a tensor that the graph does not have.
    """
    session, runs = _session(model, tensors), 0
    for feed in feeds:
        yield session.run(list(tensors), dict(feed))
        runs += 1
    if not runs:
        raise ExportError("calibration needs at least one clip, got none")


def run_along(
    model: onnx.ModelProto, clips: Iterable[np.ndarray], tensors: Sequence[str], chunk: int = 1
) -> Iterator[list[np.ndarray]]:
    """Values of inner tensors along whole clips (T, H, W, 3): the state begins with zeros and is handed on.

    So that what lies behind a state is seen as it is in use. ``chunk`` frames are given at once; with 1, every state
    between two frames is seen.

    Raises:
        ExportError: no clips, or a tensor that the graph does not have.
    """
    states, inputs = zero_states(model), clip_inputs(model)
    made = [*tensors, *(f"next_{name}" for name in states)]
    session, runs = _session(model, made), 0
    for clip in clips:
        state: dict[str, np.ndarray] = states
        for start in range(0, len(clip), chunk):
            values = session.run(made, {**clip_feed(inputs, clip[start : start + chunk]), **state})
            state = dict(zip(states, values[len(tensors) :], strict=True))
            yield values[: len(tensors)]
        runs += 1
    if not runs:
        raise ExportError("calibration needs at least one clip, got none")


def calibrate_along(
    model: onnx.ModelProto,
    clips: Iterable[np.ndarray],
    tensors: Sequence[str],
    method: str = "percentile",
    percentile: float = 99.999,
    chunk: int = 1,
) -> dict[str, Range]:
    """As :func:`calibrate`, for tensors behind recurrent states: clips are run whole, the state handed on."""
    _check_method(method)
    counts = {name: Histogram() for name in tensors}
    for found in run_along(model, clips, tensors, chunk):
        for name, values in zip(tensors, found, strict=True):
            counts[name].add(values)
    return {name: histogram.range(method, percentile) for name, histogram in counts.items()}


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ExportError(f"calibration method must be one of {', '.join(METHODS)}, got {method!r}")


def _session(model: onnx.ModelProto, tensors: Sequence[str]) -> Session:
    """An inference session whose outputs are inner tensors."""
    makers = Graph(model).makers
    if missing := [name for name in tensors if name not in makers]:
        raise ExportError(f"graph has no tensor {missing[0]!r} to calibrate")
    return open_session(with_outputs(model, tensors))
