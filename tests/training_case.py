"""What the tests of training share: clips that are made up, a small network, weights compared."""

import time

import numpy as np
import torch

from vidlet.models import build_head
from vidlet.recipe import Head, Schedule, Training
from vidlet.training import ClipNetwork, FeatureClips, FrameClips

PLAIN = Training(epochs=6, batch=8, lr=1e-2, schedule=Schedule("constant"), class_weights=False, weight_decay=0.0)
AUGMENT = {"speed": 0.2, "crop": 0.2, "drop": 0.1, "noise": 0.2, "mixup": 0.3}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made_up(count: int = 40, seed: int = 0, classes: int = 2, bad: int | None = None) -> FeatureClips:
    """Clips of 3 to 8 frames of 6 numbers, of which number k is larger in class k. Clip ``bad`` holds a NaN."""
    draw = rng(seed)
    labels = np.arange(count) % classes
    clips = []
    for label in labels:
        clip = draw.normal(0, 0.5, (int(draw.integers(3, 9)), 6)).astype(np.float32)
        clip[:, label] += 1.5
        clips.append(clip)
    if bad is not None:
        clips[bad][1, 2] = np.nan
    names = [f"clip{n}.mp4" for n in range(count)]
    return FeatureClips(clips.__getitem__, np.eye(classes, dtype=np.float32)[labels], names, np.ones(6, np.float32))


def grids(count: int = 24, seed: int = 0) -> FeatureClips:
    """Clips of 3 to 8 frames of a grid (3, 2, 2), of three classes: number k grows in class k."""
    draw = rng(seed)
    labels = np.arange(count) % 3
    clips = []
    for label in labels:
        clip = draw.normal(0, 0.3, (int(draw.integers(3, 9)), 3, 2, 2)).astype(np.float32)
        clip[:, label] += np.linspace(0, 2, len(clip), dtype=np.float32)[:, None, None]
        clips.append(clip)
    names = [f"clip{n}.mp4" for n in range(count)]
    return FeatureClips(clips.__getitem__, np.eye(3, dtype=np.float32)[labels], names, np.ones(3, np.float32))


def network(seed: int = 0, classes: int = 2, name: str = "gru", **options) -> ClipNetwork:
    torch.manual_seed(seed)
    shape = (3, 2, 2) if name == "grid-gru" else (6,)
    return ClipNetwork(build_head(Head(name, options or {"hidden": 8, "units": 8}), shape, classes))


def weights(net: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def frame_clips(delay: bool = False) -> FrameClips:
    frames = [rng(n).integers(0, 256, (5 + n % 3, 16, 16, 3), dtype=np.uint8) for n in range(10)]

    def read(index: int) -> np.ndarray:
        if delay:
            time.sleep(float(np.random.default_rng().uniform(0, 0.01)))
        return frames[index]

    return FrameClips(read, np.eye(10, dtype=np.float32), [str(n) for n in range(10)], max_frames=4)
