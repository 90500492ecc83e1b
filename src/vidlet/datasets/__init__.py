"""Clip tables: read from what people have, split by group, inspected; and the built-in motion set."""

from .boxes import Box, BoxImage, BoxTable, box_kind, read_boxes, with_box_splits
from .check import DataReport, check_trainable, inspect_table
from .folders import VIDEO_SUFFIXES
from .motion import MOTION_PAIRS, render_motion
from .read import read_table
from .splits import group_folds, leave_one_group_out, with_splits
from .table import SPLITS, Clip, ClipTable

__all__ = [
    "MOTION_PAIRS",
    "SPLITS",
    "VIDEO_SUFFIXES",
    "Box",
    "BoxImage",
    "BoxTable",
    "Clip",
    "ClipTable",
    "DataReport",
    "box_kind",
    "check_trainable",
    "group_folds",
    "inspect_table",
    "leave_one_group_out",
    "read_boxes",
    "read_table",
    "render_motion",
    "with_box_splits",
    "with_splits",
]
