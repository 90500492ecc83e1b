"""Small trained networks and what compression steps learn from: an easy task on made-up features, in seconds."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from vidlet.compression.material import Material, Trained
from vidlet.models import FrameExtractor, build_extractor, build_head
from vidlet.models.head import Head as HeadNetwork
from vidlet.recipe import Averaging, Extractor, Head, Training
from vidlet.training import ClipNetwork, FeatureClips, FrameClips, predict_logits, train_network

CLASSES, SHAPE, SIZE = 3, (8, 2, 2), (32, 32)
CONFIG = Training(epochs=8, batch=8, lr=1e-2, class_weights=False, averaging=Averaging(0.9))
EXTRACTOR = Extractor(width=0.35, input_size=SIZE, cut="block2", grid=2, weights="none")
OPTIONS = {
    "grid-gru": {"channels": 8, "project": 32, "hidden": 32, "dropout": 0.1},
    "gru": {"hidden": 32, "units": 32},
    "lstm": {"hidden": 32, "units": 32},
    "mean": {"units": 48},
    "single": {"units": 48},
}


def made_up(count: int, seed: int, shape: tuple[int, ...] = SHAPE) -> FeatureClips:
    """Clips of 3 to 7 frames of features, of which channel k is large and grows in class k."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    clips = []
    for label in labels:
        frames = int(draw.integers(3, 8))
        clip = draw.normal(0, 0.4, (frames, *shape)).astype(np.float32)
        clip[:, label] += np.linspace(1, 3, frames, dtype=np.float32).reshape(-1, *([1] * (len(shape) - 1)))
        clips.append(clip)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    return FeatureClips(clips.__getitem__, targets, [f"{n}.mp4" for n in range(count)], np.ones(shape[0], np.float32))


def moving(count: int, seed: int) -> FrameClips:
    """Clips of 4 to 6 frames of 32 x 32 pixels: a bright square that goes right, goes left or stays."""
    draw = np.random.default_rng(seed)
    clips = []
    for label in np.arange(count) % CLASSES:
        frames = int(draw.integers(4, 7))
        clip = draw.integers(0, 60, (frames, *SIZE, 3), dtype=np.uint8)
        y, x = int(draw.integers(2, 20)), int(draw.integers(10, 14))
        for t in range(frames):
            left = x + (2 * t, -2 * t, 0)[label]
            clip[t, y : y + 10, left : left + 8] = 220
        clips.append(clip)
    targets = np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]
    return FrameClips(clips.__getitem__, targets, [f"{n}.mp4" for n in range(count)])


def features_of(extractor: FrameExtractor, clips: FrameClips) -> FeatureClips:
    """The clips as an extractor's features."""
    with torch.no_grad():
        found = [extractor(torch.from_numpy(clips.read(i))).numpy() for i in range(len(clips))]
    return FeatureClips(found.__getitem__, clips.targets, clips.names, np.ones(found[0].shape[1], np.float32))


def material(mode: str = "frozen", on_frames: bool = False, **changes) -> Material:
    """Made-up features whatever the extractor is, or (``on_frames``) those that it computes of moving squares."""
    frames = moving(48, 0), moving(24, 1)
    known: list[tuple[FrameExtractor, tuple[FeatureClips, FeatureClips]]] = []

    def features(extractor: FrameExtractor) -> tuple[FeatureClips, FeatureClips]:
        if not on_frames:
            return made_up(48, 0), made_up(24, 1)
        if not any(one is extractor for one, _ in known):
            known.append((extractor, (features_of(extractor, frames[0]), features_of(extractor, frames[1]))))
        return next(clips for one, clips in known if one is extractor)

    config = replace(CONFIG, mode=mode, **changes)
    return Material(config, False, [frames[0].read(i) for i in range(12)], features, lambda: frames)


class Quarters(torch.nn.Module):
    """Frames (T, 4, 4, 3) -> features (T, 8, 2, 2), for a head of made-up features."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.avg_pool2d(frames.permute(0, 3, 1, 2).float() / 128, 2)
        return torch.cat([x, x, x], 1)[:, :8]


@lru_cache
def small_extractor() -> FrameExtractor:
    """A tiny MobileNetV2 from scratch, with statistics of batch normalization other than the identity."""
    torch.manual_seed(3)
    extractor = build_extractor(EXTRACTOR)
    for layer in extractor.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            layer.weight.data.uniform_(0.7, 1.3)
            layer.bias.data.normal_(0, 0.1)
    return extractor


@lru_cache
@torch.enable_grad()
def trained(name: str = "grid-gru") -> Trained:
    """A head that has learned the made-up features."""
    torch.manual_seed(0)
    head = build_head(Head(name, OPTIONS[name]), SHAPE, CLASSES)
    train, val = made_up(48, 0), made_up(24, 1)
    train_network(ClipNetwork(head), train, val, CONFIG)
    return Trained(small_extractor(), head)


def accuracy(network: Trained, count: int = 60) -> float:
    """Share of fresh made-up clips that are answered rightly."""
    clips = made_up(count, 7)
    return float((predict_logits(ClipNetwork(network.head), clips, 16).argmax(1) == clips.targets.argmax(1)).mean())


@torch.no_grad()
def check_streams(head: HeadNetwork, shape: tuple[int, ...] = SHAPE, frames: int = 6) -> None:
    """A head must answer the same whether it gets a clip whole or frame by frame."""
    clip = torch.randn(2, frames, *shape)
    whole, _ = head.eval()(clip, head.zero_state(2, clip))
    state = head.zero_state(2, clip)
    for t in range(frames):
        logits, state = head(clip[:, t : t + 1], state)
    torch.testing.assert_close(logits, whole, atol=1e-5, rtol=0)
