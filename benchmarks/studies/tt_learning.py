"""What tensor trains learn beside their dense forms: accuracy over seeds, bytes of the file, seconds an epoch.

    python benchmarks/studies/tt_learning.py networks ../shared/data/shrec_depth_gestures --seeds 0 1 2 --epochs 30
    python benchmarks/studies/tt_learning.py svd      ../shared/data/shrec_depth_gestures --network viva-2
    python benchmarks/studies/tt_learning.py ranks    ../shared/data/shrec_depth_gestures --ranks 2 4 8 16 32 64
    python benchmarks/studies/tt_learning.py heads    ../shared/data/shrec_depth_gestures ../shared/data/egogestar
    python benchmarks/studies/tt_learning.py layers   ../shared/data/shrec_depth_gestures

networks: the papers' 3-D CNNs, dense and in tensor-train form. svd: a trained dense network decomposed and tuned,
beside the same trains trained in place, for as many epochs in all. ranks: CNN-1 and CNN-2 on single frames of 32 x 32;
a folder with CIFAR-10's data_batch_*.bin is taken as it is. heads: TT-LSTM and TT-GRU beside plain ones, on grid
features and on pixels; the data set "motion" is drawn. layers: which layers are trains, small kernels, dropout.

Scored is the test split, or val where there is none; nothing is chosen on it: the last weights count, and what else is
not test is trained on. Accuracies are the trained network's, which the written file is held to (1e-4). ``--out`` gets
a JSON line a finished run; those that it holds are not run again. ``--clips`` trains on a share of the clips, and
scores on the same share. Seconds an epoch (the median) include scoring after each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidlet.datasets import ClipTable, render_motion
from vidlet.models import FrameExtractor, build_extractor, build_head
from vidlet.models.head import Head
from vidlet.recipe import Head as HeadRecipe
from vidlet.recipe import Recipe, parse_override, recipe_to_dict
from vidlet.reports import text_table
from vidlet.reproductions.experiment import Setup, read_setup, score, shortened, train_and_score
from vidlet.tasks.prepare import Prepared
from vidlet.tensor_train import TTConv3d, TTLinear, from_conv, from_linear
from vidlet.training import FrameClips

Options = dict[str, Any]
PIXEL_MODES = {(120, 160): [8, 20, 20, 18]}


@dataclasses.dataclass
class Case:
    """One row of a table: a recipe, and what is done with it."""

    name: str
    data: str
    plan: Recipe
    train: Callable[[Setup, Case, int], list[dict[str, Any]]] | None = None  # None: trained from scratch


def main() -> None:
    """Run what is not yet in --out, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("data", nargs="+", help="clip tables; heads: several, motion is drawn")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=float, default=1.0, help="share of the clips (%(default)s)")
    parser.add_argument("--network", nargs="+", default=[], help="networks, svd, layers, ranks: instead of the usual")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORDS", help="rows whose name holds one of these")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64, 100])
    parser.add_argument("--input", nargs="+", default=["grid", "pixels"], choices=["grid", "pixels"], help="heads")
    parser.add_argument("--layers", nargs="+", default=["lstm", "gru"], choices=["lstm", "gru"], help="heads")
    parser.add_argument("--size", type=int, nargs=2, default=[120, 160], metavar=("H", "W"), help="heads on pixels")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every recipe")
    parser.add_argument("--out", type=Path, default=Path("runs/tt_learning.jsonl"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*rank.*")  # ranks that are not attainable are lowered: meant here
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            case for case in COMMANDS[args.command](args, Path(folder)) if any(word in case.name for word in args.only)
        ]
        if not cases:
            parser.error(f"no row of {args.command} has one of {args.only} in its name")
        rows = run_all(cases, args)
    found = summary(rows)
    print(json.dumps(found) if args.json else table_text(args, found))


def plan_of(args: argparse.Namespace, name: str, **changes: Any) -> Recipe:
    """A built-in recipe, shortened, its rate falling at the same shares of the training; ``__`` in a key is a dot."""
    usual = {key.replace("__", "."): value for key, value in changes.items()}
    return shortened(name, args.epochs, usual | dict(parse_override(text) for text in args.set))


def networks(args: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """The 3-D CNNs: does the larger one lose less?"""
    for name in args.network or ["viva-1", "viva-2"]:
        for form in ("none", "both"):
            text = "dense" if form == "none" else "TT"
            yield Case(f"{name} {text}", args.data[0], clip_network(args, name, form))


def clip_network(args: argparse.Namespace, name: str, form: str, dropout: float | None = None) -> Recipe:
    """The recipe of a 3-D CNN with other layers in tensor-train form; the paper drops .5 of dense, .3 of trains."""
    base = "viva-4" if name in ("viva-4", "viva-5") else "viva-1"
    dropout = (0.5 if form in ("none", "convolutions") else 0.3) if dropout is None else dropout
    options = {"network": name, "tt": form, "dropout": dropout, "pixel_drop": 0.5}
    return plan_of(args, base, head__options=options)


def svd(args: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """TT-SVD and tuning, or training in place: a dense network, its trains as they fall out, tuned, and in place."""
    for name in args.network or ["viva-1", "viva-2"]:
        yield Case(name, args.data[0], clip_network(args, name, "none"), decompose_and_tune)


def ranks(args: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """The rank sweep, the dense line first."""
    for name in args.network or ["cnn-1", "cnn-2"]:
        for rank in [0, *args.ranks]:
            options = {"network": name, "tt": "convolutions" if rank else "none", "rank": rank}
            plan = plan_of(
                args, "viva-1", head={"name": "frame-network", "options": options},
                extractor={"name": "pixels", "input_size": [32, 32], "cut": "rgb", "grid": 0, "weights": "none"},
                sampling={"rule": "uniform", "frames": 1}, training__batch=64, training__lr=0.05,
                training__weight_decay=5e-4, training__augment={"shift": 0.1, "zoom": 0.1},
            )  # fmt: skip
            yield Case(f"{name} {f'rank {rank}' if rank else 'dense'}", args.data[0], plan)


def heads(args: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Recurrent heads, plain and as trains, on features and on pixels."""
    for given in args.data:
        data = str(folder / "motion") if given == "motion" else given
        if given == "motion":
            render_motion(data, clips=400, seed=0)
        for where in args.input:
            for layer in args.layers:
                for form in ("plain", "input in TT", "both in TT"):
                    plan = grid_head(args, layer, form) if where == "grid" else pixel_head(args, layer, form)
                    yield Case(f"{where}, {layer}, {form}", data, plan)


def recurrent(layer: str, form: str, in_modes: list[int]) -> Options:
    """256 units; the plain form is the same head, standardized and dropped out alike, with two dense matrices."""
    ranks = {"plain": ([], []), "input in TT": ([4], []), "both in TT": ([4], [4])}[form]
    options: Options = {"out_modes": [4, 4, 4, 4], "ranks": ranks[0], "recurrent_ranks": ranks[1]}
    return {"name": f"tt-{layer}", "options": options | ({"in_modes": in_modes} if in_modes else {})}


def grid_head(args: argparse.Namespace, layer: str, form: str) -> Recipe:
    """On the default's 96 x 4 x 4 features."""
    return plan_of(args, "tt-lstm-grid", head=recurrent(layer, form, [6, 8, 8, 4]))


def pixel_head(args: argparse.Namespace, layer: str, form: str) -> Recipe:
    """On 6 frames; a plain one trains at a tenth of the rate, as its recipe."""
    head = recurrent(layer, form, PIXEL_MODES.get(tuple(args.size), []))
    base = "lstm-pixels" if form == "plain" else "tt-lstm-pixels"
    return plan_of(args, base, head=head, extractor__input_size=list(args.size))


def layers(args: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """What of a network is in tensor-train form; small kernels; dropout under tensor trains."""
    data, first = args.data[0], (args.network or ["viva-1"])[0]
    for form, text in {"none": "dense", "linear": "linear", "convolutions": "convolutions", "both": "both"}.items():
        yield Case(
            f"{first}: {text} in TT" if form != "none" else f"{first}: dense", data, clip_network(args, first, form)
        )
    for name in ("viva-2", "viva-2-stacks"):
        for form in ("none", "both"):
            yield Case(f"{name} {'TT' if form == 'both' else 'dense'}", data, clip_network(args, name, form))
    for form, name in (("none", "dense"), ("both", "TT")):  # the paper drops more of dense layers: each with each
        for dropout in (0.0, 0.15, 0.3, 0.5):
            text = f"dropout {dropout:g}" if dropout else "no dropout"
            yield Case(f"{first} {name}, {text}", data, clip_network(args, first, form, dropout))


COMMANDS = {"networks": networks, "svd": svd, "ranks": ranks, "heads": heads, "layers": layers}


def run_all(cases: list[Case], args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of all runs, those of --out as they stand."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            row = json.loads(line)
            known[row["key"]].append(row)
    rows: list[dict[str, Any]] = []
    ready: tuple[str, Setup] | None = None
    for case in cases:  # cases that see the same clips stand together: only one set is in memory
        for seed in args.seeds:
            plan = dataclasses.replace(case.plan, training=dataclasses.replace(case.plan.training, seed=seed))
            data = Path(case.data).name
            key = json.dumps([args.command, case.name, data, args.clips, recipe_to_dict(plan)], sort_keys=True)
            if key not in known:
                seen = json.dumps([case.data, recipe_to_dict(plan)["sampling"], recipe_to_dict(plan)["extractor"],
                                   plan.training.mode, plan.training.augment.get("redraw")])  # fmt: skip
                if ready is None or ready[0] != seen:
                    ready = None  # free the memory first
                    ready = (seen, prepare(case.data, plan, args.clips))
                done = (case.train or from_scratch)(ready[1], dataclasses.replace(case, plan=plan), seed)
                known[key] = [{**row, "data": data, "seed": seed, "key": key} for row in done]
                with args.out.open("a") as sink:
                    sink.writelines(json.dumps(row) + "\n" for row in known[key])
            rows += known[key]
    return rows


def prepare(data: str, plan: Recipe, share: float) -> Setup:
    """Clips of a table, or the pictures of CIFAR-10."""
    if list(Path(data).glob("data_batch_*.bin")):
        return cifar(Path(data), plan, build_extractor(plan.extractor), share)
    return read_setup(data, plan, share)


def cifar(folder: Path, plan: Recipe, extractor: FrameExtractor, share: float) -> Setup:
    """CIFAR-10 in its binary form: a byte of the class and 3 x 32 x 32 of the picture, each picture a clip."""
    parts = {"train": sorted(folder.glob("data_batch_*.bin")), "val": [folder / "test_batch.bin"]}
    made: dict[str, FrameClips] = {}
    for split, files in parts.items():
        raw = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])
        raw = raw[: max(2, round(share * len(raw)))]
        pictures = raw[:, 1:].reshape(-1, 1, 3, 32, 32).transpose(0, 1, 3, 4, 2)  # (N, 1, 32, 32, 3)
        targets = np.eye(10, dtype=np.float32)[raw[:, 0]]
        made[split] = FrameClips(pictures.__getitem__, targets, [str(i) for i in range(len(raw))], 1)
    table = ClipTable((), tuple(str(k) for k in range(10)), folder)
    return Setup(table, extractor, Prepared(made["train"], made["val"], (), 1.0), made["val"].read(0).repeat(4, 0))


def from_scratch(setup: Setup, case: Case, seed: int) -> list[dict[str, Any]]:
    """Train one network."""
    torch.manual_seed(seed)
    head = build_head(case.plan.head, setup.extractor.feature_shape, len(setup.table.labels))
    return [trained_row(case.name, setup, case.plan, head)]


def decompose_and_tune(setup: Setup, case: Case, seed: int) -> list[dict[str, Any]]:
    """A dense network; its TT-SVD untuned, tuned for as long, and tuned from its norm; in place, as long as both."""
    torch.manual_seed(seed)
    shape, classes = setup.extractor.feature_shape, len(setup.table.labels)
    dense = build_head(case.plan.head, shape, classes)
    rows = [trained_row(f"{case.name} dense", setup, case.plan, dense)]
    near, scaled = decomposed(setup, case, dense, False), decomposed(setup, case, dense, True)
    rows.append({"name": f"{case.name} TT-SVD, not tuned", **score(setup, case.plan, near)})
    rows.append(trained_row(f"{case.name} TT-SVD, tuned", setup, case.plan, near))
    rows.append(trained_row(f"{case.name} TT-SVD at the norm of the dense, tuned", setup, case.plan, scaled))
    fresh = decomposed(setup, case, dense, None)  # as many numbers: the ranks that the decomposition attains
    long = with_epochs(case.plan, 2 * case.plan.training.epochs, case.plan.training.lr)
    return [*rows, trained_row(f"{case.name} in place", setup, long, fresh)]


def decomposed(setup: Setup, case: Case, dense: Head, keep_norm: bool | None) -> Head:
    """The case's network in tensor-train form, its trains the nearest to a dense one's layers; None: all drawn anew."""
    dropout = min(0.3, case.plan.head.options["dropout"])  # the paper drops .5 of dense layers, .3 of trains
    options = {**case.plan.head.options, "tt": "both", "dropout": dropout}
    small = build_head(HeadRecipe("clip-network", options), setup.extractor.feature_shape, len(setup.table.labels))
    kept = {key: v for key, v in dense.state_dict().items() if key in small.state_dict() and keep_norm is not None}
    small.load_state_dict(kept, strict=False)
    for name, layer in list(small.named_modules()):
        if isinstance(layer, TTConv3d | TTLinear):
            build = from_conv if isinstance(layer, TTConv3d) else from_linear
            trained: Any = dense.get_submodule(name)
            ranks = list(layer.ranks[1:-1])
            made = build(trained, layer.in_modes, layer.out_modes, ranks, name=name, keep_norm=bool(keep_norm))
            if keep_norm is None:
                made.variance = layer.variance
                made.reset_parameters()
            parent, _, last = name.rpartition(".")
            setattr(small.get_submodule(parent), last, made)
    return small


def with_epochs(plan: Recipe, epochs: int, lr: float) -> Recipe:
    """The same training, longer or shorter."""
    steps = max(1, round(0.3 * epochs))
    return dataclasses.replace(
        plan,
        training=dataclasses.replace(
            plan.training, epochs=epochs, lr=lr, schedule=dataclasses.replace(plan.training.schedule, step_epochs=steps)
        ),
    )


def trained_row(name: str, setup: Setup, plan: Recipe, head: Head) -> dict[str, Any]:
    """Train a head, then score and write it."""
    return {"name": name, **train_and_score(setup, plan, head)}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each case: mean and deviation over its seeds."""
    by_case: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_case[row["data"], row["name"]].append(row)
    found = []
    for (data, name), runs in by_case.items():
        accuracies = [run["accuracy"] for run in runs]
        found.append(
            {
                "data": data,
                "name": name,
                "accuracy": statistics.mean(accuracies),
                "sd": statistics.stdev(accuracies) if len(runs) > 1 else None,
                "seeds": len(runs),
                "parameters": runs[0]["parameters"],
                "bytes": max(run["bytes"] for run in runs),
                "epoch_s": statistics.median(run["epoch_s"] for run in runs),
                "scored": runs[0]["scored"],
            }
        )
    return found


def table_text(args: argparse.Namespace, found: list[dict[str, Any]]) -> str:
    """The table for people."""
    rows = [
        [
            f"{row['data']}: {row['name']}", f"{row['accuracy']:.3f}", "" if row["sd"] is None else f"{row['sd']:.3f}",
            str(row["seeds"]), f"{row['parameters']:,}", f"{row['bytes']:,}", f"{row['epoch_s']:.1f}",
        ]
        for row in found
    ]  # fmt: skip
    what = f"{args.command}: {args.epochs} epochs, {args.clips:g} of the clips, {found[0]['scored']} scored"
    columns = ["", "accuracy", "sd", "seeds", "parameters", "bytes", "s an epoch"]
    return f"{what}\n{text_table(rows, columns, 'lrrrrrr')}"


if __name__ == "__main__":
    main()
