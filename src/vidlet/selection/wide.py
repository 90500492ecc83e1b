"""Thousands of records of many labels: a trained head against the best probe, on a part of all that neither saw.

The candidates were measured on a few hundred records, where classes are thousands, and there nothing that is trained
learns anything. With all records a hidden layer is ahead (docs/studies.md), which has to be measured with all records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..metrics import gap
from ..models.heads import build_head
from ..recipe import Head, Training
from ..training import ClipNetwork, FeatureClips, predict_logits, train_network
from ..training.classification import Moments
from .candidates import Candidate, Places, trained_of_many_labels
from .choose import Choice
from .decide import Decision, training_of
from .measure import Measured, accuracy_of, loss_of

TRIAL_SHARE = 0.5  # of the epochs and updates, for a head that is tried


def decide_widely(
    decision: Decision,
    clips: FeatureClips,
    held: np.ndarray,
    config: Training,
    moments: Moments,
    device: str = "cpu",
    folder: Path | None = None,
    identity: str = "",
) -> Decision:
    """The decision for many records of many labels: the best probe, a trained head, or the mean of both, by GAP@20.

    Args:
        decision: of some of the records; its best probe is held against what is trained.
        clips: all training records, dense.
        held: bool (N,), the records that are held out, of groups of their own.
        moments: of the records' features, (D,) each.
        folder: gets a checkpoint after each epoch of a head that is tried, from which the same ``identity`` goes on.
    """
    probe = min((m for m in decision.measured if m.candidate.head == "probe"), key=lambda m: m.loss).candidate
    trained = [m.candidate for m in decision.choice.members if m.candidate.head != "probe"]
    trained.append(trained_of_many_labels(decision.places))
    few = np.isfinite(decision.choice.probabilities[:, 0]).sum()  # more records need less of a penalty
    weaker = probe.options | {"strength": probe.options["strength"] * float(few / (~held).sum())}
    candidates = [*trained, replace(probe, options=weaker)]
    parts = clips.some(np.flatnonzero(~held)), clips.some(np.flatnonzero(held))
    measured = []
    for candidate in candidates:
        own = folder / candidate.head if folder is not None and candidate.head != "probe" else None
        measured.append(_measured(candidate, parts, decision.places, config, moments, device, own, identity))
    truth = parts[1].targets > 0.5
    *others, best = measured
    options = [(best,), *((other,) for other in others), *((other, best) for other in others)]
    members = max(options, key=lambda option: gap(_mean(option), truth))
    said = _mean(members)
    figures = accuracy_of(said, truth), loss_of(said, truth, True)
    choice = Choice(members, (1.0,) * len(members), *figures, 1.0, said, gap(said, truth))
    return Decision(choice, (*decision.measured, *measured), decision.places)


def _measured(
    candidate: Candidate,
    parts: tuple[FeatureClips, FeatureClips],
    places: Places,
    config: Training,
    moments: Moments,
    device: str,
    folder: Path | None,
    identity: str,
) -> Measured:
    """A candidate that learned one part of the records, on the other."""
    seen, own = parts
    torch.manual_seed(config.seed)
    head = build_head(
        Head(candidate.head, dict(candidate.options)), next(iter(places.values()))[1], own.targets.shape[1]
    )
    network = ClipNetwork(head)
    config = replace(config, **training_of([candidate], len(seen)))
    shorter = {key: round(TRIAL_SHARE * getattr(config, key)) for key in ("epochs", "least_updates")}
    config = replace(config, **shorter)
    train_network(
        network, seen, own, config, folder, identity, multi_label=True, resume=True, device=device, moments=moments,
        title=candidate.name,
    )  # fmt: skip
    said = 1 / (1 + np.exp(-predict_logits(network, own, config.batch).astype(np.float32)))
    truth = own.targets > 0.5
    return Measured(candidate, said, accuracy_of(said, truth), loss_of(said, truth, True), gap(said, truth))


def _mean(members: Sequence[Measured]) -> np.ndarray:
    mean: np.ndarray = np.mean([m.probabilities for m in members], axis=0)
    return mean
