"""What models say of training clips that they have not seen: labels to look at again, and scores to choose by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..datasets import Clip, ClipTable
from ..metrics import doubts, named_scores
from .clips import multi_hot

LISTED = 0.1  # of the clips: those whose label is doubted most
LEAST = 10


def held_out_findings(probabilities: np.ndarray, clips: Sequence[Clip], table: ClipTable) -> dict[str, Any]:
    """Findings of probabilities (N, K) of clips that no model had seen; NaN are those of clips not asked about.

    Returns:
        ``doubts``: {"path", "start_s", "end_s", "label", "suspected", "score", "label_score"} of the tenth of the clips
        whose label is doubted most, the most doubted first; none where a clip may have many labels.
        ``held_out``: see :func:`rejection_scores`.
    """
    known = np.isfinite(probabilities[:, 0])
    asked, said = [clip for clip, own in zip(clips, known, strict=True) if own], probabilities[known]
    return {
        "doubts": [] if table.multi_label else doubted(said, asked, table),
        "held_out": rejection_scores(said, multi_hot(asked, table.labels), none_index(table)),
    }


def doubted(probabilities: np.ndarray, clips: Sequence[Clip], table: ClipTable) -> list[dict[str, Any]]:
    """The clips whose label is doubted most; see :func:`held_out_findings`."""
    index = {name: i for i, name in enumerate(table.labels)}
    own = np.array([index[clip.label] for clip in clips])
    doubt = doubts(probabilities, own)
    labelled = [int(i) for i in np.argsort(-doubt, kind="stable") if clips[i].label != table.none]
    found = []
    for i in labelled[: max(LEAST, round(LISTED * len(labelled)))]:
        if doubt[i] <= 0:
            break
        clip, row = clips[i], probabilities[i].copy()
        label_score, row[own[i]] = float(row[own[i]]), -1.0
        best = int(row.argmax())
        found.append(
            {
                "path": str(clip.path),
                "start_s": clip.start_s,
                "end_s": clip.end_s,
                "label": clip.label,
                "suspected": table.labels[best],
                "score": round(float(row[best]), 4),
                "label_score": round(label_score, 4),
            }
        )
    return found


def rejection_scores(probabilities: np.ndarray, truth: np.ndarray, none: int | None) -> dict[str, list[float]]:
    """What a threshold is chosen by (``metrics.choose_threshold``).

    Args:
        probabilities, truth: (N, K), of clips that were not trained on, and which labels they have.
        none: the class that means none of the others.

    Returns:
        ``right``: for each clip that shows something, the score with which it is named, 0 where another label is;
        ``false``: for each that shows nothing, the score with which something is named.
    """
    best, sure = named_scores(probabilities, none)
    nothing = truth[:, none] > 0 if none is not None else np.zeros(len(truth), bool)
    right = truth[np.arange(len(best)), best] > 0
    return {
        "right": np.where(right, sure, 0.0)[~nothing].round(6).tolist(),
        "false": sure[nothing].round(6).tolist(),
    }


def none_index(table: ClipTable) -> int | None:
    """The place of the class that means none of the others."""
    return table.labels.index(table.none) if table.none else None
