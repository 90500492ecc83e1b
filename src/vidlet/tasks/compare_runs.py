"""Finished runs beside each other: what their files said of the test clips, in pairs on those that all of them saw.

A run has listed what each of its files said (predictions.csv), so that nothing is scored again; with DATA given,
every file is, on the same clips. Files are told by accuracy, detectors by mAP at .5, and models of many labels by
GAP@20; of the latter two a run's own figures have no pairs, DATA gives them.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets import Clip
from ..datasets.texts import read_text
from ..errors import DataError, VidletError, reading
from ..labels import join_labels, split_labels
from ..metrics import Difference, gap_samples, map50_samples, paired_bootstrap, rate_interval
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
from .boxes import ScoredImages
from .clips import PART_COLUMNS, Scored, cut_cells

Key = tuple[str, str, str]  # path, start, end
Answers = dict[Key, tuple[str, str, str]]  # label, predicted, group
ACCURACY, MAP, GAP = "accuracy", "map50", "gap20"
TOLD = {ACCURACY: "accuracy", MAP: "mAP .5", GAP: "GAP@20"}  # by what files are told, in words
FIGURES = ("accuracy", "low", "high", "clips", "bytes", "clip_ms", "frame_ms", "points", "points_low", "points_high")


@dataclass(frozen=True)
class Said:
    """What one file said of clips; of a detector or of many labels a clip, its figure and draws of that."""

    name: str  # the run, and the file where it has several
    path: Path
    answers: Answers = field(default_factory=dict)
    recipe: str = ""
    split: str = ""
    bytes: int | None = None
    clip_ms: float | None = None  # median, decoding included
    frame_ms: float | None = None
    figure: str = ACCURACY
    rate: float | None = None  # where it is not the share of right answers
    interval: tuple[float, float] | None = None
    samples: NDArray[np.float64] | None = None  # of the figure, of draws of the items: (R,)
    items: tuple[str, ...] = ()  # clips or images that it was scored on
    count: int = 0

    def right(self, keys: Sequence[Key]) -> list[bool]:
        """Whether the highest score was that of a label of each clip."""
        return [predicted in split_labels(label) for label, predicted, _ in (self.answers[key] for key in keys)]

    def groups(self, keys: Sequence[Key]) -> list[str]:
        """Group of each clip."""
        return [self.answers[key][2] for key in keys]


def of_run(folder: Path) -> list[Said]:
    """What the files of a run said, by its own lists and figures.

    Raises:
        DataError: it has none, as a run that did not finish.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a run folder; give --data DATA for files")
    run = RunFolder(folder)
    answers: dict[str, Answers] = {}
    for listing in sorted(folder.glob(PREDICTIONS.replace(".csv", "*.csv"))):
        for name, found in _listed(listing).items():
            answers.setdefault(name, found)
    metrics = run.metrics()
    sections = metrics["files"]
    names = [*answers] or [name for name, figures in sections.items() if figures.get(MAP) is not None]
    if not names:
        how = "; give --data DATA to score its file now" if any(folder.glob("*.onnx")) else ""
        how = f"; its runs are {folder}/*" if any(folder.glob(f"*/{PREDICTIONS}")) else how
        raise DataError(f"{folder}: holds no {PREDICTIONS} of a finished run{how}")
    try:
        recipe = run.recipe().name
    except VidletError:  # a joint file has members instead
        recipe = ""
    return [
        Said(
            f"{folder}/{name}" if len(names) > 1 else str(folder),
            folder / name,
            answers.get(name, {}),
            recipe,
            str(metrics.get("split") or ""),
            (folder / name).stat().st_size if (folder / name).is_file() else metrics["bytes"].get(name),
            _median_ms(sections.get(name, {})),
            **_told_figure(sections.get(name, {})),
        )
        for name in names
    ]


def _told_figure(figures: Mapping[str, Any]) -> dict[str, Any]:
    """By what a file is told, from the figures that a run has of it; {} where that is how many answers are right."""
    figure = next((name for name in (MAP, GAP) if figures.get(name) is not None), None)
    if figure is None:
        return {}
    interval = figures.get(f"{figure}_interval")
    count = int(figures.get("images") or figures.get("clips") or 0)
    return {
        "figure": figure,
        "rate": figures[figure],
        "interval": tuple(interval) if interval else None,
        "count": count,
    }


def _median_ms(figures: Mapping[str, Any]) -> float | None:
    """Milliseconds of a clip with decoding, or of an image without."""
    times: Mapping[str, float] = figures.get("clip_ms") or figures.get("image_ms") or {}
    return times.get("p50")


def of_scores(name: str, path: Path, scored: Scored | ScoredImages, figures: Mapping[str, Any], **about: str) -> Said:
    """What a file said when it was scored just now, with its figures; ``about``: its recipe, the split."""
    known: dict[str, Any] = {**about, "bytes": figures["bytes"], "clip_ms": _median_ms(figures)}
    if isinstance(scored, ScoredImages):
        samples = map50_samples(scored.detections, scored.truths, len(scored.labels))
        known |= {"samples": samples, "items": tuple(str(image.path) for image in scored.images)}
    elif figures.get(GAP) is not None:
        samples = gap_samples(scored.scores, scored.truth, scored.groups)
        known |= {"samples": samples, "items": tuple(":".join(_key(clip)) for clip in scored.clips)}
    else:
        answers = {
            _key(clip): (join_labels(clip.labels), scored.names[int(row.argmax())], clip.group)
            for clip, row in zip(scored.clips, scored.scores, strict=True)
        }
        return Said(name, path, answers, **known)
    low, high = np.quantile(samples, [0.025, 0.975])
    return Said(name, path, **{**known, **_told_figure(figures), "interval": (float(low), float(high))})


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
        {"against", "rows": [{"name", "model", "recipe", "split", "clips", "figure", "accuracy", "accuracy_interval",
        "bytes", "clip_ms", "frame_ms", "difference": {"mean", "low", "high", "clips"} or None}], "notes"}.
        ``accuracy`` is the value of ``figure``.

    Raises:
        DataError: no file of that name.
    """
    first = _reference(all_said, against)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for said in all_said:
        rate, interval, count = _figures(said)
        rows.append(
            {
                "name": said.name,
                "model": str(said.path),
                "recipe": said.recipe,
                "split": said.split,
                "clips": count,
                "figure": said.figure,
                "accuracy": rate,
                "accuracy_interval": interval,
                "bytes": said.bytes,
                "clip_ms": said.clip_ms,
                "frame_ms": said.frame_ms,
                "difference": None if said is first else _difference(said, first, notes),
            }
        )
    return {"against": first.name, "rows": rows, "notes": [*dict.fromkeys(notes)]}


def _figures(said: Said) -> tuple[float | None, list[float] | None, int]:
    """The figure of a file, its interval, and of how many clips or images."""
    if said.figure != ACCURACY:
        return said.rate, list(said.interval) if said.interval else None, len(said.items) or said.count
    keys = list(said.answers)
    right = said.right(keys)
    low, high, _ = rate_interval(right, said.groups(keys))
    return sum(right) / len(keys), [low, high], len(keys)


def _reference(all_said: Sequence[Said], against: str | None) -> Said:
    if against is None:
        return all_said[0]
    wanted = against.rstrip("/")
    for said in all_said:
        if wanted in (said.name, str(said.path), str(said.path.parent)):
            return said
    raise DataError(f"--against {against}: none of those compared ({', '.join(said.name for said in all_said)})")


def _difference(said: Said, first: Said, notes: list[str]) -> dict[str, float | None] | None:
    """Figure minus the reference's, on the clips that both saw, in pairs over groups."""
    if said.figure != first.figure:
        notes.append(f"{said.name} is told by {TOLD[said.figure]}, {first.name} by {TOLD[first.figure]}.")
        return None
    if said.figure != ACCURACY:
        return _sampled_difference(said, first, notes)
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


def _sampled_difference(said: Said, first: Said, notes: list[str]) -> dict[str, float | None] | None:
    """The same of a figure that is no mean over clips: of draws of the same items."""
    if said.samples is None or first.samples is None or said.rate is None or first.rate is None:
        notes.append(f"Differences of {TOLD[said.figure]} in pairs need every file's scores: --data DATA.")
        return None
    if said.items != first.items:
        notes.append(f"{said.name} and {first.name} were not scored on the same.")
        return None
    bounds = np.quantile(said.samples - first.samples, [0.025, 0.975]).tolist() if len(said.items) > 1 else [None, None]
    return {"mean": said.rate - first.rate, "low": bounds[0], "high": bounds[1], "clips": len(said.items)}


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
    writer.writerow(["name", "recipe", "split", "figure", *FIGURES])
    for row in found["rows"]:
        gap = row["difference"] or {}
        low_high = row["accuracy_interval"] or [None, None]
        figures = [row["accuracy"], *low_high, row["clips"], row["bytes"], row["clip_ms"]]
        figures += [row["frame_ms"], *(gap.get(key) for key in ("mean", "low", "high"))]
        shown = ["" if value is None else value for value in figures]
        writer.writerow([cell(row["name"]), cell(row["recipe"]), row["split"], row["figure"], *shown])
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
    clips = f"{next(iter(repeated))} each" if len(repeated) == 1 else "those of their own test splits"
    told = " and ".join(dict.fromkeys(_title(row["figure"]) for row in found["rows"]))
    notes = (
        [Section("Notes", element("ul", *(element("li", note) for note in found["notes"])))] if found["notes"] else []
    )
    write_report(
        path,
        Report(
            title=f"{len(rows)} files compared",
            summary=f"{told} on {clips}; differences to {found['against']} in pairs on what both saw.",
            product="",
            machine=machine,
            files=rows,
            extra=[*_chart(found["rows"]), *notes],
        ),
    )


def _title(figure: str) -> str:
    return "Accuracy" if figure == ACCURACY else TOLD[figure]


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
    return [Section("Over size and time", element("div", *drawn, class_="pair"), lead)] if drawn else []


def _over(rows: Sequence[Mapping[str, Any]], cost: str, label: str, text: Callable[[float], str]) -> Html | None:
    known = [row for row in rows if row[cost] and row["accuracy"] is not None]
    if len(known) < 2 or len({row["figure"] for row in known}) > 1:
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
    return front_chart(dots, _title(known[0]["figure"]), label, text, None)
