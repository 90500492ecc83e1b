"""Tensors, matrices and kernels to cores: TT-SVD.

Source: Oseledets 2011, "Tensor-Train Decomposition"; for matrices Novikov et al. 2015, arXiv:1509.06569. With a
relative error eps every bond keeps the smallest rank whose discarded tail has a norm of at most
eps ||W|| / sqrt(d - 1), so that the whole error is at most eps ||W||.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RecipeError
from .cores import check_modes, fit_ranks
from .modes import factor

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
