"""Few clips: 5, 10, 20, 50 clips a class to learn from; `auto`, the default before it, the best plain classifier.

All three see the same stored features (float32, no file) of the same clips, drawn with the seed from those that do not
test. `auto` is the decision of the recipe at its own rate of 8 frames a second; plain are the linear classifiers that
every run solves, on the features of the whole network and on those that `auto` chose: the best of them in hindsight.

    python benchmarks/studies/few.py ../shared/data/egogestar ../shared/data/miracl_vc1_lips/words:5 --clips 5 10 20
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vidlet.artifact import extractor_graph
from vidlet.datasets import Clip, ClipTable, group_folds, read_table, with_splits
from vidlet.features import Extracted, extract
from vidlet.files import cache_folder
from vidlet.models import build_extractor, build_head
from vidlet.models.head import flat_size
from vidlet.recipe import Head, Recipe, load_recipe
from vidlet.reports import text_table
from vidlet.selection import Pool, decide
from vidlet.selection.baselines import measure_baselines
from vidlet.selection.decide import training_of
from vidlet.tasks.auto import held_out
from vidlet.tasks.prepare import moments, targets_of
from vidlet.training import ClipNetwork, FeatureClips, predict_logits, train_network

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Row, add_option, figure, save

BEFORE = "mobilenetv2-grid-gru"
SCORED = 20  # test clips a class, at most
Part = tuple[np.ndarray, tuple[int, ...]]  # columns of a frame's features, and their shape


@dataclass(frozen=True)
class Stored:
    """A set's clips and the features of all cuts, side by side."""

    table: ClipTable
    found: Extracted
    places: dict[str, Part]

    def clips(self, rows: Sequence[int], part: Part) -> FeatureClips:
        """Some clips with some of the features."""
        columns, shape = part

        def read(i: int) -> np.ndarray:
            whole = self.found.store.read(str(self.found.keys[rows[i]])).features
            return np.ascontiguousarray(whole[:, columns]).reshape(len(whole), *shape)

        _, spread = moments(map(read, range(len(rows))))
        chosen = self.of(rows)
        targets = targets_of(chosen, self.table.labels)
        return FeatureClips(read, targets, [clip.path.name for clip in chosen], spread)

    def of(self, rows: Sequence[int]) -> list[Clip]:
        return [self.table.clips[row] for row in rows]

    @property
    def whole(self) -> Part:
        columns = np.concatenate([columns for columns, _ in self.places.values()])
        return columns, (len(columns),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="DATA[:FOLDS]", help="the first of FOLDS tests; else the own split")
    parser.add_argument("--clips", type=int, nargs="+", default=[5, 10, 20, 50], help="training clips a class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    add_option(parser)
    args = parser.parse_args()
    rows = []
    for data in args.data:
        stored = features(data)
        for count in args.clips:
            row = measured(args, data, stored, count)
            save(args, "few", [row], TRAINED)
            shown = [f"{100 * row.figures[key]['value']:.1f}" for key in ("auto", "before", "plain")]
            rows.append([*row.name.split(", "), str(row.clips), *shown, row.figures["which"]["value"]])
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(text_table(rows, ["set", "split", "learned from", "clips", "auto", BEFORE, "plain", "which"], "lllrrrrl"))


def features(data: str) -> Stored:
    """The features of all clips of a set, computed or from the store."""
    path, _, folds = data.partition(":")
    table = group_folds(read_table(path), int(folds))[0] if folds else with_splits(read_table(path))
    plan = load_recipe("auto")
    extractor = build_extractor(plan.extractor)
    graph = extractor_graph(extractor).SerializeToString(deterministic=True)
    found = extract(table, graph, plan.sampling, extractor.input_size, cache_folder("features"))
    places = {
        cut: (np.arange(begin, begin + flat_size(shape)), tuple(shape))
        for cut, (begin, shape) in extractor.places().items()
    }
    return Stored(table, found, places)


def measured(args: argparse.Namespace, data: str, stored: Stored, count: int) -> Row:
    """What each way reaches with so many clips a class: the mean over the seeds."""
    path, _, folds = data.partition(":")
    place = Path(path)
    named = place.name if place.parent.name == "data" else f"{place.parent.name} {place.name}"
    found: dict[str, list[float]] = {}
    for seed in args.seeds:
        learned, tested = drawn(stored, count, seed)
        for name, accuracy in accuracies(stored, learned, tested, seed).items():
            found.setdefault(name, []).append(accuracy)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    best = max((name for name in means if name not in ("auto", "before")), key=means.__getitem__)
    figures = {name: figure(means[name]) for name in ("auto", "before")}
    figures |= {"plain": figure(means[best]), "which": figure(best)}
    split = f"fold 0 of {folds}" if folds else "own split"
    command = f"python benchmarks/studies/few.py {data} --clips {count} --seeds {' '.join(map(str, args.seeds))}"
    return Row(f"{named}, {split}, {count} a class", figures, args.seeds, len(tested), command)


def drawn(stored: Stored, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows to learn from, drawn with the seed, and rows that test, the same for every seed."""
    table, held = stored.table, "test" if stored.table.of_split("test") else "val"
    found: tuple[list[int], list[int]] = ([], [])
    for label in table.labels:
        own = [i for i, clip in enumerate(table) if clip.label == label and stored.found.keys[i]]
        for tests, most, source in ((False, count, random.Random(seed)), (True, SCORED, random.Random(0))):
            rows = [i for i in own if (table.clips[i].split == held) == tests]
            found[tests].extend(source.sample(rows, min(most, len(rows))))
    return found


def accuracies(stored: Stored, learned: list[int], tested: list[int], seed: int) -> dict[str, float]:
    """The share of the tested clips that each way names rightly."""
    plan = load_recipe("auto", {"training.seed": seed})
    clips = stored.of(learned)
    whole = stored.clips(learned, stored.whole)
    held = held_out(stored.table, clips)
    begins = {cut: (int(columns[0]), shape) for cut, (columns, shape) in stored.places.items()}
    pool = Pool(whole, whole.targets.astype(np.float64), begins, held)
    scale = moments(map(whole.read, range(len(whole))))
    decision = decide(pool, plan, scale)
    members = [m.candidate for m in decision.choice.members]
    chosen = decision.recipe(plan, False, training_of(members, len(learned)))
    own = decision.own_places()
    shape = own[decision.cuts[0]][1] if len(own) == 1 else (len(decision.columns()),)
    part = (decision.columns(), tuple(shape))
    train, test = stored.clips(learned, part), stored.clips(tested, part)
    found = {"auto": trained(chosen.head, chosen, train, train, test)}
    by_rule = with_splits(stored.table.with_clips(replace(clip, split="train") for clip in clips), seed)
    rows = {s: [learned[i] for i, clip in enumerate(by_rule) if clip.split == s] for s in ("train", "val")}
    before = load_recipe(BEFORE, {"training.seed": seed})
    grid = stored.places[before.extractor.cut]
    found["before"] = trained(
        before.head, before, *(stored.clips(r, grid) for r in (rows["train"], rows["val"], tested))
    )
    head = stored.places["head"]
    for name, a, b in (
        ("chosen features", train, test),
        ("whole network", stored.clips(learned, head), stored.clips(tested, head)),
    ):
        found |= {
            f"{baseline.name}, {name}": baseline.accuracy
            for baseline in measure_baselines(a, held, b, False)
            if baseline.name != "chance"
        }
    return found


def trained(head: Head, plan: Recipe, train: FeatureClips, val: FeatureClips, test: FeatureClips) -> float:
    """Train a head and score it."""
    torch.manual_seed(plan.training.seed)
    network = ClipNetwork(build_head(head, tuple(train.read(0).shape[1:]), train.targets.shape[1]))
    train_network(network, train, val, plan.training, moments=moments(map(train.read, range(len(train)))))
    said = predict_logits(network, test, plan.training.batch)
    return float(test.targets[np.arange(len(said)), said.argmax(1)].mean())


if __name__ == "__main__":
    main()
