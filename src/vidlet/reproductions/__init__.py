"""One module a seed paper: its recipes, its tables, what we get beside what it printed.

A module has ``tables()``; it is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RecipeError
from ..recipe import nearest


class Paper(NamedTuple):
    """What a paper is, and the built-in recipes that follow it."""

    title: str
    recipes: tuple[str, ...] = ()


PAPERS = {  # each is the module of this name
    "youtube8m": Paper("Liu & Liu 2018: size-constrained gated NetVLAD models for YouTube-8M"),
    "deepeye": Paper(
        "Cheng et al.: DEEPEYE, an 8-bit tiny-YOLOv2 and a tensor-train LSTM in one pass",
        ("tiny-yolov2", "lstm-pixels", "tt-lstm-pixels", "deepeye"),
    ),
    "tt3dcnn": Paper(
        "Wang et al.: 3-D CNNs compressed by tensor-train decomposition",
        (
            "viva-1",
            "viva-1-tt",
            "viva-2",
            "viva-2-tt",
            "viva-4",
            "viva-4-tt",
            "ucf-rgb",
            "ucf-rgb-tt",
            "ucf-flow",
            "ucf-flow-tt",
        ),
    ),
    "mobile": Paper(
        "Chiche 2019: MobileNetV2 and Inception-v3 with recurrent classifiers on UCF101",
        tuple(
            f"{extractor}-{head}" for extractor in ("mobilenetv2", "inceptionv3") for head in ("gru", "lstm", "single")
        ),
    ),
}


EXPERIMENTS = ("tt3dcnn", "deepeye", "mobile")  # these have ``measure(tables, data, effort, log)``


def papers(
    name: str | None = None,
    data: str | None = None,
    epochs: int = 10,
    seeds: int = 1,
    clips: float = 1.0,
    out: str | None = None,
    detector: str | None = None,
    overrides: Mapping[str, Any] | None = None,
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

    Returns:
        {"tables": [{"title", "rows": [{"name", "unit", "printed", "recomputed", "measured"}]}]}: numbers, or None
        where there is none; accuracies are fractions. With data also {"measured_on": {"data", "epochs", "seeds",
        "clips", "scored"}} and, where any are given, "overrides". Without a name {"papers": [{"name", "title",
        "recipes"}]}.

    Raises:
        RecipeError: no such paper, with the nearest; or ``data`` for one without an experiment.
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
    module = importlib.import_module(f"{__name__}.{name}")
    tables: dict[str, Any] = module.tables()
    if data is None:
        return tables
    from .experiment import Effort

    log = Path(out or Path("runs") / f"papers-{name}.jsonl")
    effort = Effort(epochs, seeds, clips, Path(detector) if detector else None, dict(overrides or {}))
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
