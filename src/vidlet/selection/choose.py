"""Which candidates become the model: the mean of the best probes, and with it of a head that was trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..metrics import careful_temperature
from .measure import LEAST, Measured, accuracy_of, loss_of

MOST = 3  # probes, and those that are kept
LOSS_SHARE = 0.3  # of the loss in what candidates are chosen by, in points of accuracy per nat
BEHIND = 2.0  # standard errors, by which a probe that is not the best may be behind it
TOGETHER = 0.02  # accuracy by which ordered candidates must be ahead for heads to be trained
ENOUGH = 0.985  # accuracy above which nothing is trained


Members = tuple[Measured, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """The members and the weight of each, how good they are together on held out clips, and their temperature there.

    ``accuracy`` and ``loss`` of ``choose`` are those by which it chose, so they flatter; those of ``judged_without``
    are of clips that had no part in the choice.

    ``probabilities`` (N, K) are what they say together, at that temperature, of clips that they had not seen; NaN for
    clips that not all members were tried on. ``right`` (N,) is 1 or 0 where ``accuracy`` counts a clip as named rightly
    or not, NaN where it does not count it.
    """

    members: tuple[Measured, ...]
    weights: tuple[float, ...]
    accuracy: float
    loss: float
    temperature: float
    probabilities: np.ndarray
    gap20: float | None = None  # where it was chosen by
    right: np.ndarray | None = None


def worth(p: np.ndarray, y: np.ndarray, multi_label: bool) -> float:
    """What is chosen by: accuracy, and a share of the loss, which tells apart what few clips cannot."""
    return accuracy_of(p, y) - LOSS_SHARE * loss_of(p, y, multi_label)


def choose(measured: Sequence[Measured], targets: np.ndarray, multi_label: bool = False) -> Choice:
    """Take the mean of the probes that are best on held out clips, and join it with what was trained if that helps.

    A mean of several is chosen instead of the best one because the order of good candidates is mostly chance where
    clips are few: docs/lab-notes.md has both over five sets, and how ``MOST`` and ``LOSS_SHARE`` do where they are
    chosen without the set that is scored. What was trained counts as much as all probes together.
    """
    return _best_of(_options(measured, targets, multi_label), measured, targets, multi_label)


def choose_that_fits(
    measured: Sequence[Measured], targets: np.ndarray, penalty: Callable[[Members], float | None]
) -> Choice | None:
    """As ``choose``, of one label a clip, where not all may be together in one file; None: not one alone may.

    Args:
        penalty: the accuracy that members lose in the file that holds them together; None: none does. Of those that
            would be chosen the best part is taken; beside a trained head these are probes that have room there.
    """
    wholes = _options(measured, targets, False)
    for m in measured:
        if m.candidate.head != "probe":
            beside = [p for p in measured if p.candidate.head == "probe" and penalty((m, p)) is not None]
            wholes += [(m, *best_probes(beside, targets, False))] if beside else []
    parts = {part: None for whole in wholes for size in range(1, len(whole) + 1) for part in combinations(whole, size)}
    options = [part for part in parts if penalty(part) is not None]
    return _best_of(options, measured, targets, False, lambda part: penalty(part) or 0.0) if options else None


def _options(measured: Sequence[Measured], targets: np.ndarray, multi_label: bool) -> list[Members]:
    """The best probes, with each head that was trained, and each of these alone."""
    best = best_probes([m for m in measured if m.candidate.head == "probe"], targets, multi_label)
    options: list[Members] = [tuple(best)]
    for m in measured:
        if m.candidate.head != "probe":
            options += [(m, *best), (m,)]
    return options


def _best_of(
    options: Sequence[Members],
    measured: Sequence[Measured],
    targets: np.ndarray,
    multi_label: bool,
    penalty: Callable[[Members], float] = lambda members: 0.0,
) -> Choice:
    """What is worth most on the clips that all was tried on, less what its cut and its file cost."""
    known = np.all([np.isfinite(m.probabilities[:, 0]) for m in measured], axis=0)

    def value(option: Members) -> float:
        said = mean_of(option, weights_of(option))
        return (
            worth(said[known], targets[known], multi_label) - max(m.candidate.price for m in option) - penalty(option)
        )

    best = max(options, key=value)
    return choice_of(best, weights_of(best), targets, multi_label)


def weights_of(members: Members) -> tuple[float, ...]:
    """The weight of each: what was trained counts as much as all probes together."""
    probes = max(1, sum(m.candidate.head == "probe" for m in members))
    return tuple(1.0 if m.candidate.head == "probe" else float(probes) for m in members)


def choice_of(
    members: tuple[Measured, ...], weights: tuple[float, ...], targets: np.ndarray, multi_label: bool = False
) -> Choice:
    """The members as a choice, with what they say together of held out clips and the temperature that fits it."""
    said = mean_of(members, weights)
    known = np.isfinite(said[:, 0])
    p, y = said[known], targets[known]
    temperature = 1.0 if multi_label else careful_temperature(np.log(np.maximum(p, LEAST)), y.argmax(1))
    together = np.full(targets.shape, np.nan)
    together[known] = p if multi_label else tempered(p, temperature)
    figures = accuracy_of(p, y), loss_of(p, y, multi_label)
    return Choice(members, weights, *figures, temperature, together, right=_right(said, targets))


def judged_without(
    choice: Choice,
    measured: Sequence[Measured],
    targets: np.ndarray,
    folds: Sequence[np.ndarray],
    multi_label: bool = False,
) -> Choice:
    """The choice with the accuracy and the loss of what is chosen without the clips that are judged.

    The best of many candidates is the best by luck, too, on the clips that it was chosen by. So for each fold members
    are chosen by the clips of the others alone, and what these say of the fold counts (Varma and Simon 2006, "Bias in
    error estimation when using cross-validation for model selection"). Nothing is solved anew.

    Args:
        folds: bool (N,) each, those that the candidates were measured on. Where a head was tried on one of them alone,
            there is nothing to choose it by without that one, and the choice stays as it is.
    """
    tried = [[held for held in folds if np.isfinite(m.probabilities[held, 0]).all()] for m in measured]
    if min(map(len, tried)) < 2:
        return choice
    said = np.full(targets.shape, np.nan)
    for held in folds:
        own = [replace(m, probabilities=m.probabilities[~held]) for m in measured]
        found = choose(own, targets[~held], multi_label)
        whole = [measured[next(i for i, part in enumerate(own) if part is m)] for m in found.members]
        said[held] = mean_of(whole, found.weights)[held]
    known = np.isfinite(said[:, 0])
    p, y = said[known], targets[known]
    return replace(choice, accuracy=accuracy_of(p, y), loss=loss_of(p, y, multi_label), right=_right(said, targets))


def tempered(p: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, K) at a temperature."""
    powers = np.maximum(p, LEAST) ** (1 / temperature)
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


def best_probes(probes: Sequence[Measured], targets: np.ndarray, multi_label: bool) -> list[Measured]:
    """The ``MOST`` probes that are worth most, and what is ``kept``; none that is clearly behind the first."""
    order = sorted(probes, key=lambda m: m.candidate.price - worth(m.probabilities, targets, multi_label))
    order = [m for place, m in enumerate(order) if place < MOST or m.candidate.kept]
    first = _terms(order[0], targets, multi_label)
    found = order[:1]
    for m in order[1:]:
        behind = first - _terms(m, targets, multi_label)
        if behind.mean() <= BEHIND * behind.std() / len(behind) ** 0.5:
            found.append(m)
    return found


def order_matters(measured: Sequence[Measured]) -> bool:
    """Whether probes that know the order are ahead of those that do not, and something is left to gain."""
    ordered = max((m.accuracy for m in measured if m.candidate.ordered), default=0.0)
    orderless = max((m.accuracy for m in measured if not m.candidate.ordered), default=0.0)
    return ordered >= orderless + TOGETHER and ordered < ENOUGH


def _right(said: np.ndarray, targets: np.ndarray) -> np.ndarray:
    known = np.isfinite(said[:, 0])
    found = np.full(len(said), np.nan)
    found[known] = targets[known, said[known].argmax(1)]
    return found


def _terms(m: Measured, targets: np.ndarray, multi_label: bool) -> np.ndarray:
    """What each clip (N,) adds to the worth of a candidate."""
    return np.array([worth(p[None], y[None], multi_label) for p, y in zip(m.probabilities, targets, strict=True)])


def mean_of(members: Sequence[Measured], weights: Sequence[float]) -> np.ndarray:
    """The weighted mean of what several say, (N, K)."""
    total = sum(weight * m.probabilities for m, weight in zip(members, weights, strict=True))
    return np.asarray(total / sum(weights))
