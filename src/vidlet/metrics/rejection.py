"""None of these: from which score on a label may be named."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

HALF = 0.5
DIGITS = 10_000  # a threshold has four digits
LOST = 0.01  # of all clips: those that a threshold may lose for nothing


class Rejection(NamedTuple):
    """A threshold, the share of clips that are still named rightly with it, without it, and of what is named wrongly.

    ``recall`` and ``recall_without`` are shares of the clips that show something, ``false`` of those that do not (NaN
    without any).
    """

    threshold: float
    recall: float
    recall_without: float
    false: float


def named_scores(scores: ArrayLike, none: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What scores (N, K) name, as indices (N,), and how surely (N,): 0 where the class ``none`` is the best."""
    table = np.asarray(scores, np.float64)
    best = table.argmax(1)
    sure = table[np.arange(len(table)), best]
    return best, np.where(best == none, 0.0, sure) if none is not None else sure


def choose_threshold(right: ArrayLike, false: ArrayLike) -> Rejection:
    """The threshold by what unseen clips say.

    At least the highest that loses one clip in a hundred, or one half, whichever is lower; from there on the one at
    which the share of clips named rightly is furthest above that of clips falsely named (Youden 1950), the lowest of
    equal ones. So a threshold above one half is there for false names alone: where all clips are named with a score
    near 1, those that come later will not be quite so sure.

    Args:
        right: (N,) for each clip that shows something, the score with which it is named, 0 where another label is.
        false: (M,) for each clip that shows nothing, the score with which something is named, 0 where nothing is.
    """
    hits, alarms = np.sort(np.asarray(right, np.float64)), np.asarray(false, np.float64)
    found = hits[hits > 0]
    if not len(found):
        return Rejection(HALF, 0.0, 0.0, float((alarms >= HALF).mean()) if len(alarms) else float("nan"))
    least = min(_down(found[min(int(LOST * len(hits)), len(found) - 1)]), HALF)
    tried = np.unique(np.concatenate([[least], _down(found), _down(alarms) + 1 / DIGITS]))
    tried = tried[(tried >= least) & (tried <= 1)]

    def gain(threshold: float) -> float:
        return float((hits >= threshold).mean()) - (float((alarms >= threshold).mean()) if len(alarms) else 0.0)

    threshold = float(tried[np.argmax([gain(t) for t in tried])])
    false_share = float((alarms >= threshold).mean()) if len(alarms) else float("nan")
    return Rejection(threshold, float((hits >= threshold).mean()), len(found) / len(hits), false_share)


def _down(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores rounded down to four digits, so that rounding a threshold loses no clip."""
    return np.maximum(np.floor(scores * DIGITS), 1) / DIGITS
