"""Ready models: what there is, what each is good for by its own evidence, and fetching one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError, VidletError, WeightsError
from ..progress import say, working
from ..published import ALIASES, WEIGHTS, WeightsFile, find_file, is_here
from ..recipe import nearest
from ..runs import READY, how_to_get, local_models, model_file, ready_names
from ..runtime import load
from ..tasks import task_of_model


def ready_models(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """List the ready models and the pretrained weights that trainings start from; fetch those that are named.

        vidlet.ready_models()                          # what there is; nothing is fetched
        vidlet.ready_models(["fastestdet"])            # fetch it
        vidlet.load("fastestdet")                      # as any model file, then

    Args:
        names: of models or weights that are to be on this machine afterwards. Of a published detector a model file is
            made, which needs the training extra. VIDLET_WEIGHTS names a folder that published files are read from.

    Returns:
        {"name", "kind": "model" or "weights", "task", "labels", "input_size", "hz", "bytes", "evidence", "licence",
        "source", "about", "path"} of each, or of those named. What only the file can say (labels, size of its frames,
        frames a second, bytes, what was measured) is None, and so is ``path``, where the file is not on this machine.

    Raises:
        ModelError: no such name, or one that a command makes. WeightsError: a file that cannot be had.
    """
    for name in names:
        _obtain(name)
    found = [*(_local(name, path) for name, path in local_models()), *map(_of_table, READY), *map(_weights, WEIGHTS)]
    wanted = {ALIASES.get(name, name) for name in names}
    return [row for row in found if not names or row["name"] in wanted]


def _obtain(name: str) -> None:
    if any(known == name for known, _ in local_models()):
        return
    if ALIASES.get(name, name) in WEIGHTS:
        with working(f"fetch {name}"):
            find_file(WEIGHTS[ALIASES.get(name, name)])
        return
    if name not in READY:
        near = nearest(name, [*ready_names(), *ALIASES, *WEIGHTS])
        raise ModelError(f"{name}: no ready model{near}; `vidlet models` lists them")
    entry = READY[name]
    if entry.place(name).is_file():
        return
    if not entry.parts:
        raise ModelError(f"{name}: is not published; {how_to_get(name)}")
    _make(name, entry.parts, entry.place(name))


def _make(name: str, parts: Sequence[WeightsFile], place: Path) -> None:
    """Fetch a detector's files and write ours of them."""
    from ..artifact.detector import export_brought

    with tempfile.TemporaryDirectory() as folder:
        with working(f"fetch {name}"):
            copies = [Path(shutil.copyfile(find_file(part), Path(folder) / part.file)) for part in parts]
        with working(f"write {name}"):
            export_brought(copies[0], place, "coco", {"licence": parts[0].licence, "url": parts[0].url})
    say(f"{name}: {place}")


def _of_table(name: str) -> dict[str, Any]:
    entry = READY[name]
    path = entry.place(name)
    told = {"task": entry.task, "licence": entry.licence, "source": entry.source, "about": entry.about}
    return {**_row(name, path if path.is_file() else None), **told}


def _local(name: str, path: Path) -> dict[str, Any]:
    return {**_row(name, model_file(path)), "source": str(path.parent)}


def _row(name: str, path: Path | None) -> dict[str, Any]:
    """What a file says of itself; of one that cannot be read, why."""
    keys = ("task", "labels", "input_size", "hz", "bytes", "evidence", "licence", "source", "about", "path")
    row: dict[str, Any] = {"name": name, "kind": "model", **dict.fromkeys(keys)}
    if path is None:
        return row
    try:
        row |= {"path": str(path), "bytes": path.stat().st_size}
        model = load(path, threads=1)
        task = task_of_model(model).name
    except (OSError, VidletError) as error:
        return {**row, "about": str(error)}
    about = model.metadata
    recipe, provenance = (about.get("recipe") or {}), (about.get("provenance") or {})
    return {
        **row,
        "task": task,
        "labels": [*model.labels, *model.box_labels],
        "input_size": list(model.input_size) if "frames" in model.inputs else None,
        "hz": about["sampling"].get("hz"),
        "evidence": about.get("evidence") or [],
        "licence": str(provenance.get("licence", "not stated")),
        "about": str(recipe.get("name", "")),
    }


def _weights(name: str) -> dict[str, Any]:
    entry, here = WEIGHTS[name], is_here(WEIGHTS[name])
    row = {**_row(name, None), "kind": "weights", "licence": entry.licence, "source": entry.url, "about": entry.about}
    try:
        path = find_file(entry) if here else None
    except WeightsError as error:  # a damaged one
        return {**row, "about": str(error)}
    if path is not None:
        row |= {"path": str(path), "bytes": path.stat().st_size}
    return row
