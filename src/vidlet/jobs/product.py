"""From a trained network to the files that ship: export, compress by chains, score each file, write its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from ..artifact import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    input_widths,
    torch_reference,
    write_artifact,
)
from ..artifact.pipeline import box_metadata, check_same_boxes
from ..compression import (
    GRAPH_STEPS,
    NETWORK_STEPS,
    Chain,
    Material,
    Trained,
    chain_text,
    file_name,
    shrink_graph,
    shrink_network,
    trained_ranges,
)
from ..datasets import ClipTable
from ..files import write_text
from ..metrics import fit_temperature, paired_bootstrap
from ..models import FrameExtractor
from ..progress import megabytes, say
from ..recipe import Recipe
from ..runtime import graph_sha256, load, read_metadata, write_metadata
from ..training import ClipNetwork, Clips, predict_logits
from .evaluate import Scored, predictions_csv, score_clips, summarize
from .prepare import Prepared, prepare_features, prepare_frames
from .prepare_records import samples_of

PARITY_FRAMES = 16


class Workshop:
    """Turns trained networks of one recipe and one table into files; what the compression steps need is at hand here.

    Args:
        prepared: the clips that ``extractor`` was trained on or computed the features of.
    """

    def __init__(self, plan: Recipe, table: ClipTable, prepared: Prepared, extractor: FrameExtractor) -> None:
        self.plan, self.table, self.median_s = plan, table, prepared.median_s
        on_features = prepared.mean is not None
        self._features: list[tuple[FrameExtractor, Chain, tuple[Clips, Clips]]] = []
        if on_features:
            self._features.append((extractor, (), (prepared.train, prepared.val)))
        self._frames = None if on_features else (prepared.train, prepared.val)
        self._extractor = extractor
        self._exported: tuple[Trained, float | None, onnx.ModelProto] | None = None
        self.material = Material(
            plan.training,
            table.multi_label,
            samples_of(plan, table, extractor),
            self.features,
            self.frames,
            plan.training.seed,
        )

    def features(self, extractor: FrameExtractor, steps: Chain = ()) -> tuple[Clips, Clips]:
        """(train, val) clips as the stored features of an extractor, computed once for each.

        Args:
            steps: of the graph, that the extractor has behind it: what the head of such a file sees.
        """
        for known, taken, clips in self._features:
            if known is extractor and taken == steps:
                return clips
        stored = partial(self._stored, extractor, steps) if steps else None
        found = prepare_features(self.plan, self.table, extractor, strict=False, stored=stored)
        self._features.append((extractor, steps, (found.train, found.val)))
        return found.train, found.val

    def _stored(self, extractor: FrameExtractor, steps: Chain, graph: onnx.ModelProto) -> onnx.ModelProto:
        return shrink_graph(steps, graph, self.material.samples, trained_ranges(extractor))

    def frames(self) -> tuple[Clips, Clips]:
        """(train, val) clips as decoded frames."""
        if self._frames is None:
            found = prepare_frames(self.plan, self.table, self._extractor, strict=False)
            self._frames = (found.train, found.val)
        return self._frames

    def temperature(self, trained: Trained, steps: Chain = ()) -> float | None:
        """The temperature that fits the validation clips best; None where a clip may have many labels.

        Args:
            steps: see :meth:`features`.
        """
        if self.table.multi_label:
            return None
        if self.plan.training.mode == "frozen":
            network, val = ClipNetwork(trained.head), self.features(trained.extractor, steps)[1]
        else:
            network, val = ClipNetwork(trained.head, trained.extractor), self.frames()[1]
        logits = predict_logits(network, val, self.plan.training.batch)
        return fit_temperature(logits, val.targets.argmax(1))

    def write(
        self, trained: Trained, chain: Chain, path: Path, temperature: float | None = None, taken: Chain = ()
    ) -> Trained:
        """Compress a network by a chain and write it as one artifact; returns the network as the file has it.

        A file without graph steps is held to its network's scores; every file to itself, frame by frame. What a head
        learns in the chain's steps, it learns from the features of the extractor as the file will have it, in integers
        where a graph step makes it so.

        Args:
            temperature: None: the one that fits the validation clips best.
            taken: steps that the network has behind it; the file names them before its own.
        """
        steps = self._of_extractor(chain) if any(step.name in NETWORK_STEPS for step in chain) else ()
        material = replace(self.material, features=partial(self.features, steps=steps))
        small = shrink_network(chain, trained, material)
        temperature = temperature or self.temperature(small, steps)
        network = ArtifactNetwork(small.extractor, small.head, temperature or 1.0, self.table.multi_label)
        metadata = artifact_metadata(
            replace(self.plan, compress=(chain_text((*taken, *chain)),) if taken or chain else ()),
            self.table.labels,
            self.median_s,
            small.extractor.provenance,
            temperature,
            self.table.multi_label,
            list(input_widths(small.extractor)),
        )
        metadata |= box_metadata(small.extractor)
        samples = self.material.samples
        exported = self._export(small, temperature, network)
        graph = shrink_graph(chain, exported, samples, trained_ranges(small.extractor))
        as_trained = not any(step.name in GRAPH_STEPS for step in chain)
        frames = _at_least(max(samples, key=len), 5)
        check_same_boxes(graph, small.extractor, frames, as_trained)
        write_artifact(graph, path, metadata, frames, torch_reference(network) if as_trained else None)
        return small

    def _of_extractor(self, chain: Chain) -> Chain:
        """The graph steps of a chain that make the extractor compute in integers; known without the head's scores."""
        layers = self._extractor.modules() if self.plan.training.mode == "frozen" else ()
        if not any(isinstance(layer, nn.Conv2d) for layer in layers):
            return ()  # nothing that is stored, or nothing in it that would change
        return tuple(s for s in chain if s.name == "int4" or (s.name == "int8" and s.amount is None))

    def _export(self, trained: Trained, temperature: float | None, network: ArtifactNetwork) -> onnx.ModelProto:
        """The float32 graph; chains without network steps share that of one trained network."""
        if self._exported is None or self._exported[0] is not trained or self._exported[1] != temperature:
            self._exported = (trained, temperature, artifact_graph(network, trained.extractor.input_size))
        return self._exported[2]

    def write_all(self, trained: Trained, chains: Sequence[Chain], folder: Path) -> list[str]:
        """The float32 file and one for each chain; their names."""
        wanted = [chain for chain in chains if chain]
        for chain in ((), *wanted):
            self.write(trained, chain, folder / file_name(chain))
        return [file_name(chain) for chain in ((), *wanted)]


def score_files(
    folder: Path, names: Sequence[str], clips: ClipTable, strict: bool = False, predictions: str = "predictions.csv"
) -> tuple[dict[str, Any], dict[str, Scored]]:
    """Score every file on the same clips, through the runtime; the others are compared with the first in pairs.

    Writes the file ``predictions``. Returns metrics with a section a file, and what each said.
    """
    metrics: dict[str, Any] = {"files": {}}
    scored: dict[str, Scored] = {}
    for name in names:
        model = load(folder / name, threads=1)
        scored[name] = score_clips(model, clips, strict)
        metrics["files"][name] = summarize(scored[name], model)
    first = scored[names[0]]
    write_text(folder / predictions, predictions_csv(scored))
    for name in names[1:]:
        difference = paired_bootstrap(scored[name].correct, first.correct, first.groups)
        metrics["files"][name]["difference"] = {**difference._asdict(), "against": names[0]}
        metrics["files"][name]["agreement"] = float((scored[name].scores.argmax(1) == first.scores.argmax(1)).mean())
    for key in headline_keys(metrics["files"][names[0]]):
        metrics[key] = metrics["files"][names[0]][key]
    return metrics, scored


def write_evidence(folder: Path, names: Sequence[str], metrics: dict[str, Any], table: ClipTable, command: str) -> None:
    """Into each file: what was measured of it, on which data, by which command; then its bytes into ``metrics``."""
    for name in names:
        figures = metrics["files"][name]
        what = f"split {metrics['split']}"
        add_evidence(folder / name, headline_keys(figures), figures, what, table, command)
    metrics["bytes"] = {name: (folder / name).stat().st_size for name in names}
    for name, size in metrics["bytes"].items():  # with the evidence in them
        metrics["files"][name]["bytes"] = size


def headline_keys(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures that are told first: of many labels a clip, those of the YouTube-8M challenge."""
    several = ("gap20", "hit1", "perr", "map")
    return (*(several if "gap20" in figures else ()), "accuracy", "accuracy_interval", "top5", "macro_f1")


def add_evidence(
    path: Path, keys: Sequence[str], figures: Mapping[str, Any], what: str, table: ClipTable, command: str
) -> None:
    """Write figures into a file's metadata, each with what it is of, its data and its command."""
    metadata = read_metadata(path)
    metadata["evidence"] = [
        {
            "what": f"{key}, {what}",
            "value": figures[key],
            "data": table.root.name,
            "clips": figures["clips"],
            "table_sha256": table.sha256(),
            "command": command,
            "graph_sha256": graph_sha256(path.read_bytes()),
        }
        for key in keys
    ]
    write_metadata(path, metadata)


def say_result(folder: Path, metrics: Mapping[str, Any], names: Sequence[str]) -> None:
    """One line: what was made, where, how large, how good."""
    parts = []
    for name in names:
        figures = metrics["files"][name]
        low, high = figures["accuracy_interval"]
        good = f"GAP@20 {figures['gap20']:.4f}, Hit@1" if figures.get("gap20") is not None else "accuracy"
        parts.append(
            f"{name} {megabytes(metrics['bytes'][name])}, {good} {figures['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        )
    say(f"{folder}: {'; '.join(parts)} on {metrics['files'][names[0]]['clips']} {metrics['split']} clips")


def _at_least(frames: np.ndarray, count: int) -> np.ndarray:
    """The first frames of a clip, repeated where it is shorter than ``count``, at most 16."""
    return np.resize(frames[:PARITY_FRAMES], (max(count, min(PARITY_FRAMES, len(frames))), *frames.shape[1:]))
