"""What the files of untrained detectors cost, before anything is trained: bytes, and times where these are limited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..datasets import BoxTable
from ..errors import RecipeError
from ..progress import working
from ..recipe import Extractor, Recipe
from ..runs import MODEL
from ..runtime import benchmark
from ..tasks import TASKS
from .box_space import STORED
from .budget import Budget
from .cards import EVIDENCE_BYTES
from .trials import Record, TrialLog


class Costs:
    """Bytes of each candidate in each storage, and its times where they are limited; all of it stands in the log.

    Args:
        plans: the candidates by name.
        sample: some images of ``table``, which files in integers are calibrated on.
    """

    def __init__(
        self, plans: Mapping[str, Recipe], table: BoxTable, sample: BoxTable, budget: Budget, log: TrialLog, device: str
    ) -> None:
        self.plans, self.table, self.sample, self.budget, self.log, self.device = (
            plans, table, sample, budget, log, device,
        )  # fmt: skip
        self.networks = TASKS["boxes"].networks()
        self.weights: dict[str, int] = {}  # how many each candidate has

    def possible(self) -> dict[str, list[str]]:
        """The candidates that can keep the budget, each with the chains that do, the largest file first.

        Raises:
            RecipeError: none can; it names the smallest, and the fastest where time is limited.
        """
        with working("measure what detectors cost"):
            cards = self._cards()
        able: dict[str, list[str]] = {}
        for card in cards:
            if not self.broken(card["bytes"], card["measured"]):
                known = able.setdefault(card["name"], [])
                known += [card["chain"]] if self.budget.needs_times else _from(card["chain"])
        if not able:
            raise RecipeError(f"no detector of the search fits {self.budget.describe()}: {self._nearest(cards)}")
        return able

    def broken(self, size_bytes: int, measured: Mapping[str, Any] | None = None) -> list[str]:
        """The limits that a file does not keep, with the figures that are to be written into it; see ``Budget``."""
        return self.budget.broken(size_bytes + EVIDENCE_BYTES, measured)

    def _nearest(self, cards: Sequence[Record]) -> str:
        def said(card: Record) -> str:
            return f"{card['name']} in {card['chain'] or 'float32'}"

        small = min(cards, key=lambda card: int(card["bytes"]))
        parts = [f"the smallest, {said(small)}, has {small['bytes'] + EVIDENCE_BYTES:,} bytes"]
        if self.budget.max_latency_ms is not None:
            fast = min(cards, key=lambda card: self.budget.latency_ms(card["measured"]))
            took = f"{self.budget.latency_ms(fast['measured']):.2f} ms a {self.budget.latency[0]}"
            parts.append(f"the fastest, {said(fast)}, takes {took} ({self.budget.latency[1]})")
        if self.budget.max_memory_bytes is not None:
            lean = min(cards, key=lambda card: int(card["measured"]["peak_rss_bytes"]))
            parts.append(f"{said(lean)} takes the least memory, {lean['measured']['peak_rss_bytes']:,} bytes")
        return "; ".join(parts)

    def _cards(self) -> list[Record]:
        """What untrained files cost, from the smallest network.

        A storage whose weights alone are too many is not written, but of the smallest network; nor is what is larger
        than a candidate of its kind that is too slow. Where times do not matter, nothing is written that is smaller
        than what fits, and the largest input stands for the others: it moves the bytes by some hundred.
        """
        timed = self.budget.needs_times
        counted: dict[Extractor, int] = {}
        for name, plan in self.plans.items():
            if (key := _network(plan)) not in counted:
                network = self.networks.build(plan, self.table, None)
                counted[key] = sum(parameter.numel() for parameter in network.detector.parameters())
            self.weights[name] = counted[key]

        def cost(name: str) -> tuple[int, int]:
            pixels = math.prod(self.plans[name].extractor.input_size)
            return self.weights[name], pixels if timed else -pixels

        cards: list[Record] = []
        most = math.inf if self.budget.max_bytes is None else self.budget.max_bytes
        for name in sorted(self.plans, key=cost):
            if timed and self._too_slow(name, cards):
                continue
            chains = [chain for chain, each in STORED.items() if self.weights[name] * each <= most]
            for chain in chains or ([] if cards else [min(STORED, key=STORED.__getitem__)]):
                cards.append(self._card(name, chain, cards))
                if not timed and not self.broken(cards[-1]["bytes"]):
                    break
        return cards

    def _too_slow(self, name: str, cards: Sequence[Record]) -> bool:
        """Whether a candidate of the same kind that is not larger was too slow however it was stored."""
        own = self.plans[name].extractor

        def below(other: str) -> bool:
            plan = self.plans[other].extractor
            smaller = self.weights[other] <= self.weights[name] and plan.input_size <= own.input_size
            return plan.name == own.name and smaller

        return any(
            all(self.budget.broken(0, card["measured"]) for card in cards if card["name"] == other)
            for other in {card["name"] for card in cards if below(card["name"])}
        )

    def _card(self, name: str, chain: str, cards: Sequence[Record]) -> Record:
        plan, timed = self.plans[name], self.budget.needs_times
        known = [card for card in self.log.of("card") if (card["name"], card["chain"]) == (name, chain)]
        if known and (known[-1]["measured"] or not timed):
            return known[-1]
        for card in () if timed else cards:
            if (_network(self.plans[card["name"]]), card["chain"]) == (_network(plan), chain):
                return self.log.add("card", name=name, chain=chain, bytes=card["bytes"], measured={})
        network = self.networks.build(plan, self.table, None)
        prepared = self.networks.prepare(plan, self.sample, network, False)
        writer = self.networks.writer(plan, self.sample, network, prepared, self.device)
        with TemporaryDirectory() as folder:
            path = Path(folder) / MODEL
            writer.write(network, chain_of(chain, plan), path)
            measured = benchmark(path, seconds=0.5, threads=1) if timed else {}
            return self.log.add("card", name=name, chain=chain, bytes=path.stat().st_size, measured=measured)


def chain_of(text: str, plan: Recipe) -> Any:
    """The steps of a chain for the network of a recipe; none of float32.

    Raises:
        RecipeError: a step that this network cannot have.
    """
    return TASKS["boxes"].networks().find_chain(text, plan) if text else ()


def _from(chain: str) -> list[str]:
    """A way of storing and those that take fewer bytes."""
    chains = list(STORED)
    return chains[chains.index(chain) :]


def _network(plan: Recipe) -> Extractor:
    """What decides a file's bytes: the network, whatever the size of its input."""
    return replace(plan.extractor, input_size=(0, 0))
