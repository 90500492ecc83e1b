"""How a train multiplies one frame inside an exported graph, and a recurrence whose number of frames stays free there.

Neighboring cores are merged by nodes that a runtime computes once, when it loads the file; the super-cores are then
contracted frame by frame. The file holds the cores alone. Which cores are merged, and from which end they are
contracted, is chosen by a model of ONNX Runtime's time for one frame on one thread.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from .cores import merge_cores

Shape = tuple[int, int, int, int]  # of a core: r, m, n, r'

# Fitted to ONNX Runtime 1.31 on one thread of an AVX-512 machine, 43 contractions of 1,536 to 153,425 inputs
# (benchmarks/tt_heads.py --plans): the choice was within 10 % of the fastest of all groupings and directions.
FLOPS_A_US = 110e3  # of a product that fills the vector units
VECTOR_FLOPS_A_US = 37e3  # of one row times a matrix
ROWS, COLUMNS = 32, 16  # fewer rows or columns than these leave units idle, in proportion
NODE_US, PRODUCT_US = 3.0, 0.15  # of a node of the graph, and of each small product in a stack of them


@dataclass(frozen=True)
class StreamPlan:
    """Groups of neighboring cores that become one, the direction of contraction, and the times the model expects.

    ``groups`` ((0, 1), (2, 3)) are two super-cores, ((0, 1, 2, 3),) is the whole matrix. ``first_core_first`` False
    begins with the last group. ``frame_us`` and ``dense_us`` are microseconds a frame by this plan and by the matrix.
    """

    groups: tuple[tuple[int, ...], ...]
    first_core_first: bool
    frame_us: float
    dense_us: float


def plan_stream(shapes: Sequence[Shape]) -> StreamPlan:
    """The fastest way to multiply one row of inputs with cores of these shapes (r, m, n, r')."""
    plans = [
        (_frame_us([_merged(shapes, group) for group in groups], first), groups, first)
        for groups in _groupings(len(shapes))
        for first in ((False, True) if len(groups) > 1 else (False,))
    ]
    dense = plans[0][0]  # one group
    best = min(plans, key=lambda plan: plan[0])
    return StreamPlan(best[1], best[2], round(best[0], 3), round(dense, 3))


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
            state = state.reshape(-1, m) @ core.permute(1, 0, 2, 3).reshape(m, left * n)  # (B m_1 .. m_{k-1}, r n)
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


def _groupings(count: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to cut 0 .. count - 1 into neighbors, the uncut one first."""
    for cuts in itertools.product((False, True), repeat=count - 1):
        ends = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), count]
        yield tuple(tuple(range(begin, end)) for begin, end in itertools.pairwise(ends))


def _merged(shapes: Sequence[Shape], group: Sequence[int]) -> Shape:
    rows, columns = (math.prod(shapes[k][axis] for k in group) for axis in (1, 2))
    return shapes[group[0]][0], rows, columns, shapes[group[-1]][3]


def _frame_us(shapes: Sequence[Shape], first_core_first: bool) -> float:
    """Expected microseconds of contracting one row with cores of these shapes."""
    total, inputs = 0.0, math.prod(shape[1] for shape in shapes)
    done, rest = 1, inputs
    for left, m, n, right in shapes if first_core_first else reversed(shapes):
        rest //= m
        if first_core_first:
            count, rows, inner, columns = (1, done, left * m, n) if rest == 1 else (done, n * right, left * m, rest)
        else:
            count, rows, inner, columns = (1, rest, m, left * n) if done == 1 else (rest, left * n, m * right, done)
        if len(shapes) > 1 and rows * count > 1:
            rate = FLOPS_A_US * min(1, rows / ROWS) * min(1, columns / COLUMNS)
        else:
            rate = VECTOR_FLOPS_A_US
        total += NODE_US + (PRODUCT_US * count if count > 1 else 0) + 2 * count * rows * inner * columns / rate
        done *= n
    return total
