"""What the search chooses from: where the extractor is cut, how often it looks, and the head on it.

A candidate is data. Its bytes follow from its structure before it is trained: those of its extractor are measured
once for each way of storing weights, those of the head are counted.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from typing import Any, Protocol

import torch

from ..compression import CLIP_STEPS, chain_text, find_chain, split_chain
from ..models import build_head
from ..models.head import Head
from ..models.mobilenets import MobileNetV1, MobileNetV2
from ..recipe import Averaging, Extractor, Recipe, Sampling, Training, recipe_from_dict, recipe_to_dict
from ..recipe import Head as HeadRecipe


def cuts_of(
    name: str = "mobilenetv2",
    width: float = 1.0,
    weights: str = "imagenet",
    size: int = 224,
    cuts: Sequence[str] = ("block1", "block3", "block6", "block10", "block12", "block14", "block16"),
    grid: int = 4,
) -> tuple[Extractor, ...]:
    """The extractors that are cuts of one network, from the shallowest, at one size of its square input.

    The last block's 320 maps of 7 x 7 become a grid of half the side: postures are told there, not places. A grid is
    never finer than the map: of 96 pixels, block14 leaves 3 x 3.
    """
    sides = {cut: min(grid // 2 if cut == "block16" else grid, size_of_map(name, cut, size)) for cut in cuts}
    return tuple(Extractor(name, width, (size, size), cut, sides[cut], weights) for cut in cuts)


@cache
def size_of_map(name: str, cut: str, size: int) -> int:
    """Side of the map that a built-in network leaves at a cut, of pictures of ``size`` x ``size`` pixels."""
    with torch.device("meta"):  # the sides follow from the strides; no weights are needed
        network = MobileNetV1(1.0, cut) if name == "mobilenetv1" else MobileNetV2(1.0, cut)
    return min(network.map_size(size, size))


def place_of(extractor: Extractor) -> str:
    """An extractor in a few words: its key wherever candidates name one."""
    width = "" if extractor.width == 1 else f"-{extractor.width:g}"
    return f"{extractor.name}{width} {extractor.cut} {extractor.input_size[0]} px"


GRID, TRAINS, POOLED = "grid-gru", "tt-grid-gru", "pooled"
LINEAR, AUTO, TUNED = "linear", "auto", "tuned"  # kinds that come with a recipe of their own


@dataclass(frozen=True)
class Candidate:
    """A head on an extractor, and how it is trained.

    ``kind``: "grid-gru", the order of what changes on a grid; "tt-grid-gru", the same with its matrices as tensor
    trains of ``rank``; "pooled", a linear classifier of the mean and the deviation over time of every number of the
    grid, for actions that postures tell. What a kind does not have is 0. "auto", what ``train`` chooses without a
    recipe, "linear", a plain classifier, and "tuned", extractor and head trained end to end, come with their recipe, as
    JSON in ``recipe``.
    """

    place: str  # of the extractor (``place_of``)
    hz: float
    channels: int
    project: int
    hidden: int
    appearance: bool
    dropout: float
    mixup: float
    noise: float
    lr: float
    kind: str = GRID
    rank: int = 0
    recipe: str = ""

    @classmethod
    def listed(cls, place: str, plan: Recipe, kind: str) -> Candidate:
        """The candidate of a recipe whose extractor's deepest cut is ``place``."""
        text = json.dumps(recipe_to_dict(plan), sort_keys=True)
        return cls(place, plan.sampling.hz, 0, 0, 0, False, 0.0, 0.0, 0.0, 0.0, kind, recipe=text)

    @property
    def plan(self) -> Recipe:
        """The recipe that it came with."""
        return recipe_from_dict(json.loads(self.recipe))

    @property
    def key(self) -> str:
        """A short name of its own."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    @property
    def head(self) -> HeadRecipe:
        """Its head, as a recipe names it."""
        if self.recipe:
            return self.plan.head
        if self.kind == POOLED:
            return HeadRecipe(POOLED, {"deviation": True, "top": 0, "experts": 0, "dropout": self.dropout})
        names = ("channels", "project", "hidden", "appearance", "dropout")
        ranks = {"ranks": [self.rank]} if self.kind == TRAINS else {}
        return HeadRecipe(self.kind, {name: getattr(self, name) for name in names} | ranks)

    @property
    def blended(self) -> Sequence[dict[str, Any]]:
        """The members of the head, where it blends some."""
        found: Sequence[dict[str, Any]] = self.head.options.get("members", ()) if self.recipe else ()
        return found

    @property
    def is_trained(self) -> bool:
        """Whether what came with its recipe has parts that are trained, not solved."""
        return self.kind == TUNED or any(part["head"] != "probe" for part in self.blended)

    @property
    def graph_bytes(self) -> int:
        """Of the graph of a head that blends members, beside its weights."""
        probes = [part["options"]["statistics"] for part in self.blended if part["head"] == "probe"]
        others = len(self.blended) - len(probes)
        return STATISTIC_BYTES * sum(len(names.split("+")) for names in probes) + MEMBER_BYTES * others

    def counted_head(self, feature_shape: tuple[int, ...], classes: int) -> Head:
        """Its head without memory for its weights: for counting; ``feature_shape`` is that of its place."""
        parts = self.blended
        if any("begin" in part for part in parts):  # of several cuts, whose features lie side by side
            feature_shape = (max(part["begin"] + math.prod(part["shape"]) for part in parts),)
        return _counted_head(self, feature_shape, classes)

    def describe(self) -> str:
        """What it is, in a few words."""
        if self.recipe:
            return self.plan.name
        if self.kind == POOLED:
            return f"{self.place} {self.hz:g} Hz, mean and deviation"
        seen = "map and changes" if self.appearance else "changes"
        trains = f" in trains of rank {self.rank}" if self.kind == TRAINS else ""
        return f"{self.place} {self.hz:g} Hz, {seen}, {self.channels}-{self.project}-{self.hidden}{trains}"


@lru_cache(maxsize=256)
def _counted_head(candidate: Candidate, feature_shape: tuple[int, ...], classes: int) -> Head:
    with torch.device("meta"):
        return build_head(candidate.head, feature_shape, classes)


@dataclass(frozen=True)
class Space:
    """The values that each part of a candidate may take, what all candidates share, and how they are drawn.

    ``rounds`` are shares of ``epochs``: how long a trial of each round trains. ``sampler``: "tpe", or "random", the
    baseline that begins nowhere and learns nothing. ``kinds``: of heads. ``begin``: those that are tried first, from
    the extractors about ``center`` (0: the first of the list, 1: the last). ``mixups``, ``noises``: of the
    augmentation, the first for the default head; short trials favor less of it than long training wants, so where
    trials are short there is nothing to choose.
    """

    extractors: tuple[Extractor, ...] = field(default_factory=cuts_of)
    rates_hz: tuple[float, ...] = (8.0, 16.0)
    epochs: int = 30
    batch: int = 16
    seed: int = 0
    rounds: tuple[float, ...] = (1 / 6, 1 / 2)
    sampler: str = "tpe"
    kinds: tuple[str, ...] = (GRID, TRAINS, POOLED)
    begin: tuple[str, ...] = ("large", "medium", "default", "pooled", "small", "tiny", "fast", "trains", "least")
    center: float = 0.5
    mixups: tuple[float, ...] = (0.0, 0.3)
    noises: tuple[float, ...] = (0.2, 0.5)

    @property
    def places(self) -> tuple[str, ...]:
        """The key of each extractor that heads are drawn for: those that leave a grid."""
        return tuple(place_of(plan) for plan in self.extractors if plan.grid)

    def extractor(self, place: str) -> Extractor:
        """The extractor of that key."""
        return next(plan for plan in self.extractors if place_of(plan) == place)

    def recipe(self, candidate: Candidate, name: str, chains: Sequence[str] = (), epochs: int | None = None) -> Recipe:
        """The recipe that makes a candidate."""
        if candidate.recipe:
            return replace(candidate.plan, name=name, compress=tuple(chains))
        return Recipe(
            name,
            Sampling("rate", hz=candidate.hz),
            self.extractor(candidate.place),
            candidate.head,
            Training(
                epochs=epochs or self.epochs,
                batch=self.batch,
                lr=candidate.lr,
                label_smoothing=0.1,
                averaging=Averaging(0.98),
                seed=self.seed,
                augment={"speed": 0.2, "crop": 0.15, "noise": candidate.noise, "mixup": candidate.mixup},
            ),
            tuple(chains),
        )


class Chooser(Protocol):
    """What draws values: an Optuna trial, or a table of fixed values."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        ...


def draw(space: Space, trial: Chooser) -> Candidate:
    """A candidate of the space, drawn by ``trial``: its kind, what all kinds have, and what its own has."""
    kind = trial.suggest_categorical("kind", space.kinds)
    common = {
        "place": trial.suggest_categorical("place", space.places),
        "hz": trial.suggest_categorical("hz", space.rates_hz),
        "dropout": trial.suggest_categorical("dropout", (0.2, 0.35, 0.5)),
        "mixup": trial.suggest_categorical("mixup", space.mixups),
        "noise": trial.suggest_categorical("noise", space.noises),
        "lr": trial.suggest_categorical("lr", (1e-3, 2e-3, 4e-3)),
    }
    if kind == POOLED:
        return Candidate(**common, channels=0, project=0, hidden=0, appearance=False, kind=kind)
    return Candidate(
        **common,
        channels=trial.suggest_categorical("channels", (8, 16, 24, 32, 48)),
        project=trial.suggest_categorical("project", (24, 32, 48, 64, 96, 128, 192)),
        hidden=trial.suggest_categorical("hidden", (24, 32, 48, 64, 96, 128, 192, 256)),
        appearance=trial.suggest_categorical("appearance", (False, True)),
        kind=kind,
        rank=trial.suggest_categorical("rank", (4, 8, 16)) if kind == TRAINS else 0,
    )


STATISTIC_BYTES = 1000  # of the graph of each statistic of a probe: 700 to 1,000 were seen
BLEND_SHARE = 0.003  # of the file of a blend, that is not counted else
MEMBER_BYTES = 4600  # of the graph of one head more: 2,900 to 4,450 were seen
DISTILLED, PRUNED = "distill", "units"
PRUNED_SHARE = 0.5  # of a head's units
PRUNED_COST = 0.01  # accuracy that removing them is expected to cost


@dataclass(frozen=True)
class Storage:
    """A way to write a model: a chain of steps, and the bits of the head's weights in it.

    ``members``: so many heads, trained from other starts on the same extractor, give the mean of their probabilities.
    """

    chain: str  # "" is float32
    head_bits: float
    penalty: float  # accuracy that it is expected to cost, before a file of it was measured
    members: int = 1
    kept: float = 1.0  # of the head's bytes, at most, after units were removed

    def distilled(self) -> Storage:
        """The same with the network tuned on its own answers before: no byte more."""
        return replace(self, chain="+".join(filter(None, [DISTILLED, self.chain])))

    def pruned(self) -> Storage:
        """The same of a head that lost the half of its units that the loss misses least, tuned after."""
        chain = "+".join(filter(None, [f"{PRUNED}:{PRUNED_SHARE:g}", self.chain]))
        return replace(self, chain=chain, penalty=self.penalty + PRUNED_COST, kept=1 - PRUNED_SHARE)

    @property
    def trainings(self) -> int:
        """How often a head is trained for it."""
        return self.members + (DISTILLED in self.chain) + (PRUNED in self.chain)

    @property
    def stored(self) -> str:
        """The chain without its steps of training: what the bytes and the time of the extractor follow from."""
        return chain_text(split_chain(find_chain(self.chain), CLIP_STEPS)[1]) if self.chain else ""

    def head_bytes(self, head: Head) -> float:
        """Bytes of the weights of all members: matrices in ``head_bits``, with scales; vectors in 32 bits.

        What is no parameter, as means and gains, is computed with element by element: it is never stored in fewer bits.
        """
        total = sum(4.0 * buffer.numel() for buffer in head.buffers())
        for parameter in head.parameters():
            large = parameter.ndim > 1 and parameter.numel() >= 1024 and self.head_bits < 32
            rows = parameter.shape[0] if large and self.head_bits == 8 else 0
            total += parameter.numel() * (self.head_bits if large else 32) / 8 + 4 * rows
        return total * self.members * self.kept + MEMBER_BYTES * (self.members - 1)


COSTS = {"int8": 0.002, "head4": 0.003, "int4": 0.01, PRUNED: PRUNED_COST}  # of accuracy, as seen (docs/lab-notes.md)
GAINS = {2: 0.02, 3: 0.03}  # what so many heads were seen to gain over one


def known_cost(chain: str) -> float:
    """What the steps of a chain of which that is known cost in accuracy, negative where they gain."""
    steps = find_chain(chain) if chain else ()
    gained = sum(GAINS.get(int(step.amount or 0), 0.0) for step in steps if step.name == "ensemble")
    return math.fsum(COSTS.get(step.name, 0.0) for step in steps) - gained


def is_known(chain: str) -> bool:
    """Whether of every step of a chain it is known what it costs; of ``distill``, for one, nothing is."""
    steps = find_chain(chain) if chain else ()
    return all(step.name in (*COSTS, "ensemble") or CLIP_STEPS[step.name].lossless for step in steps)


def _storage(chain: str, head_bits: float, members: int = 1) -> Storage:
    return Storage(chain, head_bits, known_cost(chain), members)


ALONE = (
    _storage("", 32),
    _storage("int8+compact", 8),
    _storage("head4+int8+compact", 4.5),  # a block of 32 codes shares a float16 scale
    _storage("int4+compact", 4.5),
)
TOGETHER = tuple(
    _storage(f"ensemble:{members}+{storage.chain}", storage.head_bits, members)
    for storage in ALONE[1:]
    for members in GAINS
)
STORAGES = tuple(sorted((*ALONE, *TOGETHER), key=lambda storage: storage.penalty))


def first_candidates(space: Space) -> list[Candidate]:
    """Where a search begins: several heads on each extractor; those named first, and nearer the center, first.

    Heads that pool begin at the last extractor.
    """
    fast, slow = max(space.rates_hz), min(space.rates_hz)
    default = Candidate("", slow, 32, 96, 128, False, 0.2, space.mixups[0], space.noises[0], 2e-3)
    large = Candidate("", slow, 32, 192, 256, True, 0.5, space.mixups[-1], space.noises[-1], 2e-3)
    small = replace(large, channels=16, project=64, hidden=64, dropout=0.35)
    heads = {
        "default": default,
        "large": large,
        "medium": replace(large, project=96, hidden=128, dropout=0.35),
        "small": small,
        "tiny": replace(large, channels=8, project=32, hidden=48, dropout=0.2, mixup=space.mixups[0]),
        "fast": replace(small, hz=fast),  # twice the time of training: what is large does not begin so
        "least": replace(default, channels=16, project=32, hidden=32),
        "trains": replace(default, kind=TRAINS, rank=8),
        "pooled": replace(default, channels=0, project=0, hidden=0, dropout=0.5, kind=POOLED),
    }
    middle = (len(space.places) - 1) * space.center
    near = sorted(space.places, key=lambda place: abs(space.places.index(place) - middle))
    deep = list(reversed(space.places))  # what postures tell is found there
    ranked = [
        (i + j, replace(heads[name], place=place))
        for j, name in enumerate(space.begin)
        if heads[name].kind in space.kinds
        for i, place in enumerate(deep if name == "pooled" else near)
    ]
    return list(dict.fromkeys(candidate for _, candidate in sorted(ranked, key=lambda pair: pair[0])))
