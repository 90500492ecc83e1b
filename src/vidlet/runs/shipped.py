"""The one file of a run to ship: of those that cost no accuracy the quickest on this machine, and of equally quick ones
the smallest.

What is quicker differs: integers are computed fast by processors with VNNI, and hardly faster than float32 by older
ones. So the files are measured here, once, and what was found is remembered (in the cache, by processor and content).
Every command that is given a run and needs one model file takes this one; what is made from a run (``export``,
``compress``, ``--init``, ``--teacher``, ``label``) begins with its product.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import VidletError
from ..files import cache_folder, sha256_of, write_text
from ..progress import say, working
from .folder import MODEL, RunFolder, product_of

MOST_LOST = 0.01  # of accuracy (or mAP, GAP): a file that loses more is never shipped for its speed
ALIKE_TIMES = 1.1  # of the quickest file's time: less may be chance, and the smaller file goes first
QUICK_S = 0.4  # seconds for which a file is measured where nobody asked for figures


@dataclass(frozen=True)
class Choice:
    """The file to ship, and why it is this one, in half a sentence; "" where there is no other."""

    path: Path
    why: str = ""

    def line(self) -> str:
        """In words, for people."""
        return f"{self.path} ({self.why})" if self.why else str(self.path)


def shipped(source: str | Path, threads: int = 1, told: bool = True) -> Path:
    """A model file as it is named; of a run, or a ready model that is one, the file to ship.

    Args:
        told: say which file that is.

    Raises:
        ModelError: a folder without a product, or a ready model that is not on this machine yet.
    """
    path = product_of(source, told=False)
    if path == Path(source) or path.name != MODEL:
        return product_of(source, told)
    choice = choose(RunFolder.of(path.parent), threads)
    if told:
        say(f"model   {choice.line()}")
    return choice.path


def choose(run: RunFolder, threads: int = 1, measured: Mapping[str, Any] | None = None) -> Choice:
    """The file to ship: the smallest of those that are alike and about as quick as the quickest.

    Args:
        measured: figures of ``benchmark`` by name, to be remembered; None: remembered ones, or measured now.
    """
    files, product = alike(run), run.model.name
    if len(files) == 1:
        return Choice(run.model, _loses(run))
    note = cache_folder("speed", f"{_key(run, list(files), threads)}.json")
    if measured is not None and measured.keys() >= files.keys():
        times = {name: _least_ms(measured[name]) for name in files}
        _keep(note, times)
    else:
        times = _remembered(note, list(files)) or _measured(run, list(files), threads, note)
    quick = [name for name in files if times[name] <= ALIKE_TIMES * min(times.values())]
    best = min(quick, key=lambda name: (_bytes(run, name), name != product, times[name]))
    if best != product:
        return Choice(run / best, _gains(run, best, times[product] / max(times[best], 1e-9)))
    other = min((name for name in files if name != product), key=lambda name: _bytes(run, name))
    if _bytes(run, other) >= _bytes(run, product):
        return Choice(run.model, f"the smallest of {len(files)} that are as good")
    return Choice(run.model, f"{other} is {times[other] / max(times[product], 1e-9):.1f} times slower on this machine")


def alike(run: RunFolder) -> dict[str, float]:
    """The product and the files beside it that were measured to be as good: name -> the accuracy that each loses."""
    lost = {name: -float(difference["mean"]) for name, difference in _differences(run).items()}
    return {run.model.name: 0.0, **{name: loss for name, loss in lost.items() if loss <= MOST_LOST}}


def _differences(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """The files beside the product: name -> how their accuracy differs from its, in pairs."""
    try:
        files = run.metrics()["files"]
    except VidletError:
        files = {}
    return {
        name: figures["difference"]
        for name, figures in files.items()
        if isinstance(figures, dict)
        and isinstance(figures.get("difference"), dict)
        and isinstance(figures["difference"].get("mean"), (int, float))
        and figures["difference"].get("against") == run.model.name
        and (run / name).is_file()
    }


def _gains(run: RunFolder, name: str, times: float) -> str:
    """What a file gains over the product, and what it costs."""
    smaller = _bytes(run, run.model.name) / _bytes(run, name)
    quicker = f"{times:.1f} times quicker" if times > ALIKE_TIMES else "as quick" if times > 1 / ALIKE_TIMES else ""
    gains = [f"{quicker} on this machine"] if quicker else []
    if smaller > 1:
        gains.append(f"{smaller:.1f} times smaller")
    return f"{' and '.join(gains)}, against {run.model.name}: {_points(_differences(run)[name])}"


def _loses(run: RunFolder) -> str:
    """Why no file beside the product may be shipped: what the smallest of them loses."""
    differences = _differences(run)
    if not differences:
        return ""
    small = min(differences, key=lambda name: _bytes(run, name))
    return (
        f"{small}, {_bytes(run, run.model.name) / _bytes(run, small):.1f} times smaller, costs more than a point: "
        + (_points(differences[small]))
    )


def _points(difference: Mapping[str, Any]) -> str:
    """A difference in points, with its interval where that is known."""
    told = f"{100 * difference['mean']:+.1f} points"
    bounds = [difference.get(key) for key in ("low", "high")]
    known = [bound for bound in bounds if isinstance(bound, (int, float))]
    return f"{told} [{100 * known[0]:+.1f}, {100 * known[1]:+.1f}]" if len(known) == 2 else told


def _bytes(run: RunFolder, name: str) -> int:
    return (run / name).stat().st_size


def _keep(note: Path, times: Mapping[str, float]) -> None:
    """Remember what was measured; where the cache cannot be written it is measured again."""
    with suppress(OSError):
        write_text(note, json.dumps(times))


def _measured(run: RunFolder, names: list[str], threads: int, note: Path) -> dict[str, float]:
    from ..runtime import benchmark

    with working("measure which file of the run is to be shipped here, once"):  # by frames: clips take minutes
        found = {name: benchmark(run / name, QUICK_S, threads, clip_frames=1) for name in names}
    times = {name: _least_ms(figures) for name, figures in found.items()}
    _keep(note, times)
    return times


def _least_ms(figures: Mapping[str, Any]) -> float:
    """What a frame takes while nothing else disturbs: files are compared by that, one after the other."""
    times = figures["frame_ms"]
    return float(times.get("least", times["p50"]))


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
