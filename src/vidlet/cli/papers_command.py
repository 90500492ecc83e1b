"""`vidlet papers`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from . import options

EXAMPLE = "example: vidlet papers deepeye"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet papers`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a paper; without it, they are listed")
    parser.add_argument("--data", metavar="DATA", help="run its experiment on these clips, where one is built in")
    parser.add_argument(
        "--protocol",
        choices=("quick", "paper"),
        default="quick",
        help="some of its recipes, shortened, or all of its rows as it trained them (%(default)s)",
    )
    parser.add_argument(
        "--epochs", type=options.number(int, 1), metavar="N", help="of each run with --data (quick: 10), at most"
    )
    parser.add_argument(
        "--seeds", type=options.number(int, 1), default=1, metavar="N", help="runs of each recipe (%(default)s)"
    )
    parser.add_argument(
        "--clips", type=options.number(float, 0.001, 1), default=1.0, metavar="SHARE", help="of the clips (%(default)s)"
    )
    parser.add_argument(
        "--folds",
        type=options.number(int, 1),
        default=0,
        metavar="N",
        help="paper's protocol: the first N of a row",
    )
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="WORDS",
        help="paper's protocol: rows with these in their name",
    )
    parser.add_argument(
        "--extractor",
        metavar="FILE[:TENSOR]",
        help="mobile: Inception-v3's weights (torchvision's .pth), or any other network (.onnx, .tflite)",
    )
    parser.add_argument(
        "--detector", metavar="RUN", help="deepeye: the run of a trained detector, or a file that detects, for its map"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of its recipes; head options where the head has it",
    )
    parser.add_argument(
        "--record", nargs="?", const=True, default=False, metavar="FILE",
        help="keep what was measured, in the package's own file or in FILE; without --data, show FILE's",
    )  # fmt: skip
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
        args.name, args.data, args.epochs, args.seeds, args.clips, args.out, args.detector, overrides, args.device,
        args.protocol, args.folds, args.rows, args.extractor, args.record,
    )  # fmt: skip
    if not args.json:
        kept = found.get("measurements", [])
        print(tables_text(found["tables"], _marks(kept)) if args.name else list_text(found["papers"]))
        if kept:
            print("\n\n" + kept_text(kept))
        if "measured_on" in found:
            print("\n\n" + measured_text(found["measured_on"]))
    return found


def measured_text(told: dict[str, Any]) -> str:
    """One line: what the measured column was measured on, and with how little."""
    if told.get("protocol") == "paper":
        reduced = ", ".join(told["reduced"])
        how = f"reduced ({reduced})" if reduced else "whole"
        return (
            f"measured on {told['data']} by the paper's own protocol, {how}, seeds {told['seeds']}, "
            f"{told['scored']} scored in a fold"
        )
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


def kept_text(lines: list[dict[str, Any]]) -> str:
    """Where the shipped values come from, a line a command; what is marked in the tables is said."""
    from ..reports import text_table

    of = {line["command"]: line for line in lines}
    rows = [
        (str(number), line["data"], str(line["clips"]), str(line["seeds"]), line["reduction"] or "whole",
         f"{line['version']}, {line['date']}", command)
        for command, number in _commands(lines).items() for line in [of[command]]
    ]  # fmt: skip
    columns = ("", "data", "scored", "seeds", "reduced", "version, date", "command")
    text = "measured:\n\n" + text_table(rows, columns, "rlrrlll")
    old = sorted({part for line in lines for part in line["changed"]})
    return text + (f"\n\n* the code has changed since this was measured ({', '.join(old)})" if old else "")


def _commands(lines: list[dict[str, Any]]) -> dict[str, int]:
    """The commands that measured, numbered."""
    return {command: number for number, command in enumerate(dict.fromkeys(line["command"] for line in lines), 1)}


def _marks(lines: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What stands behind a measured value: a star if it is an old code's, and the number of its command."""
    from ..reproductions.results import shown

    numbers = _commands(lines)
    return {key: f"{'*' if line['changed'] else ''} [{numbers[line['command']]}]" for key, line in shown(lines).items()}


def tables_text(tables: list[dict[str, Any]], marks: Mapping[tuple[str, str], str] | None = None) -> str:
    """The tables one below the other, their columns aligned; ``marks`` stand behind measured values."""
    from ..reports import text_table

    columns = ("printed", "recomputed", "measured")
    parts = []
    for table in tables:
        rows = []
        for row in table["rows"]:
            cells = [number_text(row[key]) for key in columns]
            if mark := (marks or {}).get((table["title"], row["name"])):
                cells[-1] = f"{cells[-1]}{mark}"
            rows.append((row["name"], row["unit"], *cells))
        parts.append(f"{table['title']}\n\n{text_table(rows, ('', 'unit', *columns), 'llrrr')}")
    return "\n\n\n".join(parts)


def number_text(value: float | None) -> str | None:
    """58,982,400 or 3.991: all that is known of a number, in groups of three digits; None where there is none."""
    if value is None:
        return None
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")
