"""Integer weights that every processor multiplies exactly: sums of two products never leave 16 bits.

x86-64 processors without VNNI multiply uint8 by int8 with one instruction, vpmaddubsw, that adds two neighboring
products in 16 bits and cuts the sum off at 32,767. With codes up to 127 the sum may be 255 * 254 = 64,770, so a file of
such codes answers otherwise there. Two codes that add up to 128 at most give 255 * 128 = 32,640, which fits whatever
the activations are.

Which two are added follows from how the weights lie in memory: kernels take four bytes of activations at once (those
of ONNX Runtime, oneDNN and FBGEMM do), channels or taps of the convolution running fastest. The bound here is on any
two of such four. A channel keeps between 7 and 8 bits so, 7.5 of them for normally distributed weights.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from .storage import lattice_step

__all__ = ["PAIR", "pair_sums", "quantize_exactly", "room", "taken_together"]

PAIR = 128  # the most that two codes of one sign may add up to: 255 * 128 <= 32,767 < 255 * 129
TOGETHER = 4  # bytes of activations that a kernel takes at once
LARGEST = 127


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


def pair_sums(weight: np.ndarray) -> np.ndarray:
    """The largest sum, by size, of two weights of one sign that a kernel may add the products of; float64 (O,).

    Args:
        weight: (O, I, ...), or a matrix (O, I).
    """
    together = _together(weight)
    return np.maximum(_largest_two(together), _largest_two(-together)).max(1, initial=0.0)


def room(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far down and up each code may go, int64 (O, I * ...) each: all at once, and ``pair_sums`` stays within 128.

    Args:
        codes: within the bound themselves.
    """
    flat = codes.reshape(len(codes), -1).astype(np.int64)
    highest, lowest = (np.maximum(sign * flat, 0) for sign in (1, -1))
    return -_widened(lowest, codes.shape[1:]), _widened(highest, codes.shape[1:])


@functools.lru_cache
def taken_together(shape: tuple[int, ...]) -> np.ndarray:
    """Places of the weights (I, ...) of an output, flat, that kernels take at once; int64 (groups, 4), -1 for nothing.

    In fours, channels running fastest (pictures as height, width, channels) and taps running fastest. Of three
    dimensions, also as the two that volumes.py makes of them.
    """
    places = np.arange(int(np.prod(shape))).reshape(shape)
    forms = [places]
    if len(shape) == 4:  # (I, kt, kh, kw) -> (kt I, kh, kw)
        forms.append(places.swapaxes(0, 1).reshape(-1, *shape[2:]))
    orders = [order.reshape(-1) for form in forms for order in (form, np.moveaxis(form, 0, -1))]
    padded = np.pad(np.stack(orders), ((0, 0), (0, -places.size % TOGETHER)), constant_values=-1)
    groups: np.ndarray = np.unique(padded.reshape(-1, TOGETHER), axis=0)
    groups.flags.writeable = False
    return groups


def _together(weight: np.ndarray) -> np.ndarray:
    """A weight (O, ...) as what kernels take at once, (O, groups, 4), with 0 for nothing."""
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    padded: np.ndarray = np.pad(flat, ((0, 0), (0, 1)))[:, taken_together(weight.shape[1:])]
    return padded


def _largest_two(together: np.ndarray) -> np.ndarray:
    """The sum of the two largest of each four, negative ones counting as 0; (O, groups)."""
    a, b, c, d = np.moveaxis(np.maximum(together, 0.0), 2, 0)
    high, low, other_high, other_low = np.maximum(a, b), np.minimum(a, b), np.maximum(c, d), np.minimum(c, d)
    second = np.maximum(np.minimum(high, other_high), np.maximum(low, other_low))
    sums: np.ndarray = np.maximum(high, other_high) + second
    return sums


def _widened(sizes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sizes (O, N) of the codes of one sign, each with half of what is left beside its largest partner."""
    groups = taken_together(tuple(shape))
    together = np.pad(sizes, ((0, 0), (0, 1)))[:, groups]  # (O, groups, 4)
    ordered = np.sort(together, axis=2)
    partner = np.where(together == ordered[:, :, -1:], ordered[:, :, -2:-1], ordered[:, :, -1:])
    left = np.full((sizes.shape[0], sizes.shape[1] + 1), PAIR)
    rows = np.arange(len(sizes))[:, None, None]
    np.minimum.at(left, (rows, groups[None]), (PAIR - together - partner) // 2)
    return np.minimum(sizes + left[:, :-1], LARGEST)


def _at_least(values: np.ndarray) -> np.ndarray:
    """The float32 at or above each value: with it, what is divided stays within the bound."""
    near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)
