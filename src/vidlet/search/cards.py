"""What each extractor costs before anything is trained: bytes and milliseconds of its file with a small untrained head.

Bytes and time follow from structure, not from weights' values. Bytes are counted; times are measured of a file. A
budget that nothing fits is refused here, at once.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..artifact import ArtifactNetwork, artifact_graph, artifact_metadata
from ..compression import find_chain, shrink_graph
from ..compression.kernels import MIN_ELEMENTS
from ..datasets import ClipTable
from ..files import atomic_path
from ..models import FrameExtractor, build_head
from ..runtime import benchmark, write_metadata
from .budget import Budget, quiet
from .course import EVIDENCE_BYTES, FIGURES
from .space import (
    ALONE,
    BLEND_SHARE,
    GRID,
    POOLED,
    STORAGES,
    TRAINS,
    Candidate,
    Space,
    Storage,
)

CLEAR = 0.05  # of a limit: what is nearer to it than that by the count of its bytes is written, to be sure
COUNTED = {  # chain: bytes of a large pointwise kernel's weight, of another's, of a channel, of a layer, of the rest
    "": (4.0, 4.0, 3.55, 509, 8_440),
    "int8+compact": (1.0, 1.0, 7.57, 419, 8_270),
    "head4+int8+compact": (1.0, 1.0, 7.55, 429, 9_150),
    "int4+compact": (0.539, 1.0, 7.40, 585, 8_260),
}

SMALLEST = Candidate("", 8.0, 8, 24, 24, False, 0.2, 0.0, 0.2, 2e-3)


def smallest(place: str, feature_shape: tuple[int, ...]) -> Candidate:
    """The smallest head on an extractor; on a vector one that pools."""
    return replace(SMALLEST, place=place, kind=GRID if len(feature_shape) == 3 else POOLED)


@dataclass(frozen=True)
class Card:
    """One extractor in one storage: what its file costs besides the head's weights."""

    place: str
    chain: str
    bytes: int
    measured: dict[str, Any]  # what ``benchmark`` found, the smallest head included; empty where nothing limits it


class Cards:
    """Costs of all extractors in all storages, and which candidates can keep a budget."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.of: dict[tuple[str, str], Card] = {}  # (place, chain) -> what was measured

    def add(self, place: str, feature_shape: tuple[int, ...], cards: Sequence[Card]) -> None:
        """Take what was measured of an extractor."""
        self.shapes[place] = feature_shape
        self.of |= {(card.place, card.chain): card for card in cards}

    def bytes(self, candidate: Candidate, storage: Storage) -> int:
        """About the bytes of a candidate's file."""
        head = storage.head_bytes(candidate.counted_head(self.shapes[candidate.place], self.classes))
        known = self.of[candidate.place, storage.stored].bytes
        if candidate.blended:
            head += candidate.graph_bytes + BLEND_SHARE * (known + head)
        return math.ceil(known + head)

    def storages(self, candidate: Candidate, budget: Budget) -> list[Storage]:
        """The storages in which a candidate is expected to keep a budget, the most promising first."""
        return [
            storage
            for storage in STORAGES
            if (
                storage.members == 1 or candidate.kind in (GRID, TRAINS)
            )  # linear: from another start it learns the same
            and self.keeps(candidate, storage, budget)
        ]

    def keeps(self, candidate: Candidate, storage: Storage, budget: Budget) -> bool:
        """Whether a candidate is expected to keep a budget in a storage."""
        card = self.of.get((candidate.place, storage.stored))
        return card is not None and not budget.broken(self.bytes(candidate, storage), card.measured)

    def possible(self, place: str, budget: Budget) -> bool:
        """Whether the smallest head on an extractor can keep a budget."""
        shape = self.shapes.get(place)  # none of what was not measured: it is behind what cannot
        return shape is not None and bool(self.storages(smallest(place, shape), budget))

    def nearest(self, budget: Budget) -> str:
        """What comes nearest to a budget that nothing can keep: the smallest file, and the fastest if times count."""
        files = [(smallest(*found), storage) for found in self.shapes.items() for storage in ALONE]
        size = min(files, key=lambda f: self.bytes(*f))
        told = f"the smallest is {size[0].place} {size[1].chain or 'float32'} with about {self.bytes(*size):,} bytes"
        timed = [f for f in files if self.of[f[0].place, f[1].chain].measured]  # none where the bytes are too many
        if not budget.needs_times or not timed:
            return told
        fast = min(timed, key=lambda f: budget.latency_ms(self.of[f[0].place, f[1].chain].measured))
        ms = budget.latency_ms(self.of[fast[0].place, fast[1].chain].measured)
        return (
            f"{told}, the fastest {fast[0].place} {fast[1].chain or 'float32'} with {ms:.2f} ms a {budget.latency[0]}"
        )


def counted_cards(place: str, extractor: FrameExtractor, labels: Sequence[str]) -> list[Card]:
    """The bytes that ``make_cards`` would find, counted: within 1 % for the pretrained networks of the ladder.

    An untrained one has up to 4,000 bytes less: its biases are zeros.
    """
    kernels = [p for p in extractor.parameters() if p.ndim > 1]
    large = sum(p.numel() for p in kernels if p.numel() >= MIN_ELEMENTS and p.numel() == p.shape[0] * p.shape[1])
    others = sum(p.numel() for p in kernels) - large
    names = sum(len(json.dumps(label)) + 2 for label in labels)
    counted = (large, others, sum(p.shape[0] for p in kernels), len(kernels), 1)
    return [Card(place, chain, round(np.dot(counted, each)) + names, {}) for chain, each in COUNTED.items()]


def make_cards(
    space: Space,
    table: ClipTable,
    extractor: FrameExtractor,
    place: str,
    samples: Sequence[np.ndarray],
    timed: bool,
) -> list[Card]:
    """Write an extractor with the smallest head, untrained, in each storage; measure the files, and forget them.

    Args:
        samples: a few clips' frames uint8 (T, H, W, 3): what ranges are calibrated on does not change what they cost.
        timed: measure milliseconds and memory too, which takes a process and a second a file.
    """
    candidate = replace(smallest(place, extractor.feature_shape), hz=min(space.rates_hz))
    recipe = space.recipe(candidate, "card", [storage.chain for storage in ALONE])
    torch.manual_seed(0)
    head = build_head(recipe.head, extractor.feature_shape, len(table.labels))
    graph = artifact_graph(ArtifactNetwork(extractor, head), extractor.input_size)
    metadata = artifact_metadata(recipe, table.labels, 1.0, extractor.provenance, 1.0)
    cards = []
    with tempfile.TemporaryDirectory() as folder:
        for storage in ALONE:
            small = shrink_graph(find_chain(storage.chain) if storage.chain else (), graph, samples)
            path = Path(folder) / "card.onnx"
            with atomic_path(path) as draft:
                draft.write_bytes(small.SerializeToString(deterministic=True))
                write_metadata(draft, metadata)
            size = path.stat().st_size + EVIDENCE_BYTES - round(storage.head_bytes(head))
            measured = benchmark(path, seconds=0.6, threads=1) if timed else {}
            kept = quiet({key: measured[key] for key in FIGURES if timed})
            cards.append(Card(place, storage.chain, size, kept))
    return cards
