"""The papers' tables: what they print, what our code recomputes of it, what we measured."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import reproductions
from ..errors import RecipeError
from ..recipe import nearest
from ..reproductions import EXPERIMENTS, PAPERS


def papers(
    name: str | None = None,
    data: str | None = None,
    epochs: int = 10,
    seeds: int = 1,
    clips: float = 1.0,
    out: str | None = None,
    detector: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """The tables of a paper: what it prints, what our code recomputes of it, what we measured.

    Args:
        name: a name of ``PAPERS``; None lists them.
        data: clips to run the paper's experiment on, reduced: its recipes, for ``epochs`` epochs, with ``seeds``
            seeds, on a share ``clips`` of the data.
        out: a file that gets a JSON line a finished run, which is not run again; None: runs/papers-NAME.jsonl.
        detector: deepeye: the run folder of a trained detector, for the rows on its features.
        overrides: values of the experiment's recipes, as ``train`` takes them; an option of the head, of those recipes
            whose head has it.
        device: where the experiment trains: "auto", "cpu" or "cuda".

    Returns:
        {"tables": [{"title", "rows": [{"name", "unit", "printed", "recomputed", "measured"}]}]}: numbers, or None
        where there is none; accuracies are fractions. With data also {"measured_on": {"data", "epochs", "seeds",
        "clips", "scored"}} and, where any are given, "overrides". Without a name {"papers": [{"name", "title",
        "recipes"}]}.

    Raises:
        RecipeError: no such paper, with the nearest; or ``data`` for one without an experiment.
        TrainingError: "cuda" where there is none.
        VidletError: what is wrong with the data.
    """
    if name is not None and name not in PAPERS:
        raise RecipeError(f"no paper {name!r}{nearest(name, PAPERS)}; known: {', '.join(PAPERS)}")
    if data is not None and name not in EXPERIMENTS:
        raise RecipeError(_no_experiment(name))
    if detector is not None and (name != "deepeye" or data is None):
        raise RecipeError("papers: a detector is of use with deepeye and data only")
    if overrides and data is None:
        raise RecipeError("papers: values of recipes are of use with data only")
    if name is None:
        return {"papers": [{"name": key, **paper._asdict()} for key, paper in PAPERS.items()]}
    if data is not None:
        from ..training import find_device

        device = find_device(device)
    module = importlib.import_module(f"{reproductions.__name__}.{name}")
    tables: dict[str, Any] = module.tables()
    if data is None:
        return tables
    from ..reproductions.experiment import Effort

    log = Path(out or Path("runs") / f"papers-{name}.jsonl")
    effort = Effort(epochs, seeds, clips, Path(detector) if detector else None, dict(overrides or {}), device)
    scored = module.measure(tables["tables"], data, effort, log)
    told = {"data": Path(data).name, "epochs": epochs, "seeds": seeds, "clips": clips, "scored": scored}
    told |= {"overrides": effort.overrides} if effort.overrides else {}
    return {**tables, "measured_on": told}


def _no_experiment(name: str | None) -> str:
    if name is None:
        return "papers: data is of use with the name of a paper only"
    recipes = PAPERS[name].recipes
    instead = f"; train one of its recipes on it: {', '.join(recipes)}" if recipes else ""
    return f"papers {name}: no experiment on data is built in{instead}"
