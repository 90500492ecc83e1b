"""Latency, throughput, memory and bytes of a model file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import runtime
from ..progress import working
from ..runs import product_of


def benchmark(
    model: str | Path, seconds: float = 5.0, threads: int = 1, provider: str = "cpu", clip_frames: int | None = None
) -> dict[str, Any]:
    """Measure a model file, or the one of a run folder, on random input; see ``vidlet.runtime.benchmark``.

    Raises:
        ModelError: the file is not a model, or cannot be run.
    """
    path = product_of(model)
    with working(f"measure {path}"):
        return runtime.benchmark(path, seconds, threads, provider, clip_frames)
