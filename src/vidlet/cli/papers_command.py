"""`vidlet papers`."""

from __future__ import annotations

import argparse
from typing import Any

from . import options

EXAMPLE = "example: vidlet papers deepeye"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet papers`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a paper; without it, they are listed")
    parser.add_argument("--data", metavar="DATA", help="run its experiment on these clips, where one is built in")
    parser.add_argument(
        "--epochs", type=options.number(int, 1), default=10, metavar="N", help="of each run with --data (%(default)s)"
    )
    parser.add_argument(
        "--seeds", type=options.number(int, 1), default=1, metavar="N", help="runs of each recipe (%(default)s)"
    )
    parser.add_argument(
        "--clips", type=options.number(float, 0.001, 1), default=1.0, metavar="SHARE", help="of the clips (%(default)s)"
    )
    parser.add_argument("--detector", metavar="RUN", help="deepeye: the run of a trained detector, for its features")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of its recipes; head options where the head has it",
    )
    options.add_device(parser)
    parser.add_argument("--out", metavar="FILE", help="a line a finished run, not run again (runs/papers-NAME.jsonl)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print the tables, or the list of papers."""
    if args.name:
        from .train_command import need_train_extra

        need_train_extra("papers")
    from ..jobs.papers import papers
    from ..recipe import parse_override

    overrides = dict(parse_override(text) for text in args.set)
    found = papers(
        args.name, args.data, args.epochs, args.seeds, args.clips, args.out, args.detector, overrides, args.device
    )
    if not args.json:
        print(tables_text(found["tables"]) if args.name else list_text(found["papers"]))
        if "measured_on" in found:
            print("\n\n" + measured_text(found["measured_on"]))
    return found


def measured_text(told: dict[str, Any]) -> str:
    """One line: what the measured column was measured on, and with how little."""
    changed = "".join(f", {key}={value}" for key, value in told.get("overrides", {}).items())
    return (
        f"measured on {told['data']}: {told['epochs']} epochs, seeds {told['seeds']}, {told['clips']:g} of the clips, "
        f"{told['scored']} scored{changed}; the papers train on other data, and longer"
    )


def list_text(papers: list[dict[str, Any]]) -> str:
    """A line a paper, and what it has of recipes."""
    from ..reports import text_table

    rows = [(paper["name"], paper["title"], ", ".join(paper["recipes"]) or None) for paper in papers]
    return text_table(rows, ("paper", "what it is", "recipes"))


def tables_text(tables: list[dict[str, Any]]) -> str:
    """The tables one below the other, their columns aligned."""
    from ..reports import text_table

    columns = ("printed", "recomputed", "measured")
    parts = []
    for table in tables:
        rows = [(row["name"], row["unit"], *(number_text(row[key]) for key in columns)) for row in table["rows"]]
        parts.append(f"{table['title']}\n\n{text_table(rows, ('', 'unit', *columns), 'llrrr')}")
    return "\n\n\n".join(parts)


def number_text(value: float | None) -> str | None:
    """58,982,400 or 3.991: all that is known of a number, in groups of three digits; None where there is none."""
    if value is None:
        return None
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")
