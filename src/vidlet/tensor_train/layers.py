"""Fully connected layers whose matrix is a tensor train of small cores.

W[i, j] = prod_k G_k[:, i_k, j_k, :] with row-major multi-indices, k = 1 slowest; core k has the shape
(r_{k-1}, m_k, n_k, r_k), m of the input and n of the output. Source: Novikov et al. 2015, arXiv:1509.06569; Yang et
al. 2017, arXiv:1707.01786.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..runtime.train_plan import Groups, TrainPlan, merge_shapes, plan_rows
from .contract import frame_plan, planned_product, run_steps, step_matrices
from .cores import CoreCache, check_saved_cores, exporting, full_ranks, merge_cores, needs_gradient, random_cores


class TTLinear(nn.Module):
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

    def reset_parameters(self) -> None:
        """Draw new cores whose matrix has the mean square ``variance``; the bias becomes zero."""
        with torch.no_grad():
            for core, drawn in zip(self.cores, random_cores([c.shape for c in self.cores], self.variance), strict=True):
                core.copy_(drawn)
            if self.bias is not None:
                self.bias.zero_()

    @property
    def core_parameters(self) -> int:
        """Numbers in the cores, without the bias."""
        return sum(core.numel() for core in self.cores)

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

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        check_saved_cores(f"{prefix}cores.", [tuple(core.shape) for core in self.cores], state_dict, "TTLinear")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Sizes for ``print(model)``."""
        modes = "(" + ", ".join(f"{m}.{n}" for m, n in zip(self.in_modes, self.out_modes, strict=True)) + ")"
        return f"{self.in_features} -> {self.out_features}, modes {modes}, ranks {self.ranks}"
