"""The papers' tables: what they print, what our code recomputes of it, what we measured."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import reproductions
from ..errors import RecipeError
from ..progress import say
from ..recipe import nearest
from ..reproductions import EXPERIMENTS, PAPERS, results

if TYPE_CHECKING:
    from ..reproductions.experiment import Effort

PROTOCOLS = ("quick", "paper")


def papers(
    name: str | None = None,
    data: str | None = None,
    epochs: int | None = None,
    seeds: int = 1,
    clips: float = 1.0,
    out: str | None = None,
    detector: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    protocol: str = "quick",
    folds: int = 0,
    rows: Sequence[str] = (),
    extractor: str | None = None,
    record: str | bool = False,
) -> dict[str, Any]:
    """The tables of a paper: what it prints, what our code recomputes of it, what we measured.

    Args:
        name: a name of ``PAPERS``; None lists them.
        data: clips to run the paper's experiment on, with ``seeds`` seeds, on a share ``clips`` of the data.
        protocol: "quick": some of its recipes, for ``epochs`` (10) epochs on the splits of the data; "paper": all of
            its rows by its own protocol, its folds, rates and epochs (``epochs``: at most so many).
        folds: of "paper", so many folds of a row, the first ones; 0: all. ``rows``: words of which a row must have one.
        out: a file that gets a JSON line a finished run, which is not run again; None: runs/papers-NAME.jsonl.
        detector: deepeye: the run folder of a trained detector, or a file that detects, for the rows on its features.
        extractor: mobile: a file for the rows of its other extractor: torchvision's state dict of Inception-v3, or an
            .onnx or .tflite file as ``train`` takes it.
        record: keep what was measured: True in the package's own file, or the path of a file of that form; without
            data, the file to show instead of the package's own.
        overrides: values of the experiment's recipes, as ``train`` takes them; an option of the head, of those recipes
            whose head has it.
        device: where the experiment trains: "auto", "cpu" or "cuda".

    Returns:
        {"tables": [{"title", "rows": [{"name", "unit", "printed", "recomputed", "measured"}]}]}: numbers, or None
        where there is none; accuracies are fractions. Without data, what was measured and is shipped, and where it
        comes from, {"measurements": [{"table", "row", "value", "data", "reduction", "version", "command", "date",
        "changed"}]}: ``changed`` where the code has changed since. With data also {"measured_on": {"data", "epochs",
        "seeds", "clips", "scored"}} and, where any are given, "overrides"; of the paper's protocol "protocol" and
        "reduced", a list of what is less than the paper's, too. Without a name {"papers": [{"name", "title",
        "recipes"}]}.

    Raises:
        RecipeError: no such paper or row, with the nearest; or ``data`` for one without an experiment.
        TrainingError: "cuda" where there is none.
        VidletError: what is wrong with the data.
    """
    if name is not None and name not in PAPERS:
        raise RecipeError(f"no paper {name!r}{nearest(name, PAPERS)}; known: {', '.join(PAPERS)}")
    if protocol not in PROTOCOLS:
        raise RecipeError(f"papers: no protocol {protocol!r}{nearest(protocol, PROTOCOLS)}; quick or paper")
    if data is not None and name not in EXPERIMENTS:
        raise RecipeError(_no_experiment(name))
    for what, given, needed in (("a detector", detector, "deepeye"), ("an extractor", extractor, "mobile")):
        if given is not None and (name != needed or data is None):
            raise RecipeError(f"papers: {what} is of use with {needed} and data only")
    if overrides and data is None:
        raise RecipeError("papers: values of recipes are of use with data only")
    if (folds or rows) and (data is None or protocol != "paper"):
        raise RecipeError("papers: folds and rows are of use with data and the paper's protocol only")
    if name is None:
        return {"papers": [{"name": key, **paper._asdict()} for key, paper in PAPERS.items()]}
    if data is not None:
        from ..training import find_device

        device = find_device(device)
    module = importlib.import_module(f"{reproductions.__name__}.{name}")
    tables: dict[str, Any] = module.tables()
    if data is None:
        known = results.stored(name, Path(record) if isinstance(record, str) else None)
        results.fill_stored(tables["tables"], known)
        return {**tables, "measurements": known}
    from ..reproductions.experiment import QUICK_EPOCHS, Effort
    from ..reproductions.protocol import reductions

    log = Path(out or Path("runs") / f"papers-{name}.jsonl")
    found = Path(detector) if detector else None
    effort = Effort(
        epochs, seeds, clips, found, dict(overrides or {}), device, protocol, folds, tuple(rows), extractor,
        results.code_of(name),
    )  # fmt: skip
    say(f"papers {name}: its experiment on {data}, {protocol} protocol, on {device}; writes {log}, a line a run")
    scored = module.measure(tables["tables"], data, effort, log)
    told = {"data": Path(data).name, "epochs": epochs, "seeds": seeds, "clips": clips, "scored": scored}
    told |= {"overrides": effort.overrides} if effort.overrides else {}
    if protocol == "paper":
        told |= {"protocol": protocol, "reduced": reductions(effort)}
    else:
        told["epochs"] = epochs or QUICK_EPOCHS
    if record:
        where = Path(record) if isinstance(record, str) else None
        count = results.record(name, tables["tables"], told, _command(name, data, effort), where, log)
        say(f"{count} measured values of {name} are kept")
    return {**tables, "measured_on": told}


def _command(name: str, data: str, effort: Effort) -> str:
    """What a person types to measure the same, with the name of the data instead of their place."""
    words = ["vidlet", "papers", name, "--data", Path(data).name]
    options = {
        "--protocol": effort.protocol if effort.protocol != "quick" else "",
        "--epochs": effort.epochs,
        "--seeds": effort.seeds if effort.seeds > 1 else 0,
        "--clips": f"{effort.clips:g}" if effort.clips < 1 else "",
        "--folds": effort.folds,
        "--extractor": Path(effort.extractor).name if effort.extractor else "",
        "--detector": effort.detector.name if effort.detector else "",
    }
    words += [part for key, value in options.items() if value for part in (key, str(value))]
    words += [part for text in effort.rows for part in ("--rows", text)]
    words += [part for key, value in effort.overrides.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return shlex.join(words)


def _no_experiment(name: str | None) -> str:
    if name is None:
        return "papers: data is of use with the name of a paper only"
    recipes = PAPERS[name].recipes
    instead = f"; train one of its recipes on it: {', '.join(recipes)}" if recipes else ""
    return f"papers {name}: no experiment on data is built in{instead}"
