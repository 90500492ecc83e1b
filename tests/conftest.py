"""One tiny run that many tests share: the motion set, two epochs of the tiny recipe. It has learned nothing yet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TINY_CLIPS = 48
TINY_OVERRIDES = {"training.epochs": 2}


@dataclass(frozen=True)
class TinyRun:
    """Where the clips and the run lie, and what ``train`` returned."""

    clips: Path
    folder: Path
    result: dict[str, Any]

    @property
    def model(self) -> Path:
        """The float32 product."""
        return self.folder / "model.onnx"


@pytest.fixture(scope="session")
def motion_clips(tmp_path_factory) -> Path:
    """A folder with 48 clips of 64 x 64 pixels and clips.csv."""
    from vidlet.datasets import render_motion

    folder = tmp_path_factory.mktemp("motion") / "clips"
    render_motion(folder, clips=TINY_CLIPS, seed=0, size=64)
    return folder


@pytest.fixture(scope="session")
def tiny_run(motion_clips, tmp_path_factory) -> TinyRun:
    """A finished run folder; tests must not write into it."""
    from vidlet.jobs.train import train

    folder = tmp_path_factory.mktemp("tiny") / "run"
    return TinyRun(motion_clips, folder, train(motion_clips, "tiny-grid-gru", folder, TINY_OVERRIDES))
