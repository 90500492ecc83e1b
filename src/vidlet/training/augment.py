"""Augmentation of clips in time (any features or frames) and in space (frames), each a small function of a generator.

Amounts come from the recipe's ``training.augment`` table; a key that is absent means none of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import RecipeError
from ..recipe import Sampling, nearest
from ..video.sample import random_ascending

AMOUNTS = {
    "speed": "clips are played up to this fraction faster or slower",
    "crop": "up to this fraction of a clip's frames is cut off its ends",
    "drop": "probability that a frame is replaced by the one before",
    "noise": "deviation of noise on features, in standard deviations of the feature",
    "zoom": "pictures are scaled by up to this fraction",
    "shift": "pictures are moved by up to this fraction of their size",
    "rotate": "pictures are turned by up to this many degrees",
    "light": "contrast and brightness change by up to this fraction",
    "contrast": "contrast alone changes by up to this fraction",
    "brighten": "everything becomes brighter by up to this fraction (depth, as Wang et al.'s)",
    "intensity_contrast": "of pictures with depth in green: contrast of the intensity changes by up to this fraction",
    "depth_brighten": "of pictures with depth in green: depth becomes larger by up to this fraction",
    "saturation": "saturation changes by up to this fraction",
    "flip": "probability of mirroring a clip (only where left and right mean the same; training.one_way)",
    "reverse": "probability of playing a clip backwards (only where that means the same; training.one_way)",
    "redraw": "clips are read with this many times the frames, of which each epoch draws at random, in order",
    "mixup": "parameter of the beta distribution by which two clips and their labels are mixed",
}


OF_FRAMES = (
    "zoom",
    "shift",
    "rotate",
    "light",
    "contrast",
    "brighten",
    "intensity_contrast",
    "depth_brighten",
    "saturation",
    "flip",
)  # stored features cannot be changed so
OF_FEATURES = ("noise", "mixup")
TURNS = ("flip", "reverse")  # what may turn one class into another
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def check_amounts(amounts: Mapping[str, float], mode: str = "") -> None:
    """Refuse unknown augmentations, amounts below zero, and what the training's mode cannot do ("" knows no mode).

    Raises:
        RecipeError: names the key and the nearest valid one.
    """
    for key, value in amounts.items():
        if key not in AMOUNTS:
            raise RecipeError(f"training.augment: unknown key {key!r}{nearest(key, AMOUNTS)}")
        if key in {"frozen": OF_FRAMES, "finetune": OF_FEATURES}.get(mode, ()):
            raise RecipeError(f"training.augment.{key} has no effect where training.mode is {mode!r}: remove it")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise RecipeError(f"training.augment.{key} must be a number >= 0, got {value!r}")
        if key == "redraw" and (value != int(value) or value < 2):
            raise RecipeError(f"training.augment.redraw must be a whole number >= 2, got {value!r}")


def without_turns(amounts: Mapping[str, float]) -> dict[str, float]:
    """The amounts for a clip of a class that has a direction: neither mirrored nor reversed."""
    return {key: value for key, value in amounts.items() if key not in TURNS}


def training_sampling(sampling: Sampling, amounts: Mapping[str, float]) -> Sampling:
    """How training clips are read: as the model sees clips, or "redraw" times as densely.

    Raises:
        RecipeError: "redraw" where frames are sampled at a rate.
    """
    if "redraw" not in amounts:
        return sampling
    if sampling.rule != "uniform":
        raise RecipeError(
            f'training.augment.redraw needs sampling.rule = "uniform", so many frames a clip; got {sampling.rule!r}'
        )
    return dataclasses.replace(sampling, frames=sampling.frames * int(amounts["redraw"]))


def redrawn(clip: np.ndarray, amounts: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
    """Frames of a clip that was read by ``training_sampling``, drawn at random in ascending order (DEEPEYE's 6)."""
    if "redraw" not in amounts:
        return clip
    return clip[random_ascending(len(clip), max(1, len(clip) // int(amounts["redraw"])), rng)]


def time_positions(frames: int, amounts: Mapping[str, float], rng: np.random.Generator) -> np.ndarray:
    """Return the positions (fractions of frames) at which a clip of ``frames`` frames is read again.

    They ascend, or descend where the clip is reversed.
    """
    cut = amounts.get("crop", 0.0) * (frames - 1)
    begin, end = rng.uniform(0, cut / 2), frames - 1 - rng.uniform(0, cut / 2)
    spread = amounts.get("speed", 0.0)
    speed = float(np.exp(rng.uniform(-1, 1) * np.log1p(spread)))
    count = max(1, round((end - begin) / speed) + 1)
    positions = np.linspace(begin, end, count)
    if drop := amounts.get("drop", 0.0):
        kept = rng.random(count) >= drop
        kept[0] = True
        positions = positions[np.maximum.accumulate(np.where(kept, np.arange(count), 0))]
    if (reverse := amounts.get("reverse", 0.0)) and rng.random() < reverse:
        positions = positions[::-1]
    return positions


def read_between(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Features (T, ...) at fractional positions (N,), linearly between neighbors: (N, ...)."""
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, len(features) - 1)
    share = (positions - low).astype(np.float32).reshape(-1, *([1] * (features.ndim - 1)))
    return features[low] * (1 - share) + features[high] * share


def transform_frames(frames: Tensor, amounts: Mapping[str, float], rng: np.random.Generator) -> Tensor:
    """Zoom, shift, turn, mirror, relight and recolor a clip's frames, alike for all its frames.

    Args:
        frames: float (T, 3, H, W), 0..255.

    Returns:
        The same shape; what lies outside the picture is its border, repeated.
    """
    zoom, shift, rotate = (amounts.get(key, 0.0) for key in ("zoom", "shift", "rotate"))
    flip = rng.random() < amounts.get("flip", 0.0)
    if zoom or shift or rotate or flip:
        scale = float(np.exp(rng.uniform(-1, 1) * np.log1p(zoom)))
        angle = np.deg2rad(rng.uniform(-rotate, rotate))
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        mirror = -1.0 if flip else 1.0
        dx, dy = rng.uniform(-2 * shift, 2 * shift, 2)
        matrix = frames.new_tensor([[mirror * cos, -sin, dx], [mirror * sin, cos, dy]])
        grid = functional.affine_grid(matrix[None], [1, *frames.shape[1:]], align_corners=False)  # the same for all
        grid = grid.expand(len(frames), -1, -1, -1)
        frames = functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    if light := amounts.get("light", 0.0):
        contrast, brightness = np.exp(rng.uniform(-light, light)), rng.uniform(-light, light) * 128
        center = frames.mean()
        frames = ((frames - center) * contrast + center + brightness).clamp(0, 255)
    if amount := amounts.get("contrast", 0.0):
        frames = _away_from(frames.mean(), frames, 1 + rng.uniform(-amount, amount))
    if amount := amounts.get("brighten", 0.0):
        frames = (frames * (1 + rng.uniform(0, amount))).clamp(0, 255)
    if amount := amounts.get("intensity_contrast", 0.0):
        intensity = frames[:, ::2]
        changed = _away_from(intensity.mean(), intensity, 1 + rng.uniform(-amount, amount))
        frames = torch.stack([changed[:, 0], frames[:, 1], changed[:, 1]], dim=1)
    if amount := amounts.get("depth_brighten", 0.0):
        depth = (frames[:, 1] * (1 + rng.uniform(0, amount))).clamp(0, 255)
        frames = torch.stack([frames[:, 0], depth, frames[:, 2]], dim=1)
    if amount := amounts.get("saturation", 0.0):
        gray = (frames * frames.new_tensor(LUMA).reshape(3, 1, 1)).sum(1, keepdim=True)  # (T, 1, H, W)
        frames = _away_from(gray, frames, 1 + rng.uniform(-amount, amount))
    return frames


def _away_from(center: Tensor, frames: Tensor, factor: float) -> Tensor:
    """Stretch the distance of frames (T, 3, H, W) to a center; what leaves 0..255 is cut."""
    return (center + (frames - center) * factor).clamp(0, 255)


def mix(x: Tensor, mask: Tensor, y: Tensor, strength: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup (Zhang et al. 2018, arXiv:1710.09412) of clips: a frame is mixed where both clips have it.

    Args:
        x: (B, T, ...); mask: (B, T); y: target probabilities (B, K).
    """
    share = float(rng.beta(strength, strength))
    order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    both = (mask & mask[order]).reshape(*mask.shape, *([1] * (x.ndim - 2)))
    mixed = torch.where(both, share * x + (1 - share) * x[order], x)
    return mixed, mask, share * y + (1 - share) * y[order]
