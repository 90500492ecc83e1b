"""A paper's recipes trained on given clips, reduced to what the machine trains: accuracy, bytes, seconds an epoch.

Scored is the test split, or val where there is none. Nothing is chosen on it: the last weights count, and all other
clips are trained on. Accuracies are the trained network's, which the written file is held to (1e-4).
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artifact import ArtifactNetwork, artifact_graph, artifact_metadata, torch_reference, write_artifact
from ..datasets import ClipTable
from ..errors import RecipeError
from ..metrics import confusion_matrix, macro_average, per_class, top_k_accuracy
from ..models import FrameExtractor
from ..models.head import Head
from ..models.heads import head_options
from ..progress import say, working
from ..recipe import Recipe, load_recipe, recipe_to_dict
from ..runs import MODEL
from ..tasks import TASKS, scored_split
from ..tasks.clips import labelled_clips
from ..tasks.prepare import Prepared, sample_clips
from ..training import ClipNetwork, Clips, predict_logits, train_network
from .rows import Row

PARITY_FRAMES = 5


QUICK_EPOCHS = 10


@dataclass(frozen=True)
class Effort:
    """How much is trained, and where.

    Args:
        epochs: of a run at most; None: what the protocol says (quick: ``QUICK_EPOCHS``).
        seeds: runs of each recipe; ``clips``: the share of the clips.
        detector: a run folder that DEEPEYE's rows stand on.
        overrides: values of every recipe; an option of the head, of those recipes whose head has it.
        protocol: "quick", or "paper" (protocol.py).
        folds: so many folds of a row, the first ones; 0: all.
        rows: words of which a row must have one in its name; none: all rows.
        extractor: a file for the rows of the thesis' other extractor.
        code: what determines the figures now (results.py); a line of the log says of which code it is.
    """

    epochs: int | None = None
    seeds: int = 1
    clips: float = 1.0
    detector: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    protocol: str = "quick"
    folds: int = 0
    rows: tuple[str, ...] = ()
    extractor: str | None = None
    code: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """Clips, read once for all recipes that see them alike; ``sample`` (T, H, W, 3) is for the parity check.

    ``prepared.val`` are scored. ``watched``: what early stopping watches, where that is other clips.
    """

    table: ClipTable
    extractor: FrameExtractor
    prepared: Prepared
    sample: np.ndarray
    watched: Clips | None = None


class Fitted(NamedTuple):
    """A finished training: seconds of a median epoch, and the epochs until it ended."""

    epoch_s: float
    epochs: int


def shortened(name: str, epochs: int, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A built-in recipe for so many epochs: its rate falls at the same shares of them, and it never stops early."""
    usual = {"training.epochs": epochs, "training.schedule.step_epochs": max(1, round(0.3 * epochs))}
    return load_recipe(name, usual | {"training.early_stopping": 0} | dict(overrides or {}))


def read_setup(data: str | Path, plan: Recipe, share: float = 1.0) -> Setup:
    """Read a share of the clips; what is scored becomes val, everything else is trained on.

    Raises:
        VidletError: what is wrong with the data.
    """
    table = labelled_clips(data)
    scored = {id(clip) for clip in scored_split(table)[1]}
    clips = [dataclasses.replace(clip, split="val" if id(clip) in scored else "train") for clip in table]
    rng = np.random.default_rng(0)
    kept: set[int] = set()
    for split in ("train", "val"):  # the share of each, so that none is empty
        numbers = [i for i, clip in enumerate(clips) if clip.split == split]
        kept |= set(rng.permutation(numbers)[: max(1, round(share * len(numbers)))].tolist())
    table = table.with_clips(clips[i] for i in sorted(kept))
    networks = TASKS["clips"].networks()
    network = networks.build(plan, table, None)
    prepared = networks.prepare(plan, table, network, False)
    return Setup(table, network.extractor, prepared, sample_clips(table, plan, 1)[0])


def train_and_score(setup: Setup, plan: Recipe, head: Head, device: str = "cpu") -> dict[str, Any]:
    """Train a head (and its extractor, where the recipe does) and return what ``score`` does."""
    fitted = fit_head(setup, plan, head, device)
    with working(f"score {plan.name}"):
        return score(setup, plan, head, fitted.epoch_s)


def fit_head(
    setup: Setup, plan: Recipe, head: Head, device: str = "cpu", folder: Path | None = None, identity: str = ""
) -> Fitted:
    """Train a head in place, and its extractor where the recipe does; with a folder, on from what is there."""
    prepared = setup.prepared
    times = [time.perf_counter()]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    progress = train_network(
        _network(setup, head), prepared.train, setup.watched or prepared.val, plan.training, folder, identity,
        resume=folder is not None, device=device, title=plan.name,
        report=lambda row, epochs: times.append(time.perf_counter()), moments=prepared.moments,
    )  # fmt: skip
    return Fitted(statistics.median(np.diff(times).tolist()) if len(times) > 1 else 0.0, progress.epoch)


def _network(setup: Setup, head: Head) -> ClipNetwork:
    return ClipNetwork(head, setup.extractor if setup.prepared.mean is None else None)


def score(setup: Setup, plan: Recipe, head: Head, epoch_s: float = 0.0) -> dict[str, Any]:
    """``accuracy``, ``top5`` and ``macro_precision``, _recall, _f1 on ``scored`` clips; ``bytes`` of the file.

    Also ``parameters`` of the head, ``epoch_s`` and ``epochs``.
    """
    return {
        **figures_of(probabilities(setup, plan, head), setup.prepared.val.targets.argmax(1)),
        "bytes": written_bytes(setup, plan, head),
        "parameters": sum(p.numel() for p in head.parameters()),
        "epoch_s": epoch_s,
        "epochs": plan.training.epochs,
    }


def probabilities(setup: Setup, plan: Recipe, head: Head) -> np.ndarray:
    """What a trained network says of the scored clips: (N, K)."""
    logits = predict_logits(_network(setup, head), setup.prepared.val, plan.training.batch)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(1, keepdims=True)
    return found


def figures_of(scores: np.ndarray, truth: np.ndarray, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Accuracy, top-5, the means over classes and how many were scored, of scores (N, K) and classes (N,).

    With the names of the classes also ``per_class``: precision, recall, F1 and the scored clips of each.
    """
    hits = scores.argmax(1) == truth
    confusion = confusion_matrix(scores.argmax(1), truth, scores.shape[1])
    found = {
        "accuracy": float(hits.mean()),
        "top5": top_k_accuracy(scores, truth),
        **{f"macro_{name}": value for name, value in macro_average(confusion)._asdict().items()},
        "scored": len(hits),
    }
    if labels:
        rows = np.stack([column.astype(float) for column in per_class(confusion)], 1).round(4).tolist()
        found["per_class"] = dict(zip(labels, rows, strict=True))
    return found


def written_bytes(setup: Setup, plan: Recipe, head: Head) -> int:
    """Bytes of the file of a trained network, which is held to it and kept nowhere."""
    artifact = ArtifactNetwork(setup.extractor, head).eval()
    metadata = artifact_metadata(plan, setup.table.labels, setup.prepared.median_s, setup.extractor.provenance)
    frames = np.resize(setup.sample, (PARITY_FRAMES, *setup.sample.shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        graph = artifact_graph(artifact, setup.extractor.input_size)
        return write_artifact(graph, Path(folder) / MODEL, metadata, frames, torch_reference(artifact))


def run_recipes(
    cases: Mapping[str, tuple[str, Mapping[str, Any]]], data: str | Path, effort: Effort, log: Path
) -> dict[str, list[dict[str, Any]]]:
    """Train every case (recipe and overrides) with every seed; ``log`` gets a line a finished run, and is read first.

    Raises:
        RecipeError: an effort of nothing, or an override that no recipe takes.
    """
    check_effort(effort)
    epochs = effort.epochs or QUICK_EPOCHS
    known = {row["key"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    log.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    ready: tuple[str, Setup] | None = None
    given = {name: taken_values(effort.overrides, *case) for name, case in cases.items()}
    for key in effort.overrides:
        if not any(key in taken for taken in given.values()):
            raise RecipeError(f"papers: no recipe of the experiment has a head with {key}")
    for name, (recipe, overrides) in cases.items():
        for seed in range(effort.seeds):
            plan = shortened(recipe, epochs, {**overrides, **given[name], "training.seed": seed})
            key = json.dumps([Path(data).name, effort.clips, recipe_to_dict(plan)], sort_keys=True)
            if key not in known:
                told = recipe_to_dict(plan)
                seen = json.dumps([told["sampling"], told["extractor"], told["training"]["mode"],
                                   plan.training.augment.get("redraw")])  # fmt: skip
                if ready is None or ready[0] != seen:
                    ready = None  # free the memory first
                    ready = (seen, read_setup(data, plan, effort.clips))
                network = TASKS["clips"].networks().build(plan, ready[1].table, None)  # none learns what another did
                own = dataclasses.replace(ready[1], extractor=network.extractor)
                figures = train_and_score(own, plan, network.head, effort.device)
                known[key] = {"name": name, "seed": seed, **figures, "key": key, "code": effort.code}
                with log.open("a") as sink:
                    sink.write(json.dumps(known[key]) + "\n")
                say(f"{name}, seed {seed}: accuracy {known[key]['accuracy']:.3f}")
            found[name].append(known[key])
    return found


def check_effort(effort: Effort) -> None:
    """Refuse an effort of nothing.

    Raises:
        RecipeError: epochs, seeds, folds or the share of the clips.
    """
    least = 1 if effort.epochs is None else effort.epochs
    if least < 1 or effort.seeds < 1 or effort.folds < 0 or not 0 < effort.clips <= 1:
        raise RecipeError(f"papers: epochs and seeds must be at least 1 and clips a share in (0, 1], got {effort}")


def taken_values(given: Mapping[str, Any], recipe: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given values that a case takes: all but options that its head does not have."""
    options = head_options(load_recipe(recipe, dict(overrides)).head.name)
    return {
        key: value
        for key, value in given.items()
        if not key.startswith("head.options.") or key.removeprefix("head.options.") in options
    }


def measured(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean ``accuracy``, its ``spread`` over seeds (none of a single one), ``bytes`` and ``epoch_s`` of runs alike."""
    values = [run["accuracy"] for run in runs]
    spread = {"spread": round(statistics.stdev(values), 4)} if len(values) > 1 else {}
    return {
        "accuracy": round(statistics.mean(values), 4),
        **spread,
        "bytes": max(run["bytes"] for run in runs),
        "epoch_s": round(statistics.median(run["epoch_s"] for run in runs), 2),
    }


def fill(tables: Iterable[Mapping[str, Any]], figures: Mapping[str, float]) -> None:
    """Put measured figures into the rows of these names.

    Raises:
        KeyError: a name that no row has (ours to mend).
    """
    rows: dict[str, list[Row]] = {}
    for table in tables:
        for row in table["rows"]:
            rows.setdefault(row["name"], []).append(row)
    for name, value in figures.items():
        for row in rows[name]:
            row["measured"] = value
