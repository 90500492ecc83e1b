"""What of the trials is worth a file: candidates, each with the way of storing that promises most within the budget."""

from __future__ import annotations

from .budget import TIERS, Budget, scaled
from .cards import Cards
from .halving import Search
from .space import ALONE, GRID, Candidate, Storage

EACH = 8  # candidates of a tier

Finalist = tuple[Candidate, Storage]


def finalists(trials: Search, cards: Cards, budget: Budget) -> list[Finalist]:
    """What is worth a file: of each tier the best candidates in the storage that promises most; the budget first.

    The best of a tier is also made as one head alone, where several fit, and tuned on its own answers. What is too
    large for a tier is looked at with half of its units.
    """
    inside, half, twice = (_of_tier(trials, cards, scaled(budget, tier)) for tier in TIERS)
    order: list[Finalist] = []
    for i in range(EACH + 2):  # three inside the budget for each one around it
        for chosen in (*inside[3 * i : 3 * i + 3], *half[i : i + 1], *twice[i : i + 1]):
            if chosen not in order:
                order.append(chosen)
    return order


def _of_tier(trials: Search, cards: Cards, budget: Budget) -> list[Finalist]:
    ranked: list[tuple[float, Candidate, Storage]] = []
    for trial in trials.best():
        candidate = trial.candidate
        for storage in (cards.storages(candidate, budget) or _pruned(cards, candidate, budget))[:1]:
            ranked.append((trial.round + trial.outcome.score - storage.penalty, candidate, storage))
    ranked.sort(key=lambda item: -item[0])
    plan = [(candidate, storage) for _, candidate, storage in ranked[:EACH]]
    if plan:
        best, first = plan[0]
        alone = next((s for s in cards.storages(best, budget) if s.members == 1), first)
        variants = (alone, alone.distilled()) if alone.kept == 1 else (alone,)
        plan[1:1] = [(best, s) for s in variants if (best, s) != plan[0]]
    return plan


def _pruned(cards: Cards, candidate: Candidate, budget: Budget) -> list[Storage]:
    """The storages in which a candidate is expected to keep a budget when half of its head's units are gone."""
    if candidate.kind != GRID:
        return []
    ways = [storage.pruned() for storage in ALONE]
    return [way for way in ways if cards.keeps(candidate, way, budget)]
