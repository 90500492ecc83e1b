"""Several trainings of the same data, each in several sizes, and one table of all of them."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..compression import file_name
from ..errors import DataError, RecipeError, TrainingError, VidletError
from ..files import Lock, write_text
from ..progress import bar, say
from ..recipe import Recipe, load_recipe, recipe_to_dict
from ..runs import MODEL, RunFolder
from ..search.budget import parse_bytes, parse_seconds
from ..search.trials import holds_search
from ..tasks import task_of_recipe
from ..tasks.compare_runs import ACCURACY
from ..training import find_device
from ..wording import as_json
from .compare import compare
from .compress import compress
from .fit import fit
from .train import AUTO, train

SETTINGS, TABLE, PAGE = "sweep.json", "table.csv", "compare.html"


@dataclass(frozen=True)
class Way:
    """One run of a sweep: a training by a recipe with some values changed, or a search within so many bytes."""

    name: str
    recipe: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    max_size: str = ""


def sweep(
    data: str | Path,
    recipes: Sequence[str] = (),
    overrides: Mapping[str, Sequence[Any]] | None = None,
    chains: Sequence[str] = (),
    max_sizes: Sequence[str] = (),
    time: str = "10m",
    out: str | Path = "runs/sweep",
    fold: str | None = None,
    device: str = "auto",
    benchmark: bool = False,
    strict: bool = False,
) -> dict[str, Any]:
    """Train by every recipe with every combination of values, compress by every chain, and compare all files.

        vidlet.sweep("clips/", ["mean", "mobilenetv2-gru"], {"seed": [0, 1, 2]}, ["units:0.5+int8"], out="runs/s")

    What is finished in ``out`` is not done again, and what was broken off goes on: the same call finishes a sweep, a
    longer one adds to it. A run that fails is told and left out of the table.

    Args:
        recipes: names or .toml files; none: "auto", unless ``max_sizes`` are given.
        overrides: key of a recipe -> the values to try; of several keys every combination.
        chains: of compression steps, each a further file of every training (docs/recipes.md).
        max_sizes: budgets, as "100KB": of each one ``vidlet.fit`` for ``time``.
        fold: "0/5" tests on part 0 of 5; None: the splits of the data.
        benchmark: measure at the end how long a frame takes, file by file.
        strict: a run that fails ends the sweep.

    Returns:
        What ``compare`` returns, with "out" and "failed": [{"name", "error"}]. ``out`` holds a run folder each, and
        the table as table.csv and compare.html.

    Raises:
        VidletError: a recipe, key or chain that is none, before anything is trained; ``out`` holds another sweep;
            every run failed.
    """
    if max_sizes and not recipes and (overrides or chains):
        raise RecipeError(
            "sweep: values and chains are of trainings, searches have none; name a recipe beside max_sizes"
        )
    device, folder = find_device(device), Path(out)
    ways = _ways(recipes, overrides or {}, max_sizes)
    parse_seconds(time)
    for size in max_sizes:
        parse_bytes(size)
    plans = {way.name: load_recipe(way.recipe, way.overrides) for way in ways if way.recipe}
    for plan in plans.values():
        task_of_recipe(plan, data).check_options(RecipeError, fold=fold)
        _files_of(chains, plan, data)
    _held = Lock(folder).hold()
    _note_settings(folder, data, fold, ways, plans)
    parts = [f"{len(plans)} trainings"] * bool(plans) + [f"{len(chains)} chains of each"] * bool(plans and chains)
    parts += [f"{len(max_sizes)} searches of {time}"] * bool(max_sizes)
    say(f"sweep   {', '.join(parts)} in {folder}")
    failed: list[dict[str, str]] = []
    with bar("sweep", "run") as move:
        for number, way in enumerate(ways, 1):
            say(f"[{number}/{len(ways)}] {way.name}")
            if MODEL not in RunFolder(folder / way.name).metrics()["files"]:  # what is done already tells no rate
                move(number - 1, len(ways))
            try:
                if way.max_size:
                    _searched(data, way, folder / way.name, time, fold, strict, device)
                else:
                    _trained(data, way, plans[way.name], chains, folder / way.name, fold, strict, device)
            except VidletError as error:
                if strict:
                    raise
                say(f"warning: {way.name}: {error}")
                failed.append({"name": way.name, "error": str(error)})
            move(number, len(ways))
    if len(failed) == len(ways):
        raise TrainingError(f"{folder}: every run failed; {failed[0]['name']}: {failed[0]['error']}")
    finished = [folder / way.name for way in ways if way.name not in {one["name"] for one in failed}]
    found = _compared(finished, folder, data if fold is None else None, benchmark)
    return {"out": str(folder), **found, "failed": failed}


def _ways(recipes: Sequence[str], overrides: Mapping[str, Sequence[Any]], max_sizes: Sequence[str]) -> list[Way]:
    """Every recipe with every combination of values, then every budget."""
    for what, given in (("recipes", recipes), ("max_sizes", max_sizes), *overrides.items()):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise RecipeError(f"sweep: {what} is {given!r}; expected a list")
    if empty := next((key for key, values in overrides.items() if not values), None):
        raise RecipeError(f"sweep: {empty} has no values")
    found = []
    for recipe in recipes or (() if max_sizes else (AUTO,)):
        for values in itertools.product(*overrides.values()):
            chosen = dict(zip(overrides, values, strict=True))
            parts = [f"{key.rpartition('.')[2]}{value}" for key, value in chosen.items()]
            found.append(Way(_plain("-".join([Path(recipe).stem, *parts])), recipe, chosen))
    found += [Way(_plain(f"fit-{size}"), max_size=str(size)) for size in max_sizes]
    names = [way.name for way in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"sweep: {twice} is asked for twice")
    return found


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def _note_settings(
    folder: Path, data: str | Path, fold: str | None, ways: Sequence[Way], plans: Mapping[str, Recipe]
) -> None:
    """Keep what each run is of, and refuse a folder whose runs are of something else.

    Raises:
        DataError: they are.
    """
    asked = {way.name: {**asdict(way), "plan": recipe_to_dict(plans[way.name]) if way.recipe else {}} for way in ways}
    about = json.loads(as_json({"data": str(data).rstrip("/") or "/", "fold": fold, "runs": asked}))
    path = folder / SETTINGS
    try:
        known = json.loads(path.read_text("utf-8")) if path.exists() else {**about, "runs": {}}
        other = [key for key in ("data", "fold") if known[key] != about[key]]
        other += [name for name, one in about["runs"].items() if known["runs"].get(name, one) != one]
        runs = {**known["runs"], **about["runs"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the settings of a sweep; choose another --out") from error
    if other:
        raise DataError(f"{folder}: holds a sweep of other settings ({other[0]}); choose another --out")
    if others := [name for name in asked if name not in known["runs"] and RunFolder(folder / name).metrics()["files"]]:
        raise DataError(f"{folder / others[0]}: a run that is not of this sweep; choose another --out")
    write_text(path, as_json({**about, "runs": runs}, indent=1))


def _files_of(chains: Sequence[str], plan: Recipe, data: str | Path) -> dict[str, str]:
    """The file of each chain.

    Raises:
        RecipeError: a step that is none, or that this network cannot have.
    """
    networks = task_of_recipe(plan, data).networks()
    return {file_name(networks.find_chain(chain, plan)): chain for chain in chains}


def _trained(
    data: str | Path,
    way: Way,
    plan: Recipe,
    chains: Sequence[str],
    out: Path,
    fold: str | None,
    strict: bool,
    device: str,
) -> None:
    """Train unless that is done, then make the files that are missing."""
    run = RunFolder(out)
    if MODEL not in run.metrics()["files"]:
        given = [part for key, value in way.overrides.items() for part in ("--set", f"{key}={_as_set(value)}")]
        command = shlex.join(["vidlet", "train", str(data), "--recipe", way.recipe, *given])
        train(data, way.recipe, out, way.overrides, fold, True, strict, device, command)
    known = run.metrics()["files"]
    if missing := [chain for name, chain in _files_of(chains, run.recipe(), data).items() if name not in known]:
        compress(out, data, missing, fold, strict, device=device)


def _as_set(value: Any) -> str:
    """A value as ``--set`` reads it: text as it stands, else TOML (True -> "true", {"crop": 0.2} -> "{crop=0.2}")."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}={json.dumps(part)}" for key, part in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def _searched(data: str | Path, way: Way, out: Path, time: str, fold: str | None, strict: bool, device: str) -> None:
    if MODEL in RunFolder(out).metrics()["files"]:
        return
    resume = holds_search(out / "trials.jsonl")
    fit(data, way.max_size, time=time, out=out, fold=fold, resume=resume, strict=strict, train_on=device)


def _compared(runs: Sequence[Path], folder: Path, data: str | Path | None, benchmark: bool) -> dict[str, Any]:
    """The table of all files; where pairs need what every file scores, they are scored on the data once more."""
    shown: dict[str, Any] = {"benchmark": benchmark, "csv": folder / TABLE, "report": folder / PAGE}
    found = compare(runs, **shown)
    if data is not None and all(row["figure"] != ACCURACY for row in found["rows"]):
        found = compare([row["model"] for row in found["rows"]], data, **shown)
    return found
