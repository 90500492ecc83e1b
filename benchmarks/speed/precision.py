"""A training step in bfloat16 beside float32 (``training.precision``), of recipes, on random clips: ms and their ratio.

    OMP_NUM_THREADS=1 python benchmarks/speed/precision.py
    python benchmarks/speed/precision.py --recipe viva-4 ucf-rgb --clips 2

The two take turns, step by step; medians of processor time. "frozen" recipes train the head on features, others all of
it on frames.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from vidlet.models import build_extractor, build_head
from vidlet.recipe import Training, load_recipe
from vidlet.reports import text_table
from vidlet.training import ClipNetwork
from vidlet.training.device import autocast

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import add_option, rows_of, save

USUAL = ["mobilenetv2-grid-gru", "mobilenetv2-grid-gru-large", "mobilenetv2-grid-statistics", "mobilenetv2-gru",
         "mobilenetv2-lstm", "tt-gru-grid", "tiny-grid-gru", "viva-1", "viva-1-tt", "viva-2", "viva-2-tt"]  # fmt: skip
FORMS = ("float32", "bfloat16")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=USUAL)
    parser.add_argument("--clips", type=int, default=8, help="of a batch")
    parser.add_argument("--frames", type=int, default=32, help="of a clip that is sampled at a rate")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    add_option(parser)
    args = parser.parse_args()
    found = [measure(name, args.clips, args.frames, args.rounds) for name in args.recipe]
    save(
        args,
        "precision",
        rows_of({str(row["recipe"]): row for row in found}),
        ("models", "training", "recipes", "recipe.py"),
    )
    if args.json:
        print(json.dumps(found))
        return
    rows = [[r["recipe"], *(f"{r[form]:.1f}" for form in FORMS), f"{r['ratio']:.2f}"] for r in found]
    print(text_table(rows, ["recipe", *(f"{form}, ms" for form in FORMS), "times faster"], "lrrr"))


def measure(name: str, clips: int, frames: int, rounds: int) -> dict[str, str | float]:
    """One recipe's step in both."""
    torch.manual_seed(0)
    plan = load_recipe(name)
    extractor = build_extractor(dataclasses.replace(plan.extractor, weights="none"))
    whole = plan.training.mode == "finetune"
    network = ClipNetwork(build_head(plan.head, extractor.feature_shape, 14), extractor if whole else None)
    length = plan.sampling.frames if plan.sampling.rule == "uniform" else min(frames, plan.sampling.max_frames)
    shape = (3, *extractor.input_size) if whole else extractor.feature_shape
    x, mask = torch.rand(clips, length, *shape), torch.ones(clips, length, dtype=torch.bool)
    if whole:
        extractor.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x *= 255
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    network.train()
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(rounds + 1):
        for form in FORMS:
            began = time.process_time()
            with autocast(Training(precision=form), "cpu"):
                logits = network(x, mask).float()
            optimizer.zero_grad()
            logits.logsumexp(1).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            times[form].append(1e3 * (time.process_time() - began))
    middle = {form: statistics.median(taken[1:]) for form, taken in times.items()}
    return {"recipe": name, **middle, "ratio": middle["float32"] / middle["bfloat16"]}


if __name__ == "__main__":
    main()
