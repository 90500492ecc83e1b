"""Thousands of records: probes and trained heads that saw most of them, on a part of all that none of them saw.

The candidates were measured on some hundreds of records. With all of them a weaker penalty is best, and a hidden layer
is ahead where classes are many (docs/studies.md), which has to be measured with all records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..metrics import gap
from ..models.heads import build_head
from ..models.probe import Probe
from ..progress import bar
from ..recipe import Head, Training
from ..training import ClipNetwork, FeatureClips, predict_logits, train_network
from ..training.classification import Moments
from ..training.probes import Ground, ground_of, logistic_weights, squares_of
from .candidates import CLOSER, STRENGTHS, Candidate, Places, trained_of_many
from .choose import choice_of, mean_of, worth
from .decide import Decision, training_of
from .measure import (
    FACTORS,
    WATCHED,
    Measured,
    accuracy_of,
    evenings,
    loss_of,
    said_by,
    sharpness_of,
    squares_options,
)

TRIAL_SHARE = 0.5  # of the epochs and updates, for a head that is tried
LOWER = 5e-3  # below the highest, at which weaker penalties are no longer tried
SOLVED = ("strength", "sharpness", "squares", "alike")  # options that a solution chooses
QUICK = 2e8  # records times coordinates times classes, up to which cross-entropy takes seconds


def decide_widely(
    decision: Decision,
    clips: FeatureClips,
    held: np.ndarray,
    config: Training,
    moments: Moments,
    multi_label: bool,
    frames: float,
    device: str = "cpu",
    folder: Path | None = None,
    identity: str = "",
) -> Decision:
    """The decision for many records: the best probe, what was chosen of some, a trained head, or the mean of both.

    Of many labels GAP@20 decides, of one the accuracy and a share of the loss.

    Args:
        decision: of some of the records; its best probes are solved anew.
        clips: all training records, dense.
        held: bool (N,), the records that are held out, of groups of their own.
        moments: of the records' features, (D,) each.
        frames: in the median record.
        folder: gets a checkpoint after each epoch of a head that is tried, from which the same ``identity`` goes on.
    """
    parts = clips.some(np.flatnonzero(~held)), clips.some(np.flatnonzero(held))
    truth = parts[1].targets > 0.5

    def value(said: np.ndarray) -> float:
        return gap(said, truth) if multi_label else worth(said, truth, multi_label)

    probes: list[Measured] = []
    tried = probes_again(decision)
    with bar("measure on all records") as move:
        for candidate in tried:
            move(len(probes), len(tried))
            probes.append(_solved(candidate, parts, multi_label, value))
    best = max(probes, key=lambda m: value(m.probabilities))
    trained = [m.candidate for m in decision.choice.members if m.candidate.head != "probe"]
    trained += trained_of_many(decision.places, frames, bool(best.candidate.options.get("unit", False)))
    others = [
        _trained(candidate, parts, decision.places, config, moments, multi_label, device,
                 folder / candidate.head if folder is not None else None, identity)
        for candidate in trained
    ]  # fmt: skip
    several = tuple(probes)
    options: list[tuple[tuple[Measured, ...], tuple[float, ...]]] = [
        ((best,), (1.0,)),
        (several, (1.0,) * len(several)),
    ]
    for other in others:
        whole = (float(len(several)), *(1.0,) * len(several))
        options += [((other,), (1.0,)), ((other, best), (1.0, 1.0)), ((other, *several), whole)]
    members, weights = max(options, key=lambda option: value(mean_of(*option)))
    choice = choice_of(members, weights, truth.astype(np.float64), multi_label)
    if multi_label:
        choice = replace(choice, gap20=value(mean_of(members, weights)))
    return Decision(choice, (*decision.measured, *probes, *others), decision.places)


def probes_again(decision: Decision) -> list[Candidate]:
    """The probes that are solved with many records: those that were chosen, and the best with and without lengths."""
    probes = sorted((m for m in decision.measured if m.candidate.head == "probe"), key=lambda m: m.loss)
    chosen = [m.candidate for m in decision.choice.members if m.candidate.head == "probe"]
    kinds = {bool(m.candidate.options.get("unit", False)): m.candidate for m in reversed(probes)}
    return list({candidate.name: candidate for candidate in (*chosen, *kinds.values())}.values())


def _solved(
    candidate: Candidate,
    parts: tuple[FeatureClips, FeatureClips],
    multi_label: bool,
    value: Callable[[np.ndarray], float],
) -> Measured:
    """A probe that learned one part of the records, on the other, solved in the way that is best there."""
    seen, own = parts
    truth = own.targets > 0.5
    kept = {key: option for key, option in candidate.options.items() if key not in SOLVED}
    probe = Probe(seen.read(0).shape[1:], truth.shape[1], **kept).eval()
    ground = ground_of(probe, seen)
    z = np.concatenate([chunk for _, chunk in ground.of_clips(probe, own, lambda x: x)])
    best: tuple[float, dict[str, Any], np.ndarray] | None = None
    for way in _ways(probe, seen, ground, multi_label):
        highest = -np.inf  # of this way
        for options, weights in way:
            scores = z @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)
            if "squares" not in options:
                sharp = sharpness_of(scores, truth, multi_label)
                options, scores = options | sharp, scores * np.float32(sharp.get("sharpness", 1.0))  # noqa: PLW2901
            # The order of GAP@20 is that of the scores; of one label the loss counts, too, and with it the factor.
            found = value(scores if multi_label else said_by(scores, _factor(scores, options, truth, False), False))
            if best is None or found > best[0]:
                best = (found, options, scores)
            highest = max(highest, found)
            if found < highest - LOWER:
                break
    assert best is not None
    _, options, scores = best
    factor = _factor(scores, options, truth, multi_label)
    own_options = kept | options | ({"squares": factor} if factor else {})
    return _measured(replace(candidate, options=own_options), said_by(scores, factor, multi_label), truth, multi_label)


def _factor(scores: np.ndarray, options: dict[str, Any], truth: np.ndarray, multi_label: bool) -> float:
    """The factor of scores by least squares with the least loss; 0 where they are logits."""
    if "squares" not in options:
        return 0.0
    return min(FACTORS, key=lambda factor: loss_of(said_by(scores, factor, multi_label), truth, multi_label))


Way = Iterator[tuple[dict[str, Any], np.ndarray]]  # options of a probe and weights (R + 1, K), for weaker penalties


def _ways(probe: Probe, clips: FeatureClips, ground: Ground, multi_label: bool) -> Iterator[Way]:
    """Least squares, with classes that count alike or by their clips, and cross-entropy where that takes seconds."""
    sums = squares_of(probe, clips, ground)
    for alike in evenings(multi_label):
        options = squares_options(1.0, alike, multi_label)
        yield (({"strength": s} | options, sums.weights(s, alike)) for s in CLOSER[2:])
    if len(clips) * sums.cross.size <= QUICK:
        solved = logistic_weights(probe, clips, ground, STRENGTHS, multi_label)
        yield (({"strength": s}, weights) for s, weights in zip(STRENGTHS, solved, strict=True))


def _trained(
    candidate: Candidate,
    parts: tuple[FeatureClips, FeatureClips],
    places: Places,
    config: Training,
    moments: Moments,
    multi_label: bool,
    device: str,
    folder: Path | None,
    identity: str,
) -> Measured:
    """A head that learned one part of the records, on the other; what is watched are some that it learned from."""
    seen, own = parts
    torch.manual_seed(config.seed)
    head = build_head(
        Head(candidate.head, dict(candidate.options)), next(iter(places.values()))[1], own.targets.shape[1]
    )
    network = ClipNetwork(head)
    config = replace(config, **training_of([candidate], len(seen)))
    shorter = {key: round(TRIAL_SHARE * getattr(config, key)) for key in ("epochs", "least_updates")}
    config = replace(config, **shorter)
    watched = seen.some(np.arange(0, len(seen), WATCHED))
    train_network(
        network, seen, watched, config, folder, identity, multi_label=multi_label, resume=True, device=device,
        moments=moments, title=candidate.name,
    )  # fmt: skip
    said = said_by(predict_logits(network, own, config.batch).astype(np.float32), 0.0, multi_label)
    return _measured(candidate, said, own.targets > 0.5, multi_label)


def _measured(candidate: Candidate, said: np.ndarray, truth: np.ndarray, multi_label: bool) -> Measured:
    told = gap(said, truth) if multi_label else None
    return Measured(candidate, said, accuracy_of(said, truth), loss_of(said, truth, multi_label), told)
