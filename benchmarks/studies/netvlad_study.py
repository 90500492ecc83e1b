"""K clusters against H hidden units: NetVLAD of many sizes on the built-in records, and how many of them to ship.

The study of Liu and Liu 2018 in small: a grid of K x H in float16, models that a smaller one equals or beats dropped,
H against K at equal bytes, and the best ensemble of 1, 2, 3 ... members under a limit of bytes. Checkpoints, and what
is dropped or joined, are chosen on the validation records; every figure is of files, on the test records.

    python benchmarks/studies/netvlad_study.py --seeds 0 1 2 --out study.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frame_features import LIMIT, STEPS, recipe_of

from vidlet.compression import Trained, find_chain
from vidlet.datasets.residual import render_residual
from vidlet.metrics import gap
from vidlet.models import build_head
from vidlet.reports import text_table
from vidlet.runtime import load
from vidlet.tasks.clip_networks import Workshop
from vidlet.tasks.clips import labelled_clips, score_clips
from vidlet.tasks.prepare_records import extractor_for, prepare_clips, recipe_for
from vidlet.training import ClipNetwork, train_network

MOST_MEMBERS = 5
ALIKE = 0.12  # bytes that differ by less than this share are called equal


def main() -> None:
    """Train what is not yet in --out, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clusters", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--clips", type=int, nargs=3, default=[6000, 1500, 1500], help="train, validation, test")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes of an ensemble (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/netvlad_study.jsonl"), help="a line a finished seed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    names = [f"K{k}-H{h}" for k in args.clusters for h in args.hidden]
    for seed in args.seeds:
        if not any(row["seed"] == seed and list(row["models"]) == names for row in known):
            known.append({"seed": seed, **one_seed(seed, names, args)})
            with args.out.open("a") as sink:
                sink.write(json.dumps(known[-1]) + "\n")
    print(report([row for row in known if row["seed"] in args.seeds and list(row["models"]) == names]))


def one_seed(seed: int, names: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """Bytes and GAP of every model of one world, and of the best ensembles of each number of members."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        render_residual(folder, *args.clips, seed=seed, classes=60)
        table = labelled_clips(folder, stored=True)
        parts = {split: table.of_split(split) for split in ("val", "test")}
        models: dict[str, dict[str, Any]] = {}
        scores: dict[str, dict[str, np.ndarray]] = {}
        truth: dict[str, np.ndarray] = {}
        prepared = None
        for name in names:
            plan = recipe_for(recipe_of(name, seed, args.steps, args.clips[0], ("half",)), table)
            extractor = extractor_for(plan, table)
            prepared = prepared or prepare_clips(plan, table, extractor, strict=True)
            torch.manual_seed(seed)
            head = build_head(plan.head, extractor.feature_shape, len(table.labels))
            train_network(
                ClipNetwork(head), prepared.train, prepared.val, plan.training, folder / name, multi_label=True,
                moments=prepared.moments,
            )  # fmt: skip
            path = folder / f"{name}.onnx"
            Workshop(plan, table, prepared, extractor).write(Trained(extractor, head), find_chain("half"), path)
            model = load(path, threads=1)
            scores[name] = {}
            for split, clips in parts.items():
                scored = score_clips(model, clips, strict=True)
                scores[name][split] = scored.scores
                truth[split] = scored.truth > 0.5
            found = {split: gap(scores[name][split], truth[split]) for split in parts}
            models[name] = {"bytes": path.stat().st_size, **found}
            print(seed, name, models[name], flush=True)
    kept = not_dominated(models)
    return {"models": models, "kept": kept, "ensembles": ensembles(kept, models, scores, truth, args.limit)}


def not_dominated(models: dict[str, dict[str, Any]]) -> list[str]:
    """Models that none of at most their bytes equals or beats on the validation records."""

    def beaten(name: str) -> bool:
        own = models[name]
        return any(m["bytes"] <= own["bytes"] and m["val"] >= own["val"] for n, m in models.items() if n != name)

    return [name for name in models if not beaten(name)]


def ensembles(
    kept: Sequence[str],
    models: dict[str, dict[str, Any]],
    scores: dict[str, dict[str, np.ndarray]],
    truth: dict[str, np.ndarray],
    limit: int,
) -> dict[int, dict[str, Any]]:
    """For each number of members the best mean of probabilities whose bytes fit, chosen on validation records.

    Any models may join, not only the ones that are ``kept``: those that fit a few times into the limit are small.
    """
    found: dict[int, dict[str, Any]] = {}
    for count in range(1, MOST_MEMBERS + 1):
        best: tuple[float, tuple[str, ...]] = (-1.0, ())
        for own in itertools.combinations(models, count):
            if sum(models[name]["bytes"] for name in own) <= limit:
                mean = np.mean([scores[name]["val"] for name in own], axis=0)
                best = max(best, (gap(mean, truth["val"]), own))
        if best[1]:
            test = gap(np.mean([scores[name]["test"] for name in best[1]], axis=0), truth["test"])
            size = sum(models[name]["bytes"] for name in best[1])
            found[count] = {"members": best[1], "bytes": size, "val": best[0], "test": test}
    return found


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The three tables over all seeds."""
    names = list(rows[0]["models"])
    sizes = {name: rows[0]["models"][name]["bytes"] for name in names}
    mean = {name: statistics.mean(row["models"][name]["test"] for row in rows) for name in names}
    lines = [
        (name, f"{sizes[name]:,}", f"{mean[name]:.4f}", f"{sum(name in row['kept'] for row in rows)} of {len(rows)}")
        for name in sorted(names, key=lambda name: sizes[name])
    ]
    parts = [text_table(lines, ("model", "bytes float16", "GAP@20", "not dominated"), "lrrr")]
    more = [(a, b) for a, b in itertools.permutations(names, 2) if _more_hidden(a, b, sizes)]
    wins = [row["models"][a]["test"] > row["models"][b]["test"] for a, b in more for row in rows]
    gains = [mean[a] - mean[b] for a, b in more]
    if more:
        parts.append(
            f"H against K, {len(more)} pairs of bytes within {ALIKE:.0%}: more H is better in {sum(wins)} of "
            f"{len(wins)}, by {statistics.mean(gains):+.4f} in the mean"
        )
    lines = []
    for count in range(1, MOST_MEMBERS + 1):
        own = [row["ensembles"][key] for row in rows for key in row["ensembles"] if int(key) == count]
        if own:
            tests = [item["test"] for item in own]
            lines.append(
                (
                    count,
                    f"{statistics.mean(tests):.4f}",
                    " ".join(f"{t:.4f}" for t in tests),
                    ", ".join(own[0]["members"]),
                )
            )
    parts.append(text_table(lines, ("members", "GAP@20", "seeds", "chosen of the first seed"), "rrll"))
    return "\n\n".join(parts)


def _more_hidden(a: str, b: str, sizes: dict[str, int]) -> bool:
    """Whether ``a`` has more hidden units and fewer clusters than ``b``, at about equal bytes."""
    (ka, ha), (kb, hb) = ([int(n) for n in re.findall(r"\d+", name)] for name in (a, b))
    return ha > hb and ka < kb and abs(sizes[a] - sizes[b]) <= ALIKE * max(sizes[a], sizes[b])


if __name__ == "__main__":
    main()
