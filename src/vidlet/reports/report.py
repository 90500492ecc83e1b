"""What a report is made of: plain data, every part optional; a part that is missing leaves its section out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import Difference, Reliability
from ..runs import MODEL
from .markup import Section


@dataclass(frozen=True)
class FileRow:
    """A file or a baseline beside the others. ``difference`` is this one minus the first row, on the same clips."""

    name: str
    kind: str = ""  # "float32", "int8", "baseline: mean of frames"
    accuracy: float | None = None
    interval: Sequence[float] | None = None  # low, high
    difference: Difference | None = None
    bytes: int | None = None
    frame_ms: Mapping[str, float] | None = None  # {"p50": ..., "p95": ...}


@dataclass(frozen=True)
class Mistake:
    """A clip that was named wrongly: frames uint8 (T, H, W, 3) and what was said of it."""

    frames: NDArray[np.uint8]
    label: str
    predicted: str
    score: float  # of the predicted class
    name: str  # of the file
    label_score: float | None = None  # of the true class
    fps: float = 8.0


@dataclass(frozen=True)
class PartRow:
    """A part of the model file: its bytes, tensors and parameters, and how they are stored ("int8", "float32")."""

    name: str
    bytes: int
    tensors: int | None = None
    parameters: int | None = None
    storage: str = ""


@dataclass(frozen=True)
class Command:
    """Text to copy and what it does."""

    title: str
    text: str


@dataclass(frozen=True)
class DataSummary:
    """What the model learned from and was tested on: clips by split and class, and what was wrong with them."""

    clips: Mapping[str, Mapping[str, int]]  # {"train": {"run": 12, ...}, "test": ...}
    warnings: Sequence[str] = ()
    skipped: Sequence[Mapping[str, str]] = ()  # {"path", "error"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page. ``metrics`` is ``classification_summary``'s dict, of the file named ``product``."""

    title: str
    summary: str = ""  # one sentence: what the model does
    product: str = MODEL  # the file that is shown, which is the one to ship
    ship: str = ""  # its path, and why it is this one
    split: str = "test"
    groups: int | None = None  # groups among the evaluated clips, which the interval resamples
    metrics: Mapping[str, Any] | None = None
    bytes: int | None = None
    frame_ms: Mapping[str, float] | None = None  # {"p50", "p95"}
    machine: str = ""  # where the times were taken: "x86-64, 1 thread"
    files: Sequence[FileRow] = ()
    log: Sequence[Mapping[str, Any]] = ()  # rows of log.csv: epoch, train_loss, val_loss, train_accuracy, val_accuracy
    reliability: Reliability | None = None
    temperature: float | None = None
    mistakes: Sequence[Mistake] = ()
    parts: Sequence[PartRow] = ()
    commands: Sequence[Command] = ()
    client: str = ""  # Python source
    data: DataSummary | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    recipe_toml: str = ""
    first: Sequence[Section] = ()  # what the page is about, before the files
    beside: Sequence[Section] = ()  # what the files are compared with, behind them
    extra: Sequence[Section] = ()  # further sections, before the data
