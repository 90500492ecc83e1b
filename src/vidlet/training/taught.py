"""Training clips with what a teacher said of them: answers computed once, stored beside the labels.

Source: Hinton et al. 2015, arXiv:1503.02531. The answers are those of the clips as they are: a clip that is augmented
keeps them, as it keeps its label (a "fixed teacher", Beyer et al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .batches import Batch, Draw, FeatureClips, FrameClips
from .record_clips import RecordClips


@dataclass(frozen=True)
class StoredAnswers:
    """The mean of the probabilities of several teachers, of N clips, each kept as its highest scores.

    ``classes`` and ``scores`` (N, depth) for each teacher. Where a clip has one label, what a teacher's kept scores
    lack to 1 is spread evenly over the other classes; where it may have many, the others are 0.
    """

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    count: int  # K
    multi_label: bool

    def __len__(self) -> int:
        return len(self.parts[0][0])

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        """Probabilities (n, K) float32 of some clips."""
        found = np.zeros((len(rows), self.count), np.float32)
        chosen, line = np.asarray(rows, np.int64), np.arange(len(rows))[:, None]
        for classes, scores in self.parts:
            own = np.zeros_like(found)
            others = self.count - classes.shape[1]
            if others and not self.multi_label:
                own += np.maximum(1 - scores[chosen].sum(axis=1, keepdims=True), 0) / others
            own[line, classes[chosen]] = scores[chosen]
            found += own
        return found / np.float32(len(self.parts))


class TaughtClips:
    """Clips for the training loop whose batches bring a teacher's answers; mixup mixes answers as it mixes labels."""

    def __init__(self, clips: FeatureClips | FrameClips | RecordClips, answers: StoredAnswers) -> None:
        if len(clips) != len(answers):
            raise ValueError(f"{len(clips)} clips and the answers of {len(answers)}")
        self.clips, self.answers = clips, answers
        self._joined = clips.with_targets(lambda labels: _SideBySide(labels, answers))

    @property
    def targets(self) -> np.ndarray:
        """See Clips.targets: the labels alone."""
        return self.clips.targets

    def __len__(self) -> int:
        return len(self.clips)

    def batches(self, draw: Draw) -> Iterator[Batch]:
        """See Clips.batches."""
        known = self.answers.count
        for batch in self._joined.batches(draw):
            yield replace(batch, y=batch.y[:, :known], answers=batch.y[:, known:])


class _SideBySide:
    """Labels (N, K) and answers (N, K) that look like a matrix (N, 2 K) and are joined row by row."""

    def __init__(self, labels: np.ndarray, answers: StoredAnswers) -> None:
        self.labels, self.answers = labels, answers

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        return np.concatenate([self.labels[rows], self.answers[rows]], axis=1)
