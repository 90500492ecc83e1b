"""The decision of ``auto``: measure all candidates on the training clips, choose, and say it as a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..models.head import flat_size
from ..recipe import Head, Recipe, load_recipe
from ..training.classification import Moments
from .candidates import (
    BAG,
    LARGE,
    MOVES,
    VIDEO,
    Candidate,
    Places,
    probe,
    probes_of_clips,
    probes_of_records,
    trained_of_clips,
    trained_of_records,
)
from .choose import Choice, choose, judged_without, order_matters, worth
from .measure import Measured, Pool, measure_probes, measure_trained

FOLDS = ((150, 5), (400, 3))  # up to so many clips trained heads are tried on so many folds; above, on one
LEARNED = (  # of the training of a recipe whose head is tried
    "epochs", "least_updates", "batch", "lr", "schedule", "weight_decay", "clip_norm", "class_weights", "averaging",
)  # fmt: skip
UPDATES = 12_000  # of a head that is trained, at most: those of 4,800 clips in 40 epochs


@dataclass(frozen=True)
class Decision:
    """What was chosen, and all that was tried."""

    choice: Choice
    measured: tuple[Measured, ...]
    places: Places

    def findings(self) -> dict[str, Any]:
        """It in metrics.json: the members, how good they are together, and each candidate."""
        return {
            "chosen": [m.candidate.name for m in self.choice.members],
            "weights": list(self.choice.weights),
            "accuracy": self.choice.accuracy,
            "loss": self.choice.loss,
            "temperature": self.choice.temperature,
            **({} if self.choice.gap20 is None else {"gap20": self.choice.gap20}),
            "candidates": [m.row() for m in self.measured],
        }

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts that the members see, in the network's order."""
        wanted = {cut for m in self.choice.members for cut in m.candidate.cuts}
        return tuple(cut for cut in self.places if cut in wanted)

    def own_places(self) -> Places:
        """Where the features of each chosen cut lie where there are no others."""
        begin, found = 0, {}
        for cut in self.cuts:
            shape = self.places[cut][1]
            found[cut] = (begin, shape)
            begin += flat_size(shape)
        return found

    def columns(self) -> np.ndarray:
        """Which numbers of a frame's features the chosen cuts are."""
        parts = [np.arange(flat_size(self.places[cut][1])) + self.places[cut][0] for cut in self.cuts]
        return np.concatenate(parts)

    def recipe(self, plan: Recipe, multi_label: bool, training: Mapping[str, Any]) -> Recipe:
        """The recipe that makes the chosen model again; ``training`` is what the trained members need."""
        places = self.own_places()
        members = []
        for m, weight in zip(self.choice.members, self.choice.weights, strict=True):
            copies = m.candidate.copies
            members += [m.candidate.member(places, weight / copies) for _ in range(copies)]
        head = Head(
            "blend",
            {
                "members": members,
                "multi_label": multi_label,
                "temperature": float(self.choice.temperature),
            },
        )
        extractor = plan.extractor
        if extractor.name != "features":
            grids = {cut: shape[1] if len(shape) == 3 else 0 for cut, (_, shape) in places.items()}
            if len(grids) == 1:
                (cut, grid), *_ = grids.items()
                extractor = replace(extractor, cut=cut, grid=grid)
            else:
                extractor = replace(extractor, cut="+".join(f"{c}/{g}" for c, g in grids.items()), grid=0)
        return replace(plan, extractor=extractor, head=head, training=replace(plan.training, **training))


def decide(
    pool: Pool,
    plan: Recipe,
    moments: Moments,
    *,
    records: bool = False,
    frames: float = 0.0,
    device: str = "cpu",
    report: Callable[[str, int, int], None] | None = None,
) -> Decision:
    """Measure the candidates for a set of clips and choose.

    Heads that are trained are tried where the order of the frames matters, for that is what they know; probes tell.

    Args:
        moments: of all cuts' features, (D,) each.
        records: the features are stored ones.
        frames: in the median clip.
        report: called with (what is measured, done, of how many).
    """
    probes = probes_of_records(pool.places, frames) if records else probes_of_clips(pool.places, len(pool.targets))

    def told(what: str) -> Callable[[int, int], None] | None:
        return (lambda done, total: report(what, done, total)) if report else None

    measured = measure_probes(pool, probes, told("probes"))
    if order_matters(measured):
        clips = len(pool.targets)
        trained = trained_of_records(pool.places, frames) if records else trained_of_clips(pool.places, clips)
        for candidate in trained:
            config = replace(plan.training, **training_of([candidate], clips))
            folds = next((folds for most, folds in FOLDS if clips <= most), 1)
            what = f"{candidate.name}, {folds} folds"
            measured.append(measure_trained(pool, candidate, config, moments, folds, device, told(what)))
    choice = choose(measured, pool.targets, pool.multi_label)
    judged = judged_without(choice, measured, pool.targets, pool.held, pool.multi_label)
    return Decision(judged, tuple(measured), pool.places)


def worth_of_looks(pool: Pool) -> float:
    """How well a few probes tell clips apart that have not been seen: in order, and by how much moves."""
    grids = [cut for cut, (_, shape) in pool.places.items() if len(shape) == 3]
    looks = [probe(cut, "segments+steps", positions="mirrored") for cut in grids[len(grids) // 2 :][:1]]
    looks += [probe(cut, MOVES) for cut in list(pool.places)[-1:]]
    return max(worth(m.probabilities, pool.targets, pool.multi_label) for m in measure_probes(pool, looks))


def training_of(candidates: Sequence[Candidate], clips: int) -> dict[str, Any]:
    """How the heads among some candidates are trained, as keys of the recipe's ``training``; updates are bounded."""
    heads = {candidate.head for candidate in candidates} - {"probe"}
    for name, recipe in (("pooled", VIDEO), ("netvlad", BAG)):
        if name in heads:
            own = load_recipe(recipe).training
            return {key: getattr(own, key) for key in LEARNED} | {"augment": {}}
    if "window" in heads:
        return {"optimizer": "sgd", "lr": 3e-2, "weight_decay": 2e-2, "epochs": _epochs(25, clips, 32), "batch": 32,
                "class_weights": False, "augment": {"speed": 0.2, "mixup": 0.3}}  # fmt: skip
    if "grid-gru" in heads and clips >= LARGE:
        return {
            "epochs": _epochs(40, clips, 16),
            "label_smoothing": 0.1,
            "augment": {"speed": 0.2, "crop": 0.15, "noise": 0.5, "mixup": 0.3},
        }
    return {}


def _epochs(wanted: int, clips: int, batch: int) -> int:
    """Epochs, of very many clips fewer: as many as ``UPDATES`` are."""
    return max(1, min(wanted, round(UPDATES * batch / clips)))
