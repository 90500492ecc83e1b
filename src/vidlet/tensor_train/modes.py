"""How a size is factored into modes, and which rank the paper gives them.

Source: Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition", section 2.3, in the variant that
reproduces the paper's counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from ..errors import RecipeError
from .cores import maximal_ranks


def factor(size: int, d: int) -> tuple[int, ...]:
    """``d`` factors of ``size``, as equal as its primes allow, descending: 4096, 4 -> (8, 8, 8, 8).

    Primes go, the largest first, into the bucket that is smallest so far. A prime size gives ones beside itself.
    """
    if size < 1 or d < 1:
        raise RecipeError(f"factor: size {size} into {d} modes; both are >= 1")
    buckets = [1] * d
    for prime in sorted(_primes(size), reverse=True):
        buckets[buckets.index(min(buckets))] *= prime
    return tuple(sorted(buckets, reverse=True))


def pair_modes(inputs: int, outputs: int, d: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Modes of a matrix or of a kernel's channels: both factored, paired so that the products differ least.

    The output modes are permuted to minimize max/min of m_k n_k; pairs then stand in ascending order of the product, so
    that the first, which gives the fully connected rank, is the least.
    """
    in_modes = factor(inputs, d)
    orders = sorted(set(itertools.permutations(factor(outputs, d))))

    def spread(out_modes: Iterable[int]) -> float:
        products = [m * n for m, n in zip(in_modes, out_modes, strict=True)]
        return max(products) / min(products)

    pairs = sorted(zip(in_modes, min(orders, key=spread), strict=True), key=lambda pair: (pair[0] * pair[1], pair))
    return tuple(m for m, _ in pairs), tuple(n for _, n in pairs)


def linear_modes(inputs: int, outputs: int, d: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Modes of a fully connected layer: 4 or 5, as in the paper's networks."""
    return pair_modes(inputs, outputs, d)


def channel_modes(inputs: int, outputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Modes of a convolution's channels: 3."""
    return pair_modes(inputs, outputs, 3)


def linear_ranks(in_modes: Sequence[int], out_modes: Sequence[int]) -> tuple[int, ...]:
    """The paper's ranks of a fully connected layer: m_1 n_1 on every bond, clipped to what is attainable."""
    sizes = [m * n for m, n in zip(in_modes, out_modes, strict=True)]
    return tuple(min(sizes[0], most) for most in maximal_ranks(sizes))


def conv_ranks(in_modes: Sequence[int], out_modes: Sequence[int]) -> tuple[int, ...]:
    """The paper's ranks of a convolution, d + 2 bonds: the least of c_k s_k on every inner bond, not clipped by p."""
    rank = min(c * s for c, s in zip(in_modes, out_modes, strict=True))
    return (1, *[rank] * len(in_modes), 1)


def split_places(places: int) -> tuple[int, int]:
    """The paper's split (u, l) of the places of a kernel, p = t h w: 27 -> (9, 3), 125 -> (25, 5), 245 -> (35, 7).

    Both indices lie in one core, so the split only names it.
    """
    upper, lower = math.isqrt(places - 1) + 1 if places > 1 else 1, math.isqrt(places)
    while upper * lower != places:
        if places % upper == 0:
            lower = places // upper
        elif places % lower == 0:
            upper = places // lower
        else:
            upper, lower = upper + 1, lower - 1
    return upper, lower


def _primes(size: int) -> list[int]:
    found, prime = [], 2
    while prime * prime <= size:
        while size % prime == 0:
            found.append(prime)
            size //= prime
        prime += 1
    return [*found, size] if size > 1 else found
