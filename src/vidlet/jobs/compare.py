"""Finished runs and model files in one table: accuracy with intervals, bytes, times, differences in pairs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_text
from ..progress import working
from ..runs import ALL, RunFolder, product_of
from ..runtime import load
from ..runtime.benchmark import benchmark as measure
from ..tasks import DataSource, task_of_model
from ..tasks.compare_runs import Said, as_csv, compare_said, of_run, of_scores, write_comparison


def compare(
    runs: Sequence[str | Path],
    data: str | Path | None = None,
    split: str | None = None,
    against: str | None = None,
    benchmark: bool = False,
    csv: str | Path | None = None,
    report: str | Path | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Set finished runs beside each other, by what they listed of their test clips; nothing is scored again.

        vidlet.compare(["runs/a", "runs/b"], report="compare.html")

    Args:
        runs: run folders, each with all of its files; with ``data`` model files, too.
        data: score every file on these clips now; of a run all but those of ``--refit-all``, which have seen them.
        split: of ``data``: "train", "val", "test" or "all"; None: test, or val where there is no test.
        against: the run or file that the others are compared with; None: the first.
        benchmark: measure now how long a frame takes, on this machine, with one thread.
        csv: a file for the table. report: an HTML file with the table and a chart.

    Returns:
        {"against", "rows": [{"name", "model", "recipe", "split", "clips", "figure", "accuracy", "accuracy_interval",
        "bytes", "clip_ms", "frame_ms", "difference"}], "notes"}, rows in the given order. ``accuracy`` is the value of
        ``figure``: "accuracy", of a detector "map50", of many labels a clip "gap20". ``clip_ms`` is the median with
        decoding when the file was scored (of an image without); ``difference`` {"mean", "low", "high", "clips"} is the
        figure minus that of ``against`` in pairs on the clips that both saw (95 %, bootstrap over groups), None where
        there are none; those of "map50" and "gap20" need ``data``.

    Raises:
        DataError: no run with a list of predictions (others beside one are left out with a note), or clips that a file
            cannot name.
    """
    said, left_out = _scored(runs, data, split, strict) if data is not None else _listed(runs)
    if not said:
        raise DataError("compare: name at least one run")
    if benchmark:
        said = [_measured(one) for one in said]
    found = compare_said(said, against)
    found["notes"] += left_out
    if csv is not None:
        write_text(csv, as_csv(found))
    if report is not None:
        write_comparison(report, found, f"{platform.machine()}, 1 thread" if benchmark else "")
    return found


def _listed(runs: Sequence[str | Path]) -> tuple[list[Said], list[str]]:
    """What the runs said, and notes of those that are none; of `runs/*` these are left out."""
    found: list[Said] = []
    wrong: list[DataError] = []
    for run in map(Path, runs):
        if not run.exists():
            raise DataError(f"{run}: no such run; give --data DATA for files")
        try:
            found += of_run(run)
        except DataError as error:
            wrong.append(error)
    if wrong and not found:
        raise wrong[0]
    return found, [f"{error}; left out" for error in wrong]


def _scored(
    runs: Sequence[str | Path], data: str | Path, split: str | None, strict: bool
) -> tuple[list[Said], list[str]]:
    """What the files say of the clips now, and notes of files of a run that are left out."""
    found: list[Said] = []
    notes: list[str] = []
    for run in runs:
        files, seen = _files(run)
        notes += [f"{path} was trained on all clips; left out" for path in seen]
        for path in files:
            with working(f"score {path}"):
                model = load(path, threads=1)
                task = task_of_model(model)
                where, chosen = task.scored_split(task.read(DataSource(data, None, strict, names=model.labels)), split)
                scored = task.score(model, chosen, strict)
            about = {"recipe": str((model.metadata.get("recipe") or {}).get("name", "")), "split": where}
            name = f"{run}/{path.name}" if len(files) > 1 else str(run)
            found.append(of_scores(name, path, scored, task.summarize(scored, model), **about))
    return found, notes


def _files(source: str | Path) -> tuple[list[Path], list[Path]]:
    """The model file of a name; of a run all, its product first, and those that were trained on all of its clips."""
    product = product_of(source, told=False)
    if not Path(source).is_dir():
        return [product], []
    run = RunFolder.of(source)
    seen = [path for path in run.candidates() if path.name.startswith(ALL)]
    return [product, *(path for path in run.candidates() if path not in (product, *seen))], seen


def _measured(said: Said) -> Said:
    with working(f"measure {said.path}"):
        return replace(said, frame_ms=measure(said.path, seconds=1.0, threads=1, clip_frames=1)["frame_ms"]["p50"])
