"""Starting from what another run has learned: the weights of one set of labels begin those of another.

What fits is taken by name and shape. A layer that has a row for each class gives the rows of the labels that both know;
everything else begins anew, and is said.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..artifact import ArtifactNetwork, artifact_graph
from ..errors import TrainingError
from ..files import sha256_of
from ..models import FrameExtractor, build_extractor, build_head
from ..models.head import Head
from ..onnx_graph import Graph
from ..recipe import Extractor, Recipe, recipe_from_dict
from ..runs import EXTRACTOR, HEAD, RunFolder, model_file
from ..runtime import read_metadata


@dataclass(frozen=True)
class Start:
    """What another run learned: state dicts of its head and, where it was fine-tuned, of its backbone."""

    name: str
    sha256: str
    recipe: Recipe
    labels: tuple[str, ...]
    head: Mapping[str, Tensor]
    backbone: Mapping[str, Tensor]


@dataclass(frozen=True)
class Taken:
    """Names of the head's tensors: taken whole, by the rows of known labels, and begun anew; and of the backbone."""

    whole: tuple[str, ...]
    rows: tuple[str, ...]
    anew: tuple[str, ...]
    labels: tuple[str, ...]  # known to both
    backbone: int

    def __str__(self) -> str:
        parts = [f"{len(self.whole)} tensors of the head"]
        if self.backbone:
            parts.append(f"{self.backbone} of the extractor")
        if self.rows:
            parts.append(f"in {', '.join(self.rows)} the rows of {len(self.labels)} known labels")
        anew = f"; begun anew: {', '.join(self.anew)}" if self.anew else ""
        return f"taken: {', '.join(parts)}{anew}"


def open_start(source: str | Path) -> Start:
    """Read a run folder of `vidlet train`, or a model file: beside its run's weights, or alone where they are in it.

    Raises:
        TrainingError: neither, or a file alone that does not hold the weights as they were trained.
    """
    path = Path(source)
    run, model = RunFolder(path if path.is_dir() else path.parent), model_file(path)
    if not model.is_file() or model.suffix != ".onnx":
        raise TrainingError(f"--init {source}: neither a finished run folder nor a model file (.onnx)")
    metadata = read_metadata(model)
    labels = tuple(metadata["labels"])
    if not (run / HEAD).is_file():
        if path.is_dir():
            raise TrainingError(f"--init {source}: holds no {HEAD}; not a finished run of `vidlet train`")
        recipe = recipe_from_dict(metadata["recipe"], str(path))
        return Start(path.name, sha256_of(path), recipe, labels, _head_of_file(path, recipe, len(labels)), {})
    backbone = _read(run / EXTRACTOR) if (run / EXTRACTOR).is_file() else {}
    return Start(run.path.name, sha256_of(run / HEAD), run.recipe(), labels, _read(run / HEAD), backbone)


def start_extractor_(start: Start, extractor: FrameExtractor, plan: Recipe) -> None:
    """Give an extractor the weights that another run fine-tuned, if it did, and say in its provenance whence.

    Raises:
        TrainingError: the run looks at frames through another extractor.
    """
    if _looks(start.recipe.extractor) != _looks(plan.extractor):
        ours, theirs = _looks(plan.extractor), _looks(start.recipe.extractor)
        changed = [f"extractor.{key} {theirs[key]!r}, here {ours[key]!r}" for key in ours if ours[key] != theirs[key]]
        raise TrainingError(f"--init {start.name}: its features are of another extractor: {'; '.join(changed)}")
    extractor.provenance["started_from"] = f"{start.name}, weights of sha256 {start.sha256}"
    if start.backbone:
        try:
            extractor.backbone.load_state_dict(dict(start.backbone))
        except RuntimeError as error:
            raise TrainingError(f"--init {start.name}: its extractor does not fit ({_short(error)})") from error
        extractor.ranges = None  # those of the weights before


def start_head_(start: Start, head: Head, plan: Recipe, labels: Sequence[str]) -> Taken:
    """Put what fits of another run's head into a new one.

    Raises:
        TrainingError: nothing fits.
    """
    both = [(i, start.labels.index(name)) for i, name in enumerate(labels) if name in start.labels]
    last, same_labels = _last_layer(head), tuple(labels) == start.labels
    state, whole, rows, anew = head.state_dict(), [], [], []
    for name, tensor in state.items():
        found = start.head.get(name)
        of_classes = name.rpartition(".")[0] == last
        if found is not None and found.shape == tensor.shape and (same_labels or not of_classes):
            state[name] = found
            whole.append(name)
        elif found is not None and of_classes and found.shape[1:] == tensor.shape[1:] and both:
            for here, there in both:
                tensor[here] = found[there]
            rows.append(name)
        else:
            anew.append(name)
    if not {name for name, _ in head.named_parameters()} & set(whole):  # what is learned, beside mean and deviation
        raise TrainingError(
            f"--init {start.name}: nothing of its head ({start.recipe.head.name}) fits this one ({plan.head.name}): "
            "set the same head and options"
        )
    head.load_state_dict(state)
    known = tuple(labels[i] for i, _ in both)
    return Taken(tuple(whole), tuple(rows), tuple(anew), known, len(start.backbone))


def _last_layer(head: nn.Module) -> str:
    """Name of the last linear layer, whose rows are the classes."""
    names = [name for name, layer in head.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1] if names else ""


def _looks(config: Extractor) -> dict[str, Any]:
    """What determines the meaning of the features."""
    kept = ("name", "width", "cut", "grid", "weights", "input_size")
    return {key: getattr(config, key) for key in kept}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path}: not a whole file of weights ({_short(error)})") from error
    return found


def _head_of_file(path: Path, recipe: Recipe, classes: int) -> dict[str, Tensor]:
    """The head's state dict out of a float32 artifact alone.

    The head is exported once more with the number of its place in every entry; the graph then tells where in the file
    each entry lies. Only entries that the export moves, and does not compute with, can be found so.

    Raises:
        TrainingError: the file is compressed, its extractor was fine-tuned, or the head has normalizations, which the
            export folds into other layers.
    """
    rule = f"--init {path}: the file alone does not hold the weights as they were trained"
    hint = "give the run folder that it came from"
    if recipe.training.mode != "frozen":
        raise TrainingError(f"{rule} (its extractor was fine-tuned); {hint}")
    stored = Graph(onnx.load(str(path))).values()
    head, graph = _numbered(recipe, classes)
    sizes = {name: tensor.numel() for name, tensor in head.state_dict().items()}
    edges = np.cumsum([0, *sizes.values()])
    whole = np.full(edges[-1], np.nan, np.float32)
    for name, ids in Graph(graph).values().items():
        found = stored.get(name)
        if found is None or found.shape != ids.shape or ids.dtype != np.float32 or ids.size < 2:
            continue
        if not name.startswith(("head.", "val_")) or ids.min() < 1 or ids.max() > len(whole):
            continue
        if (np.rint(ids) == ids).all() and len(np.unique(ids)) == ids.size:  # else computed with, not only moved
            whole[ids.astype(np.int64) - 1] = found
    pieces = dict(zip(sizes, np.split(whole, edges[1:-1]), strict=True))
    missing = [name for name, values in pieces.items() if np.isnan(values).any()]
    if missing:
        raise TrainingError(f"{rule} ({', '.join(missing[:3])} cannot be found in it); {hint}")
    return {name: torch.from_numpy(pieces[name].reshape(tensor.shape)) for name, tensor in head.state_dict().items()}


def _numbered(recipe: Recipe, classes: int) -> tuple[Head, onnx.ModelProto]:
    """A recipe's head whose entries are 1, 2, 3, ... over its whole state dict, and the graph of its artifact."""
    extractor = build_extractor(recipe.extractor)
    head = build_head(recipe.head, extractor.feature_shape, classes).eval()
    count = 1
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.copy_(torch.arange(count, count + tensor.numel()).reshape(tensor.shape))
            count += tensor.numel()
    if count > 2**24:
        raise TrainingError(f"--init: a head of {count:,} weights can only be read from its run folder")
    return head, artifact_graph(ArtifactNetwork(extractor, head), extractor.input_size)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
