"""`vidlet compare`."""

from __future__ import annotations

import argparse
from typing import Any

from ..wording import as_json, shown
from . import options

EXAMPLE = "example: vidlet compare runs/* --csv table.csv --report compare.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `vidlet compare`."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders; with --data model files, too")
    parser.add_argument(
        "--data", metavar="DATA", help="score every file of each run on these clips now, instead of by its own list"
    )
    parser.add_argument(
        "--split", choices=["train", "val", "test", "all"], help="--data: clips to score (test, else val)"
    )
    parser.add_argument("--against", metavar="RUN", help="what the others are compared with (the first)")
    parser.add_argument("--benchmark", action="store_true", help="measure now how long a frame takes on this machine")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV")
    parser.add_argument("--report", metavar="FILE", help="write an HTML page: the table, and accuracy over bytes")
    parser.add_argument("--out", metavar="FILE", help="write the JSON object to this file too")
    options.add_strict(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print one table."""
    from ..jobs.compare import compare

    found = compare(
        args.runs, args.data, args.split, args.against, args.benchmark, args.csv, args.report, args.strict
    )  # fmt: skip
    if args.out:
        from ..files import write_text

        write_text(args.out, as_json(found, indent=1))
    if not args.json:
        print(table_text(found))
        for path in (args.csv, args.report, args.out):
            if path:
                print(f"written: {path}")
    return found


def table_text(found: dict[str, Any]) -> str:
    """The table for people, rates in percent, differences in points."""
    from ..reports import bytes_text, interval_text, ms_text, points_interval, points_text, rate_text, text_table
    from ..tasks.compare_runs import TOLD

    rows = []
    told = " or ".join(dict.fromkeys(TOLD[row["figure"]] for row in found["rows"]))
    images = all(row["figure"] == "map50" for row in found["rows"])
    timed = any(row["frame_ms"] is not None for row in found["rows"])
    for row in found["rows"]:
        gap = row["difference"]
        points = f"{points_text(gap['mean'])} [{points_interval(gap['low'], gap['high'])}]" if gap else None
        times = [ms_text(row["clip_ms"]), *([ms_text(row["frame_ms"])] if timed else [])]
        accuracy = [rate_text(row["accuracy"]), interval_text(row["accuracy_interval"])]
        rows.append(
            [row["name"], row["recipe"], *accuracy, points, str(row["clips"]), bytes_text(row["bytes"]), *times]
        )
    unit = "image" if images else "clip"
    heads = ["run", "recipe", told, "95 % interval", "points", f"{unit}s", "size", f"a {unit}", *["a frame"] * timed]
    lines = [text_table(rows, heads, "ll" + "r" * 7)]
    lines.append(f"points: {told} minus that of {shown(found['against'])} on the {unit}s of both, in pairs over groups")
    return "\n".join([*lines, *(shown(f"note: {note}") for note in found["notes"])])
