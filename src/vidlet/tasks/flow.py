"""Optical flow of clips, computed once and stored as clips of pictures: the data of a network's second stream.

A file that sees flow is a file on frames whose frames are flow pictures (video/flow.py). It is trained, exported and
streamed like any other; its scores are averaged with those of the stream on pictures (fuse.py).
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..datasets import Clip, ClipTable
from ..errors import DataError, RecipeError, VidletError
from ..files import Lock, write_text
from ..labels import join_labels
from ..progress import bar, say
from ..recipe import Recipe, load_recipe
from ..video import read_clip, read_many
from ..video.flow import FLOW_RULE, MOST_PIXELS, flow_pictures, stored_flow
from .clips import labelled_clips

FLOW_FILE = "flow.json"  # beside the clips.csv of a folder of flow: how its pictures were made
FOLDER_HZ = 25.0  # the rate at which folders of frame images are read


def flow_clips(
    data: str | Path,
    out: str | Path | None,
    recipe: str | Path | Recipe = "ucf-flow",
    overrides: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Write Farneback flow of every clip as a folder of PNG pictures, and clips.csv with the labels, groups and splits.

    ``flow.json`` beside it says how the flow was computed and what a level of a picture is.

    Flow is that of the frames which the recipe's sampling and size give. Clips that are there already are kept (see
    ``write_pictures``).

    Returns:
        {"out", "files": {"clips.csv": bytes}, "metrics": {"clips", "computed"}, "skipped"}.

    Raises:
        RecipeError: a recipe that does not sample at 25 frames a second, the rate of folders of images.
        DataError: no ``out``, or none of the clips can be read. DependencyError: OpenCV is not installed.
    """
    plan = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if plan.sampling.rule != "rate" or plan.sampling.hz != FOLDER_HZ:
        raise RecipeError(
            f"flow needs a recipe that samples at {FOLDER_HZ:g} frames a second, the rate of folders of images; "
            f"{plan.name} has rule {plan.sampling.rule!r}, {plan.sampling.hz:g} Hz; ucf-flow does"
        )
    if out is None:
        raise DataError("flow: name the folder for the flow clips with --out")

    def pictures(clip: Clip) -> Iterable[np.ndarray]:
        size, sampling = plan.extractor.input_size, plan.sampling
        frames = read_clip(clip.path, sampling, size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps).frames
        return flow_pictures(stored_flow(frames))

    root, table = Path(out), labelled_clips(data, strict=strict)
    found = write_pictures(table, root, pictures, "flow", strict)
    write_text(root / FLOW_FILE, json.dumps(FLOW_RULE | {"most_pixels": MOST_PIXELS}, indent=1))
    return found


def write_pictures(
    table: ClipTable, root: Path, pictures: Callable[[Clip], Iterable[np.ndarray]], what: str, strict: bool = False
) -> dict[str, Any]:
    """Write every clip as a folder of PNG pictures, and clips.csv with the labels, groups and splits.

    Clips that are there already are kept, where they were made of a file of the same size and time: a run that was
    killed goes on where it was, and other data of the same names are not taken for these.

    Args:
        pictures: clip -> its pictures uint8 (H, W, 3).
        what: they are, for messages.

    Returns:
        See ``flow_clips``.

    Raises:
        DataError: none of the clips can be read; with ``strict``, one of them.
    """
    _held = Lock(root).hold()
    made, failures = 0, []

    def write(clip: Clip) -> bool:
        folder = root / stream_name(clip, table)
        mark, source = folder / "whole", _identity(clip)
        if mark.exists() and mark.read_text("utf-8").endswith(f" {source}\n"):
            return False
        found = list(pictures(clip))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(found):
            Image.fromarray(picture).save(folder / f"{number:05d}.png")
        write_text(mark, f"{len(found)} frames of {source}\n")
        return True

    rows: list[Clip] = []
    with bar(what) as move:
        for done, (clip, result) in enumerate(read_many(list(table), write), 1):
            move(done, len(table))
            if isinstance(result, VidletError):
                if strict:
                    raise result
                failures.append((str(clip.path), str(result)))
                continue
            made += result
            rows.append(clip)
    if not rows:
        raise DataError(f"{table.root}: no clip could be read; first: {failures[0][1]}")
    write_text(root / "clips.csv", _csv(rows, table))
    say(f"{root}: {what} of {len(rows)} clips ({made} new, {len(failures)} skipped)")
    return {
        "out": str(root),
        "files": {"clips.csv": (root / "clips.csv").stat().st_size},
        "metrics": {"clips": len(rows), "computed": made},
        "skipped": [{"path": path, "error": error} for path, error in (*table.skipped, *failures)],
    }


def _identity(clip: Clip) -> str:
    """What tells a file, or a folder of frames, from another of its name."""
    try:
        told = clip.path.stat()
    except OSError as error:
        raise DataError(f"{clip.path}: cannot be read ({error.strerror})") from error
    return f"{told.st_size} bytes, changed at {told.st_mtime_ns} ns"


def stream_name(clip: Clip, table: ClipTable) -> str:
    """What a clip is called in every stream: its path below the table's root, without dots, and its interval."""
    path = clip.path.relative_to(table.root) if clip.path.is_relative_to(table.root) else Path(clip.path.name)
    times = "" if clip.start_s is None and clip.end_s is None else f"_{clip.start_s or 0:g}-{clip.end_s or 0:g}"
    return (path.as_posix() + times).replace(".", "_")


def _csv(clips: list[Clip], table: ClipTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split"])
    for clip in clips:
        writer.writerow([stream_name(clip, table), join_labels(clip.labels), clip.group, clip.split])
    return text.getvalue()
