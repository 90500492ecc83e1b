"""Train a classifier from labelled clips: features or frames, fit, export, compress, score the files, report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..compression import Trained, find_chain
from ..datasets import ClipTable, check_trainable
from ..errors import TrainingError
from ..files import sha256_of, write_text
from ..models import FrameExtractor, Head, build_head
from ..progress import bar, say
from ..recipe import Recipe, load_recipe, recipe_to_dict, save_recipe
from ..training import ClipNetwork, Clips, Teacher, check_amounts, save_tensors, train_network
from .advice import warn_of_precision, warn_of_slow_trains
from .clips import labelled_clips, scored_split
from .prepare import Prepared
from .prepare_records import extractor_for, prepare_clips, recipe_for
from .product import Workshop, say_result, score_files, write_evidence
from .refit import refit_all as refit
from .refit import write_refit_evidence
from .report import report_run
from .teachers import open_teachers, taught
from .transfer import open_start, start_extractor_, start_head_

DETECTOR_HEAD = "region"  # a recipe with this head is a detector's: its data are images with boxes


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
    init: str | Path | None = None,
    refit_all: bool = False,
    teachers: Sequence[str | Path] = (),
    val_shards: int | None = None,
) -> dict[str, Any]:
    """Train a classifier of clips, or a detector of boxes, by a recipe and leave the files of a run in ``out``.

        vidlet.train("clips/", out="runs/a", overrides={"training.epochs": 30})

    The run folder holds ``model.onnx`` (float32), a file for each step of ``recipe.compress`` (``model.int8.onnx``),
    ``report.html``, ``metrics.json`` and what docs/architecture.md lists.

    Args:
        data: a folder per class, a folder with clips.csv, a .csv file, or stored features (records, or features.npz);
            images with boxes for a detector's recipe (docs/data.md).
        recipe: a built-in name, a .toml file or a ``Recipe`` (docs/recipes.md).
        out: the run folder; None: runs/ and the recipe's name.
        overrides: values of the recipe by dotted key; not with a ``Recipe``.
        fold: "0/5" tests on part 0 of 5, made by group; None: the splits of the data, made by group where absent.
        resume: go on after the last finished epoch of ``out``.
        strict: a clip that cannot be read is an error; else it is skipped, counted and listed.
        device: "auto", "cpu" or "cuda".
        command: what the evidence in the files says they were made with.
        init: a run folder or model file, with the same or other labels, whose weights this one starts from.
        refit_all: train once more on all clips, for the epochs that validation found: ``model.all.onnx``.
        teachers: model files or run folders of the same labels, ensembles among them; their mean answer on each
            training clip as it is, computed once, is learned beside its labels (``training.teacher_share``).
        val_shards: of records: so many shards, drawn at random, validate; all others that are not test train.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}; metrics are those of the files, on test (val where there is none).

    Raises:
        VidletError: whatever is wrong with data, recipe, weights or a resumed run, in one line.
    """
    started = time.monotonic()
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if plan.head.name == DETECTOR_HEAD:
        if fold is not None:
            raise TrainingError("--fold: images with boxes have no groups; give splits (docs/data.md)")
        if init or refit_all or teachers:
            raise TrainingError(
                f"{'--init' if init else '--refit-all' if refit_all else '--teacher'}: not for detectors"
            )
        from .train_detector import train_detector

        return train_detector(data, recipe, out, overrides, resume, strict, device, command)
    if refit_all and teachers:
        raise TrainingError("--refit-all: not with --teacher, whose answers are those on the training clips")
    chains = [find_chain(text) for text in plan.compress]
    check_amounts(plan.training.augment, plan.training.mode)
    table = labelled_clips(data, fold, strict, stored=True, val_shards=val_shards)
    check_trainable(table)
    plan = recipe_for(plan, table)
    folder = Path(out or Path("runs") / plan.name)
    start = open_start(init) if init else None
    models = open_teachers(teachers, table)
    taught_by = {str(model.path): sha256_of(model.path) for model in models}
    known = [recipe_to_dict(plan), table.sha256(), *([start.sha256] if start else []), *taught_by.values()]
    identity = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    _check_folder(folder, resume)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device

    def begin() -> tuple[FrameExtractor, Head]:
        extractor = extractor_for(plan, table)
        if start:
            start_extractor_(start, extractor, plan)
        return extractor, build_head(plan.head, extractor.feature_shape, len(table.labels))

    torch.manual_seed(plan.training.seed)
    extractor, head = begin()
    if not (resume and (folder / "checkpoint.pt").exists()):  # else it stands there, or the run is another and refused
        save_recipe(plan, folder / "recipe.toml")
    frozen = plan.training.mode == "frozen"

    def prepare(table: ClipTable, extractor: FrameExtractor, head: Head) -> Prepared:
        prepared = prepare_clips(plan, table, extractor, strict)
        if prepared.mean is not None and prepared.std is not None:
            head.calibrate(torch.from_numpy(prepared.mean), torch.from_numpy(prepared.std))
        if start:
            say(f"--init {start.name}: {start_head_(start, head, plan, table.labels)}")
        return prepared

    prepared = prepare(table, extractor, head)
    warn_of_precision(plan, device)
    warn_of_slow_trains(head, extractor.feature_shape, plan, prepared.median_s, device)
    network = ClipNetwork(head, None if frozen else extractor)
    train_clips: Clips = prepared.train
    teacher = None
    if models:
        train_clips = taught(prepared.train, prepared.clips, table, models, strict)
        teacher = Teacher(None, share=plan.training.teacher_share)
        extractor.provenance["taught_by"] = ", ".join(f"{Path(p).name} of sha256 {key}" for p, key in taught_by.items())
    with bar("train", "epoch") as move:
        progress = train_network(
            network,
            train_clips,
            prepared.val,
            plan.training,
            folder,
            identity,
            multi_label=table.multi_label,
            resume=resume,
            device=device,
            report=lambda row, epochs: move(int(row["epoch"]), epochs),
            teacher=teacher,
        )
    network.to("cpu")
    save_tensors(head.state_dict(), folder / "head.pt")
    if not frozen:
        save_tensors(extractor.backbone.state_dict(), folder / "extractor.pt")
    workshop = Workshop(plan, table, prepared, extractor)
    names = workshop.write_all(Trained(extractor, head), chains, folder)
    split, clips = scored_split(table, None)
    metrics, scored = score_files(folder, names, clips, strict)
    metrics |= {
        "split": split,
        "fold": fold,
        "seconds": round(time.monotonic() - started, 1),
        "epochs": progress.epoch,
        "clips": {"train": len(prepared.train), "val": len(prepared.val), "scored": len(scored[names[0]].clips)},
        "skipped": [{"path": path, "error": error} for path, error in (*table.skipped, *prepared.skipped)],
    }
    if models:
        metrics["teachers"] = [{"path": path, "sha256": key} for path, key in taught_by.items()]
    command = command or f"vidlet train {data}"
    write_evidence(folder, names, metrics, table, command)
    if refit_all:
        temperature = workshop.temperature(Trained(extractor, head))
        metrics["refit"] = refit(
            plan, table, begin, prepare, progress, temperature, chains, folder, identity, resume, device
        )
        write_refit_evidence(folder, metrics["refit"], metrics, table, command)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1))
    report_run(folder, metrics, progress.history, scored, table, data=str(data))
    say_result(folder, metrics, names)
    return {"out": str(folder), "files": run_files(folder), "metrics": metrics}


def run_files(folder: Path) -> dict[str, int]:
    """Name -> bytes of what a run left, without its checkpoint."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "checkpoint.pt")
    return {p.name: p.stat().st_size for p in files}


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file, not a folder for a run")
    if not resume and (folder / "model.onnx").exists():
        raise TrainingError(f"{folder}: holds a finished run; choose another --out, or --resume to finish this one")
