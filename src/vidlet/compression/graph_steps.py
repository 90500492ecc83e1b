"""Steps on the exported float32 graph, as recipes name them: what computes in integers, and how weights are stored.

Each takes the graph, its amount (None: its own default) and frames uint8 (T, H, W, 3) of training clips, and returns a
graph that runs on any ONNX Runtime. Steps that round take what is still float32 in the graph they are given, so
"head4+int8" is a head in 4 bits behind an extractor in 8.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import onnx

from ..errors import RecipeError
from ..onnx_graph import Graph
from ..onnx_graph.columns import join_columns
from .blocks import BLOCK, ENTRIES, store_codebook, store_codes_int4, store_weights_int4
from .box_graph import finds_boxes, int8_detector
from .calibrate import calibrate, clip_feeds
from .compact import compact as compact_graph
from .int8 import quantize_graph, quantized_tensors
from .kernels import round_kernels
from .mixed import quantize_within
from .products import integer_products, product_ranges
from .qat import input_means, knows_integers, learned_ranges
from .settle import integer_graph, settle, settle_answers
from .storage import large_weights, store_sparse, store_weights_half, store_weights_int8
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
