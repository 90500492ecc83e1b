"""Convolutions whose kernel is a tensor train, in two and three dimensions.

K(p', C, S) = G_0[p'] prod_k G_k[c_k, s_k]: the first core (p, r_1) holds the places of the kernel,
p' = w' h t + h' t + t' (t fastest); core k is (r_k, c_k, s_k, r_{k+1}), the last rank 1. Source: Wang et al.,
"Compressing 3DCNNs Based on Tensor Train Decomposition", whose two indices of the places only ever meet in one core.

The kernel is rebuilt once a step in training, with gradients through the rebuild, and cached in evaluation, where the
layer then costs what a dense one costs. Contracting patches with the cores instead was 10 to 24 times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..runtime.train_plan import TrainPlan, kernel_split, plan_kernel
from .cores import CoreCache, CoreLayer, check_modes, fit_ranks, merge_flat


class _TTConv(CoreLayer):
    """A convolution with a kernel of cores, in ``dims`` dimensions.

    Args:
        in_modes: c_1 .. c_d; they multiply to the input channels.
        out_modes: s_1 .. s_d; they multiply to the output channels.
        kernel_size: (h, w), (t, h, w) or one number.
        ranks: one number, the bonds r_1 .. r_d, or all bonds with 1 at both ends.
        stride, padding, dilation, bias: as in ``nn.Conv2d`` and ``nn.Conv3d``; padding may be "same".
        clip: lower ranks that no kernel of this size can attain, with a warning; else they are kept as given.
        variance: variance of the weights at the start; by default 2 / fan_in, for ReLU.

    Raises:
        RecipeError: modes or ranks of the wrong number, or below 1.
    """

    dims: int

    def __init__(
        self,
        in_modes: Sequence[int],
        out_modes: Sequence[int],
        kernel_size: int | Sequence[int],
        ranks: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
        *,
        clip: bool = True,
        variance: float | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_modes(name, in_modes, out_modes)
        self.in_modes, self.out_modes = tuple(in_modes), tuple(out_modes)
        self.in_channels, self.out_channels = math.prod(in_modes), math.prod(out_modes)
        self.kernel_size, self.stride, self.dilation = (
            _each(value, self.dims) for value in (kernel_size, stride, dilation)
        )
        self.padding = padding if isinstance(padding, str) else _each(padding, self.dims)
        places = math.prod(self.kernel_size)
        sizes = [places, *(c * s for c, s in zip(in_modes, out_modes, strict=True))]
        self.ranks = fit_ranks(name, sizes, ranks, clip)
        self.variance = 2 / (places * self.in_channels) if variance is None else variance
        bonds = zip(self.ranks[1:], self.in_modes, self.out_modes, self.ranks[2:], strict=False)
        shapes: list[tuple[int, ...]] = [(places, self.ranks[1]), *bonds]
        self.cores = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in shapes)
        self.bias = nn.Parameter(torch.empty(self.out_channels)) if bias else None
        self._made: CoreCache[Tensor] = CoreCache()
        self.reset_parameters()

    def kernel(self) -> Tensor:
        """The whole kernel (S, C, *kernel_size), with gradients to the cores."""
        return rebuild_kernel(list(self.cores), self.kernel_size)

    def plan(self, batch: int, positions: int, training: bool = False, input_gradient: bool = True) -> TrainPlan:
        """What ``batch`` clips of ``positions`` output positions cost."""
        shapes = list(zip(self.ranks[1:], self.in_modes, self.out_modes, self.ranks[2:], strict=False))
        return plan_kernel(shapes, math.prod(self.kernel_size), batch * positions, training, input_gradient)

    def _weight(self) -> Tensor:
        """The kernel, from the cache where no gradient needs it."""
        return self._made.get("kernel", list(self.cores), self.kernel)

    def extra_repr(self) -> str:
        """Sizes for ``print(model)``."""
        modes = "".join(f"({c}.{s})" for c, s in zip(self.in_modes, self.out_modes, strict=True))
        size = "x".join(map(str, self.kernel_size))
        return (
            f"{self.in_channels} -> {self.out_channels}, kernel {size}, modes {modes}, ranks {self.ranks}, "
            f"stride {self.stride}, padding {self.padding}"
        )


class TTConv2d(_TTConv):
    """``nn.Conv2d`` with a kernel of cores: x (B, C, H, W), kernel_size (h, w) or one number."""

    dims = 2

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W) into (B, S, H', W')."""
        return functional.conv2d(x, self._weight(), self.bias, self.stride, self.padding, self.dilation)


class TTConv3d(_TTConv):
    """``nn.Conv3d`` with a kernel of cores: x (B, C, T, H, W), kernel_size (t, h, w) or one number."""

    dims = 3

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, T, H, W) into (B, S, T', H', W')."""
        return functional.conv3d(x, self._weight(), self.bias, self.stride, self.padding, self.dilation)


def rebuild_kernel(cores: Sequence[Tensor], kernel_size: Sequence[int]) -> Tensor:
    """The kernel (S, C, *kernel_size) of cores (p, r_1), (r_1, c_1, s_1, r_2), ...

    The last product is cut where the whole costs least, and made so that the places lie innermost: what is then
    reordered moves in blocks of p numbers.
    """
    flat = [core.reshape(core.shape[0], -1, core.shape[-1]) for core in cores[1:]]  # (r, c s, r')
    places = _places_as_in_kernel(cores[0], kernel_size)[None]  # (1, p, r_1)
    cut, _ = kernel_split(places.shape[1], [(core.shape[0], core.shape[1], core.shape[2]) for core in flat])
    front = merge_flat([places, *flat[:cut]])  # (1, p q_1 .. q_cut, r)
    front = front.reshape(places.shape[1], -1, front.shape[-1]).permute(2, 1, 0)  # (r, q_1 .. q_cut, p)
    back = merge_flat(flat[cut:])  # (r, q_{cut+1} .. q_d, 1)
    whole = back.reshape(back.shape[0], -1).t() @ front.reshape(back.shape[0], -1)
    order = [*range(cut, len(flat)), *range(cut)]  # the cores as their channels now stand
    apart = whole.reshape(*[size for k in order for size in cores[k + 1].shape[1:3]], -1)
    at = {k: 2 * place for place, k in enumerate(order)}
    turned = apart.permute(*[at[k] + 1 for k in sorted(at)], *[at[k] for k in sorted(at)], -1)  # (s.., c.., p)
    return turned.reshape(math.prod(core.shape[2] for core in cores[1:]), -1, *kernel_size)


def _places_as_in_kernel(core: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """Rows of the first core (p, r) from (w, h, t), t fastest, to (t, h, w); or from (w, h) to (h, w)."""
    apart = core.reshape(*reversed(kernel_size), core.shape[-1])
    last = len(kernel_size)
    return apart.permute(*range(last - 1, -1, -1), last).reshape(core.shape)


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
