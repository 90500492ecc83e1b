"""What the tests of the command line share: copies of motion folders, and outputs read."""

import csv
import json
import shutil
from pathlib import Path

from vidlet.datasets import read_table


def copy_clips(source: Path, target: Path, **changes: dict[int, str]) -> list[dict[str, str]]:
    """Copy a motion folder; ``changes`` maps a column to {row: new value}. Returns the rows."""
    shutil.copytree(source, target)
    with (target / "clips.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    for column, values in changes.items():
        for row, value in values.items():
            rows[row][column] = value
    write_rows(target, rows)
    return rows


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "clips.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def one_object(text: str) -> dict:
    """The only JSON object of an output of one line."""
    assert text.count("\n") == 1, text
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def clips_of(folder: Path, split: str = "test") -> list[Path]:
    return [clip.path for clip in read_table(folder).of_split(split)]
