"""Speed and memory of the paper's NetVLAD, K32-H1024 with 3862 classes: training steps, inference, its large products.

Inputs are drawn: clips of 300 frames of 1024 + 128 numbers, of which training draws 30. A training step is the loop's
own (forward, backward, clipped gradient, AdamW); inference sees all frames, in torch by batches and, with ``--file``,
through the exported file, one clip a call, in a process of its own. The large matrices of the head (hidden layer, gates
and experts of the mixture, gating of the probabilities) are then multiplied alone, forward and backward, on as many
clips; beside their rates stand that of a plain product of square matrices and that of one of the same shape.
Times are the best of ``--repeats``, of one thread processor time; memory is the highest of the process, of training
with its optimizer in it.

    python benchmarks/speed/netvlad_speed.py --threads 2 --batches 160 --file --out netvlad_speed.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidlet.artifact import ArtifactNetwork, artifact_graph, artifact_metadata
from vidlet.models import build_head
from vidlet.models.extractor import StoredFeatures
from vidlet.recipe import Recipe, load_recipe
from vidlet.runtime import load, write_metadata
from vidlet.training import Batch, ClipNetwork, FeatureClips
from vidlet.training.classification import clip_objective
from vidlet.training.loop import update
from vidlet.training.optimizers import make_optimizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

WIDTHS = {"rgb": 1024, "audio": 128}
LARGE = ("hidden", "experts.classify.gates", "experts.classify.scores", "experts.gating.gate")  # of the classifier
LABELS = 3.4  # of a clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=3862)
    parser.add_argument("--frames", type=int, default=300, help="of a clip (%(default)s)")
    parser.add_argument("--sampled", type=int, default=30, help="of them, in training (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[160], help="clips of a training step (%(default)s)")
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 32], help="of an inference (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--square", type=int, default=2048, help="side of the plain product (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--file", action="store_true", help="the exported file too, through the runtime")
    parser.add_argument("--run-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    add_option(parser)
    args = parser.parse_args()
    if args.run_file:
        torch.set_num_threads(args.threads)
        print(json.dumps(of_file(args.run_file, args.frames, args.repeats, args.threads)))
        return
    torch.set_num_threads(args.threads)
    found = measure(args)
    save(args, "netvlad_speed", rows_of(found), ("models", "training"))
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures; inference first, so that its peak is not training's."""
    options = {"clusters": args.clusters, "hidden": args.hidden, "sampled": args.sampled, "audio": WIDTHS["audio"]}
    plan = load_recipe("gated-netvlad")
    plan = replace(plan, head=replace(plan.head, options=plan.head.options | options))
    torch.manual_seed(0)
    network = ClipNetwork(build_head(plan.head, (sum(WIDTHS.values()),), args.classes))
    count = sum(p.numel() for p in network.parameters())
    found: dict[str, Any] = {
        "head": plan.head.options,
        "classes": args.classes,
        "frames": args.frames,
        "threads": args.threads,
        "parameters": count,
        "parameter_bytes": 4 * count,
        "inference": {f"{clips} at once": of_inference(network, clips, args) for clips in args.clips},
    }
    if args.file:
        found["file"] = exported(network, plan, args)
    square = torch.randn(args.square, args.square), torch.randn(args.square, args.square)
    plain = 2 * args.square**3 / best(lambda: square[0] @ square[1], args.repeats)
    found["plain_gflops"] = plain / 1e9
    found["training"] = {}
    for size in args.batches:
        row = of_training(network, plan, size, args)
        row["products"] = products(network, size, args.repeats, plain)
        seconds = sum(p["forward_s"] + p["backward_s"] for p in row["products"].values())
        found["training"][f"a batch of {size}"] = row | {"share_of_step_in_products": seconds / row["step_s"]}
    return found


def of_inference(network: ClipNetwork, clips: int, args: argparse.Namespace) -> dict[str, Any]:
    """Clips of all their frames at once, in torch."""
    network.eval()
    batch = drawn(clips, args)

    @torch.no_grad()
    def answer() -> None:
        network(batch.x, batch.mask)

    seconds = best(answer, args.repeats)
    return {"clips": clips, "s": seconds, "examples_per_s": clips / seconds, "peak_bytes": peak_bytes()}


def of_training(network: ClipNetwork, plan: Recipe, size: int, args: argparse.Namespace) -> dict[str, Any]:
    """The loop's step on a batch; the first one, which makes the optimizer's state, is not counted."""
    network.train()
    batch, config = drawn(size, args), plan.training
    none = FeatureClips(lambda i: batch.x[i].numpy(), batch.y.numpy(), batch.names, np.ones(1, np.float32))
    objective, optimizer = clip_objective(network, none, none, config, True), make_optimizer(network.head, None, config)
    update(objective, config, optimizer, batch, 0, "the first")
    seconds = best(lambda: update(objective, config, optimizer, batch, 1, "a step"), args.repeats)
    return {"batch": size, "step_s": seconds, "examples_per_s": size / seconds, "peak_bytes": peak_bytes()}


def products(network: ClipNetwork, rows: int, repeats: int, plain: float) -> dict[str, dict[str, float]]:
    """Rates of the large layers on (rows, inputs), forward and backward, and as shares of the plain product's."""
    found = {}
    for name in LARGE:
        layer = network.head.classifier.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        outputs, inputs = layer.weight.shape
        x, gradient = torch.randn(rows, inputs, requires_grad=True), torch.randn(rows, outputs)
        other = torch.randn(inputs, outputs)

        with torch.no_grad():
            once, same = best(partial(layer, x), repeats), best(partial(torch.mm, x, other), repeats)
        back = partial(torch.autograd.grad, layer(x), [x, layer.weight], gradient, retain_graph=True)
        twice = best(back, repeats)
        flops = 2 * rows * inputs * outputs
        found[name] = {
            "inputs": inputs,
            "outputs": outputs,
            "forward_s": once,
            "backward_s": twice,
            "forward_gflops": flops / once / 1e9,
            "backward_gflops": 2 * flops / twice / 1e9,
            "same_shape_gflops": flops / same / 1e9,
            "forward_share_of_plain": flops / once / plain,
            "backward_share_of_plain": 2 * flops / twice / plain,
        }
    return found


def exported(network: ClipNetwork, plan: Recipe, args: argparse.Namespace) -> dict[str, Any]:
    """The file of this head, measured in a fresh process."""
    artifact = ArtifactNetwork(StoredFeatures(WIDTHS), network.head.eval(), 1.0, True)
    names = tuple(f"class {n}" for n in range(args.classes))
    metadata = artifact_metadata(plan, names, args.frames / plan.sampling.hz, {}, None, True, list(WIDTHS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(artifact_graph(artifact, (1, 1)).SerializeToString())
        write_metadata(path, metadata)
        words = [sys.executable, __file__, "--run-file", str(path)]
        words += ["--frames", str(args.frames), "--repeats", str(args.repeats), "--threads", str(args.threads)]
        told: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return told


def of_file(path: Path, frames: int, repeats: int, threads: int) -> dict[str, Any]:
    """A clip a call through the runtime."""
    before = peak_bytes()  # of an interpreter with what this file imports
    started = time.perf_counter()
    model = load(path, threads=threads)
    opened = time.perf_counter() - started
    rng = np.random.default_rng(0)
    clip = {name: rng.integers(0, 256, (frames, *shape), dtype=np.uint8) for name, shape in model.inputs.items()}
    seconds = best(lambda: model(clip), repeats)
    row = {"bytes": model.bytes, "load_s": opened, "clip_s": seconds, "examples_per_s": 1 / seconds}
    return row | {"peak_bytes_beyond_start": peak_bytes() - before}


def drawn(size: int, args: argparse.Namespace) -> Batch:
    """A batch of random clips with the labels a clip of YouTube-8M has."""
    x = torch.randn(size, args.frames, sum(WIDTHS.values()))
    y = (torch.rand(size, args.classes) < LABELS / args.classes).float()
    return Batch(x, torch.ones(size, args.frames, dtype=torch.bool), y, tuple(map(str, range(size))))


def best(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some runs; of one thread its processor time, which nothing beside it lengthens."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
