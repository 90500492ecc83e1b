"""None of these: false events where none of the classes is shown, with ``--none`` and without, on the int8 files.

The model of each set is trained twice by `vidlet train`, as it is and with `--none`, a folder of half of the people or
scenes of the other sets. Both files then see clips of the others: the other halves (``known kinds``), and sets of which
nothing was trained on (--unseen). An event is a segment that `vidlet predict` tells, at the threshold that it uses;
recall is the share of test clips that are named rightly at that threshold. Finished runs are not repeated.

    cd ../shared/data && python none.py egogestar weizmann_actions:3 yoga6:4 --unseen shrec_depth_gestures \\
        miracl_vc1_lips/words
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vidlet.datasets import Clip, read_table
from vidlet.reports import text_table
from vidlet.runtime import Model, load, predict_timeline

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import TRAINED, Row, add_option, figure, save

SHIPPED = "model.int8.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="DATA[:FOLDS]", help="fold 0 of so many; without: the own splits")
    parser.add_argument("--unseen", nargs="*", type=Path, default=[], metavar="DATA", help="sets that only test")
    parser.add_argument("--recipe", default="auto")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of other sets that a file sees, half of them unseen"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/none"))
    add_option(parser)
    args = parser.parse_args()
    sets = [(Path(text.partition(":")[0]), int(text.partition(":")[2] or 0)) for text in args.data]
    halves = {data: by_half(list(read_table(data))) for data, _ in sets}
    unseen = {data: list(read_table(data)) for data in args.unseen}
    rows = []
    for data, folds in sets:
        others = [halves[other] for other, _ in sets if other != data]
        folder = linked(args.out / f"background-{data.name}", [clip for half, _ in others for clip in half])
        known = some([rest for _, rest in others], 30 * args.minutes)
        new = some(list(unseen.values()), 30 * args.minutes)
        for none in (None, folder):
            run = train(args.out, data, folds, args.recipe, none)
            model = load(run / SHIPPED, threads=1)
            counted = [false_events(model, clips) for clips in (known, new)]
            named, clips, hits = recall(run, model.threshold)
            cells = [
                f"{3600 * events / seconds:.0f} ({events} in {seconds / 60:.0f} min)" for events, seconds in counted
            ]
            what = "with" if none else "without"
            rows.append([data.name, what, f"{model.threshold:.2f}", *cells, f"{named:.1f}", f"{hits:.1f}", str(clips)])
            print(rows[-1], file=sys.stderr, flush=True)
            kept = {"threshold": figure(model.threshold), "recall": figure(named / 100), "accuracy": figure(hits / 100)}
            for kind, (events, seconds) in zip(("known kinds", "unseen"), counted, strict=True):
                kept |= {kind: figure(3600 * events / seconds), f"{kind}, events": figure(events)}
            row = Row(f"{data.name}, {f'fold 0 of {folds}' if folds else 'own split'}, {what}", kept, [0], clips)
            save(args, "none", [row], (*TRAINED, "live"))
    columns = [
        "set",
        "--none",
        "threshold",
        "known kinds, an hour",
        "unseen kinds, an hour",
        "recall",
        "accuracy",
        "clips",
    ]
    print(text_table(rows, columns, "llrrrrrr"))


def by_half(clips: list[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips of half of the groups, and of the others."""
    groups = sorted({clip.group for clip in clips})
    random.Random(0).shuffle(groups)
    first = set(groups[: len(groups) // 2])
    return [clip for clip in clips if clip.group in first], [clip for clip in clips if clip.group not in first]


def linked(folder: Path, clips: Sequence[Clip]) -> Path:
    """A folder of links to videos."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(clips):
        link = folder / f"{number:04d}-{clip.path.name}"
        if not link.is_symlink():
            link.symlink_to(clip.path.resolve())
    return folder


def some(sets: Sequence[Sequence[Clip]], seconds: float) -> list[Clip]:
    """About so many seconds of clips, alike of each set; clips are a few seconds long."""
    from vidlet.video import probe

    found = []
    for clips in sets:
        left = seconds / len(sets)
        for clip in random.Random(0).sample(list(clips), len(clips)):
            if left <= 0:
                break
            left -= probe(clip.path).duration_s
            found.append(clip)
    return found


def train(out: Path, data: Path, folds: int, recipe: str, none: Path | None) -> Path:
    """One training in a process of its own, unless it is finished; its folder."""
    run = out / f"{data.name}-{Path(recipe).stem}-{'with' if none else 'without'}"
    if (run / "report.html").exists():
        return run
    command = [
        sys.executable,
        "-m",
        "vidlet.cli",
        "train",
        str(data),
        "--recipe",
        recipe,
        "--out",
        str(run),
        "--resume",
    ]
    command += ["--fold", f"0/{folds}"] if folds else []
    subprocess.run([*command, *(["--none", str(none)] if none else [])], check=True)
    return run


def false_events(model: Model, clips: Sequence[Clip]) -> tuple[int, float]:
    """Segments that are told in clips which show none of the classes, and the seconds looked at."""
    found = [predict_timeline(model, clip.path) for clip in clips]
    return sum(len(timeline.segments) for timeline in found), max(sum(timeline.duration_s for timeline in found), 1e-9)


def recall(run: Path, threshold: float) -> tuple[float, int, float]:
    """Of a run's test clips: percent named rightly at a threshold, how many there are, percent named rightly at all."""
    with (run / "predictions.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["file"] == SHIPPED]
    right = [row["label"] == row["predicted"] for row in rows]
    sure = [float(row["score"]) >= threshold for row in rows]
    assert len(rows) == json.loads((run / "metrics.json").read_text())["files"][SHIPPED]["clips"]
    return (
        100 * sum(r and s for r, s in zip(right, sure, strict=True)) / len(rows),
        len(rows),
        100 * sum(right) / len(rows),
    )


if __name__ == "__main__":
    main()
