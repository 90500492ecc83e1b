"""The whole story on the built-in data: render, train, export, quantize, score the files, report, annotate a video."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import MOTION_PAIRS, ClipTable, read_table, render_motion
from ..errors import DataError
from ..files import write_text
from ..progress import bar, hushed, say, working
from ..recipe import Averaging, Head, Sampling, Training, load_recipe, recipe_to_dict
from ..reports import Column, Section, bytes_text, interval_text, rate_text, table
from ..reports.charts import interval_bar
from ..reports.page import insert_section
from ..runs import EXTRACTOR, MODEL, REPORT, RunFolder, keep_ready
from ..runs.ready import MOTION
from ..runtime import load, predict_timeline
from ..tasks.predictions import save_annotated
from ..video import probe, stream_clip, write_video
from ..wording import as_json
from .train import train

BASELINES = {
    "single frame": Head("single", {"units": 128}),
    "mean over time": Head("mean", {"units": 128}),
}

CLIPS = 480
SETTINGS = "demo_settings.json"
SEQUENCE_FPS = 30.0


def demo(out: str | Path, clips: int = CLIPS, epochs: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Leave in ``out`` a folder of clips, a run with its report, two baselines and an annotated video.

    Returns:
        {"out", "files", "metrics"}; metrics["table"] has a row a model: accuracy, accuracy within pairs, bytes, ms.
    """
    started = time.monotonic()
    folder = Path(out)
    recipe = load_recipe("tiny-grid-gru", {"training.seed": seed, **({"training.epochs": epochs} if epochs else {})})
    settings = json.dumps({"clips": clips, "seed": seed, "recipe": recipe_to_dict(recipe)})
    data = folder / "clips"
    if _text(folder / SETTINGS) != settings:
        if (folder / SETTINGS).exists():  # an earlier demo of ours, with other clips or another recipe
            shutil.rmtree(folder)
        elif folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder}: is not empty and not an earlier demo; choose another --out")
        say(f"render {clips} clips of the motion set into {data}")
        with bar("render") as move:
            render_motion(data, clips=clips, seed=seed, progress=move)
        write_text(folder / SETTINGS, settings)
    clips_read = read_table(data)
    runs = {"grid GRU": train(data, recipe, folder, resume=True, command=f"vidlet demo --clips {clips} --seed {seed}")}
    frozen = Training(mode="frozen", epochs=40, batch=32, lr=2e-3, seed=seed, averaging=Averaging(0.98))
    for name, head in BASELINES.items():
        plan = replace(
            recipe,
            name=f"demo-{head.name}",
            head=head,
            training=frozen,
            compress=(),
            extractor=replace(recipe.extractor, weights=str(folder / EXTRACTOR)),
        )
        say(f"for comparison, the same network blind to the order of frames: {name}")
        with hushed():
            runs[name] = train(data, plan, folder / "baselines" / head.name, resume=True, command="vidlet demo")
    rows = [_row(name, run, MODEL) for name, run in runs.items()]
    rows.insert(1, _row("grid GRU, int8", runs["grid GRU"], "model.int8.onnx"))
    insert_section(folder / REPORT, _lesson(rows), before="files-compared")
    with working("annotate a video"):
        _annotate(folder, clips_read)
    metrics = {"table": rows, "seconds": round(time.monotonic() - started, 1), **_only_main(runs["grid GRU"])}
    write_text(folder / "demo.json", as_json(metrics, indent=1))
    if (clips, epochs) == (CLIPS, None):  # what was trained as it should be can be called by its name from now on
        keep_ready(MOTION, folder / "model.int8.onnx")
    say(f"{folder}: everything made and measured in {metrics['seconds']:.0f} s")
    return RunFolder(folder).result(metrics)


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def _row(name: str, run: Mapping[str, Any], file: str) -> dict[str, Any]:
    figures = run["metrics"]["files"][file]
    names = list(figures["per_class"])
    return {
        "model": name,
        "accuracy": figures["accuracy"],
        "accuracy_interval": figures["accuracy_interval"],
        "within_pairs": within_pairs(np.array(figures["confusion"]), names),
        "bytes": run["metrics"]["bytes"][file],
        "clip_ms": figures["clip_ms"],
    }


def _lesson(rows: Sequence[Mapping[str, Any]]) -> Section:
    """What the demo shows: who is blind to the order of frames cannot tell a movement from its reverse."""
    shown = []
    for row in rows:
        told, low_high = interval_text(row["accuracy_interval"]), tuple(row["accuracy_interval"])
        accuracy = [rate_text(row["accuracy"]), interval_bar(row["accuracy"], low_high, 1 / 8, told)]
        direction = rate_text(row["within_pairs"])
        within = [direction, interval_bar(row["within_pairs"], None, 1 / 2, direction)]
        shown.append([row["model"], *accuracy, *within, bytes_text(row["bytes"])])
    columns = [Column("Model"), Column("Accuracy", "number"), Column("0 to 100 %")]
    columns += [Column("Right direction", "number"), Column("0 to 100 %"), Column("Size", "number")]
    lead = (
        "The eight classes are four pairs; in a pair, each class is the other played backwards. Right direction: of "
        "the clips put into the right pair, the share with the right one of the two. Who sees single frames, or their "
        "mean, can only guess it: the dashed ticks mark guessing."
    )
    return Section("The lesson: order", table(columns, shown, "The model and two that are blind to order"), lead)


def within_pairs(confusion: np.ndarray, names: list[str]) -> float:
    """Of the clips that were put into the right pair, the fraction with the right direction of time."""
    right = wrong = 0
    for a, b in MOTION_PAIRS:
        i, j = names.index(a), names.index(b)
        right += confusion[i, i] + confusion[j, j]
        wrong += confusion[i, j] + confusion[j, i]
    return float(right / max(1, right + wrong))


def _only_main(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: run["metrics"][key] for key in ("accuracy", "accuracy_interval", "split")}


def _annotate(folder: Path, table: ClipTable) -> None:
    """The longest test clip of each class, one after the other, as a video; then the same with its timeline on it."""
    seconds = {clip: probe(clip.path).duration_s for clip in table.of_split("test")}
    longest = [max((c for c in seconds if c.label == name), key=lambda c: seconds[c]) for name in table.labels]
    info = probe(longest[0].path)
    real_time = Sampling("rate", hz=SEQUENCE_FPS)  # clips have different frame rates
    source = folder / "sequence.mp4"
    parts = (part for clip in longest for part in stream_clip(clip.path, real_time, (info.height, info.width)))
    write_video(source, (frame for part in parts for frame in part.frames), SEQUENCE_FPS)
    timeline = predict_timeline(load(folder / "model.int8.onnx"), source)
    save_annotated(source, timeline, folder / "annotated.mp4")
