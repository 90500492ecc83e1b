"""The artifact and what runs it: load a model file, classify, stream, predict timelines, measure, take apart.

Needs numpy, onnxruntime and the video room, nothing of the training framework.
"""

from .benchmark import benchmark, reference_ms
from .inspect import inspect_artifact
from .metadata import graph_sha256, read_metadata, validate_metadata, write_metadata
from .model import Model, Moment, Prediction, StateSpec, classify_together, load
from .onnx_parts import OnnxFile
from .onnx_wire import parse_onnx
from .safety import check_safe
from .session import PROVIDERS, Session, open_session
from .sources import is_live
from .timeline import Segment, Timeline, predict_timeline, segments_from_scores, watch
from .windows import StaggeredWindows, State, Step

__all__ = [
    "PROVIDERS",
    "Model",
    "Moment",
    "OnnxFile",
    "Prediction",
    "Segment",
    "Session",
    "StaggeredWindows",
    "State",
    "StateSpec",
    "Step",
    "Timeline",
    "benchmark",
    "check_safe",
    "classify_together",
    "graph_sha256",
    "inspect_artifact",
    "is_live",
    "load",
    "open_session",
    "parse_onnx",
    "predict_timeline",
    "read_metadata",
    "reference_ms",
    "segments_from_scores",
    "validate_metadata",
    "watch",
    "write_metadata",
]
