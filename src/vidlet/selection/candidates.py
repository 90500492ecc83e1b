"""What is tried for a set of clips, by its features: probes of each cut, and the heads that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from ..recipe import load_recipe

Places = Mapping[str, tuple[int, tuple[int, ...]]]  # cut -> where its features begin in a frame's vector, their shape

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # of the penalty, in descending order
CLOSER = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-7)  # of least squares, which cost little
ORDERED = ("segments", "steps")
MOVES = "mean+deviation+change"
COURSE = "segments+steps+deviation+change"  # where a clip goes, and how much moves on the way: for many clips
LESS = "segments+deviation+change"  # the same without the way from stretch to stretch
DEEP = {"head": 0.006, "block16": 0.004, "block14": 0.002}  # of worth, that a cut must gain for its bytes and its time
VIDEO = "records-video"  # the recipe whose head is tried where records are many
BAG = "gated-netvlad-small"  # and where they are of frames
LARGE = 1000  # clips, from which on trained heads are the large ones


@dataclass(frozen=True)
class Candidate:
    """A head that may become a member: a probe, or one that is trained.

    Args:
        cuts: whose features it sees, side by side; they follow one another.
        options: of the head.
        copies: that the model gets of a head that is trained, each from another start; one is tried.
        kept: it is a member unless it is clearly behind, for it errs elsewhere than most.
    """

    name: str
    head: str
    cuts: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    copies: int = 1
    kept: bool = False

    @property
    def statistics(self) -> tuple[str, ...]:
        """Those of a probe."""
        return tuple(self.options["statistics"].split("+"))

    @property
    def ordered(self) -> bool:
        """Whether the order of the frames matters to it."""
        return self.head != "probe" or any(name in ORDERED for name in self.statistics)

    @property
    def price(self) -> float:
        """Of worth, for what its cut costs in the file and a frame."""
        return max(DEEP.get(cut, 0.0) for cut in self.cuts)

    def member(self, places: Places, weight: float = 1.0) -> dict[str, Any]:
        """It as a member of the head ``blend``."""
        begin, shape = place_of(places, self.cuts)
        whole = sum(_size(own) for _, own in places.values())
        part = {} if len(places) == 1 else {"begin": begin, "shape": list(shape)}
        assert part or whole == _size(shape)
        return {"head": self.head, "options": dict(self.options), **part, "weight": weight}


def place_of(places: Places, cuts: tuple[str, ...]) -> tuple[int, tuple[int, ...]]:
    """Where the features of some cuts begin, and their shape: that of one cut, or all numbers of several in a row."""
    if len(cuts) == 1:
        return places[cuts[0]]
    begin = min(places[cut][0] for cut in cuts)
    return begin, (sum(_size(places[cut][1]) for cut in cuts),)


def probe(cuts: str, statistics: str, **options: Any) -> Candidate:
    """A probe of one cut, or of several joined by "+"."""
    more = "".join(f" {value}" if isinstance(value, str) else f" {key} {value:g}" for key, value in options.items())
    return Candidate(
        f"{cuts} {statistics}{more}", "probe", tuple(cuts.split("+")), {"statistics": statistics} | options
    )


def probes_of_clips(places: Places, clips: int = 0) -> list[Candidate]:
    """The probes of a network's cuts: of its grids with and without order and position, and of pooled vectors."""
    course = [COURSE] if clips >= LARGE else []  # fewer clips choose it where it is worse (docs/lab-notes.md)
    grids = [cut for cut, (_, shape) in places.items() if len(shape) == 3]
    vectors = [cut for cut in places if cut not in grids]
    found = []
    for cut in reversed(grids):
        found += [probe(cut, "segments+steps"), probe(cut, "segments+steps", positions="mirrored")]
        found += [probe(cut, name, **seen) for name in course for seen in ({}, {"positions": "mirrored"})]
        found += [probe(cut, "middle"), probe(cut, MOVES), probe(cut, MOVES, positions="mirrored")]
        found += [probe(cut, f"{MOVES}+highest", positions="pooled")]
        found += [probe(cut, "deviation+change", positions="pooled")]
    for first, second in pairwise(grids):
        found += [probe(f"{first}+{second}", statistics) for statistics in ("segments+steps", "steps", *course)]
    for cut in vectors:
        found += [
            probe(cut, statistics)
            for statistics in (MOVES, "mean+deviation", "mean", "mean+highest", "middle+deviation+change")
        ]
        found.append(replace(probe(cut, "middle"), kept=True))  # the peak of an action, which a mean over time dilutes
        found += [probe(cut, "segments+steps"), probe(cut, "segments+deviation", segments=3)]
    return found


def light_probes(places: Places, clips: int) -> list[Candidate]:
    """Probes of grids with a third to two thirds of the weights of the best, for a file that must be small."""
    found = []
    for cut in (cut for cut, (_, shape) in places.items() if len(shape) == 3):
        found += [probe(cut, "segments+steps", segments=4, **seen) for seen in ({}, {"positions": "mirrored"})]
        if clips >= LARGE:
            found += [
                probe(cut, LESS),
                probe(cut, LESS, segments=4),
                probe(cut, LESS, segments=4, positions="mirrored"),
            ]
            found.append(probe(cut, COURSE, segments=4, positions="mirrored"))
    return found


def probes_of_records(places: Places, frames: float = 2.0) -> list[Candidate]:
    """The probes of stored features: components of very different size are whitened by a part, wholly, or not at all.

    Of frames and of whole videos' vectors the direction alone is tried, too, for their length says little of the class.

    Args:
        frames: in the median record; of one vector a record there is nothing but it.
    """
    found = []
    for cut in places:
        if frames <= 1:
            for whiten in (0.0, 0.3, 0.6, 1.0):
                found += [probe(cut, "mean", whiten=whiten), probe(cut, "mean", whiten=whiten, unit=True)]
            continue
        found += [probe(cut, "mean", whiten=whiten, unit=True) for whiten in (0.0, 0.3)]
        for whiten in (0.3, 0.6, 1.0):
            for statistics in ("mean", "mean+deviation", "mean+highest", "segments", "segments+deviation"):
                found.append(probe(cut, statistics, whiten=whiten))
            found.append(probe(cut, "segments", segments=4, whiten=whiten))
    return found


def trained_of_clips(places: Places, clips: int) -> list[Candidate]:
    """The recurrent heads of grids; those of few clips are small and see changes alone."""
    grids = [cut for cut, (_, shape) in places.items() if len(shape) == 3]
    if not grids:
        return []
    if clips < LARGE:
        cut = "block12" if "block12" in grids else grids[-1]
        return [Candidate(f"{cut} grid-gru", "grid-gru", (cut,), copies=2)]
    cut = grids[0]
    options = {"appearance": True, "project": 192, "hidden": 256, "dropout": 0.5}
    return [Candidate(f"{cut} grid-gru large", "grid-gru", (cut,), options)]


def trained_of_records(places: Places, frames: float) -> list[Candidate]:
    """The heads of stored features that are trained: a window where clips are short."""
    cut = next(iter(places))
    if frames > 32:
        return []
    return [Candidate(f"{cut} window", "window", (cut,), {"frames": max(2, round(frames)), "whiten": 0.5})]


def trained_of_many(places: Places, frames: float, unit: bool) -> list[Candidate]:
    """The heads that are tried on all records where these are many: a hidden layer, and of frames a bag of them.

    Args:
        frames: in the median record.
        unit: vectors are brought to one length first.
    """
    found = []
    for name in (VIDEO, BAG) if frames > 1 else (VIDEO,):
        head = load_recipe(name).head
        options = dict(head.options) | ({"unit": unit} if head.name == "pooled" else {})
        found.append(Candidate(f"{next(iter(places))} {name}", head.name, tuple(places), options))
    return found


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
