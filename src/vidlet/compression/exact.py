"""Integer weights that every processor multiplies exactly: sums of two products never leave 16 bits.

x86-64 processors without VNNI multiply uint8 by int8 with one instruction, vpmaddubsw, that adds two neighboring
products in 16 bits and cuts the sum off at 32,767. With codes up to 127 the sum may be 255 * 254 = 64,770, so a file of
such codes answers otherwise there. Two codes that add up to 128 at most give 255 * 128 = 32,640, which fits whatever
the activations are.

Which two are added follows from how the weights lie in memory: kernels read four bytes of activations at once, channels
or taps of the convolution running fastest, and vpmaddubsw adds the first two products of them and the last two. The
bound here is on those pairs. A channel keeps between 7 and 8 bits so.

Sums of two tensors of integers are rounded from float32, in another order on every processor and runtime. Where a sum
is within a float's error of half a code, the code differs, and one code becomes many in a deep network: half of the
codes of MobileNetV2's last maps, by up to 20. ``clear_of_ties`` chooses the scale of the sum so that no two codes come
near one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from .storage import lattice_step

PAIR = 128  # the most that two codes of one sign may add up to: 255 * 128 <= 32,767 < 255 * 129
LARGEST = 127
CLEAR = 2**-13  # of a code: more than float32 errs by in a sum of three numbers of up to 9 bits
TRIED, SPACED = 10_000, 1e-6  # scales of a sum, and how far apart: at most 1 % above the wanted one


def quantize_exactly(weight: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Round to int8, symmetrically, one scale an index of ``axis``, so that no kernel on bytes can saturate.

    Returns codes (the shape of ``weight``, -127 to 127) and float32 scales (n along ``axis``, 1 elsewhere) with
    ``|weight - codes * scales| <= scales / 2`` (to float32's rounding) and ``pair_sums(codes) <= 128``: whatever the
    bytes, two products that a kernel adds in 16 bits are added exactly. The codes of weights that such codes stand for
    are the same again. Weights that were quantized before, with one step for all, keep that step wherever their codes
    are within the bound.

    Args:
        weight: (O, I, ...) of a convolution, or a matrix with its outputs along ``axis``.
    """
    moved = np.moveaxis(weight, axis, 0)
    shaped = (-1, *[1] * (weight.ndim - 1))
    largest = np.abs(moved).reshape(len(moved), -1).max(1).astype(np.float32)
    sums = pair_sums(moved)
    scales = np.maximum(np.maximum(largest / LARGEST, _at_least(sums / PAIR)), np.finfo(np.float32).tiny)
    if step := lattice_step(weight):
        fits = (largest <= (LARGEST + 0.25) * step) & (sums <= (PAIR + 0.25) * step)
        scales = np.where(fits, np.float32(step), scales)
    codes = np.rint(moved.astype(np.float64) / scales.reshape(shaped)).clip(-LARGEST, LARGEST).astype(np.int8)
    return np.ascontiguousarray(np.moveaxis(codes, 0, axis)), np.moveaxis(scales.reshape(shaped), 0, axis)


def clear_of_ties(a: tuple[float, int], b: tuple[float, int], scale: float) -> tuple[float, float]:
    """A scale for the sum of two tensors of uint8 codes with which no sum lies near half a code.

    Args:
        a, b: scale and zero point of the two; ``scale``: the one wanted for their sum.

    Returns:
        float32 scale, from ``scale`` to 1 % more, and its margin: over all 65,536 pairs of codes the least distance
        of their sum from half a code, in codes. The first with a margin of ``CLEAR``, else the best of ``TRIED``.
    """
    codes = np.arange(256)
    first, second = ((codes - zero) * np.float64(np.float32(step)) for step, zero in (a, b))
    best = (float(np.float32(scale)), -1.0)
    for i in range(TRIED):
        tried = np.float32(scale * (1 + i * SPACED))
        rest = np.sort((second / tried) % 1.0)
        wanted = (0.5 - first / tried) % 1.0
        above = np.searchsorted(rest, wanted)
        near = np.abs(np.stack([rest[above % 256], rest[above - 1]]) - wanted)
        margin = float(np.minimum(near, 1.0 - near).min())
        if margin > best[1]:
            best = (float(tried), margin)
        if margin >= CLEAR:
            break
    return best


def pair_sums(weight: np.ndarray) -> np.ndarray:
    """The largest sum, by size, of two weights of one sign that a kernel may add the products of; float64 (O,).

    Args:
        weight: (O, I, ...), or a matrix (O, I).
    """
    flat = np.pad(weight.reshape(len(weight), -1).astype(np.float64), ((0, 0), (0, 1)))
    pairs = flat[:, added_together(weight.shape[1:])]
    positive, negative = np.maximum(pairs, 0.0).sum(2), np.maximum(-pairs, 0.0).sum(2)  # (O, pairs)
    return np.maximum(positive, negative).max(1, initial=0.0)


def room(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far down and up each code may go, int64 (O, I * ...) each: all at once, and ``pair_sums`` stays within 128.

    Args:
        codes: within the bound themselves.
    """
    flat = codes.reshape(len(codes), -1).astype(np.int64)
    highest, lowest = (np.maximum(sign * flat, 0) for sign in (1, -1))
    return -_widened(lowest, codes.shape[1:]), _widened(highest, codes.shape[1:])


@functools.lru_cache
def added_together(shape: tuple[int, ...]) -> np.ndarray:
    """Places of the weights (I, ...) of an output, flat, whose products are added in 16 bits; (pairs, 2), -1: nothing.

    Neighbors, with taps running fastest and with channels running fastest (pictures as height, width, channels), and
    with the channels of each tap filled up to an even number; of a picture's three channels, any two neighbors of a
    row, for columns.py lays rows side by side. Of three dimensions, also as the two that volumes.py makes of them.
    """
    places = np.arange(int(np.prod(shape))).reshape(shape)
    forms = [places]
    if len(shape) == 4:  # (I, kt, kh, kw) -> (kt I, kh, kw)
        forms.append(places.swapaxes(0, 1).reshape(-1, *shape[2:]))
    rows = []
    for form in forms:
        last = np.moveaxis(form, 0, -1)  # channels running fastest
        taps = last.reshape(-1, last.shape[-1])
        rows += [form.reshape(1, -1), taps.reshape(1, -1), taps]
        if len(shape) == 3 and shape[0] > 1 and shape[0] % 2:
            beside = last.reshape(len(last), -1)  # a row of the kernel
            rows += [beside, beside[:, 1:]]
    padded = [np.pad(each, ((0, 0), (0, each.shape[1] % 2)), constant_values=-1).reshape(-1, 2) for each in rows]
    pairs: np.ndarray = np.unique(np.concatenate(padded), axis=0)
    pairs.flags.writeable = False
    return pairs


def _widened(sizes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sizes (O, N) of the codes of one sign, each with half of what is left beside its largest partner."""
    pairs = added_together(tuple(shape))
    sums = np.pad(sizes, ((0, 0), (0, 1)))[:, pairs].sum(2, keepdims=True)  # (O, pairs, 1)
    left = np.full((sizes.shape[0], sizes.shape[1] + 1), PAIR)
    rows = np.arange(len(sizes))[:, None, None]
    np.minimum.at(left, (rows, pairs[None]), (PAIR - sums) // 2)
    return np.minimum(sizes + left[:, :-1], LARGEST)


def _at_least(values: np.ndarray) -> np.ndarray:
    """The float32 at or above each value: with it, what is divided stays within the bound."""
    near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)
