"""8 bits where they cost little: the layers that cost most go back to 16 bits until the loss is within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..artifact.feeds import clip_feed, clip_inputs
from ..runtime import open_session
from .calibrate import zero_states
from .int8 import quantize_graph, quantized_kernels
from .products import integer_products, product_ranges, product_weights
from .ranges import activation_ranges, input_means
from .storage import large_weights, store_weights_half, store_weights_int8

__all__ = ["Loss", "Mixed", "quantize_within", "score_loss"]

Loss = Callable[[onnx.ModelProto], float]
LOSS_CLIPS = 8


@dataclass(frozen=True)
class Mixed:
    """A graph in 8 bits but for some layers.

    ``restored`` are the layers (names of their weights) that compute in float32 and are stored in float16, the
    costliest first; ``losses`` the loss of the graph all in 8 bits, and after each of them was restored.
    """

    model: onnx.ModelProto
    restored: tuple[str, ...]
    losses: tuple[float, ...]


def quantize_within(
    model: onnx.ModelProto,
    bound: float,
    clips: Sequence[np.ndarray],
    loss: Loss | None = None,
    until: str = "features",
) -> Mixed:
    """Quantize a float32 artifact to 8 bits and restore layers until ``loss`` is at most ``bound``.

    A layer is a convolution or product that became an integer kernel, or a large matrix of the head. What each costs is
    measured once: the loss with that layer alone restored. They are restored in this order, one by one; where all of
    them are not enough, all are restored and the last loss stands above the bound.

    Args:
        bound: of the loss, in its own unit.
        clips: frames uint8 (T, H, W, 3) of training clips.
        loss: of a graph; None: :func:`score_loss` on up to 8 of the clips.
    """
    measure = loss or score_loss(model, clips[:: max(1, len(clips) // LOSS_CLIPS)][:LOSS_CLIPS])
    ranges, means = activation_ranges(model, clips, until), input_means(model, clips, until)
    wide = product_ranges(model, clips)
    kernels = [*quantized_kernels(model, until), *product_weights(model)]

    def quantized(kept: Sequence[str]) -> onnx.ModelProto:
        integer = integer_products(quantize_graph(model, ranges, until, kept, means=means), wide, keep=kept)
        return store_weights_half(store_weights_int8(integer, skip=kept))

    smallest = quantized(())
    losses = [measure(smallest)]
    if losses[0] <= bound:
        return Mixed(smallest, (), tuple(losses))
    layers = [*kernels, *(name for name in large_weights(model, 2) if name not in kernels)]
    costs = {name: measure(quantized((name,))) for name in layers}
    ordered = sorted(layers, key=costs.__getitem__)
    restored: list[str] = []
    while losses[-1] > bound and len(restored) < len(ordered):
        restored.append(ordered[len(restored)])
        losses.append(costs[restored[0]] if len(restored) == 1 else measure(quantized(restored)))
    return Mixed(quantized(restored), tuple(restored), tuple(losses))


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
