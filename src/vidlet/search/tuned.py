"""A network that ``fit`` trains end to end, extractor and head: which, for how many epochs, and how good it is.

Hours of training are begun only where the time that is left is known to suffice: an epoch is timed on a few clips.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..datasets import ClipTable
from ..errors import DataError, TrainingError
from ..files import atomic_path
from ..progress import duration, say, working
from ..recipe import Recipe, load_recipe, recipe_to_dict
from ..runs import RunFolder
from ..tasks import TASKS
from ..tasks.clip_networks import HEAD_FIRST
from ..tasks.networks import Order
from ..training import ClipNetwork, FeatureClips, for_clips, predict_logits, train_network
from .course import Asked
from .data import FEW_CLIPS, Judged, operations
from .data import Pace as MachinePace
from .proxy import Outcome, outcome_of
from .realize import LEAST_EPOCHS, RESERVE, kept_files
from .solved import SMALLER
from .space import TUNED, Candidate, place_of
from .trials import Record, TrialLog

AUTO, NO = "auto", "no"  # what ``fine_tune`` may be beside the recipe of a network
RECIPE = "mobilenetv2-grid-gru-finetune"
CUTS = ("block12", "block10", "block6", "block3")  # of its extractor, from the best
SMALL = 96  # pixels of its square input, where there is no time for its own
SHARE = 0.6  # of the time that is left, at most
BATCHES, PACED = 3, 2  # of clips, by which an epoch end to end is timed, and one of the head alone
WATCHED = 4  # validation clips beside them, of which some may not be readable
MORE, LEAST_EPOCH = 2, 0.2  # epochs that are timed; of the time of a training that is so short, at least
LEAST_S = 0.01  # of an epoch, before it is timed
KEPT = "tuned"  # the folder, in that of the search, of what is trained
FORWARDS = 3.0  # of a frame: what a training step takes at the very least, there and twice back
EVALUATION = 1 / 3  # of the time of a training step: a validation clip
HOPELESS = 0.1  # of accuracy, and 1 / sqrt(clips): so far behind on the first fold, it is not judged on the others


def recipes_of(fine_tune: str, seed: int) -> Iterator[Recipe]:
    """The networks that may be trained end to end, the best first: a recipe, or the built-in one and smaller ones.

    Args:
        fine_tune: "auto", or a recipe's name or file.
    """
    plan = load_recipe(RECIPE if fine_tune == AUTO else fine_tune)
    plan = replace(plan, training=replace(plan.training, seed=seed), compress=())
    if fine_tune != AUTO:
        yield plan
        return
    for cut in CUTS:
        for smaller in ({}, *SMALLER):
            head = replace(plan.head, options={**plan.head.options, **smaller})
            name = " ".join([plan.name, cut, *(["-".join(map(str, smaller.values()))] if smaller else [])])
            yield replace(plan, name=name, extractor=replace(plan.extractor, cut=cut), head=head)


def candidate_of(plan: Recipe) -> Candidate:
    """What a search knows a recipe's network as."""
    return Candidate.listed(place_of(plan.extractor), plan, TUNED)


@dataclass(frozen=True)
class Pace:
    """How long a network's training takes, on one fold: seconds of a clip before it, of an epoch, of its head first."""

    clip_s: float
    epoch_s: float
    head_s: float = 0.0


class Tuner:
    """Chooses the network that is trained end to end, by budget and time, trains it, and keeps what became of it.

    Args:
        files: the folder of the search's files, which gets the weights.
        affordable: whether a network is expected to keep the budget.
    """

    def __init__(
        self, asked: Asked, judged: Judged, log: TrialLog, files: Path, affordable: Callable[[Candidate], bool]
    ) -> None:
        self.asked, self.judged, self.log, self.files, self.affordable = asked, judged, log, files, affordable

    def tune(self, left: Callable[[], float], best: float) -> tuple[Candidate, Outcome] | str | None:
        """The network and how good it is on the clips held out, found now or before the search was ended.

        Args:
            left: seconds until the time is over, without those of a file.
            best: accuracy of what is known so far.

        Returns:
            what was found; or why nothing was tried, in words; or None, where what was tried is no use or where clips
            are too few to try unasked.
        """
        known = next(self.log.of("tuned"), None)
        if known is None:
            begun = next(self.log.of("tuning"), None)
            candidate, why = (Candidate(**begun["candidate"]), "") if begun else self._choose(left)
            nothing = {"candidate": None, "outcome": None, "why": why}
            known = self.log.add("tuned", **(self._train(candidate, best) if candidate else nothing))
            if known["why"]:
                say(known["why"])
        if known["candidate"] is None:
            return known["why"] or None
        candidate = Candidate(**known["candidate"])
        return (candidate, Outcome(**known["outcome"])) if known["outcome"] and self.affordable(candidate) else None

    def _choose(self, left: Callable[[], float]) -> tuple[Candidate | None, str]:
        """The network that budget and time allow, which the log tells then; or why there is none, in words."""
        if self.asked.fine_tune == AUTO and len(self.judged.folds[0]) < FEW_CLIPS:
            return None, ""  # so few clips are learned by heart (docs/lab-notes.md)
        plans = recipes_of(self.asked.fine_tune, self.asked.seed)
        plan = next((plan for plan in plans if self.affordable(candidate_of(plan))), None)
        if plan is None:
            return None, f"nothing is fine-tuned: no such network keeps {self.asked.budget.describe()}"
        first = FineTuning(self.asked, self.judged, candidate_of(plan), self.files)
        unasked = self.asked.fine_tune == AUTO  # else it may be any network
        counted = first.least_pace() if unasked else Pace(0.0, LEAST_S)
        epochs, whole_s = first.epochs(counted, left())
        if first.enough(epochs):
            try:
                with working("look whether there is time to fine-tune"):
                    pace = first.pace()
            except (DataError, TrainingError) as error:  # of these few clips
                return None, f"{plan.name} is not fine-tuned: {error}"
            _, whole_s = first.epochs(pace, left())
            for training in first.sizes():
                sizes = [math.prod(p.extractor.input_size) for p in (training.plan, plan)]  # operations go with them
                epoch_s = pace.epoch_s * sizes[0] / sizes[1]
                epochs, _ = training.epochs(replace(pace, epoch_s=epoch_s), left())
                if training.enough(epochs):
                    again_s = training.again * (epochs * epoch_s + pace.head_s)
                    chosen = training.shortened(epochs)
                    self.log.add("tuning", candidate=asdict(chosen), epochs=epochs, made_s=0.0, again_s=again_s)
                    return chosen, ""
        return None, f"{plan.name} is not fine-tuned: all of it would take about {duration(whole_s)}"

    def _train(self, candidate: Candidate, best: float) -> Record:
        """How good a candidate is, trained as the log says: its record, with what is to be said of it ("why")."""
        begun, named = next(self.log.of("tuning")), candidate.describe()
        training = FineTuning(self.asked, self.judged, candidate, self.files)
        say(f"{named}: extractor and head are trained end to end, {begun['epochs']} epochs")
        try:
            outcome = training.run(best)
            why = f"{named}: {outcome.accuracy:.3f} on clips held out" if outcome else f"{named}: far behind the best"
        except TrainingError as error:
            outcome, why = None, f"{named}: left out, {error}"
        training.clean()
        return {"candidate": asdict(candidate), "outcome": asdict(outcome) if outcome else None, "why": why}


class FineTuning:
    """The training of one network on each fold's clips, judged on those held out.

    Args:
        files: the folder of the search's files, which gets the weights of the first fold.
    """

    def __init__(self, asked: Asked, judged: Judged, candidate: Candidate, files: Path) -> None:
        self.asked, self.judged, self.candidate, self.files = asked, judged, candidate, files
        self.networks = TASKS["clips"].networks()
        plan = candidate.plan
        self.plan = replace(plan, training=for_clips(plan.training, len(judged.folds[0].of_split("train"))))

    def sizes(self) -> Iterator[FineTuning]:
        """This training, and of the built-in network that on a smaller input."""
        yield self
        if self.asked.fine_tune == AUTO:
            size = replace(self.plan.extractor, input_size=(SMALL, SMALL))
            plan = replace(self.plan, name=f"{self.plan.name} {SMALL} px", extractor=size)
            yield FineTuning(self.asked, self.judged, candidate_of(plan), self.files)

    @property
    def again(self) -> float:
        """The last training, of all clips, in trainings of a fold; 0 where no test clips would score it."""
        every = self.judged.folds[0]
        return len(every) / max(1, len(every.of_split("train"))) if len(self.judged.test) else 0.0

    def least_pace(self) -> Pace:
        """What it takes at least, by the operations of a frame: nothing is trained to know it."""
        known, sampling = MachinePace(self.judged, lambda: self.asked.stretch), self.plan.sampling
        asked = sampling.frames if sampling.rule == "uniform" else known.clip_s * sampling.hz
        of_clip = known.operation_s * operations(self.plan.extractor) * min(asked, sampling.max_frames)
        return Pace(0.0, FORWARDS * of_clip / known.cores * len(self.judged.folds[0].of_split("train")))

    def pace(self) -> Pace:
        """What it takes, as a few clips took."""
        plan, fold = self.plan, self.judged.folds[0]
        train, val = fold.of_split("train"), fold.of_split("val")
        parts = ((train, BATCHES * plan.training.batch), (val, WATCHED))
        rows = [(part, np.linspace(0, len(part) - 1, min(len(part), count)).astype(int)) for part, count in parts]
        some = fold.with_clips(part.clips[i] for part, own in rows for i in own)
        network = self.networks.build(plan, some, None)
        began = time.monotonic()
        prepared = self.networks.prepare(plan, some, network, False)
        clip_s = (time.monotonic() - began) / len(some)
        took: list[float] = []
        for epochs in (1, 1 + MORE):  # what a training takes beside its epochs is not counted
            few = replace(plan.training, epochs=epochs, least_updates=0, head_epochs=0)
            with TemporaryDirectory() as scratch:
                began = time.monotonic()
                order = Order(plan, few, some, RunFolder(Path(scratch)), "", self.asked.device)
                self.networks.fit(network, prepared, order)
                took.append(time.monotonic() - began)
        epoch_s = max(took[1] - took[0], LEAST_EPOCH * took[1]) / MORE
        step_s = epoch_s / (len(prepared.train) + EVALUATION * len(prepared.val))
        frames = np.mean([len(prepared.train.read(row)) for row in range(len(prepared.train))])
        head_s = self._head_seconds(network, round(frames)) if plan.training.head_epochs else 0.0
        features_s = (clip_s + EVALUATION * step_s) * bool(plan.training.head_epochs)
        return Pace(clip_s + features_s, step_s * (len(train) + EVALUATION * len(val)), head_s)

    def _head_seconds(self, network: Any, frames: int) -> float:
        """Seconds in which the head alone is trained first, on clips of so many frames."""
        head = replace(HEAD_FIRST, epochs=self.plan.training.head_epochs)
        count, clips = len(self.judged.folds[0].of_split("train")), PACED * head.batch
        features = np.zeros((frames, *network.extractor.feature_shape), np.float32)
        targets = np.eye(len(self.judged.table.labels), dtype=np.float32)
        targets = targets[np.arange(clips) % len(targets)]
        spread = np.ones(features.shape[1], np.float32)
        given = FeatureClips(lambda row: features, targets, [""] * clips, spread, len(features))
        alone = ClipNetwork(network.head)
        once = replace(head, epochs=1, least_updates=0)
        began = time.monotonic()
        train_network(alone, given, given.some(np.arange(1)), once, device=self.asked.device)
        return (time.monotonic() - began) / clips * for_clips(head, count).epochs * count

    def epochs(self, pace: Pace, left: float) -> tuple[int, float]:
        """How many epochs there is time for, and the seconds that the network would take with all of its own.

        Args:
            left: seconds until the time is over, without those of a file.
        """
        whole, folds = self.plan.training.epochs, len(self.judged.folds)
        clips = pace.clip_s * len(self.judged.folds[0]) * (folds + 2)  # for its file and the last training, too
        times = folds + self.again
        tried, every = clips + folds * pace.head_s, clips + times * pace.head_s
        able = min((SHARE * left - tried) / (folds * pace.epoch_s), (RESERVE * left - every) / (times * pace.epoch_s))
        return max(0, min(whole, int(able))), every + whole * times * pace.epoch_s

    def enough(self, epochs: int) -> bool:
        """Whether so many epochs tell what the network can do."""
        return epochs >= LEAST_EPOCHS * self.plan.training.epochs

    def shortened(self, epochs: int) -> Candidate:
        """The network with so many epochs, which are those of its last training, too."""
        return candidate_of(replace(self.plan, training=replace(self.plan.training, epochs=epochs, least_updates=0)))

    def run(self, best: float) -> Outcome | None:
        """Train it on each fold, and leave the first one's weights among the files; None: it is far behind the best.

        A fold that was trained before the search was ended is not trained again.

        Args:
            best: accuracy of what is known so far.

        Raises:
            TrainingError: it diverges.
        """
        self.files.mkdir(parents=True, exist_ok=True)
        logits, targets, seconds = list[np.ndarray](), list[np.ndarray](), 0.0
        for number, fold in enumerate(self.judged.folds):
            held_out = self._fold(number, fold)
            logits, targets = [*logits, held_out.logits], [*targets, held_out.targets]
            seconds = seconds or held_out.seconds
            if number == 0 and outcome_of(logits[0], targets[0])[0] < best - HOPELESS - len(targets[0]) ** -0.5:
                return None
        return Outcome(*outcome_of(np.concatenate(logits), np.concatenate(targets)), round(seconds, 2))

    def _fold(self, number: int, fold: ClipTable) -> HeldOut:
        """What the network says of the clips that a fold holds out."""
        plan = self.plan
        run = RunFolder(self.asked.folder / KEPT / f"{self.candidate.key}-{number}")
        done = run / "held_out.npz"
        if done.exists():
            with np.load(done) as known:
                return HeldOut(known["logits"], known["targets"], float(known["seconds"]))
        run.path.mkdir(parents=True, exist_ok=True)
        network = self.networks.build(plan, fold, None)
        prepared = self.networks.prepare(plan, fold, network, self.asked.strict)
        identity = json.dumps([fold.sha256(), recipe_to_dict(plan), number])
        of_folds = f", fold {number + 1} of {len(self.judged.folds)}" if len(self.judged.folds) > 1 else ""
        order = Order(
            plan, plan.training, fold, run, identity, self.asked.device, True, title=f"fine-tune{of_folds}"
        )  # fmt: skip
        began = time.monotonic()
        self.networks.fit(network, prepared, order)
        seconds = time.monotonic() - began
        if number == 0:
            for name, path in kept_files(self.files, self.candidate).items():
                shutil.copyfile(run / name, path)
        logits = predict_logits(ClipNetwork(network.head, network.extractor), prepared.val, plan.training.batch)
        with atomic_path(done) as draft:
            np.savez(draft, logits=logits, targets=prepared.val.targets, seconds=seconds)
        return HeldOut(logits, prepared.val.targets, seconds)

    def clean(self) -> None:
        """Remove what was kept to go on with."""
        shutil.rmtree(self.asked.folder / KEPT, ignore_errors=True)


@dataclass(frozen=True)
class HeldOut:
    """Logits and targets (N, K) of the clips that a fold holds out, and the seconds of its training."""

    logits: np.ndarray
    targets: np.ndarray
    seconds: float
