"""The search over clips: extractors and their cuts, heads on them, and ways of storing both.

What each cut of the extractor costs is measured first (an impossible budget ends here); features are computed once;
heads are searched on them; the best are trained whole, written and measured as files; the most accurate file that keeps
the budget is chosen on validation clips, trained once more on all clips that are not test, and scored on test.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..progress import duration, say, working
from ..recipe import Extractor
from .budget import Budget
from .course import Course
from .data import FEW_CLIPS, judge
from .space import Space, cuts_of
from .trials import TrialLog

SIZES = (224, 160, 128, 96)  # of the extractor's square input, from the best
LEAST = ("block2", "block4", "block6", "block10")  # cuts of the smallest pretrained network, a quarter as wide
MANY = Space(epochs=60, rounds=(1 / 12, 1 / 4), mixups=(0.3,), noises=(0.5,))
FEW = Space(  # of fewer than FEW_CLIPS, trials are judged on all folds to the end
    epochs=60,
    rounds=(1 / 6, 1 / 2, 1.0),
    begin=("default", "pooled", "small", "large", "medium", "tiny", "fast", "trains", "least"),
    center=2 / 3,
)


def usual_ladder() -> list[tuple[Extractor, ...]]:
    """The networks of a search, from the largest: MobileNetV2 at falling sizes of its input, then MobileNetV1 x .25."""
    return [*(cuts_of(size=size) for size in SIZES), cuts_of("mobilenetv1", 0.25, size=128, cuts=LEAST)]


def search_clips(
    data: str, folder: Path, budget: Budget, seconds: float, fold: str | None, seed: int, strict: bool, command: str,
    workers: int, space: Space | None = None, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """``fit`` where the data are videos; see there.

    Args:
        workers: trials side by side, each on one thread.
        space: what is searched; None: the cuts of the built-in extractor, as large an input as time allows.
        device: where heads are trained.

    Raises:
        RecipeError, TrainingError, DataError: as ``fit``.
    """
    with working(f"read {data}"):
        judged = judge(data, fold, strict)
    say(
        f"fit: {len(judged.table)} clips of {len(judged.table.labels)} classes, {len(judged.test)} of them test; "
        f"{budget.describe()}; about {duration(seconds)}, {workers} trials at a time on {device}; writes {folder}"
    )
    few = len(judged.folds[0]) < FEW_CLIPS
    asked = space or replace(FEW if few else MANY, seed=seed)
    ladder = [asked.extractors] if space else usual_ladder()
    determined = json.dumps([judged.table.sha256(), asdict(asked), fold], sort_keys=True)
    log = TrialLog(folder / "trials.jsonl", hashlib.sha256(determined.encode()).hexdigest())
    course = Course(log, folder, judged, budget, seconds, workers, device)
    course.prepare(asked, ladder)
    interrupted = False
    try:
        course.search()
        course.make_files()
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted: going on with the best so far")
    result = course.conclude(data, fold, command)
    if interrupted:
        raise KeyboardInterrupt
    return result
