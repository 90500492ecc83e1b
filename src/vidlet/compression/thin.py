"""A thinner extractor that gives the features of the one before: channels removed, the rest taught without labels.

Source of learning features from features: Romero et al. 2015, "FitNets", arXiv:1412.6550 (here of one shape, so that no
regressor is needed).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..models import MobileNetV2
from ..models.extractor import FrameExtractor
from ..training.augment import transform_frames
from .channels import FRAMES, thin_backbone
from .material import Material, Trained
from .tuning import tune

UPDATES = 200
BATCH = 8  # frames, of as many clips
RATE = 3e-4
CHANGES = {"zoom": 0.15, "shift": 0.05, "light": 0.15, "flip": 0.5}  # frames need no label, so they may be mirrored


def channels(trained: Trained, amount: float | None, material: Material) -> Trained:
    """Remove channels inside the extractor's blocks, teach it the features of the one before, and tune the head on it.

    Guarantee: at least ``amount`` of the weights of the blocks that expand is gone, as whole channels; feature shape,
    input size and the head's layers are as before. The extractor has no activation ranges any more: calibrate it.

    Args:
        amount: share of the weights removed, 0.5 by default.

    Raises:
        RecipeError: an amount outside (0, 1) or more than can go, or an extractor that is no MobileNetV2.
    """
    share = 0.5 if amount is None else amount
    if not 0 < share < 1:
        raise RecipeError(f"channels: the amount is the share of weights removed, between 0 and 1, got {share:g}")
    thin = thin_extractor(trained.extractor, share, spread_frames(material.samples, FRAMES), material.seed)
    learn_features_(thin, trained.extractor, material.samples, UPDATES, seed=material.seed)
    return tune(Trained(thin, trained.head), material)


def thin_extractor(extractor: FrameExtractor, share: float, frames: np.ndarray, seed: int = 0) -> FrameExtractor:
    """A copy of an extractor whose backbone is thinner (``channels.thin_backbone``).

    Args:
        frames: uint8 (N, H, W, 3), N >= 8, on which channels are judged.

    Raises:
        RecipeError: a backbone that is no MobileNetV2, or a share that is more than can go.
    """
    if not isinstance(extractor.backbone, MobileNetV2):
        raise RecipeError(f"channels: the extractor is a {type(extractor.backbone).__name__}, known is MobileNetV2")
    small = copy.deepcopy(extractor)
    with torch.no_grad():
        pictures = extractor.normalize(torch.from_numpy(frames))
        small.backbone = thin_backbone(extractor.backbone, share, pictures, seed)
    small.ranges = None
    return small.train(extractor.training)


def learn_features_(
    pupil: FrameExtractor,
    teacher: FrameExtractor,
    clips: Sequence[np.ndarray],
    updates: int,
    rate: float = RATE,
    seed: int = 0,
) -> list[float]:
    """Train an extractor to give another's maps and features on frames; returns the loss of each update.

    The loss is the mean of two squared errors in units of the teacher's variance: of the maps, and of the features.

    Args:
        clips: frames uint8 (T, H, W, 3) each, of the extractors' size; no labels.
    """
    draw = np.random.default_rng(seed)
    pupil.train()
    teacher.eval()
    optimizer = torch.optim.AdamW([p for p in pupil.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    losses = []
    for update in range(updates):
        chosen = draw.choice(len(clips), min(BATCH, len(clips)), replace=False)
        drawn = np.stack([clips[i][int(draw.integers(len(clips[i])))] for i in chosen])
        frames = torch.from_numpy(drawn).permute(0, 3, 1, 2).float()  # (N, 3, H, W)
        pictures = (transform_frames(frames, CHANGES, draw) - teacher.zero_point) * teacher.scale
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * update / updates))
        with torch.no_grad():
            wanted = teacher.backbone(pictures)
        maps = pupil.backbone(pictures)
        loss = (relative_error(maps, wanted) + relative_error(pupil.pool(maps), teacher.pool(wanted))) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    pupil.eval()
    return losses


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of (N, C, ...) over the variance of ``wanted`` about each channel's mean."""
    others = [axis for axis in range(wanted.ndim) if axis != 1]
    spread = (wanted - wanted.mean(others, keepdim=True)).square().mean()
    return (found - wanted).square().mean() / spread.clamp(min=1e-12)


def spread_frames(clips: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Up to ``most`` frames (N, H, W, 3), evenly over the clips and within each."""
    each = max(1, -(-most // len(clips)))
    frames = [clip[np.unique(np.linspace(0, len(clip) - 1, each).astype(int))] for clip in clips]
    whole = np.concatenate(frames)
    return whole[np.unique(np.linspace(0, len(whole) - 1, most).astype(int))]
