"""`vidlet sweep`."""

from __future__ import annotations

import argparse
import re
from typing import Any

from ..wording import shown
from . import options
from .compare_command import table_text
from .train_command import need_train_extra

EXAMPLE = "example: vidlet sweep clips/ --recipe mean mobilenetv2-gru --set seed=0,1,2 --chain units:0.5+int8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet sweep`."""
    options.add_data(parser)
    parser.add_argument("--recipe", nargs="+", default=[], metavar="NAME|FILE", help="recipes to train by (auto)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=A,B,C",
        help="values of a recipe to try, as in seed=0,1,2; repeated, every combination",
    )  # fmt: skip
    parser.add_argument(
        "--chain", nargs="+", default=[], metavar="STEPS", help="one more file of each training: half, units:0.5+int8"
    )
    parser.add_argument(
        "--max-size", nargs="+", default=[], metavar="SIZE", help="budgets: of each one a search, as `vidlet fit` does"
    )
    parser.add_argument("--time", default="10m", metavar="TIME", help="for each of these searches (%(default)s)")
    parser.add_argument(
        "--out", default="runs/sweep", metavar="FOLDER", help="a run each, table.csv and compare.html (%(default)s)"
    )
    parser.add_argument("--benchmark", action="store_true", help="measure at the end how long a frame takes")
    options.add_device(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, compress, search; print the table of `vidlet compare`."""
    need_train_extra("sweep")
    from ..progress import working
    from ..recipe import load_recipe
    from ..search.budget import check_quantities
    from .before_work import check_pictures

    check_quantities(args.max_size, time=args.time)
    for recipe in args.recipe or ["auto"]:
        check_pictures(args.data, load_recipe(recipe))
    tried: dict[str, list[Any]] = {}
    for key, values in map(values_of, args.set):
        tried[key] = [*tried.get(key, []), *values]
    with working("load torch"):
        from ..jobs.sweep import PAGE, TABLE, sweep

    found = sweep(
        args.data, args.recipe, tried, args.chain, args.max_size, args.time, args.out, args.fold, args.device,
        args.benchmark, args.strict,
    )  # fmt: skip
    if not args.json:
        print(table_text(found))
        for one in found["failed"]:
            print(f"failed: {shown(one['name'])}: {shown(one['error'])}")
        print(f"written: {shown(args.out)}/{TABLE}, {shown(args.out)}/{PAGE}")
    return found


def values_of(text: str) -> tuple[str, list[Any]]:
    """A key and its values: "seed=0,1" -> ("seed", [0, 1]); a list, a table or a quoted text of TOML is one value.

    Raises:
        RecipeError: no key, or a comma with no value before or behind it.
    """
    from ..errors import RecipeError
    from ..recipe import parse_override

    key, equals, values = text.partition("=")
    whole = parse_override(f"{key}=[{values}]" if equals else text)
    if isinstance(whole[1], list) and whole[1]:
        return whole
    parts = re.split(r",(?![^\[]*\])", values)  # words without quotes are no TOML
    if not all(part.strip() for part in parts):
        raise RecipeError(f"--set {text}: a value is missing; expected KEY=A,B,C")
    found = [parse_override(f"{key}={part}") for part in parts]
    return found[0][0], [value for _, value in found]
