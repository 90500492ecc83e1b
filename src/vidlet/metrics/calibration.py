"""Do scores mean what they say: reliability, calibration error, likelihood, and the one number that mends them.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .classification import checked

_LOWEST_SCORE = float(np.finfo(np.float64).eps)  # one score of 0 on a true class must not make the mean infinite
_TEMPERATURES = (0.05, 20.0)
PRIOR_DEVIATION = 0.5  # of log T, before any clip is seen
FEW_CLIPS = 50


class Reliability(NamedTuple):
    """Clips binned by the score of the class they are given: each (bins,); an empty bin has means of 0."""

    confidence: NDArray[np.float64]  # mean score in the bin
    accuracy: NDArray[np.float64]  # fraction of them that are right
    clips: NDArray[np.int64]


def reliability(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """Bin clips by their highest score into ``bins`` equal ranges (low, high] of [0, 1]."""
    table, truth = checked(scores, labels)
    best = table.argmax(axis=1) if len(truth) else truth
    confidence = table[np.arange(len(truth)), best]
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    clips = np.bincount(place, minlength=bins)
    some = np.maximum(clips, 1)
    return Reliability(
        np.bincount(place, confidence, minlength=bins) / some,
        np.bincount(place, best == truth, minlength=bins) / some,
        clips,
    )


def expected_calibration_error(scores: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean over clips of |accuracy - confidence| of their reliability bin; NaN without clips."""
    confidence, right, clips = reliability(scores, labels, bins)
    return float((clips * np.abs(right - confidence)).sum() / clips.sum()) if clips.sum() else float("nan")


def negative_log_likelihood(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log(score of the label), in nats; scores below 2.2e-16 count as that; NaN without clips."""
    table, truth = checked(scores, labels)
    if not len(truth):
        return float("nan")
    return float(-np.log(np.maximum(table[np.arange(len(truth)), truth], _LOWEST_SCORE)).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T for which softmax(logits / T) has the smallest negative log-likelihood, within 0.05..20.

    The loss is convex in 1/T; the sign of its derivative is bisected. Logits that do not tell classes apart, and no
    clips, give 1.
    """
    return _temperature(logits, labels, math.inf)


def careful_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature for a file that ships: shrunk towards 1 the more, the fewer clips say otherwise.

    It minimizes the sum over clips of the negative log-likelihood of softmax(logits / T), plus (log T)^2 / (2 s^2) with
    s = 1/2: before a clip is seen, T is taken to lie between 0.37 and 2.7 (two deviations). Fewer than ``FEW_CLIPS``
    clips never make scores surer than the network's own: a few that are all named rightly would make every score 1.
    And N clips, all of them right, say no more than that one in N + 2 may be wrong (Laplace's rule of succession; Platt
    1999, "Probabilistic Outputs for Support Vector Machines", section 2.2): the mean highest score is not above
    (N + 1) / (N + 2), whatever the network's own are.
    """
    found = _temperature(logits, labels, PRIOR_DEVIATION)
    count = len(np.asarray(labels))
    return _no_surer(logits, (count + 1) / (count + 2), found if count >= FEW_CLIPS else max(1.0, found))


def _no_surer(logits: ArrayLike, most: float, temperature: float) -> float:
    """The lowest temperature from this one on at which the mean highest score is at most ``most``, by bisection."""
    table = np.asarray(logits, np.float64)
    if not table.size:
        return temperature
    table = table - table.max(axis=1, keepdims=True)

    def confidence(t: float) -> float:
        return float((1 / np.exp(table / t).sum(axis=1)).mean())

    if confidence(temperature) <= most:
        return temperature
    cold, hot = temperature, max(temperature, _TEMPERATURES[1])
    for _ in range(48):
        middle = (cold * hot) ** 0.5
        cold, hot = (middle, hot) if confidence(middle) > most else (cold, middle)
    return hot


def _temperature(logits: ArrayLike, labels: ArrayLike, deviation: float) -> float:
    """Where the derivative of the loss is 0, by bisection in log T; ``deviation``: of log T beforehand."""
    table, truth = checked(logits, labels)
    if not len(truth) or np.ptp(table, axis=1).max() == 0:
        return 1.0
    table = table - table.max(axis=1, keepdims=True)
    own = table[np.arange(len(truth)), truth].mean()
    cold, hot = (np.log(bound) for bound in _TEMPERATURES)
    for _ in range(48):
        middle = (cold + hot) / 2
        weights = np.exp(table / np.exp(middle))  # (N, K)
        expected = ((weights * table).sum(axis=1) / weights.sum(axis=1)).mean()
        pull = middle * np.exp(middle) / (deviation**2 * len(truth))
        if expected - own > pull:  # the softmax trusts its best classes more than the labels bear out
            cold = middle
        else:
            hot = middle
    return float(np.exp((cold + hot) / 2))


# None of these: from which score on a label may be named.
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
