"""Tables of two splits whose second one is to be tested on: nothing may be chosen on it."""

from __future__ import annotations

import csv
from pathlib import Path


def tested(data: Path, out: Path) -> str:
    """DATA; where its clips.csv has no test clips, a table in ``out`` in which its val clips are called test.

    Records stay as they are.
    """
    table = data / "clips.csv"
    if not table.is_file():
        return str(data)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    splits = {row.get("split") for row in rows}
    if "test" in splits or "val" not in splits or "path" not in rows[0]:
        return str(data)
    made = out / "tested" / data.name / "clips.csv"
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            split = "test" if row.get("split") == "val" else row.get("split", "")
            writer.writerow({**row, "path": (data / row["path"]).resolve(), "split": split})
    return str(made.parent)
