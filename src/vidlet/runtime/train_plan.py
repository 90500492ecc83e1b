"""How a train multiplies one frame: which neighboring cores are merged, and from which end they are contracted.

A model of ONNX Runtime's time for one frame on one thread, and the cheapest of all groupings by it. The exporter
(tensor_train/stream.py) writes what it chooses; `vidlet inspect` says why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Shape = tuple[int, int, int, int]  # of a core: r, m, n, r'

# Fitted to ONNX Runtime 1.31 on one thread of an AVX-512 machine, 43 contractions of 1,536 to 153,425 inputs
# (benchmarks/speed/tt_heads.py --plans): the choice was within 10 % of the fastest of all groupings and directions.
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
        (frame_us([merged(shapes, group) for group in groups], first), groups, first)
        for groups in groupings(len(shapes))
        for first in ((False, True) if len(groups) > 1 else (False,))
    ]
    dense = plans[0][0]  # one group
    best = min(plans, key=lambda plan: plan[0])
    return StreamPlan(best[1], best[2], round(best[0], 3), round(dense, 3))


def groupings(count: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to cut 0 .. count - 1 into neighbors, the uncut one first."""
    for cuts in itertools.product((False, True), repeat=count - 1):
        ends = [0, *(k + 1 for k, cut in enumerate(cuts) if cut), count]
        yield tuple(tuple(range(begin, end)) for begin, end in itertools.pairwise(ends))


def merged(shapes: Sequence[Shape], group: Sequence[int]) -> Shape:
    """The shape of the super-core that neighboring cores become."""
    rows, columns = (math.prod(shapes[k][axis] for k in group) for axis in (1, 2))
    return shapes[group[0]][0], rows, columns, shapes[group[-1]][3]


def frame_us(shapes: Sequence[Shape], first_core_first: bool) -> float:
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
