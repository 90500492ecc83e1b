"""Which file of clips is delivered: none behind a plain classifier, of those that are alike the smallest."""

from __future__ import annotations

from collections.abc import Sequence

from .proxy import Outcome
from .realize import ClipPoint
from .space import LINEAR

ALIKE = 0.004  # of a file's score: less than some hundred clips can tell


def best_first(points: Sequence[ClipPoint]) -> list[ClipPoint]:
    """Files in the order in which they would be chosen: of those that are alike with the best the smallest first."""
    ranked = sorted(points, key=lambda p: (-p.score, p.bytes))
    alike = [p for p in ranked if p.score >= ranked[0].score - ALIKE]
    return [*sorted(alike, key=lambda p: p.bytes), *ranked[len(alike) :]]


def behind(point: ClipPoint, other: ClipPoint) -> bool:
    """Whether a file is worse than another by the same validation: on all folds where both are known there.

    A lower score is worse, but for files that are alike: the difference is below what these clips can tell, and the
    file names no fewer of them rightly than the other.
    """
    folds = point.judged_accuracy is not None and other.judged_accuracy is not None
    both = folds and point.judged is not None and other.judged is not None
    score, others = (point.score, other.score) if both else (point.own, other.own)
    fewer = point.accuracy < other.accuracy or (both and point.known_accuracy < other.known_accuracy)
    return score < others and (fewer or score < others - ALIKE)


def deliverable(points: Sequence[ClipPoint], guessing: float, plain: Outcome | None = None) -> list[ClipPoint]:
    """The files that are not behind a plain linear classifier among them, and not behind naming the commonest class.

    Args:
        guessing: share of the commonest class.
        plain: how good the best plain classifier is on all clips held out, where there may be no file of it.
    """
    linear = [p for p in points if p.candidate.kind == LINEAR]
    ahead = [p for p in points if not any(behind(p, other) for other in linear)]
    if plain is not None and not linear:
        ahead = [p for p in ahead if p.judged is None or p.known_accuracy >= plain.accuracy or p.score >= plain.score]
    return [p for p in ahead if p.known_accuracy >= guessing]
