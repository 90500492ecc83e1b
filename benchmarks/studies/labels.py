"""Wrong labels: of labels flipped at random, how many are among the first of those that `vidlet data --labels` doubts.

In each set a share of the clips gets another label, drawn at random with the seed; the list is then made as the command
makes it. ``found`` is the share of the flipped that are among the first tenth of the clips by doubt, ``first`` how many
of as many places as there are flipped labels are flipped ones.

    python benchmarks/studies/labels.py ../shared/data/egogestar ../shared/data/weizmann_actions ../shared/data/yoga6
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from pathlib import Path

from vidlet.datasets import read_table
from vidlet.reports import text_table
from vidlet.tasks.label_check import doubts_in_data

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import Row, add_option, figure, save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.05)
    add_option(parser)
    args = parser.parse_args()
    rows = []
    for data in args.data:
        found = [one(data, args.share, seed) for seed in args.seeds]
        flipped, listed, tenth, first = (sum(column) for column in zip(*found, strict=True))
        each = ", ".join(f"{100 * f[2] / f[0]:.0f}" for f in found)
        told = [f"{100 * tenth / flipped:.0f}", each, f"{100 * first / flipped:.0f}", str(listed // len(found))]
        rows.append([data.name, str(flipped), *told])
        print(rows[-1], flush=True)
        kept = {"tenth": figure(tenth / flipped), "each seed": figure(each), "first": figure(first / flipped)}
        command = f"python benchmarks/studies/labels.py {data} --seeds {' '.join(map(str, args.seeds))}"
        command += f" --share {args.share:g}"
        row = Row(data.name, {"flipped": figure(flipped), **kept}, args.seeds, len(read_table(data)), command)
        save(args, "labels", [row], ("video", "datasets", "features", "models", "selection", "tasks"))
    print(text_table(rows, ["set", "flipped, all seeds", "found, %", "each seed", "first, %", "listed"], "lrrrrr"))


def one(data: Path, share: float, seed: int) -> tuple[int, int, int, int]:
    """Of one draw: labels flipped, clips listed, flipped ones in the list, and among as many places as are flipped."""
    table, drawn = read_table(data), random.Random(seed)
    wrong = {str(clip.path.resolve()) for clip in drawn.sample(table.clips, round(share * len(table)))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.csv"
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["path", "label", "group"])
            for clip in table:
                place, label = str(clip.path.resolve()), clip.label
                if place in wrong:
                    label = drawn.choice([name for name in table.labels if name != label])
                writer.writerow([place, label, clip.group])
        listed = [str(Path(found["path"]).resolve()) for found in doubts_in_data(path)]
    hits = [place in wrong for place in listed]
    return len(wrong), len(listed), sum(hits), sum(hits[: len(wrong)])


if __name__ == "__main__":
    main()
