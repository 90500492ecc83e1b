"""Train a classifier from labelled clips: features or frames, fit, export, compress, score the files, report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compress import find_step
from ..datasets import Clip, ClipTable, check_trainable
from ..errors import DataError, TrainingError, VidletError
from ..export import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    extractor_graph,
    torch_reference,
    write_artifact,
)
from ..features import extract
from ..files import cache_folder, write_text
from ..metrics import fit_temperature, paired_bootstrap
from ..models import FrameExtractor, build_extractor, build_head
from ..models.head import Head
from ..recipe import Recipe, load_recipe, recipe_to_dict, save_recipe
from ..runtime import graph_sha256, load, read_metadata, write_metadata
from ..training import (
    ClipNetwork,
    Clips,
    FeatureClips,
    FrameClips,
    check_amounts,
    fit,
    keep_memory,
    predict_logits,
    save_tensors,
)
from ..video import read_clip, read_many
from .clips import labelled_clips, scored_split
from .evaluate import Scored, predictions_csv, score_clips, summarize
from .progress import bar, megabytes, say
from .report import report_run

CALIBRATION_CLIPS = 40


@dataclass(frozen=True)
class Prepared:
    """Training and validation clips as the loop takes them, and what was learned of the data on the way."""

    network: ClipNetwork
    train: Clips
    val: Clips
    skipped: tuple[tuple[str, str], ...]
    median_s: float  # of a training clip


def train(
    data: str | Path,
    recipe: str | Path | Recipe = "mobilenetv2-grid-gru",
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    fold: str | None = None,
    resume: bool = False,
    strict: bool = False,
    device: str = "auto",
    command: str = "",
) -> dict[str, Any]:
    """Train a classifier of labelled clips by a recipe and leave the files of a run in ``out``.

        vidlet.train("clips/", out="runs/a", overrides={"training.epochs": 30})

    The run folder holds ``model.onnx`` (float32), a file for each step of ``recipe.compress`` (``model.int8.onnx``),
    ``report.html``, ``metrics.json`` and what docs/architecture.md lists.

    Args:
        data: a folder per class, a folder with clips.csv, or a .csv file (docs/data.md).
        recipe: a built-in name, a .toml file or a ``Recipe`` (docs/recipes.md).
        out: the run folder; None: runs/ and the recipe's name.
        overrides: values of the recipe by dotted key; not with a ``Recipe``.
        fold: "0/5" tests on part 0 of 5, made by group; None: the splits of the data, made by group where absent.
        resume: go on after the last finished epoch of ``out``.
        strict: a clip that cannot be read is an error; else it is skipped, counted and listed.
        device: "auto", "cpu" or "cuda".
        command: what the evidence in the files says they were made with.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics are those of the files, on test (val where there is none).

    Raises:
        VidletError: whatever is wrong with data, recipe, weights or a resumed run, in one line.
    """
    started = time.monotonic()
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    steps = {name: find_step(name) for name in plan.compress}
    check_amounts(plan.training.augment, plan.training.mode)
    table = labelled_clips(data, fold, strict)
    check_trainable(table)
    folder = Path(out or Path("runs") / plan.name)
    identity = hashlib.sha256(json.dumps([recipe_to_dict(plan), table.sha256()]).encode()).hexdigest()
    _check_folder(folder, resume)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device

    torch.manual_seed(plan.training.seed)
    extractor = build_extractor(plan.extractor)
    head = build_head(plan.head, extractor.feature_shape, len(table.labels))
    if not (resume and (folder / "checkpoint.pt").exists()):  # else it stands there, or the run is another and refused
        save_recipe(plan, folder / "recipe.toml")
    prepare = _prepare_features if plan.training.mode == "frozen" else _prepare_frames
    prepared = prepare(plan, table, extractor, head, strict)
    with bar("train", "epoch") as move:
        progress = fit(
            prepared.network,
            prepared.train,
            prepared.val,
            plan.training,
            folder,
            identity,
            multi_label=table.multi_label,
            resume=resume,
            device=device,
            report=lambda row, epochs: move(int(row["epoch"]), epochs),
        )
    prepared.network.to("cpu")
    temperature = None
    if not table.multi_label:
        val_logits = predict_logits(prepared.network, prepared.val, plan.training.batch)
        temperature = fit_temperature(val_logits, prepared.val.targets.argmax(1))

    if plan.training.mode == "finetune":
        _save_extractor(extractor, folder / "extractor.pt")
    samples = _sample_clips(table, plan, CALIBRATION_CLIPS)
    network = ArtifactNetwork(extractor, head, temperature or 1.0, table.multi_label)
    metadata = artifact_metadata(
        plan, table.labels, prepared.median_s, extractor.provenance, temperature, table.multi_label
    )
    graph = artifact_graph(network, extractor.input_size)
    frames = _at_least(max(samples, key=len), 5)
    write_artifact(graph, folder / "model.onnx", metadata, frames, torch_reference(network))
    for name, step in steps.items():
        write_artifact(step(graph, samples), folder / f"model.{name}.onnx", metadata, frames)

    names = ["model.onnx", *(f"model.{name}.onnx" for name in steps)]
    split, clips = scored_split(table, None)
    metrics, scored = _score_files(folder, names, clips, strict)
    metrics |= {
        "split": split,
        "fold": fold,
        "seconds": round(time.monotonic() - started, 1),
        "epochs": progress.epoch,
        "clips": {"train": len(prepared.train), "val": len(prepared.val), "scored": len(scored[names[0]].clips)},
        "skipped": [{"path": path, "error": error} for path, error in (*table.skipped, *prepared.skipped)],
    }
    _write_evidence(folder, names, metrics, table, command or f"vidlet train {data}")
    metrics["bytes"] = {name: (folder / name).stat().st_size for name in names}
    for name, size in metrics["bytes"].items():  # with the evidence in it
        metrics["files"][name]["bytes"] = size
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1))
    report_run(folder, metrics, progress.history, scored, table, data=str(data))
    _say_result(folder, metrics, names)
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "checkpoint.pt")
    return {"out": str(folder), "files": {p.name: p.stat().st_size for p in files}, "metrics": metrics}


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file, not a folder for a run")
    if not resume and (folder / "model.onnx").exists():
        raise TrainingError(f"{folder}: holds a finished run; choose another --out, or --resume to finish this one")


def targets_of(clips: Sequence[Clip], labels: Sequence[str]) -> np.ndarray:
    """(N, K) float32: 1 where a clip has the label."""
    index = {name: i for i, name in enumerate(labels)}
    targets = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in enumerate(clips):
        targets[row, [index[name] for name in clip.labels]] = 1
    return targets


def _prepare_features(plan: Recipe, table: ClipTable, extractor: FrameExtractor, head: Head, strict: bool) -> Prepared:
    """Features of all training and validation clips, from the store or through the runtime."""
    graph = extractor_graph(extractor)
    wanted = table.with_clips(clip for clip in table if clip.split in ("train", "val"))
    with bar("features") as move:
        found = extract(
            wanted,
            graph.SerializeToString(deterministic=True),
            plan.sampling,
            extractor.input_size,
            cache_folder("features"),
            progress=move,
        )
    _refuse(found.failures, strict)
    parts: dict[str, list[tuple[Clip, str]]] = {"train": [], "val": []}
    for clip, key in zip(wanted, found.keys, strict=True):
        if key:
            parts[clip.split].append((clip, key))
    _need_clips(parts, table)
    mean, std = _moments(found.store.read(key).features for _, key in parts["train"])
    head.calibrate(torch.from_numpy(mean), torch.from_numpy(std))

    def clips(split: str) -> FeatureClips:
        rows = parts[split]
        return FeatureClips(
            lambda i: found.store.read(rows[i][1]).features,
            targets_of([clip for clip, _ in rows], table.labels),
            [clip.path.name for clip, _ in rows],
            std,
            plan.sampling.max_frames,
        )

    times = [found.store.read(key).times_s for _, key in parts["train"]]
    return Prepared(
        ClipNetwork(head), clips("train"), clips("val"), tuple(found.failures), _median_seconds(times, plan)
    )


def _prepare_frames(plan: Recipe, table: ClipTable, extractor: FrameExtractor, head: Head, strict: bool) -> Prepared:
    """Decoded frames of all training and validation clips; every clip is read once to know that it can be."""
    keep_memory()

    def read(clip: Clip) -> np.ndarray:
        return read_clip(clip.path, plan.sampling, extractor.input_size, start_s=clip.start_s, end_s=clip.end_s).frames

    wanted = [clip for clip in table if clip.split in ("train", "val")]
    failures: list[tuple[str, str]] = []
    times: list[np.ndarray] = []
    frames: dict[str, list[np.ndarray | None]] = {"train": [], "val": []}
    parts: dict[str, list[tuple[Clip, str]]] = {"train": [], "val": []}
    room = KEEP_BYTES
    with bar("decode") as move:
        jobs = read_many(
            wanted,
            lambda clip: read_clip(
                clip.path, plan.sampling, extractor.input_size, start_s=clip.start_s, end_s=clip.end_s
            ),
        )
        for done, (clip, result) in enumerate(jobs, 1):
            move(done, len(wanted))
            if isinstance(result, VidletError):
                failures.append((str(clip.path), str(result)))
                continue
            room -= result.frames.nbytes
            frames[clip.split].append(result.frames if room > 0 else None)
            parts[clip.split].append((clip, ""))
            if clip.split == "train":
                times.append(result.times_s)
    _refuse(failures, strict)
    _need_clips(parts, table)

    def clips(split: str) -> FrameClips:
        rows = [clip for clip, _ in parts[split]]

        def frames_of(index: int) -> np.ndarray:
            kept = frames[split][index]
            return read(rows[index]) if kept is None else kept

        names = [clip.path.name for clip in rows]
        return FrameClips(frames_of, targets_of(rows, table.labels), names, plan.sampling.max_frames)

    network = ClipNetwork(head, extractor)
    return Prepared(network, clips("train"), clips("val"), tuple(failures), _median_seconds(times, plan))


KEEP_BYTES = 6_000_000_000  # of decoded frames that fine-tuning holds in memory; the rest is decoded again each epoch


def _save_extractor(extractor: FrameExtractor, path: Path) -> None:
    """The trained backbone's state dict, for ``extractor.weights`` of another recipe."""
    save_tensors(extractor.backbone.state_dict(), path)


def _refuse(failures: Sequence[tuple[str, str]], strict: bool) -> None:
    if failures and strict:
        raise DataError(failures[0][1])
    if failures:
        say(f"skipped {len(failures)} clips that cannot be read; first: {failures[0][1]}")


def _need_clips(parts: Mapping[str, Sequence[Any]], table: ClipTable) -> None:
    for split, rows in parts.items():
        if not rows:
            raise DataError(f"{table.root}: no readable clip in split {split}")


def _moments(features: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel over clips, frames and positions: (C,), (C,)."""
    count, total, squares = 0, 0.0, 0.0
    for item in features:
        x = np.asarray(item, np.float64).reshape(len(item), item.shape[1], -1)  # (T, C, positions)
        count += x.shape[0] * x.shape[2]
        total = total + x.sum((0, 2))
        squares = squares + (x**2).sum((0, 2))
    mean = np.asarray(total) / count
    variance = np.maximum(np.asarray(squares) / count - mean**2, 0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _median_seconds(times: Sequence[np.ndarray], plan: Recipe) -> float:
    """Median duration of training clips, from the times of their sampled frames."""
    if plan.sampling.rule == "rate":
        return float(np.median([len(t) for t in times])) / plan.sampling.hz
    return float(np.median([(t[-1] - t[0]) * len(t) / max(1, len(t) - 1) for t in times])) or 1.0


def _sample_clips(table: ClipTable, plan: Recipe, most: int) -> list[np.ndarray]:
    """Frames of up to ``most`` readable training clips, spread over the table."""
    rows = list(table.of_split("train"))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]

    def read(clip: Clip) -> np.ndarray:
        return read_clip(
            clip.path, plan.sampling, plan.extractor.input_size, start_s=clip.start_s, end_s=clip.end_s
        ).frames[: plan.sampling.max_frames]

    return [frames for _, frames in read_many(chosen, read) if not isinstance(frames, VidletError)]


def _at_least(frames: np.ndarray, count: int) -> np.ndarray:
    """The first frames of a clip, repeated where it is shorter than ``count``, at most 16."""
    return np.resize(frames[:16], (max(count, min(16, len(frames))), *frames.shape[1:]))


def _score_files(
    folder: Path, names: Sequence[str], clips: ClipTable, strict: bool
) -> tuple[dict[str, Any], dict[str, Scored]]:
    """Every file of the run on the same clips; the others compared with the first in pairs."""
    metrics: dict[str, Any] = {"files": {}}
    scored: dict[str, Scored] = {}
    for name in names:
        model = load(folder / name, threads=1)
        scored[name] = score_clips(model, clips, strict)
        metrics["files"][name] = summarize(scored[name], model)
    first = scored[names[0]]
    write_text(folder / "predictions.csv", predictions_csv(scored))
    for name in names[1:]:
        difference = paired_bootstrap(scored[name].correct, first.correct, first.groups)
        metrics["files"][name]["difference"] = {**difference._asdict(), "against": names[0]}
        metrics["files"][name]["agreement"] = float((scored[name].scores.argmax(1) == first.scores.argmax(1)).mean())
    for key in ("accuracy", "accuracy_interval", "top5", "macro_f1"):
        metrics[key] = metrics["files"][names[0]][key]
    return metrics, scored


def _write_evidence(
    folder: Path, names: Sequence[str], metrics: Mapping[str, Any], table: ClipTable, command: str
) -> None:
    """Into each file: what was measured of it, on which data, by which command."""
    for name in names:
        path = folder / name
        figures = metrics["files"][name]
        metadata = read_metadata(path)
        metadata["evidence"] = [
            {
                "what": f"{key}, split {metrics['split']}",
                "value": figures[key],
                "data": table.root.name,
                "clips": figures["clips"],
                "table_sha256": table.sha256(),
                "command": command,
                "graph_sha256": graph_sha256(path.read_bytes()),
            }
            for key in ("accuracy", "accuracy_interval", "top5", "macro_f1")
        ]
        write_metadata(path, metadata)


def _say_result(folder: Path, metrics: Mapping[str, Any], names: Sequence[str]) -> None:
    parts = []
    for name in names:
        figures = metrics["files"][name]
        low, high = figures["accuracy_interval"]
        parts.append(
            f"{name} {megabytes(metrics['bytes'][name])}, accuracy {figures['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        )
    say(f"{folder}: {'; '.join(parts)} on {metrics['files'][names[0]]['clips']} {metrics['split']} clips")
