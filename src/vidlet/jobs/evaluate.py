"""Score a model file on labelled data: the artifact, through the runtime, never the training object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cloud import reaching
from ..errors import DataError, VidletError
from ..progress import say, working
from ..runs import METRICS, shipped, verify_evidence
from ..runtime import Model, load
from ..tasks import DataSource, task_of_model


@reaching
def evaluate(
    model: str | Path,
    data: str | Path,
    split: str | None = None,
    fold: str | None = None,
    strict: bool = False,
    threads: int = 1,
    against: str | Path | None = None,
    report: str | Path | None = None,
    verify: bool = False,
) -> dict[str, Any]:
    """Score a model file on labelled clips, records or images with boxes, through the runtime.

    Args:
        model: a model file, or a run folder: its file to ship on this machine (runs/shipped.py).
        split: "train", "val", "test" or "all"; None: test, or val where there is no test.
        fold: "0/5" scores part 0 of 5, as ``train`` with the same fold left it out.
        against: another model file of the same labels, scored on the same clips (see ``compare_models``).
        report: an HTML file that sets the two beside each other.
        verify: hold the figures against those that the file says of itself: ``verified`` (see ``verify_evidence``).

    Returns:
        ``accuracy``, ``accuracy_interval`` [low, high] (95 %), ``accuracy_interval_rule`` ("bootstrap over groups", or
        "Wilson" where clips have no groups, "Wilson over groups" where all are alike), ``top5``, ``macro_f1``,
        ``per_class`` {label: precision, recall, f1, support}, ``confusion``, ``ece``, ``bytes``, ``clips``, ``clip_ms``
        {"p50", "p95"}, ``split``, ``skipped`` and ``damaged`` (lists of {"path", "error"}); with another file
        ``against``: its figures, the differences and where the two disagree. Rates are fractions. Where a clip may have
        many labels, ``gap20``, ``hit1``, ``perr`` and ``map``; ``accuracy`` is Hit@1 then, ``top5`` the share of clips
        with a label among the five highest, ``macro_f1`` that at the threshold 0.5, and there is no confusion matrix.
        For a file that only detects, ``map50`` (PASCAL VOC's area), ``map50_interval`` (95 %, bootstrap over images),
        ``map50_11``, ``map50_95`` (COCO), ``per_class`` {label: ap50, ap50_95, truths, detections}, ``images``,
        ``boxes``, ``bytes``, ``image_ms``, ``split`` and ``skipped``.

    Raises:
        DataError: no clips, none that can be read, or a label that the model does not know.
        ModelError: not a model file.
    """
    if report and not against:
        raise DataError("--report sets two files beside each other: name the other with --against")
    if verify and against:
        raise DataError("--verify is of one file; leave --against out")
    path = shipped(model, threads)
    loaded = load(path, threads=threads)
    task = task_of_model(loaded)
    task.check_options(DataError, fold=fold, against=against)
    with working(f"read {data}"):
        table = task.read(DataSource(data, fold, strict, names=loaded.labels))
    _say_if_learned(path, loaded, table, lambda own: task.read(DataSource(data, own, strict, names=loaded.labels)))
    name, chosen = task.scored_split(table, split)
    say(f"evaluate {path}: {len(chosen)} {name} {task.counted} of {data}")
    if against and task.compare is not None:
        other = load(shipped(against, threads), threads=threads)
        return {"split": name, **task.compare(loaded, other, chosen, (str(model), str(against)), strict, report)}
    found = {"split": name, **task.figures(loaded, chosen, strict)}
    if verify:
        found["verified"] = verify_evidence(path, found, name, table)
    return found


def _say_if_learned(path: Path, loaded: Model, table: Any, read: Callable[[str | None], Any]) -> None:
    """Warn where these data were split otherwise for the training: the file may have learned from what is scored."""
    known = {item.get("table_sha256") for item in loaded.metadata.get("evidence", ())}
    if not known or table.sha256() in known:
        return
    try:
        own = json.loads((path.parent / METRICS).read_text("utf-8")).get("fold")
        same = read(own).sha256() in known
    except (OSError, ValueError, AttributeError, VidletError):
        return  # no run stands beside the file, or its split cannot be made of these data
    if same:
        split = f"--fold {own}" if own else "no --fold"
        say(f"warning: the file learned from these data with {split}: clips that it learned from are scored here")
