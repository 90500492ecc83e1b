"""The best ensemble of trained files that fits a byte limit, as one file that is scored again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runs import RunFolder
from ..search.budget import parse_bytes
from ..tasks.ensemble import find_ensemble


def ensemble(
    data: str | Path,
    models: Sequence[str | Path],
    max_bytes: int | str,
    out: str | Path = "runs/ensemble",
    file: str = "",
    fold: str | None = None,
    strict: bool = False,
    resume: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Search the members and weights whose joint file fits, and leave it as ``model.onnx`` in ``out``.

        vidlet.ensemble("records/", ["runs/a", "runs/b"], max_size="700KB", out="runs/best")

    ``report.html`` shows it beside every candidate. Members are chosen by GAP@20 on the validation clips, from
    predictions of the files that are kept in the cache; the file is scored on test beside its members. Members share
    the inputs, and what they compute and store alike.

    Args:
        models: model files, or run folders, of which every ``model*.onnx`` is a candidate.
        max_bytes: of the file, metadata included; a number, or as "700KB" (also called ``max_size``).
        file: of run folders, only the file of this name.
        resume: finish an ensemble of these files in ``out`` that was broken off; else ``out`` must hold no model.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics["ensemble"] has members, weights, bytes, the validation GAP
        and the candidates'; metrics["members"] what each member reaches on the scored clips.

    Raises:
        TrainingError: ``out`` holds a run; with ``resume`` one that is no ensemble of these files.
        DataError: no candidate fits, or the candidates do not have the same labels or do not see the same frames.
    """
    limit = parse_bytes(max_bytes) if isinstance(max_bytes, str) else max_bytes
    run = RunFolder.of(out)
    run.check_free(resume=resume)
    _held = run.hold()
    return find_ensemble(run, data, models, limit, file, fold, strict, command)
