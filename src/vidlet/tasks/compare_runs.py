"""Finished runs beside each other: what their files said of the test clips, in pairs on those that all of them saw.

A run has listed what each of its files said (predictions.csv), so that nothing is scored again; with DATA given,
every file is, on the same clips.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets import Clip
from ..datasets.texts import read_text
from ..errors import DataError, VidletError, reading
from ..metrics import Difference, paired_bootstrap, rate_interval
from ..reports import (
    Dot,
    FileRow,
    Html,
    Report,
    Section,
    bytes_text,
    element,
    front_chart,
    ms_text,
    rate_text,
    write_report,
)
from ..runs import PREDICTIONS, RunFolder
from ..wording import cell
from .clips import PART_COLUMNS, Scored, cut_cells

Key = tuple[str, str, str]  # path, start, end
Answers = dict[Key, tuple[str, str, str]]  # label, predicted, group
FIGURES = ("accuracy", "low", "high", "clips", "bytes", "clip_ms", "frame_ms", "points", "points_low", "points_high")


@dataclass(frozen=True)
class Said:
    """What one file said of clips."""

    name: str  # the run, and the file where it has several
    path: Path
    answers: Answers
    recipe: str = ""
    split: str = ""
    bytes: int | None = None
    clip_ms: float | None = None  # median, decoding included
    frame_ms: float | None = None

    def right(self, keys: Sequence[Key]) -> list[bool]:
        """Whether the highest score was that of a label of each clip."""
        return [predicted in label.split("|") for label, predicted, _ in (self.answers[key] for key in keys)]

    def groups(self, keys: Sequence[Key]) -> list[str]:
        """Group of each clip."""
        return [self.answers[key][2] for key in keys]


def of_run(folder: Path) -> list[Said]:
    """What the files of a run said, by its own lists.

    Raises:
        DataError: it lists none, as a run that did not finish or one of a detector.
    """
    run = RunFolder(folder)
    answers: dict[str, Answers] = {}
    for listing in sorted(folder.glob(PREDICTIONS.replace(".csv", "*.csv"))):
        for name, found in _listed(listing).items():
            answers.setdefault(name, found)
    if not answers:
        raise DataError(f"{folder}: holds no {PREDICTIONS} of a finished run; give --data DATA to score its file now")
    metrics = run.metrics()
    sections = metrics["files"]
    try:
        recipe = run.recipe().name
    except VidletError:  # a joint file has members instead
        recipe = ""
    return [
        Said(
            f"{folder}/{name}" if len(answers) > 1 else str(folder),
            folder / name,
            found,
            recipe,
            str(metrics.get("split") or ""),
            (folder / name).stat().st_size if (folder / name).is_file() else metrics["bytes"].get(name),
            sections.get(name, {}).get("clip_ms", {}).get("p50"),
        )
        for name, found in answers.items()
    ]


def of_scores(name: str, path: Path, scored: Scored, split: str, size: int, clip_ms: float) -> Said:
    """What a file said when it was scored just now."""
    answers = {
        _key(clip): ("|".join(clip.labels), scored.names[int(row.argmax())], clip.group)
        for clip, row in zip(scored.clips, scored.scores, strict=True)
    }
    return Said(name, path, answers, "", split, size, clip_ms)


def _key(clip: Clip) -> Key:
    start, end = cut_cells(clip)
    return str(clip.path), start, end


def _listed(listing: Path) -> dict[str, Answers]:
    """File -> clip -> (label, predicted, group), as a run's list has it."""
    found: dict[str, Answers] = {}
    with reading(listing, "a run's list of predictions"):
        for row in csv.DictReader(io.StringIO(read_text(listing))):
            start, end = (row.get(column) or "" for column in PART_COLUMNS)
            own = found.setdefault(row["file"], {})
            own[row["path"], start, end] = (row["label"], row["predicted"], row["group"])
    return found


def compare_said(all_said: Sequence[Said], against: str | None = None) -> dict[str, Any]:
    """Figures of each file, and its difference to one of them on the clips of both.

    Args:
        against: the name or path of the file to compare with; None: the first.

    Returns:
        {"against", "rows": [{"name", "model", "recipe", "split", "clips", "accuracy", "accuracy_interval", "bytes",
        "clip_ms", "frame_ms", "difference": {"mean", "low", "high", "clips"} or None}], "notes"}.

    Raises:
        DataError: no file of that name.
    """
    first = _reference(all_said, against)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for said in all_said:
        keys = list(said.answers)
        right = said.right(keys)
        low, high, _ = rate_interval(right, said.groups(keys))
        rows.append(
            {
                "name": said.name,
                "model": str(said.path),
                "recipe": said.recipe,
                "split": said.split,
                "clips": len(keys),
                "accuracy": sum(right) / len(keys),
                "accuracy_interval": [low, high],
                "bytes": said.bytes,
                "clip_ms": said.clip_ms,
                "frame_ms": said.frame_ms,
                "difference": None if said is first else _difference(said, first, notes),
            }
        )
    return {"against": first.name, "rows": rows, "notes": notes}


def _reference(all_said: Sequence[Said], against: str | None) -> Said:
    if against is None:
        return all_said[0]
    wanted = against.rstrip("/")
    for said in all_said:
        if wanted in (said.name, str(said.path), str(said.path.parent)):
            return said
    raise DataError(f"--against {against}: none of those compared ({', '.join(said.name for said in all_said)})")


def _difference(said: Said, first: Said, notes: list[str]) -> dict[str, float] | None:
    """Accuracy minus the reference's, on the clips that both saw, in pairs over groups."""
    pairs = _common(said.answers, first.answers)
    other = {one for one, both in pairs if said.answers[one][0] != first.answers[both][0]}
    pairs = [pair for pair in pairs if pair[0] not in other]
    if other:
        notes.append(f"{said.name}: {len(other)} clips have another label than in {first.name} and are left out.")
    if not pairs:
        notes.append(f"{said.name} and {first.name} have no test clip in common.")
        return None
    if len(pairs) < max(len(said.answers), len(first.answers)):
        notes.append(
            f"{said.name}: compared on the {len(pairs)} clips in common with {first.name}, of "
            f"{len(said.answers)} and {len(first.answers)}."
        )
    own, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = paired_bootstrap(said.right(own), first.right(theirs), said.groups(own))
    return {**found._asdict(), "clips": len(pairs)}


def _common(one: Mapping[Key, Any], other: Mapping[Key, Any]) -> list[tuple[Key, Key]]:
    """The same clips in two lists; where the folders differ (another working folder), by the end of their paths."""
    if same := [(key, key) for key in one if key in other]:
        return same
    short, shorter = ({_end_of(key): key for key in keys} for keys in (one, other))
    if len(short) < len(one) or len(shorter) < len(other):
        return []
    return [(key, shorter[end]) for end, key in short.items() if end in shorter]


def _end_of(key: Key) -> Key:
    return "/".join(Path(key[0]).parts[-3:]), *key[1:]


def as_csv(found: Mapping[str, Any]) -> str:
    """The table as CSV text, rates as fractions, empty where something is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "recipe", "split", *FIGURES])
    for row in found["rows"]:
        gap = row["difference"] or {}
        figures = [row["accuracy"], *row["accuracy_interval"], row["clips"], row["bytes"], row["clip_ms"]]
        figures += [row["frame_ms"], *(gap.get(key) for key in ("mean", "low", "high"))]
        shown = ["" if value is None else value for value in figures]
        writer.writerow([cell(row["name"]), cell(row["recipe"]), row["split"], *shown])
    return text.getvalue()


def write_comparison(path: str | Path, found: Mapping[str, Any], machine: str) -> None:
    """A page with the table, and accuracy over bytes as a chart."""
    rows = [
        FileRow(
            row["name"],
            row["recipe"],
            row["accuracy"],
            row["accuracy_interval"],
            Difference(*(row["difference"][key] for key in ("mean", "low", "high"))) if row["difference"] else None,
            row["bytes"],
            {"p50": row["frame_ms"]} if row["frame_ms"] is not None else None,
        )
        for row in found["rows"]
    ]
    rows.sort(key=lambda row: row.name != found["against"])  # the others stand against the first
    repeated = Counter(row["clips"] for row in found["rows"])
    clips = f"{next(iter(repeated))} clips each" if len(repeated) == 1 else "clips of their own test splits"
    notes = (
        [Section("Notes", element("ul", *(element("li", note) for note in found["notes"])))] if found["notes"] else []
    )
    write_report(
        path,
        Report(
            title=f"{len(rows)} files compared",
            summary=f"Accuracy on {clips}; differences to {found['against']} in pairs on the clips of both.",
            product="",
            machine=machine,
            files=rows,
            extra=[*_chart(found["rows"]), *notes],
        ),
    )


def _chart(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Accuracy over bytes, and over time, each where two files tell it."""
    timed = "frame_ms" if any(row["frame_ms"] for row in rows) else "clip_ms"
    what = "a frame" if timed == "frame_ms" else "a clip, with decoding"
    charts = [
        _over(rows, "bytes", "bytes of the file", bytes_text),
        _over(rows, timed, f"median time of {what}", ms_text),
    ]
    drawn = [chart for chart in charts if chart is not None]
    lead = "Each file is a dot; the line joins those that no other beats in both at once."
    return [Section("Accuracy over size and time", element("div", *drawn, class_="pair"), lead)] if drawn else []


def _over(rows: Sequence[Mapping[str, Any]], cost: str, label: str, text: Callable[[float], str]) -> Html | None:
    known = [row for row in rows if row[cost]]
    if len(known) < 2:
        return None

    def beaten(row: Mapping[str, Any]) -> bool:
        return any(
            other[cost] <= row[cost] and other["accuracy"] >= row["accuracy"]
            and (other[cost], other["accuracy"]) != (row[cost], row["accuracy"])
            for other in known
        )  # fmt: skip

    def told(row: Mapping[str, Any]) -> str:
        costs = [bytes_text(row["bytes"]), *([text(row[cost])] if cost != "bytes" else [])]
        return f"{row['name']}: {rate_text(row['accuracy'])}, {', '.join(costs)}"

    dots = [Dot(row[cost], row["accuracy"], told(row), not beaten(row)) for row in known]
    return front_chart(dots, "Accuracy", label, text, None)
