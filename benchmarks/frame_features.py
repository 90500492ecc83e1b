"""The YouTube-8M system in small: NetVLAD against the mean on the built-in "paired residual" records, and what storage,
averaging and ensembles do to GAP@20.

Trains members of several sizes (batch 32, constant rate, 30 drawn frames, a checkpoint every 50 steps, the last 16
averaged), stores their large tensors in 16, 8 and 4 bits, and searches the ensemble that fits 700,000 bytes. Members
are chosen on the validation records, figures are of the test records.

    python benchmarks/frame_features.py --seeds 0 --out frame_features.json
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from vidlet.compress.average import average_weights
from vidlet.compress.ensemble_search import Candidate, search_ensemble, top_scores
from vidlet.compress.storage import quantize_weight
from vidlet.datasets.records import RecordSet
from vidlet.datasets.residual import render_residual
from vidlet.metrics import gap
from vidlet.models import build_head
from vidlet.recipe import Head, Training
from vidlet.training import ClipNetwork, fit, predict_logits
from vidlet.training.record_clips import RecordClips

CLASSES, LIMIT = 60, 700_000
VLAD = {"experts": 2, "audio": 16, "sampled": 30, "momentum": 0.02}
MEAN = {"top": 0, "deviation": False, "hidden": 256, "experts": 2, "standardize": False, "momentum": 0.02}
MEMBERS = {
    "mean-H256": Head("pooled", MEAN),
    "K16-H64": Head("netvlad", VLAD | {"clusters": 16, "hidden": 64}),
    "K8-H64": Head("netvlad", VLAD | {"clusters": 8, "hidden": 64}),
    "K16-H32": Head("netvlad", VLAD | {"clusters": 16, "hidden": 32}),
    "K32-H64": Head("netvlad", VLAD | {"clusters": 32, "hidden": 64}),
    "K16-H96": Head("netvlad", VLAD | {"clusters": 16, "hidden": 96}),
    "netfv-K8-H64": Head("netfv", VLAD | {"clusters": 8, "hidden": 64}),
    "nextvlad-K16-H128": Head(
        "nextvlad",
        {"clusters": 16, "groups": 4, "hidden": 128, "audio": 16, "sampled": 30, "momentum": 0.02, "experts": 2},
    ),
}
STEPS, EVERY, LAST, BATCH = 1600, 50, 16, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--members", nargs="+", default=list(MEMBERS), choices=list(MEMBERS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {seed: one_seed(seed, args.members, args.steps) for seed in args.seeds}
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


def one_seed(seed: int, names: list[str], steps: int) -> dict:
    """All figures of one world of the generator."""
    with tempfile.TemporaryDirectory() as folder:
        render_residual(folder, seed=seed)
        clips = {}
        for split, prefix in (("train", "train"), ("val", "validate"), ("test", "test")):
            records = RecordSet(f"{folder}/{prefix}*")
            clips[split] = RecordClips(records, range(len(records)), CLASSES)
        truth = {split: found.targets for split, found in clips.items() if split != "train"}
        found: dict = {"members": {}}
        scores: dict[str, dict[str, np.ndarray]] = {}
        for name in names:
            started = time.process_time()
            networks = train(MEMBERS[name], clips, seed, steps)
            row: dict = {"cpu_s": 0.0}
            for kind, network in networks.items():
                own = {split: probabilities(network, clips[split]) for split in truth}
                row[kind] = gap(own["test"], truth["test"])
                scores[f"{name} {kind}"] = own
            for bits in (16, 8, 4):
                stored, size = in_bits(networks["averaged"], bits)
                own = {split: probabilities(stored, clips[split]) for split in truth}
                row[f"{bits} bits"] = {"gap": gap(own["test"], truth["test"]), "bytes": size}
                scores[f"{name} {bits}"] = own
            row["cpu_s"] = round(time.process_time() - started, 1)
            found["members"][name] = row
            print(seed, name, row, flush=True)
        labels = [np.flatnonzero(row) for row in truth["val"]]
        for bits in (16, 8):
            candidates = [
                Candidate(
                    name, found["members"][name][f"{bits} bits"]["bytes"], top_scores(scores[f"{name} {bits}"]["val"])
                )
                for name in names
            ]
            best = search_ensemble(candidates, labels, LIMIT)
            test = sum(w * scores[f"{name} {bits}"]["test"] for name, w in zip(best.members, best.weights, strict=True))
            found[f"ensemble {bits} bits"] = {
                "members": dict(zip(best.members, best.weights, strict=True)),
                "bytes": best.bytes,
                "gap_val": best.gap,
                "gap": gap(test, truth["test"]),
                "best_member_gap": max(
                    found["members"][c.name][f"{bits} bits"]["gap"] for c in candidates if c.bytes <= LIMIT
                ),
            }
    return found


def train(recipe: Head, clips: dict[str, RecordClips], seed: int, steps: int) -> dict[str, ClipNetwork]:
    """The checkpoint that is best on validation, and the mean of the last 16."""
    torch.manual_seed(seed)
    network = ClipNetwork(build_head(recipe, (80,), CLASSES))
    network.head.calibrate(*map(torch.from_numpy, clips["train"].moments()))
    epochs = round(steps * BATCH / len(clips["train"]))
    config = Training(
        epochs=epochs, batch=BATCH, lr=3e-3, schedule="constant", weight_decay=0.0, clip_norm=1.0, seed=seed
    )
    checkpoints: list[ClipNetwork] = []
    updates = 0

    def keep() -> None:
        nonlocal updates
        updates += 1
        if updates % EVERY == 0:
            checkpoints.append(copy.deepcopy(network).eval())

    fit(network, clips["train"], clips["val"], config, multi_label=True, hold=keep)
    truth = clips["val"].targets
    single = max(checkpoints[-LAST:], key=lambda one: gap(probabilities(one, clips["val"]), truth))
    return {"single": single, "averaged": average_weights(checkpoints[-LAST:]).eval()}


def probabilities(network: ClipNetwork, clips: RecordClips) -> np.ndarray:
    """Scores (N, K) over all frames of each clip."""
    return torch.from_numpy(predict_logits(network, clips, 250)).sigmoid().numpy()


def in_bits(network: ClipNetwork, bits: int) -> tuple[ClipNetwork, int]:
    """The network with its matrices rounded, and the bytes of all its tensors so."""
    stored = copy.deepcopy(network)
    size = 0
    for name, value in stored.state_dict().items():
        if value.ndim < 2 or value.numel() < 1024:
            size += value.numel() * 4 if not name.endswith("num_batches_tracked") else 0
            continue
        if bits == 16:
            value.copy_(value.half().float())
        else:
            value.copy_(torch.from_numpy(rounded(value.numpy(), bits)))
            size += 4 * len(value)  # a scale a row
        size += value.numel() * bits // 8
    return stored, size


def rounded(weight: np.ndarray, bits: int) -> np.ndarray:
    """A matrix on the grid of so many bits, one scale a row."""
    if bits == 8:
        codes, scales = quantize_weight(weight)
        return codes * scales
    scales = np.abs(weight).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    return np.rint(weight / scales) * scales


if __name__ == "__main__":
    main()
