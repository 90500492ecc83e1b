"""Latency, throughput, memory and bytes of a model file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import runtime
from ..progress import working
from ..runs import RunFolder, alike, choose, product_of


def benchmark(
    model: str | Path, seconds: float = 5.0, threads: int = 1, provider: str = "cpu", clip_frames: int | None = None
) -> dict[str, Any]:
    """Measure a model file on random input; see ``vidlet.runtime.benchmark``.

    Of a run folder the product and the files beside it that are as good: ``files`` with the figures of each, ``ship``
    with the name of the one for this machine, which every command takes of that run from then on, and whose figures
    are those that stand first, and ``ship_line``, that in words.

    Raises:
        ModelError: the file is not a model, or cannot be run.
    """
    path = product_of(model, told=not Path(model).is_dir())

    def measured(file: Path) -> dict[str, Any]:
        with working(f"measure {file}"):
            return runtime.benchmark(file, seconds, threads, provider, clip_frames)

    if not Path(model).is_dir():
        return measured(path)
    run = RunFolder.of(model)
    files = {name: measured(run / name) for name in alike(run)}
    choice = choose(run, threads, files if provider == "cpu" else None)
    return {**files[choice.path.name], "files": files, "ship": choice.path.name, "ship_line": choice.line()}
