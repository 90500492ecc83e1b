"""Classifiers of clips and of records: built, trained, read from a run, compressed by chains and written as files."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from ..artifact import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    input_widths,
    torch_reference,
    write_artifact,
)
from ..artifact.classifier import box_metadata, check_same_boxes
from ..compression import (
    CLIP_STEPS,
    Chain,
    Material,
    Trained,
    chain_text,
    find_chain,
    integer_steps,
    shrink_graph,
    shrink_network,
    split_chain,
    trained_ranges,
)
from ..datasets import ClipTable
from ..errors import TrainingError
from ..metrics import careful_temperature
from ..models import FrameExtractor, build_head
from ..models.ensemble import Ensemble
from ..progress import say
from ..recipe import Averaging, Recipe, Training
from ..runs import CHECKPOINT, EXTRACTOR, HEAD, RunFolder
from ..training import (
    ClipNetwork,
    Clips,
    Progress,
    Teacher,
    check_amounts,
    for_clips,
    predict_logits,
    save_tensors,
    train_network,
)
from ..training.advice import warn_of_background, warn_of_precision, warn_of_slow_trains, warn_of_turns
from .auto import AUTO, resolve_auto
from .baselines import compare_with_baselines
from .clips import few_frames
from .label_check import doubts_in_training
from .networks import Networks, Order
from .prepare import Prepared, prepare_features, prepare_frames
from .prepare_records import extractor_for, prepare_clips, recipe_for, samples_of
from .rejection import find_rejection
from .teachers import provenance_of, taught
from .transfer import Start, start_extractor_, start_head_

PARITY_FRAMES = 16
HEAD_FIRST = Training(  # how a head is trained before it is trained with its extractor
    least_updates=600, averaging=Averaging(0.98), augment={"speed": 0.25, "crop": 0.2, "noise": 0.3}
)


class Workshop:
    """Turns trained classifiers of one recipe and one table into files, and has at hand what compression steps need.

    Args:
        prepared: the clips that ``extractor`` was trained on or computed the features of.
        device: where steps of a chain train.
    """

    def __init__(
        self, plan: Recipe, table: ClipTable, prepared: Prepared, extractor: FrameExtractor, device: str = "auto"
    ) -> None:
        self.plan, self.table, self.median_s = plan, table, prepared.median_s
        on_features = prepared.mean is not None
        self._features: list[tuple[FrameExtractor, Chain, tuple[Clips, Clips]]] = []
        if on_features:
            self._features.append((extractor, (), (prepared.train, prepared.val)))
        self._frames = None if on_features else (prepared.train, prepared.val)
        self._extractor = extractor
        self._exported: tuple[Trained, float | None, onnx.ModelProto] | None = None
        self.material = Material(
            for_clips(plan.training, len(prepared.train)),
            table.multi_label,
            samples_of(plan, table),
            self.features,
            self.frames,
            plan.training.seed,
            device,
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
        """See ``metrics.careful_temperature``, of the validation clips; None where a clip may have many labels.

        Args:
            steps: see :meth:`features`.
        """
        if self.table.multi_label:
            return None
        known = trained.head.temperature if isinstance(trained.head, Ensemble) else None
        if known is not None and self.plan.training.val_too:
            return known
        if self.plan.training.mode == "frozen":
            network, val = ClipNetwork(trained.head), self.features(trained.extractor, steps)[1]
        else:
            network, val = ClipNetwork(trained.head, trained.extractor), self.frames()[1]
        logits = predict_logits(network, val, self.plan.training.batch)
        return careful_temperature(logits, val.targets.argmax(1))

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
        training, storage = split_chain(chain, CLIP_STEPS)
        steps = self._of_extractor(storage) if training else ()
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
        graph = shrink_graph(
            chain, exported, samples, trained_ranges(small.extractor), head_of_integers=bool(training and steps)
        )
        as_trained = not storage
        frames = few_frames(max(samples, key=len), PARITY_FRAMES)
        check_same_boxes(graph, small.extractor, frames, as_trained)
        write_artifact(graph, path, metadata, frames, torch_reference(network) if as_trained else None)
        return small

    def _of_extractor(self, chain: Chain) -> Chain:
        """The steps of a chain that make the extractor compute in integers, where its features are stored."""
        layers = self._extractor.modules() if self.plan.training.mode == "frozen" else ()
        if not any(isinstance(layer, nn.Conv2d) for layer in layers):
            return ()  # nothing that is stored, or nothing in it that would change
        return integer_steps(chain, CLIP_STEPS)

    def _export(self, trained: Trained, temperature: float | None, network: ArtifactNetwork) -> onnx.ModelProto:
        """The float32 graph; chains without network steps share that of one trained network."""
        if self._exported is None or self._exported[0] is not trained or self._exported[1] != temperature:
            self._exported = (trained, temperature, artifact_graph(network, trained.extractor.input_size))
        return self._exported[2]


def build_classifier(plan: Recipe, table: ClipTable, start: Start | None = None) -> Trained:
    """The untrained extractor and head of a recipe, drawn from its seed; the extractor may begin from another run's."""
    torch.manual_seed(plan.training.seed)
    extractor = extractor_for(plan, table)
    if start:
        start_extractor_(start, extractor, plan)
    return Trained(extractor, build_head(plan.head, extractor.feature_shape, len(table.labels)))


def fit_classifier(network: Trained, prepared: Prepared, order: Order[ClipTable]) -> Progress:
    """Train a head, and the extractor with it where the recipe says so, and leave the weights in the run.

    Raises:
        TrainingError: see ``training.fit``; or nothing of the run to start from fits.
    """
    extractor, head, table = network.extractor, network.head, order.table
    if prepared.mean is not None and prepared.std is not None:
        head.calibrate(torch.from_numpy(prepared.mean), torch.from_numpy(prepared.std))
    if order.start:
        say(f"--init {order.start.name}: {start_head_(order.start, head, order.plan, table.labels)}")
    if order.training.head_epochs and not order.start:
        _fit_head_first(network, order)
    train, teacher = prepared.train, None
    if order.teachers:
        with order.team.in_turn():
            train = taught(prepared.train, prepared.clips, table, order.teachers, order.strict)
        teacher = Teacher(None, share=order.training.teacher_share)
        extractor.provenance["taught_by"] = provenance_of(order.teachers)
    frozen = order.training.mode == "frozen"
    whole = ClipNetwork(head, None if frozen else extractor)
    progress = train_network(
        whole,
        train,
        prepared.val,
        order.training,
        order.folder.path,
        order.identity,
        multi_label=table.multi_label,
        resume=order.resume,
        device=order.device,
        teacher=teacher,
        report=order.report,
        title=order.title,
        team=order.team,
    )
    if not order.team.leads:
        return progress
    save_tensors(head.state_dict(), order.folder / HEAD)
    if not frozen:
        save_tensors(extractor.backbone.state_dict(), order.folder / EXTRACTOR)
    return progress


def _fit_head_first(network: Trained, order: Order[ClipTable]) -> None:
    """Train the head on features of the extractor as it begins, so that end to end it goes on from what they tell.

    With a head that knows nothing the first updates would only disturb a pretrained extractor. Source: Kumar et al.
    2022, arXiv:2202.10054.

    Where the training goes on from its checkpoint, nothing is done; of several processes the first one does it.
    """
    if order.training.mode == "frozen" or (order.resume and (order.folder / CHECKPOINT).exists()):
        return
    if order.team.leads:
        own = order.training
        first = replace(HEAD_FIRST, epochs=own.head_epochs, label_smoothing=own.label_smoothing, seed=own.seed)
        plan = replace(order.plan, training=replace(first, val_too=own.val_too, one_way=own.one_way))
        found = prepare_clips(plan, order.table, network.extractor, order.strict)
        assert found.mean is not None
        assert found.std is not None
        head, moments = ClipNetwork(network.head), (found.mean, found.std)
        train_network(
            head, found.train, found.val, plan.training, multi_label=order.table.multi_label, device=order.device,
            moments=moments, title="train the head first",
        )  # fmt: skip
        network.head.train()
    order.team.tell(None)  # the others wait


def open_classifier(run: RunFolder, plan: Recipe, table: ClipTable) -> Trained:
    """The trained network of a run folder.

    Raises:
        TrainingError: the run is not finished, or was trained on other classes.
    """
    stored = run.weights(HEAD)
    extractor = extractor_for(plan, table)
    head = build_head(plan.head, extractor.feature_shape, len(table.labels))
    try:
        head.load_state_dict(torch.load(stored, weights_only=True))
        if (run / EXTRACTOR).exists():
            extractor.backbone.load_state_dict(torch.load(run / EXTRACTOR, weights_only=True))
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{run}: its weights do not fit its recipe and these clips ({reason})") from error
    return Trained(extractor.eval(), head.eval())


def _check(plan: Recipe) -> None:
    check_amounts(plan.training.augment, plan.training.mode)


def _choose(plan: Recipe, table: ClipTable, run: RunFolder, device: str, resume: bool) -> tuple[Recipe, dict[str, Any]]:
    return resolve_auto(plan, table, run, device, resume) if plan.head.name == AUTO else (plan, {})


def _baselines(
    plan: Recipe, table: ClipTable, network: Trained, prepared: Prepared, chosen: ClipTable, scored: Mapping[str, Any]
) -> dict[str, Any]:
    return compare_with_baselines(plan, table, network.extractor, prepared, chosen, scored)


def _resolve(plan: Recipe, table: ClipTable, device: str, overrides: Mapping[str, Any]) -> Recipe:
    return recipe_for(plan, table)


def _prepare(plan: Recipe, table: ClipTable, network: Trained, strict: bool) -> Prepared:
    return prepare_clips(plan, table, network.extractor, strict)


def _advise(plan: Recipe, table: ClipTable, network: Trained, prepared: Prepared, device: str) -> list[str]:
    return [
        *warn_of_turns(plan.training, table.labels),
        *warn_of_background(table.labels, table.none),
        *warn_of_precision(plan, device),
        *warn_of_slow_trains(network.head, network.extractor.feature_shape, plan, prepared.median_s, device),
    ]


def _writer(plan: Recipe, table: ClipTable, network: Trained, prepared: Prepared, device: str) -> Workshop:
    return Workshop(plan, table, prepared, network.extractor, device)


CLASSIFIERS: Networks[ClipTable, Trained] = Networks(
    find_chain=lambda text, plan: find_chain(text),
    check=_check,
    choose=_choose,
    baselines=_baselines,
    reject=find_rejection,
    doubt=doubts_in_training,
    resolve=_resolve,
    build=build_classifier,
    prepare=_prepare,
    advise=_advise,
    fit=fit_classifier,
    open=open_classifier,
    writer=_writer,
)
