"""The product of a batch with a tensor train, core by core."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def contract(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """Multiply x (B, M) with the matrix (M, N) of cores (r, m, n, r'), from the last core to the first."""
    batch, outputs = x.shape[0], 1
    state = x  # (B m_1 .. m_k, r_k N_after), read as (B m_1 .. m_{k-1}, m_k, r_k, N_after)
    for core in reversed(cores):
        left, m, n, right = core.shape
        state = state.reshape(-1, m * right, outputs)
        matrix = core.permute(0, 2, 1, 3).reshape(left * n, m * right)
        state = matrix @ state  # (B m_1 .. m_{k-1}, r_{k-1} n_k, N_after)
        outputs *= n
    return state.reshape(batch, outputs)
