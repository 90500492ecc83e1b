"""Rounding in training as the integer file will round, with straight-through gradients.

Forward gives exactly the values that the integers of the exported file stand for; backward takes rounding for the
identity and lets nothing through where a value is cut off (Jacob et al. 2018, arXiv:1712.05877, section 3). Step sizes
may be learned: their gradient is that of LSQ (Esser et al. 2020, arXiv:1902.08153), which follows from writing a value
as step times rounded (value / step).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .blocks import quantize_blocks
from .exact import PAIR, added_together
from .int8 import LEVELS

TINY = torch.finfo(torch.float32).tiny


def fake_uint8(x: Tensor, scale: Tensor, zero_point: int) -> Tensor:
    """Round x to scale * (q - zero_point), q in 0 ... 255, half to even; scale () may be learned."""
    return _Steps.apply(x, scale, zero_point, 0, LEVELS)


def row_scales(weight: Tensor) -> Tensor:
    """Scales (O,) of a weight (O, ...) as quantize_weight of storage.py chooses them: largest entry over 127."""
    return (weight.detach().abs().flatten(1).amax(1) / 127).clamp(min=TINY)


def channel_scales(weight: Tensor) -> Tensor:
    """Scales (O,) of a weight (O, I, ...) as quantize_exactly of exact.py chooses them: no kernel can saturate."""
    needed = pair_sums_of(weight) / PAIR
    near = needed.float()
    near = torch.where(near < needed, near.nextafter(torch.full_like(near, torch.inf)), near)
    return torch.maximum(near, row_scales(weight))


def pair_sums_of(weight: Tensor) -> Tensor:
    """As pair_sums of exact.py: the largest sum of two weights that kernels add the products of, float64 (O,)."""
    pairs = torch.from_numpy(added_together(tuple(weight.shape[1:])).copy()).to(weight.device)
    added = functional.pad(weight.detach().flatten(1), (0, 1))[:, pairs].double()  # (O, pairs, 2)
    return torch.maximum(*((sign * added).clamp(min=0).sum(2).amax(1) for sign in (1, -1)))


def fake_int8(weight: Tensor, scales: Tensor) -> Tensor:
    """Round a weight (O, ...) to scales * q, q in -127 ... 127, one scale (O,) an output."""
    shaped = scales.reshape(-1, *[1] * (weight.ndim - 1))  # (O, 1, ...)
    rounded: Tensor = torch.fake_quantize_per_tensor_affine(weight / shaped, 1.0, 0, -127, 127)
    return shaped * rounded


def fake_int32(bias: Tensor, scales: Tensor) -> Tensor:
    """Round a bias (O,) to scales * q, q whole; the gradient is that of the bias."""
    return straight_through(bias, (bias.detach().double() / scales.double()).round().mul(scales.double()).float())


def fake_rows(weight: Tensor) -> Tensor:
    """Round a matrix (out, in) as 8-bit storage does: one scale a row."""
    return fake_int8(weight, row_scales(weight))


def fake_blocks(weight: Tensor) -> Tensor:
    """Round a matrix (out, in) as 4-bit storage does: codes from -8 to 7, one float16 scale a block of inputs."""
    codes, scales = quantize_blocks(weight.detach().cpu().numpy())
    stored = torch.from_numpy(codes * scales.astype("float32")).reshape(weight.shape)
    return straight_through(weight, stored.to(weight))


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` going forward, the gradient of ``value`` going back."""
    return _StraightThrough.apply(value, rounded)


class _Steps(torch.autograd.Function):
    """scale * (round(x / scale) + zero_point within lowest ... highest, minus zero_point), one scale ()."""

    @staticmethod
    def forward(ctx, x, scale, zero_point, lowest, highest):  # type: ignore[no-untyped-def]
        rounded, inside = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(
            x, float(scale), zero_point, lowest, highest
        )
        ctx.save_for_backward(x, scale, rounded, inside)
        return rounded

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, scale, rounded, inside = ctx.saved_tensors
        through = gradient * inside
        of_scale = None
        if ctx.needs_input_grad[1]:  # of scale * round(x / scale): what was rounded, less x where it was not cut off
            of_scale = ((gradient * rounded).sum() - (through * x).sum()) / scale
        return through, of_scale, None, None, None


class _StraightThrough(torch.autograd.Function):
    """value + (rounded - value) would round once more: this hands ``rounded`` on bit by bit."""

    @staticmethod
    def forward(ctx, value: Tensor, rounded: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return rounded.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return gradient, None
