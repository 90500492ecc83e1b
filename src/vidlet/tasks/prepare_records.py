"""Stored features made ready for the training loop: the recipe as it is for them, batches, samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..datasets import ClipTable
from ..datasets.frame_record import frame_codes
from ..errors import DataError, RecipeError
from ..models import FrameExtractor, build_extractor
from ..models.extractor import StoredFeatures
from ..models.heads import head_options
from ..models.options import checked_options, refuse_unread
from ..recipe import Recipe, recipe_names
from ..training.record_clips import RecordClips
from .prepare import CALIBRATION_CLIPS, Prepared, one_way_clips, prepare_features, prepare_frames, sample_clips

EXTRACTOR = "features"  # extractor.name of a recipe whose data are stored features
KEEP_BYTES = 2_000_000_000  # of records that training holds in memory; the rest is read from the shards again
DENSE_BYTES = 1_000_000_000  # of targets (N, K) that stand in memory as they are


def recipe_for(plan: Recipe, table: ClipTable) -> Recipe:
    """A recipe as it is for this data: of stored features, the head's option ``audio`` is how wide the sound is.

    Raises:
        RecipeError: a recipe for videos and data of features, or the other way round; options that do not fit.
    """
    if table.records is None:
        if plan.extractor.name == EXTRACTOR:
            raise RecipeError(f"{plan.name}: is for stored features; {table.root} holds videos (docs/recipes.md)")
        return plan
    if plan.extractor.name != EXTRACTOR:
        fitting = [name for name in recipe_names() if name.startswith(("gated-netvlad", "nextvlad", "records"))]
        raise RecipeError(
            f"{plan.name}: computes features from videos; {table.root} holds stored features: take --recipe "
            f"{', '.join(fitting)} or another with extractor.name '{EXTRACTOR}'"
        )
    for key, value, wanted in (("mode", plan.training.mode, "frozen"), ("rule", plan.sampling.rule, "rate")):
        if value != wanted:
            section = "training" if key == "mode" else "sampling"
            raise RecipeError(f"{plan.name}: {section}.{key} must be '{wanted}' for stored features, got {value!r}")
    width = widths_of(plan, table).get("audio", 0)
    options = dict(plan.head.options)
    if "audio" in head_options(plan.head.name):
        if options.get("audio", width) not in (0, width):
            raise RecipeError(
                f"{plan.name}: head.options.audio is {options['audio']}; the data have {width} numbers of sound a frame"
            )
        options.setdefault("audio", width)
    return replace(plan, head=replace(plan.head, options=options))


def widths_of(plan: Recipe, table: ClipTable) -> dict[str, int]:
    """Numbers a frame of each modality that the recipe uses."""
    assert table.records is not None
    refuse_unread(EXTRACTOR, plan.extractor, ())
    options = checked_options(f"extractor {EXTRACTOR}", plan.extractor.options, {"audio": True})
    with_sound = options.get("audio", True)
    return {key: width for key, width in table.records.widths.items() if key != "audio" or with_sound}


def extractor_for(plan: Recipe, table: ClipTable) -> FrameExtractor:
    """The extractor of a recipe, or the stored features of the data."""
    return build_extractor(plan.extractor) if table.records is None else StoredFeatures(widths_of(plan, table))


def prepare_clips(plan: Recipe, table: ClipTable, extractor: FrameExtractor, strict: bool) -> Prepared:
    """What the loop takes: records, stored features of videos, or their frames."""
    if plan.training.val_too:
        table = with_val(table)
    if table.records is not None:
        return prepare_records(plan, table, tuple(widths_of(plan, table)))
    return (prepare_features if plan.training.mode == "frozen" else prepare_frames)(plan, table, extractor, strict)


def with_val(table: ClipTable) -> ClipTable:
    """The table with its validation clips among the training ones, where others test; they stay what is watched."""
    known = {(clip.path, clip.row, clip.start_s, clip.end_s) for clip in table.of_split("train")}
    if not len(table.of_split("test")):
        return table
    more = [c for c in table.of_split("val") if (c.path, c.row, c.start_s, c.end_s) not in known]
    return table.with_clips([*table, *(replace(clip, split="train") for clip in more)])


def prepare_records(plan: Recipe, table: ClipTable, keys: tuple[str, ...]) -> Prepared:
    """Training and validation records as batches, read from the shards where they do not fit into memory.

    Raises:
        DataError: no record in one of the two splits.
    """
    assert table.records is not None
    found: dict[str, RecordClips] = {}
    for split in ("train", "val"):
        clips = [clip for clip in table if clip.split == split and clip.row is not None]
        if not clips:
            raise DataError(f"{table.root}: no readable record in split {split}")
        rows = [clip.row for clip in clips if clip.row is not None]
        one_way = one_way_clips(clips, table.labels, plan.training.one_way)
        found[split] = RecordClips(
            table.records, rows, len(table.labels), keys, plan.sampling.max_frames, one_way, KEEP_BYTES
        )
    mean, std = found["train"].moments()
    dense = len(table) * len(table.labels) * 4 <= DENSE_BYTES
    train, val = (found[split].dense(std) if dense else found[split] for split in ("train", "val"))
    frames = [max(1, table.records.frames[row]) for row in found["train"].rows]
    median_s = float(np.median(frames)) / plan.sampling.hz
    used = tuple(clip for clip in table if clip.split == "train" and clip.row is not None)
    return Prepared(train, val, (), median_s, mean, std, used)


def samples_of(plan: Recipe, table: ClipTable) -> list[np.ndarray]:
    """Some training clips, spread over the table, to calibrate on: frames, or codes (T, D) of records."""
    if table.records is None:
        return sample_clips(table, plan)
    rows = [clip.row for clip in table.of_split("train") if clip.row is not None]
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(CALIBRATION_CLIPS, len(rows))).astype(int)]
    keys = tuple(widths_of(plan, table))
    return [frame_codes(table.records.read(row), keys)[: plan.sampling.max_frames] for row in chosen]
