"""``vidlet fit``: the most accurate model that fits a budget, with the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..cloud import reaching
from ..errors import RecipeError, TrainingError
from ..features import on_cluster
from ..files import Lock
from ..processes import check_script
from ..recipe import load_end_to_end
from ..runs import RunFolder
from ..search.boxes import search_boxes
from ..search.budget import parse_seconds, read_budget
from ..search.clips import check_same, search_clips
from ..search.course import Asked
from ..search.joined import leading
from ..search.records import RecordTrials, check_same_records, search_records
from ..search.space import Space
from ..search.trials import holds_search
from ..search.tuned import AUTO, NO
from ..tasks import task_of_data
from ..training import find_device

SEARCHES: dict[str, Callable[..., dict[str, Any]]] = {  # by the name of a task; each takes what was asked for
    "clips": search_clips,
    "boxes": search_boxes,
    "records": search_records,
}


@reaching
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
    train_on: str = "cpu",
    join: bool = False,
    none: str | Path | None = None,
    engine: str | None = None,
    address: str | None = None,
    fine_tune: str = "auto",
) -> dict[str, Any]:
    """Find the most accurate model that fits a budget, and leave it and the evidence in ``out``.

        vidlet.fit("clips/", max_size="1MB", max_latency="8ms", time="30m", out="runs/fit")

    Validation clips choose; test clips are scored once, by the chosen file. ``out`` holds ``model.onnx`` (the chosen),
    ``report.html``, ``fit.json``, ``recipe.toml``, ``trials.jsonl`` and ``files/``, every measured file of the search.
    Of records of frame features it is the best ensemble of heads in one file; of images with boxes a detector.

    Args:
        max_size: of the file: "1MB" (10^6), "256KiB", or bytes.
        max_latency: "8ms", or milliseconds, on one thread.
        latency: what that limits: "frame-p50", "frame-p95", "clip-p50" or "clip-p95".
        max_memory: peak resident memory of a process that loads and runs the file.
        min_accuracy: on validation clips, in [0, 1]; of a detector its mAP at .5.
        time: for the whole search, the features included: "30m", or seconds; what is under way is finished.
        fold: "0/5" tests on part 0 of 5, as in ``train``.
        device: a file that ``vidlet benchmark --save`` wrote on the target; latencies are then the target's.
        workers: trials side by side, each on one thread; of stored features and boxes: threads of the training.
        resume: go on with the search in ``out``; else ``out`` must hold none.
        join: share the trials with all processes that are started so on the same ``out``, on whichever machines; the
            first leads, the others help until it is done, and one of them goes on if it dies. They need the data, and
            one cache of features (``VIDLET_CACHE``), that all of them see.
        engine: "ray": trials by the actors of a Ray cluster, as many as it has processors, at ``address`` or, without
            one, on this machine (docs/scale.md). They need one cache of features that all of them see.
        train_on: where heads and detectors are trained: "auto", "cpu" or "cuda".
        none: a folder of videos without any of the classes, or the class of ``data`` that means so: as for ``train``.
        fine_tune: "auto" trains a network end to end, too, extractor and head, where ``time`` is known to suffice; "no"
            never does; else the name or file of a recipe to fine-tune, instead of the built-in one.
        space: what is searched among clips; None: the cuts of the built-in extractor, as large an input as time allows.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics: ``chosen``, ``front``, ``what_if``, ``steps``, and the
        figures of the chosen file on test (on validation clips where there is no test); of stored features ``chosen``
        (members, weights, GAP@20 on validation records), ``ensemble``, ``trials``, and the figures. ``accuracy`` of a
        detector's files is mAP at .5.

    Raises:
        RecipeError: a limit or a recipe that is none; a budget that nothing in the space fits (at once, with the
            nearest).
        TrainingError: nothing found keeps the budget; everything found is left in ``out``.
        DataError: nothing usable in ``data``, too few groups, or no cluster at ``address``.
        DependencyError: Ray is not installed.
        VidletError: a script registers heads or the like and is not guarded by its name (``processes.py``).
    """
    train_on = find_device(train_on)
    budget = read_budget(max_size, max_latency, latency, max_memory, min_accuracy, device)
    seconds = parse_seconds(str(time))
    task = task_of_data(data)
    tuned = None if fine_tune in (AUTO, NO) else load_end_to_end(fine_tune, "--fine-tune")
    task.check_options(RecipeError, fold=fold, space=space, none=none, fine_tune=tuned)
    folder = Path(out)
    if join or task.name == "clips":
        check_script()
    _check_sharing(join, engine, address, train_on, task.name, str(data))
    command = command or f"vidlet fit {data}"
    nothing = None if none is None else str(none)
    asked = Asked(
        str(data), folder, budget, seconds, fold, seed, strict, command, workers, train_on, none=nothing,
        fine_tune=fine_tune,
    )  # fmt: skip
    search = partial(SEARCHES[task.name], **({"space": space} if space else {}))
    if join:
        records = task.name == "records"
        trials = partial(RecordTrials, asked, ()) if records else None
        with leading(folder, workers, trials) as board, torch_threads(workers):
            if board is not None:
                return search(replace(asked, board=board))
            if records:
                check_same_records(asked)
            else:
                check_same(asked, space)
            run = RunFolder(folder)
            return run.result(run.metrics())
    _held = Lock(folder).hold()
    if not resume and holds_search(folder / "trials.jsonl"):
        raise TrainingError(f"{folder}: holds a search; --resume goes on with it, or choose another --out")
    with torch_threads(workers):
        if engine is None:
            return search(asked)
        with on_cluster(address) as ray:
            return search(replace(asked, ray=ray))


def _check_sharing(join: bool, engine: str | None, address: str | None, train_on: str, holds: str, data: str) -> None:
    """RecipeError: trials cannot be shared so."""
    given = "--join" if join else f"--engine {engine}" if engine else ""
    if engine not in (None, "ray"):
        raise RecipeError(f"--engine {engine}: must be ray")
    if address is not None and engine is None:
        raise RecipeError(f"--address {address}: is of --engine ray")
    if join and engine:
        raise RecipeError("--join and --engine: are two ways to share trials; give one")
    if given and holds == "boxes":
        raise RecipeError(f"{given}: shares the trials of a search over clips or records; {data} holds {holds}")
    if engine and train_on != "cpu":
        raise RecipeError(f"--engine {engine}: its workers train on processors; give no --train-on {train_on}")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """As many threads of torch, for as long as this takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
