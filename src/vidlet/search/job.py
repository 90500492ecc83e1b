"""``vidlet fit``: the most accurate model that fits a budget, with the evidence.

The way: what each cut of the extractor costs is measured first (an impossible budget ends here); features are computed
once; heads are searched on them; the best are trained whole, written and measured as files; the most accurate file that
keeps the budget is chosen on validation clips, trained once more on all clips that are not test, and scored on test.
Of stored features there are no extractors to search: records.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..datasets.read import stores_features
from ..errors import RecipeError, TrainingError
from ..progress import say
from ..recipe import Extractor
from .budget import parse_seconds, read_budget
from .course import Course
from .data import FEW_CLIPS, judge
from .records import search_records
from .space import Space, cuts_of
from .trials import TrialLog, holds_search

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


def fit(
    data: str | Path,
    max_size: str | int | None = None,
    max_latency: str | float | None = None,
    latency: str = "frame-p95",
    max_memory: str | int | None = None,
    min_accuracy: float = 0.0,
    time: str | float = "30m",
    out: str | Path = "runs/fit",
    fold: str | None = None,
    device: str | Path | None = None,
    seed: int = 0,
    workers: int = 2,
    resume: bool = False,
    strict: bool = False,
    space: Space | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Find the most accurate model that fits a budget, and leave it and the evidence in ``out``.

        vidlet.fit("clips/", max_size="1MB", max_latency="8ms", time="30m", out="runs/fit")

    Validation clips choose; test clips are scored once, by the chosen file. ``out`` holds ``model.onnx`` (the chosen),
    ``report.html``, ``fit.json``, ``recipe.toml``, ``trials.jsonl`` and ``files/``, every measured file of the search.
    Of records of frame features it is the best ensemble of heads in one file.

    Args:
        max_size: of the file: "1MB" (10^6), "256KiB", or bytes.
        max_latency: "8ms", or milliseconds, on one thread.
        latency: what that limits: "frame-p50", "frame-p95", "clip-p50" or "clip-p95".
        max_memory: peak resident memory of a process that loads and runs the file.
        min_accuracy: on validation clips, in [0, 1].
        time: for the whole search, the features included: "30m", or seconds; what is under way is finished.
        fold: "0/5" tests on part 0 of 5, as in ``train``.
        device: a file that ``vidlet benchmark --save`` wrote on the target; latencies are then the target's.
        workers: trials side by side, each on one thread; of stored features: threads of the training.
        resume: go on with the search in ``out``; else ``out`` must hold none.
        space: what is searched; None: the cuts of the built-in extractor, as large an input as time allows.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics: ``chosen``, ``front``, ``what_if``, ``steps``, and the
        figures of the chosen file on test (on validation clips where there is no test); of stored features ``chosen``
        (members, weights, GAP@20 on validation records), ``ensemble``, ``trials``, and the figures.

    Raises:
        RecipeError: a limit that is none, or a budget that nothing in the space fits (at once, with the nearest).
        TrainingError: nothing found keeps the budget; everything found is left in ``out``.
        DataError: nothing usable in ``data``, or too few groups.
    """
    budget = read_budget(max_size, max_latency, latency, max_memory, min_accuracy, device)
    seconds = parse_seconds(str(time))
    folder = Path(out)
    if not resume and holds_search(folder / "trials.jsonl"):
        raise TrainingError(f"{folder}: holds a search; --resume goes on with it, or choose another --out")
    command = command or f"vidlet fit {data}"
    if stores_features(data):
        if space is not None:
            raise RecipeError("fit: a space is of extractors; these data are stored features")
        return search_records(str(data), folder, budget, seconds, fold, seed, strict, command, threads=workers)
    judged = judge(data, fold, strict)
    few = len(judged.folds[0]) < FEW_CLIPS
    asked = space or replace(FEW if few else MANY, seed=seed)
    ladder = [asked.extractors] if space else usual_ladder()
    determined = json.dumps([judged.table.sha256(), asdict(asked), fold], sort_keys=True)
    log = TrialLog(folder / "trials.jsonl", hashlib.sha256(determined.encode()).hexdigest())
    course = Course(log, folder, judged, budget, seconds, workers)
    course.prepare(asked, ladder)
    interrupted = False
    try:
        course.search()
        course.make_files()
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted: going on with the best so far")
    result = course.conclude(str(data), fold, command)
    if interrupted:
        raise KeyboardInterrupt
    return result
