"""Which candidates become the model: the best one, and others where their mean is better on held out clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import fit_temperature
from .measure import LEAST, Measured, accuracy_of, loss_of

MOST = 3  # members
LOSS_SHARE = 0.3  # of the loss in what candidates are chosen by, in points of accuracy per nat
GAIN, SAME_CUT = 0.004, 0.0005  # of worth, that one more member must bring; one whose cuts are there already
TOGETHER = 0.02  # accuracy by which ordered candidates must be ahead for heads to be trained
ENOUGH = 0.985  # accuracy above which nothing is trained


@dataclass(frozen=True, eq=False)
class Choice:
    """The members, how good they are together on held out clips, and the temperature that fits there.

    ``probabilities`` (N, K) are what they say together, at that temperature, of clips that they had not seen; NaN for
    clips that not all candidates were tried on.
    """

    members: tuple[Measured, ...]
    accuracy: float
    loss: float
    temperature: float
    probabilities: np.ndarray


def worth(accuracy: float, loss: float) -> float:
    """What is chosen by: accuracy, and a share of the loss, which tells apart what few clips cannot."""
    return accuracy - LOSS_SHARE * loss


def choose(measured: Sequence[Measured], targets: np.ndarray, multi_label: bool = False) -> Choice:
    """Take the best candidate, then add those whose mean with it is better, on the clips that all were tried on.

    Greedy selection without replacement (Caruana et al. 2004). The rule and its constants are the same for every set;
    they were set by hand with results of held-out folds of four sets in view, so they are not proven on a set unseen.
    """
    known = np.all([np.isfinite(m.probabilities[:, 0]) for m in measured], axis=0)
    y = targets[known]
    members: list[Measured] = []
    total, best = np.zeros_like(y, dtype=np.float64), -np.inf
    while len(members) < MOST:
        tried = []
        for m in (m for m in measured if m not in members):
            p = (total + m.probabilities[known]) / (len(members) + 1)
            price = max(x.candidate.price for x in (*members, m))
            tried.append((worth(accuracy_of(p, y), loss_of(p, y, multi_label)) - price, m))
        if not tried:
            break
        value, m = max(tried, key=lambda pair: pair[0])
        there = {cut for x in members for cut in x.candidate.cuts}
        if members and value < best + (SAME_CUT if there.issuperset(m.candidate.cuts) else GAIN):
            break
        members.append(m)
        total, best = total + m.probabilities[known], value
    p = total / len(members)
    temperature = 1.0 if multi_label else fit_temperature(np.log(np.maximum(p, LEAST)), y.argmax(1))
    said = np.full(targets.shape, np.nan)
    said[known] = p if multi_label else tempered(p, temperature)
    return Choice(tuple(members), accuracy_of(p, y), loss_of(p, y, multi_label), temperature, said)


def tempered(p: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, K) at a temperature."""
    powers = np.maximum(p, LEAST) ** (1 / temperature)
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def order_matters(measured: Sequence[Measured]) -> bool:
    """Whether probes that know the order are ahead of those that do not, and something is left to gain."""
    ordered = max((m.accuracy for m in measured if m.candidate.ordered), default=0.0)
    orderless = max((m.accuracy for m in measured if not m.candidate.ordered), default=0.0)
    return ordered >= orderless + TOGETHER and ordered < ENOUGH
