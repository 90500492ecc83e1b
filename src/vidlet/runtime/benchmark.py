"""How fast and how large a model file is on this machine, measured in a process of its own.

A fresh process has nobody else's memory: what it peaks at is what ``load`` and the calls cost, the interpreter,
NumPy and the runtime included. ``reference_ms`` tells how many times slower one machine is than another, by
``reference.onnx``: six inverted residuals of MobileNetV2 at 14 x 14 in float32 (benchmarks/speed/make_reference.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, VidletError
from .session import open_session

MAX_CLIP_FRAMES = 256
WARM_UP = 3


def benchmark(
    path: str | Path,
    seconds: float = 5.0,
    threads: int = 1,
    provider: str = "cpu",
    clip_frames: int | None = None,
) -> dict[str, Any]:
    """Measure a model file on random input.

    Args:
        seconds: how long to measure, half for single frames, half for clips.
        threads: of one operator.
        clip_frames: length of a clip; None: that of a training clip.

    Returns:
        ``frame_ms`` and ``clip_ms`` {"p50", "p95", "least"}: one frame with the state handed on; a clip from zeros, in
        the small pieces in which ``classify`` gives it. ``fps``: frames a second one by one; ``clip_frames``,
        ``load_ms``, ``peak_rss_bytes``, ``bytes``, ``threads``, ``provider``; ``energy``, joules a frame where the
        machine has a sensor, else the ``reason``.

    Raises:
        ModelError: the file is not a model, or cannot be run.
    """
    job = {"path": str(path), "seconds": seconds, "threads": threads, "provider": provider, "clip_frames": clip_frames}
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()"]
    child = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
    except ValueError as error:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise ModelError(f"{path}: measuring it failed ({last})") from error
    if "error" in answer:
        raise _error_named(answer["kind"])(answer["error"])
    return answer


def reference_ms(seconds: float = 1.0) -> float:
    """Median milliseconds of the reference network on one thread of this machine."""
    data = (resources.files("vidlet") / "runtime" / "reference.onnx").read_bytes()
    session = open_session(data, "reference.onnx", threads=1)
    feeds = {name: np.full(shape, 0.5, np.float32) for name, shape in session.inputs.items()}
    for _ in range(3):
        session.run(None, feeds)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def _error_named(kind: str) -> type[VidletError]:
    return next((error for error in VidletError.__subclasses__() if error.__name__ == kind), ModelError)


def _main() -> None:
    """What the fresh process does: a job from standard input, one JSON object to standard output."""
    try:
        answer = _measure(**json.load(sys.stdin))
    except VidletError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(answer))


def _measure(path: str, seconds: float, threads: int, provider: str, clip_frames: int | None) -> dict[str, Any]:
    from .model import load

    started = time.perf_counter()
    model = load(path, threads, provider)
    load_ms = 1e3 * (time.perf_counter() - started)
    if clip_frames is None:
        clip_frames = max(1, min(MAX_CLIP_FRAMES, round(model.rate_hz * model.median_s)))
    rng = np.random.default_rng(0)
    clip = {name: _random(rng, name, (clip_frames, *shape)) for name, shape in model.inputs.items()}
    frames, pieces = (
        [{name: array[t : t + step] for name, array in clip.items()} for t in range(0, clip_frames, step)]
        for step in (1, model.clip_chunk)
    )
    state = model.zero_state()

    def one_frame(turn: int) -> None:
        nonlocal state
        state = model.run(frames[turn % clip_frames], state).state

    def one_clip(turn: int) -> None:
        history = None
        for piece in pieces:
            history = model.run(piece, history).state

    alone = threads == 1 and provider == "cpu"
    frame_ms = _times_ms(one_frame, seconds / 2, alone)
    clip_ms = _times_ms(one_clip, seconds / 2, alone)
    peak = peak_rss_bytes()
    energy = energy_of(one_frame, min(2.0, seconds / 2))
    return {
        "frame_ms": frame_ms,
        "clip_ms": clip_ms,
        "fps": 1e3 / frame_ms["p50"],
        "clip_frames": clip_frames,
        "load_ms": load_ms,
        "peak_rss_bytes": peak,
        "bytes": model.bytes,
        "threads": threads,
        "provider": provider,
        "energy": energy,
    }


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32) if name == "flow" else rng.integers(0, 256, shape, np.uint8)


def _times_ms(call: Callable[[int], None], seconds: float, alone: bool = False) -> dict[str, float]:
    """Median, 95th percentile and least of a call's time, for so many seconds (after 3 calls, at least 5).

    Args:
        alone: a call is one thread's work, and the least is its processor time, which nothing that runs beside
            lengthens: a call of some milliseconds is hardly ever left alone on a busy machine, a shorter one often is.
    """
    for turn in range(WARM_UP):
        call(turn)
    times: list[float] = []
    own: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        started, worked = time.perf_counter(), time.thread_time()
        call(len(times))
        times.append(1e3 * (time.perf_counter() - started))
        own.append(1e3 * (time.thread_time() - worked))
    p50, p95 = np.percentile(times, [50, 95]).tolist()
    return {"p50": p50, "p95": p95, "least": min(own if alone else times)}


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident so far; 0 where the system does not tell.

    Linux: VmHWM, because ``ru_maxrss`` of a new process begins with what its parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _windows_peak()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _windows_peak() -> int:
    """PeakWorkingSetSize of GetProcessMemoryInfo."""
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = (("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("sizes", ctypes.c_size_t * 8))

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    done = kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.sizes[0]) if done else 0


# What a computation takes of energy, where the machine has a sensor: RAPL of a processor, or a board's own.
#
# Sources: the Linux kernel's documents of powercap (energy_uj, which begins anew behind max_energy_range_uj) and of
# hwmon (energyN_input in microjoules, powerN_input and powerN_average in microwatts).
SYSTEM = Path("/sys")
EVERY_S = 0.02  # how often power is read


@dataclass(frozen=True)
class Counter:
    """A file that counts microjoules, and where it begins anew (0: never)."""

    path: Path
    span: int = 0

    def since(self, before: int, now: int) -> int:
        """Microjoules between two readings."""
        return now - before + (self.span if now < before else 0)


@dataclass(frozen=True)
class Meter:
    """A sensor: counters of energy that are added, or files that tell power, in microwatts."""

    name: str
    counters: tuple[Counter, ...] = ()
    powers: tuple[Path, ...] = ()

    @contextmanager
    def measure(self) -> Iterator[Energy]:
        """What is taken inside the with statement."""
        used, done = Energy(), threading.Event()
        started, before = time.perf_counter(), [_number(counter.path) for counter in self.counters]
        watts: list[float] = []
        reader = threading.Thread(target=self._watch, args=(watts, done), daemon=True)
        if self.powers:
            reader.start()
        try:
            yield used
        finally:
            used.seconds = time.perf_counter() - started
            done.set()
            if self.powers:
                reader.join()
                used.joules = used.seconds * sum(watts) / len(watts)
            else:
                now = [_number(counter.path) for counter in self.counters]
                parts = zip(self.counters, before, now, strict=True)
                used.joules = sum(counter.since(a, b) for counter, a, b in parts) / 1e6

    def _watch(self, watts: list[float], done: threading.Event) -> None:
        while True:
            watts.append(sum(map(_number, self.powers)) / 1e6)
            if done.wait(EVERY_S):
                return


@dataclass
class Energy:
    """Joules that were taken in so many seconds."""

    joules: float = 0.0
    seconds: float = 0.0

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds if self.seconds else 0.0


@dataclass
class Found:
    """The sensor of this machine, or why there is none."""

    meter: Meter | None = None
    reason: str = "this machine has no sensor of energy (RAPL, hwmon)"
    tried: list[Path] = field(default_factory=list)


def find_meter(system: Path = SYSTEM) -> Found:
    """The processor's counters, else a board's counters, else a board's power, as far as they may be read."""
    found = Found()
    for make in (_rapl, _board_energy, _board_power):
        if (meter := make(system, found.tried)) is not None:
            return Found(meter, "")
    if found.tried:
        found.reason = f"the sensor of energy may not be read ({found.tried[0]}): run as root, or make it readable"
    return found


def _rapl(system: Path, tried: list[Path]) -> Meter | None:
    zones = [zone for zone in sorted((system / "class" / "powercap").glob("*-rapl:*")) if zone.name.count(":") == 1]
    packages = [zone for zone in zones if not _text(zone / "name").startswith("psys")] or zones  # psys holds the others
    kept = _readable([zone / "energy_uj" for zone in packages], tried)
    counters = tuple(Counter(path, _number(path.parent / "max_energy_range_uj")) for path in kept)
    return Meter(f"RAPL, {', '.join(_text(path.parent / 'name') for path in kept)}", counters) if counters else None


def _board_energy(system: Path, tried: list[Path]) -> Meter | None:
    kept = _readable(sorted((system / "class" / "hwmon").glob("hwmon*/energy*_input")), tried)
    return Meter(_chips(kept), tuple(map(Counter, kept))) if kept else None


def _board_power(system: Path, tried: list[Path]) -> Meter | None:
    chips = sorted((system / "class" / "hwmon").glob("hwmon*"))
    each = [sorted(chip.glob("power*_input")) or sorted(chip.glob("power*_average")) for chip in chips]
    kept = _readable([path for paths in each for path in paths[:1]], tried)  # a chip's first rail is its whole
    return Meter(_chips(kept), powers=tuple(kept)) if kept else None


def _chips(paths: list[Path]) -> str:
    return f"hwmon, {', '.join(dict.fromkeys(_text(path.parent / 'name') for path in paths))}"


def _readable(paths: list[Path], tried: list[Path]) -> list[Path]:
    kept = []
    for path in paths:
        try:
            int(path.read_text())
        except (OSError, ValueError):
            if path.exists():
                tried.append(path)
            continue
        kept.append(path)
    return kept


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def energy_of(frame: Callable[[int], None], seconds: float, system: Path = SYSTEM) -> dict[str, object]:
    """``source``, ``frame_j``, ``watts`` and ``idle_w`` (nothing computed) of repeated calls; or why there is none.

    The sensor sees the whole machine: what else runs counts, too. ``frame_j`` is all of it over the calls.
    """
    found = find_meter(system)
    if found.meter is None:
        return {"source": None, "frame_j": None, "reason": found.reason}
    with found.meter.measure() as idle:
        time.sleep(min(1.0, seconds))
    calls, end = 0, time.perf_counter() + seconds
    with found.meter.measure() as used:
        while calls < 5 or time.perf_counter() < end:
            frame(calls)
            calls += 1
    return {
        "source": found.meter.name, "frame_j": used.joules / calls, "watts": used.watts, "idle_w": idle.watts
    }  # fmt: skip
