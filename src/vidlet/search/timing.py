"""How long what is still to do in a search will take, by what was seen of it so far."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from .data import Judged
from .finalists import Finalist
from .halving import Search
from .realize import Point, trained_parts
from .space import ALONE, STORAGES, Candidate, Space, Storage

FILE_SECONDS = (4.0, 0.06)  # to time a file, and to score it, a validation clip, before one was seen
STEPS = 3  # files that explain the chosen one, about
RESERVE = 0.9  # of the time that is left: what the training of the first finalist is planned for
LEAST_EPOCHS = 0.5  # of the training of a file: what a second head gains is more than the other half does (lab-notes)
LEAST_UPDATES = 2300  # of the weights: with fewer nothing is left out (lab-notes)


class Timing:
    """The time of a search, and estimates of what is to be done in it.

    ``epochs`` is how long heads are trained for files, ``trials`` what the search found: both are set by its course.

    Args:
        seconds: of the whole search, from now on.
        files: the folder of the search's files, with the heads that are trained already.
    """

    epochs: int
    trials: Search

    def __init__(self, seconds: float, judged: Judged, files: Path) -> None:
        self.started, self.seconds, self.files = time.monotonic(), seconds, files
        self.again = 4 / 3 if len(judged.test) else 0.0  # trainings on all clips, in those on the training clips
        scored = len(judged.folds[0].of_split("val"))
        self.trained = len(judged.folds[0].of_split("train"))
        self.test_share = len(judged.test) / max(1, scored)
        self.measuring = FILE_SECONDS[0] + FILE_SECONDS[1] * scored
        self._took, self._expected = 0.0, 0.0  # seconds of training for the files of this run

    @property
    def left(self) -> float:
        """Seconds until the time is over; below 0: it is."""
        return self.started + self.seconds - time.monotonic()

    def saw(self, point: Point, took: float, expected: float) -> None:
        """Learn from a file: ``took`` seconds in all, where its training was expected to take ``expected``."""
        self._took, self._expected = self._took + point.seconds, self._expected + expected
        self.measuring = max(0.1, took - point.seconds)

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
        pace = self._took / self._expected if self._expected else 1.0
        training = self.training(candidate, storage) + self._last_training(candidate, storage)
        return pace * training + self.measuring + self._explaining

    def room(self, chosen: Point) -> int:
        """How many files may still be measured before the last training and the score on the test clips."""
        storage = next((s for s in STORAGES if s.chain == chosen.chain), ALONE[0])
        last = self._last_training(chosen.candidate, storage) + self.measuring * self.test_share
        return max(0, int((self.left - last) / self.measuring))

    @property
    def _explaining(self) -> float:
        """Seconds for the files of the chosen one's steps, and its score on the test clips."""
        return self.measuring * (STEPS + self.test_share)

    def _whole_training(self, candidate: Candidate, storage: Storage) -> float:
        """Seconds of all trainings for a file and after it, with all epochs."""
        times = storage.trainings + self.again * _trained_again(storage)
        return self.trials.expected_seconds(candidate) * times

    def _last_training(self, candidate: Candidate, storage: Storage) -> float:
        return self.trials.expected_seconds(candidate, self.epochs) * self.again * _trained_again(storage)


def _trained_again(storage: Storage) -> int:
    """Trainings that are made once more on all clips: of several heads one is enough."""
    return storage.trainings - (storage.members - 1)
