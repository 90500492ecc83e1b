"""Steps on the exported float32 graph, as recipes name them: what computes in integers, and how weights are stored.

Each takes the graph, its amount (None: its own default) and frames uint8 (T, H, W, 3) of training clips, and returns a
graph that runs on any ONNX Runtime. Steps that round take what is still float32 in the graph they are given, so
"head4+int8" is a head in 4 bits behind an extractor in 8.
"""

from __future__ import annotations

import itertools
import json
import string
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..artifact.feeds import clip_feed, clip_inputs
from ..errors import RecipeError
from ..onnx_graph import Graph
from ..onnx_graph.columns import join_columns
from ..onnx_graph.graph import names_in_bodies
from ..runtime import open_session
from .blocks import BLOCK, ENTRIES, store_codebook, store_codes_int4, store_weights_int4
from .box_graph import finds_boxes, int8_detector
from .calibrate import calibrate, clip_feeds, zero_states
from .int8 import quantize_graph, quantized_kernels, quantized_tensors
from .kernels import round_kernels
from .products import integer_products, product_ranges, product_weights
from .qat import activation_ranges, input_means, knows_integers, learned_ranges
from .settle import integer_graph, settle, settle_answers
from .storage import Stored, large_weights, replace_initializers, store_sparse, store_weights_half, store_weights_int8
from .volumes import integer_volumes

RESTORED = "vidlet.restored"  # metadata entry: which layers a bound on the loss brought back to 16 bits


def int8(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Integer convolutions in the extractor (u8 activations, s8 weights per channel), 8-bit storage of the head.

    Matrix products and recurrent cells of the head that are large enough to be faster so compute in integers too. Of a
    detector the last convolution stays in float (box_graph.py), and one whose file was in integers stays as it is.

    Args:
        amount: the most that the scores of training clips may diverge from the float ones, in nats; the layers that
            cost most go back to 16 bits until they do not. The file's metadata entry ``vidlet.restored`` names them.
            None: all layers in 8 bits.
    """
    if amount is not None:
        return _within(graph, amount, clips)
    wide = product_ranges(graph, clips)
    if finds_boxes(graph):
        return join_columns(store_weights_int8(integer_products(int8_detector(graph, clips), wide)))
    integer = integer_graph(graph, clips)
    if learned_ranges(graph) is None and not knows_integers(graph):
        integer = settle_answers(integer, graph, clips)
    integer = integer_volumes(integer, clips)
    return join_columns(store_weights_int8(integer_products(integer, wide)))


def int4(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Integer convolutions whose large pointwise kernels are stored in 4 bits, and the head's matrices in 4-bit blocks.

    The kernels are rounded by what they do to the clips' frames (kernels.py) and run in the same integer kernels as
    those of ``int8``; depthwise, first and small ones have 8 bits.

    Args:
        amount: weights that share a scale; None: 32.
    """
    block = _block(amount)
    rounded = round_kernels(graph, clip_feeds(graph, clips), block=block)
    names = quantized_tensors(graph)
    ranges = calibrate(rounded.model, clip_feeds(graph, clips), names) if names else {}
    integer = quantize_graph(rounded.model, ranges, codes=rounded.codes, means=input_means(rounded.model, clips))
    return join_columns(store_weights_int4(store_codes_int4(settle(integer, graph, clips), block), block))


def head4(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """The head's large matrices in 4-bit blocks, computed in float32; the extractor stays.

    Args:
        amount: weights that share a scale; None: 32.
    """
    extractor = Graph(graph).sources("features")
    others = [name for name in large_weights(graph, 1, min_elements=0) if name in extractor]
    return store_weights_int4(graph, _block(amount), skip=others)


def codebook(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Large matrices as indices into a table of their own, computed in float32.

    Args:
        amount: entries of a table, 16 or 256; None: 256.
    """
    entries = 256 if amount is None else amount
    if entries not in ENTRIES:
        raise RecipeError(f"compress: codebook has 16 or 256 entries, got {entries:g}")
    return store_codebook(graph, int(entries))


def sparse(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Tensors with many zeros stored without them, where that is smaller; the same values exactly."""
    return store_sparse(graph)


def half(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """All large weights stored as float16, computed in float32."""
    return store_weights_half(graph)


def weights8(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """All large matrices and kernels stored in 8 bits with a scale an output, computed in float32.

    The bytes of ``int8`` at the speed of float32, which is the faster of the two in a browser and on processors without
    fast integer products; activations are not rounded.
    """
    return store_weights_int8(graph)


def compact(graph: onnx.ModelProto, amount: float | None, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Short names, and nothing stored twice: the same to the last bit, in a smaller file. The last step of a chain."""
    return compact_graph(graph)


def _within(graph: onnx.ModelProto, bound: float, clips: Sequence[np.ndarray]) -> onnx.ModelProto:
    mixed = quantize_within(graph, bound, clips)
    joined = join_columns(mixed.model)
    entry = joined.metadata_props.add()
    entry.key = RESTORED
    entry.value = json.dumps({"layers": mixed.restored, "losses": [float(f"{loss:.3g}") for loss in mixed.losses]})
    return joined


def _block(amount: float | None) -> int:
    if amount is None:
        return BLOCK
    if amount != int(amount) or amount < 2:
        raise RecipeError(f"compress: weights of a block are a whole number from 2, got {amount:g}")
    return int(amount)


# The same computation in fewer bytes: what a file says twice, and names that nobody reads.
#
# In an artifact of 0.5 MB every eighth byte is not needed: names of inner tensors and nodes, default attributes, and
# for each channel of a convolution the scale of its bias, which is the product of two others.
NUMBERS = 4  # values of a tensor that is called a number
WORDS = (("extractor.backbone.", ""), ("extractor.", ""), (".conv.weight", ""), (".conv.bias", ".bias"))


def compact_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that computes the same to the last bit from a smaller file.

    Names of inputs, outputs, of the tensor ``features`` and of weights stay recognizable; all others become short.
    """
    smaller = narrow_biases(share_bias_scales(model))
    drop_defaults_(smaller)
    shorten_names_(smaller)
    onnx.checker.check_model(smaller)
    return smaller


def share_bias_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute the scale of each integer bias at load, from the scales of its convolution's input and weight.

    It is stored no more where the product is exactly it, in float32.
    """
    graph = Graph(model)
    values, makers = graph.values(), graph.makers
    factors: dict[str, tuple[str, str]] = {}
    for conv in graph.nodes:
        parts = [makers.get(name) for name in conv.input] if conv.op_type == "Conv" and len(conv.input) > 2 else []
        if len(parts) < 3 or any(part is None or part.op_type != "DequantizeLinear" for part in parts):
            continue
        source, weight, bias = (str(part.input[1]) for part in parts if part is not None)
        stored = all(name in values for name in (source, weight, bias)) and values[source].size == 1
        if stored and np.array_equal((values[source] * values[weight]).astype(np.float32), values[bias]):
            factors[bias] = (source, weight)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.name not in factors:
            return None
        stored.node("Mul", *factors[tensor.name], last=True)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def narrow_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store int32 vectors as int16 where all their values fit."""

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.data_type != onnx.TensorProto.INT32:
            return None
        values = numpy_helper.to_array(tensor)
        limits = np.iinfo(np.int16)
        if not values.size or values.min() < limits.min or values.max() > limits.max:
            return None
        stored.node("Cast", stored.keep("q", values.astype(np.int16)), last=True, to=onnx.TensorProto.INT32)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def drop_defaults_(model: onnx.ModelProto) -> None:
    """Remove attributes of convolutions that say what holds anyway."""
    graph = Graph(model)
    dims = {name: list(tensor.dims) for name, tensor in graph.constants.items()}
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        weight = graph.makers.get(node.input[1])
        shape = dims.get(weight.input[0] if weight is not None else node.input[1], [])
        kept = [attribute for attribute in node.attribute if not _says_nothing(attribute, shape[2:])]
        del node.attribute[:]
        node.attribute.extend(kept)


def shorten_names_(model: onnx.ModelProto) -> None:
    """Give inner tensors and numbers short names, and weights those of their layers alone; nodes lose theirs."""
    graph = Graph(model)
    kept = {*graph.inputs, *graph.outputs, "features", *names_in_bodies(graph.nodes)}
    names = {name: name for name in kept}
    for tensor in model.graph.initializer:
        plain = tensor.name
        for old, new in WORDS:
            plain = plain.replace(old, new)
        if int(np.prod(tensor.dims)) > NUMBERS and tensor.name not in names and plain not in names.values():
            names[tensor.name] = plain
    taken = set(names.values())
    fresh = (name for name in _short_names() if name not in taken)

    def short(name: str) -> str:
        if name not in names:
            names[name] = next(fresh)
        return names[name]

    graph.rename(short)
    for node in graph.nodes:
        node.name = ""


def _says_nothing(attribute: onnx.AttributeProto, kernel: list[int]) -> bool:
    """Whether a convolution's attribute is its default, or repeats the shape of its weights."""
    if attribute.name == "kernel_shape":
        return list(attribute.ints) == kernel
    if attribute.name in ("strides", "dilations"):
        return set(attribute.ints) <= {1}
    if attribute.name == "pads":
        return set(attribute.ints) <= {0}
    if attribute.name == "auto_pad":
        return bool(attribute.s == b"NOTSET")
    return bool(attribute.name == "group" and attribute.i == 1)


def _short_names() -> Iterator[str]:
    """a, b ... Z, aa, ab ..."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)


# 8 bits where they cost little: the layers that cost most go back to 16 bits until the loss is within a bound.
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
