"""Clip tables: read from what people have, split by group, inspected; and the built-in motion set."""

from .background import Background, between_segments, with_background
from .boxes import Box, BoxImage, BoxTable, box_kind, read_boxes, with_box_splits
from .check import DataReport, check_records_trainable, check_trainable, inspect_table
from .frame_record import Record, dequantize, quantize
from .media import VIDEO_SUFFIXES, clips_below
from .motion import MOTION_PAIRS, render_motion
from .read import AtRate, read_table
from .record_table import read_record_table
from .records import Checks, Problem, RecordSet, read_records, write_records
from .residual import render_residual
from .splits import given_folds, group_folds, leave_one_group_out, with_splits
from .table import SPLITS, Clip, ClipTable

__all__ = [
    "MOTION_PAIRS",
    "SPLITS",
    "VIDEO_SUFFIXES",
    "AtRate",
    "Background",
    "Box",
    "BoxImage",
    "BoxTable",
    "Checks",
    "Clip",
    "ClipTable",
    "DataReport",
    "Problem",
    "Record",
    "RecordSet",
    "between_segments",
    "box_kind",
    "check_records_trainable",
    "check_trainable",
    "clips_below",
    "dequantize",
    "given_folds",
    "group_folds",
    "inspect_table",
    "leave_one_group_out",
    "quantize",
    "read_boxes",
    "read_record_table",
    "read_records",
    "read_table",
    "render_motion",
    "render_residual",
    "with_background",
    "with_box_splits",
    "with_splits",
    "write_records",
]
