"""Is what trains on a GPU right, and how fast: one table, in under eight minutes, on any machine with CUDA.

    python benchmarks/gpu.py                  # the first GPU; DDP over all there are
    python benchmarks/gpu.py --device cpu     # the same checks, small: that the script itself works

float32: three networks are trained for some updates on the device and on the processor, from the same weights and
batches; their losses must agree to 1e-3. bfloat16: the same to 5 %. DDP: one process a GPU (two on a processor), the
gradients of a batch that is shared out must be those of the whole batch. Then VIVA-4, 73 million weights, for one epoch
of clips of the paper's size, and a piece of `vidlet papers tt3dcnn --protocol paper`. What fails is said, status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from vidlet.datasets import render_motion
from vidlet.jobs.papers import papers
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Recipe, load_recipe
from vidlet.reports import text_table
from vidlet.training import ClipNetwork, FrameClips, find_device, train_network

NETWORKS = {  # recipe: what is changed of it, so that some updates are seconds; drop-outs would differ by their draws
    "viva-1-tt": {
        "head.options": {"network": "viva-1", "tt": "both", "dropout": 0.0}, "training.augment": {}, "training.batch": 8
    },
    "tt-lstm-pixels": {"head.options.dropout": 0.0, "head.options.recurrent_dropout": 0.0, "training.augment": {}},
    "mobilenetv2-grid-gru-finetune": {
        "extractor.weights": "none", "extractor.input_size": [64, 64], "extractor.grid": 2, "head.options.dropout": 0.0,
        "training.augment": {}, "sampling.rule": "uniform", "sampling.frames": 8, "training.averaging.decay": 0.0,
        "training.averaging.last": 0,
    },
}  # fmt: skip
CLASSES = 4


def main() -> None:
    """Run the checks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cuda")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    device = find_device(args.device)
    small = device == "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = list(checks(device, small))
    failed = [row for row in rows if not row["ok"]]
    if args.json:
        print(json.dumps({"device": name_of(device), "rows": rows}))
    else:
        print(f"{name_of(device)}, torch {torch.__version__}, {torch.cuda.device_count()} GPUs\n")
        cells = [(row["name"], row["found"], f"{row['seconds']:.1f}", "ok" if row["ok"] else "FAILED") for row in rows]
        print(text_table(cells, ("check", "found", "s", ""), "llrl"))
    raise SystemExit(bool(failed))


def checks(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """The rows of the table, one a check."""
    for recipe in NETWORKS:
        yield row(f"{recipe}: loss beside the processor's", lambda r=recipe: agree(r, device, "float32", 1e-3))
        yield row(f"{recipe}: bfloat16 beside float32", lambda r=recipe: agree(r, device, "bfloat16", 0.05))
    yield row("DDP: gradients beside one process's", lambda: ddp(device))
    yield row(
        "VIVA-1, one epoch" if small else "VIVA-4, one epoch at the paper's size", lambda: paper_size(device, small)
    )
    yield row("papers tt3dcnn --protocol paper, a piece", lambda: piece(device, small))


def row(name: str, check: Callable[[], tuple[bool, str]]) -> dict[str, Any]:
    """Run a check; what it raises is its failure."""
    started = time.perf_counter()
    try:
        ok, found = check()
    except Exception as error:  # the other checks go on
        traceback.print_exc()
        ok, found = False, f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return {"name": name, "found": found, "seconds": time.perf_counter() - started, "ok": ok}


def clips_of(plan: Recipe, count: int, seed: int = 0) -> FrameClips:
    """Random clips of the recipe's size; their class is how bright they are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    height, width = plan.extractor.input_size
    frames = rng.integers(0, 64, (count, plan.sampling.frames, height, width, 3), np.uint8)
    frames += (labels * 48).astype(np.uint8).reshape(-1, 1, 1, 1, 1)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    return FrameClips(lambda i: frames[i], targets, [f"clip {i}" for i in range(count)], plan.sampling.frames)


def network_of(plan: Recipe) -> ClipNetwork:
    """The recipe's network, the same for the same seed."""
    torch.manual_seed(plan.training.seed)
    extractor = build_extractor(plan.extractor)
    return ClipNetwork(build_head(plan.head, extractor.feature_shape, CLASSES), extractor)


def losses(plan: Recipe, device: str) -> list[float]:
    """Losses of two epochs on sixteen clips, training's and validation's."""
    found: list[float] = []
    clips = clips_of(plan, 16)
    train_network(
        network_of(plan), clips, clips, plan.training, device=device,
        report=lambda row, epochs: found.extend([row["train_loss"], row["val_loss"]]),
    )  # fmt: skip
    return found


def agree(recipe: str, device: str, precision: str, most: float) -> tuple[bool, str]:
    """Whether training gives the processor's losses in float32."""
    plan = load_recipe(recipe, {**NETWORKS[recipe], "training.epochs": 2, "training.early_stopping": 0})
    plain = replace(plan, training=replace(plan.training, precision="float32"))
    there = replace(plan, training=replace(plan.training, precision=precision))
    expected, found = losses(plain, "cpu"), losses(there, device)
    worst = max(abs(a - b) / max(abs(b), 1.0) for a, b in zip(found, expected, strict=True))
    return worst <= most, f"largest difference {worst:.1e} (at most {most:g})"


def ddp(device: str) -> tuple[bool, str]:
    """Whether processes that share a batch have the gradients of the whole batch."""
    count = torch.cuda.device_count() if device == "cuda" else 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(shared, (count, device, port, folder), nprocs=count)  # type: ignore[no-untyped-call]
        found = torch.load(Path(folder) / "gradients.pt", weights_only=True)
    network, x, y = small_network(4 * count)
    nn.functional.cross_entropy(network(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    worst = ((found - expected).norm() / expected.norm()).item()
    return worst < 1e-3, f"{count} processes, relative difference {worst:.1e}"


class Cells(nn.Module):
    """A 3-D network of this library on clips (B, C, L, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        from vidlet.models.clip_networks import ClipNetwork3d

        self.network = ClipNetwork3d("viva-1", (2, 28, 62), CLASSES, form="both", dropout=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        logits: torch.Tensor = self.network(x)
        return logits


def small_network(clips: int) -> tuple[Cells, torch.Tensor, torch.Tensor]:
    """The same network and the same clips in every process."""
    torch.manual_seed(0)
    return Cells(), torch.randn(clips, 2, 32, 28, 62), torch.arange(clips) % CLASSES


def shared(rank: int, count: int, device: str, port: int, folder: str) -> None:
    """One process: its share of the batch; the first one writes the gradients."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, rank=rank, world_size=count)
    network, x, y = small_network(4 * count)
    place = torch.device(device, rank) if device == "cuda" else torch.device("cpu")
    model = DistributedDataParallel(network.to(place), device_ids=[rank] if device == "cuda" else None)
    own = slice(4 * rank, 4 * rank + 4)
    nn.functional.cross_entropy(model(x[own].to(place)), y[own].to(place)).backward()
    if rank == 0:
        grads = torch.cat([p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None])
        torch.save(grads, Path(folder) / "gradients.pt")
    torch.distributed.destroy_process_group()


def paper_size(device: str, small: bool) -> tuple[bool, str]:
    """One epoch of a 3-D network on clips of 32 frames of 62 x 28."""
    name, count = ("viva-1", 8) if small else ("viva-4", 500)
    options = {"network": name, "tt": "none", "dropout": 0.5, "pixel_drop": 0.5}
    plan = load_recipe(name, {"head.options": options, "training.epochs": 1, "training.batch": min(25, count)})
    clips, network = clips_of(plan, count), network_of(plan)
    started = time.perf_counter()
    progress = train_network(network, clips, clips, plan.training, device=device)
    took = time.perf_counter() - started
    loss = progress.history[0]["train_loss"]
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device == "cuda" else ""
    weights = sum(p.numel() for p in network.head.parameters()) / 1e6
    return bool(np.isfinite(loss)), f"{weights:.1f} M numbers, {count / took:.0f} clips/s, scoring too{memory}"


def piece(device: str, small: bool) -> tuple[bool, str]:
    """One fold of VIVA-1 in tensor-train form, on drawn clips."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "motion"
        render_motion(data, clips=48 if small else 240, seed=0, size=64)
        found = papers(
            "tt3dcnn", str(data), epochs=1 if small else 30, protocol="paper", folds=1, rows=["VIVA-1 TT"],
            device=device, clips=0.3 if small else 1.0, out=str(Path(folder) / "log.jsonl"),
        )  # fmt: skip
    of = {r["name"]: r["measured"] for t in found["tables"] for r in t["rows"]}
    return True, f"accuracy {of['VIVA-1 TT: accuracy']:.3f} of 8 classes, {found['measured_on']['scored']} scored"


def name_of(device: str) -> str:
    """What the table was made on."""
    return torch.cuda.get_device_name() if device == "cuda" else "processor"


if __name__ == "__main__":
    main()
