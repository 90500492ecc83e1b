"""How good each candidate is on clips that it has not seen: cross-validation over groups of the training clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..metrics import careful_temperature
from ..models.head import flat_size
from ..models.heads import build_head
from ..models.probe import Probe
from ..recipe import Head, Training
from ..training import ClipNetwork, Clips, FeatureClips, predict_logits, train_network
from ..training.classification import Moments
from ..training.linear import fold_coordinates, held_out_logits, log_probabilities
from ..training.probes import describe, scaled_
from .candidates import CLOSER, STRENGTHS, Candidate, Places, place_of

LEAST = 1e-9  # probability that counts as none
MOST_LOGIT = 60.0  # of many labels, beyond which a probability is 0 or 1
WATCHED = 10  # one in so many of the clips that a head learns from is watched
LONG = 3e7  # clips times clips times classes, above which probes are solved by least squares
FACTORS = (4.0, 8.0, 16.0, 32.0)  # by which scores of least squares become logits
ALIKE = 0.998  # of the least loss, below which a weaker penalty is better
DESCRIBED = 1.2e8  # numbers of all clips that are in memory at once, 4 bytes each: those of two grids side by side
WORSE = 1.02  # times the least loss, at which weaker penalties are no longer tried


@dataclass(frozen=True, eq=False)
class Measured:
    """A candidate, and what it said of clips that it had not seen.

    ``probabilities`` (N, K) are NaN for clips of folds that it was not tried on.
    """

    candidate: Candidate
    probabilities: np.ndarray
    accuracy: float
    loss: float
    gap20: float | None = None  # where it was measured: of many labels, on many records

    def row(self) -> dict[str, object]:
        """It in metrics.json."""
        clips = int(np.isfinite(self.probabilities[:, 0]).sum())
        own = self.candidate
        told: dict[str, object] = {"name": own.name, "head": own.head, "cuts": list(own.cuts), "options": own.options}
        wide = {} if self.gap20 is None else {"gap20": self.gap20}
        return told | {"accuracy": self.accuracy, "loss": self.loss, "clips": clips} | wide


@dataclass(frozen=True)
class Pool:
    """The training clips of a set, as features of all cuts side by side.

    Args:
        held: bool (N,) a fold, True where a clip is held out.
        targets: (N, K).
    """

    clips: Clips
    targets: np.ndarray
    places: Places
    held: Sequence[np.ndarray]
    multi_label: bool = False

    def take(self, cuts: tuple[str, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
        """What gives the part of features (B, T, D of all) that some cuts have."""
        begin, shape = place_of(self.places, cuts)
        if len(self.places) == 1:
            return lambda x: x
        return lambda x: x[..., begin : begin + flat_size(shape)].unflatten(-1, shape)


def measure_probes(
    pool: Pool,
    candidates: Sequence[Candidate],
    report: Callable[[int, int], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> list[Measured]:
    """Every probe on held out clips, each with the strength of its penalty that is best there.

    Args:
        enough: asked after each; then the rest is left out.
    """
    found: list[Measured] = []
    kinds: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in candidates:
        kinds.setdefault((candidate.cuts, *_scaling(candidate)), []).append(candidate)
    for own in kinds.values():
        if found and enough():
            break
        products = _products(pool, own)
        for candidate in own:
            if found and enough():
                break
            mean = sum(products[name].astype(np.float64) for name in candidate.statistics) / len(candidate.statistics)
            own_options, said = best_solution(np.asarray(mean), pool.targets, pool.held, pool.multi_label)
            found.append(judged(replace(candidate, options=candidate.options | own_options), said, pool))
            if report:
                report(len(found), len(candidates))
        del products  # before those of the next kind
    order = {candidate.name: i for i, candidate in enumerate(candidates)}
    return sorted(found, key=lambda m: order[m.candidate.name])


def best_solution(
    products: np.ndarray, targets: np.ndarray, held: Sequence[np.ndarray], multi_label: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """The options of a probe with the least loss on held out clips, and their probabilities (N, K) with them.

    The loss falls and then rises as the penalty gets weaker, so the first that is clearly worse ends the search. Each
    is judged at the sharpness that suits it: else a penalty would be chosen for how sure it makes the scores. Of those
    that are alike the strongest is taken.

    Returns:
        ``strength`` and ``sharpness``, or ``squares`` and ``alike`` where cross-entropy would take minutes;
        probabilities.
    """
    squares = len(targets) * targets.size > LONG
    strengths = CLOSER if squares else STRENGTHS
    parts = fold_coordinates(products, held)
    best: tuple[float, dict[str, Any], np.ndarray] | None = None
    for alike in evenings(multi_label) if squares else (True,):
        solutions = held_out_logits(products, targets, held, strengths, multi_label, squares, alike, parts)
        first = np.inf  # the least loss of this way
        for strength, solved in zip(strengths, solutions, strict=False):
            scores = solved.astype(np.float32) if squares and multi_label else solved  # half of the time
            known, least = np.isfinite(scores[:, 0]), np.inf
            sharp = {} if squares else sharpness_of(scores[known], targets[known], multi_label)
            scores = scores * sharp.get("sharpness", 1.0)
            for factor in FACTORS if squares else (0.0,):
                said = said_by(scores, factor, multi_label)
                loss = loss_of(said[known], targets[known], multi_label)
                least = min(least, loss)
                if best is None or loss < (1 if squares else ALIKE) * best[0]:
                    best = (loss, {"strength": strength} | sharp | squares_options(factor, alike, multi_label), said)
            first = min(first, least)
            if least > WORSE * first:
                break
    assert best is not None
    return best[1], best[2]


def sharpness_of(logits: np.ndarray, targets: np.ndarray, multi_label: bool) -> dict[str, float]:
    """The option of a probe by which its logits (N, K) on held out clips become probabilities; of one label a clip."""
    return {} if multi_label else {"sharpness": 1 / careful_temperature(logits, targets.argmax(1))}


def evenings(multi_label: bool) -> tuple[bool, ...]:
    """Whether least squares let classes count alike: both are tried of one label a clip."""
    return (False,) if multi_label else (True, False)


def squares_options(factor: float, alike: bool, multi_label: bool) -> dict[str, Any]:
    """The options of a probe that is solved by least squares; none where the factor is 0."""
    even = {} if multi_label else {"alike": alike}
    return {"squares": factor} | even if factor else {}


def said_by(scores: np.ndarray, factor: float, multi_label: bool) -> np.ndarray:
    """Probabilities (N, K) of scores by least squares, or of logits where the factor is 0."""
    logits = factor * (scores - 0.5) if factor else scores
    if multi_label:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -MOST_LOGIT, MOST_LOGIT))))
    return np.exp(log_probabilities(logits))


def _scaling(candidate: Candidate) -> tuple[float, int, str, bool]:
    own = candidate.options
    return own.get("whiten", 1.0), own.get("segments", 8), own.get("positions", "all"), own.get("unit", False)


def _products(pool: Pool, candidates: Sequence[Candidate]) -> dict[str, np.ndarray]:
    """Statistic -> the products (N, N) of the clips' scaled numbers, for candidates of one cut and one scaling.

    They are float32, as they are computed. Of at most ``DESCRIBED`` numbers is a copy in memory; where there are more,
    clips are described several times.
    """
    cuts, (whiten, segments, positions, unit) = candidates[0].cuts, _scaling(candidates[0])
    names = list(dict.fromkeys(name for candidate in candidates for name in candidate.statistics))
    shape, found = place_of(pool.places, cuts)[1], dict[str, np.ndarray]()
    while left := [name for name in names if name not in found]:
        for count in range(len(left), 0, -1):
            head = Probe(
                shape, pool.targets.shape[1], "+".join(left[:count]), segments, whiten, positions=positions, unit=unit
            )
            if len(pool.targets) * sum(head.rows) * head.seen <= DESCRIBED:
                break
        values = describe(head, pool.clips, pool.take(cuts))
        for name in head.names:
            vectors = scaled_(values.pop(0), whiten).vectors
            found[name] = vectors @ vectors.T
    return found


def measure_trained(
    pool: Pool,
    candidate: Candidate,
    config: Training,
    moments: Moments,
    folds: int,
    device: str,
    report: Callable[[int, int], None] | None = None,
    keep: Callable[[ClipNetwork], None] = lambda network: None,
) -> Measured:
    """A head that is trained, on the clips of the first ``folds`` folds.

    Nothing is chosen by the clips that are held out: what is watched are some that are learned from, as in the end.

    Args:
        keep: gets the trained network of each fold: a blend of one member.
    """
    assert isinstance(pool.clips, FeatureClips)
    found = np.full(pool.targets.shape, np.nan)
    for number, held in enumerate(pool.held[:folds]):
        torch.manual_seed(config.seed)
        seen, own = (pool.clips.some(np.flatnonzero(x)) for x in (~held, held))
        network = network_of(pool, candidate)
        watched = seen.some(np.arange(0, len(seen), WATCHED))
        train_network(network, seen, watched, config, multi_label=pool.multi_label, device=device, moments=moments)
        logits = predict_logits(network, own, config.batch)
        found[held] = np.exp(log_probabilities(logits.astype(np.float64), pool.multi_label))
        keep(network)
        if report:
            report(number + 1, folds)
    return judged(candidate, found, pool)


def network_of(pool: Pool, candidate: Candidate) -> ClipNetwork:
    """A head that is to be trained on a pool's clips, as a blend of one member, with its untrained weights."""
    places = list(pool.places.values())
    width = (sum(flat_size(shape) for _, shape in places),) if len(places) > 1 else places[0][1]
    recipe = Head("blend", {"members": [candidate.member(pool.places)]})
    return ClipNetwork(build_head(recipe, width, pool.targets.shape[1]))


def judged(candidate: Candidate, probabilities: np.ndarray, pool: Pool) -> Measured:
    """Accuracy and mean cross-entropy of probabilities (N, K) over the clips that they are of.

    Of many labels a clip, accuracy is how often the highest is one of the clip's.
    """
    known = np.isfinite(probabilities[:, 0])
    p, y = probabilities[known], pool.targets[known]
    return Measured(candidate, probabilities, accuracy_of(p, y), loss_of(p, y, pool.multi_label))


def accuracy_of(p: np.ndarray, y: np.ndarray) -> float:
    """How often the highest of probabilities (N, K) is a label."""
    return float(y[np.arange(len(p)), p.argmax(1)].mean())


def loss_of(p: np.ndarray, y: np.ndarray, multi_label: bool) -> float:
    """Mean cross-entropy of probabilities (N, K)."""
    there = np.nonzero(y)  # of thousands of classes a clip has a few
    terms = y[there] * np.log(np.maximum(p[there], LEAST))
    if not multi_label:
        return float(-terms.sum(dtype=np.float64) / len(p))
    rest = np.log(np.maximum(1 - p, LEAST))
    terms = terms - y[there] * rest[there]
    return float(-(terms.sum(dtype=np.float64) + rest.sum(dtype=np.float64)) / len(p))
