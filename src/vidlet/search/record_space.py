"""The heads that a search over stored features tries: families and sizes, those that promise most first."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ..recipe import Head, Recipe, Training, load_recipe

LONGEST = 64  # frames of an ordered window
BAG_STEPS, ORDER_STEPS = 1600, 850  # updates that training takes (docs/results.md: residual set, thetis)
STORAGES = ("half", "int8", "codebook", "head4+int8")  # beside float32
BITS = 4.5  # a weight in the smallest of them
EVIDENCE_BYTES = 12_000  # metadata and graph of a small file, at most


def vlad(clusters: int, hidden: int) -> Head:
    """Gated NetVLAD of a size."""
    return Head("netvlad", {"clusters": clusters, "hidden": hidden, "experts": 2, "sampled": 30, "momentum": 0.02})


def nextvlad(clusters: int, hidden: int) -> Head:
    """NeXtVLAD of a size."""
    options = {"clusters": clusters, "groups": 4, "hidden": hidden, "experts": 2, "sampled": 30, "momentum": 0.02}
    return Head("nextvlad", options)


def record_recipes(clips: int, frames: int, seed: int = 0) -> list[Recipe]:
    """What is tried on ``clips`` training records of about ``frames`` frames; names are unique.

    Families: bags of frames (NetVLAD, NeXtVLAD, the mean), which know no order, and a window and recurrent layers,
    which do. All see the same frames, so that their files go together.
    """
    bag = load_recipe("gated-netvlad-small")
    bags = replace(bag.training, epochs=_epochs(BAG_STEPS, bag.training.batch, clips), seed=seed)
    window = load_recipe("records-window").training
    ordered = replace(window, epochs=_epochs(ORDER_STEPS, window.batch, clips), seed=seed)
    augment = {"mixup": 0.3, "speed": 0.2, "noise": 0.3}
    recurrent = replace(ordered, optimizer="adamw", lr=1e-3, weight_decay=1e-2, augment=augment)
    length = max(2, min(LONGEST, frames))
    mean = load_recipe("records-mean").head.options
    found: list[tuple[str, Head, Training]] = [
        ("nextvlad-K16-H128", nextvlad(16, 128), bags),
        ("window-128-256", _window(length, 128, 256), ordered),
        ("nextvlad-K32-H256", nextvlad(32, 256), bags),
        ("netvlad-K32-H64", vlad(32, 64), bags),
        ("netvlad-K16-H96", vlad(16, 96), bags),
        ("gru-256", Head("gru-moe", {"hidden": 256, "experts": 0, "dropout": 0.5}), recurrent),
        ("netvlad-K16-H64", vlad(16, 64), bags),
        ("window-64-128", _window(length, 64, 128), ordered),
        ("nextvlad-K8-H64", nextvlad(8, 64), bags),
        ("netvlad-K8-H64", vlad(8, 64), bags),
        ("mean-H256", Head("pooled", mean), bags),
        ("netvlad-K16-H32", vlad(16, 32), bags),
        ("netvlad-K64-H256", vlad(64, 256), bags),
        ("window-32-64", _window(length, 32, 64), ordered),
        ("netvlad-K8-H32", vlad(8, 32), bags),
        ("mean-H64", Head("pooled", mean | {"hidden": 64}), bags),
    ]
    return [
        replace(bag, name=name, head=head, training=_every(training, clips), compress=STORAGES)
        for name, head, training in found
    ]


def family_of(name: str) -> str:
    """The family of a name of ``record_recipes``: what stands before its first hyphen."""
    return name.partition("-")[0]


def _window(frames: int, project: int, hidden: int) -> Head:
    options: dict[str, Any] = {"frames": frames, "project": project, "hidden": hidden}
    return Head("window", options)


def _epochs(steps: int, batch: int, clips: int) -> int:
    """Epochs of about so many updates, at least three."""
    return max(3, math.ceil(steps * batch / clips))


def _every(training: Training, clips: int) -> Training:
    """Checkpoints, where they are averaged, a thirty-second of the training apart."""
    if not training.averaging.last:
        return training
    steps = training.epochs * math.ceil(clips / training.batch)
    return replace(training, averaging=replace(training.averaging, every=max(1, steps // 32)))
