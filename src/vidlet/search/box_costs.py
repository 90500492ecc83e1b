"""The detectors of a search, and what each costs before anything is trained: bytes and milliseconds of its file.

A budget that nothing fits is refused here, at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..datasets import BoxTable
from ..errors import RecipeError, WeightsError
from ..progress import say, working
from ..published import find_weights
from ..recipe import Extractor, Recipe, load_recipe
from ..runs import MODEL
from ..runtime import benchmark
from ..tasks import TASKS
from .course import EVIDENCE_BYTES, Course, Trainings
from .trials import Record

NETWORKS: dict[str, tuple[str, tuple[Any, ...]]] = {  # built-in recipe: what is varied of its extractor, and its values
    "mobilenetv2-boxes": ("cut", ("block6", "block10", "block12")),
    "tiny-yolov2": ("width", (0.1, 0.16, 0.24, 0.35, 0.5)),
}
SIZES = (224, 320, 160)  # of the square input, in the order in which they are tried
STORED: dict[str, int] = {"": 4, "half": 2, "int8": 1}  # chain: bytes of a weight; the largest loses the least
GRAPH_BYTES = 250_000  # of a file, beside its weights, at most: 10,000 to 180,000 were seen
SAMPLE = {"train": 16, "val": 4}  # images that costs and paces are measured with


def box_recipes(
    seed: int = 0,
    networks: Mapping[str, tuple[str, tuple[Any, ...]]] = NETWORKS,
    sizes: tuple[int, ...] = SIZES,
    training: Mapping[str, Any] | None = None,
) -> list[Recipe]:
    """The candidates: two networks at several widths or cuts, which the pretrained one has, and input sizes.

    Those whose pretrained weights cannot be had are left out, which is said.

    Args:
        training: values of the recipes' section of that name.
    """
    found = []
    for name, (key, values) in networks.items():
        try:
            if (weights := load_recipe(name).extractor.weights) != "none":
                find_weights(weights)
        except WeightsError as error:
            say(f"{name} is left out of the search: {error}")
            continue
        told = {"head.options": {"anchors": 5}, "compress": [], "training.seed": seed}
        told |= {f"training.{part}": value for part, value in (training or {}).items()}
        for value in values:
            for size in sizes:
                plan = load_recipe(name, {**told, f"extractor.{key}": value, "extractor.input_size": [size, size]})
                label = f"{value:g}" if isinstance(value, float) else value
                found.append(replace(plan, name=f"{name}-{label}-{size}"))
    return found


def chain_of(text: str, plan: Recipe) -> Any:
    """The steps of a chain for the network of a recipe; none of float32.

    Raises:
        RecipeError: a step that this network cannot have.
    """
    return TASKS["boxes"].networks().find_chain(text, plan) if text else ()


class BoxCosts:
    """What the candidates of a search cost, as far as the time for that lasts.

    Attributes:
        weights: how many each candidate has.
        able: those that can keep the budget, each with the chains in which it does, the largest file first.
    """

    def __init__(self, course: Course[Any], trainings: Trainings, table: BoxTable) -> None:
        self.course, self.asked, self.table = course, course.asked, table
        self.plans, self.networks = trainings.plans, trainings.networks
        parts = [(table.of_split(split), count) for split, count in SAMPLE.items()]
        self.sample = table.with_images(image for part, count in parts for image in part.images[:count])
        self.weights: dict[str, int] = {}
        self.able: dict[str, list[str]] = {}

    def measure(self) -> None:
        """Find the candidates that can keep the budget.

        Raises:
            RecipeError: none can; it names the smallest, and the fastest where time is limited.
        """
        with working("measure what detectors cost"):
            cards = self._cards()
        for card in cards:
            if not self._broken(card):
                self.able.setdefault(card["name"], []).append(card["chain"])
        if not self.able:
            raise RecipeError(f"no detector of the search fits {self.asked.budget.describe()}: {self._nearest(cards)}")
        say(
            f"search: {self.asked.budget.describe()}; {len(self.able)} detectors can keep it; judged on "
            f"{self.course.judged_on}"
        )

    def _broken(self, card: Record) -> list[str]:
        return self.asked.budget.broken(card["bytes"] + EVIDENCE_BYTES, card["measured"])

    def _nearest(self, cards: Sequence[Record]) -> str:
        def said(card: Record) -> str:
            return f"{card['name']} in {card['chain'] or 'float32'}"

        budget = self.asked.budget
        small = min(cards, key=lambda card: int(card["bytes"]))
        parts = [f"the smallest, {said(small)}, has {small['bytes'] + EVIDENCE_BYTES:,} bytes"]
        timed = [card for card in cards if card["measured"]]
        if timed and budget.max_latency_ms is not None:
            fast = min(timed, key=lambda card: budget.latency_ms(card["measured"]))
            took = f"{budget.latency_ms(fast['measured']):.2f} ms a {budget.latency[0]}"
            parts.append(f"the fastest, {said(fast)}, takes {took} ({budget.latency[1]})")
        if timed and budget.max_memory_bytes is not None:
            lean = min(timed, key=lambda card: int(card["measured"]["peak_rss_bytes"]))
            parts.append(f"{said(lean)} takes the least memory, {lean['measured']['peak_rss_bytes']:,} bytes")
        return "; ".join(parts)

    def _cards(self) -> list[Record]:
        """What untrained files cost, from the smallest network, as far as the time for costs goes.

        Bytes are counted; a file is written where the count leaves open whether it fits, and where times are limited:
        of the smallest network in every storage, of the others in the one that was the quickest there of those that are
        small enough. What is larger than a candidate of its kind that is too slow is not written. Where all are too
        large, the smallest is.
        """
        budget, timed = self.asked.budget, self.asked.budget.needs_times
        counted: dict[Extractor, int] = {}
        for name, plan in self.plans.items():
            if (key := _network(plan)) not in counted:
                network = self.networks.build(plan, self.table, None)
                counted[key] = sum(parameter.numel() for parameter in network.detector.parameters())
            self.weights[name] = counted[key]

        def cost(name: str) -> tuple[int, int]:
            return self.weights[name], math.prod(self.plans[name].extractor.input_size)

        cards: list[Record] = []
        chains, quickest_first, left_out = list(STORED), False, 0
        for name in sorted(self.plans, key=cost):
            if timed and self._too_slow(name, cards):
                continue
            if timed and self.asked.costs_over and not all(map(self._broken, cards)):
                left_out += 1
                continue
            able = [chain for chain in chains if not budget.broken(self.weights[name] * STORED[chain])]
            for chain in able[:1] if quickest_first else able:
                least = self.weights[name] * STORED[chain]
                card = {"name": name, "chain": chain, "bytes": least + GRAPH_BYTES, "measured": {}}
                cards.append(self._card(name, chain) if timed or self._broken(card) else card)
            if timed and cards and not quickest_first:
                took = {card["chain"]: float(card["measured"]["frame_ms"]["p50"]) for card in cards}
                chains, quickest_first = sorted(took, key=took.__getitem__), True
        if left_out:
            self.course.missed.append(f"what {left_out} detectors cost was not measured")
        if not cards:
            cards.append(self._card(min(self.plans, key=cost), min(STORED, key=STORED.__getitem__)))
        return cards

    def _too_slow(self, name: str, cards: Sequence[Record]) -> bool:
        """Whether a candidate of the same kind that is not larger was too slow however it was stored."""
        own = self.plans[name].extractor

        def below(other: str) -> bool:
            plan = self.plans[other].extractor
            smaller = self.weights[other] <= self.weights[name] and plan.input_size <= own.input_size
            return plan.name == own.name and smaller

        return any(
            all(self.asked.budget.broken(0, card["measured"]) for card in cards if card["name"] == other)
            for other in {card["name"] for card in cards if below(card["name"])}
        )

    def _card(self, name: str, chain: str) -> Record:
        """What an untrained file costs, by writing it; all of it stands in the log."""
        plan, timed, log = self.plans[name], self.asked.budget.needs_times, self.course.log
        known = [card for card in log.of("card") if (card["name"], card["chain"]) == (name, chain)]
        if known and (known[-1]["measured"] or not timed):
            return known[-1]
        for card in () if timed else log.of("card"):  # the size of the input moves the bytes by some hundred
            if (_network(self.plans[card["name"]]), card["chain"]) == (_network(plan), chain):
                return log.add("card", name=name, chain=chain, bytes=card["bytes"], measured={})
        network = self.networks.build(plan, self.table, None)
        prepared = self.networks.prepare(plan, self.sample, network, False)
        writer = self.networks.writer(plan, self.sample, network, prepared, self.asked.device)
        with TemporaryDirectory() as folder:
            path = Path(folder) / MODEL
            writer.write(network, chain_of(chain, plan), path)
            measured = benchmark(path, seconds=0.5, threads=1) if timed else {}
            return log.add("card", name=name, chain=chain, bytes=path.stat().st_size, measured=measured)


def _network(plan: Recipe) -> Extractor:
    """What decides a file's bytes: the network, whatever the size of its input."""
    return replace(plan.extractor, input_size=(0, 0))
