"""How a train multiplies one frame inside an exported graph, and a recurrence whose number of frames stays free there.

Neighboring cores are merged by nodes that a runtime computes once, when it loads the file; the super-cores are then
contracted frame by frame. The file holds the cores alone. Which cores are merged, and from which end they are
contracted, is chosen by a model of ONNX Runtime's time for one frame on one thread: runtime/train_plan.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from torch import Tensor

from ..runtime.train_plan import StreamPlan, plan_stream
from .cores import merge_cores

__all__ = ["StreamPlan", "plan_stream", "planned_product", "scan"]


def planned_product(cores: Sequence[Tensor], plan: StreamPlan) -> Callable[[Tensor], Tensor]:
    """The product of x (B, M) with the matrix (M, N) of cores (r, m, n, r'), by a plan; B may be free in an export."""
    merged = [merge_cores([cores[k] for k in group]) for group in plan.groups]
    return functools.partial(_first_to_last if plan.first_core_first else _last_to_first, merged)


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
