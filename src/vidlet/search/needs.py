"""What a search over clips takes at least, told before it is begun: enough clips to choose by, and one file.

A machine that others use gives a search a share of a processor only, and what takes seconds elsewhere takes minutes.
The clock tells that early: nobody is to wait those minutes for a refusal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ..errors import TrainingError
from ..progress import duration, say
from .course import Asked

ENOUGH = 3  # clips of each class and fold that a choice rests on: a model of fewer tells classes apart by chance
LONGER, LONGER_S = 1.3, 15.0  # times what was asked for, and seconds: so long a search goes on by itself
GRAPHS_S = 4.0  # processor seconds: of the graphs that compute features
FILE_S, SOLVED_S = 6.0, 0.06  # of a file and the report; of the linear classifiers, a clip
BUSY = 1.5  # seconds for one of a processor: from here on it is said
AMPLE = 1.6  # times the least: with so much --time features of the clips, trials and the rest find room


class Needs:
    """The least time of a search, as it is known now.

    Args:
        clips: whose features are looked at; ``scored``: those that a file is calibrated and scored on, test clips too.
        clip_s: seconds of a clip that is decoded and goes through the network.
    """

    def __init__(self, asked: Asked, clips: int, scored: int, clip_s: float) -> None:
        self.asked, self.clips, self.scored, self.clip_s = asked, clips, scored, clip_s
        self._told = False

    @property
    def behind_s(self) -> float:
        """Seconds of what comes behind the features: classifiers, a file, its scores, the report."""
        return self.asked.stretch * (FILE_S + SOLVED_S * self.clips) + self.scored * self.clip_s

    def check(self, features_s: float, graphs: bool = False) -> None:
        """Say once where the time is too short by little.

        Args:
            features_s: seconds until enough clips have their features; ``graphs``: those that compute them are missing.

        Raises:
            TrainingError: it is too short by more than that.
        """
        least = features_s + self.behind_s + (self.asked.stretch * GRAPHS_S if graphs else 0.0)
        if least <= self.asked.left:
            return
        spent = self.asked.seconds - self.asked.left
        whole = spent + least
        share = f", where it gets {1 / self.asked.stretch:.0%} of a processor" if self.asked.stretch > BUSY else ""
        needs = f"a choice by {self.clips} clips, the fewest that tell anything, takes about {duration(whole)}{share}"
        if whole > LONGER * self.asked.seconds + LONGER_S:
            raise TrainingError(
                f"{self.asked.data}: {duration(self.asked.seconds)} are too short: {needs}; give --time "
                f"{_told(AMPLE * whole)} (features that are computed are kept)"
            )
        if not self._told:
            self._told = True
            say(f"{needs}: longer than the {duration(self.asked.seconds)} that were asked for; it goes on until then")


def enough(cells: Sequence[object]) -> int:
    """How many of some clips a choice rests on, where each cell (class and fold) is taken by turns."""
    return sum(min(count, ENOUGH) for count in Counter(cells).values())


def _told(seconds: float) -> str:
    """A time as ``--time`` takes it, rounded up."""
    return f"{math.ceil(seconds / 10) * 10}s" if seconds < 100 else f"{math.ceil(seconds / 60)}m"
