"""Fully connected layers whose matrix is a tensor train of small cores.

W[i, j] = prod_k G_k[:, i_k, j_k, :] with row-major multi-indices, k = 1 slowest; core k has the shape
(r_{k-1}, m_k, n_k, r_k), m of the input and n of the output. Source: Novikov et al. 2015, arXiv:1509.06569; Yang et
al. 2017, arXiv:1707.01786.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..runtime.train_plan import Groups, TrainPlan, merge_shapes, plan_frame, plan_rows
from .cores import CoreCache, CoreLayer, exporting, full_ranks, merge_cores, needs_gradient

# The product of rows with a tensor train by a plan, in torch and in exported files, and a recurrence for files.
#
# Neighboring cores are first merged into super-cores; one group of all cores is the rebuilt dense matrix. What is
# merged, and from which end the super-cores are contracted, says runtime/train_plan.py. `run_steps` is for batches in
# torch: every step is one product of two matrices and, where modes wait in front of the one to be contracted, one copy
# that brings it to the end. `planned_product` is for exported files: a runtime merges when it loads the file, which
# holds the cores alone.


def frame_plan(cores: Sequence[Tensor]) -> TrainPlan:
    """How one row is multiplied with these cores in an exported file."""
    return plan_frame(tuple((core.shape[0], core.shape[1], core.shape[2], core.shape[3]) for core in cores))


def step_matrices(cores: Sequence[Tensor], groups: Groups, last_first: bool) -> list[Tensor]:
    """The matrix of every step in the order of the steps: (m r, n l) from the last core, (m l, n r) from the first."""
    merged = [merge_cores([cores[k] for k in group]) for group in groups]
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


def planned_product(cores: Sequence[Tensor], plan: TrainPlan) -> Callable[[Tensor], Tensor]:
    """The product of x (B, M) with the matrix (M, N) of cores (r, m, n, r'), by a plan; B may be free in an export."""
    merged = [merge_cores([cores[k] for k in group]) for group in plan.groups]
    return functools.partial(_last_to_first if plan.last_first else _first_to_last, merged)


class PlannedProduct(nn.Module):
    """The product of one train by a given plan, to be exported and timed."""

    def __init__(self, cores: Sequence[Tensor], plan: TrainPlan) -> None:
        super().__init__()
        self.cores, self.plan = nn.ParameterList(cores), plan

    def forward(self, x: Tensor) -> Tensor:
        """x (B, M) -> (B, N)."""
        return planned_product(list(self.cores), self.plan)(x)


def _last_to_first(cores: Sequence[Tensor], x: Tensor) -> Tensor:
    """Contract the last core first: the state is (B m_1 .. m_k, r_k, n_{k+1} .. n_d)."""
    state, outputs = x, 1
    for core in reversed(cores):
        left, m, n, right = core.shape
        if right == 1 and outputs == 1:
            turned = core if left == 1 else core.permute(1, 0, 2, 3)  # a node less to load
            state = state.reshape(-1, m) @ turned.reshape(m, left * n)  # (B m_1 .. m_{k-1}, r n)
        else:
            matrix = core.permute(0, 2, 1, 3).reshape(left * n, m * right)
            state = matrix @ state.reshape(-1, m * right, outputs)  # (B m_1 .. m_{k-1}, r n_k, n_{k+1} .. n_d)
        outputs *= n
    return state.reshape(-1, outputs)


def _first_to_last(cores: Sequence[Tensor], x: Tensor) -> Tensor:
    """Contract the first core first: the state is (B n_1 .. n_k, r_k, m_{k+1} .. m_d)."""
    state, rest = x, math.prod(core.shape[1] for core in cores)
    for core in cores:
        left, m, n, right = core.shape
        rest //= m
        if rest == 1:
            state = state.reshape(-1, left * m) @ core.reshape(left * m, n * right)  # (B n_1 .. n_{d-1}, n_d)
        else:
            matrix = core.permute(2, 3, 0, 1).reshape(n * right, left * m)
            state = matrix @ state.reshape(-1, left * m, rest)  # (B n_1 .. n_{k-1}, n_k r, m_{k+1} .. m_d)
    return state.reshape(-1, math.prod(core.shape[2] for core in cores))


def scan(
    cell: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]], frames: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Apply ``cell(frame (B, G), state) -> state`` to frames (B, T, G) in order: outputs (B', T, H), last state.

    The output of a frame is the first part of the state after it. It exports as one Scan node. B may be 1 where the
    state has more rows.
    """
    from torch._higher_order_ops.scan import scan as torch_scan

    def step(carry: list[Tensor], frame: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        after = cell(frame, tuple(carry))
        return list(after), [after[0].clone()]

    last, outputs = torch_scan(step, list(state), frames.transpose(0, 1))  # frames (T, B, G)
    return outputs[0].transpose(0, 1), tuple(last)


class TTLinear(CoreLayer):
    """``x (..., in) -> (..., out)`` with a weight of prod m_k rows and prod n_k columns, stored as cores.

    A gate layer that gives several times the outputs multiplies the first output mode: (4, 4) -> (16, 4) for an LSTM.

    Args:
        in_modes: m_1 .. m_d; they multiply to the inputs.
        out_modes: n_1 .. n_d; they multiply to the outputs.
        ranks: one number for every inner bond, or the inner bonds (d - 1), or all bonds (d + 1, ones at both ends).
        bias: add a learned vector.
        clip: lower ranks that no matrix of this size can attain, with a warning; else they are kept as given.
        variance: variance of the weights at the start; by default 2 / (in + out), Glorot's.

    Raises:
        RecipeError: modes of different length or below 1, ranks of another length or below 1.
    """

    def __init__(
        self,
        in_modes: Sequence[int],
        out_modes: Sequence[int],
        ranks: int | Sequence[int],
        bias: bool = True,
        *,
        clip: bool = True,
        variance: float | None = None,
    ) -> None:
        super().__init__()
        self.in_modes, self.out_modes = tuple(in_modes), tuple(out_modes)
        self.ranks = full_ranks("TTLinear", self.in_modes, self.out_modes, ranks, clip)
        self.in_features, self.out_features = math.prod(self.in_modes), math.prod(self.out_modes)
        self.variance = 2 / (self.in_features + self.out_features) if variance is None else variance
        self.shapes = tuple(zip(self.ranks, self.in_modes, self.out_modes, self.ranks[1:], strict=False))
        self.cores = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in self.shapes)
        self.bias = nn.Parameter(torch.empty(self.out_features)) if bias else None
        self._made: CoreCache[list[Tensor]] = CoreCache()
        self.reset_parameters()

    def matrix(self) -> Tensor:
        """The whole weight (in, out), with gradients to the cores."""
        return merge_cores(list(self.cores)).view(self.in_features, self.out_features)

    def plan(self, batch: int, training: bool = False, input_gradient: bool = True) -> TrainPlan:
        """How ``batch`` rows are multiplied, by the next power of two, so that clips of all lengths share few plans."""
        return plan_rows(self.shapes, 1 << max(batch - 1, 0).bit_length(), training, input_gradient)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out).

        Raises:
            RecipeError: x does not end in the layer's inputs.
        """
        if x.shape[-1] != self.in_features:
            raise RecipeError(
                f"TTLinear: inputs of {x.shape[-1]} numbers; modes {self.in_modes} multiply to {self.in_features}"
            )
        rows = x.reshape(-1, self.in_features)  # (B, in)
        cores = list(self.cores)
        if exporting():  # the file holds cores; a runtime merges those that the plan for one row wants merged
            out = planned_product(cores, frame_plan(cores))(rows)  # (B, out)
            out = out if self.bias is None else out + self.bias
            return out.reshape(*x.shape[:-1], self.out_features)
        plan = self.plan(rows.shape[0], needs_gradient(cores), x.requires_grad)
        order = (plan.groups, plan.last_first)
        matrices = self._made.get(order, cores, lambda: step_matrices(cores, *order))
        if len(matrices) == 1 and self.bias is not None:
            out = torch.addmm(self.bias, rows, matrices[0])
        else:
            out = run_steps(rows, matrices, *self._merged_modes(plan.groups), plan.last_first)  # (B, out)
            out = out if self.bias is None else out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features)

    def _merged_modes(self, groups: Groups) -> tuple[list[int], list[int]]:
        """Modes of the super-cores, of the input and of the output."""
        merged = merge_shapes(self.shapes, groups)
        return [shape[1] for shape in merged], [shape[2] for shape in merged]

    def extra_repr(self) -> str:
        """Sizes for ``print(model)``."""
        modes = "(" + ", ".join(f"{m}.{n}" for m, n in zip(self.in_modes, self.out_modes, strict=True)) + ")"
        return f"{self.in_features} -> {self.out_features}, modes {modes}, ranks {self.ranks}"
