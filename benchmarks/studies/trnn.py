"""Why the T-RNN of DEEPEYE learns little from a detector's map: one cause at a time, three seeds, on sets of clips.

    python benchmarks/studies/trnn.py --detector runs/hands ../shared/data/egogestar ../shared/data/shrec_depth_gestures

The base is recipe `deepeye`, all epochs, no early stopping; every other row changes one thing of it: the frames, what
is done with the map, the ranks, the rate, how the hidden-to-hidden train starts. Scored is the test split, or val where
there is none; nothing is chosen on it. ``--out`` gets a JSON line a finished run, which is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vidlet
from vidlet.models import build_head
from vidlet.models.head import State, flat_size
from vidlet.models.tt_heads import TTLSTMHead
from vidlet.recipe import Recipe, load_recipe
from vidlet.reports import text_table
from vidlet.reproductions.experiment import Setup, figures_of, fit_head, probabilities, read_setup
from vidlet.tensor_train import TTLinear

STARTS = ("as it is", "drawn", "small", "orthogonal")


class Studied(TTLSTMHead):
    """The T-RNN, and what is tried with it.

    Args:
        changes: the map's difference to the frame before is read instead of the map, every channel to scale.
        each: every number of the map is standardized by itself, not every channel.
        start: of the hidden-to-hidden train: a number of ``STARTS``.
    """

    def __init__(
        self, feature_shape: tuple[int, ...], classes: int, out_modes: tuple[int, ...] = (4, 4, 4, 4),
        ranks: tuple[int, ...] = (4,), recurrent_ranks: tuple[int, ...] = (), dropout: float = 0.25,
        recurrent_dropout: float = 0.25, groups: int = 0, changes: bool = False, each: bool = False, start: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            feature_shape, classes, (), out_modes, ranks, recurrent_ranks, dropout, recurrent_dropout, groups
        )
        self.changes, self.each = changes, None
        if changes or each:  # the scale is that of what the train reads, not the map's
            self.standardize = nn.Identity()  # type: ignore[assignment]
            self.each = nn.BatchNorm1d(flat_size(feature_shape) if each else feature_shape[0], affine=False)
        train = self.rnn.hidden_map
        if isinstance(train, TTLinear) and STARTS[start] != "as it is":
            restart_(train, STARTS[start])

    def forward(self, features: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """As the T-RNN; changes and scales come before."""
        if self.changes:
            features = torch.cat([features[:, :1] * 0, features[:, 1:] - features[:, :-1]], 1)
        if self.each is not None:
            apart = features.flatten(0, 1).flatten(2 if self.each.num_features == features.shape[2] else 1)
            features = self.each(apart).reshape(features.shape)
        return super().forward(features, state, mask)


@torch.no_grad()
def restart_(train: TTLinear, start: str) -> None:
    """Give a square train (a gate's block of it) another start.

    "drawn": cores of equal deviation whose product has variance 1 / n on average over draws, as formulas say; "small":
    a tenth of the usual deviation; "orthogonal": every gate's matrix is the Kronecker product of orthogonal matrices,
    which is orthogonal; the other bonds begin at small numbers.
    """
    if start == "small":
        for core in train.cores:
            core.mul_(0.1 ** (1 / len(train.cores)))
        return
    if start == "drawn":
        inner = 1
        for core in train.cores[:-1]:
            inner *= core.shape[-1]
        std = (1 / train.in_features / inner) ** (0.5 / len(train.cores))
        for core in train.cores:
            core.normal_(std=std)
        return
    for core in train.cores:
        core.normal_(std=0.05)
        for first in range(0, core.shape[2], core.shape[1]):
            core[0, :, first : first + core.shape[1], 0] = nn.init.orthogonal_(
                torch.empty(core.shape[1], core.shape[1])
            )


HEAD = {"recurrent_ranks": [4]}
ROWS: dict[str, dict[str, Any]] = {  # what each row changes of the recipe
    "base: 6 frames, ranks 4 and 4, rate 2e-3": {},
    "rate 5e-4": {"training.lr": 5e-4},
    "rate 1e-2": {"training.lr": 1e-2},
    "rate 3e-2": {"training.lr": 3e-2},
    "no weight decay": {"training.weight_decay": 0.0},
    "no dropout": {"head.options": {**HEAD, "dropout": 0.0, "recurrent_dropout": 0.0}},
    "12 frames": {"sampling.frames": 12, "training.augment.redraw": 2},
    "24 frames": {"sampling.frames": 24, "training.augment": {}},
    "ranks 8 and 8": {"head.options": {"ranks": [8], "recurrent_ranks": [8]}},
    "hidden-to-hidden dense": {"head.options": {"recurrent_ranks": []}},
    "both dense": {"head.options": {"ranks": [], "recurrent_ranks": []}},
    "hidden-to-hidden drawn by formula": {"head.options": {**HEAD, "start": 1}},
    "hidden-to-hidden small": {"head.options": {**HEAD, "start": 2}},
    "hidden-to-hidden orthogonal": {"head.options": {**HEAD, "start": 3}},
    "every number of the map to scale": {"head.options": {**HEAD, "each": True}},
    "changes of the map": {"head.options": {**HEAD, "changes": True}},
    "changes, 24 frames": {
        "head.options": {**HEAD, "changes": True}, "sampling.frames": 24, "training.augment": {},
    },
    "changes, 24 frames, orthogonal": {
        "head.options": {**HEAD, "changes": True, "start": 3}, "sampling.frames": 24, "training.augment": {},
    },
    "changes, 24 frames, orthogonal, rate 1e-2": {
        "head.options": {**HEAD, "changes": True, "start": 3}, "sampling.frames": 24, "training.augment": {},
        "training.lr": 1e-2,
    },
}  # fmt: skip


def main() -> None:
    """Run what is not yet in --out, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="clip tables")
    parser.add_argument("--detector", required=True, help="the run or the file of a detector")
    parser.add_argument("--size", type=int, nargs=2, default=[224, 224], metavar=("H", "W"), help="of its pictures")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=float, default=1.0, help="share of the clips (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORDS", help="rows whose name holds one of these")
    parser.add_argument("--out", type=Path, default=Path("runs/trnn.jsonl"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*rank.*")
    vidlet.register_head("t-rnn-studied", Studied)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = {row["key"]: row for row in map(json.loads, args.out.read_text().splitlines())} if args.out.exists() else {}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for data in args.data:
        setups: dict[str, Setup] = {}
        for name, changes in ROWS.items():
            if not any(word in name for word in args.only):
                continue
            for seed in args.seeds:
                plan = plan_of(args, changes, seed)
                key = json.dumps([Path(data).name, args.clips, args.epochs, name, seed])
                if key not in known:
                    seen = json.dumps([plan.sampling.frames, plan.training.augment])
                    if seen not in setups:
                        setups[seen] = read_setup(data, plan, args.clips)
                    known[key] = {"key": key, **trained(setups[seen], plan)}
                    with args.out.open("a") as sink:
                        sink.write(json.dumps(known[key]) + "\n")
                    print(Path(data).name, name, seed, f"{known[key]['accuracy']:.3f}", flush=True)
                found.setdefault((Path(data).name, name), []).append(known[key])
    print(table(found))


def plan_of(args: argparse.Namespace, changes: dict[str, Any], seed: int) -> Recipe:
    """The recipe with a row's change."""
    base = {
        "head": {"name": "t-rnn-studied", "options": HEAD},
        "extractor.weights": args.detector, "extractor.input_size": args.size,
        "training.epochs": args.epochs, "training.early_stopping": 0, "training.seed": seed,
    }  # fmt: skip
    plan = dict(changes)
    if options := plan.pop("head.options", None):
        base["head"] = {"name": "t-rnn-studied", "options": options}
    return load_recipe("deepeye", {**base, **plan})


def trained(setup: Setup, plan: Recipe) -> dict[str, Any]:
    """Train a head and score it; how far training clips are known, too."""
    torch.manual_seed(plan.training.seed)
    started = time.perf_counter()
    head = build_head(plan.head, setup.extractor.feature_shape, len(setup.table.labels))
    fit_head(setup, plan, head)
    truth = setup.prepared.val.targets.argmax(1)
    parameters = sum(p.numel() for p in head.parameters())
    figures = figures_of(probabilities(setup, plan, head), truth)
    return {**figures, "parameters": parameters, "seconds": round(time.perf_counter() - started, 1)}


def table(found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """A row each: mean and deviation over seeds."""
    rows = []
    for (data, name), runs in found.items():
        values = [100 * run["accuracy"] for run in runs]
        spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        rows.append((data, name, f"{statistics.mean(values):.1f}", spread, f"{runs[0]['parameters']:,}",
                     str(runs[0]["scored"])))  # fmt: skip
    return text_table(rows, ("set", "", "accuracy", "sd", "parameters", "scored"), "llrrrr")


if __name__ == "__main__":
    main()
