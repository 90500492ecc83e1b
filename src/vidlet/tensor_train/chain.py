"""The product of a batch with a tensor train, super-core by super-core, in either direction.

Adjacent cores are first merged into super-cores; one group of all cores is the rebuilt dense matrix. Every step is one
product of two matrices and, where modes wait in front of the one to be contracted, one copy that brings it to the end.
All steps are ordinary operations: gradients, double gradients and ONNX export come with them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor

from .cores import merge_cores


def groupings(d: int) -> list[tuple[int, ...]]:
    """All 2^(d-1) ways to cut d cores into contiguous groups, as group sizes: (1, 1, 2), (4,), ..."""
    found = []
    for cuts in itertools.product((False, True), repeat=d - 1):
        places = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), d]
        found.append(tuple(b - a for a, b in itertools.pairwise(places)))
    return found


def grouped(items: Sequence[Tensor], groups: Sequence[int]) -> list[list[Tensor]]:
    """Consecutive runs of ``items`` of these lengths."""
    waiting = iter(items)
    return [list(itertools.islice(waiting, size)) for size in groups]


def step_matrices(cores: Sequence[Tensor], groups: Sequence[int], last_first: bool) -> list[Tensor]:
    """The matrix of every step in the order of the steps: (m r, n l) from the last core, (m l, n r) from the first."""
    merged = [merge_cores(group) for group in grouped(cores, groups)]
    if last_first:
        return [c.permute(1, 3, 2, 0).reshape(c.shape[1] * c.shape[3], -1) for c in reversed(merged)]
    return [c.permute(1, 0, 2, 3).reshape(c.shape[1] * c.shape[0], -1) for c in merged]


def run_steps(
    x: Tensor, matrices: Sequence[Tensor], in_modes: Sequence[int], out_modes: Sequence[int], last_first: bool
) -> Tensor:
    """Multiply x (B, M) by the train; modes are those of the super-cores, m_1 .. m_G and n_1 .. n_G."""
    batch, state, waiting, done = x.shape[0], x, math.prod(in_modes), 1
    for matrix, m, n in zip(matrices, *in_order(in_modes, out_modes, last_first), strict=True):
        rank = matrix.shape[0] // m
        waiting //= m
        if not last_first:  # (B, m_k, m_{k+1} .. m_G n_1 .. n_{k-1}, r)
            state = state.reshape(batch, m, waiting * done, rank).transpose(1, 2)
        elif done > 1:  # (B m_1 .. m_{k-1}, m_k, n_G .. n_{k+1}, r)
            state = state.reshape(batch * waiting, m, done, rank).transpose(1, 2)
        state = state.reshape(-1, m * rank) @ matrix
        done *= n
    if last_first and len(out_modes) > 1:
        turned = state.reshape(batch, *reversed(out_modes))  # (B, n_G, .., n_1)
        state = turned.permute(0, *range(len(out_modes), 0, -1))
    return state.reshape(batch, done)


def in_order(in_modes: Sequence[int], out_modes: Sequence[int], last_first: bool) -> tuple[list[int], list[int]]:
    """Both lists in the order in which the steps contract them."""
    step = -1 if last_first else 1
    return list(in_modes)[::step], list(out_modes)[::step]
