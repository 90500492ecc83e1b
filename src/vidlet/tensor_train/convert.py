"""Trained layers to tensor-train layers, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from .conv import TTConv2d, TTConv3d
from .cores import check_modes, factor, fit_ranks
from .layers import TTLinear
from .recurrent import TTGRU, TTLSTM, dense_matrix

DenseConv = nn.Conv2d | nn.Conv3d
TTConv = TTConv2d | TTConv3d
Dense = TypeVar("Dense", nn.Linear, nn.Conv2d, nn.Conv3d)


# Tensors, matrices and kernels to cores: TT-SVD.
#
# Source: Oseledets 2011, "Tensor-Train Decomposition"; for matrices Novikov et al. 2015, arXiv:1509.06569. With a
# relative error eps every bond keeps the smallest rank whose discarded tail has a norm of at most
# eps ||W|| / sqrt(d - 1), so that the whole error is at most eps ||W||.
LARGE = 1024  # beyond this side an SVD of few components is drawn by random projections
POWER_STEPS = 3
EXACT = 1e-13  # relative error of what counts as no error


def tt_svd(tensor: Tensor, ranks: Sequence[int] | None = None, error: float | None = None) -> list[Tensor]:
    """Cores (r, q_k, r') of a tensor (q_1, .., q_d), in its dtype.

    Args:
        ranks: caps of all bonds r_0 .. r_d; bonds that need less get less.
        error: relative Frobenius error that must not be exceeded (unless caps force it). Neither: exact.
    """
    sizes = tensor.shape
    rest = tensor.detach().double().reshape(1, -1)
    allowed = (EXACT if error is None else error) * float(rest.norm()) / math.sqrt(max(len(sizes) - 1, 1))
    cores, left = [], 1
    for k, size in enumerate(sizes[:-1]):
        matrix = rest.reshape(left * size, -1)
        u, singular = _left_vectors(matrix, ranks[k + 1] if ranks else None, error)
        rank = _smallest_rank(singular, allowed)
        if ranks:
            rank = min(rank, ranks[k + 1])
        cores.append(u[:, :rank].reshape(left, size, rank).to(tensor.dtype))
        rest, left = u[:, :rank].t() @ matrix, rank
    cores.append(rest.reshape(left, sizes[-1], 1).to(tensor.dtype))
    return cores


def matrix_to_cores(
    matrix: Tensor,
    in_modes: Sequence[int],
    out_modes: Sequence[int],
    ranks: int | Sequence[int] | None = None,
    error: float | None = None,
    layer: str = "matrix",
) -> list[Tensor]:
    """Cores (r, m_k, n_k, r') of a matrix (M, N), balanced to equal norms.

    Raises:
        RecipeError: modes that do not multiply to the matrix' sizes, ranks of a wrong number.
    """
    check_modes(layer, in_modes, out_modes)
    check_products(layer, tuple(matrix.shape), in_modes, out_modes)
    d = len(in_modes)
    turned = matrix.reshape(*in_modes, *out_modes).permute([axis for k in range(d) for axis in (k, d + k)])
    sizes = [m * n for m, n in zip(in_modes, out_modes, strict=True)]
    caps = None if ranks is None else fit_ranks(layer, sizes, ranks, clip=True)
    cores = _balanced(tt_svd(turned.reshape(sizes), caps, error))
    return [c.reshape(c.shape[0], m, n, c.shape[2]) for c, m, n in zip(cores, in_modes, out_modes, strict=True)]


def kernel_to_cores(
    kernel: Tensor,
    in_modes: Sequence[int],
    out_modes: Sequence[int],
    ranks: int | Sequence[int] | None = None,
    error: float | None = None,
    layer: str = "kernel",
) -> list[Tensor]:
    """Cores (p, r_1), (r_k, c_k, s_k, r_{k+1}) of a kernel (S, C, *kernel_size). Errors: see matrix_to_cores."""
    check_modes(layer, in_modes, out_modes)
    check_products(layer, (kernel.shape[1], kernel.shape[0]), in_modes, out_modes)
    d, dims = len(in_modes), kernel.dim() - 2
    apart = kernel.reshape(*out_modes, *in_modes, *kernel.shape[2:])
    places = range(2 * d + dims - 1, 2 * d - 1, -1)  # (w, h, t), t fastest
    turned = apart.permute(*places, *[axis for k in range(d) for axis in (d + k, k)])
    sizes = [math.prod(kernel.shape[2:]), *(c * s for c, s in zip(in_modes, out_modes, strict=True))]
    caps = None if ranks is None else fit_ranks(layer, sizes, ranks, clip=True)
    first, *others = _balanced(tt_svd(turned.reshape(sizes), caps, error))
    cores = [c.reshape(c.shape[0], m, n, c.shape[2]) for c, m, n in zip(others, in_modes, out_modes, strict=True)]
    return [first[0], *cores]


def check_products(layer: str, sizes: tuple[int, ...], in_modes: Sequence[int], out_modes: Sequence[int]) -> None:
    """Raise unless the modes multiply to the sizes (in, out); says what would fit."""
    for side, size, modes in (("input", sizes[0], in_modes), ("output", sizes[1], out_modes)):
        if math.prod(modes) != size:
            raise RecipeError(
                f"{layer}: {side} modes {tuple(modes)} multiply to {math.prod(modes)}, the layer has {size}; "
                f"{factor(size, len(modes))} would fit"
            )


def _smallest_rank(singular: Tensor, allowed: float) -> int:
    """The fewest components whose tail norm is at most ``allowed``, and at least 1."""
    tails = singular.square().flip(0).cumsum(0).flip(0).sqrt()  # tails[r]: what is lost by keeping r
    return max(1, int((tails > allowed).sum()))


def _left_vectors(matrix: Tensor, cap: int | None, error: float | None) -> tuple[Tensor, Tensor]:
    """Left singular vectors (rows, k) and singular values (k,), descending, k up to the smaller side.

    The whole decomposition where exactness is asked for. The eigenvectors of W W^T, 14 times faster for wide matrices,
    where values below 1e-8 of the largest do not matter. Where few components of a large matrix are wanted, subspace
    iteration with a fixed seed: Halko, Martinsson & Tropp 2011, arXiv:0909.4061.
    """
    rows, columns = matrix.shape
    small = min(rows, columns)
    if error is None and cap is not None and small > LARGE and 4 * cap <= small:
        return _largest_components(matrix, cap)
    if rows <= columns and (cap is not None if error is None else error >= 1e-4):
        values, vectors = torch.linalg.eigh(matrix @ matrix.t())
        return vectors.flip(1), values.flip(0).clamp(min=0).sqrt()
    u, singular, _ = torch.linalg.svd(matrix, full_matrices=False)
    return u, singular


def _largest_components(matrix: Tensor, cap: int) -> tuple[Tensor, Tensor]:
    """About ``cap`` left singular vectors and values of the largest, by random projections."""
    generator = torch.Generator(matrix.device).manual_seed(0)
    shape = (matrix.shape[1], cap + 16)
    start = torch.randn(shape, generator=generator, dtype=matrix.dtype, device=matrix.device)
    basis = torch.linalg.qr(matrix @ start)[0]
    for _ in range(POWER_STEPS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.t() @ basis)[0])[0]
    values, vectors = torch.linalg.eigh((basis.t() @ matrix) @ (matrix.t() @ basis))
    return basis @ vectors.flip(1), values.flip(0).clamp(min=0).sqrt()


def _balanced(cores: list[Tensor]) -> list[Tensor]:
    """The same train with its norm spread evenly over the cores: TT-SVD leaves all of it in the last one."""
    norms = [float(core.norm()) for core in cores]
    if min(norms) == 0:
        return cores
    mean = math.exp(sum(map(math.log, norms)) / len(norms))
    return [core * (mean / norm) for core, norm in zip(cores, norms, strict=True)]


def from_linear(
    dense: nn.Linear,
    in_modes: Sequence[int],
    out_modes: Sequence[int],
    ranks: int | Sequence[int] | None = None,
    error: float | None = None,
    name: str = "TTLinear",
    keep_norm: bool = False,
) -> TTLinear:
    """The tensor-train layer nearest to a trained one; ranks cap it, ``error`` bounds the relative error.

    ``keep_norm``: scaled to the norm that truncation took from it. It is farther from the trained layer then, but a
    network whose layers have each lost most of theirs lets no signal through, and none to be tuned by.

    Raises:
        RecipeError: modes that do not multiply to the layer's sizes, ranks of a wrong number.
    """
    cores = matrix_to_cores(dense.weight.t(), in_modes, out_modes, ranks, error, name)
    layer = TTLinear(in_modes, out_modes, _bonds(cores), bias=dense.bias is not None, clip=False)
    _fill(layer, layer.cores, cores, dense)
    if keep_norm:
        _scale(layer, dense.weight)
    return layer


def from_conv(
    dense: DenseConv,
    in_modes: Sequence[int],
    out_modes: Sequence[int],
    ranks: int | Sequence[int] | None = None,
    error: float | None = None,
    name: str = "TTConv",
    keep_norm: bool = False,
) -> TTConv:
    """The tensor-train convolution nearest to a trained one, of the same stride, padding and dilation.

    ``keep_norm``: as in :func:`from_linear`.

    Raises:
        RecipeError: groups or padding modes that a train cannot hold, modes or ranks that do not fit.
    """
    if dense.groups != 1 or dense.padding_mode != "zeros":
        raise RecipeError(
            f"{name}: {dense.groups} groups, padding mode {dense.padding_mode!r}; a tensor-train convolution has 1 "
            f"group and pads with zeros"
        )
    cores = kernel_to_cores(dense.weight, in_modes, out_modes, ranks, error, name)
    make = TTConv3d if isinstance(dense, nn.Conv3d) else TTConv2d
    layer: TTConv = make(
        in_modes, out_modes, dense.kernel_size, _bonds(cores), dense.stride, dense.padding, dense.dilation,
        dense.bias is not None, clip=False,
    )  # fmt: skip
    _fill(layer, layer.cores, cores, dense)
    if keep_norm:
        _scale(layer, dense.weight)
    return layer


def from_recurrent(
    dense: nn.LSTM | nn.GRU,
    in_modes: Sequence[int],
    hidden_modes: Sequence[int],
    ranks: int | Sequence[int] | None = None,
    hidden_ranks: int | Sequence[int] | None = None,
    error: float | None = None,
    name: str = "TTLSTM",
    input_train: bool = True,
    hidden_train: bool = False,
) -> TTLSTM | TTGRU:
    """A tensor-train LSTM or GRU nearest to a trained one of one layer, ``batch_first``, one direction.

    ``input_train`` and ``hidden_train`` say which mappings become trains. Two biases of a gate become their sum.

    Raises:
        RecipeError: several layers, two directions, projections, time first; modes or ranks that do not fit.
    """
    check_recurrent(dense, name)
    gates = 4 if isinstance(dense, nn.LSTM) else 3
    gate_modes = (gates * hidden_modes[0], *hidden_modes[1:])
    trained = {name: parameter.detach() for name, parameter in dense.named_parameters()}
    to_gates, recur = trained["weight_ih_l0"].t(), trained["weight_hh_l0"].t()
    cores = matrix_to_cores(to_gates, in_modes, gate_modes, ranks, error, name) if input_train else None
    hidden = matrix_to_cores(recur, hidden_modes, gate_modes, hidden_ranks, error, name) if hidden_train else None
    make = TTLSTM if isinstance(dense, nn.LSTM) else TTGRU
    layer: TTLSTM | TTGRU = make(
        in_modes, hidden_modes, _bonds(cores) if cores else None, _bonds(hidden) if hidden else None, clip=False
    )
    layer.to(device=to_gates.device, dtype=to_gates.dtype).train(dense.training)
    with torch.no_grad():
        _fill_mapping(layer.input_map, cores, to_gates)
        _fill_mapping(layer.hidden_map, hidden, recur)
        layer.bias.zero_()
        if dense.bias:
            from_hidden = trained["bias_hh_l0"].clone()
            if isinstance(layer, TTGRU):
                layer.hidden_bias.copy_(from_hidden[2 * dense.hidden_size :])
                from_hidden[2 * dense.hidden_size :] = 0
            layer.bias.copy_(trained["bias_ih_l0"] + from_hidden)
    return layer


def check_recurrent(dense: nn.LSTM | nn.GRU, name: str) -> None:
    """Raise RecipeError unless a tensor-train layer can stand for this one."""
    projected = isinstance(dense, nn.LSTM) and dense.proj_size > 0
    if dense.num_layers != 1 or dense.bidirectional or not dense.batch_first or projected:
        raise RecipeError(
            f"{name}: {type(dense).__name__} of {dense.num_layers} layers, bidirectional {dense.bidirectional}, "
            f"batch_first {dense.batch_first}; a tensor-train one has one layer, one direction, batch first"
        )


def to_linear(layer: TTLinear) -> nn.Linear:
    """The dense layer of the same function."""
    dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    return _dense(dense, layer.matrix().detach().t(), layer)


def to_conv(layer: TTConv) -> nn.Conv2d | nn.Conv3d:
    """The dense convolution of the same function."""
    make: Any = nn.Conv3d if isinstance(layer, TTConv3d) else nn.Conv2d
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    dense = make(*shape, bias=layer.bias is not None)
    return _dense(dense, layer.kernel().detach(), layer)


def to_recurrent(layer: TTLSTM | TTGRU) -> nn.LSTM | nn.GRU:
    """torch's own layer (one layer, ``batch_first``) of the same function."""
    make = nn.LSTM if isinstance(layer, TTLSTM) else nn.GRU
    dense: nn.LSTM | nn.GRU = make(layer.input_size, layer.hidden_size, batch_first=True)
    dense.to(device=layer.bias.device, dtype=layer.bias.dtype).train(layer.training)
    own = dict(dense.named_parameters())
    with torch.no_grad():
        own["weight_ih_l0"].copy_(dense_matrix(layer.input_map))
        own["weight_hh_l0"].copy_(dense_matrix(layer.hidden_map))
        own["bias_ih_l0"].copy_(layer.bias)
        own["bias_hh_l0"].zero_()
        if isinstance(layer, TTGRU):
            own["bias_hh_l0"][2 * layer.hidden_size :] = layer.hidden_bias
    return dense


def relative_error(layer: TTLinear | TTConv, weight: Tensor) -> float:
    """||W - W_tt|| / ||W|| against a dense layer's own weight, (out, in) or (S, C, ..)."""
    own = layer.matrix().t() if isinstance(layer, TTLinear) else layer.kernel()
    return float((own - weight).detach().double().norm() / weight.detach().double().norm().clamp(min=1e-300))


def _bonds(cores: Sequence[Tensor]) -> tuple[int, ...]:
    return (1, *(core.shape[-1] for core in cores))


def _fill_mapping(mapping: TTLinear | nn.Linear, cores: Sequence[Tensor] | None, matrix: Tensor) -> None:
    if isinstance(mapping, TTLinear):
        for own, core in zip(mapping.cores, cores or (), strict=True):
            own.copy_(core)
    else:
        mapping.weight.copy_(matrix.t())


def _fill(
    layer: TTLinear | TTConv, own: nn.ParameterList, cores: Sequence[Tensor], dense: nn.Linear | DenseConv
) -> None:
    """Give a new layer these cores and a dense layer's bias, type, device and mode."""
    layer.to(device=dense.weight.device, dtype=dense.weight.dtype).train(dense.training)
    with torch.no_grad():
        for kept, core in zip(own, cores, strict=True):
            kept.copy_(core)
        if layer.bias is not None and dense.bias is not None:
            layer.bias.copy_(dense.bias)


def _scale(layer: TTLinear | TTConv, weight: Tensor) -> None:
    """Bring a layer to the norm of a dense weight, each core by the same factor."""
    own = layer.matrix() if isinstance(layer, TTLinear) else layer.kernel()
    with torch.no_grad():
        factor = weight.norm() / own.norm().clamp(min=1e-30)
        for core in layer.cores:
            core.mul_(factor ** (1 / len(layer.cores)))


def _dense(dense: Dense, weight: Tensor, layer: TTLinear | TTConv) -> Dense:
    """Give a new dense layer this weight and a train's bias and mode."""
    dense.to(device=weight.device, dtype=weight.dtype).train(layer.training)
    with torch.no_grad():
        dense.weight.copy_(weight)
        if dense.bias is not None and layer.bias is not None:
            dense.bias.copy_(layer.bias)
    return dense
