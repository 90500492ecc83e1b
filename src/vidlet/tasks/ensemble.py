"""The best ensemble of trained files that fits a byte limit, as one file that is scored again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..artifact import write_artifact
from ..compression.ensemble_search import Candidate, Chosen, TopScores, search_ensemble
from ..compression.join import content_sizes, join_graphs
from ..datasets import ClipTable
from ..errors import DataError, TrainingError
from ..progress import megabytes, say, working
from ..reports import Column, Dot, Html, Section, bytes_text, front_chart, rate_text
from ..reports import table as html_table
from ..runs import MODEL, RunFolder
from ..runtime import Model, load
from . import DataSource, Task, task_of_model
from .cached import cached_scores
from .joint import graph_of, joint_metadata, weighted_scores

TRIES = 20  # of joining and writing an ensemble that was counted to fit
EVIDENCE_BYTES = 6000  # room for what the figures add to the file's metadata
EXHAUSTIVE = 12  # members of which all subsets are judged; beyond, one is added at a time


@dataclass(frozen=True)
class Member:
    """A candidate: its name in the ensemble, its file, its graph without metadata, and what it takes."""

    name: str
    model: Model
    graph: onnx.ModelProto
    bytes: int


def find_ensemble(
    run: RunFolder,
    data: str | Path,
    models: Sequence[str | Path],
    max_bytes: int,
    file: str = "",
    fold: str | None = None,
    strict: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """As the job ``ensemble``, into a run folder that the caller holds."""
    members = open_members(models, file)
    _check_own(run, members)
    task = task_of_model(members[0].model)
    task.check_options(DataError, ensemble=True)
    with working(f"read {data}"):
        table = task.read(DataSource(data, fold, strict, names=members[0].model.labels))
    which = f"{len(members)} files within {megabytes(max_bytes)}"
    say(f"ensemble of {which}: {task.counts(table)}, chosen on val; writes {run}")
    return join_best(run, table, members, max_bytes, fold=fold, strict=strict, command=command, data=str(data))


def join_best(
    run: RunFolder,
    table: ClipTable,
    members: Sequence[Member],
    max_bytes: int,
    fold: str | None = None,
    strict: bool = False,
    command: str = "",
    data: str = "",
) -> dict[str, Any]:
    """The same of members that are open and clips that are read: chosen on val, scored on test where there is one."""
    started = time.monotonic()
    task = task_of_model(members[0].model)
    names = members[0].model.labels
    val = table.of_split("val")
    if not len(val):
        raise DataError(f"{table.root}: no validation clips to choose members by")
    index = {name: i for i, name in enumerate(names)}
    tops = {member.name: cached_scores(member.model, val, strict) for member in members}
    scored_rows = next(iter(tops.values()))[1]
    if any(rows != scored_rows for _, rows in tops.values()):
        raise DataError(f"{table.root}: the candidates could not read the same validation clips")
    clips = list(val)
    labels = [[index[name] for name in clips[row].labels] for row in scored_rows]
    tried = {member.name: top for member, (top, _) in zip(members, tops.values(), strict=True)}
    chosen = _search(members, tried, labels, max_bytes, task, table, run)
    split, scored = task.scored_split(table)
    metrics, found = task.score_files(run, [MODEL], scored, strict)
    by_name = {member.name: member for member in members}
    metrics |= {
        "split": split,
        "fold": fold,
        "seconds": round(time.monotonic() - started, 1),
        "clips": {"val": len(val), "scored": len(found[MODEL].clips)},
        "skipped": [{"path": path, "error": error} for path, error in table.skipped],
        "ensemble": {
            "members": dict(zip(chosen.members, chosen.weights, strict=True)),
            "gap20_val": chosen.gap,
            "max_bytes": max_bytes,
            "candidates": {
                m.name: {"bytes": m.model.bytes, "gap20_val": _alone(m, tried[m.name], labels)} for m in members
            },
        },
        "members": {name: _figures(task, by_name[name].model, scored, strict) for name in chosen.members},
    }
    task.write_evidence(run, [MODEL], metrics, table, command or f"vidlet ensemble {data} ...")
    run.write_metrics(metrics)
    if metrics["bytes"][MODEL] > max_bytes:
        raise DataError(f"{run}: {metrics['bytes'][MODEL]} bytes with its evidence, allowed {max_bytes}")
    found_of = metrics["ensemble"]
    run.write_members(f"ensemble of {len(found_of['members'])}", found_of["members"])
    section = Section("Files, and the ensemble of the best that fit", _candidates(found_of), _ABOUT)
    task.report(run, metrics, (), found, table, data, extra=[section])
    task.say(run, metrics, [MODEL])
    task.say_next(run)
    return run.result(metrics)


def open_members(models: Sequence[str | Path], file: str = "") -> list[Member]:
    """The candidates of an ensemble: model files, or those of run folders (``file``: the one of this name).

    Raises:
        DataError: their labels or inputs differ, or a folder has no such file.
    """
    paths: list[Path] = []
    for item in map(Path, models):
        if not item.is_dir():
            paths.append(item)
            continue
        own = RunFolder(item).candidates(file)
        if not own:
            raise DataError(f"{item}: no {file or 'model file'} in this folder")
        paths += own
    loaded = [load(path, threads=1) for path in dict.fromkeys(paths)]
    first = loaded[0]
    for model in loaded[1:]:
        if model.labels != first.labels or model.multi_label != first.multi_label:
            raise DataError(f"{model.path}: has other labels than {first.path}; members must have the same")
        if "frames" in model.inputs and (model.sampling, model.inputs) != (first.sampling, first.inputs):
            raise DataError(
                f"{model.path}: sees clips otherwise ({_seen(model)}) than {first.path} ({_seen(first)}); members of "
                "one file see the same frames"
            )
    members = []
    for model in loaded:
        graph = graph_of(model)
        name = f"{model.path.parent.name}/{model.path.name}"
        members.append(Member(name, model, graph, graph.ByteSize()))
    twice = [m for m in members if sum(other.name == m.name for other in members) > 1]
    return [Member(str(m.model.path), m.model, m.graph, m.bytes) if m in twice else m for m in members]


def _check_own(run: RunFolder, members: Sequence[Member]) -> None:
    """Refuse to write over a model that is no ensemble of these members; what one of theirs was begun for is free."""
    if not run.model.exists():
        return
    recipe = load(run.model, threads=1).metadata.get("recipe")
    inside = recipe.get("members") if isinstance(recipe, dict) else None
    names = {one.get("name") for one in inside or () if isinstance(one, dict)}
    if not names or not names <= {member.name for member in members}:
        raise TrainingError(f"{run}: its {MODEL} is no ensemble of these files; choose another --out")


def _seen(model: Model) -> str:
    """The frames that a model takes, in a few words."""
    if "frames" not in model.inputs:
        return "stored features"
    rule = f"{model.rate_hz:g} Hz" if model.sampling.rule == "rate" else f"{model.sampling.frames} frames"
    return f"{rule}, {model.input_size[0]} x {model.input_size[1]}"


def _search(
    members: Sequence[Member],
    tops: Mapping[str, TopScores],
    labels: Sequence[Sequence[int]],
    max_bytes: int,
    task: Task[ClipTable, Any],
    table: ClipTable,
    run: RunFolder,
) -> Chosen:
    """Search, join, write; where the file is too large, search again with so much less room."""
    smallest = min(members, key=lambda member: member.bytes)
    if smallest.bytes + EVIDENCE_BYTES > max_bytes:
        raise DataError(
            f"no model fits into {max_bytes} bytes: the smallest, {smallest.name}, has {smallest.bytes} and "
            f"{EVIDENCE_BYTES} of metadata"
        )
    contents = [content_sizes(member.graph) for member in members]
    common = set.intersection(*map(set, contents)) if len(contents) > 1 else set()
    shared = sum(contents[0][key] for key in common)
    room = max_bytes
    for _ in range(TRIES):
        candidates = [Candidate(m.name, m.bytes - shared, tops[m.name]) for m in members]
        chosen = search_ensemble(candidates, labels, room, shared, exhaustive=EXHAUSTIVE)
        inside = [next(m for m in members if m.name == name) for name in chosen.members]
        graph = join_graphs([member.graph for member in inside], chosen.weights)
        size = _write(graph, inside, chosen, task, table, run.model)
        over = size + EVIDENCE_BYTES - max_bytes
        if over <= 0:
            say(f"{len(inside)} of {len(members)}, GAP@20 {chosen.gap:.4f} on {len(labels)} validation clips")
            return chosen
        run.model.unlink()
        room = chosen.bytes - over  # what counting did not know of: names, nodes, metadata
    raise DataError(f"no ensemble fits into {max_bytes} bytes with its metadata; the last had {size}")


def _write(
    graph: onnx.ModelProto,
    inside: Sequence[Member],
    chosen: Chosen,
    task: Task[ClipTable, Any],
    table: ClipTable,
    path: Path,
) -> int:
    """Write the joint file, held to the mean of its members' scores and to itself frame by frame; return its bytes."""
    metadata = joint_metadata(graph, f"ensemble of {len(inside)}", {m.name: m.model for m in inside}, chosen.weights)
    models, inputs = [m.model for m in inside], metadata["inputs"]
    widths = {name: shape[-1] for model in models for name, shape in model.inputs.items()}

    def expected(clip: np.ndarray, windows: int) -> np.ndarray:
        parts = dict(zip(inputs, _cut(clip, [widths[name] for name in inputs]), strict=True))
        feeds = [{name: parts[name] for name in model.inputs} for model in models]
        return weighted_scores(models, chosen.weights, feeds, windows)

    assert task.sample is not None
    sample = task.sample(inside[0].model, table.of_split("val"), inputs)
    return write_artifact(graph, path, metadata, sample, expected)


def _cut(clip: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    if len(widths) == 1:
        return [clip]
    return [np.ascontiguousarray(part) for part in np.split(clip, np.cumsum(widths)[:-1], axis=1)]


def _alone(member: Member, top: TopScores, labels: Sequence[Sequence[int]]) -> float:
    """GAP@20 of one member on the validation clips."""
    return search_ensemble([Candidate(member.name, 0, top)], labels, 1).gap


def _figures(task: Task[ClipTable, Any], model: Model, clips: ClipTable, strict: bool) -> dict[str, Any]:
    found = task.figures(model, clips, strict)
    keys = ("gap20", "hit1", "perr", "map", "accuracy", "bytes")
    return {key: found[key] for key in keys if key in found}


_ABOUT = (
    "Every point is a file that was scored on validation clips; the line joins those that no smaller file reaches; the "
    "dashed line is the limit. What is chosen stands in the joint file with the weight of its scores."
)


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
    return Html(chart + html_table(columns, rows, "The members of the file"))
