"""Weights in 4 bits, in blocks along the inputs, each block with a scale of its own.

Two codes share a byte. Runtimes expand them once when they load the file: bytes -> shift and mask -> a table of
sixteen values -> scale (all of it folded into an ordinary initializer, checked by the tests). Blocks as in Dettmers et
al. 2021, arXiv:2110.02861; kernels of integer convolutions have whole numbers as scales of their blocks, so that what
is expanded is again int8 with one float scale a channel, and the runtime's integer kernels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from .storage import Stored, large_weights, replace_initializers, write_int8

BLOCK = 32
LOWEST, HIGHEST = -8, 7  # of a code
MOST = 15  # largest whole scale of a block: 15 * 8 fits int8
KERNEL_MOST = 8  # of a kernel's block: any two products add up to 128 at most (exact.py)
STRETCHES = np.linspace(1.0, 1.3, 16)  # of the smallest scale that cuts nothing


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """Codes from -8 to 7, of any shape, two a byte (the first in the low half); uint8 (ceil(n / 2), 1).

    A code is stored in two's complement, so that zero weights make zero bytes.
    """
    halves = (codes.reshape(-1).astype(np.int16) & 15).astype(np.uint8)
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8)).reshape(-1, 2)
    packed: np.ndarray = (halves[:, :1] | halves[:, 1:] << 4).astype(np.uint8)
    return packed


def unpack_nibbles(packed: np.ndarray, count: int) -> np.ndarray:
    """What :func:`pack_nibbles` was given, flat: int8 (count,)."""
    halves = np.concatenate([packed & 15, packed >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    signed: np.ndarray = np.where(halves > HIGHEST, halves - 16, halves).astype(np.int8)
    return signed


def block_shape(shape: Sequence[int], axis: int, block: int) -> tuple[tuple[int, ...], int]:
    """A weight's shape with its inputs split into blocks, and the dimension that runs within a block.

    The inputs are what lies behind ``axis``, else what lies before it; a block is the longest part of at most ``block``
    that divides them.
    """
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    inputs = after if after > 1 else before
    length = max(size for size in range(1, min(block, inputs) + 1) if inputs % size == 0)
    if after > 1:
        return (before, shape[axis], after // length, length), 3
    return (before // length, length, shape[axis]), 1


def quantize_blocks(weight: np.ndarray, axis: int = 0, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Round to codes from -8 to 7 with a float16 scale a block of inputs.

    Of the scales that cut nothing the one of least squared error is taken; a negative one gives the larger side of the
    block the eight codes.

    Returns:
        codes int8 in the shape of ``block_shape(weight.shape, axis, block)``; scales float16, 1 along a block: with
        ``|weight - codes * scales| <= |scales| / 2`` (to float32's rounding).
    """
    shape, inside = block_shape(weight.shape, axis, block)
    blocks = weight.reshape(shape).astype(np.float64)
    best = _least_error(blocks, inside, lambda scales: _float16_up(np.abs(scales)) * np.sign(scales))
    return round_codes(blocks, best), best.astype(np.float16)


def quantize_kernel(weight: np.ndarray, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Round a convolution's weight (O, I, ...) to int8 in which every block is a small number times 4-bit codes.

    A channel has one float scale s, a block of its inputs a whole number m from -8 to 8, an entry a code from -8 to 7:
    no kernel on bytes can saturate.

    Returns:
        products m * code, int8 (O, I, ...), which :func:`store_codes_int4` can store in 4 bits; scales float32
        (O, 1, ...), with ``|weight - products * scales| <= |m| * s / 2``.
    """
    multiples, scales = kernel_scales(weight, block)
    steps = multiples * scales.reshape(-1, 1).astype(np.float64)
    codes = round_codes(weight.reshape(multiples.shape).astype(np.float64), steps)
    return (codes * multiples).astype(np.int8).reshape(weight.shape), scales


def kernel_scales(weight: np.ndarray, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """The whole number int64 (O, I * ...) that each entry's block has, and the channels' scales float32 (O, 1, ...)."""
    shape, inside = block_shape(weight.shape, 0, block)  # (1, O, blocks, block)
    blocks = weight.reshape(shape).astype(np.float64)
    largest = np.abs(_smallest_scales(blocks, inside)).max(axis=(2, 3), keepdims=True)  # (1, O, 1, 1)
    unit = np.maximum(largest / KERNEL_MOST, np.finfo(np.float32).tiny).astype(np.float32).astype(np.float64)

    def whole(scales: np.ndarray) -> np.ndarray:
        multiples = np.clip(np.ceil(np.abs(scales) / unit - 1e-6), 1, KERNEL_MOST)
        rounded: np.ndarray = multiples * unit * np.sign(scales)
        return rounded

    multiples = np.rint(_least_error(blocks, inside, whole) / unit).astype(np.int64)
    entries = np.broadcast_to(multiples, shape).reshape(weight.shape[0], -1)
    return entries, unit.astype(np.float32).reshape(-1, *[1] * (weight.ndim - 1))


def store_weights_int4(model: onnx.ModelProto, block: int = BLOCK, skip: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a copy whose large float32 matrices are 4-bit codes with a float16 scale a block of inputs.

    For each stored weight w: ``|w - codes * scales| <= |scales| / 2``. A matrix that would be larger so than in 8 bits
    (its nodes count) is stored in 8 bits.

    Args:
        block: inputs that share a scale, where the number of inputs can be divided by it; else fewer.
        skip: names of initializers to leave alone, or what stands before a dot in them.
    """
    axes = large_weights(model, 2, skip)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.name not in axes:
            return None
        weight, axis = numpy_helper.to_array(tensor), axes[tensor.name]
        dense = write_int8(Stored(stored.name, stored.taken), weight, axis)
        small = _write_blocks(stored, weight, axis, block)
        return small if small.size_bytes < dense.size_bytes else dense

    return replace_initializers(model, write)


def store_codes_int4(model: onnx.ModelProto, block: int = BLOCK) -> onnx.ModelProto:
    """Return a copy whose int8 initializers are stored in 4 bits where they can be: exactly the same values.

    They can be where every block of inputs is a whole number from -15 to 15 times codes from -8 to 7, and where it
    saves bytes (the nodes count).
    """

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        if tensor.data_type != onnx.TensorProto.INT8 or len(tensor.dims) < 2:
            return None
        values = numpy_helper.to_array(tensor)
        shape, inside = block_shape(values.shape, 0, block)
        found = _factors(values.reshape(shape), inside)
        if found is None:
            return None
        codes, multiples = found
        whole = _expand(stored, stored.keep("int4", pack_nibbles(codes)), codes.shape, np.int32)
        factor = stored.node("Cast", stored.keep("steps", multiples), to=onnx.TensorProto.INT32)
        product = stored.node("Mul", whole, factor)
        flat = stored.node("Reshape", product, stored.share(np.array(values.shape, np.int64)))
        stored.node("Cast", flat, last=True, to=onnx.TensorProto.INT8)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def _write_blocks(stored: Stored, weight: np.ndarray, axis: int, block: int) -> Stored:
    codes, scales = quantize_blocks(weight, axis, block)
    values = _expand(stored, stored.keep("int4", pack_nibbles(codes)), codes.shape, np.float32)
    factor = stored.node("Cast", stored.keep("scale", scales), to=onnx.TensorProto.FLOAT)
    product = stored.node("Mul", values, factor)
    stored.node("Reshape", product, stored.share(np.array(weight.shape, np.int64)), last=True)
    return stored


def _expand(stored: Stored, packed: str, shape: Sequence[int], dtype: type[np.generic]) -> str:
    """Nodes from packed bytes to signed codes of a shape."""
    table = np.array([*range(HIGHEST + 1), *range(LOWEST, 0)], dtype)
    return look_up(stored, packed, shape, stored.share(table))


def look_up(stored: Stored, packed: str, shape: Sequence[int], table: str, last: bool = False) -> str:
    """Nodes from packed bytes to the entries of a table of sixteen that they name, in a shape."""
    shifted = stored.node("BitShift", packed, stored.share(np.array([0, 4], np.uint8)), direction="RIGHT")
    masked = stored.node("BitwiseAnd", shifted, stored.share(np.uint8(15)))  # (n / 2, 2)
    count = int(np.prod(shape))
    if count % 2:
        flat = stored.node("Reshape", masked, stored.share(np.array([-1], np.int64)))
        ends = [stored.share(np.array([end], np.int64)) for end in (0, count)]
        masked = stored.node("Slice", flat, *ends)
    index = stored.node("Cast", masked, to=onnx.TensorProto.INT32)
    shaped = stored.node("Reshape", index, stored.share(np.array(shape, np.int64)))
    return stored.node("Gather", table, shaped, last=last)


def round_codes(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The codes int8, -8 to 7, nearest to values in steps of ``scales``."""
    codes: np.ndarray = np.clip(np.rint(blocks / scales), LOWEST, HIGHEST).astype(np.int8)
    return codes


def _smallest_scales(blocks: np.ndarray, inside: int) -> np.ndarray:
    """Scales of the blocks, negative where the larger side is the positive one, that bring all within half a step."""
    high = np.maximum(blocks.max(axis=inside, keepdims=True), 0)
    low = np.maximum(-blocks.min(axis=inside, keepdims=True), 0)
    sign = np.where(high > low, -1.0, 1.0)
    larger, smaller = np.maximum(high, low), np.minimum(high, low)
    needed = np.maximum(larger / (0.5 - LOWEST), smaller / (HIGHEST + 0.5))
    return sign * np.maximum(needed, 2.0**-24)  # float16's smallest


def _least_error(blocks: np.ndarray, inside: int, allowed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Of stretched smallest scales, made ``allowed`` ones, those of least squared error, block by block."""
    smallest = _smallest_scales(blocks, inside)
    best, least = smallest, np.full(smallest.shape, np.inf)
    for stretch in STRETCHES:
        scales = allowed(smallest * stretch)
        error = ((blocks - round_codes(blocks, scales) * scales) ** 2).sum(axis=inside, keepdims=True)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def _float16_up(values: np.ndarray) -> np.ndarray:
    """The float16 at or above each value."""
    near = values.astype(np.float16)
    return np.where(near < values, np.nextafter(near, np.float16(np.inf)), near).astype(np.float64)


def _factors(values: np.ndarray, inside: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(codes, whole numbers int8) of which blocks of int8 are the products; None where one block is not."""
    values = values.astype(np.int32)
    found = np.zeros([size if i != inside else 1 for i, size in enumerate(values.shape)], np.int32)
    for multiple in [sign * size for size in range(1, MOST + 1) for sign in (1, -1)]:
        codes = values // multiple
        fits = (codes * multiple == values) & (codes >= LOWEST) & (codes <= HIGHEST)
        found = np.where((found == 0) & fits.all(axis=inside, keepdims=True), multiple, found)
    if not found.all():
        return None
    return (values // found).astype(np.int8), found.astype(np.int8)


# Weights as numbers of a small table's entries: a codebook a tensor, found by k-means.
#
# Han et al. 2016 (arXiv:1510.00149) share weights so; the winners of YouTube-8M 2018 stored theirs with 256 quantiles.
# A runtime looks the entries up once, when it loads the file.
ENTRIES = (16, 256)
ROUNDS = 60


def codebook_of(values: np.ndarray, entries: int) -> np.ndarray:
    """The float16 table, ascending, of at most ``entries`` values that Lloyd's k-means finds for flat values.

    It begins with quantiles of values drawn half by rank and half by size, so that rare large values are not lost, and
    is the same for the same values. A zero among the values keeps an entry of exactly 0.
    """
    few = np.unique(values.astype(np.float16))
    if len(few) <= entries:
        return few
    ordered = np.sort(values.astype(np.float64))
    spread = np.linspace(ordered[0], ordered[-1], entries)
    ranks = np.quantile(ordered, (np.arange(entries) + 0.5) / entries)
    table = np.unique((spread + ranks) / 2)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(ROUNDS):
        edges = np.searchsorted(ordered, (table[1:] + table[:-1]) / 2)
        starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [ordered.size]])
        filled = ends > starts
        moved = table.copy()
        moved[filled] = (sums[ends] - sums[starts])[filled] / (ends - starts)[filled]
        if np.allclose(moved, table, rtol=1e-6, atol=0):
            break
        table = moved
    if (values == 0).any():
        table[np.abs(table).argmin()] = 0.0
    return np.unique(table.astype(np.float16))


def store_codebook(model: onnx.ModelProto, entries: int = 256) -> onnx.ModelProto:
    """Return a copy whose large float32 matrices are indices into a float16 table of the tensor's own.

    Every weight becomes the entry nearest to it: no other entry of its table would err less. 256 entries take a byte a
    weight, 16 half a byte. Weights beyond float16 stay as they are.

    Args:
        entries: 16 or 256.
    """
    assert entries in ENTRIES, f"a codebook has 16 or 256 entries, not {entries}"
    names = large_weights(model, 2)

    def write(stored: Stored, tensor: onnx.TensorProto) -> Stored | None:
        values = numpy_helper.to_array(tensor) if tensor.name in names else np.array(np.inf)
        if not np.abs(values).max() < np.finfo(np.float16).max:
            return None
        table = codebook_of(values.reshape(-1), entries)
        index = nearest_entries(values, table)
        entry = stored.node("Cast", stored.keep("codebook", table), to=onnx.TensorProto.FLOAT)
        if entries == 16:
            look_up(stored, stored.keep("index4", pack_nibbles(index)), values.shape, entry, last=True)
        else:
            number = stored.node("Cast", stored.keep("index", index), to=onnx.TensorProto.INT32)
            stored.node("Gather", entry, number, last=True)
        return stored if stored.size_bytes < tensor.ByteSize() else None

    return replace_initializers(model, write)


def nearest_entries(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The index uint8 of the entry nearest to each value, in the values' shape; ``table`` ascends."""
    entries = table.astype(np.float64)
    index: np.ndarray = np.searchsorted((entries[1:] + entries[:-1]) / 2, values.astype(np.float64)).astype(np.uint8)
    return index
