"""What each extractor of a search over clips costs, counted or measured, and which candidates that leaves a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np

from ..models import FrameExtractor, build_extractor
from ..progress import working
from ..recipe import Extractor
from ..tasks.prepare import sample_clips
from .budget import TIERS, scaled
from .cards import CLEAR, Card, Cards, counted_cards, make_cards, smallest
from .course import Course
from .data import Judged, sketch
from .realize import ClipPoint
from .space import ALONE, Candidate, Space, place_of

SAMPLED = 8  # frames of a clip that costs are measured with


class ClipCosts:
    """The cards of a search's extractors, as its budget asks for them: counted, or measured where times are limited."""

    def __init__(self, course: Course[ClipPoint], judged: Judged) -> None:
        self.course, self.asked, self.log, self.budget = course, course.asked, course.log, course.asked.budget
        self.table = judged.folds[0]
        self.labels = judged.table.labels
        self.cards = Cards(len(self.labels))
        self._samples: dict[tuple[int, int], list[np.ndarray]] = {}  # of a size: frames that costs are measured with

    def counted(self, plan: Extractor) -> list[Card]:
        """The cards of an extractor by the count of its bytes, which are not added."""
        return counted_cards(place_of(plan), sketch(plan), self.labels)

    def count(self, space: Space, extractors: Mapping[str, FrameExtractor]) -> None:
        """Add the cards of extractors by the count of their bytes.

        Where that leaves open whether anything keeps the budget, a file of the shallowest is written.
        """
        for plan in space.extractors:
            self.cards.add(place_of(plan), sketch(plan).feature_shape, self.counted(plan))
        clear = scaled(self.budget, 1 - CLEAR)
        if any(self.cards.possible(place, clear) for place in extractors):
            return
        place = next(iter(extractors))
        if self.cards.possible(place, scaled(self.budget, 1 + CLEAR)):
            self._card(space, place, extractors[place])

    def measure(self, space: Space, extractors: Mapping[str, FrameExtractor]) -> None:
        """Add the cards of extractors with their times, as measured.

        The deeper a cut, the more it costs. So the deepest that can keep twice the budget is found by halves, and those
        before it are measured as long as the time for costs lasts, and until one can keep the budget itself: behind
        that time the shallowest first.
        """
        budget, places = scaled(self.budget, max(TIERS)), list(extractors)

        def enough() -> bool:
            return self.asked.costs_over and any(self.cards.possible(place, self.budget) for place in places)

        low, high = 0, len(places)  # what stands before ``low`` can keep it, what stands from ``high`` on cannot
        while low < high and not enough():
            middle = low if self.asked.costs_over else (low + high) // 2
            self._card(space, places[middle], extractors[places[middle]])
            low, high = (middle + 1, high) if self.cards.possible(places[middle], budget) else (low, middle)
        left_out = high - low
        for place in (place for place in reversed(places[:low]) if place not in self.cards.shapes):
            if enough():
                left_out += 1
            else:
                self._card(space, place, extractors[place])
        if left_out:
            self.course.missed.append(f"{left_out} of {len(places)} cuts of {places[0].split()[0]} were not measured")

    def _card(self, space: Space, place: str, extractor: FrameExtractor) -> None:
        """Add the measured cards of an extractor in all storages, from the log where they stand there."""
        logged, timed = [Card(**record["card"]) for record in self.log.of("card")], self.budget.needs_times
        known = {card.chain: card for card in logged if card.place == place and (card.measured or not timed)}
        cards = [known[storage.chain] for storage in ALONE if storage.chain in known]
        if len(cards) < len(ALONE):
            table = self.table
            plan = space.recipe(replace(smallest(place, extractor.feature_shape), hz=min(space.rates_hz)), "samples")
            size = plan.extractor.input_size
            self._samples[size] = self._samples.get(size) or [clip[:SAMPLED] for clip in sample_clips(table, plan, 3)]
            with working(f"measure {place}"):
                cards = make_cards(space, table, extractor, place, self._samples[size], timed)
            for card in cards:
                if card.chain not in known:  # a killed search may have left some
                    self.log.add("card", card=asdict(card))
        self.cards.add(place, extractor.feature_shape, cards)

    def price(self, space: Space, candidate: Candidate) -> None:
        """Know what a network to fine-tune costs: where times are limited, as measured."""
        plan, place = candidate.plan.extractor, candidate.place
        if place not in self.cards.shapes:
            extractor = build_extractor(plan)
            if self.budget.needs_times:
                self._card(replace(space, extractors=(plan,)), place, extractor)
            else:
                cards = counted_cards(place, extractor, self.labels)
                self.cards.add(place, extractor.feature_shape, cards)

    def penalty(self, candidate: Candidate) -> float | None:
        """The accuracy that the best storage within the budget is known to cost; None: there is none."""
        return next((storage.penalty for storage in self.cards.storages(candidate, self.budget)), None)

    def fits(self, candidate: Candidate) -> bool:
        """Whether a candidate fits the budget in some storage, or twice its bytes."""
        return bool(self.cards.storages(candidate, scaled(self.budget, max(TIERS))))

    def inside(self, candidate: Candidate) -> bool:
        """Whether a candidate fits the budget in some storage."""
        return bool(self.cards.storages(candidate, self.budget))
