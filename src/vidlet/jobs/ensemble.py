"""The best ensemble of trained files that fits a byte limit, as one file that is scored again."""

from __future__ import annotations

import json
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
from ..datasets.frame_record import frame_codes
from ..errors import DataError, TrainingError
from ..files import write_text
from ..progress import say
from ..runtime import Model, load
from ..video import read_clip
from .cached import cached_scores
from .clips import labelled_clips, scored_split
from .ensemble_report import report_ensemble
from .evaluate import figures_of
from .joint import joint_metadata
from .product import say_result, score_files, write_evidence
from .records import in_model_names
from .train import run_files

PARITY_FRAMES = 8
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


def ensemble(
    data: str | Path,
    models: Sequence[str | Path],
    max_bytes: int,
    out: str | Path = "runs/ensemble",
    file: str = "",
    fold: str | None = None,
    strict: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Search the members and weights whose joint file fits, and leave it as ``model.onnx`` in ``out``.

        vidlet.ensemble("records/", ["runs/a", "runs/b"], 700_000, "runs/best")

    ``report.html`` shows it beside every candidate. Members are chosen by GAP@20 on the validation clips, from
    predictions of the files that are kept in the cache; the file is scored on test beside its members. Members share
    the inputs, and what they compute and store alike.

    Args:
        models: model files, or run folders, of which every ``model*.onnx`` is a candidate.
        max_bytes: of the file, metadata included.
        file: of run folders, only the file of this name.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics["ensemble"] has members, weights, bytes, the validation GAP
        and the candidates'; metrics["members"] what each member reaches on the scored clips.

    Raises:
        DataError: no candidate fits, or the candidates do not have the same labels or do not see the same frames.
    """
    started = time.monotonic()
    folder = Path(out)
    if (folder / "model.onnx").exists():
        raise TrainingError(f"{folder}: holds a finished run; choose another --out")
    members = _open(models, file)
    names = members[0].model.labels
    table = in_model_names(labelled_clips(data, fold, strict, stored=True, classes=len(names)), names)
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
    chosen = _search(members, tried, labels, max_bytes, table, folder)
    split, scored = scored_split(table, None)
    metrics, found = score_files(folder, ["model.onnx"], scored, strict)
    by_name = {member.name: member for member in members}
    metrics |= {
        "split": split,
        "fold": fold,
        "seconds": round(time.monotonic() - started, 1),
        "clips": {"val": len(val), "scored": len(found["model.onnx"].clips)},
        "skipped": [{"path": path, "error": error} for path, error in table.skipped],
        "ensemble": {
            "members": dict(zip(chosen.members, chosen.weights, strict=True)),
            "gap20_val": chosen.gap,
            "max_bytes": max_bytes,
            "candidates": {
                m.name: {"bytes": m.model.bytes, "gap20_val": _alone(m, tried[m.name], labels)} for m in members
            },
        },
        "members": {name: _figures(by_name[name].model, scored, strict) for name in chosen.members},
    }
    write_evidence(folder, ["model.onnx"], metrics, table, command or f"vidlet ensemble {data} ...")
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, default=float))
    if metrics["bytes"]["model.onnx"] > max_bytes:
        raise DataError(f"{folder}: {metrics['bytes']['model.onnx']} bytes with its evidence, allowed {max_bytes}")
    report_ensemble(folder, metrics, found, table, str(data))
    say_result(folder, metrics, ["model.onnx"])
    return {"out": str(folder), "files": run_files(folder), "metrics": metrics}


def _open(models: Sequence[str | Path], file: str) -> list[Member]:
    paths: list[Path] = []
    for item in map(Path, models):
        if not item.is_dir():
            paths.append(item)
            continue
        own = sorted(item.glob(file or "model*.onnx"))
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
        graph = onnx.load_from_string(model.path.read_bytes())
        del graph.metadata_props[:]
        name = f"{model.path.parent.name}/{model.path.name}"
        members.append(Member(name, model, graph, graph.ByteSize()))
    twice = [m for m in members if sum(other.name == m.name for other in members) > 1]
    return [Member(str(m.model.path), m.model, m.graph, m.bytes) if m in twice else m for m in members]


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
    table: ClipTable,
    folder: Path,
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
        size = _write(graph, inside, chosen, table, folder / "model.onnx")
        over = size + EVIDENCE_BYTES - max_bytes
        if over <= 0:
            say(f"{len(inside)} of {len(members)}, GAP@20 {chosen.gap:.4f} on {len(labels)} validation clips")
            return chosen
        (folder / "model.onnx").unlink()
        room = chosen.bytes - over  # what counting did not know of: names, nodes, metadata
    raise DataError(f"no ensemble fits into {max_bytes} bytes with its metadata; the last had {size}")


def _write(graph: onnx.ModelProto, inside: Sequence[Member], chosen: Chosen, table: ClipTable, path: Path) -> int:
    """The joint file, held to the mean of its members' scores and to itself frame by frame."""
    metadata = joint_metadata(graph, f"ensemble of {len(inside)}", {m.name: m.model for m in inside}, chosen.weights)
    widths = {name: shape[-1] for m in inside for name, shape in m.model.inputs.items()}

    def expected(clip: np.ndarray, windows: int) -> np.ndarray:
        parts = dict(zip(metadata["inputs"], _cut(clip, [widths[n] for n in metadata["inputs"]]), strict=True))
        each = [m.model({name: parts[name] for name in m.model.inputs}, m.model.zero_state(windows))[0] for m in inside]
        return np.asarray(sum(w * s for w, s in zip(chosen.weights, each, strict=True)), np.float32)

    return write_artifact(graph, path, metadata, _sample(inside[0].model, table, metadata["inputs"]), expected)


def _cut(clip: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    if len(widths) == 1:
        return [clip]
    return [np.ascontiguousarray(part) for part in np.split(clip, np.cumsum(widths)[:-1], axis=1)]


def _sample(model: Model, table: ClipTable, inputs: Sequence[str]) -> np.ndarray:
    """Some frames of a validation clip, or codes of a record side by side."""
    clip = next(iter(table.of_split("val")))
    if table.records is not None and clip.row is not None:
        frames = frame_codes(table.records.read(clip.row), inputs)
    else:
        frames = read_clip(
            clip.path, model.sampling, model.input_size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps
        ).frames
    count = max(5, min(PARITY_FRAMES, len(frames)))
    return np.resize(frames[:PARITY_FRAMES], (count, *frames.shape[1:]))


def _alone(member: Member, top: TopScores, labels: Sequence[Sequence[int]]) -> float:
    """GAP@20 of one member on the validation clips."""
    return search_ensemble([Candidate(member.name, 0, top)], labels, 1).gap


def _figures(model: Model, clips: ClipTable, strict: bool) -> dict[str, Any]:
    found = figures_of(model, clips, strict)
    keys = ("gap20", "hit1", "perr", "map", "accuracy", "bytes")
    return {key: found[key] for key in keys if key in found}
