"""One file joined from several: its metadata, and the file of a stream on clips and one on their optical flow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..artifact import write_artifact
from ..compression.join import join_streams
from ..datasets import ClipTable
from ..errors import DataError, ModelError
from ..runs import MODEL, RunFolder
from ..runtime import Model
from ..runtime.windows import FrameFeed
from ..video.flow import FLOW_RULE, flow_pictures
from . import TASKS
from .clips import sample_video
from .flow import FLOW_FILE


def joint_metadata(
    graph: onnx.ModelProto, title: str, members: Mapping[str, Model], weights: Sequence[float]
) -> dict[str, Any]:
    """The metadata of a joint graph: the first member's, with all of them in ``recipe`` and ``provenance``.

    Args:
        members: by their names in the joint file.
    """
    return {
        **next(iter(members.values())).metadata,
        "inputs": [value.name for value in graph.graph.input if not value.name.startswith("state.")],
        "recipe": {
            "name": title,
            "members": [
                {"name": name, "weight": weight, "recipe": model.metadata.get("recipe", {}).get("name", "")}
                for (name, model), weight in zip(members.items(), weights, strict=True)
            ],
        },
        "provenance": {name: model.metadata.get("provenance", {}) for name, model in members.items()},
        "temperature": None,
        "evidence": [],
    }


def graph_of(model: Model) -> onnx.ModelProto:
    """The graph of a model file, without its metadata."""
    graph = onnx.load_from_string(model.path.read_bytes())
    del graph.metadata_props[:]
    return graph


def weighted_scores(
    models: Sequence[Model], weights: Sequence[float], feeds: Sequence[Any], windows: int
) -> np.ndarray:
    """Scores float32 (N, K) of N windows: the weighted sum of what each model says of its own feed."""
    each = [model(feed, model.zero_state(windows))[0] for model, feed in zip(models, feeds, strict=True)]
    return np.asarray(sum(w * s for w, s in zip(weights, each, strict=True)), np.float32)


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
    run, task, (pictures, motion) = RunFolder.of(out), TASKS["clips"], models
    graph = join_streams(graph_of(pictures), graph_of(motion), most, weights)
    names = {"pictures": pictures, "motion": motion}
    metadata = joint_metadata(graph, "two streams", names, weights) | {"flow": FLOW_RULE}

    def expected(clip: dict[str, np.ndarray], windows: int) -> np.ndarray:
        return weighted_scores(models, weights, (clip["frames"], flow_pictures(clip["flow"], most)), windows)

    sample = FrameFeed(("frames", "flow"))(sample_video(pictures, clips))
    assert isinstance(sample, dict)
    _held = run.hold()
    write_artifact(graph, run.model, metadata, sample, expected)
    metrics, scored = task.score_files(run, [MODEL], clips, strict)
    metrics |= {
        "split": split,
        "members": {name: str(model.path) for name, model in names.items()},
        "skipped": metrics["files"][MODEL]["skipped"],
    }
    task.write_evidence(run, [MODEL], metrics, clips, command or "vidlet fuse ... --join")
    run.write_metrics(metrics)
    run.write_members("two streams", dict(zip(names, weights, strict=True)))
    task.report(run, metrics, (), scored, clips, str(clips.root))
    task.say(run, metrics, [MODEL])
    return run.result(metrics)


def check_joinable(models: Sequence[Model], flow: str | Path, out: str | Path) -> float:
    """The scale of the flow pictures in ``flow``, where these files can be one (see ``join_files``)."""
    if len(models) != 2:
        raise DataError(f"fuse: one file is joined of two streams, on clips and on their flow, not of {len(models)}")
    RunFolder.of(out).check_free("--join")
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
