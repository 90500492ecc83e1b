"""``vidlet fit``: the most accurate model that fits a budget, with the evidence.

The way: what each cut of the extractor costs is measured first (an impossible budget ends here); features are computed
once; heads are searched on them; the best are trained whole, written and measured as files; the most accurate file that
keeps the budget is chosen on validation clips, trained once more on all clips that are not test, and scored on test.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..jobs.progress import say
from .budget import Budget
from .course import Course
from .data import judge
from .space import Space
from .trials import TrialLog


def fit(
    data: str | Path,
    budget: Budget,
    out: str | Path = "runs/fit",
    seconds: float = 1800.0,
    fold: str | None = None,
    seed: int = 0,
    workers: int = 2,
    resume: bool = False,
    strict: bool = False,
    space: Space | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Find the most accurate model that fits a budget, and leave it and the evidence in ``out``.

        vidlet.fit("clips/", Budget(max_bytes=1_000_000, max_latency_ms=8), out="runs/fit")

    Validation clips choose; test clips are scored once, by the chosen file. ``out`` holds ``model.onnx`` (the chosen),
    ``report.html``, ``fit.json``, ``recipe.toml``, ``trials.jsonl`` and ``files/``, every measured file of the search.

    Args:
        seconds: wall time of the search, the features included; files under way are finished.
        workers: trials side by side, each on one thread.
        resume: go on with the search in ``out``; else it must be a new one.
        space: what is searched; None: the built-in extractor's cuts, as large an input as time allows.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics: ``chosen``, ``front``, ``what_if``, ``steps``, and the
        figures of the chosen file on test (validation where there is no test).

    Raises:
        RecipeError: no model of the space fits the budget (at once, with the nearest that is possible).
        TrainingError: no file reached ``min_accuracy`` within the budget; everything found is left in ``out``.
        DataError: nothing usable in ``data``, or too few groups.
    """
    folder = Path(out)
    if not resume and (folder / "trials.jsonl").exists():
        raise TrainingError(f"{folder}: holds a search; --resume goes on with it, or choose another --out")
    judged = judge(data, fold, strict)
    asked = space or Space(seed=seed)
    identity = hashlib.sha256(
        json.dumps([judged.table.sha256(), asdict(asked), fold], sort_keys=True, default=str).encode()
    ).hexdigest()
    log = TrialLog(folder / "trials.jsonl", identity)
    interrupted = False
    try:
        course = Course(log, folder, judged, budget, seconds, workers)
        course.prepare(asked, fixed_size=space is not None)
        try:
            course.search()
            course.make_files()
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted: going on with the best so far")
        result = course.conclude(str(data), fold, command or f"vidlet fit {data}")
    finally:
        log.close()
    if interrupted:
        raise KeyboardInterrupt
    return result
