"""Cores of a tensor train: their ranks, their initialization, the matrix they stand for, and what is kept of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..errors import RecipeError, WeightsError
from ..runtime.train_plan import best_splits

Value = TypeVar("Value")
KEPT = 4  # values of different keys, as plans of different batch sizes


def maximal_ranks(sizes: Sequence[int]) -> tuple[int, ...]:
    """The bonds r_0 .. r_d that a tensor of these mode sizes can need: min(left product, right product)."""
    return tuple(min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(len(sizes) + 1))


def check_modes(layer: str, in_modes: Sequence[int], out_modes: Sequence[int]) -> None:
    """Raise unless both have the same length, at least 1, and every mode is a positive whole number."""
    if len(in_modes) != len(out_modes) or not in_modes:
        raise RecipeError(
            f"{layer}: {len(in_modes)} input modes {tuple(in_modes)} against {len(out_modes)} output modes "
            f"{tuple(out_modes)}; both need the same number, at least 1 (pad the shorter with ones)"
        )
    for mode in (*in_modes, *out_modes):
        if not isinstance(mode, int) or mode < 1:
            raise RecipeError(f"{layer}: mode {mode!r} in {tuple(in_modes)} -> {tuple(out_modes)}; modes are >= 1")


def full_ranks(
    layer: str, in_modes: Sequence[int], out_modes: Sequence[int], ranks: int | Sequence[int], clip: bool
) -> tuple[int, ...]:
    """All bonds r_0 .. r_d of a layer from one number, the inner bonds or all bonds.

    With ``clip`` bonds above the attainable become the attainable, with a warning where they were listed one by one.

    Raises:
        RecipeError: bad modes, a wrong number of ranks, a rank below 1, outer bonds that are not 1.
    """
    check_modes(layer, in_modes, out_modes)
    return fit_ranks(layer, [m * n for m, n in zip(in_modes, out_modes, strict=True)], ranks, clip)


def fit_ranks(layer: str, sizes: Sequence[int], ranks: int | Sequence[int], clip: bool) -> tuple[int, ...]:
    """As ``full_ranks``, from the sizes of the modes m_k n_k (and p in front for a kernel)."""
    most, d = maximal_ranks(sizes), len(sizes)
    wanted = [ranks] * (d - 1) if isinstance(ranks, int) else list(ranks)
    if len(wanted) == d - 1:
        wanted = [1, *wanted, 1]
    if len(wanted) != d + 1:
        raise RecipeError(
            f"{layer}: {len(wanted)} ranks {tuple(wanted)} for {d} cores; give one number, {d - 1} inner bonds or "
            f"{d + 1} bonds with 1 at both ends"
        )
    if any(not isinstance(r, int) or r < 1 for r in wanted) or wanted[0] != 1 or wanted[-1] != 1:
        raise RecipeError(f"{layer}: ranks {tuple(wanted)}; every rank is a whole number >= 1, the outer two are 1")
    if not clip:
        return tuple(wanted)
    fitting = tuple(map(min, wanted, most))
    if fitting != tuple(wanted) and not isinstance(ranks, int):
        warnings.warn(
            f"{layer}: ranks {tuple(wanted)} exceed what modes of sizes {tuple(sizes)} can attain; using {fitting} "
            f"(clip=False keeps them)",
            stacklevel=4,
        )
    return fitting


def check_saved_cores(prefix: str, shapes: Sequence[tuple[int, ...]], saved: Mapping[str, Tensor], layer: str) -> None:
    """Raise WeightsError if cores saved under ``prefix`` are of other ranks or modes than a layer's ``shapes``."""
    found: list[tuple[int, ...]] = []
    while f"{prefix}{len(found)}" in saved:
        found.append(tuple(saved[f"{prefix}{len(found)}"].shape))
    if found and found != list(shapes):
        raise WeightsError(
            f"{prefix.removesuffix('.')}: the checkpoint's {layer} has ranks {_ranks(found)} (cores {found}), this one "
            f"{_ranks(shapes)} (cores {list(shapes)}); build the layer with the checkpoint's modes and ranks"
        )


def _ranks(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """All bonds of cores of these shapes; a kernel's first core (p, r_1) has no left one."""
    return (1, *(shape[-1] for shape in shapes))


def random_cores(shapes: Sequence[Sequence[int]], variance: float) -> list[Tensor]:
    """Normal cores of these shapes (r, ..., r') whose train has exactly this mean square.

    Each core starts at the variance (variance / prod r)^(1/d); the products of few ranks are heavy-tailed (kurtosis
    35 at rank 1), so one draw misses the variance by far: all cores are then scaled by what is missing.
    """
    inner = math.prod(shape[-1] for shape in shapes[:-1])
    std = (variance / inner) ** (0.5 / len(shapes))
    cores = [torch.randn(tuple(shape)) * std for shape in shapes]
    if cores[0].is_meta:  # only shapes are wanted
        return cores
    elements = math.prod(math.prod(shape[1:-1]) for shape in shapes)
    missing = (variance * elements) ** 0.5 / train_norm(cores)
    return [core * missing ** (1 / len(cores)) for core in cores]


def train_norm(cores: Sequence[Tensor]) -> float:
    """The Frobenius norm of the tensor that cores (r, ..., r') stand for, without building it."""
    gram = torch.ones(1, 1, dtype=torch.float64, device=cores[0].device)
    for core in cores:
        slices = core.detach().double().reshape(core.shape[0], -1, core.shape[-1])  # (r, q, r')
        gram = torch.einsum("ab,aqc,bqd->cd", gram, slices, slices)
    return math.sqrt(max(gram.item(), 0.0))


def merge_cores(cores: Sequence[Tensor]) -> Tensor:
    """Multiply cores (r, m_k, n_k, r_k) into one core (r, M, N, r')."""
    whole = merge_flat([core.reshape(core.shape[0], -1, core.shape[-1]) for core in cores])  # (r, m1 n1 .. md nd, r')
    return split_modes(whole, [core.shape[1] for core in cores], [core.shape[2] for core in cores])


def split_modes(whole: Tensor, in_modes: Sequence[int], out_modes: Sequence[int]) -> Tensor:
    """Sort a merged core (r, m1 n1 .. md nd, r') into (r, M, N, r')."""
    d = len(in_modes)
    if d == 1:
        return whole.reshape(whole.shape[0], in_modes[0], out_modes[0], whole.shape[-1])
    pairs = [size for pair in zip(in_modes, out_modes, strict=True) for size in pair]
    apart = whole.reshape(whole.shape[0], *pairs, whole.shape[-1])  # (r, m1, n1, ..., md, nd, r')
    order = [0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1]
    return apart.permute(order).reshape(whole.shape[0], math.prod(in_modes), math.prod(out_modes), whole.shape[-1])


def merge_flat(cores: Sequence[Tensor]) -> Tensor:
    """Multiply cores (r, q_k, r_k) into (r, q_1 .. q_d, r'), in the cheapest order."""
    return _merge(cores, *best_splits([(c.shape[0], c.shape[1], c.shape[2]) for c in cores]), 0, len(cores) - 1)


def _merge(cores: Sequence[Tensor], cost: object, split: dict[tuple[int, int], int], i: int, j: int) -> Tensor:
    if i == j:
        return cores[i]
    left, right = _merge(cores, cost, split, i, split[i, j]), _merge(cores, cost, split, split[i, j] + 1, j)
    rank, first, last = left.shape[-1], left.shape[0], right.shape[-1]
    product = left.reshape(-1, rank) @ right.reshape(rank, -1)  # (r q, q' r')
    return product.reshape(first, -1, last)


class CoreLayer(nn.Module):
    """A layer whose weight is a train of ``cores``; those of a kernel begin with (p, r_1), others are (r, m, n, r')."""

    cores: nn.ParameterList
    bias: nn.Parameter | None
    variance: float

    def reset_parameters(self) -> None:
        """Draw new cores whose matrix or kernel has the mean square ``variance``; the bias becomes zero."""
        shapes = [tuple(core.shape) if core.ndim == 4 else (1, *core.shape) for core in self.cores]
        with torch.no_grad():
            for core, drawn in zip(self.cores, random_cores(shapes, self.variance), strict=True):
                core.copy_(drawn.view(core.shape))
            if self.bias is not None:
                self.bias.zero_()

    @property
    def core_parameters(self) -> int:
        """Numbers in the cores, without the bias."""
        return sum(core.numel() for core in self.cores)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        shapes = [tuple(core.shape) for core in self.cores]
        check_saved_cores(f"{prefix}cores.", shapes, state_dict, type(self).__name__)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CoreCache(Generic[Value]):
    """What is computed from cores, by key, kept for evaluation until a core changes; never saved with the module.

    Cores are compared by value, not by version counters: those miss writes through ``.data``. Cores are so small that
    the comparison costs microseconds; where it would stop an accelerator, address and version are compared instead.
    """

    def __init__(self) -> None:
        self._seen: list[Tensor] | list[tuple[int, int]] = []
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, cores: Sequence[Tensor], make: Callable[[], Value]) -> Value:
        """The value of ``key``, made anew if a core changed, if a gradient must reach the cores, or under export."""
        if exporting() or needs_gradient(cores):
            return make()
        if not self._current(cores):
            self._values.clear()
            self._seen = _fingerprints(cores)
        if key not in self._values:
            if len(self._values) >= KEPT:
                del self._values[next(iter(self._values))]
            with torch.inference_mode(False), torch.no_grad():
                self._values[key] = make()
        return self._values[key]

    def _current(self, cores: Sequence[Tensor]) -> bool:
        if len(self._seen) != len(cores):
            return False
        return all(_same(seen, core) for seen, core in zip(self._seen, cores, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {"_seen": [], "_values": {}}

    def __deepcopy__(self, memo: object) -> CoreCache[Value]:
        return CoreCache()


def exporting() -> bool:
    """Whether a graph is being traced: it must hold the cores, not what was made from them."""
    return torch.compiler.is_compiling() or torch.compiler.is_exporting()


def needs_gradient(cores: Sequence[Tensor]) -> bool:
    """Whether gradients must reach the cores."""
    return torch.is_grad_enabled() and any(core.requires_grad for core in cores)


def _fingerprints(cores: Sequence[Tensor]) -> list[Any]:
    with torch.inference_mode(False), torch.no_grad():
        return [core.detach().clone() if core.device.type == "cpu" else _place(core) for core in cores]


def _same(seen: Any, core: Tensor) -> bool:
    if isinstance(seen, Tensor):
        return (
            core.device == seen.device
            and core.dtype == seen.dtype
            and core.shape == seen.shape
            and torch.equal(seen, core.detach())
        )
    return core.device.type != "cpu" and bool(seen == _place(core))


def _place(core: Tensor) -> tuple[Any, ...]:
    return (core.data_ptr(), core._version, core.dtype, core.device)


# How a size is factored into modes, and which rank the paper gives them.
#
# Source: Wang et al., "Compressing 3DCNNs Based on Tensor Train Decomposition", section 2.3, in the variant that
# reproduces the paper's counts.


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
