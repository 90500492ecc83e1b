"""Which file of a run is the one for this machine: the quickest of those that cost no accuracy.

What is quicker differs: integers are computed fast by processors with VNNI, and hardly faster than float32 by older
ones. So the files are measured here, once, and what was found is remembered (in the cache, by processor and content).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import VidletError
from ..files import cache_folder, sha256_of, write_text
from ..progress import say, working
from .folder import MODEL, RunFolder, product_of

MOST_LOST = 0.01  # of accuracy (or mAP, GAP): a file that loses more is never taken for its speed
LEAST_GAIN = 1.1  # times quicker than the product: less may be chance
QUICK_S = 0.4  # seconds for which a file is measured where nobody asked for figures


@dataclass(frozen=True)
class Choice:
    """The file to ship to this machine, how many times quicker than the product it is, and what it costs."""

    path: Path
    times: float = 1.0
    lost: float = 0.0

    def line(self) -> str:
        """In words, for people."""
        quicker = f"{self.times:.1f} times quicker on this machine than {MODEL}"
        return f"{self.path} ({quicker}, {-100 * self.lost:+.1f} points)" if self.times > 1 else str(self.path)


def quickest(source: str | Path, threads: int = 1) -> Path:
    """A model file as it is named; of a run folder the file for this machine, which is said.

    Raises:
        ModelError: a folder without a product.
    """
    if not Path(source).is_dir() or len(alike(RunFolder.of(source))) < 2:
        return product_of(source)
    choice = choose(RunFolder.of(source), threads)
    say(f"model   {choice.line()}")
    return choice.path


def alike(run: RunFolder) -> dict[str, float]:
    """The product and the files beside it that were measured to be as good: name -> the accuracy that each loses."""
    product = run.model.name
    try:
        files = run.metrics()["files"]
    except VidletError:
        files = {}
    lost = {
        name: -float(figures["difference"]["mean"])
        for name, figures in files.items()
        if isinstance(figures, dict)
        and isinstance(figures.get("difference"), dict)
        and isinstance(figures["difference"].get("mean"), (int, float))
        and figures["difference"].get("against") == product
        and (run / name).is_file()
    }
    return {product: 0.0, **{name: loss for name, loss in lost.items() if loss <= MOST_LOST}}


def choose(run: RunFolder, threads: int = 1, measured: Mapping[str, Any] | None = None) -> Choice:
    """The quickest of the files that are alike, by ``frame_ms`` as ``benchmark`` measures it.

    Args:
        measured: figures of ``benchmark`` by name, to be remembered; None: remembered ones, or measured now.
    """
    files = alike(run)
    note = cache_folder("speed", f"{_key(run, list(files), threads)}.json")
    if measured is not None:
        times = {name: float(measured[name]["frame_ms"]["p50"]) for name in files}
        write_text(note, json.dumps(times))
    else:
        times = _remembered(note, list(files)) or _measured(run, list(files), threads, note)
    product = run.model.name
    best = min(times, key=times.__getitem__)
    gain = times[product] / times[best] if times[best] > 0 else 1.0
    return Choice(run / best, gain, files[best]) if gain >= LEAST_GAIN else Choice(run.model)


def _measured(run: RunFolder, names: list[str], threads: int, note: Path) -> dict[str, float]:
    from ..runtime import benchmark

    with working("measure which file of the run is the quickest here, once"):  # by frames: clips take minutes
        found = {name: benchmark(run / name, QUICK_S, threads, clip_frames=1) for name in names}
    times = {name: float(figures["frame_ms"]["p50"]) for name, figures in found.items()}
    write_text(note, json.dumps(times))
    return times


def _remembered(note: Path, names: list[str]) -> dict[str, float]:
    """What a note says; {} where it is absent or damaged."""
    try:
        found = json.loads(note.read_text("utf-8"))
        times = {name: float(found[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return times if all(0 < time < 1e9 for time in times.values()) else {}


def _key(run: RunFolder, names: list[str], threads: int) -> str:
    """Hash of what decides how quick files are: their content, the processor, ONNX Runtime and the threads."""
    import onnxruntime

    about = [_processor(), onnxruntime.__version__, threads, *((name, sha256_of(run / name)) for name in names)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _processor() -> str:
    """The processor's name and what it can, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    try:
        lines = told.read_text("utf-8", "replace").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if line.lower().startswith(("model name", "flags", "features", "cpu part"))]
    return "\n".join([platform.machine(), platform.processor(), *kept])
