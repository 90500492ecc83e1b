"""Distillation: a network learns the answers of a larger one, or of several, on clips with and without labels.

Source: Hinton et al. 2015, arXiv:1503.02531; the teacher sees each clip as it was augmented for the pupil (Beyer et al.
2022, arXiv:2106.05237).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import RecipeError
from ..models.ensemble import Part, mean_logits
from ..models.extractor import FrameExtractor
from ..training import ClipNetwork, FeatureClips, FrameClips, Teacher
from .material import Material, Trained, tune

ClipsRead = TypeVar("ClipsRead", FeatureClips, FrameClips)

TEMPERATURE = 4.0


def distill(
    trained: Trained,
    amount: float | None,
    material: Material,
    teachers: Sequence[Trained] = (),
    unlabelled: Sequence[np.ndarray] = (),
) -> Trained:
    """Tune the network on the answers of its teachers beside the labels.

    Guarantee: the same layers and bytes as before; what is learned of a clip without a label is the teachers' answer
    alone.

    Args:
        amount: share of the teachers in the loss of a labelled clip, 0.5 by default; 1: the labels are not looked at.
        teachers: networks of the same classes, their probabilities averaged; none: the network as it stands. On stored
            features each may have an extractor of its own; on frames all must take the same size.
        unlabelled: more clips as frames uint8 (T, H, W, 3), of the extractor's size.

    Raises:
        RecipeError: an amount above 1, or teachers that cannot see the pupil's clips.
    """
    share = 0.5 if amount is None else amount
    if not 0 < share <= 1:
        raise RecipeError(f"distill: the amount is the teachers' share of the loss, at most 1, got {share:g}")
    teachers = list(teachers) or [trained]
    if material.config.mode != "frozen":
        train, val = material.frames()
        teacher = _teacher_of_frames(trained, teachers, share, material.multi_label)
        assert isinstance(train, FrameClips)
        return tune(trained, material, teacher=teacher, clips=(with_unlabelled(train, unlabelled), val))
    extractors = _distinct([trained.extractor, *(t.extractor for t in teachers)])
    views = [_view(e, material, unlabelled) for e in extractors]
    heads = [(t.head, next(i for i, e in enumerate(extractors) if e is t.extractor)) for t in teachers]
    pupil, clips = trained, views[0]
    if len(views) > 1:
        pupil = Trained(trained.extractor, Part(trained.head, 0, trained.extractor.feature_shape))
        clips = beside([train for train, _ in views]), beside([val for _, val in views])
        begins = np.cumsum([0, *(np.prod(e.feature_shape) for e in extractors)])
        heads = [(Part(head, int(begins[i]), extractors[i].feature_shape), i) for head, i in heads]
    networks = [ClipNetwork(copy.deepcopy(head)).eval() for head, _ in heads]
    tuned = tune(
        pupil, material, teacher=ensemble_teacher(networks, share, material.multi_label), clips=clips
    )  # fmt: skip
    return Trained(trained.extractor, tuned.head.head if isinstance(tuned.head, Part) else tuned.head)


def ensemble_teacher(networks: Sequence[ClipNetwork], share: float, multi_label: bool = False) -> Teacher:
    """Several networks on the same clips as one teacher: the logits of their mean probability."""

    def answer(x: Tensor, mask: Tensor) -> Tensor:
        return mean_logits([network.to(x.device)(x, mask).float() for network in networks], multi_label)

    return Teacher(answer, TEMPERATURE, share)


def with_unlabelled(labelled: ClipsRead, more: Sequence[np.ndarray]) -> ClipsRead:
    """The labelled clips and, behind them, clips without a label, given as the labelled ones are read."""
    known, first = labelled.read, len(labelled)
    joined = copy.copy(labelled)
    joined.read = lambda i: known(i) if i < first else more[i - first]
    nothing = np.full((len(more), labelled.targets.shape[1]), np.nan, np.float32)
    joined.targets = np.concatenate([labelled.targets, nothing])
    joined.names = [*labelled.names, *(f"unlabelled {n}" for n in range(len(more)))]
    return joined


def beside(parts: Sequence[FeatureClips]) -> FeatureClips:
    """The same clips in several extractors' features, flattened and side by side (T, D of all), augmented alike.

    Raises:
        RecipeError: the parts are not of the same clips.
    """
    first = parts[0]
    if any(list(part.names) != list(first.names) for part in parts):
        raise RecipeError("distill: teacher and pupil could not read the same clips")

    def read(index: int) -> np.ndarray:
        clips = [part.read(index) for part in parts]
        return np.concatenate([clip.reshape(len(clip), -1) for clip in clips], axis=1)

    positions = [int(np.prod(part.read(0).shape[1:])) // len(part.spread) for part in parts]
    spread = np.concatenate([np.repeat(part.spread, n) for part, n in zip(parts, positions, strict=True)])
    return FeatureClips(read, first.targets, first.names, spread, first.max_frames)


def _teacher_of_frames(pupil: Trained, teachers: Sequence[Trained], share: float, multi_label: bool) -> Teacher:
    for teacher in teachers:
        if teacher.extractor.input_size != pupil.extractor.input_size:
            raise RecipeError(
                f"distill: the teacher takes frames of {teacher.extractor.input_size}, the pupil is trained on frames "
                f"of {pupil.extractor.input_size}; they must be alike"
            )
    networks = [ClipNetwork(copy.deepcopy(t.head), copy.deepcopy(t.extractor)).eval() for t in teachers]
    return ensemble_teacher(networks, share, multi_label)


def _view(
    extractor: FrameExtractor, material: Material, unlabelled: Sequence[np.ndarray]
) -> tuple[FeatureClips, FeatureClips]:
    """(train, val) clips as one extractor's features, those without a label behind the labelled ones of training."""
    train, val = material.features(extractor)
    assert isinstance(train, FeatureClips) and isinstance(val, FeatureClips)
    with torch.no_grad():
        more = [extractor(torch.from_numpy(frames)).numpy() for frames in unlabelled]
    return with_unlabelled(train, more), val


def _distinct(extractors: Sequence[FrameExtractor]) -> list[FrameExtractor]:
    found: list[FrameExtractor] = []
    for extractor in extractors:
        if not any(extractor is other for other in found):
            found.append(extractor)
    return found
