"""What tensor-train layers cost beside dense ones: a large product, convolutions, a training step on pixels.

    python benchmarks/speed/tensor_train.py [linear] [convolution] [lstm] [network] [--rounds 21] [--threads 1] [--json]

Each comparison is one interleaved run: a round calls every variant once, in turn; medians of processor time. Where
tensorly-torch or opt_einsum is installed, it (factorized) or a plain expression of it is measured as well.

Targets: TTLinear 57,600 -> 1,024 at rank 4, batch 16, forward and backward at least 25 times faster than nn.Linear and
faster than tensorly-torch; TTConv3d inference 1.00 times dense, training step at most 1.25; a training step of an LSTM
on pixels (batch 16, 6 frames, hidden 256) at least 10 times faster; a training step of a whole 3-D network no slower.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vidlet.models import build_extractor, build_head
from vidlet.recipe import load_recipe
from vidlet.tensor_train import TTLSTM, TTConv3d, TTLinear, to_conv
from vidlet.training import ClipNetwork

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

PIXELS = ((8, 20, 20, 18), (16, 4, 4, 4), 4)  # 57,600 -> 1,024: 3,360 core parameters
CONVOLUTIONS = {  # VIVA networks: modes, kernel, rank, size (T, H, W) where the layer stands, clips
    "V1 16 -> 32, 3x3x3": ((4, 4), (4, 8), (3, 3, 3), 16, (16, 14, 31), 16),
    "V2 32 -> 128, 3x3x5": ((4, 4, 2), (4, 4, 8), (3, 3, 5), 16, (8, 7, 16), 8),
    "V4 64 -> 128, 3x5x5": ((4, 4, 4), (4, 8, 4), (3, 5, 5), 16, (16, 14, 31), 2),
    "V4 256 -> 256, 3x3x3": ((4, 8, 8), (8, 8, 4), (3, 3, 3), 32, (4, 4, 8), 8),
}
NETWORKS = {"viva-1": 8, "viva-2": 8, "viva-4": 4, "ucf-rgb": 2}  # recipes, of which each has a "-tt", and clips a step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["linear", "convolution", "lstm", "network"])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    measured: dict[str, object] = {}
    if "linear" in args.parts:
        measured["linear, forward + backward"] = linear(args.rounds)
    if "convolution" in args.parts:
        for name in CONVOLUTIONS:
            measured[f"{name}, inference"], measured[f"{name}, training"] = convolution(name, max(3, args.rounds // 3))
    if "lstm" in args.parts:
        measured["LSTM on pixels, training step"] = lstm(max(3, args.rounds // 3))
    if "network" in args.parts:
        for recipe in NETWORKS:
            measured[f"network {recipe}, training"] = network_step(recipe, max(3, args.rounds // 3))
    save(args, "tensor_train", rows_of(measured), ("tensor_train",))
    if args.json:
        print(json.dumps(measured))
        return
    for title, row in measured.items():
        print(title)
        for name, value in row.items():
            print(f"    {name:34s} {value:14,.5g}")


def linear(rounds: int, batch: int = 16) -> dict[str, float]:
    """Milliseconds of forward and backward of 57,600 -> 1,024, the input without gradient, and ratios to dense."""
    layer = TTLinear(*PIXELS)
    dense = nn.Linear(layer.in_features, layer.out_features)
    x, upstream = torch.randn(batch, layer.in_features), torch.randn(batch, layer.out_features)
    variants: dict[str, Callable[[], None]] = {
        "nn.Linear": step_of(dense, x, upstream),
        "TTLinear": step_of(layer, x, upstream),
        **other_libraries(x, upstream),
    }
    found = medians_ms(variants, rounds)
    ratios = {f"nn.Linear / {name}": found["nn.Linear"] / ms for name, ms in found.items() if name != "nn.Linear"}
    print(layer.plan(batch, True, False))
    return {**{f"{name} (ms)": ms for name, ms in found.items()}, **ratios}


def other_libraries(x: Tensor, upstream: Tensor) -> dict[str, Callable[[], None]]:
    """tensorly-torch, factorized, and an opt_einsum expression with the best path, where they are installed."""
    found = {}
    in_modes, out_modes, rank = PIXELS
    if importlib.util.find_spec("tltorch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tltorch import FactorizedLinear

            peer = FactorizedLinear(
                in_modes, out_modes, factorization="blocktt", rank=(1, rank, rank, rank, 1), implementation="factorized"
            )
            with torch.no_grad():
                for parameter in peer.parameters():
                    parameter.normal_(std=0.1)
        found["tensorly-torch, factorized"] = step_of(peer, x, upstream)
    if importlib.util.find_spec("opt_einsum"):
        import opt_einsum

        layer = TTLinear(*PIXELS, bias=False)
        shape = (len(x), *in_modes)
        cores = [core.shape for core in layer.cores]
        expression = opt_einsum.contract_expression(
            "zabcd,qaer,rbfs,scgt,tdhu->zefgh", shape, *cores, optimize="optimal"
        )

        def einsum() -> None:
            layer.zero_grad()
            out = expression(x.reshape(shape), *layer.cores, backend="torch").reshape(len(x), -1)
            out.backward(upstream)

        found["opt_einsum expression"] = einsum
    return found


def convolution(name: str, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds of inference and of a training step (forward, backward, SGD), tensor train and dense."""
    in_modes, out_modes, kernel, rank, size, clips = CONVOLUTIONS[name]
    layer = TTConv3d(in_modes, out_modes, kernel, rank, padding="same", clip=False)
    dense = to_conv(layer)
    x = torch.randn(clips, layer.in_channels, *size)

    def infer(network: nn.Module) -> Callable[[], None]:
        def call() -> None:
            with torch.no_grad():
                network(x)

        return call

    def learn(network: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)
        source = x.clone().requires_grad_()

        def call() -> None:
            source.grad = None
            optimizer.zero_grad()
            network(source).square().mean().backward()
            optimizer.step()

        return call

    rows = []
    for make in (infer, learn):
        layer.train(make is learn)
        found = medians_ms({"dense": make(dense), "TTConv3d": make(layer)}, rounds)
        rows.append(
            {**{f"{variant} (ms)": ms for variant, ms in found.items()}, "ratio": found["TTConv3d"] / found["dense"]}
        )
    return rows[0], rows[1]


def lstm(rounds: int, batch: int = 16, frames: int = 6, hidden: int = 256, classes: int = 11) -> dict[str, float]:
    """Milliseconds of a whole training step on 160 x 120 pixels: forward, loss, backward, Adam."""
    clips, labels = torch.rand(batch, frames, 57_600), torch.randint(classes, (batch,))

    def learn(recurrent: nn.Module) -> Callable[[], None]:
        head = nn.Linear(hidden, classes)
        optimizer = torch.optim.Adam([*recurrent.parameters(), *head.parameters()], lr=1e-4)

        def call() -> None:
            optimizer.zero_grad()
            out, _ = recurrent(clips)
            nn.functional.cross_entropy(head(out[:, -1]), labels).backward()
            optimizer.step()

        return call

    variants = {
        "nn.LSTM": learn(nn.LSTM(57_600, hidden, batch_first=True)),
        "TTLSTM": learn(TTLSTM((8, 20, 20, 18), (4, 4, 4, 4), 4)),
        "TTLSTM, hidden in TT too": learn(TTLSTM((8, 20, 20, 18), (4, 4, 4, 4), 4, 4)),
    }
    found = medians_ms(variants, rounds)
    ratios = {f"nn.LSTM / {name}": found["nn.LSTM"] / ms for name, ms in found.items() if name != "nn.LSTM"}
    return {**{f"{name} (ms)": ms for name, ms in found.items()}, **ratios}


def network_step(recipe: str, rounds: int) -> dict[str, float]:
    """Milliseconds of a training step of a whole 3-D network from frames: forward, loss, backward, AdamW."""

    def learn(name: str) -> Callable[[], None]:
        torch.manual_seed(0)
        plan = load_recipe(name)
        extractor = build_extractor(plan.extractor)
        network = ClipNetwork(build_head(plan.head, extractor.feature_shape, 14), extractor).train()
        extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        frames = 255 * torch.rand(NETWORKS[recipe], plan.sampling.frames, 3, *extractor.input_size)
        mask = torch.ones(frames.shape[:2], dtype=torch.bool)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

        def call() -> None:
            optimizer.zero_grad()
            network(frames, mask).logsumexp(1).mean().backward()
            optimizer.step()

        return call

    found = medians_ms({"dense": learn(recipe), "trains": learn(f"{recipe}-tt")}, rounds)
    return {**{f"{name} (ms)": ms for name, ms in found.items()}, "ratio": found["trains"] / found["dense"]}


def step_of(network: nn.Module, x: Tensor, upstream: Tensor) -> Callable[[], None]:
    """Forward and backward with fresh gradients."""

    def call() -> None:
        network.zero_grad()
        network(x).backward(upstream)

    return call


def medians_ms(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median of each variant over interleaved rounds, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    with contextlib.suppress(KeyboardInterrupt):
        for _ in range(rounds + 1):
            for name, call in variants.items():
                started = time.process_time()
                call()
                times[name].append(time.process_time() - started)
    return {name: 1e3 * statistics.median(found[1:]) for name, found in times.items()}


if __name__ == "__main__":
    main()
