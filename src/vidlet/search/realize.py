"""From a candidate to files: train it, write it in several storages, score and measure each; how long that takes."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from ..compression import CLIP_STEPS, Chain, Step, Trained, chain_text, find_chain, shrink_network, split_chain
from ..compression.shrink import sized_as
from ..datasets import ClipTable
from ..models.ensemble import Ensemble, heads_of
from ..models.head import Head
from ..recipe import Recipe
from ..runs import EXTRACTOR, HEAD, RunFolder
from ..runtime import benchmark, load
from ..tasks import TASKS
from ..tasks.clip_networks import Workshop
from ..tasks.clips import Scored, score_together, summarize
from ..tasks.networks import Order
from ..training import ClipNetwork, predict_logits, save_tensors
from .course import FIGURES, Asked
from .data import Judged
from .halving import Finalist, Search
from .points import Point, point_of
from .proxy import Outcome, each_of, outcome_of, worth
from .space import ALONE, STORAGES, TUNED, Candidate, Space, Storage, is_known, known_cost

FILE_SECONDS = (4.0, 0.06)  # to time a file, and to score it, a validation clip, before one was seen
LEAST = 1e-6  # probability that counts as none
SCORED = 150  # validation clips that a file is scored on, where its head is known on all of them
STEPS = 3  # files that explain the chosen one, about
RESERVE = 0.9  # of the time that is left: what the training of the first finalist is planned for
LEAST_EPOCHS = 0.5  # of the training of a file: what a second head gains is more than the other half does (lab-notes)
LEAST_UPDATES = 2300  # of the weights: with fewer nothing is left out (lab-notes)


@dataclass(frozen=True, kw_only=True)
class ClipPoint(Point):
    """A file that exists, and what was measured of it on the validation clips."""

    candidate: Candidate
    loss: float  # mean cross-entropy of its scores
    clips: int
    temperature: float | None
    seconds: float  # to train what was not yet trained, and to write it
    head_worth: float | None = None  # of what was judged, on the same clips
    judged: float | None = None  # of the trained network, or of its first head, on all clips that judge
    judged_accuracy: float | None = None
    known_effect: float = 0.0  # of the chain behind what was judged, as it is known
    effect_error: float | None = None  # the standard error of that effect as these clips show it; None: all counts

    @property
    def own(self) -> float:
        """What it is worth on the clips that its file was scored on."""
        return worth(self.accuracy, self.loss)

    @property
    def score(self) -> float:
        """What files are chosen by: as trials are (proxy.py).

        It is what was judged on all clips, and the effect of what is behind that. Of this effect more is known than
        some hundred clips tell, which were seen to show seven points where there was half a point: so it counts as it
        is known, and as these clips show it only by what is beyond two standard errors.
        """
        if self.head_worth is None:  # of an older version
            return self.own + self.known_effect
        base = self.head_worth if self.judged is None else self.judged
        return base + self.known_effect + _beyond(self.own - self.head_worth - self.known_effect, self.effect_error)

    @property
    def known_accuracy(self) -> float:
        """On all clips that judge where that is known."""
        return self.accuracy if self.judged_accuracy is None else self.judged_accuracy

    @property
    def what(self) -> str:
        """The candidate."""
        return self.candidate.describe()


def clip_point(record: Mapping[str, Any]) -> ClipPoint:
    """A point from its record; an older version knew no effects of chains."""
    older = {"known_effect": 0.0, "effect_error": None}
    return point_of(ClipPoint, {**older, **record, "candidate": Candidate(**record["candidate"])})


def _beyond(difference: float, error: float | None) -> float:
    """What of a difference is beyond two of its standard errors; all of it where there is none."""
    return math.copysign(max(0.0, abs(difference) - 2 * (error or 0.0)), difference)


class Realizer:
    """One candidate's network, trained as ``vidlet train`` would by its recipe, and what makes files of it.

    Args:
        plan: its recipe, without chains.
        kept: the files of its trained weights (``kept_files``), which are taken where they are there; else they get
            what was trained. Empty: nothing is kept.
        device: where it is trained.
    """

    def __init__(self, plan: Recipe, table: ClipTable, kept: Mapping[str, Path], device: str = "cpu") -> None:
        torch.set_num_threads(1)
        networks = TASKS["clips"].networks()
        self.trained = networks.build(plan, table, None)
        self.prepared = networks.prepare(plan, table, self.trained, False)
        if kept and all(path.exists() for path in kept.values()):
            for name, part in self.parts.items():
                part.load_state_dict(torch.load(kept[name], weights_only=True))
            self.trained.head.eval()
        else:
            with TemporaryDirectory() as scratch:
                run = RunFolder(Path(scratch))
                networks.fit(self.trained, self.prepared, Order(plan, plan.training, table, run, "", device))
                for name, path in kept.items():
                    shutil.copyfile(run / name, path)
        self.workshop: Workshop = networks.writer(plan, table, self.trained, self.prepared, device)
        self.batch, self._said = plan.training.batch, dict[nn.Module, np.ndarray]()

    def logits(self, trained: Trained) -> np.ndarray:
        """What the network, or what became of it, says of the prepared validation clips: (N, K)."""
        if trained.head not in self._said:
            network = ClipNetwork(trained.head, trained.extractor if self.prepared.mean is None else None)
            self._said = {trained.head: predict_logits(network, self.prepared.val, self.batch)}
        return self._said[trained.head]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What is trained, under the name of its file in a run."""
        head = {HEAD: self.trained.head}
        return head | ({EXTRACTOR: self.trained.extractor.backbone} if self.prepared.mean is None else {})

    def shrunk(self, network: Chain, stem: Path) -> Trained:
        """The network after its steps of training, which are taken once: heads are kept beside the files."""
        if not network:
            return self.trained
        kept = _kept_network(stem, network)
        if not kept.exists():
            shrunk = shrink_network(network, self.trained, self.workshop.material)
            save_tensors(shrunk.head.state_dict(), kept)
            return shrunk
        return Trained(self.trained.extractor, _load_heads(self.trained.head, members_of(network), kept))


def realize(
    plan: Recipe,
    table: ClipTable,
    candidate: Candidate,
    chains: Sequence[str],
    folder: Path,
    judged: Outcome | None = None,
    workers: int = 1,
    device: str = "cpu",
    most: int = 0,
) -> list[ClipPoint]:
    """Write, score and measure a file for each chain of a candidate, whose recipe is ``plan``.

    Args:
        judged: how good the candidate's head is on all folds, where that is known (``ClipPoint.judged``).
        workers: threads that score the files.
        most: validation clips that files are scored on, where these are all that judge: their networks are on all. 0:
            all of them.

    Returns:
        a point a chain; the files are ``folder``/KEY.CHAIN.onnx.
    """
    if not chains:
        return []
    started, stem = time.monotonic(), folder / candidate.key
    made = Realizer(plan, table, kept_files(folder, candidate), device)
    val, clips = made.prepared.val, table.of_split("val")
    few = most and len(clips) == len(val) > most
    rows = alike(clips, most) if few else np.arange(len(val))
    files: list[tuple[Path, str, float]] = []
    logits: list[np.ndarray] = []  # of what was judged, a file
    for chain in chains:
        path = folder / f"{candidate.key}.{file_label(chain)}.onnx"
        network, graph = _parts(chain)
        trained = made.shrunk(network, stem)
        made.workshop.write(trained, graph, path, taken=network)
        logits.append(made.logits(trained if few else made.trained))
        files.append((path, chain, time.monotonic() - started))
        started = time.monotonic()
    if few:
        clips = clips.with_clips(clips.clips[i] for i in rows)
    points = []
    for (point, scored), said in zip(_measured(files, candidate, clips, workers), logits, strict=True):
        own = Outcome(*outcome_of(said, val.targets), 0.0) if few else judged
        right, losses = each_of(said[rows], val.targets[rows])
        shown = worth(right.astype(float), losses)
        behind = chain_text(_parts(point.chain)[1]) if few else point.chain
        known = is_known(behind) and len(clips) == len(rows)  # some may not have been readable
        points.append(
            replace(
                point,
                head_worth=worth(float(right.mean()), float(losses.mean())),
                judged=own.score if own else None,
                judged_accuracy=own.accuracy if own else None,
                known_effect=-known_cost(behind) if known else 0.0,
                effect_error=_error(shown, scored, clips) if known else None,
            )
        )
    return points


def _error(worths: np.ndarray, scored: Scored, clips: ClipTable) -> float:
    """The standard error of how much more a file is worth on its clips than its network was, ``worths`` (N,)."""
    known = dict(zip(clips, worths, strict=True))  # a file may have read fewer
    given = scored.scores[np.arange(len(scored.labels)), scored.labels]
    right = (scored.scores.argmax(1) == scored.labels).astype(float)
    own = worth(right, -np.log(np.maximum(given, LEAST)))
    more = own - np.array([known[clip] for clip in scored.clips])
    return float(more.std() / math.sqrt(len(more)))


def alike(clips: ClipTable, most: int) -> np.ndarray:
    """The numbers of so many of some clips, in their order, with every class as often as among all, about."""
    order = np.argsort([clips.labels.index(clip.label) for clip in clips], kind="stable")
    return np.sort(order[np.linspace(0, len(order) - 1, min(most, len(order))).astype(int)])


def refit(
    plan: Recipe, table: ClipTable, point: ClipPoint, path: Path, folder: Path, seconds: float, device: str = "cpu"
) -> tuple[int, int]:
    """Train a point's candidate once more on all clips of a table, train and val, and write it as the point is stored.

    Steps that train do so on the float32 features, as for the point: no further pass over the clips. The temperature
    stays that of the point, which was fitted on clips that it had not seen. Of several heads the first is trained once
    more, the others while the time lasts; the rest stays as it was trained for the point.

    Args:
        folder: of the files of the search, with the heads of the point.
        seconds: the time that is left; one training is made in any case.

    Returns:
        How many heads were trained once more, and how many there are.
    """
    started = time.monotonic()
    everything = [replace(clip, split="train") for clip in table]
    watched = [clip for clip in table if clip.split == "val"]  # for the log only
    made = Realizer(plan, table.with_clips([*everything, *watched]), {}, device)
    for name, part in made.parts.items():
        save_tensors(part.state_dict(), path.with_name(name))
    network, graph = _parts(point.chain)
    members = members_of(network)
    took = time.monotonic() - started
    again = min(members, max(1, int(seconds / took)))
    if again == members:
        done = shrink_network(network, made.trained, made.workshop.material)
    else:
        fewer = (*network[:-1], *([Step("ensemble", again)] if again > 1 else []))
        new = shrink_network(fewer, made.trained, made.workshop.material).head
        old = _load_heads(made.trained.head, members, _kept_network(folder / point.candidate.key, network))
        done = Trained(made.trained.extractor, Ensemble([*heads_of(new), *heads_of(old)[again:]]).eval())
    made.workshop.write(done, graph, path, point.temperature, taken=network)
    return again, members


def kept_files(folder: Path, candidate: Candidate) -> dict[str, Path]:
    """The files of a candidate's trained weights, among the files of a search: by their names in a run."""
    names = (HEAD, EXTRACTOR) if candidate.kind == TUNED else (HEAD,)
    return {name: folder / f"{candidate.key}.{name}" for name in names}


def trained_parts(folder: Path, candidate: Candidate, chain: str) -> tuple[bool, bool]:
    """Whether a candidate's head is already trained, and whether the steps of a chain that train are taken, too."""
    network, _ = _parts(chain)
    head = kept_files(folder, candidate)[HEAD].exists()
    return head, head and (not network or _kept_network(folder / candidate.key, network).exists())


def members_of(network: Chain) -> int:
    """How many heads steps of training give: 1, unless the last of them makes an ensemble."""
    heads = CLIP_STEPS[network[-1].name].heads if network else 1
    return heads if heads == 1 else int(network[-1].amount or heads)


def _parts(chain: str) -> tuple[Chain, Chain]:
    """The steps of a chain that train the network, and those that store its graph."""
    return split_chain(find_chain(chain) if chain else (), CLIP_STEPS)


def _kept_network(stem: Path, network: Chain) -> Path:
    return stem.with_name(f"{stem.name}.{file_label(chain_text(network))}.pt")


def _load_heads(like: Head, members: int, kept: Path) -> Head:
    """A head as it was kept, with fewer units if some were removed, or several in one."""
    state = torch.load(kept, weights_only=True)
    if members > 1:
        head: Head = Ensemble([copy.deepcopy(like) for _ in range(members)])
    elif {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in like.state_dict().items()}:
        head = copy.deepcopy(like)
    else:
        head = sized_as(like, state)
    head.load_state_dict(state)
    return head.eval()


def measure(
    files: Sequence[tuple[Path, str, float]], candidate: Candidate, clips: ClipTable, workers: int = 1
) -> list[ClipPoint]:
    """Score a candidate's files on validation clips, and time them, from the files alone.

    Args:
        files: path, chain, and the seconds that making it took.
    """
    return [point for point, _ in _measured(files, candidate, clips, workers)]


def _measured(
    files: Sequence[tuple[Path, str, float]], candidate: Candidate, clips: ClipTable, workers: int
) -> list[tuple[ClipPoint, Scored]]:
    models = [load(path, threads=1) for path, _, _ in files]
    points = []
    scores = score_together(models, clips, workers=workers)
    for (path, chain, seconds), model, scored in zip(files, models, scores, strict=True):
        figures = summarize(scored, model)
        given = scored.scores[np.arange(len(scored.labels)), scored.labels]  # the probability of each clip's label
        timed = benchmark(path, seconds=1.0, threads=1)
        low, high = figures["accuracy_interval"]
        point = ClipPoint(
            candidate=candidate, chain=chain, file=path.name, bytes=path.stat().st_size,
            accuracy=figures["accuracy"], loss=float(-np.log(np.maximum(given, LEAST)).mean()),
            interval=(float(low), float(high)), clips=figures["clips"],
            measured={key: timed[key] for key in FIGURES},
            temperature=model.metadata.get("temperature"), seconds=round(seconds, 2),
        )  # fmt: skip
        points.append((point, scored))
    return points


def file_label(chain: str) -> str:
    """A chain as part of a file's name."""
    return chain.replace(":", "").replace("+", "-") or "float32"


class Timing:
    """The time of a search, and estimates of what is to be done in it.

    ``epochs`` is how long heads are trained for files, ``trials`` what the search found, ``reserved`` the seconds that
    are kept for what ``train`` would choose: all are set by its course. ``most``: see ``realize``.

    Args:
        files: the folder of the search's files, with the heads that are trained already.
    """

    epochs: int
    trials: Search
    reserved = 0.0

    def __init__(self, asked: Asked, judged: Judged, files: Path) -> None:
        self.asked, self.files = asked, files
        self.again = 4 / 3 if len(judged.test) else 0.0  # trainings on all clips, in those on the training clips
        self.most = SCORED if len(judged.folds) == 1 else 0
        val = len(judged.folds[0].of_split("val"))
        scored = min(val, self.most or val)
        self.trained = len(judged.folds[0].of_split("train"))
        self.test_share = len(judged.test) / max(1, scored)
        self.measuring = asked.stretch * (FILE_SECONDS[0] + FILE_SECONDS[1] * scored)
        self._took, self._expected = 0.0, 0.0  # seconds of training for the files of this run

    @property
    def left(self) -> float:
        """Seconds that are not reserved until the time is over; below 0: it is."""
        return self.asked.left - self.reserved

    @property
    def least(self) -> float:
        """Seconds of the files and scores with which a search ends."""
        return self.measuring + self._explaining

    @property
    def delivering(self) -> float:
        """Seconds of one file and its score on the test clips, without which no search ends."""
        return self.measuring * (1 + self.test_share)

    def saw(self, point: ClipPoint, took: float, expected: float) -> None:
        """Learn from a file: ``took`` seconds in all, where its training was expected to take ``expected``.

        Without a training they are those of each further file.
        """
        if expected:
            self._took, self._expected = self._took + point.seconds, self._expected + expected
        self.measuring = max(0.1, took - (point.seconds if expected else 0.0))

    def least_share(self, space: Space) -> float:
        """The share of all epochs below which no head is trained for a file."""
        updates = space.epochs * math.ceil(self.trained / space.batch)
        return min(1.0, max(LEAST_EPOCHS, LEAST_UPDATES / max(1, updates)))

    def trainable(self, space: Space, search_share: float) -> float:
        """How long all epochs of a candidate may take, before its trials, so that one file of it comes to be."""
        left = (1 - search_share) * self.left - self.measuring - self._explaining
        return max(0.0, left) / (1 + self.again) / self.least_share(space)

    def epochs_for(self, ways: Sequence[Finalist], space: Space) -> int:
        """Epochs with which the first of several files comes to be for which the least of them are few enough.

        All, where there is time; else as many as there is time for.
        """
        left = RESERVE * self.left - 2 * self.measuring - self._explaining
        least = self.least_share(space)
        shares = [left / max(1e-9, self._whole_training(*way)) for way in ways]
        share = min(1.0, next((share for share in shares if share >= least), least))
        return max(1, round(share * space.epochs))

    def training(self, candidate: Candidate, storage: Storage) -> float:
        """Seconds of training that a file still needs, as trials took."""
        head, network = trained_parts(self.files, candidate, storage.chain)
        missing = 0 if network else storage.trainings - head
        return self.trials.expected_seconds(candidate, self.epochs) * missing

    def file(self, candidate: Candidate, storage: Storage) -> float:
        """Seconds that a file takes, and what follows if it is chosen, at the pace seen so far.

        That is explaining it by its steps, and training it once more on all clips: the head, with all its steps but
        those of an ensemble, of which one head is enough (``refit``).
        """
        training = self._pace * self.training(candidate, storage) + self.last(candidate, storage)
        return training + self.measuring + self._explaining

    def last(self, candidate: Candidate, storage: Storage) -> float:
        """Seconds of the training on all clips, if a file is chosen."""
        trained = self.trials.expected_seconds(candidate, self.epochs)
        return self._pace * trained * self.again * _trained_again(storage)

    def room(self, chosen: ClipPoint) -> int:
        """How many files may still be measured before the last training and the score on the test clips."""
        storage = next((s for s in STORAGES if s.chain == chosen.chain), ALONE[0])
        last = self.last(chosen.candidate, storage) + self.measuring * self.test_share
        return max(0, int((self.left - last) / self.measuring))

    @property
    def _pace(self) -> float:
        return self._took / self._expected if self._expected else 1.0

    @property
    def _explaining(self) -> float:
        """Seconds for the files of the chosen one's steps, and its score on the test clips."""
        return self.measuring * (STEPS + self.test_share)

    def _whole_training(self, candidate: Candidate, storage: Storage) -> float:
        """Seconds of all trainings for a file and after it, with all epochs."""
        times = storage.trainings + self.again * _trained_again(storage)
        return self.trials.expected_seconds(candidate) * times


def _trained_again(storage: Storage) -> int:
    """Trainings that are made once more on all clips: of several heads one is enough."""
    return storage.trainings - (storage.members - 1)
