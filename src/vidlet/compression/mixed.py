"""8 bits where they cost little: the layers that cost most go back to 16 bits until the loss is within a bound."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..artifact.feeds import clip_feed, clip_inputs
from ..runtime import open_session
from .calibrate import zero_states
from .int8 import quantize_graph, quantized_kernels
from .products import integer_products, product_ranges, product_weights
from .qat import activation_ranges, input_means, learned_ranges
from .settle import settle
from .storage import large_weights, store_weights_half, store_weights_int8

Loss = Callable[[onnx.ModelProto], float]
LOSS_CLIPS = 8


@dataclass(frozen=True)
class Mixed:
    """A graph in 8 bits but for some layers.

    ``restored`` are the layers (names of their weights) that compute in float32 and are stored in float16, the
    costliest first; ``losses`` the loss of the graph all in 8 bits and, where layers are restored, as it is.
    """

    model: onnx.ModelProto
    restored: tuple[str, ...]
    losses: tuple[float, ...]


def quantize_within(
    model: onnx.ModelProto, bound: float, clips: Sequence[np.ndarray], loss: Loss | None = None
) -> Mixed:
    """Quantize a float32 artifact to 8 bits and restore layers until ``loss`` is at most ``bound``.

    A layer is a convolution or product that became an integer kernel, or a large matrix of the head. What each costs is
    measured once: the loss with that layer alone restored. Of this order the first are restored, as many as are enough
    (found by halving); where all of them are not enough, all are restored and the last loss stands above the bound.

    Args:
        bound: of the loss, in its own unit.
        clips: frames uint8 (T, H, W, 3) of training clips.
        loss: of a graph; None: :func:`score_loss` on up to 8 of the clips.
    """
    measure = loss or score_loss(model, clips[:: max(1, len(clips) // LOSS_CLIPS)][:LOSS_CLIPS])
    ranges, means = activation_ranges(model, clips), input_means(model, clips)
    wide, settled = product_ranges(model, clips), learned_ranges(model) is None
    kernels = [*quantized_kernels(model), *product_weights(model)]

    def quantized(kept: Sequence[str], settled: bool = settled) -> onnx.ModelProto:
        integer = quantize_graph(model, ranges, keep=kept, means=means)
        if settled:
            integer = settle(integer, model, clips, keep=kept)
        return store_weights_half(store_weights_int8(integer_products(integer, wide, keep=kept), skip=kept))

    smallest = quantized(())
    before = measure(smallest)
    if before <= bound:
        return Mixed(smallest, (), (before,))
    layers = [*kernels, *(name for name in large_weights(model, 2) if name not in kernels)]
    costs = {name: measure(quantized((name,), settled=False)) for name in layers}  # an order: biases take seconds each
    ordered = sorted(layers, key=costs.__getitem__)
    counts = range(len(ordered))
    enough = bisect_left(counts, True, lo=1, key=lambda count: measure(quantized(ordered[:count])) <= bound)
    found = quantized(ordered[:enough])
    return Mixed(found, tuple(ordered[:enough]), (before, measure(found)))


def score_loss(model: onnx.ModelProto, clips: Sequence[np.ndarray]) -> Loss:
    """The mean divergence (Kullback and Leibler's, in nats) of a graph's scores of whole clips from those of ``model``.

    Scores of labels that may occur together are taken one by one, each with its opposite.
    """
    zero = zero_states(model)
    feeds = [{**clip_feed(clip_inputs(model), clip), **zero} for clip in clips]
    expected = _scores(model, feeds)

    def loss(other: onnx.ModelProto) -> float:
        return divergence(expected, _scores(other, feeds))

    return loss


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """Mean divergence of scores ``found`` (B, K) from ``expected`` in nats; 0 only where they are equal."""
    tiny = 1e-7
    p, q = (np.clip(scores.astype(np.float64), tiny, 1.0) for scores in (expected, found))
    rows = (p * np.log(p / q)).sum(1)
    if not np.allclose(expected.sum(1), 1.0, atol=1e-3):
        p, q = (np.clip(1.0 - scores.astype(np.float64), tiny, 1.0) for scores in (expected, found))
        rows = rows + (p * np.log(p / q)).sum(1)
    return float(rows.mean())


def _scores(model: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """Scores (B, K) of whole clips."""
    session = open_session(model)
    scores: np.ndarray = np.concatenate([session.run(["scores"], feed)[0] for feed in feeds])
    return scores
