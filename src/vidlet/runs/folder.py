"""The run folder: what its files are called, whether it may be written, and what it says of itself.

docs/architecture.md lists the files. Only this module spells their names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import ModelError, TrainingError
from ..files import Lock, atomic_path, write_text
from ..progress import say
from ..recipe import Recipe, load_recipe, nearest, save_recipe
from ..runtime import graph_sha256, read_metadata, write_metadata
from ..wording import as_json
from .ready import ready_file, ready_names

MODEL = "model.onnx"  # the product: float32 of `train`, the chosen file of `fit`, the joint one of `ensemble`
RECIPE = "recipe.toml"  # as resolved; of a joint file its members and their weights
METRICS = "metrics.json"
REPORT = "report.html"
LOG = "log.csv"  # a row an epoch
CHECKPOINT = "checkpoint.pt"  # what --resume goes on from
HEAD = "head.pt"  # weights of a classifier's head
EXTRACTOR = "extractor.pt"  # weights of its backbone, where that was fine-tuned
DETECTOR = "detector.pt"  # a detector's weights, with its labels and anchors
PREDICTIONS = "predictions.csv"  # what each file says of each scored clip
BOXES = "boxes.csv"  # what a detector's files find in each scored image
FIT = "fit.json"  # what a search found
SELECTION = "selection.json"  # what the recipe "auto" came to, and why
ALL = "model.all"  # how the names of the files begin that --refit-all trains on all clips
REFIT = "refit-all"  # the folder of the second training of --refit-all


def model_file(source: str | Path) -> Path:
    """A model file as it is named, the product of a run folder, or a ready model by its name.

    Raises:
        ModelError: a ready model that is not on this machine yet, or a bare word that is nothing of these.
    """
    path = Path(source)
    if path.is_dir():
        return path / MODEL
    named = not path.exists() and path.name == str(source)
    found = ready_file(path.name) if named else None
    if named and found is None and not path.suffix:
        raise ModelError(f"{path}: no such file or run, and no ready model{nearest(path.name, ready_names())}")
    return path if found is None else found / MODEL if found.is_dir() else found


def product_of(source: str | Path, told: bool = True) -> Path:
    """A model file as it is named; the product of a run or a ready model, which is said unless ``told`` is False.

    Raises:
        ModelError: a folder without one, or a ready model that is not on this machine yet.
    """
    path = model_file(source)
    if Path(source).is_dir() and not path.is_file():
        others = ", ".join(found.name for found in RunFolder.of(source).candidates())
        more = f"; name one of {others}" if others else "; not a finished run of `vidlet train`"
        raise ModelError(f"{source}: holds no {MODEL}{more}")
    if told and path != Path(source):
        say(f"model   {path}")
    return path


@dataclass(frozen=True)
class RunFolder:
    """A folder in which a command leaves a model file and everything that belongs to it."""

    path: Path

    @classmethod
    def of(cls, path: str | Path) -> RunFolder:
        """The run folder at a path, which need not exist."""
        return cls(Path(path))

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    @property
    def model(self) -> Path:
        """The product."""
        return self.path / MODEL

    def hold(self) -> Lock:
        """Keep other processes from writing here, for as long as what is returned lives.

        Raises:
            DataError: another one does already.
        """
        return Lock(self.path).hold()

    def check_free(self, option: str = "--out", resume: bool | None = None) -> None:
        """Refuse a path at which no run can be made.

        Args:
            option: how the command calls the folder.
            resume: whether the command goes on with the folder's run; None: it never does.

        Raises:
            TrainingError: the path is a file, or it holds a finished run that the command would overwrite.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self}: is a file, not a folder for a run")
        if not resume and self.model.exists():
            otherwise = "" if resume is None else ", or --resume to finish this one"
            raise TrainingError(f"{self}: holds a finished run; choose another {option}{otherwise}")

    def copy_to(self, target: RunFolder) -> None:
        """Put all files of the run but its checkpoint into another folder, which is a whole run then."""
        target.path.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.path.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.name != CHECKPOINT:
                with atomic_path(target / path.name) as draft:
                    shutil.copyfile(path, draft)

    def save_recipe(self, recipe: Recipe, resume: bool = False) -> None:
        """Write the resolved recipe; a run that is resumed has it already, or is another one and will be refused."""
        if not (resume and (self / CHECKPOINT).exists()):
            save_recipe(recipe, self / RECIPE)

    def recipe(self) -> Recipe:
        """The resolved recipe of a finished run.

        Raises:
            TrainingError: there is none, so that this is no run folder.
        """
        if not (self / RECIPE).exists():
            raise TrainingError(f"{self}: holds no {RECIPE}; not a run folder of `vidlet train`")
        return load_recipe(self / RECIPE)

    def weights(self, name: str) -> Path:
        """The file of trained weights of a finished run.

        Raises:
            TrainingError: it is not there.
        """
        if not (self / name).exists():
            again = f"`vidlet train DATA --recipe {self / RECIPE}` makes one that does"
            why = again if (self / FIT).exists() else "not a finished run of `vidlet train`"
            raise TrainingError(f"{self}: holds no {name}; {why}")
        return self / name

    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds; the sections of no file where there is none.

        Raises:
            TrainingError: it cannot be read, or is none.
        """
        path = self / METRICS
        try:
            known = json.loads(path.read_bytes().decode()) if path.exists() else {}
            sections = {name: known.get(name, {}) for name in ("files", "bytes")}
            if not all(isinstance(section, dict) for section in sections.values()):
                raise ValueError("files and bytes must be objects")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
            raise TrainingError(f"{path}: not the metrics of a run ({reason})") from error
        return {**known, **sections}

    def write_metrics(self, metrics: Mapping[str, Any], name: str = METRICS) -> None:
        """Write figures as JSON."""
        write_text(self / name, as_json(metrics, indent=1))

    def add_metrics(self, name: str, metrics: Mapping[str, Any]) -> None:
        """Put the section of one model file into ``metrics.json`` and leave the other sections as they are."""
        known = self.metrics()
        known["files"][name] = metrics["files"][name]
        known["bytes"][name] = metrics["bytes"][name]
        self.write_metrics(known)

    def write_members(self, title: str, members: Mapping[str, float]) -> None:
        """Write ``recipe.toml`` of a joint file: the names of its members and the weights of their scores."""
        parts = [f"name = {json.dumps(title)}\n"]
        parts += [
            f"\n[[members]]\nname = {json.dumps(name)}\nweight = {weight:g}\n" for name, weight in members.items()
        ]
        write_text(self / RECIPE, "".join(parts))

    def files(self) -> dict[str, int]:
        """Name -> bytes of what a command left, without its checkpoint."""
        found = sorted(path for path in self.path.iterdir() if path.is_file() and path.name != CHECKPOINT)
        return {path.name: path.stat().st_size for path in found}

    def result(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """What a command that makes files returns: {"out", "files": {name: bytes}, "metrics"}."""
        return {"out": str(self.path), "files": self.files(), "metrics": metrics}

    def candidates(self, name: str = "") -> Sequence[Path]:
        """The model files in the folder, or the one of a name."""
        return sorted(self.path.glob(name or "model*.onnx"))


# Evidence: what was measured of a model file, on which data and by which command, written into the file itself.
SAME = 1e-6  # figures that differ by no more are the same; on other processors a clip may tip over


class Scorable(Protocol):
    """A table of clips or of images, as far as evidence names it."""

    @property
    def root(self) -> Path:
        """Where the data lie."""
        ...

    def sha256(self) -> str:
        """Hash of what the table says."""
        ...


def add_evidence(
    path: Path,
    keys: Sequence[str],
    figures: Mapping[str, Any],
    what: str,
    table: Scorable,
    command: str,
    counted: str = "clips",
) -> None:
    """Write figures into a file's metadata, each with what it is of, its data, its command and the graph's hash.

    Args:
        counted: "clips" or "images": the figure that says on how many it was measured.
    """
    metadata = read_metadata(path)
    metadata["evidence"] = [
        {
            "what": f"{key}, {what}",
            "value": figures[key],
            "data": table.root.name,
            counted: figures[counted],
            "table_sha256": table.sha256(),
            "command": command,
            "graph_sha256": graph_sha256(path.read_bytes()),
        }
        for key in keys
    ]
    write_metadata(path, metadata)


def write_evidence(
    run: RunFolder,
    names: Sequence[str],
    metrics: dict[str, Any],
    keys: Callable[[Mapping[str, Any]], Sequence[str]],
    table: Scorable,
    command: str,
    counted: str = "clips",
) -> None:
    """Write into each file what ``metrics`` say of it, and then its bytes, evidence included, into ``metrics``.

    Args:
        keys: which of a file's figures are evidence.
    """
    for name in names:
        figures = metrics["files"][name]
        add_evidence(run / name, keys(figures), figures, f"split {metrics['split']}", table, command, counted)
    metrics["bytes"] = {name: (run / name).stat().st_size for name in names}
    for name, size in metrics["bytes"].items():
        metrics["files"][name]["bytes"] = size


def verify_evidence(path: Path, figures: Mapping[str, Any], split: str, table: Scorable) -> dict[str, Any]:
    """Hold what a file says of itself against what was measured just now.

    Args:
        figures: of the file, on ``split`` of ``table``.

    Returns:
        {"holds", "same_file", "same_data", "checked": [{"what", "said", "measured", "holds"}], "other": [what]}.
        Figures hold within ``SAME``; ``other`` are those of other splits or kinds, which were not measured.
    """
    said = read_metadata(path).get("evidence", [])
    checked, other = [], []
    for item in said:
        key, _, where = item["what"].partition(", ")
        measured = figures.get(key)
        if where != f"split {split}" or measured is None or item["value"] is None:
            other.append(item["what"])
            continue
        pairs = zip(_numbers(item["value"]), _numbers(measured), strict=True)
        holds = all(abs(before - now) <= SAME for before, now in pairs)
        checked.append({"what": item["what"], "said": item["value"], "measured": measured, "holds": holds})
    graph = graph_sha256(path.read_bytes())
    same_file = all(item.get("graph_sha256") == graph for item in said)
    same_data = all(item.get("table_sha256") == table.sha256() for item in said)
    holds = bool(checked) and same_file and all(item["holds"] for item in checked)
    return {"holds": holds, "same_file": same_file, "same_data": same_data, "checked": checked, "other": other}


def _numbers(value: Any) -> list[float]:
    return [float(part) for part in value] if isinstance(value, (list, tuple)) else [float(value)]
