"""Tasks: what clips, images with boxes and records of stored features need of each command, one record each.

The functions ``task_of_...`` are the only place that asks which kind of data or of model something is. Nothing that is
imported here needs torch.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..datasets import BoxTable, ClipTable, box_kind, check_records_trainable, check_trainable
from ..datasets.read import stores_features
from ..recipe import Recipe
from ..runs import BOXES as BOX_LIST
from ..runtime import Model
from . import boxes, clips, records
from .box_pages import inspect_boxes, report_boxes, write_view
from .clip_report import report_clips
from .compare import compare_models
from .predictions import predict_boxes, predict_clips
from .task import DataSource, Task, scored_split

if TYPE_CHECKING:
    from ..compression import Trained, TrainedBoxes
    from .networks import Networks

__all__ = [
    "TASKS",
    "DataSource",
    "Task",
    "name_of_recipe_task",
    "scored_split",
    "task_of_data",
    "task_of_model",
    "task_of_recipe",
]

DETECTOR_HEAD = "region"  # head.name of a recipe for a detector


def _classifiers() -> Networks[ClipTable, Trained]:
    from .clip_networks import CLASSIFIERS

    return CLASSIFIERS


def _detectors() -> Networks[BoxTable, TrainedBoxes]:
    from .box_networks import DETECTORS

    return DETECTORS


_CLIPS: Task[ClipTable, clips.Scored] = Task(
    name="clips",
    unit="clip",
    read=clips.read_videos,
    check=check_trainable,
    inspect=clips.inspect_clips,
    score=clips.score_clips,
    summarize=clips.summarize,
    figures=clips.figures_of,
    to_csv=clips.predictions_csv,
    differ=clips.differ,
    headline=clips.headline,
    evidence=clips.headline,
    line=clips.quality_line,
    report=report_clips,
    predict=predict_clips,
    networks=_classifiers,
    sample=clips.sample_video,
    compare=compare_models,
)
_RECORDS = replace(
    _CLIPS,
    name="records",
    read=records.read_record_clips,
    check=check_records_trainable,
    report=partial(report_clips, pictures=False),
    predict=records.predict_wanted,
    sample=records.sample_record,
    refuses={
        "space": "fit: a space is of extractors; these data are stored features",
        "fine_tune": "--fine-tune: takes videos; these data are stored features",
        "none": "--none: takes videos; these data are stored features (a class of them can be called so in clips.csv)",
    },
)
_BOXES: Task[BoxTable, boxes.ScoredImages] = Task(
    name="boxes",
    unit="image",
    read=boxes.read_box_images,
    check=boxes.check_boxes_trainable,
    inspect=inspect_boxes,
    score=boxes.score_images,
    summarize=boxes.summarize_boxes,
    figures=boxes.figures_of_boxes,
    to_csv=boxes.boxes_csv,
    differ=boxes.differ,
    headline=lambda figures: boxes.HEADLINE,
    evidence=lambda figures: boxes.EVIDENCE,
    line=boxes.quality_line,
    report=report_boxes,
    predict=predict_boxes,
    networks=_detectors,
    listing=BOX_LIST,
    view=write_view,
    remarks=boxes.box_remarks,
    refuses={
        "fold": "--fold: images with boxes have no groups; give splits (docs/data.md)",
        "init": "--init: not for detectors",
        "refit_all": "--refit-all: not for detectors",
        "teachers": "--teacher: not for detectors",
        "space": "fit: a space is of extractors; these data are images with boxes",
        "fine_tune": "--fine-tune: takes videos; detectors are trained end to end in any case",
        "val_shards": "--val-shards: not for detectors",
        "none": "--none: not for detectors; an image without boxes is their background",
        "against": "--against: compares files of one label a clip, not detectors (vidlet compare does)",
        "ensemble": "ensemble: members name clips; detectors are not joined",
    },
)
TASKS: dict[str, Task[Any, Any]] = {task.name: task for task in (_CLIPS, _BOXES, _RECORDS)}


def task_of_data(path: str | os.PathLike[str]) -> Task[Any, Any]:
    """The task of a user's data: images with boxes, records of stored features, or else clips."""
    if box_kind(path) is not None:
        return TASKS["boxes"]
    return TASKS["records" if stores_features(path) else "clips"]


def task_of_recipe(recipe: Recipe, data: str | os.PathLike[str]) -> Task[Any, Any]:
    """The task of a recipe on some data: a detector's, or the data's own."""
    if recipe.head.name == DETECTOR_HEAD:
        return TASKS["boxes"]
    return TASKS["records" if stores_features(data) else "clips"]


def name_of_recipe_task(recipe: Recipe) -> str:
    """The task that a recipe was made for, as its head and extractor say."""
    if recipe.head.name == DETECTOR_HEAD:
        return "boxes"
    return "records" if recipe.extractor.name == "features" else "clips"


def task_of_model(model: Model) -> Task[Any, Any]:
    """The task of a model file: it detects, takes stored features, or names clips."""
    if model.box_labels and not model.labels:
        return TASKS["boxes"]
    return TASKS["records" if "rgb" in model.inputs else "clips"]
