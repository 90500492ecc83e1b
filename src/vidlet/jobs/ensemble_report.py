"""The report of an ensemble: that of a run, with every file that could have been in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..datasets import ClipTable
from ..reports import Column, Dot, Html, Section, bytes_text, front_chart, rate_text, table
from .evaluate import Scored
from .joint import write_members
from .report import report_run

_ABOUT = (
    "Every point is a file that was scored on validation clips; the line joins those that no smaller file reaches; the "
    "dashed line is the limit. What is chosen stands in the joint file with the weight of its scores."
)


def report_ensemble(
    folder: Path, metrics: Mapping[str, Any], scored: Mapping[str, Scored], clips: ClipTable, data: str
) -> None:
    """Write ``report.html`` and ``recipe.toml`` (the members and their weights) beside the joint file."""
    found = metrics["ensemble"]
    write_members(folder, f"ensemble of {len(found['members'])}", found["members"])
    section = Section("Files, and the ensemble of the best that fit", _candidates(found), _ABOUT)
    report_run(folder, metrics, (), scored, clips, data=data, extra=[section])


def _candidates(found: Mapping[str, Any]) -> Html:
    """Chart and table of the candidates and the joint file."""
    each, members = found["candidates"], found["members"]
    ranked = sorted(each, key=lambda name: (each[name]["bytes"], -each[name]["gap20_val"]))
    front, best = set(), -1.0
    for name in ranked:
        if each[name]["gap20_val"] > best:
            front.add(name)
            best = each[name]["gap20_val"]

    def text(name: str) -> str:
        return f"{name}: {bytes_text(each[name]['bytes'])}, {each[name]['gap20_val']:.4f}"

    dots = [Dot(each[n]["bytes"], each[n]["gap20_val"], text(n), n in front, n in members) for n in ranked]
    chart = front_chart(dots, "GAP@20 on validation clips", "bytes of the file", bytes_text, found["max_bytes"])
    columns = [Column("File"), Column("Size", "number"), Column("GAP@20 alone", "number"), Column("Weight", "number")]
    rows = [
        [name, bytes_text(each[name]["bytes"]), rate_text(each[name]["gap20_val"], 2), f"{members[name]:.3f}"]
        for name in sorted(members, key=lambda name: -members[name])
    ]
    rows.append(["all of them, on validation clips", "", rate_text(found["gap20_val"], 2), ""])
    return Html(chart + table(columns, rows, "The members of the file"))
