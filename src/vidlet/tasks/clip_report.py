"""The report of a run, put together from its figures, its log, its files and the clips it got wrong."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..datasets import ClipTable
from ..errors import VidletError
from ..files import write_text
from ..metrics import Difference, reliability
from ..recipe import Sampling
from ..reports import Command, DataSummary, FileRow, Mistake, PartRow, Report, Section, python_client, write_report
from ..reports import table as table_of
from ..reports.markup import Column, element, join
from ..reports.page import page
from ..reports.sections import cards_of
from ..runs import RECIPE, REPORT, RunFolder, choose
from ..runtime import benchmark, inspect_artifact, load, read_metadata
from ..video import probe, read_clip
from ..wording import as_json
from .clips import Scored
from .standing import beside, sections_of, title_of

MISTAKES = 12
PICTURE_HEIGHT = 120  # pixels


def report_clips(
    run: RunFolder,
    metrics: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    scored: Mapping[str, Scored],
    table: ClipTable,
    data: str,
    extra: Sequence[Section] = (),
    pictures: bool = True,
) -> None:
    """Write ``report.html`` into a run folder.

    Args:
        metrics: what metrics.json holds.
        scored: file name -> its scores on the evaluated clips. The page is about the one to ship.
        data: where the clip table came from, as the user gave it.
        extra: further sections.
        pictures: whether the clips are videos, of which some can be shown.
    """
    names = list(scored)
    timed = {name: benchmark(run / name, seconds=1.5, threads=1) for name in names}
    choice = choose(run, measured=timed)
    product = choice.path.name
    model = load(run / product)
    inside = inspect_artifact(run / product)
    first = scored[product]
    write_report(
        run / REPORT,
        Report(
            title=title_of(table.root.name, model.metadata["recipe"].get("name", run.path.name), metrics),
            summary=f"Names {len(table.labels)} classes of clips: {', '.join(table.labels[:12])}"
            + (" ..." if len(table.labels) > 12 else "."),
            product=product,
            ship=choice.line(),
            split=str(metrics["split"]),
            groups=len(set(first.groups)) if any(first.groups) else None,
            metrics=metrics["files"][product],
            bytes=metrics["bytes"][product],
            frame_ms=timed[product]["frame_ms"],
            machine=f"{platform.machine()}, 1 thread",
            files=[
                _file_row(run / name, metrics["files"][name], metrics["bytes"][name], timed[name]) for name in names
            ],
            log=log,
            reliability=None if model.multi_label else reliability(first.scores, first.labels),
            temperature=model.metadata.get("temperature"),
            mistakes=_mistakes(first, table) if pictures else (),
            parts=[_part_row(part, inside) for part in inside["parts"]],
            commands=_commands(choice.path, first.clips[0].path if pictures else None, data, metrics.get("fold")),
            client=python_client(product, model.inputs),
            data=DataSummary(
                {
                    split: dict(Counter(name for clip in table.of_split(split) for name in clip.labels))
                    for split in ("train", "val", "test")
                },
                warnings=table.notes,
                skipped=metrics["skipped"],
            ),
            provenance=_provenance(model.metadata, table),
            recipe_toml=(run / RECIPE).read_text("utf-8"),
            first=extra if "budget" in metrics else (),  # a search is about its choice
            beside=beside(metrics),
            extra=[
                *sections_of(metrics),
                *doubt_sections(metrics.get("doubts", ()), pictures),
                *(() if "budget" in metrics else extra),
            ],
        ),
    )


def _file_row(path: Path, figures: Mapping[str, Any], size: int, timed: Mapping[str, Any]) -> FileRow:
    difference = figures.get("difference")
    recipe = read_metadata(path)["recipe"]
    joined = f"{len(recipe['members'])} files in one" if "members" in recipe else "float32"
    return FileRow(
        path.name,
        kind=", ".join(recipe.get("compress", ())) or joined,
        accuracy=figures["accuracy"],
        interval=figures["accuracy_interval"],
        difference=Difference(*(difference[key] for key in ("mean", "low", "high"))) if difference else None,
        bytes=size,
        frame_ms=timed["frame_ms"],
    )


def _mistakes(scored: Scored, table: ClipTable) -> list[Mistake]:
    """The clips that were named wrongly with the highest scores, as small moving pictures."""
    wrong = [i for i in scored.scores.max(1).argsort()[::-1] if not scored.correct[i]][:MISTAKES]
    found = []
    for i in wrong:
        clip, guess = scored.clips[i], int(scored.scores[i].argmax())
        try:
            frames, fps = small_clip(clip.path, clip.start_s, clip.end_s)
        except VidletError:
            continue  # it was readable a moment ago; a report without this picture is still a report
        found.append(
            Mistake(
                frames,
                clip.label,
                table.labels[guess],
                float(scored.scores[i, guess]),
                clip.path.name,
                float(scored.scores[i, scored.labels[i]]),
                fps,
            )
        )
    return found


def doubt_sections(doubts: Sequence[Mapping[str, Any]], pictures: bool = True) -> list[Section]:
    """The labels to look at again: the most doubted as moving pictures, all in a table; nothing without any."""
    if not doubts:
        return []
    cards = []
    for found in doubts[:MISTAKES] if pictures else ():
        path = Path(found["path"])
        try:
            frames, fps = small_clip(path, found["start_s"], found["end_s"])
        except VidletError:
            continue
        label, suspected = found["label"], found["suspected"]
        cards.append(Mistake(frames, label, suspected, found["score"], path.name, found["label_score"], fps))
    columns = [Column("Clip"), Column("Label"), Column("Suspected"), Column("Score", "number")]
    rows = [[found["path"], found["label"], found["suspected"], f"{found['score']:.2f}"] for found in doubts]
    listed = table_of(columns, rows, "Labels that are doubted", sortable=True)
    shown = [cards_of(cards, "or rather", "the label")] if cards else []
    lead = (
        "Clips whose label models doubt which had not seen them, the most doubted first. Some are wrong labels, some "
        "are hard clips: only looking tells."
    )
    return [Section("Labels to look at again", join([*shown, listed]), lead)]


def write_doubts(path: str | Path, title: str, doubts: Sequence[Mapping[str, Any]]) -> None:
    """A page of the labels to look at again."""
    none = "" if doubts else element("p", "Models that have not seen them doubt no label.", class_="lead")
    header = element("header", element("p", "vidlet data", class_="eyebrow"), element("h1", title), none, id="top")
    write_text(path, page(title, header, doubt_sections(doubts)))


def small_clip(path: Path, start_s: float | None, end_s: float | None) -> tuple[Any, float]:
    """At most 24 frames, 120 pixels high, and their rate."""
    info = probe(path)
    size = (PICTURE_HEIGHT, max(16, round(PICTURE_HEIGHT * info.width / info.height)))
    clip = read_clip(path, Sampling("uniform", frames=24), size, start_s=start_s, end_s=end_s)
    seconds = max(float(clip.times_s[-1] - clip.times_s[0]), 0.1)
    return clip.frames, min(25.0, max(2.0, (len(clip.frames) - 1) / seconds))


def _part_row(part: Mapping[str, Any], found: Mapping[str, Any]) -> PartRow:
    kinds = Counter()  # type: Counter[str]
    for tensor in found["tensors"]:
        if tensor["part"] == part["part"]:
            kinds[tensor["dtype"]] += tensor["bytes"]
    storage = ", ".join(kind for kind, _ in kinds.most_common(2))
    return PartRow(part["part"], part["bytes"], part["tensors"], part["parameters"], storage)


def _commands(path: Path, clip: Path | None, data: str, fold: str | None) -> list[Command]:
    """Commands that work as they stand where the training was started; ``clip`` is None where there are no videos."""
    model = str(path)
    folds = ["--fold", fold] if fold else []
    label = Command("Label the records", _line("predict", model, data, "--csv", "submission.csv"))
    if clip is not None:
        label = Command("Label a video", _line("predict", model, str(clip), "--save", "annotated.mp4"))
    return [
        label,
        Command("Score the file on the same clips again", _line("evaluate", model, data, *folds)),
        Command("Time it on this machine", _line("benchmark", model)),
        Command("Look inside", _line("inspect", model)),
    ]


def _line(*words: str) -> str:
    return shlex.join(["vidlet", *words])


def made_here(command: str) -> dict[str, str]:
    """By which command, when, by which version and on which machine a report is made: the head of its provenance."""
    return {
        "command": command,
        "made": time.strftime("%Y-%m-%d %H:%M %Z"),
        "vidlet": version("vidlet"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
    }


def _processor() -> str:
    """The name of the processor, as far as the system tells it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def said(value: Any) -> str:
    """A value of a file's provenance; of a joint file each is an object."""
    return value if isinstance(value, str) else as_json(value)


def _provenance(metadata: Mapping[str, Any], table: ClipTable) -> dict[str, str]:
    import onnxruntime

    evidence = metadata.get("evidence") or [{}]
    return {
        **made_here(str(evidence[0].get("command", ""))),
        "clip table": f"sha256 {table.sha256()}",
        "graph": f"sha256 {evidence[0].get('graph_sha256', '')}",
        **{
            key if key == "weights" else f"weights, {key}": said(value)
            for key, value in metadata.get("provenance", {}).items()
        },
        "Python": sys.version.split()[0],
        "ONNX Runtime": onnxruntime.__version__,
    }
