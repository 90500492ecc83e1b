"""Which labels may be wrong: those that models doubt which have not seen them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def doubts(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """How much each label is doubted, (N,) from -1 to 1: the best other class's probability less the label's own.

    The margin of confident learning (Northcutt et al. 2021, arXiv:1911.00068), by models that have not seen the clip.

    Args:
        probabilities: (N, K); NaN rows are of clips that nobody was asked about: their doubt is NaN.
        labels: (N,) as indices.
    """
    table, own = np.array(probabilities, np.float64), np.asarray(labels, np.int64)
    rows = np.arange(len(own))
    given = table[rows, own].copy()
    table[rows, own] = -np.inf
    result: NDArray[np.float64] = table.max(1) - given
    return result
