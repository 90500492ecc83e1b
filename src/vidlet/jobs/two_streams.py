"""A file on clips and one on their optical flow as one file that takes both, scored again as it ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..artifact import write_artifact
from ..compression.two_streams import join_streams
from ..datasets import ClipTable
from ..errors import DataError, ModelError, TrainingError
from ..files import write_text
from ..runtime import Model
from ..runtime.frame_feed import FrameFeed
from ..video import read_clip
from ..video.flow import FLOW_RULE, flow_pictures
from .flow import FLOW_FILE
from .joint import joint_metadata, write_members
from .product import say_result, score_files, write_evidence
from .report import report_run
from .train import run_files

PARITY_FRAMES = 8


def join_files(
    models: Sequence[Model],
    flow: str | Path,
    weights: Sequence[float],
    clips: ClipTable,
    out: str | Path,
    split: str,
    strict: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Write ``model.onnx`` in ``out``: ``frames`` and ``flow`` in, the two files' weighted scores out; score it.

    Args:
        models: of clips, and of their flow.
        flow: the folder that ``flow_clips`` wrote and the second was scored on.
        clips: to score, of the first.

    Returns:
        {"out", "files": {name: bytes}, "metrics"}.

    Raises:
        DataError: ``flow`` has no clips of flow, or of flow of other numbers.
        ModelError: files of another size or sampling, or not of frames alone.
        TrainingError: ``out`` holds a run.
    """
    most = check_joinable(models, flow, out)
    folder, (pictures, motion) = Path(out), models
    parts = [onnx.load_from_string(model.path.read_bytes()) for model in models]
    for part in parts:
        del part.metadata_props[:]
    graph = join_streams(parts[0], parts[1], most, weights)
    names = {"pictures": pictures, "motion": motion}
    metadata = joint_metadata(graph, "two streams", names, weights) | {"flow": FLOW_RULE}

    def expected(clip: dict[str, np.ndarray], windows: int) -> np.ndarray:
        shown = (clip["frames"], flow_pictures(clip["flow"], most))
        each = [model(frames, model.zero_state(windows))[0] for model, frames in zip(models, shown, strict=True)]
        return np.asarray(sum(w * s for w, s in zip(weights, each, strict=True)), np.float32)

    folder.mkdir(parents=True, exist_ok=True)
    write_artifact(graph, folder / "model.onnx", metadata, _sample(pictures, clips), expected)
    metrics, scored = score_files(folder, ["model.onnx"], clips, strict)
    metrics |= {
        "split": split,
        "members": {name: str(model.path) for name, model in names.items()},
        "skipped": metrics["files"]["model.onnx"]["skipped"],
    }
    write_evidence(folder, ["model.onnx"], metrics, clips, command or "vidlet fuse ... --join")
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, default=float))
    write_members(folder, "two streams", dict(zip(names, weights, strict=True)))
    report_run(folder, metrics, (), scored, clips, data=str(clips.root))
    say_result(folder, metrics, ["model.onnx"])
    return {"out": str(folder), "files": run_files(folder), "metrics": metrics}


def check_joinable(models: Sequence[Model], flow: str | Path, out: str | Path) -> float:
    """The scale of the flow pictures in ``flow``, where these files can be one (see ``join_files``)."""
    if len(models) != 2:
        raise DataError(f"fuse: one file is joined of two streams, on clips and on their flow, not of {len(models)}")
    if (Path(out) / "model.onnx").exists():
        raise TrainingError(f"{out}: holds a finished run; choose another --join")
    pictures, motion = models
    for model in models:
        if list(model.inputs) != ["frames"]:
            raise ModelError(f"{model.path}: takes {' and '.join(model.inputs)}; a stream takes frames alone")
    if (pictures.input_size, pictures.sampling) != (motion.input_size, motion.sampling):
        raise ModelError(f"{motion.path}: sees frames of another size or rate than {pictures.path}; one file has one")
    return _most_pixels(flow)


def _most_pixels(data: str | Path) -> float:
    """The scale of the flow pictures in a folder."""
    path = Path(data) / FLOW_FILE
    try:
        rule = json.loads(path.read_text())
        most = float(rule.pop("most_pixels"))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: not there, or not as `vidlet extract CLIPS --flow --out FOLDER` writes it (clips that "
            "are there are kept): the second stream of one file is the one on flow"
        ) from error
    if rule != FLOW_RULE or not most > 0:
        raise DataError(f"{path}: flow of other numbers than this version computes; extract it again")
    return most


def _sample(model: Model, clips: ClipTable) -> dict[str, np.ndarray]:
    """Some frames of the first clip, and their flow."""
    clip = next(iter(clips))
    frames = read_clip(
        clip.path, model.sampling, model.input_size, start_s=clip.start_s, end_s=clip.end_s, fps=clip.fps
    ).frames
    fed = FrameFeed(("frames", "flow"))(np.resize(frames, (max(5, min(PARITY_FRAMES, len(frames))), *frames.shape[1:])))
    assert isinstance(fed, dict)
    return fed
