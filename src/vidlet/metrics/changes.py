"""Where a sequence changes: the split into homogeneous pieces of least squared deviation, exact, without labels.

Source: Killick et al. 2012, "Optimal detection of changepoints with a linear computational cost", arXiv:1101.1438
(PELT: the penalized cost, its exact recursion, and the pruning of beginnings that can no longer win).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError


def change_points(values: ArrayLike, penalty: float, shortest: int = 1) -> list[int]:
    """Rows (T, D) at which a new piece begins, without 0: pieces of least squared deviation plus ``penalty`` each.

    Args:
        penalty: what one more piece must save, in the square of the values' unit.
        shortest: rows of a piece at least; a sequence with fewer rows is one piece.

    Raises:
        DataError: not (T, D), or a penalty or length that is not positive.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or penalty <= 0 or shortest < 1:
        raise DataError(f"change points need values (T, D), a positive penalty and length, got {x.shape}, {penalty}")
    rows = len(x)
    x = x - x.mean(0) if rows else x
    sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, 0)])  # (T + 1, D)
    squares = np.concatenate([[0.0], np.cumsum((x**2).sum(1))])  # (T + 1,)
    best = np.full(rows + 1, np.inf)  # of the first t rows
    best[0], begins = -penalty, np.zeros(rows + 1, np.int64)
    out_from = np.full(rows + 1, rows + 1)  # the end from which on a beginning cannot win
    for end in range(shortest, rows + 1):
        starts = np.flatnonzero(out_from[: end - shortest + 1] > end)
        total = sums[end] - sums[starts]  # (S, D)
        deviation = squares[end] - squares[starts] - (total**2).sum(1) / (end - starts)
        costs = best[starts] + deviation + penalty
        begins[end] = starts[costs.argmin()]
        best[end] = costs.min()
        lost = starts[costs - penalty > best[end]]  # a piece that begins here is better, once it is long enough
        out_from[lost] = np.minimum(out_from[lost], end + shortest)
    found: list[int] = []
    end = rows
    while rows >= shortest and begins[end] > 0:
        end = int(begins[end])
        found.append(end)
    return found[::-1]


def noise(values: ArrayLike) -> float:
    """Squared deviation of a row (T, D) from its piece, from how much neighbors differ (the median, halved)."""
    steps = np.diff(np.asarray(values, np.float64), axis=0)
    differences: NDArray[np.float64] = (steps**2).sum(1)
    return float(np.median(differences) / 2) if len(differences) else 0.0
